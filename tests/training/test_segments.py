"""What a table says of recordings reaches a training: its column of files, and segments that are cut short."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ossicle.data import Dataset, read_dataset
from ossicle.encoders import load_encoder
from ossicle.errors import DataRefused
from ossicle.training import TrainConfig, TuneConfig, run_training, run_tuning, train, tune


@pytest.fixture
def segments(sounds: Path, tmp_path: Path) -> Dataset:
    """Every third of the 24 recordings of 0.4 s is said to go on until 1.5 s; the others are whole."""
    header, *rows = (sounds / "meta.csv").read_text().splitlines()
    lines = [f"{sounds}/{row},{'' if number % 3 else 1.5}" for number, row in enumerate(rows)]
    (tmp_path / "t.csv").write_text("\n".join([f"{header},end", *lines]))
    return read_dataset(tmp_path / "t.csv")


def until_the_protocol(go: Callable[[Callable[[str], None]], object]) -> str:
    """What a run says before it trains."""
    said: list[str] = []

    def say(sentence: str) -> None:
        said.append(sentence)
        if sentence.startswith("Protocol"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(say)
    return "\n".join(said)


def test_training_says_which_segments_are_cut_short(
    segments: Dataset, tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    said = until_the_protocol(lambda say: train(segments, tiny(), output=tmp_path / "run", cache=tmp_path, say=say))
    assert "cut short: 8 of 24 clips (the segment ends after the recording), such as " in said
    assert "[0 s to 1.5 s]: asked for 1.5 s, found 0.40 s" in said


def test_tuning_says_which_segments_are_cut_short_also_of_features_that_were_kept(
    segments: Dataset, shared_bundle: Path, tmp_path: Path
) -> None:
    encoder = load_encoder(shared_bundle)
    config = TuneConfig(encoder=encoder.name, head="mean", epochs=1, device="cpu")
    for name in ("first", "again"):
        said = until_the_protocol(
            lambda say, name=name: tune(
                segments, config, encoder=encoder, output=tmp_path / name, cache=tmp_path, say=say
            )
        )
        assert "cut short: 8 of 24 clips" in said


def test_training_and_tuning_read_the_files_from_the_column_that_is_named(
    sounds: Path, shared_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text((sounds / "meta.csv").read_text().replace("file,", "clip,"))
    for run, options in ((run_training, {}), (run_tuning, {"encoder": str(shared_bundle), "head": "mean"})):
        with pytest.raises(DataRefused, match="no column 'sound' for --file: its columns are clip, label, group"):
            run(data=tmp_path / "t.csv", file="sound", settings={"device": "cpu"}, **options)
