"""A program of somebody who uses the library; `make lint` checks it as strictly as mypy can."""

from pathlib import Path

import ossicle


def main(folder: Path) -> None:
    data = ossicle.read_dataset(folder)
    print(len(data), data.labels)
    result = ossicle.train(data, ossicle.TrainConfig(epochs=2), output=folder / "run")
    evaluation: ossicle.Evaluation = ossicle.evaluate(result.folder, folder)
    accuracy: float | None = evaluation.metrics.accuracy.value
    print(accuracy, [row.label for row in evaluation.classes])
    recognizer = ossicle.load(result.folder, device="cpu")
    prediction = recognizer.predict(folder / "a.wav")
    print(prediction.rows[0].label, prediction.rows[0].score)
    tuned = ossicle.tune(result.folder, data, ossicle.TuneConfig(head="density"))
    print(tuned.evaluation, ossicle.list_models("passt_*"))
    ossicle.export_model(result.folder, to="onnx")


if __name__ == "__main__":
    main(Path("sounds"))
