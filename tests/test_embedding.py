"""`embed_files`: vectors of files as an object; and `embed` takes what `predict` takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ossicle.embedding import embed_files
from ossicle.errors import SettingRefused
from ossicle.jobs.folders import Outcome
from ossicle.loading import load
from ossicle.recognizer import Recognizer

Record = Callable[..., Path]


@pytest.fixture(scope="module")
def recognizer(shared_bundle: Path) -> Recognizer:
    return load(shared_bundle, device="cpu")


def test_files_become_vectors_and_nothing_is_printed(
    recognizer: Recognizer, shared_bundle: Path, record: Record, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = record("calls/a.wav", seconds=1.5)
    (tmp_path / "calls" / "b.wav").write_text("dear diary")
    seen: list[tuple[Outcome, int, int]] = []
    found = embed_files(recognizer, tmp_path / "calls", progress=lambda *step: seen.append(step))
    assert found.files == (str(path),) and [done for _, done, _ in seen] == [1, 2]
    np.testing.assert_allclose(found.embeddings[0], recognizer.embed(path), rtol=1e-6)
    (outcome,) = found.failed
    assert "b.wav" in str(outcome.error) and found.about["window_seconds"] == 1.0
    by_name = embed_files(str(shared_bundle), [str(path)], device="cpu", timestamps=True)
    assert by_name.start.tolist() == [0.0, 0.5]
    by_name.save(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["embeddings"], by_name.embeddings)
    assert repr(found) == "Embeddings(1 vectors of 192 numbers, 1 files, 1 failed)"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"layer": 0}, ValueError, "layer is 1 or more, not 0"),
        ({"layer": 9}, SettingRefused, "expected 1 to 1"),
        ({"window": 1000.0}, ValueError, "window, hop: a window of 1000 s is outside"),
        ({"track": 0}, ValueError, "track is 1 or more, not 0"),
    ],
)
def test_arguments_outside_their_range_are_refused_before_anything_is_decoded(
    options: dict[str, Any], kind: type[Exception], said: str, recognizer: Recognizer
) -> None:
    with pytest.raises(kind, match=said):
        embed_files(recognizer, "gone.wav", **options)


def test_a_file_of_another_suffix_is_refused(recognizer: Recognizer, record: Record, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.npz or \.safetensors"):
        embed_files(recognizer, record("a.wav")).save(tmp_path / "a.csv")


def test_a_tensor_with_its_rate_is_embedded_and_one_without_is_refused(recognizer: Recognizer) -> None:
    wave = torch.randn(32_000, generator=torch.Generator().manual_seed(0)) / 10
    vector = recognizer.embed((wave, 32_000))
    np.testing.assert_array_equal(recognizer.embed((wave.numpy(), 32_000)), vector)
    np.testing.assert_array_equal(recognizer.embed((wave.requires_grad_(), 32_000)), vector)
    for method in (recognizer.predict, recognizer.embed):
        with pytest.raises(TypeError, match=r"without its rate: pass \(array, rate\)"):
            method(wave)  # type: ignore[call-overload]


def test_vectors_of_equal_settings_have_one_identity_and_others_another(
    shared_bundle: Path, make_bundle: Callable[..., Path], record: Record, tmp_path: Path
) -> None:
    path = record("a.wav", seconds=1.5)

    def identity(model: Path = shared_bundle, **options: Any) -> str:
        return embed_files(model, path, device="cpu", **options).about["identity"]

    first = identity()
    renamed = make_bundle(tmp_path / "renamed", labels=("x", "y", "z"), thresholds=(0.1, 0.2, 0.3))
    assert {identity(window=1.0), identity(renamed)} == {first}
    recognizer = load(shared_bundle, device="cpu")
    assert embed_files(recognizer, path).about["identity"] == first
    assert all(p.requires_grad for p in recognizer.model.blocks.parameters())  # it was only looked at
    others = {identity(**options) for options in ({"layer": 1}, {"window": 0.5}, {"hop": 0.5}, {"timestamps": True})}
    others.add(identity(make_bundle(tmp_path / "padded", pad=True)))
    half = embed_files(load(shared_bundle, device="cpu", precision="bfloat16"), path).about
    assert half["precision"] == "bfloat16"
    assert len({first, half["identity"], *others}) == 7
