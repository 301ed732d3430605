"""`ossicle export`: one file, one summary, and a sentence where it cannot be."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from typer.testing import Result

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'ossicle[export]'")

Run = Callable[..., Result]
Record = Callable[..., Path]


@pytest.fixture(autouse=True)
def graphs(untyped: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    with untyped():
        yield


def test_a_model_becomes_two_files_checked_on_real_sounds(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    for number, label in enumerate(("bell", "drum", "voice")):
        for take in range(2):
            record(f"data/{label}/{take}.wav", seconds=0.5, seed=10 * number + take)
    out = tmp_path / "new" / "tiny.onnx"
    result = run("export", shared_bundle, "-o", out, "--int8", "--data", tmp_path / "data")
    assert result.exit_code == 0 and result.stderr == ""
    first, second, third = result.stdout.splitlines()
    assert first.startswith(f"Wrote {out}: ") and "opset 20" in first and "scores differ by at most" in first
    assert second.startswith(f"Wrote {out.with_name('tiny.int8.onnx')}: ") and "times faster" in second
    assert "6 clips" in third and "accuracy" in third and "agrees in" in third
    assert {path.name for path in out.parent.iterdir()} == {"tiny.onnx", "tiny.int8.onnx"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["MODEL", "--to", "tflite"], 2, "'tflite' is not one of"),
        (["MODEL", "--to", "pt2", "--int8"], 2, "ONNX only"),
        (["MODEL", "-o", "model.pt2"], 1, "must end in .onnx"),
        (["MODEL", "-o", "notes.onnx"], 1, "not overwritten"),
        (["passt_tiny_s16"], 1, "random"),
    ],
)
def test_each_mistake_is_one_sentence(
    arguments: list[str],
    code: int,
    said: str,
    run: Run,
    shared_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.onnx").write_text("mine")
    result = run("export", *(str(shared_bundle) if argument == "MODEL" else argument for argument in arguments))
    assert result.exit_code == code
    assert said in " ".join(result.stderr.replace("│", " ").split()) and "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.onnx"]
    if code == 1:
        assert len(result.stderr.splitlines()) == 1
