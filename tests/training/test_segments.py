"""What a table says of recordings reaches a training: its column of files, and segments that are cut short."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ossicle.data import Dataset, read_dataset
from ossicle.encoders import load_encoder
from ossicle.errors import DataRefused
from ossicle.training import TrainConfig, TuneConfig, train, tune


@pytest.fixture
def segments(sounds: Path, tmp_path: Path) -> Dataset:
    """Every third of the 24 recordings of 0.4 s is said to go on until 1.5 s; the others are whole."""
    header, *rows = (sounds / "meta.csv").read_text().splitlines()
    lines = [f"{sounds}/{row},{'' if number % 3 else 1.5}" for number, row in enumerate(rows)]
    (tmp_path / "t.csv").write_text("\n".join([f"{header},end", *lines]))
    return read_dataset(tmp_path / "t.csv")


@pytest.fixture
def until_the_protocol(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a run logs before it trains."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ossicle.training.run.Run.__init__", stop)

    def go(run: Callable[[], object]) -> str:
        log.clear()
        with pytest.raises(KeyboardInterrupt):
            run()
        return "\n".join(log.messages)

    return go


def test_training_says_which_segments_are_cut_short(
    segments: Dataset, tiny: Callable[..., TrainConfig], tmp_path: Path, until_the_protocol: Callable[..., str]
) -> None:
    said = until_the_protocol(lambda: train(segments, tiny(), output=tmp_path / "run", cache=tmp_path))
    assert "cut short: 8 of 24 clips (the segment ends after the recording), such as " in said
    assert "[0 s to 1.5 s]: asked for 1.5 s, found 0.40 s" in said


def test_tuning_says_which_segments_are_cut_short_also_of_features_that_were_kept(
    segments: Dataset, shared_bundle: Path, tmp_path: Path, until_the_protocol: Callable[..., str]
) -> None:
    encoder = load_encoder(shared_bundle)
    config = TuneConfig(encoder=encoder.name, head="mean", epochs=1, device="cpu")
    for name in ("first", "again"):
        said = until_the_protocol(
            lambda name=name: tune(encoder, segments, config, output=tmp_path / name, cache=tmp_path)
        )
        assert "cut short: 8 of 24 clips" in said


def test_training_and_tuning_read_the_files_from_the_column_that_is_named(
    sounds: Path, shared_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text((sounds / "meta.csv").read_text().replace("file,", "clip,"))
    said = "no column 'sound' for --file: its columns are clip, label, group"
    with pytest.raises(DataRefused, match=said):
        train(tmp_path / "t.csv", TrainConfig(device="cpu"), columns={"file": "sound"})
    with pytest.raises(DataRefused, match=said):
        tune(shared_bundle, tmp_path / "t.csv", TuneConfig(head="mean", device="cpu"), columns={"file": "sound"})
