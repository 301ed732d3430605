"""Several processes train one network: the numbers are those of one, and none is left behind."""

import dataclasses
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

import ossicle
from ossicle.draws import Piece, generator_of
from ossicle.errors import SettingRefused
from ossicle.frontend import augment, create_frontend
from ossicle.training import TrainConfig
from ossicle.training.loader import WaveBatches, Windows
from ossicle.training.loop import processes
from ossicle.training.ranks import Ranks, refuse_processes, settle_processes
from ossicle.weights.tensors import load_weights

RANKED = Path(__file__).with_name("ranked.py")
ranked = SimpleNamespace(**runpy.run_path(str(RANKED)))


def run_script(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], env=environment(), capture_output=True, text=True, timeout=300)


def environment() -> dict[str, str]:
    source = str(Path(ossicle.__file__).parents[1])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source, "OSSICLE_KERNELS": "onednn"}


@given(number=st.integers(0, 50), world=st.integers(1, 8))
def test_pieces_are_consecutive_as_equal_as_possible_and_all(number: int, world: int) -> None:
    own = [np.arange(number)[Ranks(rank=rank, world=world).piece(number)] for rank in range(world)]
    for piece, expected in zip(own, np.array_split(np.arange(number), world), strict=True):
        assert piece.tolist() == expected.tolist()


@pytest.mark.parametrize("world", [2, 3])
def test_the_pieces_of_a_batch_are_the_batch(world: int) -> None:
    data, targets = ranked.store(), np.random.default_rng(0).random((80, 3)) < 0.5
    known = np.random.default_rng(1).random((80, 3)) < 0.7

    def batches(**options: Any) -> WaveBatches:
        return WaveBatches(
            data, np.arange(64), targets, window=12_800, batch_size=7, seed=3, known=known, workers=1, **options
        )

    others = [list(batches(ranks=Ranks(rank=rank, world=world))) for rank in range(world)]
    for whole, *pieces in zip(batches(), *others, strict=True):
        counting = [piece for piece in pieces if piece.part]  # the last batch has fewer clips than there are processes
        assert torch.equal(torch.cat([piece.clips for piece in counting]), whole.clips)
        assert torch.equal(torch.cat([piece.lengths for piece in counting]), whole.lengths)
        waves = [wave for piece in counting for wave in piece.waves]  # each followed by silence up to the longest
        for one, other, length in zip(waves, whole.waves, whole.lengths.tolist(), strict=True):
            assert torch.equal(one[:length], other[:length])
        assert whole.known is not None and {piece.seed for piece in pieces} == {whole.seed}
        parts = [float(piece.known.sum()) / float(whole.known.sum()) for piece in counting if piece.known is not None]
        assert [piece.part / world for piece in counting] == pytest.approx(parts)


def test_a_clip_draws_the_same_in_a_piece_and_in_the_whole_batch() -> None:
    frontend = create_frontend("passt", freq_mask=20, time_mask=10)
    lengths = torch.tensor([12_800, 9_600, 12_800, 16_000, 9_600])
    waves = torch.randn(5, 16_000, generator=torch.Generator().manual_seed(0))
    waves *= torch.arange(16_000) < lengths[:, None]

    def features(own: slice, piece: Piece | None) -> tuple[torch.Tensor, torch.Tensor]:
        generator = generator_of(5, piece)
        clips = augment.gain(waves[own], generator=generator)
        clips = augment.roll(clips, lengths=lengths[own], generator=generator)
        spec = frontend(clips, lengths=lengths[own], frames=60, generator=generator)
        return spec, torch.rand(3, generator=generator)

    whole, after = features(slice(None), None)
    for own in (slice(0, 3), slice(3, 5), slice(1, 2)):
        spec, also = features(own, Piece(first=own.start, clips=own.stop - own.start, total=5, longest=16_000))
        assert torch.equal(spec, whole[own])
        assert torch.equal(also, after)  # what is drawn later is the same in every process


def test_partners_for_mixing_come_from_the_piece_and_leave_later_draws_alone() -> None:
    after = []
    for first, clips in ((0, 3), (3, 2)):
        generator = generator_of(1, Piece(first=first, clips=clips, total=5, longest=10))
        spec, targets = torch.eye(clips)[:, :, None], torch.eye(clips)
        mixed, labels = augment.mix_spectrograms(spec, targets, generator=generator)
        torch.testing.assert_close(mixed[:, :, 0], labels)
        after.append(torch.rand(2, generator=generator))
    assert torch.equal(*after)


