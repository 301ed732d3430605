"""Several processes train one network: the numbers are those of one, and none is left behind."""

import dataclasses
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

import ossicle
from ossicle.draws import Piece, generator_of
from ossicle.errors import SettingRefused
from ossicle.frontend import augment, create_frontend
from ossicle.models import create_model
from ossicle.models.attention import Block
from ossicle.training import TrainConfig
from ossicle.training.loader import WaveBatches, Windows
from ossicle.training.loop import processes
from ossicle.training.ranks import (
    STEP,
    Ranks,
    environment_plugins,
    refuse_processes,
    refuse_sharding,
    settle_processes,
)
from ossicle.weights.tensors import load_weights

RANKED = Path(__file__).with_name("ranked.py")
ranked = SimpleNamespace(**runpy.run_path(str(RANKED)))


def run_program(*command: object) -> subprocess.CompletedProcess[str]:
    """Runs Python as a user does, in a process of its own."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ossicle.__file__).parents[1]), "OSSICLE_KERNELS": "onednn"}
    return subprocess.run(
        [sys.executable, *map(str, command)], env={**os.environ, **own}, capture_output=True, text=True, timeout=300
    )


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


def test_two_processes_compute_the_losses_of_one(
    forks: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = forks.run(RANKED, tmp_path / "two.npz", "2", "5")
    assert two.code == 0, two.err
    found, (exact, validation) = np.load(tmp_path / "two.npz"), ranked.steps()
    assert len(exact) == 50
    np.testing.assert_allclose(found["exact"], exact, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found["validation"], validation, rtol=0, atol=1e-9)

    def single(seed: int | None = None) -> np.ndarray:
        return np.array(ranked.steps(dtype=torch.float32, drop_path=0.0, epochs=2, seed=seed)[0])

    one = single()
    permuted = max(np.abs(single(seed) - one).max() for seed in range(2))
    apart = np.abs(found["single"] - one).max()
    with capsys.disabled():
        print(f"\nfloat32: two processes {apart:.1e} from one, other orders of the clips {permuted:.1e}")
    assert apart < 10 * max(permuted, 1e-7)


def test_torchrun_starts_the_same_processes(forks: Any, tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    launched = run_program(*torchrun, RANKED, tmp_path / "torchrun.npz", "1", "1")
    assert launched.returncode == 0, launched.stderr
    two = forks.run(RANKED, tmp_path / "two.npz", "2", "1")
    assert two.code == 0, two.err
    found, same = np.load(tmp_path / "two.npz"), np.load(tmp_path / "torchrun.npz")
    assert all(np.array_equal(found[name], same[name]) for name in found)


SETTINGS = "depth=1 window=0.4 epochs=3 batch_size=5 warmup=0 precision=float32 device=cpu".split()


def test_a_process_that_dies_ends_the_run_with_a_sentence_and_a_resumed_run_is_the_same(
    forks: Any, sounds: Path, tmp_path: Path
) -> None:
    arguments = ("train", sounds, "--init", "none", "--devices", 2, "--set", *SETTINGS, "patchout_f=2")
    whole = run_program("-m", "ossicle", *arguments, "-o", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert "Each batch is cut over 2 processes, 2 or 3 clips each" in whole.stdout
    assert whole.stdout.count("epoch 3/3") == 1 and whole.stderr == ""

    killed = forks.run(*arguments, "-o", tmp_path / "killed", to=1, part=".step-00000008", write=1)
    assert killed.code == 1 and not killed.hung
    assert killed.err == (
        "ossicle: rank 1 of the 2 processes was killed (SIGKILL), so the run stops; if it has a checkpoint, --resume "
        "continues it from there.\n"
    )
    resumed = forks.run("train", sounds, "-o", tmp_path / "killed", "--resume")
    assert resumed.code == 0 and "Continuing from" in resumed.out, resumed.err
    one, other = (load_weights(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_equal_weights_have_equal_metrics_and_every_clip_is_scored_once(
    forks: Any, sounds: Path, tmp_path: Path
) -> None:
    """Nothing is learnt, so that two processes and one end with the very same weights."""
    rows = [line.rsplit(",", 1)[0] for line in (sounds / "meta.csv").read_text().splitlines()[1:]]
    table = tmp_path / "table.csv"  # five clips to test, seven to choose
    folds = [f"{sounds}/{row},{'tested' if number < 5 else 'other'}" for number, row in enumerate(rows)]
    table.write_text("\n".join(["file,label,fold", *folds]) + "\n")
    settings = [*SETTINGS, "epochs=1", "lr=0", "validation=0.35"]
    for number in (1, 2):
        run = forks.run(
            *("train", table, "--init", "none", "--folds", "tested", "--devices", number, "-o", tmp_path / f"{number}"),
            *("--set", *settings),
        )
        assert run.code == 0, run.err
    one, two = tmp_path / "1", tmp_path / "2"
    for name in ("predictions.csv", "metrics.json", "model/config.json", "model/model.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    tested = [Path(line.split(",")[0]).name for line in (two / "predictions.csv").read_text().splitlines()[1:]]
    assert tested == [row.split(",")[0] for row in rows[:5]]
    chosen = json.loads((two / "split.json").read_text())["validation"]
    assert len(chosen) % 2 and (one / "split.json").read_bytes() == (two / "split.json").read_bytes()


def test_torchrun_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    settled = settle_processes(TrainConfig())
    assert (settled.devices, settled.nodes) == (2, 2)
    with pytest.raises(SettingRefused, match="torchrun has started 2 processes on each of 2 machines"):
        settle_processes(TrainConfig(devices=3))


def test_slurm_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "1"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingRefused, match="8 processes; give it --ntasks-per-node=4, not --ntasks"):
        settle_processes(TrainConfig())
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    settled = settle_processes(TrainConfig())
    assert (settled.devices, settled.nodes) == (4, 2)
    assert settle_processes(TrainConfig(devices=4, nodes=2)) == settled
    with pytest.raises(
        SettingRefused, match="SLURM has started 4 processes on each of 2 machines, and devices=8 nodes=1"
    ):
        settle_processes(TrainConfig(devices=8))
    (plugin,) = environment_plugins()
    assert isinstance(plugin, SLURMEnvironment) and not plugin.auto_requeue
    monkeypatch.setenv("SLURM_NTASKS", "7")
    with pytest.raises(SettingRefused, match="SLURM has started 7 processes, and not as many on each of 2 machines"):
        settle_processes(TrainConfig())
    # A shell on a machine of the cluster is no job of several tasks.
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert settle_processes(TrainConfig(devices=2)) == TrainConfig(devices=2) and environment_plugins() == []


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
    # Which is never run here: what it is told is all that is known of it.
    assert isinstance(sharded, FSDPStrategy) and sharded._state_dict_type == "full" and sharded._timeout == STEP
    assert sharded.kwargs["auto_wrap_policy"]._module_classes == {Block}
    blocks = [one for one in create_model("passt_tiny_s16", depth=3).modules() if isinstance(one, Block)]
    assert len(blocks) == 3  # each of which is cut


@pytest.mark.parametrize(
    ("setting", "value"), [("average", "ema"), ("clip_gradient", 1.0), ("freeze_epochs", 1), ("compile", True)]
)
def test_what_needs_the_whole_network_is_refused_where_no_process_has_it(
    setting: str, value: Any, tiny: Callable[..., TrainConfig]
) -> None:
    free = {"average": "none", "clip_gradient": 0.0, "freeze_epochs": 0, "compile": False}
    refuse_sharding(tiny(devices=2, strategy="fsdp", **free), "cuda")
    with pytest.raises(SettingRefused, match=f"strategy=fsdp needs {setting}={free[setting]}"):
        refuse_sharding(tiny(devices=2, strategy="fsdp", **{**free, setting: value}), "cuda")
