"""`ossicle tune`: a head on a frozen encoder, from a folder of sounds to an answer, and nothing else has changed."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import ossicle
from ossicle.bundle import CONFIG, WEIGHTS
from ossicle.cli import app
from ossicle.data import Dataset, Split, read_dataset
from ossicle.encoders import Encoder, load_encoder
from ossicle.errors import BundleRefused, DataRefused, RunRefused, SettingRefused, WeightsRefused
from ossicle.training import TrainResult, TuneConfig, tune
from ossicle.training.callbacks import Checkpoints
from ossicle.training.config import read_config
from ossicle.training.estimate import Every
from ossicle.training.features import HeadInputs, Readable
from ossicle.training.layers import importance_of
from ossicle.training.results import TEST_SCORES
from ossicle.tuning.heads import HEADS
from ossicle.tuning.importance import Importance, largest
from ossicle.tuning.tuned import TunedHead, TunedRecognizer
from ossicle.weights.tensors import load_weights, save_weights

pytestmark = pytest.mark.usefixtures("undrawn")
Tune = Callable[..., TrainResult]


@pytest.fixture(scope="session")
def bundle(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small PaSST with random weights, of six blocks."""
    return make_bundle(tmp_path_factory.mktemp("encoder") / "passt", depth=6)


@pytest.fixture
def encoder(bundle: Path) -> Encoder:
    return load_encoder(bundle)


@pytest.fixture
def run(
    dataset: Dataset,
    encoder: Encoder,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    without_pictures: Callable[[pytest.MonkeyPatch], None],
) -> Tune:
    """Tunes in a folder of its own; features are shared, and pages drawn only when asked for."""
    cache = tmp_path_factory.getbasetemp() / "cache"

    def go(
        name: str = "run", *, folds: str | None = None, resume: bool = False, report: bool = False, **changes: Any
    ) -> TrainResult:
        settled = {"epochs": 3, "batch_size": 8, "options": {"hidden": 4}, "device": "cpu", "warmup": 0.0}
        config = TuneConfig(**{**settled, "encoder": encoder.name, **changes})
        with pytest.MonkeyPatch.context() as patch:
            if not report:
                without_pictures(patch)
            return tune(
                encoder if config.encoder == encoder.name else config.encoder,
                dataset,
                config,
                output=tmp_path / name,
                folds=folds,
                resume=resume,
                cache=cache,
            )

    return go


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_weights(folder / "model" / WEIGHTS)


def test_a_run_leaves_all_that_it_promises(run: Tune, encoder: Encoder) -> None:
    before = {name: tensor.clone() for name, tensor in encoder.network.state_dict().items()}
    result = run(report=True)
    names = {path.name for path in result.folder.iterdir()}
    assert {"config.yaml", "split.json", "metrics.csv", "environment.json", "importance.json", "model"} <= names
    assert {"metrics.json", "predictions.csv", "figures", "report.html"} <= names
    importance = json.loads((result.folder / "importance.json").read_text())
    assert np.shape(importance["trained"]["factor"]) == np.shape(importance["initial"]["density"])
    assert importance["layers"] == [1, 2, 3, 4, 5, 6] and importance["heads"] == 2 and importance["probes"] is not None
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.network.state_dict().items())
    assert not any(name.startswith("encoder") for name in tensors_of(result.folder))


def test_the_loaded_head_answers_as_the_run_did(run: Tune, dataset: Dataset) -> None:
    fold = run().folds[0]
    recognizer = ossicle.load(fold.folder)
    for item, scores in zip((dataset.items[i] for i in fold.tested), fold.evaluation.scores, strict=True):
        np.testing.assert_allclose(recognizer.activate(recognizer.item_logits(item)), scores, atol=1e-4)
        prediction = recognizer.predict(item.file)
        np.testing.assert_allclose(prediction.scores, scores, atol=1e-4)
        assert prediction.rows[0].label == prediction.top[0]
    for method in (recognizer.spectrogram, recognizer.hop_scores):
        with pytest.raises(ValueError, match=r"has no spectrogram; encoder\.prepare"):
            method(np.zeros((1, 32_000), np.float32))


