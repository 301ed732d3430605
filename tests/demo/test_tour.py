"""The demo's steps on a cut-down set: a few seconds of tuning, and everything that the demo promises on disk."""

import csv
import dataclasses
import shutil
from pathlib import Path

import pytest

from ossicle.data.recordings import drums_folder
from ossicle.demo import run_demo
from ossicle.demo.tour import CONFIG, LOOP
from ossicle.loading import load

pytestmark = pytest.mark.usefixtures("undrawn")
SMALL = dataclasses.replace(CONFIG, epochs=2, device="cpu")
KITS = {"BJA_Pacific": "1", "menegass": "2"}


@pytest.fixture(scope="module")
def drums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kits of the built-in set with kick, snare and hi-hat, and the loop."""
    folder = tmp_path_factory.mktemp("drums")
    with open(drums_folder() / "meta.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] in KITS]
    rows = [row for row in rows if row["label"] in ("kick", "snare", "hi-hat")]
    for name in [row["file"] for row in rows] + [f"loops/{LOOP}"]:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(drums_folder() / name, folder / name)
    lines = [f"{row['file']},{row['label']},{row['group']},{KITS[row['group']]}" for row in rows]
    (folder / "meta.csv").write_text("\n".join(["file,label,group,fold", *lines]) + "\n")
    return folder


def test_the_tour_tunes_listens_and_leaves_what_it_says(drums: Path, tmp_path: Path) -> None:
    said: list[str] = []
    tour = run_demo(tmp_path / "out", drums=drums, config=SMALL, say=said.append)

    text = "\n".join(said)
    for words in (
        "the model in the package, knows 527 labels",
        "Drum",
        "round 1 of 2, without BJA_Pacific",
        "correct (95 % interval",
        "Always predicting",
        "onset F1",
        "LOOP",
    ):
        assert (LOOP if words == "LOOP" else words) in text
    for file in ("report.html", "sequence.wav", "sequence.wav.txt", "loop.flac", "loop.flac.txt", "predictions.csv"):
        assert (tour.folder / file).stat().st_size > 0, file

    # Onsets need no training: they are right even here.
    assert tour.onsets.f1 > 0.9
    assert tour.evaluation.metrics.clips == len((drums / "meta.csv").read_text().splitlines()) - 1
    assert len(tour.loop) > 20

    track = [line.split("\t") for line in (tour.folder / "loop.flac.txt").read_text().splitlines()]
    assert [float(start) for start, _, _ in track] == pytest.approx([row.start for row in tour.loop], abs=1e-5)
    assert {label for _, _, label in track} <= {"kick", "snare", "hi-hat"}

    # The command that the tour ends with works on the folder that it names.
    command = next(line for line in said if "ossicle predict" in line and "rounds" in line)
    assert load(Path(command.split()[2])).labels == ("hi-hat", "kick", "snare")

    # A second tour finds another folder and leaves the first alone.
    before = (tour.folder / "report.html").stat().st_mtime_ns
    assert run_demo(tmp_path / "out", drums=drums, config=SMALL, say=said.append).folder == tmp_path / "out-2"
    assert (tour.folder / "report.html").stat().st_mtime_ns == before
