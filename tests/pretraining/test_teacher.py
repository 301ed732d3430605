"""The teacher's pass against its published outputs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pretraining.manifest import write_rows
from pretraining.teacher import Teacher, features
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
        heard = Teacher(WEIGHTS)(golden["log_mel"][:, None])
    torch.testing.assert_close(heard.logits, golden["logits"], atol=2e-4, rtol=0)
    torch.testing.assert_close(heard.embedding, golden["embedding"], atol=2e-4, rtol=0)
    frames = golden["log_mel"].shape[-1]
    assert heard.map.shape[2:] == (4, -(-frames // 32)) and heard.hint.shape[2:] == (8, -(-frames // 16))


def test_a_clip_shorter_than_a_second_is_followed_by_silence() -> None:
    samples = torch.from_numpy(melody(1, seconds=0.5))[None]
    padded = torch.nn.functional.pad(samples, (0, 16_000))
    assert torch.equal(features(samples), features(padded))


def test_a_manifest_of_numpy_numbers_is_refused_before_it_is_half_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_rows(tmp_path / "manifest.jsonl", [row(), row(seconds=np.float32(1))])
    assert not list(tmp_path.iterdir())
