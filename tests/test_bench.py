"""Forms of a network, measured in processes of their own: what comes back, and what is refused. No time is asserted."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from ossicle.bench import Cost, Variant, Work, fitting, is_registry_name, measure, prepare, variant_of, variants
from ossicle.errors import BundleRefused, OssicleError, SettingRefused
from ossicle.models.tokens import TokenReduction

FLOAT32 = Variant(name="float32")
FEW = Variant(name="few", reduction=TokenReduction(keep=0.5, method="strided"))


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
    assert listed[0] == FLOAT32 and listed[1].compiled and listed[2].precision == "bfloat16"
    reductions = [(form.reduction.keep, form.reduction.method) for form in listed[3:] if form.reduction]
    assert reductions == [(0.5, "merge"), (0.5, "strided"), (0.25, "merge"), (0.25, "strided")]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(SettingRefused, match="a share above 0 and below 1"):
        variants(keep=(0.5, share))


def test_a_form_survives_the_way_to_its_process() -> None:
    for form in variants(keep=(0.5,)):
        assert variant_of(json.loads(json.dumps(dataclasses.asdict(form)))) == form


def test_the_most_exact_form_within_the_budget_is_the_one_that_fits() -> None:
    forms = variants(keep=(0.5,))
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
    logits = prepare(Work(model=str(shared_bundle), seconds=1.0), Variant(name="", compiled=True))()
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


@pytest.mark.parametrize(
    "changes, form, error, says",
    [
        ({"seconds": 0.01}, FLOAT32, SettingRefused, "outside what this model takes"),
        ({"seconds": 61.0}, FLOAT32, SettingRefused, "outside what this model takes"),
        ({"model": "datar_nano"}, FEW, SettingRefused, "datar_nano: is no PaSST"),
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
