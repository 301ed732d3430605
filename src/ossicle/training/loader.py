"""Batches of waveforms: which clips, in which order, cut where.

Order and crops are a pure function of (seed, epoch), and the position of the step: so a resumed run sees the very
batches that an uninterrupted one would have seen, without any sampler state to lose.
"""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ossicle.data.cache import SampleStore
from ossicle.data.labels import KnownRows, LabelRows
from ossicle.data.threads import in_threads
from ossicle.draws import WAITING_DEVICES, Piece, generator_of, onto
from ossicle.errors import AudioError
from ossicle.inference import window_starts
from ossicle.training.ranks import ALONE, Ranks

Targets = Bool[np.ndarray, "item label"] | LabelRows  # of all examples of a data set
Known = Bool[np.ndarray, "item label"] | KnownRows | None  # of which labels it is known whether they have them


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The examples of one step; of sound also the waveforms, each followed by silence up to the longest.

    `clips` and `lengths` stay on the CPU.
    """

    clips: Int64[Tensor, "clip"]  # positions in the data set
    targets: Float[Tensor, "clip label"]
    known: Float[Tensor, "clip label"] | None = None  # 0 where nobody knows whether the clip has the label; None is 1
    waves: Float[Tensor, "_ time"] = field(default_factory=lambda: torch.zeros(0, 0))
    lengths: Int64[Tensor, "_"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))  # samples
    seed: int = 0  # of all that is drawn at random while this batch is used
    total: int = 0  # clips of the batch that all processes have together
    piece: Piece | None = None  # which of them these are; None is all
    part: float = 1.0  # what the loss of these clips counts for in the mean over the processes
    lost: Bool[Tensor, "clip"] | None = None  # which clips could not be read, and are silence
    taught: Mapping[str, Tensor] = field(default_factory=dict)  # stored outputs of teachers, see `distillation`
    arrival: Any = None  # the event after which a GPU has the batch

    def generator(self) -> torch.Generator:
        """For all that is drawn at random while this batch is used."""
        return generator_of(self.seed, self.piece)

    def to(self, device: torch.device, **_: Any) -> "Batch":
        """The batch on another device, without waiting for it."""
        known = None if self.known is None else onto(self.known, device)
        taught = {name: onto(tensor, device) for name, tensor in self.taught.items()}
        return dataclasses.replace(
            self, waves=onto(self.waves, device), targets=onto(self.targets, device), known=known, taught=taught
        )

    def arrived(self) -> "Batch":
        """Itself, where the work that follows on the GPU waits for the copy that a thread has begun."""
        if self.arrival is not None:
            stream = torch.cuda.current_stream(self.waves.device)
            stream.wait_event(self.arrival)
            for tensor in (self.waves, self.targets, self.known, *self.taught.values()):
                if tensor is not None:
                    tensor.record_stream(stream)  # or its memory could be given away while it is read
        return self


def label_weights(targets: Targets, *, offset: float = 0.0) -> Float64[np.ndarray, "clip"]:
    """The probability of drawing each clip so that rare labels come as often as common ones.

    A label weighs 1 / (its count + offset), a clip the sum over its labels; a clip without labels counts as a label
    of its own.

    Source: PaSST, section 2.1 of the released code: 1000 / (count + 100), summed over the labels.
    """
    counts = targets.sum(0)
    of_label = 1 / (np.maximum(counts, 1) + offset)
    weights = targets.weighed(of_label) if isinstance(targets, LabelRows) else targets @ of_label
    empty = ~targets.any(1)
    weights[empty] = 1 / (max(empty.sum(), 1) + offset)
    return weights / weights.sum()


class Batches:
    """One epoch of batches at each iteration, resumable at any batch.

    Args:
        clips: positions in the data set to train on.
        targets: of all examples of the data set.
        known: of which labels it is known whether an example has them; None is all.
        weights: probability of each of `clips`; None takes each once, in random order.
        epoch_clips: clips per epoch; None is `len(clips)`.
        workers: threads that load ahead.
        ranks: the processes that share each batch.
    """

    def __init__(
        self,
        clips: Int64[np.ndarray, "train"],
        targets: Targets,
        *,
        batch_size: int,
        seed: int,
        known: Known = None,
        weights: Float64[np.ndarray, "train"] | None = None,
        epoch_clips: int | None = None,
        workers: int = 1,
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.clips, self.targets, self.known = clips, targets, known
        self.batch_size, self.seed = batch_size, seed
        self.weights, self.epoch_clips, self.workers = weights, epoch_clips, workers
        self.epoch, self.batch = 0, 0  # of the next batch
        self.device = torch.device("cpu")
        self._stream: torch.cuda.Stream | None = None  # of the copies
        self.waited = 0.0  # seconds that the reader has waited for a batch

    def __len__(self) -> int:
        return -(-(self.epoch_clips or len(self.clips)) // self.batch_size)

    def order(self, epoch: int) -> Int64[np.ndarray, "drawn"]:
        """Positions in the data set of one epoch's clips."""
        raise NotImplementedError

    def waves(
        self, clips: list[int], rng: np.random.Generator, *, mine: slice, epoch: int
    ) -> tuple[list[Tensor | None], list[int]]:
        """What else this process's clips of a batch carry, and the samples of each clip of it; runs in a thread.

        None is a clip that is lost.
        """
        return [], [0] * len(clips)

    def send_to(self, device: torch.device) -> None:
        """From now on the threads that load also copy to this device, so that a step finds its batch there."""
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self.epoch, self.batch
        order = self.order(epoch)
        pending: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            for number in range(first, len(self)):
                while len(pending) < min(self.workers + 1, len(self) - number):
                    pending.append(pool.submit(self._send, order, epoch, number + len(pending)))
                # The position moves before the batch leaves, since a reader that knows the length stops without
                # asking for more.
                self.epoch, self.batch = (epoch, number + 1) if number + 1 < len(self) else (epoch + 1, 0)
                began = time.monotonic()
                batch = pending.popleft().result()
                self.waited += time.monotonic() - began
                yield batch.arrived()

    def _send(self, order: Int64[np.ndarray, "drawn"], epoch: int, number: int) -> Batch:
        """Loads a batch and begins to copy it; on a stream of its own, beside the step under way."""
        batch = self._load(order, epoch, number)
        if self._stream is None:
            return batch if self.device.type in WAITING_DEVICES else batch.to(self.device)
        with torch.cuda.stream(self._stream):
            return replace(batch.to(self.device), arrival=self._stream.record_event())

    def peek(self) -> Batch:
        """The next batch, without moving on."""
        return self._load(self.order(self.epoch), self.epoch, self.batch)

    @property
    def position(self) -> int:
        """Batches before the next one, those of earlier epochs with them."""
        return self.epoch * len(self) + self.batch

    def _load(self, order: Int64[np.ndarray, "drawn"], epoch: int, number: int) -> Batch:
        clips = order[number * self.batch_size : (number + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, epoch, number])
        mine = self.ranks.piece(len(clips))
        spare = mine.start == mine.stop  # fewer clips than processes: this one does a step for nothing, with the first
        mine = slice(0, 1) if spare else mine
        found, lengths = self.waves(clips.tolist(), rng, mine=mine, epoch=epoch)
        known = None if self.known is None else torch.from_numpy(self.known[clips].astype(np.float32))
        # A lost clip is silence, so that the others draw what they would have drawn, and nothing is known of it.
        lost = torch.tensor([wave is None for wave in found], dtype=torch.bool)
        waves = [
            torch.zeros(length) if wave is None else wave for wave, length in zip(found, lengths[mine], strict=False)
        ]
        batch = batch_of(clips[mine], self.targets, waves)
        batch = replace(batch, seed=int(rng.integers(1 << 62)), total=len(clips), lost=lost if found else None)
        if not lost.any():
            batch = replace(batch, known=None if known is None else known[mine])
            if self.ranks.world == 1:
                return batch
        # The mean over the processes is that over the batch: of clips, or of the labels that are known of them. A lost
        # clip counts nothing in it, with the same number of clips, as other processes do not know of it.
        counts = torch.ones(len(clips), dtype=torch.float64) if known is None else known.double().sum(1)
        whole, own = counts.sum().clamp(min=1e-6), counts[mine]
        if lost.any():
            own = torch.where(lost, 0, own)
            heard = torch.ones_like(batch.targets) if known is None else known[mine].clone()
            heard[lost] = 0
            batch = replace(batch, known=heard)
        part = 0.0 if spare else float(own.sum() / whole) * self.ranks.world
        if self.ranks.world == 1:
            return replace(batch, part=part)
        piece = Piece(first=mine.start, clips=len(batch.clips), total=len(clips), longest=max(lengths))
        return replace(batch, piece=piece, part=part)

    def state_dict(self) -> dict[str, int]:
        """The position of the next batch."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues at a stored position."""
        self.epoch, self.batch = state["epoch"], state["batch"]