def test_every_validation_clip_is_scored_by_one_process() -> None:
    data, targets = ranked.store(), np.zeros((80, 3), bool)
    seen: list[int] = []
    for rank in range(4):
        part = Windows(data, np.arange(64, 73), targets, window=12_800, batch_size=2, ranks=Ranks(rank=rank, world=4))
        seen += {int(clip) for batch in part for clip in batch.clips}
    assert sorted(seen) == list(range(64, 73))


def test_two_processes_compute_the_losses_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:

    two = run_script(sys.executable, RANKED, tmp_path / "two.npz", "2")
    assert two.returncode == 0, two.stderr
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    launched = run_script(sys.executable, *torchrun, RANKED, tmp_path / "torchrun.npz", "1")
    assert launched.returncode == 0, launched.stderr
    found, same = np.load(tmp_path / "two.npz"), np.load(tmp_path / "torchrun.npz")
    assert all(np.array_equal(found[name], same[name]) for name in found)

    exact, validation = ranked.fifty_steps()
    assert len(exact) == 50
    np.testing.assert_allclose(found["exact"], exact, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found["validation"], validation, rtol=0, atol=1e-9)

    def single(seed: int | None = None) -> np.ndarray:
        return np.array(ranked.fifty_steps(dtype=torch.float32, drop_path=0.0, seed=seed)[0])

    one = single()
    permuted = max(np.abs(single(seed) - one).max() for seed in range(3))
    apart = np.abs(found["single"] - one).max()
    with capsys.disabled():
        print(f"\nfloat32: two processes {apart:.1e} from one, other orders of the clips {permuted:.1e}")
    assert apart < 10 * max(permuted, 1e-7)


def command(data: Path, output: Path, *more: str) -> list[str]:
    settings = "depth=1 window=0.4 epochs=30 batch_size=5 warmup=0 precision=float32 device=cpu patchout_t=0.3"
    fixed = ["--devices", "2", "--set", *settings.split(), *more]
    return [sys.executable, "-m", "ossicle", "train", str(data), "-o", str(output), *fixed]


def test_a_process_that_dies_ends_the_run_with_a_sentence_and_a_resumed_run_is_the_same(
    sounds: Path, tmp_path: Path
) -> None:
    whole = run_script(*command(sounds, tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    assert "Each batch is cut over 2 processes, 2 or 3 clips each" in whole.stdout
    assert whole.stdout.count("epoch 30/30") == 1 and whole.stderr == ""

    killed = tmp_path / "killed"
    with subprocess.Popen(
        command(sounds, killed), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        while not process.stdout.readline().startswith("epoch 2/"):
            assert process.poll() is None
        (child,) = children(process.pid)
        os.kill(child, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and not alive(child)
    assert said == (
        "ossicle: rank 1 of the 2 processes was killed (SIGKILL), so the run stops; --resume continues it from its "
        "last checkpoint.\n"
    )
    resumed = run_script(sys.executable, "-m", "ossicle", "train", sounds, "-o", killed, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    one, other = (load_weights(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def children(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [pid for pid in map(int, listed.split()) if "ossicle" in Path(f"/proc/{pid}/cmdline").read_text()]


def alive(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


def test_torchrun_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    settled = settle_processes(TrainConfig())
    assert (settled.devices, settled.nodes) == (2, 2)
    with pytest.raises(SettingRefused, match="torchrun has started 2 processes on each of 2 machines"):
        settle_processes(TrainConfig(devices=3))


def test_processes_that_cannot_be_are_refused(
    tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)  # none in a worker of the tests
    with pytest.raises(SettingRefused, match="strategy=fsdp needs GPUs, and the device is cpu"):
        refuse_processes(tiny(devices=2, strategy="fsdp"))
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    with pytest.raises(SettingRefused, match="there is no file of it"):
        refuse_processes(tiny(devices=2))


def test_the_strategies_are_those_of_the_settings(tiny: Callable[..., TrainConfig]) -> None:
    config = tiny(devices=2, nodes=3)
    told = processes(config, torch.device("cpu"))
    assert isinstance(told["strategy"], DDPStrategy) and (told["devices"], told["num_nodes"]) == (2, 3)
    assert processes(tiny(), torch.device("cpu")) == {"devices": 1}
    sharded = processes(dataclasses.replace(config, strategy="fsdp"), torch.device("cuda"))["strategy"]
    assert isinstance(sharded, FSDPStrategy)  # which is never run here
