"""A training as its user sees it, and the facts that its numbers rest on."""

import dataclasses
import json
import shutil
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import ossicle
from ossicle.bundle import load_bundle
from ossicle.data import Dataset, Item, split_dataset
from ossicle.data.cache import decode
from ossicle.data.parts import write_split
from ossicle.errors import AudioUnreadable, DataRefused, RunRefused, SettingRefused, WeightsRefused
from ossicle.evaluation import Evaluation
from ossicle.metrics import decide
from ossicle.training import TrainConfig, TrainResult, train
from ossicle.training import run as run_module
from ossicle.training.averaging import WeightAverage
from ossicle.training.callbacks import Checkpoints
from ossicle.training.config import read_config
from ossicle.training.initial import start_from
from ossicle.training.loader import WaveBatches
from ossicle.training.module import NetworkTraining
from ossicle.training.results import FoldResult, pooled
from ossicle.training.run import Runs, usable_part
from ossicle.weights.state import SafeCheckpointIO, checkpoints, load_state
from ossicle.weights.tensors import load_weights

pytestmark = pytest.mark.usefixtures("undrawn")
Run = Callable[..., TrainResult]


def weights_of(result: TrainResult) -> dict[str, torch.Tensor]:
    return load_weights(result.folds[0].folder / "model" / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((tensor - other[name]).abs().max()) for name, tensor in one.items())


def test_a_run_leaves_all_that_its_docstring_lists_and_the_bundle_predicts(run: Run, sounds: Path) -> None:
    result = run(report=True)
    files = {path.name for path in result.folder.iterdir()}
    assert files >= {
        *("config.yaml", "split.json", "metrics.csv", "environment.json", "checkpoints", "model"),
        *("metrics.json", "predictions.csv", "figures", "report.html"),
    }
    prediction = ossicle.load(result.folder).predict(sounds / "0.wav")
    assert set(prediction.labels) == {"tone", "noise"}
    assert float(prediction.scores.sum()) == pytest.approx(1.0)
    assert json.loads((result.folder / "metrics.json").read_text())["clips"] == len(result.folds[0].tested)


def test_a_step_that_torch_cannot_compile_is_refused_with_a_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        raise AssertionError("no such kernel")

    step = torch.compile(lambda *given, **settings: next(one for one in given) + 1, backend=fails)
    monkeypatch.setattr(torch, "compile", lambda model: step)
    with pytest.raises(SettingRefused, match=r"cannot compile a step .*no such kernel\): set compile=false"):
        run(compile=True)


def test_a_pyramid_is_trained_and_predicts_and_shows_where_it_looked(
    run: Run, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Item] = []

    def lost_at_first(item: Item, rate: int) -> np.ndarray:
        tried.append(item)
        if len(tried) == 1:
            raise AudioUnreadable("it has gone since the training began")
        return decode(item, rate)

    monkeypatch.setattr("ossicle.training.train_network.decode", lost_at_first)
    result = run(
        model="datar_nano", depth=None, report=True, network={"adaptor": "spectrogram", "depths": [1, 1, 2, 2]}
    )
    assert (result.folder / "figures" / "sampling_points.png").exists()
    assert "Sampling points" in (result.folder / "report.html").read_text() and len(tried) == 2
    bundle = load_bundle(result.folder / "model")
    assert bundle.model.config.adaptor == "spectrogram" and bundle.model.config.depths == (1, 1, 2, 2)
    assert bundle.frontend.config.mean != -4.2677  # measured on the training part
    recognizer = ossicle.load(result.folder)
    assert float(recognizer.predict(sounds / "0.wav").scores.sum()) == pytest.approx(1.0)
    assert recognizer.embed(sounds / "0.wav").shape == (192,)


def test_settings_that_make_no_network_leave_no_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SettingRefused, match="patchout_t: not a setting of datar_nano"):
        run(model="datar_nano", patchout_t=3)
    with pytest.raises(SettingRefused, match="no option adaptr"):
        run(model="datar_nano", depth=None, network={"adaptr": "none"})
    assert not (tmp_path / "run").exists()


