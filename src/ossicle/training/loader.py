"""Batches of waveforms: which clips, in which order, cut where.

Order and crops are a pure function of (seed, epoch), and the position of the step: so a resumed run sees the very
batches that an uninterrupted one would have seen, without any sampler state to lose.
"""

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from ossicle.data.cache import SampleStore
from ossicle.inference import window_starts


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Waveforms of one step, each as long as the window or, where the recording is shorter, as the recording."""

    waves: list[Float[Tensor, "_"]]
    targets: Float[Tensor, "clip label"]
    clips: Int64[Tensor, "clip"]  # positions in the store
    seed: int  # of all that is drawn at random while this batch is used

    def to(self, device: torch.device, **how: Any) -> "Batch":
        """The batch on another device."""
        waves = [wave.to(device, **how) for wave in self.waves]
        return dataclasses.replace(self, waves=waves, targets=self.targets.to(device, **how))


def label_weights(targets: Bool[np.ndarray, "clip label"], *, offset: float = 0.0) -> Float64[np.ndarray, "clip"]:
    """The probability of drawing each clip so that rare labels come as often as common ones.

    A label weighs 1 / (its count + offset), a clip the sum over its labels; a clip without labels counts as a label
    of its own.

    Source: PaSST, section 2.1 of the released code: 1000 / (count + 100), summed over the labels.
    """
    counts = targets.sum(0)
    weights = targets @ (1 / (np.maximum(counts, 1) + offset))
    empty = ~targets.any(1)
    weights[empty] = 1 / (max(empty.sum(), 1) + offset)
    return weights / weights.sum()


class Batches:
    """One epoch of batches at each iteration, resumable at any batch.

    Args:
        clips: positions in the store to train on.
        targets: of all items of the store.
        window: samples of a training clip.
        weights: probability of each of `clips`; None takes each once, in random order.
        epoch_clips: clips per epoch; None is `len(clips)`.
        workers: threads that read ahead.
        min_samples: the least that the front end takes; a shorter clip is followed by silence.
    """

    def __init__(
        self,
        store: SampleStore,
        clips: Int64[np.ndarray, "train"],
        targets: Bool[np.ndarray, "item label"],
        *,
        window: int,
        batch_size: int,
        seed: int,
        weights: Float64[np.ndarray, "train"] | None = None,
        epoch_clips: int | None = None,
        workers: int = 2,
        min_samples: int = 1,
    ) -> None:
        self.store, self.clips, self.targets = store, clips, targets
        self.window, self.batch_size, self.seed = window, batch_size, seed
        self.weights, self.epoch_clips = weights, epoch_clips
        self.workers, self.min_samples = workers, min_samples
        self.epoch, self.batch = 0, 0  # of the next batch

    def __len__(self) -> int:
        return -(-(self.epoch_clips or len(self.clips)) // self.batch_size)

    def order(self, epoch: int) -> Int64[np.ndarray, "drawn"]:
        """Positions in the store of one epoch's clips.

        With weights the draw is with replacement, unless an epoch is a part of the data (`epoch_clips`), as in the
        AudioSet recipe of PaSST.
        """
        rng = np.random.default_rng([self.seed, epoch])
        size = self.epoch_clips or len(self.clips)
        if self.weights is None:
            rounds = [rng.permutation(self.clips) for _ in range(-(-size // len(self.clips)))]
            return np.concatenate(rounds)[:size]
        part = size < np.count_nonzero(self.weights)
        return rng.choice(self.clips, size, replace=not part, p=self.weights)

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self.epoch, self.batch
        order = self.order(epoch)
        pending: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            for number in range(first, len(self)):
                while len(pending) < min(self.workers + 1, len(self) - number):
                    pending.append(pool.submit(self._load, order, epoch, number + len(pending)))
                # The position moves before the batch leaves, since a reader that knows the length stops without
                # asking for more.
                self.epoch, self.batch = (epoch, number + 1) if number + 1 < len(self) else (epoch + 1, 0)
                yield pending.popleft().result()

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
        waves = []
        for clip in clips.tolist():
            samples = self.store.read(clip)
            start = rng.integers(0, max(len(samples) - self.window, 0) + 1)
            waves.append(as_wave(samples[start : start + self.window], self.min_samples))
        return Batch(
            waves=waves,
            targets=torch.from_numpy(self.targets[clips].astype(np.float32)),
            clips=torch.from_numpy(np.asarray(clips, np.int64)),
            seed=int(rng.integers(1 << 62)),
        )

    def state_dict(self) -> dict[str, int]:
        """The position of the next batch."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues at a stored position."""
        self.epoch, self.batch = state["epoch"], state["batch"]


def as_wave(samples: Float32[np.ndarray, "time"], min_samples: int) -> Float[Tensor, "padded"]:
    """A tensor of its own with the samples, followed by silence where they are fewer than the front end takes."""
    wave = torch.zeros(max(len(samples), min_samples))
    wave[: len(samples)] = torch.from_numpy(np.array(samples))
    return wave


class Windows:
    """Every clip of an evaluation part once, as windows that cover it, batch by batch.

    A recording longer than the window gives consecutive windows, as `window_starts` has them.
    """

    def __init__(
        self,
        store: SampleStore,
        clips: Int64[np.ndarray, "part"],
        targets: Bool[np.ndarray, "item label"],
        *,
        window: int,
        batch_size: int,
        min_samples: int = 1,
    ) -> None:
        self.store, self.clips, self.targets = store, clips, targets
        self.window, self.batch_size, self.min_samples = window, batch_size, min_samples

    def number(self) -> int:
        """How many windows there are."""
        lengths = self.store.lengths[self.clips].tolist()
        return sum(len(window_starts(length, window=self.window, hop=self.window)) for length in lengths)

    def __iter__(self) -> Iterator[Batch]:
        waves: list[Tensor] = []
        owners: list[int] = []
        for clip in self.clips.tolist():
            samples = self.store.read(clip)
            for start in window_starts(len(samples), window=self.window, hop=self.window):
                waves.append(as_wave(samples[start : start + self.window], self.min_samples))
                owners.append(int(clip))
                if len(waves) == self.batch_size:
                    yield self._batch(waves, owners)
                    waves, owners = [], []
        if waves:
            yield self._batch(waves, owners)

    def _batch(self, waves: list[Tensor], owners: list[int]) -> Batch:
        targets = torch.from_numpy(self.targets[owners].astype(np.float32))
        return Batch(waves=waves, targets=targets, clips=torch.tensor(owners), seed=0)