class WaveBatches(Batches):
    """Batches of waveforms, cropped at random.

    Args:
        window: samples of a training clip.
        min_samples: the least that the front end takes; a shorter clip is followed by silence.
    """

    def __init__(
        self,
        store: SampleStore,
        clips: Int64[np.ndarray, "train"],
        targets: Targets,
        *,
        window: int,
        min_samples: int = 1,
        workers: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(clips, targets, workers=workers, **options)
        self.store, self.window, self.min_samples = store, window, min_samples

    def order(self, epoch: int) -> Int64[np.ndarray, "drawn"]:
        """With weights the draw is with replacement, unless an epoch is a part of the data (`epoch_clips`), as in the
        AudioSet recipe of PaSST.
        """
        rng = np.random.default_rng([self.seed, epoch])
        size = self.epoch_clips or len(self.clips)
        if self.weights is None:
            rounds = [rng.permutation(self.clips) for _ in range(-(-size // len(self.clips)))]
            return np.concatenate(rounds)[:size]
        part = size < np.count_nonzero(self.weights)
        return rng.choice(self.clips, size, replace=not part, p=self.weights)

    def waves(
        self, clips: list[int], rng: np.random.Generator, *, mine: slice, epoch: int
    ) -> tuple[list[Tensor | None], list[int]]:
        """A crop of each clip; where it starts is drawn for the whole batch."""
        lengths = self.store.lengths[clips].tolist()
        starts = [int(rng.integers(0, max(length - self.window, 0) + 1)) for length in lengths]
        sizes = [min(length, self.window) for length in lengths]
        own = zip(clips[mine], starts[mine], sizes[mine], strict=True)
        return [self._crop(*one) for one in own], [max(size, self.min_samples) for size in sizes]

    def _crop(self, clip: int, start: int, size: int) -> Tensor | None:
        """So many samples of a clip; silence follows one that is shorter than its header says."""
        try:
            samples = self.store.read(clip)
        except AudioError:  # the store has counted it
            return None
        start = max(min(start, len(samples) - size), 0)
        return as_wave(samples[start : start + size], max(size, self.min_samples))


class ItemBatches(Batches):
    """Batches of positions alone, for a head: each clip once in random order, or as many draws by weight."""

    def order(self, epoch: int) -> Int64[np.ndarray, "drawn"]:
        """One stream over all epochs, drawn again up to the epoch that is asked for."""
        generator = torch.Generator().manual_seed(self.seed)
        number = len(self.clips)
        for _ in range(epoch + 1):
            if self.weights is None:
                order = torch.randperm(number, generator=generator)
            else:
                order = torch.multinomial(torch.from_numpy(self.weights), number, replacement=True, generator=generator)
        return self.clips[order.numpy()]


def batch_of(clips: Int64[np.ndarray, "clip"], targets: Targets, waves: Sequence[Tensor] = ()) -> Batch:
    """A batch of these positions."""
    batch = Batch(
        clips=torch.from_numpy(np.asarray(clips, np.int64)),
        targets=torch.from_numpy(targets[clips].astype(np.float32)),
    )
    if not waves:
        return batch
    return replace(
        batch, waves=pad_sequence([*waves], batch_first=True), lengths=torch.tensor([len(wave) for wave in waves])
    )


def as_wave(samples: Float32[np.ndarray, "time"], min_samples: int) -> Float[Tensor, "padded"]:
    """A tensor of its own with the samples, followed by silence where they are fewer than the front end takes."""
    wave = torch.zeros(max(len(samples), min_samples))
    wave[: len(samples)] = torch.from_numpy(np.array(samples))
    return wave


class Windows:
    """Every clip of an evaluation part once, as windows that cover it, batch by batch.

    A recording longer than the window gives consecutive windows, as `window_starts` has them. Of several processes each
    has its part of the clips. Threads decode ahead what is not stored.
    """

    def __init__(
        self,
        store: SampleStore,
        clips: Int64[np.ndarray, "part"],
        targets: Targets,
        *,
        window: int,
        batch_size: int,
        min_samples: int = 1,
        ranks: Ranks = ALONE,
    ) -> None:
        self.store, self.clips, self.targets = store, ranks.mine(clips), targets
        self.window, self.batch_size, self.min_samples = window, batch_size, min_samples

    def number(self) -> int:
        """How many windows there are."""
        lengths = self.store.lengths[self.clips].tolist()
        return sum(len(window_starts(length, window=self.window, hop=self.window)) for length in lengths)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def decoded(
        self, *, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Iterator[tuple[int, Float32[np.ndarray, "time"]]]:
        """Each clip and its samples, but for those that are lost, which the store has counted.

        Args:
            progress: called with the clips done, and all.
        """
        for done, (clip, samples) in enumerate(in_threads(self._read, self.clips.tolist(), workers=2), start=1):
            if samples is not None:
                yield clip, samples
            progress(done, len(self.clips))

    def _read(self, clip: int) -> tuple[int, Float32[np.ndarray, "time"] | None]:
        try:
            return clip, self.store.read(clip)
        except AudioError:
            return clip, None

    def batches(self, **watch: Any) -> Iterator[Batch]:
        """Their windows; `watch` is that of `decoded`."""
        waves: list[Tensor] = []
        owners: list[int] = []
        for clip, samples in self.decoded(**watch):
            for start in window_starts(len(samples), window=self.window, hop=self.window):
                waves.append(as_wave(samples[start : start + self.window], self.min_samples))
                owners.append(clip)
                if len(waves) == self.batch_size:
                    yield batch_of(np.array(owners), self.targets, waves)
                    waves, owners = [], []
        if waves:
            yield batch_of(np.array(owners), self.targets, waves)


class Items:
    """The positions of a part, in passes without gradients, for a head.

    With all their frames they hold no more than a step of training does.
    """

    def __init__(self, clips: Int64[np.ndarray, "part"], targets: Targets) -> None:
        self.clips, self.targets = clips, targets

    def number(self) -> int:
        """How many there are."""
        return len(self.clips)

    def __iter__(self) -> Iterator[Batch]:
        for piece in pieces(self.clips):
            yield batch_of(piece, self.targets)


def pieces(clips: Int64[np.ndarray, "part"], size: int = 32) -> Iterator[Int64[np.ndarray, "piece"]]:
    """Consecutive positions, so many at a time."""
    for start in range(0, len(clips), size):
        yield clips[start : start + size]