def test_a_pyramid_with_hops_tells_them_apart_in_time(run: Run, sounds: Path) -> None:
    recognizer = ossicle.load(run(model="datar_nano_hop", depth=None, epochs=1).folder)
    samples = np.random.default_rng(0).normal(scale=0.1, size=16_000).astype(np.float32)  # 1 s, in windows of 0.4 s
    prediction = recognizer.predict((samples, 16_000), top_k=1)
    starts, ends = ([getattr(row, side) for row in prediction.rows] for side in ("start", "end"))
    assert recognizer.hop_feature_seconds == pytest.approx(0.16)
    assert starts[0] == 0.0 and ends[-1] == pytest.approx(1.0)
    assert starts == sorted(starts) and all(end - start <= 0.16 + 1e-9 for start, end in zip(starts, ends, strict=True))


def test_a_pyramid_that_deforms_nowhere_has_no_points_to_show(run: Run) -> None:
    result = run(model="datar_nano", depth=None, epochs=1, report=True, network={"deform": [False] * 4})
    assert not (result.folder / "figures" / "sampling_points.png").exists()


def test_tones_are_told_from_noise(run: Run) -> None:
    result = run(epochs=12, lr=2e-3)
    assert result.evaluation.metrics.accuracy.value is not None and result.evaluation.metrics.accuracy.value > 0.9


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(run: Run) -> None:
    one, again, other = run("a"), run("b"), run("c", seed=1)
    assert same(weights_of(one), weights_of(again))
    assert not same(weights_of(one), weights_of(other))


def test_training_leaves_the_global_random_streams_alone(run: Run) -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    run(patchout_t=0.3, mixup=0.3, gain=7.0)
    assert torch.equal(torch.rand(4), expected)


