"""The teacher's pass against its published outputs, and answers that survive a kill."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pretraining.manifest import write_rows
from pretraining.teacher import Teacher, check_same_corpus, features, store_block, write_statistics
from safetensors.torch import load_file
from tests.pretraining.conftest import melody
from tests.pretraining.test_corpus import row

SHARED = Path(__file__).resolve().parents[3] / "shared"
WEIGHTS = SHARED / "weights" / "mn04_audioset"
needs_weights = pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"the teacher's weights are not at {WEIGHTS}")


@needs_weights
def test_the_pass_gives_the_golden_logits_and_embeddings() -> None:
    golden = load_file(WEIGHTS / "golden.safetensors")
    with torch.no_grad():
        logits, embeddings = Teacher(WEIGHTS)(golden["log_mel"][:, None])
    torch.testing.assert_close(logits, golden["logits"], atol=2e-4, rtol=0)
    torch.testing.assert_close(embeddings, golden["embedding"], atol=2e-4, rtol=0)


@needs_weights
def test_answers_are_stored_in_the_order_of_the_manifest_and_standardized(tmp_path: Path) -> None:
    rows = [row(file=f"{number}.flac") for number in range(3)]
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.flac", melody(number, seconds=0.5 + number), 32_000)
    teacher = Teacher(WEIGHTS)
    store_block(tmp_path / "answers-00000.safetensors", teacher, tmp_path, rows)
    stored = load_file(tmp_path / "answers-00000.safetensors")
    assert {name: (value.dtype, tuple(value.shape)) for name, value in stored.items()} == {
        "logits": (torch.float16, (3, 527)),
        "embeddings": (torch.float16, (3, 384)),
    }
    samples = torch.from_numpy(soundfile.read(tmp_path / "2.flac", dtype="float32")[0])
    with torch.no_grad():
        logits, _ = teacher(features(samples[None]))
    torch.testing.assert_close(stored["logits"][2], logits[0].half(), atol=1e-2, rtol=1e-3)
    write_statistics(tmp_path, rows)
    statistics = load_file(tmp_path / "statistics.safetensors")
    expected = stored["embeddings"].double().mean(dim=0).float()
    torch.testing.assert_close(statistics["embeddings.mean"], expected)


def test_a_clip_shorter_than_a_second_is_followed_by_silence() -> None:
    samples = torch.from_numpy(melody(1, seconds=0.5))[None]
    padded = torch.nn.functional.pad(samples, (0, 16_000))
    assert torch.equal(features(samples), features(padded))


def test_answers_to_another_corpus_are_not_continued(tmp_path: Path) -> None:
    check_same_corpus(tmp_path, [row()])
    check_same_corpus(tmp_path, [row()])
    with pytest.raises(SystemExit, match="another corpus"):
        check_same_corpus(tmp_path, [row(file="other.flac")])
    assert json.loads((tmp_path / "corpus.json").read_text())["clips"] == 1


def test_a_manifest_of_numpy_numbers_is_refused_before_it_is_half_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_rows(tmp_path / "manifest.jsonl", [row(), row(seconds=np.float32(1))])
    assert not list(tmp_path.iterdir())
