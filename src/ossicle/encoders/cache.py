"""Cache of a frozen encoder's hidden states, computed once for each item.

    <cache>/features/<encoder, layers and pooling>/<items>.safetensors

Each file is a shard: a few whole batches, written when they reach `shard_bytes`, after half a minute, or when an error
or Ctrl-C ends the run, and never changed. So memory is bounded, and a killed run continues after its last shard. It has
the tensors

    features    (time, layer, dim), the items' frames one after another; if pooled, one frame for each: the mean,
                followed by the standard deviation along `dim`, of which "mean" reads the first half
    lengths     (item,), number of frames of each

and JSON metadata with everything that the features depend on (encoder, fingerprint, settings, layers, pool, for audio
the decoder's version), the items' keys (hashes of `data.cache.identity`) and a SHA-256 of keys and tensors. Items are
found by key, so data sets with common items share features, and only new items of an edited data set are computed. A
shard whose hash or description differs is ignored, and its items are computed again. A layer's features do not depend
on later blocks, so a shard with more layers is used for requests of the first ones.

Pooled features are float32, as they are small. Frames (`pool="time"`) are float16 to save disk space: its rounding,
0.05 % of each value, is small relative to the differences between frames. A shard with a value beyond float16's range
stays float32.

Every clip is prepared alone, and only clips whose prepared inputs have one shape share a batch: so no clip is padded,
and its features do not depend on the others.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ossicle.data import Item, modality_of
from ossicle.data.cache import identity
from ossicle.data.threads import in_threads
from ossicle.encoders.hidden import Encoder, Hidden
from ossicle.files import cache_folder, refuse_unwritable
from ossicle.weights.tensors import save_weights

logger = logging.getLogger(__name__)

Pool = Literal["mean", "statistics", "time"]
VERSION = 2
METADATA = "ossicle.features"
READERS = 4  # threads that read ahead
# A killed run loses at most this many seconds of work, or this fraction of its time if that is more: so a run of days
# writes hundreds of shards and not tens of thousands.
SAVE_SECONDS, SAVE_FRACTION = 30.0, 0.01
# Clips of one shape share a batch within groups of this many consecutive items, and while all pending inputs have at
# most this many bytes; then the largest batch is processed as it is.
GROUP_ITEMS = 512
WAITING_BYTES = 64 << 20
# Limit of the inputs of a batch of several clips: two of half a minute at 16 kHz. The hidden states of twelve layers
# are thirty times as large.
BATCH_BYTES = 4 << 20

Inputs = dict[str, Tensor]
Frames = Float[Tensor, "time layer dim"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureStore:
    """Features of items, by their position in the list of items.

    `failures` maps the position of an item without features to the reason, a sentence that names it; `lengths` has the
    number of frames of each item, 0 where there are none.
    """

    pool: Pool
    dim: int
    """Of the features: twice the encoder's for "statistics"."""
    layers: int
    """Number of layers; a shard may have more."""
    shards: tuple[Path, ...]
    places: Int64[np.ndarray, "item 2"]  # shard and first frame
    lengths: Int64[np.ndarray, "item"]
    failures: dict[int, str]
    opened: dict[int, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def usable(self) -> Int64[np.ndarray, "usable"]:
        """Positions of the items that have features."""
        return np.flatnonzero(self.lengths)

    def read(self, indices: Iterable[int]) -> Hidden:
        """Returns the features of items in float32, padded with zeros to the longest of them; the mask tells padding.

        Pooled features have one frame: "mean" the mean over time, "statistics" the mean and, after it along `dim`, the
        standard deviation.

        Raises: ValueError for no item, or an item without features.
        """
        clips = [self._frames(int(index)) for index in indices]
        if not clips:
            raise ValueError("expected the position of at least one item")
        features = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)[..., : self.dim]  # (clip, time, layer, dim)
        lengths = torch.tensor([len(clip) for clip in clips])
        mask = torch.arange(features.shape[1]) < lengths[:, None]
        return Hidden(features=features.transpose(1, 2), mask=mask)

    def _frames(self, index: int) -> Frames:
        length = int(self.lengths[index])
        if not length:
            raise ValueError(f"item {index} has no features: {self.failures[index]}")
        number, first = self.places[index].tolist()
        if number not in self.opened:
            self.opened[number] = safe_open(self.shards[number], framework="pt")
        return self.opened[number].get_slice("features")[first : first + length, : self.layers].float()


