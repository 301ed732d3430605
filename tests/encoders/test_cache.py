"""An encoder runs once for each item; what it gave is kept, found again, and never trusted when damaged."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ossicle.data import Item, read_dataset
from ossicle.encoders import load_encoder
from ossicle.encoders.cache import METADATA, FeatureStore, _Shard, open_features
from ossicle.encoders.hidden import Encoder, Hidden

RATE, HOP, DIM, LAYERS = 8_000, 80, 6, 3


class Stub(Encoder):
    """Frames of 10 ms through three blocks; a block sees its neighbors, so that padding would be heard."""

    modality = "sound"
    rate = RATE

    def __init__(self, *, seed: int = 0, gain: float = 1.0) -> None:
        torch.manual_seed(seed)
        blocks = [nn.Conv1d(HOP if layer == 0 else DIM, DIM, 3, padding=1) for layer in range(LAYERS)]
        super().__init__(nn.ModuleList(blocks), name="stub", num_layers=LAYERS, dim=DIM, settings={"gain": gain})
        self.gain = gain
        self.batches: list[int] = []
        self.blocks_run = 0

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        (wave,) = inputs
        return {"frames": torch.from_numpy(wave[: len(wave) // HOP * HOP]).reshape(1, -1, HOP).transpose(1, 2)}

    def _encode(self, batch: dict[str, Tensor], layers: int) -> Hidden:
        state = batch["frames"]
        self.batches.append(len(state))
        states = []
        for block in list(self.network)[:layers]:  # type: ignore[arg-type]
            state = block(state).tanh()
            states.append(state)
            self.blocks_run += 1
        features = self.gain * torch.stack(states, dim=1).transpose(2, 3)
        return Hidden(features=features, mask=torch.ones(len(features), features.shape[2], dtype=torch.bool))


class Halves(Stub):
    """Adds frames that hold no input behind those that do, as an encoder of a fixed length gives them."""

    def _encode(self, batch: dict[str, Tensor], layers: int) -> Hidden:
        real = super()._encode(batch, layers)
        features = torch.cat([real.features, torch.full_like(real.features, torch.nan)], dim=2)
        return Hidden(features=features, mask=torch.cat([real.mask, ~real.mask], dim=1))


def write(path: Path, seconds: float, seed: int) -> Item:
    samples = np.random.default_rng(seed).normal(scale=0.1, size=round(seconds * RATE)).astype(np.float32)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return Item(file=path, labels=("x",))


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Clips of three lengths, mixed."""
    return [write(tmp_path / f"{n}.wav", (0.3, 0.5, 0.81)[n % 3], seed=n) for n in range(14)]


def direct(encoder: Encoder, item: Item) -> Tensor:
    """The features (layer, time, dim) of one clip, alone and without any cache."""
    samples, _ = soundfile.read(item.file, dtype="float32")
    with torch.inference_mode():
        hidden = encoder.encode(encoder.prepare([samples]))
    return hidden.features[0][:, hidden.mask[0]]


def shards_in(folder: Path) -> list[Path]:
    return sorted((folder / "features").rglob("*.safetensors"))


def everything(store: FeatureStore) -> Tensor:
    return store.read(range(len(store))).features


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_pooled_features_are_those_of_each_clip_alone_whatever_shares_its_batch(items, tmp_path):
    encoder = Stub()
    mean = open_features(encoder, items, pool="mean", folder=tmp_path, batch_size=4)
    assert max(encoder.batches) == 4 and sum(encoder.batches) == len(items)
    both = open_features(encoder, items, pool="statistics", folder=tmp_path, batch_size=1)
    for index, item in enumerate(items):
        alone = direct(encoder, item)
        torch.testing.assert_close(mean.read([index]).features[0, :, 0], alone.mean(1), atol=1e-5, rtol=0)
        deviation = torch.from_numpy(alone.numpy().astype(np.float64).std(axis=1)).float()
        expected = torch.cat([alone.mean(1), deviation], dim=1)
        torch.testing.assert_close(both.read([index]).features[0, :, 0], expected, atol=1e-5, rtol=0)
    assert (mean.dim, both.dim) == (DIM, 2 * DIM)
    assert mean.read([3, 1]).features.shape == (2, LAYERS, 1, DIM)
    assert mean.read([3, 1]).mask.all()


