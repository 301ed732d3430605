"""The Python surface: quiet, typed, objects as results, one sentence for a wrong argument."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ossicle
from ossicle import TrainConfig

Record = Callable[..., Path]


@pytest.fixture
def data(record: Record, tmp_path: Path) -> Path:
    for number, label in enumerate(("bell", "drum")):
        for take in range(6):
            record(f"data/{label}/{take}.wav", seconds=0.4, seed=10 * number + take)
    return tmp_path / "data"


def test_train_evaluate_and_predict_are_quiet_and_give_objects(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    config = TrainConfig(depth=1, epochs=1, batch_size=4, device="cpu", precision="float32")
    steps: list[tuple[int, int, float]] = []
    result = ossicle.train(str(data), config, output=str(tmp_path / "run"), progress=lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1]
    assert isinstance(result, ossicle.TrainResult) and result.folder == tmp_path / "run"
    assert result.evaluation.metrics.accuracy.value == result.folds[0].evaluation.metrics.accuracy.value

    evaluation = ossicle.evaluate(str(tmp_path / "run"), data, part="all")
    assert len(evaluation.predictions) == 12 and {row.label for row in evaluation.classes} == {"bell", "drum"}
    assert set(evaluation.predictions[0]["scores"]) == {"bell", "drum"}
    assert repr(evaluation).startswith("Evaluation(12 clips: accuracy=")
    evaluation.save(tmp_path / "evaluation")
    assert {"metrics.json", "predictions.csv", "report.html"} <= {
        path.name for path in (tmp_path / "evaluation").iterdir()
    }

    recognizer = ossicle.load(tmp_path / "run", device="cpu")
    again = ossicle.evaluate(recognizer, ossicle.read_dataset(data), part="all")
    assert again.metrics.to_json() == evaluation.metrics.to_json()
    tested = ossicle.evaluate(recognizer, ossicle.read_dataset(data))
    assert tested.metrics.to_json() == result.evaluation.metrics.to_json()
    file = data / "bell" / "0.wav"
    one, two = recognizer.predict([file, str(file)])
    assert one.top == two.top == recognizer.predict(file).top
    assert capfd.readouterr() == ("", "")


def test_a_run_goes_on_with_its_own_settings(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    config = TrainConfig(depth=1, epochs=1, batch_size=4, device="cpu", precision="float32", seed=7)
    first = ossicle.train(data, config, output=tmp_path / "run")
    again = ossicle.train(data, output=tmp_path / "run", resume=True)
    np.testing.assert_array_equal(again.evaluation.scores, first.evaluation.scores)


def test_a_bare_array_is_refused_with_what_to_pass(shared_bundle: Path) -> None:
    recognizer = ossicle.load(shared_bundle, device="cpu")
    with pytest.raises((TypeError, ValueError), match="rate"):
        recognizer.predict(np.zeros(32_000, np.float32))  # type: ignore[call-overload]