def open_features(
    encoder: Encoder,
    items: Sequence[Item],
    *,
    pool: Pool,
    folder: Path | None = None,
    batch_size: int = 16,
    layers: int | None = None,
    shard_bytes: int = 64 << 20,
    progress: Callable[[int, int, int], None] = lambda done, total, failed: None,
) -> FeatureStore:
    """Computes the features of all items that are not in the cache, and finds the others.

    An item that cannot be read, or whose features are not finite, is listed in `failures` and skipped.

    Args:
        items: of a data set of the encoder's modality.
        pool: "mean" over time, "statistics" (mean and standard deviation), or "time" for every frame.
        folder: folder of the cache; by default `$OSSICLE_CACHE`, else `~/.cache/ossicle`.
        layers: number of blocks to run; by default all.
        shard_bytes: size of the features in memory at which a shard is written.
        progress: called with (items done, number of items, items without features).

    Truncated texts are logged when they are computed.

    Raises: ValueError for layers that the encoder does not have, and for an encoder with a tuner, as its features
        change with every step. SettingRefused if the cache cannot be written.
    """
    if encoder.adapted:
        raise ValueError(f"{encoder.name} has a tuner; only the features of a frozen encoder can be cached")
    layers = encoder.depth(layers)
    stored: Pool = "time" if pool == "time" else "statistics"
    home = (folder or cache_folder()) / "features"
    about = _about(encoder, pool=stored, layers=layers)
    keys = [_digest(identity(item)) for item in items]
    found: dict[str, Place] = {}
    for depth in range(layers, encoder.num_layers + 1):
        if wanted := set(keys) - found.keys():
            found |= _find(home, _about(encoder, pool=stored, layers=depth), wanted)
    missing = {key: position for position, key in reversed([*enumerate(keys)]) if key not in found}
    reasons: dict[str, str] = {}
    shard = _Shard(_folder(home, about), {"encoder": encoder.name, **about})
    todo = sorted(missing.values())
    done = len(items) - len(todo)
    if todo:
        refuse_unwritable(home, "features")
    if lost := encoder.shortened([text for position in todo if (text := items[position].text) is not None]):
        logger.info(lost)
    if todo:
        progress(done, len(items), 0)
    try:
        for batch in _encoded(encoder, items, todo, pool=stored, layers=layers, batch_size=batch_size):
            for position, frames in batch:
                if isinstance(frames, str):
                    reasons[keys[position]] = frames
                else:
                    shard.add(keys[position], frames)
            if shard.size >= shard_bytes or shard.overdue():
                found |= shard.write()
            done += len(batch)
            progress(done, len(items), len(reasons))
    finally:  # also what was encoded before an error or Ctrl-C
        found |= shard.write()

    shards = {path: number for number, path in enumerate(dict.fromkeys(path for path, _, _ in found.values()))}
    rows = [found.get(key) for key in keys]
    return FeatureStore(
        pool=pool,
        dim=encoder.dim * (2 if pool == "statistics" else 1),
        layers=layers,
        shards=tuple(shards),
        places=np.array([(shards[row[0]], row[1]) if row else (-1, 0) for row in rows], np.int64).reshape(-1, 2),
        lengths=np.array([row[2] if row else 0 for row in rows], np.int64),
        failures={position: reasons[key] for position, key in enumerate(keys) if key in reasons},
    )


# ---------------------------------------------------------------- items to batches


