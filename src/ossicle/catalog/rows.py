"""The catalogue: published weights by name, as data (checkpoints.toml, labels/). No torch, no network."""

import difflib
import fnmatch
import functools
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ossicle.errors import ModelUnknown

HERE = Path(__file__).parent
GENERAL = "general"  # name of the encoder in the package, whatever its version
SHIPPED = "shipped"  # folder of the bundles that the package has
UNKNOWN = "unknown"
FLOAT_BYTES = 4  # of a number in a published file


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How good the weights are, as their authors report it."""

    name: str
    value: float
    data: str
    """The test part of which."""
    source: str
    """Where they report it."""

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4g}"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One published file of weights, or a bundle in the package. What no source states is None, or empty."""

    name: str
    """ARCHITECTURE.TAG."""
    aliases: Sequence[str] = ()
    """Names that it has elsewhere."""
    url: str
    file: str
    """Name on disk."""
    shipped: bool = False
    """Whether it is in the package, as a bundle: there is nothing to fetch."""
    page: str
    """Where its authors describe it."""
    paper: str
    bytes: int | None = None
    sha256: str | None = None
    """Hexadecimal; its first digits alone where the file's name has no more."""
    hashes: str = ""
    """Who states the hash."""
    shapes: str | None = None
    """Digest of the names and shapes of its tensors."""
    numbers: int | None = None
    """In these tensors."""
    by_shapes: bool = False
    """Whether the shapes in the file decide the architecture, as its name is doubtful."""
    labels_list: str | None = None
    """A list in labels/; None for a start, whose head is for other data."""
    task: Literal["single-label", "multi-label"] = "multi-label"
    data: str
    """What it was trained on."""
    rate: int | None = None
    """Sampling rate of its front end, in hertz."""
    window_seconds: float = 10.0
    metric: Metric | None = None
    license: str | None = None
    """Of the weights."""
    terms: str = ""
    """Where the license comes from, or why there is none."""
    default: bool = False
    """Whether the bare name of its architecture means it, where weights are asked for."""
    note: str = ""

    @property
    def architecture(self) -> str:
        return self.name.partition(".")[0]

    @property
    def package_folder(self) -> Path | None:
        """The bundle in the package, if it is one that is shipped."""
        return HERE / SHIPPED / self.name if self.shipped else None

    @property
    def is_start(self) -> bool:
        """Whether it is a network of images, to start a training from, and predicts nothing."""
        return self.labels_list is None

    @property
    def has_whole_hash(self) -> bool:
        return self.sha256 is not None and len(self.sha256) == 64

    @property
    def labels(self) -> tuple[str, ...]:
        """Display names, in the order of the head."""
        return tuple(name for name, _ in read_labels(self.labels_list)) if self.labels_list else ()

    @property
    def about_bytes(self) -> int | None:
        """The size of the file, or about it, from its tensors."""
        return self.bytes or (self.numbers and self.numbers * FLOAT_BYTES)

    @property
    def size(self) -> str:
        """For people: `344.7 MB`, or `about 344.6 MB`."""
        if self.about_bytes is None:
            return "of unknown size"
        return ("" if self.bytes else "about ") + megabytes(self.about_bytes)

    @property
    def license_or_unknown(self) -> str:
        return self.license or UNKNOWN


def megabytes(count: int) -> str:
    """A number of bytes for people, in units of ten."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


@functools.cache
def checkpoints() -> Mapping[str, Checkpoint]:
    """All rows by name, in the order of the file."""
    content = tomllib.loads((HERE / "checkpoints.toml").read_text(encoding="utf-8"))
    rows = [_row(entry, content) for entry in content["checkpoint"]]
    return {row.name: row for row in rows}


def _row(entry: dict[str, Any], content: Mapping[str, Any]) -> Checkpoint:
    source = content["sources"][entry["source"]]
    own = {
        name: value for name, value in entry.items() if name not in ("source", "file", "filename", "labels", "metric")
    }
    own |= {name: source[name] for name in ("page", "paper", "rate", "license", "terms") if name in source}
    own["url"] = source["address"] + entry["file"]
    own["file"] = entry.get("filename") or entry["file"].rpartition("/")[2]
    if "sha256" in entry:
        own["hashes"] = source["hashes"]
    if labels := entry.get("labels"):
        about = content["labels"][labels]
        own = {"data": about["data"]} | own | {"labels_list": labels, "task": about["task"]}
    if "metric" in entry:
        own["metric"] = Metric(**{"data": own["data"], "source": source["page"], **entry["metric"]})
    return Checkpoint(**own)


@functools.cache
def _names() -> Mapping[str, str]:
    """The name of the row by each of its names."""
    return {name: row.name for row in checkpoints().values() for name in (row.name, *row.aliases)}


def find_checkpoint(name: str) -> Checkpoint | None:
    """The row of that name or alias; None where there is none."""
    return checkpoints()[_names()[name]] if name in _names() else None


def checkpoint(name: str) -> Checkpoint:
    """The row of that name or alias.

    Raises: ModelUnknown; the message has similar names.
    """
    if row := find_checkpoint(name):
        return row
    near = similar_names(name)
    hint = f"similar names: {', '.join(near)}" if near else "`ossicle models list --weights` lists all"
    raise ModelUnknown(f"weights {name!r} are not in the catalogue; {hint}")


def similar_names(name: str, *, cutoff: float = 0.4) -> list[str]:
    """At most three names and aliases like this one, the most similar first.

    >>> similar_names("generall", cutoff=0.8)
    ['general']
    """
    return difflib.get_close_matches(name, _names(), n=3, cutoff=cutoff)


def list_checkpoints(pattern: str = "*") -> list[Checkpoint]:
    """The rows of which a name matches a shell pattern.

    >>> [row.name for row in list_checkpoints("passt_s_swa_p16_128_*")]
    ['passt_base_s10.audioset_ap476', 'passt_base_s10.audioset_ap4761']
    """
    return [row for row in checkpoints().values() if fnmatch.filter((row.name, *row.aliases), pattern)]


def default_checkpoint(architecture: str) -> Checkpoint | None:
    """The weights that `pretrained=True` means with the name of an architecture."""
    return next((row for row in checkpoints().values() if row.default and row.architecture == architecture), None)


@functools.cache
def read_labels(name: str) -> tuple[tuple[str, str | None], ...]:
    """Display names and, where the data have them, identifiers of a list of labels, in the order of the head."""
    lines = (HERE / "labels" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple((label, id or None) for label, _, id in (line.partition("\t") for line in lines))


def shapes_digest(shapes: Mapping[str, Sequence[int]]) -> str:
    """A digest of the names and shapes of tensors, whatever their order: 16 hexadecimal digits.

    >>> shapes_digest({"head.bias": (2,), "head.weight": (2, 8)})
    'a3bdafba935e1941'
    """
    lines = sorted(f"{name} {' '.join(map(str, shape))}\n" for name, shape in shapes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