@pytest.mark.parametrize("head", sorted(HEADS.keys() - {"density"}))
def test_every_head_goes_the_whole_way(run: Tune, head: str) -> None:
    options = {"gq_density": {"width": 16, "hidden": 4}, "layers": {"hidden": 4}, "sigmoid": {"hidden": 4}}
    options |= {name: {"num_heads": 3, "hidden": 4} for name in ("mha", "mha_bn")}
    fold = run(head=head, options=options.get(head, {}), epochs=1).folds[0]
    recognizer = ossicle.load(fold.folder)
    assert recognizer.predict((np.ones(20_000, np.float32), 32_000)).scores.shape == (2,)


def test_half_precision_is_of_the_network_and_not_of_its_front_end(run: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = ossicle.load(run(epochs=1).folder, device="cpu", precision="bfloat16")
    assert isinstance(recognizer, TunedRecognizer)
    prepare, halved = recognizer.encoder.prepare, list[bool]()

    def watched(inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        halved.append(torch.is_autocast_enabled("cpu"))
        return prepare(inputs)

    monkeypatch.setattr(recognizer.encoder, "prepare", watched)
    assert recognizer.predict((np.ones(20_000, np.float32), 32_000)).scores.shape == (2,)
    assert halved == [False]


def test_a_mixture_of_one_gaussian_trains(run: Tune) -> None:
    run(options={"form": "mixture", "num_gaussians": 1, "hidden": 4}, epochs=12)


@pytest.mark.parametrize("tuner", [{}, {"tuner": "lora", "tuner_options": {"dropout": 0.5}, "epochs": 1}], ids=str)
def test_the_same_seed_gives_the_same_tensors_and_another_others(run: Tune, tuner: dict[str, Any]) -> None:
    first = run("a", **tuner)
    drawn = torch.rand(3), torch.get_rng_state()
    again = run("b", **tuner)
    assert torch.equal(torch.get_rng_state(), drawn[1])
    other = run("c", seed=1, **tuner)
    assert all(torch.equal(t, tensors_of(again.folder)[n]) for n, t in tensors_of(first.folder).items())
    assert any(not torch.equal(t, tensors_of(other.folder)[n]) for n, t in tensors_of(first.folder).items())


def test_the_labels_of_the_test_part_change_no_weight(run: Tune, dataset: Dataset, encoder: Encoder, tmp_path: Path):
    first = run("a")
    tested = set(first.folds[0].split.test.tolist())
    other = {"noise": "tone", "tone": "noise"}
    items = [
        dataclasses.replace(item, labels=(other[item.labels[0]],)) if index in tested else item
        for index, item in enumerate(dataset.items)
    ]
    turned = dataclasses.replace(dataset, items=tuple(items))
    config = TuneConfig(epochs=3, batch_size=8, options={"hidden": 4}, encoder=encoder.name, warmup=0.0)
    # The folds are cut with the true labels, so that the parts are the same.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ossicle.training.run.split_dataset", lambda *_, **__: first.folds[0].split)
        second = tune(encoder, turned, config, output=tmp_path / "b")
    ours = tensors_of(second.folder)
    assert all(torch.equal(t, ours[n]) for n, t in tensors_of(first.folder).items())


@pytest.fixture(scope="module")
def plain() -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of the run with no setting changed, once somebody has tuned it."""
    return {}


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 1e-2},
        {"weight_decay": 5.0, "epochs": 8},
        {"warmup": 2.0},
        {"schedule": "constant"},
        {"hold": 0.9},
        {"final_lr": 1.0},
        {"clip_gradient": 1e-3},
        {"loss": "focal"},
        {"loss": "focal", "focal_gamma": 1.0},
        {"label_smoothing": 0.3},
        {"standardize": False},
        {"pool": "statistics"},
        {"balance": "none"},
        {"batch_size": 4},
        {"epochs": 5},
        {"options": {"hidden": 4, "form": "product"}},
        {"options": {"hidden": 4, "form": "mixture"}},
        {"options": {"hidden": 4, "num_heads": 1}},
        {"options": {"decoder": "linear"}},
        {"keep_layers": "1,2,4"},
    ],
    ids=str,
)
def test_every_setting_reaches_the_weights(
    run: Tune, changes: dict[str, Any], plain: dict[str, dict[str, torch.Tensor]]
) -> None:
    if not plain:
        plain["tensors"] = tensors_of(run("a", validation=0.0).folder)
    first, second = plain["tensors"], tensors_of(run("b", **{"validation": 0.0, **changes}).folder)
    assert first.keys() != second.keys() or any(
        first[n].shape != t.shape or not torch.equal(first[n], t) for n, t in second.items()
    )


def test_layers_are_chosen_without_the_test_part_and_no_later_block_runs(run: Tune, encoder: Encoder) -> None:
    for choice in ("best:3", "IF:3"):
        fold = run(choice.replace(":", ""), keep_layers=choice).folds[0]
        config = json.loads((fold.folder / "model" / CONFIG).read_text())
        assert len(config["features"]["layers"]) == 3
    fold = run("first", keep_layers="1,2,3").folds[0]
    recognizer: Any = ossicle.load(fold.folder)
    calls: list[int] = []
    for number, block in enumerate(recognizer.encoder.network.blocks):
        block.register_forward_hook(lambda *_, n=number: calls.append(n))
    recognizer.predict((np.zeros(16_000, np.float32), recognizer.rate))
    assert calls == [0, 1, 2]


def test_images_that_cannot_be_read_are_known_before_an_encoder_trains_on_them(tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / f"{number}.png")
    (tmp_path / "cat" / "2.png").write_bytes(b"nothing")
    data = read_dataset(tmp_path, modality="image")
    found = Readable(data)
    (bad,) = found.failures
    assert data.items[bad].file.name == "2.png" in found.failures[bad]
    assert sorted([bad, *found.usable]) == [0, 1, 2, 3]


def test_the_importance_factor_chooses_by_one_head_on_raw_features(run: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[TunedHead, Importance]] = []

    def measured(split: Split, features: HeadInputs) -> Importance:
        seen.append((features.head, importance_of(split, features)))
        return seen[-1][1]

    monkeypatch.setattr("ossicle.training.layers.importance_of", measured)
    fold = run(keep_layers="IF:3").folds[0]
    ((model, importance),) = seen
    assert importance.heads == 1 and (model.deviation == 1).all()
    assert model.options == {"num_heads": 1, "hidden": 4}  # the decoder of the head that was asked for
    config = json.loads((fold.folder / "model" / CONFIG).read_text())
    assert tuple(config["features"]["layers"]) == largest(importance.trained.share, 3)


def test_every_fold_is_tested_once_and_a_finished_one_stays(run: Tune, dataset: Dataset) -> None:
    result = run(folds="all", epochs=1)
    assert sorted(np.concatenate([fold.tested for fold in result.folds]).tolist()) == list(range(len(dataset)))
    again = run(folds="all", epochs=1, resume=True)
    assert again.evaluation.metrics.accuracy.value == result.evaluation.metrics.accuracy.value
    with pytest.raises(RunRefused, match="holds a run already"):
        run(folds="all")


def test_a_run_goes_on_with_its_encoder_wherever_that_is_and_with_no_other(
    run: Tune, bundle: Path, dataset: Dataset, tmp_path: Path
) -> None:
    result = run(epochs=1)
    (result.folder / TEST_SCORES).unlink()  # as if it had been interrupted
    moved = tmp_path / "moved"
    shutil.copytree(bundle, moved, ignore=shutil.ignore_patterns("SHA256SUMS"))
    again = run(epochs=1, resume=True, encoder=str(moved))
    assert again.evaluation.metrics.accuracy.value == result.evaluation.metrics.accuracy.value
    assert (result.folder / TEST_SCORES).exists()
    assert read_config(result.folder / "config.yaml", TuneConfig)[0].encoder == str(bundle)
    tensors = load_weights(moved / WEIGHTS)
    save_weights(moved / WEIGHTS, {name: tensor + 1e-3 for name, tensor in tensors.items()})
    other = load_encoder(moved)
    with pytest.raises(RunRefused, match=f"begun with an encoder of the fingerprint .*{other.fingerprint}"):
        tune(other, dataset, output=result.folder, resume=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_environment_of_a_run_is_one_sentence(text: str, run: Tune) -> None:
    file = run(epochs=1).folder / "environment.json"
    (file.parent / ".ossicle" / "digests").unlink()  # by which the damage would be noticed at once
    file.write_text(text)
    with pytest.raises(RunRefused, match=r"environment\.json: it does not say which encoder .*remove this file"):
        run(epochs=1, resume=True)
    file.unlink()
    run(epochs=1, resume=True)


def test_layers_are_chosen_for_a_head_that_takes_time(run: Tune) -> None:
    for choice in ("best:4", "IF:4"):
        fold = run(choice.replace(":", ""), head="attentive_stats", options={}, keep_layers=choice, epochs=1).folds[0]
        recognizer = ossicle.load(fold.folder)
        assert recognizer.predict((np.ones(20_000, np.float32), 32_000)).scores.shape == (2,)


def test_another_encoder_is_refused_and_a_moved_one_is_found(run: Tune, bundle: Path, tmp_path: Path) -> None:
    folder = run().folder
    moved = tmp_path / "moved"
    shutil.copytree(bundle, moved, ignore=shutil.ignore_patterns("SHA256SUMS"))
    assert ossicle.load(folder, encoder=moved).labels == ("noise", "tone")
    tensors = load_weights(moved / WEIGHTS)
    tensors["blocks.0.norm1.weight"] += 1
    save_weights(moved / WEIGHTS, tensors)
    with pytest.raises(BundleRefused, match="expects an encoder with the fingerprint .*: other weights"):
        ossicle.load(folder, encoder=moved)
    path = folder / "model" / CONFIG
    config = json.loads(path.read_text())
    assert config["encoder"]["settings"]["hidden_states"].startswith("what leaves each block")
    config["encoder"] |= {"settings": {"states": "others"}, "fingerprint": "0" * 16}
    path.write_text(json.dumps(config))
    path.with_name("SHA256SUMS").unlink()
    with pytest.raises(BundleRefused, match="other states, hidden_states, family"):
        ossicle.load(folder, encoder=bundle)
    with pytest.raises(BundleRefused, match="set its path with --encoder"):
        ossicle.load(folder, encoder=tmp_path / "nowhere")


def test_a_bundle_with_a_missing_or_foreign_tensor_is_refused(run: Tune) -> None:
    path = run().folder / "model" / WEIGHTS
    path.with_name("SHA256SUMS").unlink()
    tensors = load_weights(path)
    save_weights(path, {n: t for n, t in tensors.items() if n != "head.head.weigh.offset"})
    with pytest.raises(WeightsRefused, match=r"1 missing \(head\.weigh\.offset"):
        ossicle.load(path.parent)
    save_weights(path, {**tensors, "tuner.a": torch.zeros(1)})
    with pytest.raises(WeightsRefused, match="tensors of a tuner"):
        ossicle.load(path.parent)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head": "densty"}, "Head 'densty' is not available"),
        ({"options": {"num_heads": 6}}, "num_heads=6 over 6 layers"),
        ({"keep_layers": "best:2"}, "num_heads=1 over 2 layers"),
        ({"keep_layers": "1,2"}, "num_heads=1 over 2 layers"),
        ({"keep_layers": "worst:2"}, "expected best:K, IF:K"),
        ({"keep_layers": "best:3", "tuner": "density"}, "tuner=density changes them; give the layers by number"),
        ({"tuner": "lroa"}, "Tuner 'lroa' is not available"),
        ({"tuner": "density", "tuner_options": {"rank": 4}}, "the tuner density has no option 'rank'"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused_before_the_encoder_runs(
    run: Tune, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("ossicle.training.tune_head.open_inputs", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(SettingRefused, match=said):
        run(**changes)
    assert not (tmp_path / "run").exists() and not encoder.adapted


def test_a_choice_without_a_validation_part_leaves_no_run(run: Tune, tmp_path: Path) -> None:
    with pytest.raises(SettingRefused, match="goes by a validation part, and there is none"):
        run(keep_layers="best:3", validation=0.0)
    assert not (tmp_path / "run").exists()


def test_of_layers_by_number_no_later_block_runs(
    dataset: Dataset, encoder: Encoder, tmp_path: Path, without_pictures: Callable[[pytest.MonkeyPatch], None]
) -> None:
    network: Any = encoder.network
    network.blocks[3].register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    config = TuneConfig(head="mean", keep_layers="1,3", epochs=1, encoder=encoder.name)
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        tune(encoder, dataset, config, output=tmp_path / "run", cache=tmp_path / "cache")


def test_a_broken_recording_is_named(sounds: Path, encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    shutil.copytree(sounds, folder)
    (folder / "3.wav").write_bytes(b"no sound")
    data, config = read_dataset(folder), TuneConfig(epochs=1, options={"hidden": 4}, encoder=encoder.name)
    with pytest.raises(DataRefused, match=r"1 of 24 clips cannot be used; --skip-bad .*3\.wav"):
        tune(encoder, data, config, output=tmp_path / "a", cache=tmp_path / "cache")
    result = tune(encoder, data, config, output=tmp_path / "b", skip_bad=True, cache=tmp_path / "cache")
    assert len(result.failures) == 1 and "3.wav" in result.failures[0]


@pytest.mark.parametrize("tuner", [None, "lora"])
def test_a_long_tuning_says_how_far_it_is_and_what_is_left(
    tuner: str | None,
    dataset: Dataset,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    without_pictures: Callable[[pytest.MonkeyPatch], None],
    log: pytest.LogCaptureFixture,
) -> None:
    without_pictures(monkeypatch)
    monkeypatch.setattr(Every, "due", lambda self: True)  # as if half a minute passed between any two calls
    options = {"hidden": 4}
    config = TuneConfig(encoder=str(bundle), tuner=tuner, epochs=1, batch_size=4, options=options, device="cpu")
    encoder = load_encoder(bundle)
    tune(encoder, dataset, config, output=tmp_path / "run", cache=tmp_path / "cache")
    first = "encoded" if tuner is None else "decoded"
    moves = [line.split()[0] for line in log.messages if line.endswith(" left")]
    assert first in moves and "epoch" in moves
    assert moves.index(first) < moves.index("epoch")


def test_the_command_tunes_predicts_and_evaluates(sounds: Path, bundle: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    runner, out = CliRunner(), tmp_path / "run"
    tuned = runner.invoke(
        app, ["tune", str(bundle), str(sounds), "-o", str(out), "--set", "epochs=2", "options.hidden=4", "device=cpu"]
    )
    assert tuned.exit_code == 0, tuned.output
    assert "the encoder is frozen" in tuned.output
    predicted = runner.invoke(app, ["predict", str(out), str(sounds / "0.wav")])
    assert predicted.exit_code == 0 and ("tone" in predicted.output or "noise" in predicted.output)
    evaluated = runner.invoke(app, ["evaluate", str(out), str(sounds)])
    assert evaluated.exit_code == 0 and "Accuracy" in evaluated.output


@pytest.mark.parametrize("step", [2, 5])
def test_a_tuning_stopped_after_any_step_resumes_to_the_very_same_weights(step: int, run: Tune) -> None:
    settings: dict[str, Any] = {"tuner": "lora", "tuner_options": {"dropout": 0.5}, "save_minutes": 0.0}
    whole = run("whole", **settings)
    end = Checkpoints.on_train_batch_end

    def press(self: Checkpoints, trainer: Any, *rest: Any) -> None:
        self._interrupted = self._interrupted or trainer.global_step == step
        end(self, trainer, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", press)
        with pytest.raises(KeyboardInterrupt, match=f"Stopped after step {step}; continue with --resume"):
            run("stopped", **settings)
    resumed = run("stopped", resume=True, **settings)
    assert all(torch.equal(t, tensors_of(resumed.folder)[n]) for n, t in tensors_of(whole.folder).items())
