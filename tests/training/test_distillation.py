"""A student learns what its teachers give: losses, stored outputs, masks, several processes, whole runs."""

import dataclasses
import json
import math
import runpy
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import ossicle
from ossicle.data import Dataset, Item, split_dataset
from ossicle.data.cache import SampleStore, open_store
from ossicle.data.unlabeled import read_recordings, without_labels
from ossicle.errors import AudioUnreadable, DataRefused, OssicleError, SettingRefused
from ossicle.inference import Predictor
from ossicle.training import TrainConfig, TrainResult, distil, store_views, train
from ossicle.training.distillation import Lesson, clip_weights, embedding_loss, logit_loss
from ossicle.training.teacher_outputs import TeacherOutputs, read_outputs
from ossicle.training.teachers import Teacher, listen, mean_and_deviation, open_teacher, outputs_for
from ossicle.weights.tensors import load_weights

pytestmark = pytest.mark.usefixtures("undrawn")
LABELS = ("bell", "drum", "voice", "wind")
RANKED = Path(__file__).with_name("ranked_teachers.py")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    """A multi-label bundle with windows longer than the clips."""
    folder = tmp_path_factory.mktemp("teachers") / "tiny"
    return make_bundle(folder, labels=LABELS, task="multi-label", pad=True, weights_license="MIT")


@pytest.fixture
def plain(sounds: Path, tmp_path: Path) -> Path:
    """The recordings alone, in folders that are no classes."""
    for number, file in enumerate(sorted(sounds.glob("*.wav"))):
        place = tmp_path / "plain" / f"day{number % 2}" / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(file)
    return tmp_path / "plain"


@pytest.fixture
def go(
    tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    without_pictures: Callable[[pytest.MonkeyPatch], None],
) -> Callable[..., TrainResult]:
    """Distils or trains in a folder of its own; decoded samples are shared."""
    cache = tmp_path_factory.getbasetemp() / "cache"

    def call(how: Callable[..., TrainResult], data: Any, name: str = "run", **options: Any) -> TrainResult:
        settings = options.pop("settings", {})
        with pytest.MonkeyPatch.context() as patch:
            if not options.pop("report", False):
                without_pictures(patch)
            return how(data, tiny(**settings), output=tmp_path / name, cache=cache, **options)

    return call


Go = Callable[..., TrainResult]


def agreement(result: TrainResult) -> dict[str, Any]:
    return json.loads((result.folder / "metrics.json").read_text())["teachers"][0]


# --- losses -----------------------------------------------------------------------------------------------------------


def test_the_losses_are_those_computed_by_hand() -> None:
    student, teacher = torch.tensor([[0.5, -1.0]]), torch.tensor([[2.0, -3.0]])
    deviation = torch.tensor([2.0, 0.5])
    p, q = teacher.sigmoid()[0].tolist(), student.sigmoid()[0].tolist()
    bce = -sum(a * math.log(b) + (1 - a) * math.log(1 - b) for a, b in zip(p, q, strict=True)) / 2
    assert logit_loss(student, teacher, kind="bce", deviation=deviation).item() == pytest.approx(bce, rel=1e-5)
    mse = ((1.5 / 2) ** 2 + (2.0 / 0.5) ** 2) / 2
    assert logit_loss(student, teacher, kind="mse", deviation=deviation).item() == pytest.approx(mse, rel=1e-5)
    hot = 4.0
    p, q = (torch.tensor([[math.exp(x / hot) for x in row.tolist()[0]]]) for row in (teacher, student))
    p, q = p / p.sum(), q / q.sum()
    kl = hot**2 * sum(a * math.log(a / b) for a, b in zip(p[0].tolist(), q[0].tolist(), strict=True))
    found = logit_loss(student, teacher, kind="kl", deviation=deviation, temperature=hot).item()
    assert found == pytest.approx(kl, rel=1e-4)
    assert logit_loss(teacher, teacher, kind="kl", deviation=deviation, temperature=hot).item() == pytest.approx(0)
    mean, wide = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 2.0])
    # Standardized, the embedding (4, 9) is (3, 4).
    lost = embedding_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[4.0, 9.0]]), mean=mean, deviation=wide)
    assert lost.item() == pytest.approx(1 - 3 / 5)


