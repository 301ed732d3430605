"""Which clips come when."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.data import Item
from ossicle.data.cache import SampleStore
from ossicle.training.loader import Batch, Batches, WaveBatches, Windows, label_weights


def store_of(lengths: list[int]) -> SampleStore:
    sizes = np.array(lengths, np.int64)
    return SampleStore(
        items=tuple(Item(file=Path(f"{n}.wav"), labels=("a",)) for n in range(len(lengths))),
        rate=100,
        samples=np.arange(sizes.sum(), dtype=np.float32),
        offsets=np.cumsum(sizes) - sizes,
        lengths=sizes,
        stored=len(sizes),
        failures={},
    )


def batches_of(lengths: list[int], **changes: object) -> Batches:
    options: dict[str, object] = {"window": 8, "batch_size": 3, "seed": 0, **changes}
    clips = np.arange(len(lengths))
    return WaveBatches(store_of(lengths), clips, np.eye(len(lengths), dtype=bool), **options)  # type: ignore[arg-type]


def drawn(batches: list[Batch]) -> list[int]:
    return [clip for batch in batches for clip in batch.clips.tolist()]


@settings(max_examples=40)
@given(clips=st.integers(1, 20), size=st.integers(1, 7), workers=st.integers(1, 3))
def test_an_epoch_holds_every_clip_once_and_the_next_another_order(clips: int, size: int, workers: int) -> None:
    batches = batches_of([9] * clips, batch_size=size, workers=workers)
    first, second = drawn(list(batches)), drawn(list(batches))
    assert sorted(first) == sorted(second) == list(range(clips))
    assert len(list(batches)) == len(batches) == -(-clips // size)
    if clips > 8:
        assert first != second


@settings(max_examples=30)
@given(stop=st.integers(0, 9))
def test_a_resumed_epoch_continues_with_the_very_same_samples(stop: int) -> None:
    lengths = [5, 12, 8, 30, 9, 9, 17]
    whole = batches_of(lengths)
    expected = [*whole, *whole, *whole, *whole]
    broken = batches_of(lengths)
    seen: list[Batch] = []
    while len(seen) < stop:
        for batch in broken:
            seen.append(batch)
            if len(seen) == stop:
                break
    resumed = batches_of(lengths)
    resumed.load_state_dict(broken.state_dict())
    rest = [*resumed, *resumed]
    for one, other in zip(expected[stop:], rest, strict=False):
        assert one.seed == other.seed
        assert torch.equal(one.waves, other.waves) and torch.equal(one.lengths, other.lengths)


def each_wave(batch: Batch) -> Iterator[tuple[int, torch.Tensor]]:
    """The samples of each clip; what follows them is silence."""
    for clip, wave, length in zip(batch.clips.tolist(), batch.waves, batch.lengths.tolist(), strict=True):
        assert not wave[length:].any()
        yield clip, wave[:length]


def test_a_crop_lies_inside_its_recording_and_a_short_recording_stays_as_it_is() -> None:
    lengths = [5, 30]
    for batch in batches_of(lengths, batch_size=2, min_samples=6):
        for clip, wave in each_wave(batch):
            if clip == 0:
                assert wave.tolist() == [0, 1, 2, 3, 4, 0]  # followed by silence up to the least length
            else:
                assert len(wave) == 8 and (wave.diff() == 1).all() and 5 <= wave[0] <= 35 - 8


def test_rare_labels_come_as_often_as_common_ones() -> None:
    targets = np.zeros((100, 2), bool)
    targets[:90, 0] = targets[90:, 1] = True
    weights = label_weights(targets)
    batches = WaveBatches(
        store_of([8] * 100), np.arange(100), targets, window=8, batch_size=50, seed=0, weights=weights
    )
    rare = np.concatenate([batches.order(epoch) >= 90 for epoch in range(100)])
    # 10,000 draws at one half have a deviation of 0.005.
    assert rare.mean() == pytest.approx(0.5, abs=0.025)


def test_the_audioset_weights_are_the_sum_over_labels_of_one_over_count_plus_offset() -> None:
    targets = np.array([[1, 0], [1, 1], [0, 0]], bool)
    expected = np.array([1 / 102, 1 / 102 + 1 / 101, 1 / 101])
    np.testing.assert_allclose(label_weights(targets, offset=100.0), expected / expected.sum())


def test_a_part_of_the_data_is_drawn_without_replacement() -> None:
    weights = np.full(50, 1 / 50)
    batches = batches_of([8] * 50, weights=weights, epoch_clips=20)
    order = batches.order(0)
    assert len(order) == len(set(order.tolist())) == 20


@settings(max_examples=40)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), size=st.integers(1, 4))
def test_evaluation_windows_cover_every_sample(lengths: list[int], size: int) -> None:
    store, clips = store_of(lengths), np.arange(len(lengths))
    targets = np.eye(len(lengths), dtype=bool)
    heard: dict[int, set[float]] = {clip: set() for clip in clips.tolist()}
    for batch in Windows(store, clips, targets, window=8, batch_size=size):
        assert len(batch.waves) <= size
        assert torch.equal(batch.targets.bool(), torch.from_numpy(targets)[batch.clips])
        for clip, wave in each_wave(batch):
            heard[clip] |= set(wave.tolist())
    for clip in clips.tolist():
        assert heard[clip] == set(store.read(clip).tolist())