def test_shuffling_the_test_labels_changes_no_weight(run: Run, dataset: Dataset) -> None:
    honest = run("honest")
    # Labels are wrong in the test part alone; the split must stay, so it is handed over.
    split = honest.folds[0].split
    other = {"tone": "noise", "noise": "tone"}
    test = set(split.test.tolist())
    items = tuple(
        dataclasses.replace(item, labels=(other[item.labels[0]],)) if index in test else item
        for index, item in enumerate(dataset.items)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ossicle.training.run.split_dataset", lambda *_, **__: split)
        shuffled = run("shuffled", data=dataclasses.replace(dataset, items=items))
    assert same(weights_of(honest), weights_of(shuffled))
    bundles = [json.loads((r.folder / "model" / "config.json").read_text()) for r in (honest, shuffled)]
    assert bundles[0] == bundles[1]
    assert honest.evaluation.metrics.accuracy.value == pytest.approx(1 - shuffled.evaluation.metrics.accuracy.value)


def test_the_second_epoch_opens_no_audio_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def watch(item: Item, rate: int) -> Any:
        opened.append(item.file.name)
        raise AssertionError(f"{item.file.name} was decoded again")

    run("fills the cache")
    monkeypatch.setattr("ossicle.data.cache.decode", watch)
    run("uses it", epochs=3)
    assert opened == []


def test_without_room_in_the_cache_the_run_decodes_as_it_goes_and_is_the_same(
    run: Run, tmp_path: Path, dataset: Dataset
) -> None:
    cached = run("cached")
    bare = train(
        dataset,
        dataclasses.replace(read_config(cached.folder / "config.yaml", TrainConfig)[0], cache_gigabytes=0.0),
        output=tmp_path / "bare",
        cache=tmp_path / "no room",
    )
    assert same(weights_of(cached), weights_of(bare))


def test_twice_the_accumulation_is_double_the_batch(run: Run) -> None:
    # Every batch is full, so that the halves weigh the same.
    double = run("double", batch_size=10, epochs=3, validation=0.0, clip_gradient=0.0)
    halves = run("halves", batch_size=5, accumulate=2, epochs=3, validation=0.0, clip_gradient=0.0)
    assert len(double.folds[0].split.train) % 10 == 0
    assert furthest(weights_of(double), weights_of(halves)) < 1e-5
    assert furthest(weights_of(double), weights_of(run("single", batch_size=5, epochs=3, validation=0.0))) > 1e-4


def test_swa_weights_are_the_mean_of_the_epochs_snapshots(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots: list[dict[str, torch.Tensor]] = []
    update = WeightAverage.update

    def spy(self: WeightAverage) -> None:
        snapshots.append({str(i): p.detach().clone() for i, p in enumerate(self._live)})
        update(self)

    monkeypatch.setattr(WeightAverage, "update", spy)
    result = run(epochs=4, average="swa", swa_start=0.5, validation=0.0)
    assert len(snapshots) == 2
    model = load_bundle(result.folder / "model").model
    trained = [p for name, p in model.named_parameters() if not name.startswith("head_dist")]
    for index, parameter in enumerate(trained):
        mean = (snapshots[0][str(index)] + snapshots[1][str(index)]) / 2
        torch.testing.assert_close(parameter.detach(), mean)


SWITCHES: dict[str, Any] = {
    "lr": 1e-4,
    "weight_decay": 5.0,
    "warmup": 1.0,
    "schedule": "linear",
    "hold": 0.9,
    "decay_until": 0.5,
    "final_lr": 1.0,
    "clip_gradient": 1e-3,
    "label_smoothing": 0.3,
    "average": "ema",
    "batch_size": 8,
    "accumulate": 2,
    "epochs": 3,
    "epoch_clips": 8,
    "balance": "class",
    "patchout_t": 1,
    "patchout_f": 3,
    "patchout_u": 2,
    "drop_path": 0.5,
    "gain": 7.0,
    "roll": 0.1,
    "wave_mixup": 1.0,
    "mixup": 0.5,
    "freq_mask": 60,
    "time_mask": 0.5,
    "jitter": True,
    "window": 0.3,
    "depth": 2,
    "seed": 3,
    "precision": "bfloat16",
    "model": "passt_tiny_s10",
    "network": {"dropout": 0.5},
    "loss": "focal",
    "layer_decay": 0.5,
    "weight_decay_on": "all",
}


@pytest.fixture(scope="module")
def plain() -> dict[str, dict[str, torch.Tensor]]:
    """The weights of the run that has no switch on, once somebody has trained it."""
    return {}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_reaches_the_weights(name: str, run: Run, plain: dict[str, dict[str, torch.Tensor]]) -> None:
    if not plain:
        plain["weights"] = weights_of(run("plain", validation=0.0))
    one, settings = plain["weights"], {"validation": 0.0}
    if name == "drop_path":  # the first block drops none of its branches
        settings["depth"] = 2
        one = weights_of(run("two blocks", **settings))
    other = weights_of(run("changed", **settings, **{name: SWITCHES[name]}))
    assert one.keys() != other.keys() or any(
        one[key].shape != other[key].shape or not torch.equal(one[key], other[key]) for key in one
    ), f"{name} changed nothing"


def test_switches_cover_every_setting_that_can_change_weights() -> None:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    # What chooses weights, places or speed, each with a test of its own in this folder or nothing to show.
    others = {"weights", "weights_average", "validation", "patience", "min_delta", "swa_start", "swa_every"}
    others |= {"ema_decay", "balance_offset", "focal_gamma", "focal_alpha", "freeze_epochs"}
    others |= {"plateau_patience", "plateau_factor"}
    others |= {"teachers", "unlabeled", "label_weight", "teacher_weight", "embedding_weight"}
    others |= {"teacher_loss", "teacher_temperature"}
    machine = {"device", "kernels", "compile", "workers", "save_minutes", "cache_gigabytes"}
    machine |= {"devices", "nodes", "strategy", "gradient_checkpointing"}
    assert set(SWITCHES) == fields - others - machine


def test_ema_decay_and_workers_do_what_they_say(run: Run) -> None:
    slow, fast = run("slow", average="ema", ema_decay=0.9), run("fast", average="ema", ema_decay=0.1)
    assert not same(weights_of(slow), weights_of(fast))
    one, many = run("one", workers=1), run("many", workers=5)
    assert same(weights_of(one), weights_of(many))


def test_patience_stops_a_run_that_no_longer_improves(run: Run) -> None:
    result = run(epochs=40, lr=0.0, patience=2)
    rows = (result.folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 3  # the first epoch is the best, then two without better


def test_the_best_epoch_by_the_validation_part_is_kept_not_the_last(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.2, 0.9, 0.4])
    monkeypatch.setattr("ossicle.training.callbacks.validation_score", lambda *_, **__: next(scores))
    result = run(epochs=3)
    best = load_weights(result.folder / "checkpoints" / "best.safetensors")
    assert same(best, weights_of(result))
    last = load_state(checkpoints(result.folder / "checkpoints")[0])["state_dict"]
    assert not torch.equal(last["model.head.1.weight"], best["head.1.weight"])


def test_cross_validation_tests_every_clip_once(run: Run, dataset: Dataset) -> None:
    result = run(folds="all", epochs=1, report=True)
    tested = np.concatenate([fold.tested for fold in result.folds])
    assert sorted(tested.tolist()) == list(range(len(dataset)))
    assert result.evaluation.metrics.clips == len(dataset)
    content = json.loads((result.folder / "folds.json").read_text())
    assert set(content["folds"]) == {fold.folder.name for fold in result.folds}


def test_cross_validation_goes_on_where_it_stopped_and_does_not_train_a_finished_fold_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(folds="all", epochs=1, kernels="torch")
    shutil.rmtree(whole.folds[-1].folder)
    trained = []
    fit = run_module.fit
    monkeypatch.setattr(run_module, "fit", lambda *a, **k: trained.append(k["folder"].name) or fit(*a, **k))
    again = run(folds="all", epochs=1, kernels="torch", resume=True)
    assert trained == [whole.folds[-1].folder.name]
    np.testing.assert_allclose(again.evaluation.scores, whole.evaluation.scores, atol=1e-6)


def test_folds_with_slashes_in_their_names_lie_beside_each_other(
    dataset: Dataset, tmp_path: Path, tiny: Callable[..., TrainConfig]
) -> None:
    days = ("01/02/2021", "01-02-2021")
    items = tuple(dataclasses.replace(item, fold=days[item.group == "speaker0"]) for item in dataset.items)
    by_day = dataclasses.replace(dataset, items=items, fold_name="day")
    store, results = SimpleNamespace(failures={}, usable=np.arange(len(items))), []
    with Runs(by_day, tiny(), kind=TrainConfig, modality="sound", output=tmp_path, folds="all") as runs:
        for fold in runs.runs(store):
            tested = fold.split.test
            evaluation = Evaluation.of(by_day, tested, scores=np.full((len(tested), 2), 0.5))
            results.append(FoldResult(folder=fold.folder, split=fold.split, evaluation=evaluation))
    assert {result.folder.parent for result in results} == {tmp_path} and results[0].folder != results[1].folder
    pooled(by_day, results, folder=tmp_path)
    content = json.loads((tmp_path / "folds.json").read_text())
    assert set(content["folds"]) == {f"fold_{day}" for day in days}


def test_a_run_of_all_folds_is_not_continued_on_data_with_other_folds(
    run: Run, dataset: Dataset, tmp_path: Path
) -> None:
    write_split(tmp_path / "run" / "fold_monday" / "split.json", dataset, split_dataset(dataset))
    fewer = dataclasses.replace(dataset, items=dataset.items[:-1])
    with pytest.raises(RunRefused, match="fold_monday: a run continues with the data and the fold that it began with"):
        run(folds="all", epochs=1, resume=True, data=fewer)


def test_a_run_folder_is_not_overwritten(run: Run) -> None:
    run()
    with pytest.raises(RunRefused, match="holds a run already; continue it with --resume"):
        run()


def test_a_folder_with_anything_else_in_it_is_left_alone(
    dataset: Dataset, tmp_path: Path, tiny: Callable[..., TrainConfig]
) -> None:
    (tmp_path / "predictions.csv").write_text("mine")
    with pytest.raises(RunRefused, match="holds files that belong to no run"):
        train(dataset, tiny(), output=tmp_path)
    assert (tmp_path / "predictions.csv").read_text() == "mine"


@pytest.mark.parametrize("folds", [None, "all"])
def test_a_training_that_cannot_begin_leaves_no_run_behind(run: Run, tmp_path: Path, folds: str | None) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsRefused, match="w.safetensors"):
        run(weights=str(tmp_path / "w.safetensors"), folds=folds)
    run(epochs=1)


def test_broken_recordings_are_counted_and_named_or_left_out(
    dataset: Dataset, tmp_path: Path, tiny: Callable[..., TrainConfig]
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no sound")
    items = (*dataset.items, Item(file=broken, labels=("tone",), group="speaker0"))
    data = dataclasses.replace(dataset, items=items)
    with pytest.raises(DataRefused, match=r"1 of 25 clips cannot be used; --skip-bad .*broken\.wav"):
        train(data, tiny(), output=tmp_path / "a", cache=tmp_path / "cache")
    result = train(data, tiny(epochs=1), output=tmp_path / "b", cache=tmp_path / "cache", skip_bad=True)
    assert len(result.failures) == 1 and "broken.wav" in result.failures[0]


def test_a_training_gives_back_signals_and_memory(
    run: Callable[..., TrainResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainees: list[weakref.ref[NetworkTraining]] = []
    begin = NetworkTraining.__init__

    def watched(self: NetworkTraining, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        trainees.append(weakref.ref(self))

    monkeypatch.setattr(NetworkTraining, "__init__", watched)
    taken = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = [signal.getsignal(number) for number in taken]
    run(report=True)
    assert handlers == [signal.getsignal(number) for number in taken]
    assert trainees and all(trainee() is None for trainee in trainees)  # the one that was measured on too


@pytest.mark.parametrize("step", [3, 4, 7])
@pytest.mark.parametrize("average", ["ema", "swa"])
def test_a_run_stopped_after_any_step_resumes_to_the_very_same_weights(
    step: int, average: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside an epoch, at its end, and once averaging has begun."""
    drawing = {"average": average, "mixup": 0.3, "gain": 7.0, "patchout_t": 1.0, "freq_mask": 20, "epochs": 3}
    whole = run("whole", **drawing)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(step, patch)
        with pytest.raises(KeyboardInterrupt, match=f"Stopped after step {step}; continue with --resume"):
            run("stopped", **drawing)
    assert same(weights_of(whole), weights_of(run("stopped", resume=True, **drawing)))


@pytest.mark.parametrize("average", ["none", "ema", "swa"])
def test_a_run_stopped_after_its_last_step_resumes_to_the_very_same_weights(
    average: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it scores the test part; without a validation part no best weights are kept elsewhere."""
    drawing = {"average": average, "validation": 0.0, "epochs": 3}
    whole = run("whole", **drawing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module.Run, "conclude", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("stopped", **drawing)
    assert same(weights_of(whole), weights_of(run("stopped", resume=True, **drawing)))


def test_a_run_stopped_inside_an_accumulation_resumes_to_the_very_same_weights(run: Run) -> None:
    whole = run("whole", accumulate=2, validation=0.0)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(0, patch)
        with pytest.raises(KeyboardInterrupt, match="Stopped after step 1;"):
            run("stopped", accumulate=2, validation=0.0)
    assert same(weights_of(whole), weights_of(run("stopped", accumulate=2, validation=0.0, resume=True)))


def test_a_run_that_no_longer_improved_does_not_train_on(run: Run) -> None:
    drawing = {"lr": 0.0, "patience": 2, "epochs": 9}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module.Run, "conclude", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("stopped", **drawing)
    rows = (run("stopped", resume=True, **drawing).folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 3


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_run_is_not_continued_with_other_settings(run: Run) -> None:
    run(epochs=1, network={"mels": 128})
    with pytest.raises(
        SettingRefused, match=r"settings that it has: lr=0\.0004 there and 1e-05 here, gain=0\.0 there and 3\.0 here; "
    ):
        run(epochs=2, lr=1e-5, gain=3.0, network={"mels": 128}, resume=True)


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_is_not_continued_on_other_clips(run: Run, dataset: Dataset, finished: bool) -> None:
    """They might be tested by a model that has learnt them."""
    first = run(folds="1", epochs=1)
    if not finished:
        (first.folder / "report.html").unlink()
    fewer = dataclasses.replace(dataset, items=dataset.items[:-1])
    for other in ({"folds": "2"}, {"folds": "1", "data": fewer}):
        with pytest.raises(RunRefused, match="the data and the fold that it began with, and these are others"):
            run(epochs=1, resume=True, **other)
    assert run(folds="1", epochs=1, resume=True).folds[0].tested.tolist() == first.folds[0].tested.tolist()


def test_of_two_runs_that_begin_in_one_folder_one_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*_: Any, **__: Any) -> Any:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.yaml").write_text("of another run")
        return start_from(*_, **__)

    monkeypatch.setattr("ossicle.training.train_network.start_from", meanwhile)
    with pytest.raises(RunRefused, match="holds a run already"):
        run()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_class_that_is_left_without_clips_is_not_trained(dataset: Dataset) -> None:
    split = split_dataset(dataset)
    noise = [index for index in range(len(dataset)) if dataset.items[index].labels == ("noise",)]
    store = SimpleNamespace(failures={}, usable=np.array([*noise, *split.test]))
    with pytest.raises(DataRefused, match="the class 'tone' .* has no clip to train on when what cannot be used"):
        usable_part(dataset, split, store)


def test_folds_are_pooled_by_the_thresholds_of_each(dataset: Dataset, tmp_path: Path) -> None:
    """Rare labels have low thresholds: at 0.5 nothing would be decided."""
    several = dataclasses.replace(dataset, task="multi-label")
    targets = several.targets()
    half = np.array_split(np.arange(len(several)), 2)
    results = []
    for part in half:
        scores = np.where(targets[part], 0.3, 0.1)
        decided = decide(scores, task="multi-label", thresholds=np.array([0.2, 0.2]))
        evaluation = Evaluation.of(several, part, scores=scores, decided=decided)
        results.append(FoldResult(folder=tmp_path / "fold", split=split_dataset(several), evaluation=evaluation))
    assert pooled(several, results, folder=tmp_path).metrics.macro_f1.value == 1
    assert "tone" in (tmp_path / "predictions.csv").read_text().splitlines()[1].split(",")[6]


@pytest.mark.parametrize("when", ["before the bundle", "before the report"])
def test_a_fold_is_finished_with_its_report_and_not_before(
    when: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("whole", validation=0.25)
    with pytest.MonkeyPatch.context() as patch:
        if when == "before the report":
            patch.setattr("ossicle.evaluation.result.write_evaluation", interrupted)
        else:
            patch.setattr("ossicle.training.run.sentences", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("stopped", report=True, validation=0.25)
    again = run("stopped", validation=0.25, resume=True)
    config = json.loads((again.folder / "model" / "config.json").read_text())
    assert config["temperature"] == json.loads((whole.folder / "model" / "config.json").read_text())["temperature"] != 1


WITHHELD: dict[str, Callable[[dict[str, Any]], object]] = {
    "nothing": lambda state: None,
    "the moments of the optimizer": lambda state: state["optimizer_states"][0].update(state={}),
    "the schedule": lambda state: state["lr_schedulers"][0].update(last_epoch=0),
    "the position of the batches": lambda state: (
        state["batches"].update(epoch=0, batch=0),
        state["loops"]["fit_loop"].update(state_dict={}),
    ),
    "the seed": lambda state: None,  # which is no state, but a setting
    "the average": lambda state: state["callbacks"]["Averaging"].update(count=0),
    "the best epoch": lambda state: state["callbacks"]["Recorder"].update(best_score=-1.0, best_loss=9.0),
    "the rows": lambda state: state["callbacks"]["Recorder"].update(rows=[]),
    "the losses of the epoch": lambda state: state.update(losses=[]),
}


@pytest.fixture(scope="module")
def whole_run() -> dict[str, Any]:
    """What a run without a stop leaves, once somebody has trained it."""
    return {}


@pytest.mark.parametrize("part", WITHHELD)
def test_a_resumed_run_differs_when_a_part_of_its_state_is_withheld(
    part: str, run: Run, whole_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the tests above: they would notice."""
    drawing = {"average": "ema", "mixup": 0.3, "epochs": 3}
    scores = {"whole": [0.9, 0.2, 0.4], "stopped": [0.9], "resumed": [0.2, 0.4]}  # the first epoch is the best

    def left(name: str, **how: Any) -> dict[str, Any]:
        ahead = iter(scores["resumed" if how else name])
        monkeypatch.setattr("ossicle.training.callbacks.validation_score", lambda *_, **__: next(ahead))
        folder = run(name, **drawing, **how).folder
        last = load_state(checkpoints(folder / "checkpoints")[0])["state_dict"]
        rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
        tensors = {**last, **load_weights(folder / "model" / "model.safetensors")}
        return tensors | {"rows": [row[:2] + row[3:7] for row in rows]}  # but for times

    if not whole_run:
        whole_run.update(left("whole"))
    with pytest.MonkeyPatch.context() as patch:
        stop_after(6, patch)
        with pytest.raises(KeyboardInterrupt):
            left("stopped")
    load = SafeCheckpointIO.load_checkpoint

    def forget(self: SafeCheckpointIO, path: Any, **how: Any) -> dict[str, Any]:
        state = load(self, path, **how)
        WITHHELD[part](state)
        return state

    monkeypatch.setattr(SafeCheckpointIO, "load_checkpoint", forget)
    if part == "the seed":
        monkeypatch.setattr(WaveBatches, "load_state_dict", lambda self, state: self.__dict__.update(state, seed=1))
    resumed = left("stopped", resume=True)
    rows, weights = (resumed.pop("rows") == whole_run["rows"]), same(resumed, whole_run)
    assert (rows and weights) == (part == "nothing")


def stop_after(step: int, patch: pytest.MonkeyPatch) -> None:
    """Lets the user press Ctrl-C while this step is under way."""
    end = Checkpoints.on_train_batch_end

    def press(self: Checkpoints, trainer: Any, *rest: Any) -> None:
        self._interrupted = self._interrupted or trainer.global_step == step
        end(self, trainer, *rest)

    patch.setattr(Checkpoints, "on_train_batch_end", press)


@pytest.mark.parametrize(
    ("name", "old", "new"), [("tensors.safetensors", None, b""), ("state.json", b'"global_step"', b'"global_stop"')]
)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_serves(
    run: Run, name: str, old: bytes | None, new: bytes
) -> None:
    whole = run("whole", epochs=3)
    stopped = run("stopped", epochs=3)
    newest = checkpoints(stopped.folder / "checkpoints")[0]
    content = bytearray((newest / name).read_bytes())
    if old is None:
        content[-1] ^= 1
    (newest / name).write_bytes(bytes(content) if old is None else bytes(content).replace(old, new, 1))
    with pytest.raises(RunRefused, match="differs from the hash"):
        load_state(newest)
    (stopped.folder / "test_scores.safetensors").unlink()
    assert same(weights_of(whole), weights_of(run("stopped", epochs=3, resume=True)))