def test_a_common_mean_of_the_embeddings_teaches_nothing() -> None:
    apart = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    mean, deviation = mean_and_deviation(lambda: (apart + 100).split(3))
    constant = torch.full((4, 2), 100.0)
    assert torch.nn.functional.cosine_similarity(constant, apart + 100).min() > 0.99  # raw, all are alike
    assert embedding_loss(constant, apart + 100, mean=mean, deviation=deviation).mean().item() == pytest.approx(1.0)
    assert embedding_loss(apart, apart + 100, mean=mean, deviation=deviation).max().item() < 1e-4


def test_a_clip_that_no_teacher_answers_for_does_not_count() -> None:
    answers = np.array([True, False, True, True])
    assert (torch.tensor([1.0, 100.0, 3.0, 5.0]) * clip_weights(answers)).sum().item() == pytest.approx(3.0)
    assert clip_weights(np.zeros(3, bool)).tolist() == [0.0, 0.0, 0.0]
    # Of two processes with two clips each, the mean of their sums.
    halves = [clip_weights(answers[part], among=answers, world=2) for part in (slice(2), slice(2, 4))]
    assert torch.equal(torch.cat(halves) / 2, clip_weights(answers))


# --- stored outputs ---------------------------------------------------------------------------------------------------


def dataset_of(*names: str, root: str = "/data/sounds") -> Dataset:
    items = tuple(Item(file=Path(root) / name, labels=()) for name in names)
    return Dataset(root=Path(root), items=items, labels=(), task="multi-label", layout="")


def outputs_of(*names: str, **changes: Any) -> TeacherOutputs:
    logits = np.arange(len(names) * 2, dtype=np.float32).reshape(len(names), 1, 2)
    return TeacherOutputs(path=Path("x.npz"), names=names, **{"logits": logits, **changes})


def test_stored_outputs_are_found_by_the_end_of_a_name() -> None:
    dataset = dataset_of("a/1.wav", "b/1.wav", "2.wav", "3.wav")
    stored = outputs_of("/elsewhere/b/1.wav", "/elsewhere/a/1.wav", "2.ogg")
    assert stored.rows(dataset).tolist() == [1, 0, 2, -1]
    with pytest.raises(DataRefused, match=r"'1\.wav' fits several clips .*a/1\.wav and b/1\.wav"):
        outputs_of("1.wav").rows(dataset)
    with pytest.raises(DataRefused, match=r"such as 'x\.wav', are none of /data/sounds, as is 'a/1\.wav'"):
        outputs_of("x.wav").rows(dataset)


def test_a_clip_in_a_folder_of_another_name_is_another() -> None:
    kicks = outputs_of("kick/1.flac", "kick/2.flac")
    with pytest.raises(DataRefused, match=r"such as 'kick/1\.flac', are none of .* as is 'snare/1\.flac'"):
        kicks.rows(dataset_of("snare/1.flac", "snare/2.flac"))
    part = outputs_of("m/kick/1.flac")  # as `ossicle embed m/kick` calls it
    assert part.rows(dataset_of("bell/1.flac", "kick/1.flac", root="/data/m")).tolist() == [-1, 0]
    assert part.rows(dataset_of("kick/1.flac", root="/data/renamed")).tolist() == [0]
    assert part.rows(dataset_of("../kick/1.flac", root="/data/tables")).tolist() == [0]
    assert outputs_of("1.flac").rows(dataset_of("kick/1.flac", "1.flac")).tolist() == [-1, 0]  # its very name


def test_segments_of_a_file_have_outputs_of_their_own_or_that_of_the_file() -> None:
    items = [Item(file=Path("/d/1.wav"), labels=(), start=start, end=start + 1.0) for start in (0.0, 1.0)]
    dataset = dataclasses.replace(dataset_of(root="/d"), items=tuple(items))
    assert outputs_of("1.wav@1.000-2.000", "1.wav@0.000-1.000").rows(dataset).tolist() == [1, 0]
    assert outputs_of("1.wav").rows(dataset).tolist() == [0, 0]


