"""The encoders of two boards, each against a stub of its board's protocol."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pytest
import soxr
import torch
from torch.utils.data import DataLoader, Dataset

from ossicle import hear
from ossicle.hear.boards import MtebEncoder, XaresEncoder

# --- X-ARES ----------------------------------------------------------------------------------------------------------


def check_audio_encoder(encoder: Any) -> None:
    """What X-ARES 0.1 asks of an encoder before it runs a task."""
    assert isinstance(encoder, torch.nn.Module) and type(encoder).__name__.endswith("Encoder")
    assert isinstance(encoder.sampling_rate, int) and encoder.hop_size_in_ms > 0
    with torch.inference_mode():
        embeddings = encoder.to("cpu")(torch.randn(2, 50_000))
    assert isinstance(embeddings, torch.Tensor) and embeddings.ndim == 3
    assert embeddings.shape[0] == 2 and embeddings.shape[2] == encoder.output_dim


class MyEncoder(XaresEncoder):
    """As the documentation says: X-ARES makes one without arguments."""

    folder: Path

    def __init__(self) -> None:
        super().__init__(self.folder, variant="base2level", device="cpu")


def test_an_encoder_passes_the_check_of_xares(shared_bundle: Path) -> None:
    MyEncoder.folder = shared_bundle
    encoder = MyEncoder()
    check_audio_encoder(encoder)
    assert encoder(torch.zeros(32_000)).shape == (1, 20, encoder.output_dim)


def test_vector_number_i_is_that_of_the_time_i_hops(shared_bundle: Path) -> None:
    encoder = XaresEncoder(shared_bundle, device="cpu")
    wave = torch.randn(1, 33_000, generator=torch.Generator().manual_seed(0))
    embeddings, times = hear.get_timestamp_embeddings(wave, encoder.model)
    found = encoder(wave)
    assert found.shape[1] == 21 == -(-33_000 // 1_600)  # the hops that begin in it
    assert torch.equal(found, embeddings[:, :21]) and times[0, 20] == 20 * encoder.hop_size_in_ms


def test_ten_minutes_are_encoded(shared_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = XaresEncoder(shared_bundle, device="cpu")
    seen: list[int] = []

    def outputs(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(len(windows))
        return windows[:, :1], windows[:, :194]

    monkeypatch.setattr(encoder.model.recognizer, "outputs", outputs)
    assert encoder(torch.zeros(1, 600 * 32_000)).shape == (1, 12_000, 195)
    assert sum(seen) == 12_001 and max(seen) <= 250


# --- MTEB ------------------------------------------------------------------------------------------------------------


@runtime_checkable
class EncoderProtocol(Protocol):
    """What MTEB 2 asks of an encoder."""

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **options: Any,
    ) -> Any: ...

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any: ...

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any: ...

    @property
    def mteb_model_meta(self) -> Any: ...


class Task(Dataset):
    """Rows of a data set of sounds."""

    def __init__(self, clips: list[tuple[np.ndarray, int]]) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        samples, rate = self.clips[index]
        return {"audio": {"array": samples, "sampling_rate": rate}, "label": index}


def noise(samples: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=samples).astype(np.float32)


def test_an_encoder_of_mteb_takes_clips_of_any_length_rate_and_channels(shared_bundle: Path) -> None:
    encoder = MtebEncoder(shared_bundle, None, device="cpu")
    assert isinstance(encoder, EncoderProtocol)
    stereo = np.stack([noise(16_000), noise(16_000)])
    clips = [(noise(3), 8_000), (noise(16_000), 16_000), (stereo, 16_000), (noise(160_000, seed=1), 32_000)]
    loader = DataLoader(Task(clips), batch_size=3)
    found = encoder.encode(
        loader, task_metadata=None, hf_split="test", hf_subset="default", batch_size=3, show_progress_bar=False
    )
    assert found.shape == (4, encoder.model.scene_embedding_size) and np.isfinite(found).all()
    np.testing.assert_allclose(found[2], found[1], atol=1e-5)
    resampled = soxr.resample(noise(16_000), 16_000, 32_000)
    own = hear.get_scene_embeddings(resampled[None], encoder.model).numpy()
    np.testing.assert_allclose(found[1], own[0], atol=1e-3)


def test_batches_that_mteb_has_collated_are_taken_as_they_are(shared_bundle: Path) -> None:
    encoder = MtebEncoder(shared_bundle, device="cpu")
    clip = {"array": noise(32_000), "sampling_rate": 32_000}
    assert encoder.get_audio_embeddings([{"audio": [clip, clip]}, {"audio": [clip]}]).shape == (3, 195)
    with pytest.raises(ValueError, match="the task has text, label; expected audio"):
        encoder.get_audio_embeddings([{"text": ["a"], "label": [0]}])


def test_similarities_are_cosines(shared_bundle: Path) -> None:
    encoder = MtebEncoder(shared_bundle, device="cpu")
    one, two = noise(12).reshape(3, 4), noise(12, seed=1).reshape(3, 4)
    both = encoder.similarity(one, torch.from_numpy(two))
    wanted = (one @ two.T) / np.linalg.norm(one, axis=1)[:, None] / np.linalg.norm(two, axis=1)
    np.testing.assert_allclose(both.numpy(), wanted, rtol=1e-5)
    np.testing.assert_allclose(encoder.similarity_pairwise(one, two).numpy(), np.diag(wanted), rtol=1e-5)
