"""Forms of a network, measured in processes of their own: what comes back, and what is refused. No time is asserted."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ossicle.bench.forms import Cost, Variant, Work, fitting, variants
from ossicle.bench.measure import export_files, measure
from ossicle.bench.worker import is_registry_name, open_model, prepare
from ossicle.encoders import load_encoder
from ossicle.errors import BundleRefused, ExportRefused, OssicleError, SettingRefused
from ossicle.tuning.tuned import TunedHead, save_tuned

FLOAT32 = Variant(name="float32")
FEW = Variant(name="few", keep=0.5, keep_by="strided")
ONNX = Variant(name="onnx", engine="ONNX")
INT8 = Variant(name="int8", engine="ONNX int8")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_each_form_has_its_time_and_its_memory_and_one_that_fails_its_reason(shared_bundle: Path) -> None:
    broken = Variant(name="broken")
    object.__setattr__(broken, "precision", "float8")  # past the type checker of the tests
    forms = [FLOAT32, broken]
    told: list[tuple[int, int]] = []
    costs = measure(
        Work(model=str(shared_bundle), seconds=1.0, threads=1),
        forms,
        rounds=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert [cost.variant for cost in costs] == forms
    exact, failed = costs
    assert exact.clip_seconds is not None and exact.clip_seconds > 0 and not exact.problem
    assert exact.peak_bytes is not None and exact.peak_bytes > 50e6  # torch alone holds more
    assert failed.clip_seconds is None and "float8" in failed.problem
    assert told == [(number, 6) for number in range(1, 7)]


def test_the_forms_are_listed_from_the_most_exact_to_the_least() -> None:
    listed = variants(keep=(0.25, 0.5))
    assert [form.engine for form in listed[:5]] == ["eager", "compiled", "ONNX", "eager", "ONNX int8"]
    assert [form.precision for form in listed[:4]] == 3 * ["float32"] + ["bfloat16"]
    reductions = [(form.keep, form.keep_by) for form in listed[5:]]
    assert reductions == [(0.5, "merge"), (0.5, "strided"), (0.25, "merge"), (0.25, "strided")]
    assert [form for form in listed if not form.is_file] == variants(keep=(0.25, 0.5), files=False)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(SettingRefused, match="a fraction above 0 and below 1"):
        variants(keep=(0.5, share))


def test_an_exported_form_runs_without_torch_and_computes_the_same(
    shared_bundle: Path, tmp_path: Path, untyped: Callable[[], AbstractContextManager[None]]
) -> None:
    work = Work(model=str(shared_bundle), seconds=1.0, batch=2, threads=1)
    with untyped():
        files = export_files(open_model(work, FLOAT32), tmp_path)
    exact, small, plain = (prepare(work, form, file=files.get(form.engine))() for form in (ONNX, INT8, FLOAT32))
    largest = abs(plain).max()
    rounding = 2000 * np.finfo(np.float32).eps * largest  # a network is as exact as its largest number
    assert abs(exact - plain).max() < rounding < abs(small - plain).max() < 0.2 * largest
    # As it is measured: no process that runs a file may hold torch.
    request = {"work": dataclasses.asdict(work), "form": dataclasses.asdict(ONNX), "file": files["ONNX"]}
    code = "import sys, ossicle.bench.worker as w; w.serve(); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(request) + "\n\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [sorted(json.loads(line)) for line in done.stdout.splitlines()] == [[], ["peak_bytes", "seconds"]]


def test_an_export_that_is_refused_is_a_finding(shared_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ExportRefused("the graph differs")

    monkeypatch.setattr("ossicle.bench.measure.export_recognizer", refuse)
    costs = measure(Work(model=str(shared_bundle), seconds=1.0, threads=1), [ONNX, INT8, FLOAT32], rounds=1)
    assert [cost.problem for cost in costs] == ["the graph differs", "the graph differs", ""]


def test_the_most_exact_form_within_the_budget_is_the_one_that_fits() -> None:
    forms = variants(keep=(0.5,), files=False)
    costs = [
        Cost(variant=form, clip_seconds=seconds)
        for form, seconds in zip(forms, (0.4, None, 0.2, 0.15, 0.1), strict=True)
    ]
    assert [fitting(costs, budget_seconds=budget) for budget in (1.0, 0.4, 0.3, 0.1, 0.05)] == [
        costs[0],
        costs[0],
        costs[2],
        costs[4],
        None,
    ]


def test_a_form_computes_what_it_is_named_for(shared_bundle: Path) -> None:
    work = Work(model=str(shared_bundle), seconds=1.0, batch=2, device="cpu")
    plain, half, few = (prepare(work, form)() for form in (FLOAT32, Variant(name="", precision="bfloat16"), FEW))
    assert plain.shape == half.shape == few.shape == (2, 3)
    assert (plain == prepare(work, FLOAT32)()).all()
    assert (plain != half).any() and abs(plain - half).max() < 0.1 * abs(plain).max()
    assert (plain != few).any()


def test_the_compiled_form_is_compiled(shared_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(torch, "compile", lambda function: given.append(function) or function)
    logits = prepare(Work(model=str(shared_bundle), seconds=1.0), Variant(name="", engine="compiled"))()
    assert logits.shape == (1, 3) and len(given) == 1


def test_a_registry_name_has_random_weights_and_is_told_from_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_registry_name("passt_tiny_s20") and not is_registry_name("user/name")
    with torch.inference_mode():
        assert prepare(Work(model="passt_tiny_s20", seconds=1.0), FLOAT32)().shape == (1, 527)
    (tmp_path / "passt_tiny_s20").mkdir()
    assert not is_registry_name("passt_tiny_s20")


def test_a_tuned_head_is_measured_and_says_what_it_is_not_measured_in(bundle: Path, tmp_path: Path) -> None:
    head = TunedHead("mean", layers=(1,), dim=192, pool="mean", num_classes=3, options={})
    answers: dict[str, Any] = {"task": "single-label", "labels": ("a", "b", "c"), "window_seconds": 0.5, "pad": False}
    save_tuned(tmp_path / "head", encoder=load_encoder(bundle), model=head, **answers)
    moved = bundle.rename(tmp_path / "moved")
    work = Work(model=str(tmp_path / "head"), seconds=0.5, batch=2, device="cpu", encoder=str(moved))
    assert prepare(work, FLOAT32)().shape == (2, 3)
    with pytest.raises(SettingRefused, match="is not supported for heads"):
        prepare(work, Variant(name="", engine="compiled"))
    with pytest.raises(SettingRefused, match="does not support fewer tokens"):
        measure(work, [FEW])


@pytest.mark.parametrize(
    "changes, form, error, says",
    [
        ({"seconds": 0.01}, FLOAT32, SettingRefused, "is outside the range of this model"),
        ({"seconds": 61.0}, FLOAT32, SettingRefused, "is outside the range of this model"),
        ({"model": "datar_nano"}, FEW, SettingRefused, "datar_nano: does not support fewer tokens"),
        ({"model": "datar_nano", "encoder": "runs/birds"}, FLOAT32, SettingRefused, "encoder=runs/birds: datar_nano"),
        ({"model": "nothing_of_that_name"}, FLOAT32, BundleRefused, "no such folder"),
        ({"device": "abacus"}, FLOAT32, SettingRefused, "device=abacus"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_process_starts(
    changes: dict, form: Variant, error: type[OssicleError], says: str, shared_bundle: Path, monkeypatch
) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("started"))
    work = Work(**({"model": str(shared_bundle), "device": "cpu"} | changes))
    with pytest.raises(error, match=says):
        measure(work, [form])


def test_a_process_that_dies_is_a_finding(shared_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    (cost,) = measure(Work(model=str(shared_bundle), device="cpu"), [FLOAT32])
    assert "ended with code 1" in cost.problem