def test_padding_would_change_the_features(items, tmp_path):
    """Without this the test above could not fail."""
    encoder = Stub()
    samples, _ = soundfile.read(items[0].file, dtype="float32")
    padded = encoder.encode(encoder.prepare([np.pad(samples, (0, 10 * HOP))])).features[0, :, : len(samples) // HOP]
    assert (padded - direct(encoder, items[0])).abs().max() > 1e-3


def test_frames_come_back_ragged_padded_with_zeros_and_masked(items, tmp_path):
    encoder = Stub()
    store = open_features(encoder, items, pool="time", folder=tmp_path, batch_size=4)
    hidden = store.read([2, 0, 1])
    assert hidden.features.shape == (3, LAYERS, 81, DIM) and hidden.features.dtype == torch.float32
    assert hidden.mask.sum(1).tolist() == [81, 30, 50] == store.lengths[[2, 0, 1]].tolist()
    for row, index in enumerate((2, 0, 1)):
        alone = direct(encoder, items[index])
        length = alone.shape[1]
        torch.testing.assert_close(hidden.features[row, :, :length], alone, atol=1e-3, rtol=1e-3)
        assert not hidden.features[row, :, length:].any()
    whole = open_features(encoder, items, pool="mean", folder=tmp_path)
    torch.testing.assert_close(hidden.mean(), whole.read([2, 0, 1]).mean(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("pool", ["mean", "statistics", "time"])
def test_frames_without_input_count_for_nothing(items, tmp_path, pool):
    plain = open_features(Stub(), items, pool=pool, folder=tmp_path / "plain")
    masked = open_features(Halves(), items, pool=pool, folder=tmp_path / "masked")
    assert torch.equal(everything(plain), everything(masked))
    assert not masked.failures


def test_frames_are_float16_unless_a_value_is_beyond_it(items, tmp_path):
    open_features(Stub(), items, pool="time", folder=tmp_path / "small")
    loud = Stub(gain=1e6)
    store = open_features(loud, items, pool="time", folder=tmp_path / "large")
    open_features(Stub(), items, pool="mean", folder=tmp_path / "pooled")
    kinds = [load_file(shards_in(tmp_path / name)[0])["features"].dtype for name in ("small", "large", "pooled")]
    assert kinds == [torch.float16, torch.float32, torch.float32]
    torch.testing.assert_close(store.read([0]).features[0], direct(loud, items[0]), atol=1, rtol=1e-5)


def test_only_the_blocks_that_are_asked_for_run(items, tmp_path):
    encoder = Stub()
    store = open_features(encoder, items[:1], pool="mean", folder=tmp_path, layers=2)
    assert encoder.blocks_run == 2
    torch.testing.assert_close(store.read([0]).features[0, :, 0], direct(encoder, items[0]).mean(1)[:2])
    for layers in (0, 4):
        with pytest.raises(ValueError, match=f"layers is {layers}; expected 1 to 3 for stub"):
            open_features(encoder, items[:1], pool="mean", folder=tmp_path, layers=layers)


def test_texts_and_images_are_read_by_the_modality_of_the_encoder(tmp_path):
    class Words(Stub):
        modality, rate = "text", None

        def prepare(self, inputs):
            (text,) = inputs
            return {"frames": torch.tensor([[float(ord(letter))] * HOP for letter in text]).T[None] / 100}

    class Rows(Stub):
        modality, rate = "image", None

        def prepare(self, inputs):
            (pixels,) = inputs
            return {"frames": torch.from_numpy(pixels[:, :HOP, 0] / np.float32(255)).T[None]}

    (tmp_path / "t.csv").write_text(
        "text,label\n" + "\n".join(f"{word},{word[0]}" for word in ("aa", "ab", "bb", "bab"))
    )
    texts = read_dataset(tmp_path / "t.csv", modality="text")
    store = open_features(Words(), texts.items, pool="time", folder=tmp_path)
    assert store.lengths.tolist() == [2, 2, 2, 3] and not store.failures
    for n in range(4):
        path = tmp_path / "images" / "ab"[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((5 + n, HOP, 3), 40 * n, np.uint8)).save(path)
    images = read_dataset(tmp_path / "images", modality="image")
    store = open_features(Rows(), images.items, pool="time", folder=tmp_path)
    assert sorted(store.lengths.tolist()) == [5, 6, 7, 8] and not store.failures


def test_texts_that_lose_their_end_are_counted_once(saved, tmp_path, capsys, log):
    encoder = load_encoder(saved("bert"))
    texts = ["drum " * length for length in (1, 22, 23, 100, 24)]  # a token at either end; 24 are heard
    items = [Item(file=tmp_path / "t.csv", labels=("x",), text=text, row=row) for row, text in enumerate(texts, 2)]
    open_features(encoder, items[:2], pool="mean", folder=tmp_path)
    assert not log.messages
    for _ in range(2):
        open_features(encoder, items, pool="mean", folder=tmp_path)
    assert log.messages == ["3 of 3 texts are longer than 24 tokens and lose their end"]
    open_features(encoder, items, pool="time", folder=tmp_path)
    assert log.messages[1:] == ["3 of 5 texts are longer than 24 tokens and lose their end"]
    assert capsys.readouterr() == ("", "")


def test_large_clips_run_alone_and_nobody_waits_beyond_a_stretch(items, tmp_path, monkeypatch):
    whole = everything(open_features(Stub(), items, pool="mean", folder=tmp_path / "whole"))
    monkeypatch.setattr("ossicle.encoders.cache.GROUP_ITEMS", 5)
    encoder = Stub()
    stretched = open_features(encoder, items, pool="mean", folder=tmp_path / "stretched")
    assert sorted(encoder.batches) == [1, 1, 1, 1, 2, 2, 2, 2, 2]
    monkeypatch.setattr("ossicle.encoders.cache.BATCH_BYTES", round(0.7 * RATE * 4))
    encoder = Stub()
    alone = open_features(encoder, items, pool="mean", folder=tmp_path / "alone")
    assert sorted(encoder.batches) == [*[1] * 10, 2, 2]
    for store in (stretched, alone):
        torch.testing.assert_close(everything(store), whole, atol=1e-5, rtol=0)


class Large(Stub):
    """Pretends, without any memory, that every input is so large; counts what waits."""

    def __init__(self, *, megabytes: float, lengths: int) -> None:
        super().__init__()
        self.bytes, self.lengths = round(megabytes * 2**20), lengths
        self.prepared = self.waiting = self.most = 0

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        frames = self.bytes // (4 * HOP) - self.prepared % self.lengths
        self.prepared += 1
        self.waiting += frames * HOP * 4
        self.most = max(self.most, self.waiting)
        return {"frames": torch.zeros(1).expand(1, HOP, frames)}

    def _encode(self, batch: dict[str, Tensor], layers: int) -> Hidden:
        self.waiting -= batch["frames"].nbytes
        return super()._encode({"frames": batch["frames"][..., :3]}, layers)


@pytest.mark.parametrize("megabytes, most", [(0.2, 16), (0.5, 8), (1.9, 2), (2.1, 1), (50, 1)])
def test_a_batch_is_bounded_in_bytes(items, tmp_path, megabytes, most):
    encoder = Large(megabytes=megabytes, lengths=1)
    more = [write(tmp_path / f"more{n}.wav", 0.3, seed=n) for n in range(4)]
    open_features(encoder, [*items, *more], pool="mean", folder=tmp_path)
    assert max(encoder.batches) == most and sum(encoder.batches) == 18


def test_clips_of_unequal_length_wait_in_a_bounded_number_of_bytes(tmp_path):
    items = [write(tmp_path / f"{n}.wav", 0.01, seed=n) for n in range(100)]
    encoder = Large(megabytes=1.9, lengths=90)
    store = open_features(encoder, items, pool="mean", folder=tmp_path)
    assert 32 << 20 < encoder.most <= 67 << 20
    assert sum(encoder.batches) == 100 and len(store.usable) == 100


# --- once ------------------------------------------------------------------------------------------------------------


def test_the_encoder_runs_once_for_each_item_whatever_the_order_or_the_part(items, tmp_path):
    first = open_features(Stub(), items, pool="mean", folder=tmp_path)
    again = Stub()
    second = open_features(again, items[::-1], pool="mean", folder=tmp_path)
    part = open_features(again, items[3:7], pool="mean", folder=tmp_path)
    assert again.batches == []
    assert torch.equal(everything(first).flip(0), everything(second))
    assert torch.equal(everything(first)[3:7], everything(part))


def test_the_same_item_twice_runs_once(items, tmp_path):
    encoder = Stub()
    store = open_features(encoder, [items[0], items[1], items[0]], pool="mean", folder=tmp_path)
    assert sum(encoder.batches) == 2
    assert torch.equal(store.read([0]).features, store.read([2]).features)


def test_another_encoder_setting_pooling_or_a_greater_depth_runs_again(items, tmp_path):
    open_features(Stub(), items, pool="mean", layers=2, folder=tmp_path)
    for encoder, pool, layers in (
        (Stub(seed=1), "mean", 2),
        (Stub(gain=2.0), "mean", 2),
        (Stub(), "time", 2),
        (Stub(), "mean", 3),
    ):
        open_features(encoder, items, pool=pool, layers=layers, folder=tmp_path)
        assert sum(encoder.batches) == len(items)


def test_features_of_sound_that_was_decoded_otherwise_are_made_again(items, tmp_path, monkeypatch):
    encoder = Stub()
    with monkeypatch.context() as patch:
        patch.setattr("ossicle.data.modalities.Sound.versions", {"decoder": 0})
        patch.setattr("ossicle.data.modalities.decode", lambda item, rate: np.full(RATE, 0.5, np.float32))
        old = open_features(encoder, items[:2], pool="mean", folder=tmp_path / "cache")
    ran = encoder.blocks_run
    new = open_features(encoder, items[:2], pool="mean", folder=tmp_path / "cache")
    assert encoder.blocks_run > ran and not torch.equal(old.read([0]).features, new.read([0]).features)
    ran = encoder.blocks_run
    open_features(encoder, items[:2], pool="mean", folder=tmp_path / "cache")
    assert encoder.blocks_run == ran


@pytest.mark.parametrize("pool", ["mean", "statistics", "time"])
def test_the_first_layers_of_a_deeper_cache_are_read_and_run_nothing(items, tmp_path, pool):
    whole = open_features(Stub(), items, pool=pool, folder=tmp_path)
    for layers in (2, 1):
        encoder = Stub()
        first = open_features(encoder, items, pool=pool, folder=tmp_path, layers=layers)
        assert not encoder.batches
        assert torch.equal(everything(first), everything(whole)[:, :layers])


def test_of_a_deeper_cache_with_some_items_only_the_others_run(items, tmp_path):
    open_features(Stub(), items[:5], pool="mean", folder=tmp_path)
    encoder = Stub()
    mixed = open_features(encoder, items, pool="mean", folder=tmp_path, layers=2)
    assert sum(encoder.batches) == len(items) - 5 and encoder.blocks_run == 2 * len(encoder.batches)
    alone = open_features(Stub(), items, pool="mean", folder=tmp_path / "alone", layers=2)
    torch.testing.assert_close(everything(mixed), everything(alone), atol=1e-5, rtol=0)
    assert everything(mixed).shape[1] == 2


def test_the_mean_is_the_first_half_of_the_statistics_and_runs_nothing(items, tmp_path):
    both = open_features(Stub(), items, pool="statistics", folder=tmp_path).read([0, 1]).features
    encoder = Stub()
    mean = open_features(encoder, items, pool="mean", folder=tmp_path).read([0, 1]).features
    assert not encoder.batches
    assert torch.equal(mean, both[..., : mean.shape[-1]])


def test_of_an_edited_data_set_only_what_is_new_runs(items, tmp_path):
    before = open_features(Stub(), items, pool="mean", folder=tmp_path)
    write(items[5].file, 0.4, seed=99)
    new = write(tmp_path / "new.wav", 0.4, seed=100)
    encoder = Stub()
    after = open_features(encoder, [*items, new], pool="mean", folder=tmp_path)
    assert encoder.batches == [2]
    unchanged = [index for index in range(len(items)) if index != 5]
    assert torch.equal(before.read(unchanged).features, after.read(unchanged).features)
    assert not torch.equal(before.read([5]).features, after.read([5]).features)


def test_progress_counts_up_to_all(items, tmp_path):
    seen: list[tuple[int, int]] = []
    open_features(
        Stub(),
        items,
        pool="mean",
        folder=tmp_path,
        progress=lambda done, total, failed: seen.append((done, total)),
        batch_size=4,
    )
    assert seen == sorted(seen) and seen[-1] == (14, 14) and len(seen) > 3


def test_an_adapted_encoder_is_refused(items, tmp_path):
    encoder = Stub()
    encoder.adapted = True
    with pytest.raises(ValueError, match="has a tuner"):
        open_features(encoder, items, pool="mean", folder=tmp_path)


# --- what cannot be used ---------------------------------------------------------------------------------------------


def test_damaged_and_missing_files_are_named_and_the_rest_is_done(items, tmp_path):
    items[4].file.write_bytes(b"RIFF, but no sound")
    items[9].file.unlink()
    for _ in range(2):  # made, and found again
        store = open_features(Stub(), items, pool="mean", folder=tmp_path)
        assert sorted(store.failures) == [4, 9]
        assert "4.wav" in store.failures[4] and "9.wav" in store.failures[9]
        assert store.usable.tolist() == [index for index in range(14) if index not in (4, 9)]
        torch.testing.assert_close(store.read([5]).features[0, :, 0], direct(Stub(), items[5]).mean(1))
        with pytest.raises(ValueError, match=r"item 4 has no features: .*4\.wav"):
            store.read([3, 4])
    write(items[9].file, 0.3, seed=9)
    assert sorted(open_features(Stub(), items, pool="mean", folder=tmp_path).failures) == [4]


def test_features_that_are_not_finite_are_named(items, tmp_path):
    class Hurt(Stub):
        def _encode(self, batch: dict[str, Tensor], layers: int) -> Hidden:
            hidden = super()._encode(batch, layers)
            hidden.features[0, 0, 0, 0] = torch.nan
            return hidden

    store = open_features(Hurt(), items[:3], pool="time", folder=tmp_path, batch_size=1)
    assert sorted(store.failures) == [0, 1, 2]
    assert "0.wav" in store.failures[0] and "finite" in store.failures[0]


def test_no_items_at_all_make_an_empty_store(tmp_path):
    store = open_features(Stub(), [], pool="mean", folder=tmp_path)
    assert len(store) == 0 and len(store.usable) == 0
    with pytest.raises(ValueError, match="at least one item"):
        store.read([])


# --- shards ----------------------------------------------------------------------------------------------------------


def test_shards_are_bounded_and_say_what_they_hold(items, tmp_path):
    encoder = Stub()
    one = 2 * LAYERS * DIM * 4  # the mean and the deviation
    store = open_features(encoder, items, pool="mean", folder=tmp_path, batch_size=2, shard_bytes=3 * one)
    paths = shards_in(tmp_path)
    assert len(paths) == len(store.shards) >= 3
    assert all(path.parent.parent == tmp_path / "features" for path in paths)
    keys: list[str] = []
    for path in paths:
        with safe_open(path, framework="pt") as shard:
            told = json.loads(shard.metadata()[METADATA])
            assert shard.get_tensor("features").nbytes <= 3 * one + one
        assert (told["fingerprint"], told["settings"]) == (encoder.fingerprint, encoder.settings)
        assert (told["pool"], told["layers"], told["encoder"]) == ("statistics", LAYERS, "stub")
        keys += told["keys"]
    assert len(set(keys)) == len(keys) == len(items)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def other_encoder(path: Path) -> None:
    """A whole shard of the same items, by the same name, that another encoder made."""
    with safe_open(path, framework="pt") as shard:
        told = json.loads(shard.metadata()[METADATA])
        tensors = {name: shard.get_tensor(name) * (2 if name == "features" else 1) for name in shard.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={METADATA: json.dumps({**told, "fingerprint": "0" * 16})})


DAMAGE = {
    "last byte": lambda path: flip(path, -1),
    "first byte": lambda path: flip(path, 0),
    "in the middle": lambda path: flip(path, path.stat().st_size * 9 // 10),
    "in the keys": lambda path: flip(path, path.read_bytes().index(b"keys") + 12),
    "in the hash": lambda path: flip(path, path.read_bytes().index(b"sha256") + 14),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "no metadata": lambda path: save_file(load_file(path), path),
    "metadata of another kind": lambda path: save_file(load_file(path), path, metadata={METADATA: "[1]"}),
    "no features": lambda path: save_file({"lengths": torch.ones(2)}, path, metadata={METADATA: "{}"}),
    "of another encoder": other_encoder,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("pool", ["mean", "time"])
def test_a_damaged_or_foreign_shard_is_made_again(items, tmp_path, damage, pool):
    size = 2_000 if pool == "time" else 300
    whole = everything(open_features(Stub(), items, pool=pool, folder=tmp_path, batch_size=2, shard_bytes=size))
    victim, *others = shards_in(tmp_path)
    intact = victim.read_bytes()
    damage(victim)
    assert victim.read_bytes() != intact
    encoder = Stub()
    store = open_features(encoder, items, pool=pool, folder=tmp_path, batch_size=2, shard_bytes=size)
    assert 0 < sum(encoder.batches) < len(items)
    assert torch.equal(everything(store), whole)
    assert shards_in(tmp_path) == sorted([victim, *others])
    once_more = Stub()
    open_features(once_more, items, pool=pool, folder=tmp_path)
    assert once_more.batches == []


def test_no_flipped_byte_changes_what_is_read(items, tmp_path):
    whole = everything(open_features(Stub(), items[:2], pool="mean", folder=tmp_path))
    (shard,) = shards_in(tmp_path)
    intact = shard.read_bytes()
    for at in range(0, len(intact), 7):
        shard.write_bytes(intact)
        flip(shard, at)
        assert torch.equal(everything(open_features(Stub(), items[:2], pool="mean", folder=tmp_path)), whole), at


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("pool", ["mean", "time"])
def test_a_run_that_an_error_or_ctrl_c_ends_keeps_what_it_has_encoded(items, tmp_path, pool, stop):
    class Stopped(Stub):
        def _encode(self, batch: dict[str, Tensor], layers: int) -> Hidden:
            if sum(self.batches) == 4:
                raise stop
            return super()._encode(batch, layers)

    with pytest.raises(stop):
        open_features(Stopped(), items, pool=pool, folder=tmp_path / "ended", batch_size=2)
    encoder = Stub()
    resumed = open_features(encoder, items, pool=pool, folder=tmp_path / "ended", batch_size=2)
    assert sum(encoder.batches) == len(items) - 4
    whole = open_features(Stub(), items, pool=pool, folder=tmp_path / "whole", batch_size=2)
    assert torch.equal(everything(resumed), everything(whole))


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("ossicle.encoders.cache.monotonic", lambda: self.now, raising=False)


def test_a_run_that_is_killed_loses_half_a_minute_at_most(items, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)

    class Slow(Stub):
        def _encode(self, batch: dict[str, Tensor], layers: int) -> Hidden:
            clock.now += 16
            return super()._encode(batch, layers)

    shards: list[int] = []
    store = open_features(
        Slow(),
        items,
        pool="mean",
        folder=tmp_path,
        batch_size=2,
        progress=lambda done, total, failed: shards.append(len(shards_in(tmp_path))),
    )
    # Before the first, then after eight batches: two of each three lengths, and one left over of two.
    assert shards == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    encoder = Stub()
    again = open_features(encoder, items, pool="mean", folder=tmp_path)
    assert not encoder.batches and torch.equal(everything(again), everything(store))


def test_a_run_of_days_leaves_some_hundreds_of_shards(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    monkeypatch.setattr("ossicle.encoders.cache.save_weights", lambda *_, **__: None)
    shard = _Shard(tmp_path, {"pool": "statistics"})
    written = 0
    for second in range(0, 3 * 86_400, 10):
        clock.now += 10
        shard.add(str(second), torch.zeros(1, LAYERS, 2 * DIM))
        written += bool(shard.overdue() and shard.write())
    assert 300 < written < 700


PROGRAM = """
import os, runpy, signal, sys
from pathlib import Path
names = runpy.run_path({tests!r})
folder, output, enough = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
class Mortal(names["Stub"]):
    def _encode(self, batch, layers):
        if len(names["shards_in"](output)) == enough:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._encode(batch, layers)
items = [names["Item"](file=folder / f"{{n}}.wav", labels=("x",)) for n in range(14)]
names["open_features"](Mortal(), items, pool="time", folder=output, batch_size=2, shard_bytes=2_000)
"""


@pytest.mark.parametrize("enough", [1, 3])
def test_a_run_that_is_killed_keeps_its_shards_and_ends_as_if_it_had_not_been(items, tmp_path, enough):
    killed, uninterrupted = tmp_path / "killed", tmp_path / "whole"
    program = PROGRAM.format(tests=str(Path(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(killed), str(enough)], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(shards_in(killed)) == enough
    kept = {path: path.stat().st_ino for path in shards_in(killed)}
    encoder = Stub()
    resumed = open_features(encoder, items, pool="time", folder=killed, batch_size=2, shard_bytes=2_000)
    assert 0 < sum(encoder.batches) < len(items)
    assert all(path.stat().st_ino == node for path, node in kept.items())
    fresh = open_features(Stub(), items, pool="time", folder=uninterrupted, batch_size=2, shard_bytes=2_000)
    assert torch.equal(everything(resumed), everything(fresh))
    assert resumed.lengths.tolist() == fresh.lengths.tolist()