def test_scores_of_others_are_read_as_logits(tmp_path: Path) -> None:
    names = np.array(["1.wav", "2.wav"])
    several = np.array([[0.9, 0.8], [0.5, 0.0]], np.float16)
    np.savez(tmp_path / "several.npz", filename=names, probability=several, embedding=np.ones((2, 3), np.float16))
    found = read_outputs(tmp_path / "several.npz")
    assert found.task == "multi-label" and found.embeddings is not None and found.logits is not None
    scores = 1 / (1 + np.exp(-found.logits[:, 0]))
    np.testing.assert_allclose(scores, several, atol=1e-3)
    alone = np.array([[0.9, 0.1], [0.25, 0.75]], np.float32)
    np.savez(tmp_path / "alone.npz", filename=names, scores=alone, labels=np.array(["a", "b"]))
    found = read_outputs(tmp_path / "alone.npz")
    assert found.task == "single-label" and found.labels == ("a", "b") and found.logits is not None
    np.testing.assert_allclose(np.exp(found.logits[:, 0]), alone, rtol=1e-5)


@pytest.mark.parametrize(
    "arrays, sentence",
    [
        ({"probability": np.ones((2, 3))}, "no names of the clips"),
        ({"filename": ["a", "b"]}, "no outputs of a teacher"),
        ({"filename": ["a"], "logits": np.ones((2, 3))}, r"shape \(2, 1, 3\), and there are 1 names"),
        ({"filename": ["b", "a", "a"], "logits": np.ones((3, 3))}, "some names are there twice, such as 'a'"),
        ({"filename": ["a", "b"], "logits": np.full((2, 3), np.nan)}, "NaN or infinity"),
        ({"filename": ["a", "b"], "logits": np.ones((2, 3)), "labels": ["x"]}, "1 labels for 3 logits"),
        ({"filename": ["a", "b"], "logits": np.ones((2, 5, 3))}, "5 views of each clip"),
    ],
)
def test_stored_outputs_that_are_none_are_refused(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{name: np.asarray(value) for name, value in arrays.items()})
    with pytest.raises(DataRefused, match=sentence):
        read_outputs(tmp_path / "x.npz")
    (tmp_path / "y.safetensors").write_bytes(b"none")
    with pytest.raises(DataRefused, match="not a file of stored outputs"):
        read_outputs(tmp_path / "y.safetensors")


def test_stored_views_give_what_the_teacher_gives_for_the_same_view(
    teacher: Path, plain: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]
) -> None:
    config = tiny(window=0.3, gain=9.0, roll=0.02, seed=3)
    stored = store_views(plain, teacher, output=tmp_path / "v.safetensors", views=3, config=config)
    assert stored.views is not None and stored.logits is not None and stored.embeddings is not None
    dataset = read_recordings(plain)
    store = open_store(dataset.items, 32_000)
    model = open_teacher(teacher, device="cpu")
    assert isinstance(model, Predictor)
    row = int(stored.rows(dataset)[5])
    waves = [stored.views.wave(store.read(5), stored.names[row], view=view) for view in range(3)]
    assert not torch.equal(waves[0], waves[1])
    logits, embeddings = listen(model, torch.stack(waves), torch.full((3,), len(waves[0])), rate=32_000)
    np.testing.assert_allclose(stored.logits[row] * model.bundle.temperature, logits, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(stored.embeddings[row], embeddings, rtol=2e-3, atol=2e-3)
    again = store_views(plain, teacher, output=tmp_path / "v.safetensors", views=3, config=config)
    np.testing.assert_array_equal(again.logits, stored.logits)
    with pytest.raises(OssicleError, match="outputs of another teacher, other data or other views"):
        store_views(plain, teacher, output=tmp_path / "v.safetensors", views=2, config=config)


def test_segments_of_one_name_are_stored_once(teacher: Path, plain: Path, tmp_path: Path) -> None:
    dataset = read_recordings(plain)
    starts = (0.1, 0.1001, 0.2)
    items = tuple(dataclasses.replace(dataset.items[0], start=start, end=0.4) for start in starts)
    dataset = dataclasses.replace(dataset, items=items)
    model = open_teacher(teacher, device="cpu")
    assert isinstance(model, Predictor)
    store = open_store(items, 32_000)
    stored = outputs_for(model, tmp_path / "x.safetensors", name="tiny", dataset=dataset, store=store)
    assert len(stored.names) == 2 and stored.rows(dataset).tolist() == [0, 0, 1]


def test_an_interrupted_file_of_views_goes_on_where_it_was(
    teacher: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., TrainConfig]
) -> None:
    monkeypatch.setattr("ossicle.training.teacher_outputs.PART_CLIPS", 10)
    whole = store_views(plain, teacher, output=tmp_path / "whole.safetensors", views=2, config=tiny())
    passes = []
    real = ossicle.recognizer.Recognizer.clip_outputs

    def counted(self: Any, clips: np.ndarray, **options: Any) -> Any:
        passes.append(len(clips))
        if stop and sum(passes) > 30:
            raise KeyboardInterrupt
        return real(self, clips, **options)

    monkeypatch.setattr(ossicle.recognizer.Recognizer, "clip_outputs", counted)
    stop = True
    with pytest.raises(KeyboardInterrupt, match=r"Stopped while .*tiny answered; the same command goes on from there"):
        store_views(plain, teacher, output=tmp_path / "v.safetensors", views=2, config=tiny())
    assert not (tmp_path / "v.safetensors").exists()
    stop, passes[:] = False, []
    rest = store_views(plain, teacher, output=tmp_path / "v.safetensors", views=2, config=tiny())
    assert sum(passes) < 2 * 24  # not all of the two views of 24 clips
    np.testing.assert_array_equal(rest.logits, whole.logits)
    assert not list(tmp_path.glob("*.parts"))


