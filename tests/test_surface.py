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


def test_a_model_of_several_labels_is_measured_as_such_on_clips_with_one_label_each(
    data: Path, tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    bundle = make_bundle(tmp_path / "bundle", labels=("bell", "drum"), task="multi-label")
    evaluation = ossicle.evaluate(bundle, data, device="cpu")
    assert evaluation.dataset.task == "single-label" and evaluation.metrics.task == "multi-label"


def test_an_evaluation_leaves_other_peoples_files_alone(shared_bundle: Path, record: Record, tmp_path: Path) -> None:
    for number, label in enumerate(("bell", "drum", "voice")):
        for take in range(2):
            record(f"data/{label}/{take}.wav", seconds=0.4, seed=2 * number + take)
    evaluation = ossicle.evaluate(shared_bundle, tmp_path / "data", device="cpu")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "predictions.csv").write_text("mine")
    with pytest.raises(ossicle.OssicleError, match="predictions.csv"):
        evaluation.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "predictions.csv").read_text() == "mine"


@pytest.mark.parametrize(
    "call", [lambda d: ossicle.train(d, {"epochs": 3}), lambda d: ossicle.tune("x", d, TrainConfig())]
)
def test_a_configuration_of_another_type_is_refused(
    call: Callable[[Path], object], data: Path, untyped: Callable
) -> None:
    with untyped(), pytest.raises(TypeError, match=r"config must be a (Train|Tune)Config, got a (dict|TrainConfig)"):
        call(data)


def test_cross_validation_resumed_without_its_arguments_stays_cross_validation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    config = TrainConfig(depth=1, epochs=1, batch_size=4, device="cpu", precision="float32", validation=0.0)
    first = ossicle.train(data, config, output=tmp_path / "run", folds="all")
    again = ossicle.train(data, output=tmp_path / "run", resume=True)
    assert len(again.folds) == len(first.folds) > 1
    with pytest.raises(ossicle.OssicleError, match="begun with folds=all"):
        ossicle.train(data, output=tmp_path / "run", folds="1", resume=True)


def test_a_number_given_as_text_is_refused_in_python(untyped: Callable) -> None:
    with untyped(), pytest.raises(ossicle.OssicleError, match="epochs='30' is text; expected 30"):
        TrainConfig(epochs="30")  # type: ignore[arg-type]
