"""One row for each clip: where it comes from, whose it is, how it may be used, what it may be called."""

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ossicle.files import write_atomically

VALIDATION = 0.05  # of the sounds, by name: never trained on, for every choice that is made while training


@dataclass(frozen=True, kw_only=True)
class Row:
    """A clip of the corpus."""

    file: str  # below the corpus
    package: str  # Debian package
    version: str
    path: str  # in the package; after `!` in an archive of it; for what was rendered, what was played or said
    sha256: str  # of the recording that the clip was cut from, as it lies in the package; of what was rendered
    license: str  # SPDX expression
    authors: str
    kind: str
    label: str
    topic: str
    part: str  # train or validation
    start: float  # seconds, in the recording
    seconds: float


def part_of(package: str, label: str) -> str:
    """Sounds of one name in one package stay together: `bark1.wav` and `bark2.wav` are one dog."""
    number = int.from_bytes(hashlib.sha256(f"{package}/{label}".encode()).digest()[:8], "big") / 2**64
    return "validation" if number < VALIDATION else "train"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as JSON lines, atomically."""
    lines = (json.dumps(dataclasses.asdict(row), ensure_ascii=False) for row in rows)
    write_atomically(path, "".join(line + "\n" for line in lines))


def read_rows(path: Path) -> list[Row]:
    return [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def table(rows: Iterable[Row], field: str) -> str:
    """Clips and hours by one field, as a Markdown table, the most hours first."""
    seconds: dict[str, float] = defaultdict(float)
    clips: dict[str, int] = defaultdict(int)
    for row in rows:
        for name in (str(getattr(row, field)), "**all**"):
            seconds[name] += row.seconds
            clips[name] += 1
    order = sorted(seconds, key=lambda name: (name == "**all**", -seconds[name]))
    lines = [f"| {name or '-'} | {clips[name]} | {seconds[name] / 3600:.2f} |" for name in order]
    return "\n".join([f"| {field} | clips | hours |", "|---|--:|--:|", *lines])