# --- teachers ---------------------------------------------------------------------------------------------------------


def test_a_teacher_hears_waves_of_any_lengths_and_rates_as_it_hears_recordings(teacher: Path) -> None:
    model = ossicle.load(teacher, device="cpu")
    rng = np.random.default_rng(0)
    lengths = torch.tensor([16_000, 48_000, 16_000])
    waves = torch.zeros(3, 48_000)
    for row, length in zip(waves, lengths.tolist(), strict=True):
        row[:length] = torch.from_numpy(rng.normal(scale=0.1, size=length).astype(np.float32))
    for rate in (32_000, 16_000):
        logits, features = listen(model, waves, lengths, rate=rate)
        for place, length in enumerate(lengths.tolist()):
            alone = model.clip_outputs(waves[place, :length].numpy()[None], rate=rate)
            np.testing.assert_allclose(logits[place], alone[0][0], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(features[place], alone[1][0], rtol=1e-4, atol=1e-4)
    short, _ = listen(model, waves[:, :16_000], torch.tensor([16_000, 12_800, 9_600]), rate=32_000)  # one pass
    for place, length in enumerate([16_000, 12_800, 9_600]):
        alone, _ = model.clip_outputs(waves[place, :length].numpy()[None], rate=32_000)
        np.testing.assert_allclose(short[place], alone[0], rtol=1e-4, atol=1e-4)


def test_an_exported_teacher_gives_what_its_bundle_gives(teacher: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'ossicle[export]'")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'ossicle[export]'")
    path = ossicle.export_model(teacher, output=tmp_path / "teacher.onnx").path
    waves = torch.from_numpy(np.random.default_rng(0).normal(scale=0.1, size=(3, 32_000)).astype(np.float32))
    lengths = torch.full((3,), 32_000)
    found = [listen(open_teacher(one, device="cpu"), waves, lengths, rate=32_000) for one in (teacher, path)]
    for bundle, onnx in zip(*found, strict=True):
        np.testing.assert_allclose(onnx, bundle, rtol=1e-5, atol=1e-5 * float(bundle.abs().max()))


def test_teachers_that_cannot_teach_are_refused_in_a_sentence(
    cats: Predictor, go: Go, plain: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingRefused, match="teacher cats: a model of images; a student of sound needs one of sound"):
        go(distil, plain, teachers=[cats])
    with pytest.raises(SettingRefused, match="without labels a teacher must say what is right"):
        go(distil, plain)
    names = np.array([path.name for path in sorted(plain.rglob("*.wav"))])
    np.savez(tmp_path / "x.npz", filename=names, logits=np.ones((len(names), 3)))
    with pytest.raises(DataRefused, match="3 logits without the names of their labels"):
        go(distil, plain, teachers=[tmp_path / "x.npz"])
    with pytest.raises(SettingRefused, match="is named twice"):
        go(distil, plain, teachers=[tmp_path / "x.npz"] * 2)
    np.savez(tmp_path / "y.npz", filename=names, logits=np.ones((len(names), 3)), labels=np.array(["a", "b", "c"]))
    with pytest.raises(DataRefused, match="no folds"):
        go(distil, plain, teachers=[tmp_path / "y.npz"], folds="all")
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_trained_is_refused_before_a_teacher_answers_and_leaves_no_folder(
    teacher: Path, plain: Path, sounds: Path, go: Go, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "1.wav").symlink_to(sounds / "1.wav")
    with pytest.raises(DataRefused, match="no test part can be held out by file: 1 groups"):
        go(distil, tmp_path / "one", teachers=[teacher])
    with pytest.raises(SettingRefused, match="no option adaptr"):
        go(distil, plain, teachers=[teacher], settings={"network": {"adaptr": "none"}})
    assert not (tmp_path / "run").exists()


def test_a_signal_while_a_teacher_answers_ends_the_run_as_ctrl_c_does(
    teacher: Path, plain: Path, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ossicle.training.lesson.outputs_for", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nor does it end the tests
    try:
        with pytest.raises(KeyboardInterrupt, match=r"Stopped while .*tiny answered; .* with -o .*run goes on"):
            go(distil, plain, teachers=[teacher])
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_student_agrees_more_with_its_teacher_than_before(teacher: Path, plain: Path, go: Go) -> None:
    settings = {"epochs": 10, "lr": 2e-3, "seed": 1}
    before = agreement(
        go(distil, plain, "before", teachers=[teacher], settings={**settings, "lr": 0.0, "epochs": 1}, report=True)
    )
    result = go(distil, plain, "after", teachers=[teacher], settings=settings, report=True)
    after = agreement(result)
    assert after["clips"] == len(result.folds[0].tested) and after["cosine"] > before["cosine"] + 0.2
    rows = (result.folder / "metrics.csv").read_text().splitlines()
    first, last = (float(row.split(",")[rows[0].split(",").index("val_loss")]) for row in (rows[1], rows[-1]))
    assert last < first
    student = ossicle.load(result.folder, device="cpu")
    assert student.labels == LABELS and student.task == "multi-label"
    assert not any("projections" in name for name in load_weights(result.folder / "model" / "model.safetensors"))
    card = (result.folder / "model" / "README.md").read_text()
    assert "Distilled from `tiny` (passt_tiny_s16, version " in card and "license of its weights: MIT)" in card
    assert "Agreement with the teachers" in (result.folder / "report.html").read_text()


def test_a_resumed_distillation_has_the_bits_of_an_uninterrupted_one(
    teacher: Path, plain: Path, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 2, "average": "ema", "gain": 6.0, "wave_mixup": 0.5, "patchout_f": 0.3}
    whole = go(distil, plain, "whole", teachers=[teacher], settings=settings, report=True)
    with monkeypatch.context() as patch:
        patch.setattr("ossicle.training.callbacks.Checkpoints.on_train_batch_end", stop_at(7))
        with pytest.raises(KeyboardInterrupt):
            go(distil, plain, "parts", teachers=[teacher], settings=settings)
    resumed = go(distil, plain, "parts", teachers=[teacher], settings=settings, resume=True, report=True)
    for name in ("model/model.safetensors", "checkpoints/best.safetensors"):
        one, other = (load_weights(result.folder / name) for result in (whole, resumed))
        assert one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert any("projections" in name for name in one)
    assert agreement(whole) == agreement(resumed)


def stop_at(step: int) -> Callable[..., None]:
    def on_train_batch_end(self: Any, trainer: Any, *_: Any) -> None:
        if trainer.global_step == step:
            self.save(trainer)
            raise KeyboardInterrupt

    return on_train_batch_end


def test_labels_and_several_teachers_each_for_its_clips(
    teacher: Path, dataset: Dataset, go: Go, tmp_path: Path
) -> None:
    half = [dataset.relative(item) for item in dataset.items][:12]
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "speech.npz", filename=np.array(half), embedding=rng.standard_normal((12, 5)))
    result = go(train, dataset, teachers=[teacher, tmp_path / "speech.npz"], settings={"mixup": 0.3}, report=True)
    found = json.loads((result.folder / "metrics.json").read_text())
    assert found["headline"]["accuracy"]["value"] is not None
    first, second = found["teachers"]
    tested = len(result.folds[0].tested)
    in_half = np.isin(result.folds[0].tested, np.arange(12)).sum()
    assert (first["clips"], second["clips"]) == (tested, in_half)
    assert first["top1"] is not None and second["top1"] is None
    assert ossicle.load(result.folder, device="cpu").labels == ("noise", "tone")
    assert "mixup: 0.0" in (result.folder / "config.yaml").read_text()


def test_a_teacher_of_the_same_labels_teaches_the_head(
    dataset: Dataset, go: Go, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    turned = make_bundle(tmp_path / "turned", labels=("tone", "noise"), pad=True)
    result = go(train, dataset, teachers=[turned], settings={"label_weight": 0.0, "epochs": 8, "lr": 2e-3})
    assert not any(
        "logits" in name
        for name in load_weights(result.folder / "checkpoints" / "best.safetensors")
        if "weight" in name
    )
    student, model = ossicle.load(result.folder, device="cpu"), ossicle.load(turned, device="cpu")
    gaps = []
    for item in dataset.items[:8]:
        own, wanted = student.item_logits(item), model.item_logits(item)
        gaps.append((own[1] - own[0], wanted[0] - wanted[1]))  # tone against noise
    own, wanted = np.array(gaps).T
    assert np.mean(np.sign(own) == np.sign(wanted)) > 0.8


def test_a_student_of_embeddings_alone_has_no_labels(teacher: Path, plain: Path, go: Go, tmp_path: Path) -> None:
    ossicle.embed_files(teacher, plain, device="cpu").save(tmp_path / "e.safetensors")
    result = go(distil, plain, teachers=[tmp_path / "e.safetensors"], settings={"epochs": 6, "lr": 2e-3}, report=True)
    found = agreement(result)
    assert found["top1"] is None and found["cosine"] > 0
    student = ossicle.load(result.folder, device="cpu")
    file = next(plain.rglob("*.wav"))
    assert student.labels == ("features",) and student.predict(file).top[1] == 0.5
    assert "learned embeddings alone" in (result.folder / "model" / "README.md").read_text()


def test_the_settings_of_a_distillation_reach_the_weights(teacher: Path, dataset: Dataset, go: Go) -> None:
    kl = {"teacher_loss": "kl"}
    changes = [{}, {"label_weight": 3.0}, {"teacher_weight": 3.0}, {"embedding_weight": 3.0}]
    changes += [{"teacher_loss": "mse"}, kl, {**kl, "teacher_temperature": 5.0}]
    heads = []
    for number, change in enumerate(changes):
        result = go(
            train, dataset, str(number), teachers=[teacher], settings={"epochs": 1, "validation": 0.0, **change}
        )
        heads.append(load_weights(result.folder / "model" / "model.safetensors")["blocks.0.attn.qkv.weight"])
    assert not any(torch.equal(one, other) for at, one in enumerate(heads) for other in heads[:at])


def test_a_term_without_weight_teaches_nothing(teacher: Path, plain: Path, dataset: Dataset, go: Go) -> None:
    result = go(distil, plain, teachers=[teacher], settings={"teacher_weight": 0.0, "epochs": 1}, report=True)
    assert agreement(result)["top1"] is None and agreement(result)["cosine"] is not None
    assert ossicle.load(result.folder, device="cpu").labels == ("features",)
    result = go(
        distil, plain, "logits", teachers=[teacher], settings={"embedding_weight": 0.0, "epochs": 1}, report=True
    )
    assert agreement(result)["top1"] is not None and agreement(result)["cosine"] is None
    with pytest.raises(SettingRefused, match="label_weight=0: neither labels nor a teacher"):
        go(train, dataset, "none", teachers=[teacher], settings={"label_weight": 0.0})


def test_a_student_of_stored_views_hears_these_views(
    teacher: Path,
    plain: Path,
    go: Go,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Callable[..., TrainConfig],
) -> None:
    path = tmp_path / "v.safetensors"
    stored = store_views(plain, teacher, output=path, views=2, config=tiny(window=0.3, gain=9.0))
    model = open_teacher(teacher, device="cpu")
    assert isinstance(model, Predictor)
    seen = set()

    def compare(self: Any, batch: Any, batch_idx: int) -> None:
        logits, _ = listen(model, batch.waves, batch.lengths, rate=32_000)
        wanted = batch.taught["0.logits"] * model.bundle.temperature
        np.testing.assert_allclose(wanted, logits, rtol=2e-3, atol=5e-3)
        seen.update((int(clip), round(float(row.sum()), 3)) for clip, row in zip(batch.clips, wanted, strict=True))

    monkeypatch.setattr("ossicle.training.distillation.Distillation.on_train_batch_start", compare, raising=False)
    result = go(distil, plain, teachers=[path], settings={"window": None})
    assert stored.views is not None and len({clip for clip, _ in seen}) * 2 == len(seen)  # both views, one an epoch
    assert "window: 0.3" in (result.folder / "config.yaml").read_text()
    with pytest.raises(SettingRefused, match=r"window=0\.4: the stored views have 0\.3 s"):
        go(distil, plain, "other", teachers=[path], settings={"window": 0.4})


def test_recordings_without_labels_are_read_from_folders_tables_and_classes(
    sounds: Path, plain: Path, tmp_path: Path
) -> None:
    found = read_recordings(plain)
    assert len(found) == 24 and found.labels == () and "no labels are read" in found.layout
    table = read_recordings(sounds)
    assert len(table) == 24 and table.group_name == "group" and not any(item.labels for item in table)
    names = tmp_path / "names.csv"
    names.write_text("file\n" + "\n".join(str(item.file) for item in table.items[:4]))
    assert len(read_recordings(names)) == 4
    with pytest.raises(DataRefused, match="holds no recordings"):
        read_recordings(tmp_path / "empty" if (tmp_path / "empty").mkdir() is None else tmp_path)
    with pytest.raises(DataRefused, match="does not exist"):
        read_recordings(tmp_path / "gone")


def test_the_held_out_part_is_cut_by_group_and_answered_for(sounds: Path) -> None:
    dataset = read_recordings(sounds)
    items = tuple(
        dataclasses.replace(item, split="train" if number < 4 else None) for number, item in enumerate(dataset.items)
    )
    taught = dataclasses.replace(dataset, items=items, labels=("a",), labeled_by="a teacher")
    split = split_dataset(taught, seed=5, validation=0.2)
    groups = [{dataset.items[index].group for index in part} for part in (split.train, split.validation, split.test)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert set(range(4)) <= set(split.train.tolist()) and len(split.validation) and len(split.test)
    assert "labeled by a teacher" in split.protocol
    with pytest.raises(DataRefused, match="have no folds"):
        split_dataset(taught, fold="1")


class Losing(SampleStore):
    """Cannot read one of its clips."""

    def read(self, index: int) -> np.ndarray:
        if index == 3:
            raise AudioUnreadable("gone")
        return super().read(index)


def test_a_clip_that_is_lost_has_no_answer_and_counts_for_nothing(plain: Path, teacher: Path, tmp_path: Path) -> None:
    dataset = read_recordings(plain)
    store = Losing(**vars(open_store(dataset.items, 32_000)))
    model = open_teacher(teacher, device="cpu")
    assert isinstance(model, Predictor)
    stored = outputs_for(model, tmp_path / "x.safetensors", name="t", dataset=dataset, store=store)
    rows = stored.rows(dataset)
    assert rows[3] == -1 and (rows >= 0).sum() == 23
    one = Teacher(name="t", stored=outputs_of(*map(str, range(24))), rows=np.arange(24))
    lesson = Lesson(teachers=(one,), unlabeled=True)
    targets = np.zeros((24, 2), bool)
    (batch,) = lesson.batches(store, np.arange(8), targets, window=9_600, batch_size=8, seed=0)
    lost = batch.clips == 3
    assert batch.taught["0.weights"][lost].item() == 0.0
    assert batch.taught["0.weights"][~lost].tolist() == [0.125] * 7


# --- several processes ------------------------------------------------------------------------------------------------


def test_two_processes_distil_as_one(tmp_path: Path) -> None:
    ranked = SimpleNamespace(**runpy.run_path(str(RANKED)))
    run_program = runpy.run_path(str(Path(__file__).with_name("test_ranks.py")))["run_program"]
    done = run_program(RANKED, tmp_path / "two.npz", "2")
    assert done.returncode == 0, done.stderr
    losses, validation = ranked.some_steps()
    found = np.load(tmp_path / "two.npz")
    np.testing.assert_allclose(found["losses"], losses, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found["validation"], validation, rtol=0, atol=1e-6)


def test_a_teacher_answers_with_zeros_where_it_has_none() -> None:
    one = Teacher(name="t", stored=outputs_of("1.wav", "2.wav"), rows=np.array([1, -1, 0]))
    logits, embeddings = one.clip_rows(np.array([0, 1, 2]))
    assert embeddings is None and logits is not None and logits.tolist() == [[2.0, 3.0], [0.0, 0.0], [0.0, 1.0]]
    assert one.answers.tolist() == [True, False, True]


def test_labels_of_data_that_were_read_with_them_are_not_seen(dataset: Dataset) -> None:
    bare = without_labels(dataset)
    assert dataset.labels and not bare.labels and not any(item.labels for item in bare)
    assert bare.group_name == dataset.group_name == "group"
