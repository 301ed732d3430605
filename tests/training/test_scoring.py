"""The test part is scored as `ossicle predict` scores it, from decoded samples."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ossicle.data import Dataset, read_dataset, write_shards
from ossicle.data.cache import SampleStore, open_store
from ossicle.loading import load
from ossicle.recognizer import Recognizer
from ossicle.training.loader import Windows
from ossicle.training.train_network import score_alone, score_together

RATE = 32_000
SECONDS = (0.4, 1.0, 2.3, 0.1, 1.0, 3.0)  # windows are of 1 s


@pytest.fixture(scope="module", params=["single-label", "multi-label"])
def recognizer(
    request: pytest.FixtureRequest, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Recognizer:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("bundle") / request.param
    return load(make_bundle(folder, pad=True, task=request.param), device="cpu")


@pytest.fixture(params=["folder", "tars"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    rng, lines = np.random.default_rng(0), ["file,label"]
    (tmp_path / "data").mkdir()
    for number, seconds in enumerate(SECONDS):
        soundfile.write(tmp_path / "data" / f"{number}.flac", rng.normal(0, 0.1, round(seconds * RATE)), RATE)
        lines.append(f"{number}.flac,{'dog' if number % 2 else 'cat'}")
    (tmp_path / "data" / "meta.csv").write_text("\n".join(lines))
    found = read_dataset(tmp_path / "data")
    if request.param == "folder":
        return found
    write_shards(found, tmp_path / "tars")
    return read_dataset(tmp_path / "tars")


def windows(recognizer: Recognizer, dataset: Dataset, store: SampleStore, positions: list[int]) -> Windows:
    return Windows(
        store,
        np.array(positions),
        dataset.targets(),
        window=recognizer.window_samples()[0],
        batch_size=4,
        min_samples=recognizer.min_samples,
    )


def test_each_clip_has_the_logits_of_its_prediction(
    recognizer: Recognizer, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = [4, 0, 2, 3, 5]
    expected = np.stack([recognizer.item_logits(dataset.items[position]) for position in positions])
    store = open_store(dataset.items, RATE, folder=tmp_path)
    monkeypatch.setattr("ossicle.recognizer.decode", None)  # nothing is decoded again
    cut = windows(recognizer, dataset, store, positions)
    logits, used = score_alone(recognizer, cut)
    assert used.tolist() == positions
    np.testing.assert_array_equal(logits, expected)

    passes: list[int] = []
    hook = recognizer.model.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    logits, used = score_together(recognizer, cut)
    hook.remove()
    assert passes == [4, 4, 1]  # 1, 1, 3, 1 and 3 windows
    order = np.argsort(positions)
    assert used.tolist() == sorted(positions)
    np.testing.assert_allclose(logits, expected[order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("score", [score_alone, score_together])
def test_a_clip_that_is_gone_is_named_and_left_out(
    score: Callable[..., tuple[np.ndarray, np.ndarray]], recognizer: Recognizer, dataset: Dataset, tmp_path: Path
) -> None:
    store = open_store(dataset.items, RATE, folder=tmp_path, budget_bytes=0, skip_bad=True)
    item = dataset.items[2]
    if item.member is None:
        item.file.unlink()
    else:
        content = bytearray(item.file.read_bytes())
        content[int(item.member.tar.offsets[item.member.row]) + 100] ^= 1
        item.file.write_bytes(content)
    lost: dict[int, str] = {}
    seen: list[int] = []
    logits, used = score(
        recognizer,
        windows(recognizer, dataset, store, [1, 2, 3]),
        lose=lost.__setitem__,
        progress=lambda done, total: seen.append(done),
    )
    assert used.tolist() == [1, 3] and len(logits) == 2 and seen == [1, 2, 3]
    assert list(lost) == [2] and "2.flac" in lost[2]
    none, used = score(recognizer, windows(recognizer, dataset, store, [2]), lose=lost.__setitem__)
    assert none.shape == (0, 3) and used.tolist() == []
