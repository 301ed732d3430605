"""`ossicle embed`: the vectors of recordings and of their windows, in the documented arrays."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from typer.testing import Result

from ossicle.audio import read_clip
from ossicle.encoders import load_encoder
from ossicle.loading import load

Run = Callable[..., Result]
Record = Callable[..., Path]


def test_a_vector_for_each_recording_and_one_for_each_window(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    paths = [record("calls/a.wav", seconds=2.5), record("calls/b.wav", seconds=0.4, seed=1)]
    recognizer = load(shared_bundle, device="cpu")
    assert run("embed", shared_bundle, tmp_path / "calls", "-o", tmp_path / "a.npz").exit_code == 0
    whole = np.load(tmp_path / "a.npz")
    assert whole["embeddings"].shape == (2, 192) and whole["embeddings"].dtype == np.float32
    assert whole["files"].tolist() == [str(path) for path in paths]
    assert whole["index"].tolist() == [0, 1] and whole["end"].tolist() == [2.5, 0.4]
    for row, path in zip(whole["embeddings"], paths, strict=True):
        np.testing.assert_allclose(row, recognizer.embed(path), rtol=1e-6)

    result = run("embed", shared_bundle, tmp_path / "calls", "-o", tmp_path / "w.safetensors", "--timestamps")
    assert result.exit_code == 0 and "4 vectors of 192 numbers, of 2 recordings" in result.stdout
    windows = load_file(tmp_path / "w.safetensors")
    assert windows["index"].tolist() == [0, 0, 0, 1] and windows["start"].tolist() == [0, 1, 1.5, 0]
    with safe_open(tmp_path / "w.safetensors", "np") as file:
        about = json.loads(file.metadata()["ossicle"])
    assert about["files"] == [str(path) for path in paths] and about["model"] == "passt_tiny_s16"
    assert (about["window_seconds"], about["hop_seconds"], about["layer"]) == (1.0, 1.0, None)


def test_a_layer_is_the_mean_of_its_states(
    run: Run, make_bundle: Callable[..., Path], record: Record, tmp_path: Path
) -> None:
    bundle, path = make_bundle(tmp_path / "deep", depth=3), record("a.wav", seconds=1.0)
    assert run("embed", bundle, path, "-o", tmp_path / "2.npz", "--layer", "2").exit_code == 0
    encoder = load_encoder(bundle)
    hidden = encoder.encode(encoder.prepare([read_clip(path, 32_000).samples]))
    np.testing.assert_allclose(np.load(tmp_path / "2.npz")["embeddings"][0], hidden.mean()[0, 1], rtol=1e-5, atol=1e-6)
    wrong = run("embed", bundle, path, "-o", tmp_path / "9.npz", "--layer", "9")
    assert wrong.exit_code == 1 and "expected 1 to 3" in wrong.stderr and not (tmp_path / "9.npz").exists()


@pytest.mark.parametrize(("name", "code", "said"), [("a.csv", 2, "must end in .npz"), ("gone/a.npz", 3, "1 of 2")])
def test_mistakes_are_one_sentence(
    name: str, code: int, said: str, run: Run, shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    record("calls/a.wav")
    (tmp_path / "calls" / "text.wav").write_text("dear diary")
    result = run("embed", shared_bundle, tmp_path / "calls", "-o", tmp_path / name)
    assert result.exit_code == code and said in " ".join(result.stderr.replace("│", " ").split())


def test_where_nothing_can_be_written_is_said_before_anything_is_heard(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    blocked = record("a.wav") / "a.npz"
    (tmp_path / "text.wav").write_text("dear diary")
    result = run("embed", shared_bundle, tmp_path / "text.wav", tmp_path / "a.wav", "-o", blocked)
    assert result.exit_code == 1 and result.stderr == f"ossicle: Not a directory: {blocked}.\n"
    result = run("export", shared_bundle, "-o", blocked.with_suffix(".onnx"))
    assert result.exit_code == 1 and f"Not a directory: {blocked.with_suffix('.onnx')}." in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_a_name_that_is_no_unicode_is_embedded(
    name: str, run: Run, shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    record("calls/a.wav").rename(tmp_path / "calls" / os.fsdecode(b"caf\xe9.wav"))
    for _ in range(2):  # what it wrote it may replace
        assert run("embed", shared_bundle, tmp_path / "calls", "-o", tmp_path / name).exit_code == 0
    assert run("predict", shared_bundle, tmp_path / "calls").stdout.splitlines()[0].endswith("caf\\udce9.wav'")


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_a_file_of_somebody_else_is_not_replaced(name: str, run: Run, shared_bundle: Path, tmp_path: Path) -> None:
    if name == "a.npz":
        np.savez(tmp_path / name, embeddings=np.zeros(2))
    else:
        save_file({"embeddings": np.zeros(2)}, tmp_path / name)
    before = (tmp_path / name).read_bytes()
    result = run("embed", shared_bundle, tmp_path / "a.wav", "-o", tmp_path / name)
    assert result.exit_code == 1 and "ossicle did not write it" in result.stderr
    assert (tmp_path / name).read_bytes() == before
