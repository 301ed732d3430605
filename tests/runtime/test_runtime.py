"""An exported recognizer without torch: the same scores, the same options, a distribution of its own."""

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from ossicle.cli import app
from ossicle.data.recordings import drums_folder
from ossicle.errors import BundleRefused
from ossicle.loading import load as load_with_torch
from ossicle.runtime import load
from ossicle.runtime.__main__ import main, parser

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

LOOP = drums_folder() / "loops" / "mika55-loop_mika.flac"
ROOT = Path(__file__).resolve().parents[2]
Record = Callable[..., Path]


@pytest.fixture(scope="module")
def exported(shared_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared bundle as an ONNX file."""
    from ossicle.export import export_model

    return export_model(shared_bundle, output=tmp_path_factory.mktemp("onnx") / "tiny.onnx").path


def test_scores_rows_and_embeddings_are_those_of_torch(exported: Path, shared_bundle: Path, record: Record) -> None:
    ours, theirs = load(exported, threads=1), load_with_torch(shared_bundle, device="cpu")
    assert (ours.labels, ours.task, ours.rate, ours.min_samples) == (
        theirs.labels,
        theirs.task,
        theirs.rate,
        theirs.min_samples,
    )
    assert ours.provenance == theirs.provenance
    for number, seconds in enumerate((0.05, 0.4, 1.0, 2.3)):
        path = record(f"{number}.wav", seconds=seconds, seed=number)
        one, other = ours.predict(path, hop=0.5, top_k=2), theirs.predict(path, hop=0.5, top_k=2)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
        assert [(row.start, row.end, row.label) for row in one.rows] == [
            (row.start, row.end, row.label) for row in other.rows
        ]
        assert one.padded_seconds == other.padded_seconds
        found, wanted = ours.embed(path), theirs.embed(path)
        near = 2000 * np.finfo(np.float32).eps * np.abs(wanted).max()  # a network is as exact as its largest number
        np.testing.assert_allclose(found, wanted, rtol=0, atol=near)


def test_importing_it_loads_no_torch(exported: Path, record: Record) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'jaxtyping', 'typer', 'yaml', 'safetensors', 'rich'): sys.modules[name] = None\n"
        "from ossicle.runtime import load\n"
        f"print(load({str(exported)!r}, threads=1).predict({str(record('a.wav'))!r}).top[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() in ("bell", "drum", "voice"), done.stderr


def test_the_command_has_the_options_of_predict_but_those_that_the_documents_name() -> None:
    command: typer.core.TyperGroup = typer.main.get_command(app)  # type: ignore[assignment]
    predict = {name for parameter in command.commands["predict"].params for name in parameter.opts}
    here = {name for action in parser()._actions for name in action.option_strings}
    assert here - predict == {"-h", "--help", "--threads"}
    of_torch = {"--text", "--device", "--encoder", "--timeline", "--cluster", "--keep", "--keep-by"}
    assert predict - here == of_torch | {"model", "inputs"}
    for document in ("docs/export.md", "packages/ossicle-runtime/README.md"):
        named = set(re.findall(r"`(--[a-z-]+)`", (ROOT / document).read_text()))
        assert named >= of_torch | {"--threads"}, document


def test_the_command_writes_what_predict_writes(
    exported: Path, shared_bundle: Path, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("calls/a.wav", seconds=2)
    (tmp_path / "calls" / "b.wav").write_text("dear diary")
    code = main([str(exported), str(tmp_path / "calls"), "-o", str(tmp_path / "out"), "--threads", "1"])
    said = capsys.readouterr()
    assert code == 3 and "1 of 2 recordings could not be used" in said.err
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "predictions.csv").read_text())))
    wanted = load_with_torch(shared_bundle, device="cpu").predict(tmp_path / "calls" / "a.wav").rows
    assert [(row["label"], row["start"]) for row in rows] == [(row.label, f"{row.start:.3f}") for row in wanted]
    assert rows[0]["model_version"] == load(exported).bundle.version


@pytest.mark.parametrize(
    "arguments",
    ["--format csv A B --hop 0.5", "A --hop 0.5 B --format csv", "A B --hop 0.5 --format csv"],
)
def test_options_may_stand_anywhere(
    arguments: str, exported: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"A": str(record("a.wav")), "B": str(record("b.wav"))}
    assert main([str(exported), *(files.get(word, word) for word in arguments.split())]) == 0
    assert {row["file"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))} == set(files.values())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["gone.onnx", "a.wav"], 1, "no such file"),
        (["MODEL", "a.wav", "--hop", "5"], 2, "--window, --hop: a hop of 5 s"),
        (["MODEL", "a.wav", "--resume"], 2, "needs -o"),
        (["MODEL", "a.wav", "--top-k", "0"], 2, "--top-k is 1 or more"),
        (["MODEL", "a.wav", "--min-score", "2"], 2, "0 to 1"),
        (["MODEL", "a.wav", "-o", "out", "--workers", "0"], 2, "--workers is 1 or more, not 0."),
        (["MODEL", "a.wav", "--threads", "0"], 2, "--threads is 1 or more, not 0."),
        (["MODEL"], 2, "Name an audio file"),
        (["MODEL", "gone.wav"], 3, "there is no such file"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], code: int, said: str, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(exported) if argument == "MODEL" else argument for argument in arguments]) == code
    assert said in capsys.readouterr().err


def test_a_closed_standard_input_is_a_sentence(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as a daemon has it
    assert main([str(exported), "-"]) == 1
    assert capsys.readouterr().err == (
        "ossicle-runtime: standard input is closed; send sound into it, or name a recording\n"
    )


def test_a_reader_that_leaves_ends_the_program_in_silence(exported: Path, record: Record) -> None:
    command = [sys.executable, "-m", "ossicle.runtime", exported, *[record("a.wav")] * 2, "--threads", "1"]
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=buffered)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("arguments", [["-c", "import ossicle.runtime"], ["-m", "ossicle.runtime", "--help"]])
def test_it_starts_without_what_takes_long_to_load(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True)
    lines = [line.split("|") for line in done.stderr.splitlines() if line.count("|") == 2]
    packages = {name.strip().split(".")[0] for *_, name in lines}
    assert "numpy" in packages
    assert not packages & {"torch", "onnxruntime", "matplotlib", "typer", "rich", "huggingface_hub", "av"}


def test_a_file_is_not_for_the_command_with_torch_which_says_what_is(exported: Path) -> None:
    for path in (exported, "exports/gone.onnx"):
        with pytest.raises(BundleRefused, match=rf"python -m ossicle\.runtime {path}$"):
            load_with_torch(path)


@pytest.fixture(scope="module")
def rewrite(exported: Path) -> Callable[[Path, str], Path]:
    """Copies the file to a path, with other metadata."""
    model = onnx.load(str(exported))
    entry = next(entry for entry in model.metadata_props if entry.key == "ossicle")

    def write(path: Path, text: str) -> Path:
        entry.value = text
        onnx.save(model, str(path))
        return path

    return write


def test_files_of_others_are_refused(rewrite: Callable[[Path, str], Path], tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(BundleRefused, match="no ONNX file"):
        load(tmp_path / "text.onnx")
    for text, said in (
        ('{"schema_version": 99}', "schema 99"),
        ('{"schema_version": 2}', "damaged"),
        ("", "not written"),
    ):
        with pytest.raises(BundleRefused, match=said):
            load(rewrite(tmp_path / "other.onnx", text))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *(({key: None}, key) for key in ("rate", "min_samples", "max_samples", "hop_feature_seconds", "window")),
        ({"rate": 0}, "rate 0"),
        ({"max_samples": 1}, "max_samples 1"),
        ({"hop_feature_seconds": 0.1}, "no output hop_logits"),
        ({"labels": ["bell", "drum"]}, "2 labels for 3 logits"),
        ({"thresholds": [0.5]}, "1 thresholds for 3 logits"),
        ({"thresholds": [0.5, math.nan, 0.5]}, "finite"),
        ({"labels": ["bell", "bell", "drum"]}, "differ"),
        ({"labels": [1, 2, 3]}, "labels"),
        ({"task": "foo"}, "foo"),
        ({"temperature": 0}, "temperature 0"),
        ({"temperature": "nan"}, "temperature nan"),
        ({"rate": math.inf}, "infinity"),
        ({"window": {"seconds": 0, "hop_seconds": 0, "pad": True}}, "hop of 0"),
    ],
    ids=str,
)
def test_metadata_that_lack_something_or_do_not_fit_are_refused_by_name(
    change: dict[str, Any], said: str, exported: Path, rewrite: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    (entry,) = (entry for entry in onnx.load(str(exported)).metadata_props if entry.key == "ossicle")
    about = json.loads(entry.value) | change
    about = {key: value for key, value in about.items() if change.get(key, about) is not None}
    with pytest.raises(BundleRefused, match=rf"(?s)damaged.*{said}"):
        load(rewrite(tmp_path / "other.onnx", json.dumps(about)))


def test_the_small_distribution_predicts_in_an_environment_without_torch(
    exported: Path, shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    path = record("a.wav", seconds=1.5)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "empty"], check=True)
    python = tmp_path / "empty" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
    subprocess.run([*install, "hatchling"], check=True, capture_output=True)
    build = [python, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path]
    subprocess.run(build, check=True, capture_output=True, cwd=ROOT / "packages" / "ossicle-runtime")
    (source,) = tmp_path.glob("ossicle_runtime-*.tar.gz")  # from which a wheel is built and installed
    subprocess.run([*install, source], check=True, capture_output=True)
    command = [tmp_path / "empty" / "bin" / "ossicle-runtime", exported, path, "--format", "csv", "--top-k", "3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PATH": ""})
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    wanted = load_with_torch(shared_bundle, device="cpu").predict(path, top_k=3).rows
    assert [row["label"] for row in rows] == [row.label for row in wanted]
    np.testing.assert_allclose([float(row["score"]) for row in rows], [row.score for row in wanted], atol=1.5e-4)
    carried = [command[0], "general", LOOP, "--format", "csv", "--top-k", "1"]
    done = subprocess.run(carried, capture_output=True, text=True, cwd=tmp_path, env={"PATH": ""})
    assert done.returncode == 0, done.stderr
    labels = {row["label"] for row in csv.DictReader(io.StringIO(done.stdout))}
    assert labels and labels <= {"Music", "Drum", "Drum kit"}
    torch = subprocess.run([python, "-c", "import torch"], capture_output=True, env={"PATH": ""})
    assert torch.returncode != 0