def _batches(
    encoder: Encoder, items: Sequence[Item], todo: Sequence[int], *, batch_size: int
) -> Iterator[tuple[list[int], Inputs | str]]:
    """Positions with their prepared inputs, of one shape; or one position with the error of reading it.

    The batches depend only on shapes and positions of the clips, so that a resumed run has the same batches.
    """
    contents = _read_ahead(encoder, items, todo)
    for _, neighbors in groupby(contents, key=lambda read: read[0] // GROUP_ITEMS):
        waiting: dict[tuple[Any, ...], list[tuple[int, Inputs]]] = {}
        for position, content in neighbors:
            if isinstance(content, Exception):
                yield [position], str(content)
                continue
            inputs = encoder.prepare([content])
            shapes = tuple((name, *tensor.shape) for name, tensor in sorted(inputs.items()))
            group = waiting.setdefault(shapes, [])
            group.append((position, inputs))
            if len(group) == batch_size or _bytes(group) + _bytes(group[:1]) > BATCH_BYTES:
                yield _joined(waiting.pop(shapes))
            elif sum(map(_bytes, waiting.values())) > WAITING_BYTES:
                yield _joined(waiting.pop(max(waiting, key=lambda shapes: _bytes(waiting[shapes]))))
        for group in waiting.values():
            yield _joined(group)


def _bytes(group: Sequence[tuple[int, Inputs]]) -> int:
    """Size of the inputs of clips of one shape."""
    return len(group) * sum(tensor.nbytes for tensor in group[0][1].values())


def _joined(group: Sequence[tuple[int, Inputs]]) -> tuple[list[int], Inputs]:
    names = group[0][1]
    return [position for position, _ in group], {name: torch.cat([one[name] for _, one in group]) for name in names}


def _read_ahead(encoder: Encoder, items: Sequence[Item], todo: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Each position with its item's content, or with the error of an item that cannot be read, in order."""

    modality = modality_of(encoder.modality)

    def attempt(position: int) -> Any:
        try:
            return modality.read(items[position], rate=encoder.rate)
        except modality.errors as error:
            return error

    yield from zip(todo, in_threads(attempt, todo, workers=READERS), strict=True)


# ---------------------------------------------------------------- batches to features


def _encoded(
    encoder: Encoder, items: Sequence[Item], todo: Sequence[int], *, pool: Pool, layers: int, batch_size: int
) -> Iterator[list[tuple[int, Frames | str]]]:
    """For each batch, positions with their features, or with the reason why there are none."""

    def usable(position: int, frames: Frames) -> Frames | str:
        if len(frames) and frames.isfinite().all():
            return frames
        return f"{items[position].place}: {encoder.name} has features that are not finite"

    for batch, inputs in _batches(encoder, items, todo, batch_size=batch_size):
        if isinstance(inputs, str):
            yield [(batch[0], inputs)]
            continue
        clips = zip(batch, _pooled(encoder, inputs, pool=pool, layers=layers), strict=True)
        yield [(position, usable(position, frames)) for position, frames in clips]


@torch.inference_mode()
def _pooled(encoder: Encoder, inputs: Inputs, *, pool: Pool, layers: int) -> list[Frames]:
    """The features of each clip of a batch, without padding."""
    hidden = encoder.encode(inputs, layers=layers)
    clips = []
    for features, mask in zip(hidden.features.float(), hidden.mask, strict=True):
        frames = features[:, mask].transpose(0, 1)  # (time, layer, dim)
        if pool != "time" and len(frames):
            frames = torch.cat([frames.mean(0), frames.std(0, correction=0)], dim=-1)[None]
        clips.append(frames.cpu())
    return clips


# ---------------------------------------------------------------- features to disk

Place = tuple[Path, int, int]  # shard, first frame, frames


class _Shard:
    """Features that are not yet written."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        self.frames: dict[str, Frames] = {}
        self.size = 0  # bytes
        self.begun = self.written = monotonic()

    def add(self, key: str, frames: Frames) -> None:
        self.frames[key] = frames
        self.size += frames.nbytes

    def overdue(self) -> bool:
        """Whether the time to write has passed."""
        now = monotonic()
        return now - self.written >= max(SAVE_SECONDS, SAVE_FRACTION * (now - self.begun))

    def write(self) -> dict[str, Place]:
        """Writes and clears the features; returns the place of each item."""
        if not self.frames:
            return {}
        keys = list(self.frames)
        features = torch.cat(list(self.frames.values()))
        if self.about["pool"] == "time" and features.abs().max() <= torch.finfo(torch.float16).max:
            features = features.half()
        lengths = torch.tensor([len(frames) for frames in self.frames.values()])
        # The name depends only on the items, so that a recomputed shard replaces a damaged one.
        path = self.folder / f"{_digest(*(key.encode() for key in sorted(keys)))}.safetensors"
        header = {**self.about, "keys": keys, "sha256": _checksum(keys, features, lengths)}
        tensors = {"features": features, "lengths": lengths}
        save_weights(path, tensors, metadata={METADATA: json.dumps(header)})
        self.frames, self.size, self.written = {}, 0, monotonic()
        return _places(path, keys, lengths)


def _folder(home: Path, about: dict[str, Any]) -> Path:
    """The folder of the shards of a description."""
    return home / _digest(json.dumps(about, sort_keys=True).encode())


def _find(home: Path, about: dict[str, Any], wanted: set[str]) -> dict[str, Place]:
    """The places of features in undamaged shards."""
    found: dict[str, Place] = {}
    for path in sorted(_folder(home, about).glob("[!.]*.safetensors")):  # hidden ones are being written
        try:
            with safe_open(path, framework="pt") as shard:
                header = json.loads(shard.metadata()[METADATA])
                keys = header["keys"]
                if any(header[name] != value for name, value in about.items()) or wanted.isdisjoint(keys):
                    continue
                features, lengths = shard.get_tensor("features"), shard.get_tensor("lengths")
            if header["sha256"] == _checksum(keys, features, lengths):
                found |= _places(path, keys, lengths)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            continue  # not a shard, or deleted meanwhile
    return found


def _places(path: Path, keys: Sequence[str], lengths: Int64[Tensor, "item"]) -> dict[str, Place]:
    firsts = (lengths.cumsum(0) - lengths).tolist()
    return {key: (path, first, frames) for key, first, frames in zip(keys, firsts, lengths.tolist(), strict=True)}


def _about(encoder: Encoder, *, pool: Pool, layers: int) -> dict[str, Any]:
    """Everything besides the item that features depend on, as JSON values; for audio including the decoder."""
    facts = {
        "version": VERSION,
        "fingerprint": encoder.fingerprint,
        "settings": encoder.settings,
        "pool": pool,
        "layers": layers,
        **modality_of(encoder.modality).versions,
    }
    return json.loads(json.dumps(facts))


def _checksum(keys: Sequence[str], features: Tensor, lengths: Tensor) -> str:
    digest = hashlib.sha256(json.dumps([keys, str(features.dtype), features.shape]).encode())
    for tensor in (features, lengths):
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\n".join(parts)).hexdigest()[:32]
