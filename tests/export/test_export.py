"""A file gives the numbers of the model that it was made from, or there is no file."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import ossicle
from ossicle.audio import read_clip
from ossicle.data.recordings import drums_folder
from ossicle.encoders import load_encoder
from ossicle.errors import DataRefused, ExportRefused, ExtraMissing
from ossicle.export import check_target, export_model
from ossicle.export.check import MOST, Agreement, batches, check, compare, real_sounds, shapes
from ossicle.export.formats import Session, open_onnx, open_pt2
from ossicle.export.graph import make_graph
from ossicle.export.int8 import Sounds, measure
from ossicle.inference.predictor import probabilities
from ossicle.loading import load
from ossicle.models import create_model
from ossicle.models.base import Network
from ossicle.recognizer import Recognizer
from ossicle.runtime import SCHEMA_VERSION
from ossicle.tuning.tuned import TunedHead, TunedRecognizer, save_tuned

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'ossicle[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'ossicle[export]'")

Make = Callable[..., Path]
EPS = float(np.finfo(np.float32).eps)
TINY: dict[str, Any] = {"depth": 2, "frames": 100}


def about(path: Path) -> dict[str, Any]:
    """The metadata of an ONNX file."""
    (entry,) = [entry for entry in onnx.load(str(path)).metadata_props if entry.key == "ossicle"]
    return json.loads(entry.value)


def assert_same(recognizer: Recognizer, answer: Session, lengths: list[int]) -> None:
    """Every output at every length, for one clip and for three."""
    rng = np.random.default_rng(0)
    for length in lengths:
        for clips in (1, 3):
            waves = rng.normal(scale=0.1, size=(clips, length)).astype(np.float32)
            got = answer(waves)
            logits, features = recognizer.scores(waves), recognizer.features(waves)
            assert_near(got["logits"], logits)
            assert_near(got["features"], features)
            np.testing.assert_allclose(got["scores"], recognizer.activate(logits), rtol=0, atol=MOST)
            if recognizer.hop_feature_seconds is not None:
                hops = recognizer.hop_scores(waves)
                assert_near(got["hop_logits"], hops)


def assert_near(found: np.ndarray, wanted: np.ndarray) -> None:
    """Float32 through a network is as exact as its largest number: a difference of 2000 roundings is a fault."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2000 * EPS * np.abs(wanted).max())


# --- parity ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def passt(make_network: Make) -> Path:
    return make_network("passt_tiny_s16", options=TINY)


@pytest.fixture(scope="module")
def exported(passt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of a PaSST."""
    return export_model(passt, output=tmp_path_factory.mktemp("exported") / "tiny.onnx").path


def test_passt_gives_the_same_numbers_at_any_length(passt: Path, exported: Path) -> None:
    recognizer, values = load(passt, device="cpu"), about(exported)
    span = [values["min_samples"], 20_000, 32_000, values["max_samples"]]
    assert values["min_samples"] == recognizer.min_samples
    assert_same(recognizer, open_onnx(exported), span)


def test_beyond_its_longest_window_a_network_would_see_several(passt: Path, exported: Path) -> None:
    recognizer = load(passt, device="cpu")
    longest = about(exported)["max_samples"]
    assert recognizer.frontend.frames(longest) == recognizer.model.max_frames
    assert recognizer.frontend.frames(longest + 1) > recognizer.model.max_frames


@pytest.mark.parametrize(
    "name, options, answers",
    [
        ("passt_tiny_s10", {"depth": 1, "frames": 60}, {"window_seconds": 0.5, "pad": True, "task": "multi-label"}),
        (
            "datar_nano",
            {
                "segment": 64,
                "deform": (False, True, False, True),
                "key_strides": (8, 4, 2, 1),
                "adaptor": "feature",
                "hop_features": True,
            },
            {"window_seconds": 0.6, "pad": True},
        ),
    ],
    ids=["s10, padded", "DATAR, segments, hops, feature adaptor, padded"],
)
def test_every_kind_of_network_gives_the_same_numbers(
    name: str, options: dict[str, Any], answers: dict[str, Any], make_network: Make, tmp_path: Path, small: dict
) -> None:
    model = make_network(name, options=(small if "datar" in name else {}) | options, **answers)
    path = export_model(model, output=tmp_path / "it.onnx").path
    values, recognizer = about(path), load(model, device="cpu")
    longest = min(values["max_samples"], 2 * recognizer.window_samples()[0])
    assert_same(recognizer, open_onnx(path), [values["min_samples"], values["min_samples"] + 3333, longest])


def test_a_pt2_file_gives_the_same_numbers(passt: Path, tmp_path: Path) -> None:
    done = export_model(passt, to="pt2", output=tmp_path / "tiny.pt2")
    assert done.path.stat().st_size > 1000
    recognizer = load(passt, device="cpu")
    answer = open_pt2(done.path, outputs=("scores", "logits", "features"))
    assert_same(recognizer, answer, [recognizer.min_samples, 20_000, 32_000])
    check_target(done.path, "pt2")  # what it wrote it may replace


@pytest.fixture(scope="module")
def make_tuned(make_network: Make, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Saves a head on a PaSST of three blocks, with silence after short clips."""
    encoder = load_encoder(make_network("passt_tiny_s16", options={"depth": 3, "frames": 100}, pad=True))

    def make(name: str, *, pool: Any = "mean", **options: Any) -> Path:
        torch.manual_seed(0)
        head = TunedHead(name, layers=(1, 2, 3), dim=encoder.dim, pool=pool, num_classes=3, options=options)
        folder = tmp_path_factory.mktemp("tuned") / name
        answers: dict[str, Any] = {
            "task": "single-label",
            "labels": ("a", "b", "c"),
            "window_seconds": 0.5,
            "pad": False,
        }
        save_tuned(folder, encoder=encoder, model=head, **answers)
        return folder

    return make


# Those that differ in kind: what the other heads compute is part of these.
@pytest.mark.parametrize(
    "head, pool, options",
    [
        ("density", "statistics", {"hidden": 4}),
        ("gq_density", "mean", {"width": 16, "hidden": 4}),
        ("attentive_stats", "time", {"hidden": 4}),
    ],
)
def test_a_head_on_a_network_of_ours_gives_the_same_numbers(
    head: str, pool: str, options: dict[str, int], make_tuned: Make, tmp_path: Path
) -> None:
    model = make_tuned(head, pool=pool, **options)
    path = export_model(model, output=tmp_path / "head.onnx").path
    values, recognizer = about(path), load(model, device="cpu")
    assert values["model"]["name"].startswith(f"{head} on") and values["frontend"]["rate"] == values["rate"]
    assert_same(recognizer, open_onnx(path), [values["min_samples"], 9_000, 16_000, values["max_samples"]])


class Times(torch.nn.Module):
    """What a head on a padded network takes of its states, alone: a whole pyramid takes a minute to export."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames[:, : self.network.layer_times(frames.shape[1])]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch about itself
@pytest.mark.parametrize("name, options", [("passt_tiny_s16", TINY), ("datar_nano", {})])
def test_a_graph_counts_the_times_of_a_layer_as_the_network_does(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    network = create_model(name, num_classes=3, **options)
    frames = torch.export.Dim("frames", min=32, max=100)
    shapes = ({0: torch.export.Dim.STATIC, 1: frames},)
    program = torch.export.export(Times(network), (torch.zeros(1, 64),), dynamic_shapes=shapes)
    torch.onnx.export(program, dynamo=True, verbose=False).save(str(tmp_path / "times.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "times.onnx"))
    for count in (32, 47, 48, 49, 63, 64, 65, 100):
        (found,) = session.run(None, {session.get_inputs()[0].name: np.zeros((1, count), np.float32)})
        assert found.shape[1] == network.layer_times(count)


def test_a_clip_below_one_pass_has_the_scores_that_a_file_gives_it_with_silence_behind(
    make_network: Make, tmp_path: Path, small: dict
) -> None:
    encoder = load_encoder(make_network("datar_nano", options=small, window_seconds=0.6, pad=True))
    torch.manual_seed(0)
    head = TunedHead("mean", layers=(1, 2), dim=encoder.dim, pool="mean", num_classes=3, options={})
    answers: dict[str, Any] = {"task": "single-label", "labels": ("a", "b", "c"), "window_seconds": 0.6, "pad": False}
    save_tuned(tmp_path / "tuned", encoder=encoder, model=head, **answers)
    recognizer = load(tmp_path / "tuned", device="cpu")
    short = np.random.default_rng(1).normal(scale=0.1, size=2000).astype(np.float32)
    silent = np.pad(short, (0, encoder.frontend.min_samples - len(short)))  # as ossicle-runtime hands it to the file
    scores = [recognizer.predict((samples, recognizer.rate)).scores for samples in (short, silent)]
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-6)


def test_a_head_on_another_encoder_is_refused(make_tuned: Make) -> None:
    recognizer = load(make_tuned("mean"), device="cpu")
    assert isinstance(recognizer, TunedRecognizer)
    recognizer.encoder = SimpleNamespace(name="whisper-tiny")  # type: ignore[assignment]
    with pytest.raises(ExportRefused, match="whisper-tiny cannot be exported; heads on ossicle's own networks"):
        make_graph(recognizer)


# --- what travels beside the graph -----------------------------------------------------------------------------------


def test_the_file_says_all_that_the_bundle_says(passt: Path, exported: Path) -> None:
    values, bundle = about(exported), load(passt, device="cpu").bundle
    assert values["schema_version"] == SCHEMA_VERSION and values["library_version"] == ossicle.__version__
    assert values["model"] == {"name": "passt_tiny_s16", "version": bundle.version}
    assert values["labels"] == list(bundle.labels) and values["task"] == bundle.task
    assert values["thresholds"] is None and values["temperature"] == 1.5
    assert values["window"] == {"seconds": 1.0, "hop_seconds": 1.0, "pad": False}
    assert values["rate"] == 32_000 and values["hop_feature_seconds"] is None
    assert values["frontend"]["kind"] == "passt" and values["weights_license"] is None
    assert list(exported.parent.iterdir()) == [exported]  # no weights beside it


def test_the_axes_have_names(exported: Path) -> None:
    graph = onnx.load(str(exported)).graph
    assert [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim] == ["clip", "time"]
    assert [output.name for output in graph.output] == ["scores", "logits", "features"]


# --- eight bits ------------------------------------------------------------------------------------------------------


@pytest.fixture
def written_before(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an export writes is the file of the PaSST, made once."""
    monkeypatch.setattr("ossicle.export.trace", lambda graph: None)
    monkeypatch.setattr("ossicle.export.write_onnx", lambda path, program, **_: shutil.copyfile(exported, path))


def test_eight_bits_are_smaller_and_nearly_the_same(passt: Path, tmp_path: Path, written_before: None) -> None:
    done = export_model(passt, output=tmp_path / "tiny.onnx", int8=True)
    assert done.int8 is not None and done.int8.path == tmp_path / "tiny.int8.onnx"
    assert done.int8.path.stat().st_size < 0.5 * done.path.stat().st_size
    small, large = about(done.int8.path), about(done.path)
    versions = {values["model"].pop("version") for values in (small, large)}
    assert small == large and len(versions) == 2  # rows of both can be told apart, and no job mixes them
    wave = np.random.default_rng(0).normal(scale=0.1, size=(2, 32_000)).astype(np.float32)
    little, much = (open_onnx(path)(wave)["scores"] for path in (done.int8.path, done.path))
    assert 0 < np.abs(little - much).max() < 0.2
    said = " ".join(done.lines())
    assert "times smaller" in said and "agrees in" in said


def test_of_several_labels_the_loss_shows_in_the_map(tmp_path: Path) -> None:
    labels = 50
    targets = np.eye(labels, dtype=bool)  # most labels are absent from every clip, as in AudioSet
    recognizer: Any = SimpleNamespace(
        task="multi-label",
        thresholds=None,
        window_samples=lambda: (8, 8),
        activate=lambda logits: probabilities(logits, task="multi-label"),
    )
    windows = [np.full(8, number, dtype=np.float32) for number in range(labels)]
    (path := tmp_path / "it.int8.onnx").write_bytes(b"")

    def right(waves: np.ndarray) -> dict[str, np.ndarray]:
        return {"logits": 200 * targets[waves[:, 0].astype(int)].astype(np.float32) - 100}

    def deaf(waves: np.ndarray) -> dict[str, np.ndarray]:
        return {"logits": np.full((len(waves), labels), -5, dtype=np.float32)}

    sounds = Sounds(windows=windows, targets=targets, protocol="50 clips")
    found = measure(path, deaf, right, recognizer=recognizer, sounds=sounds)
    assert (found.metric, found.values) == ("mAP", (1.0, pytest.approx(1 / labels)))


def test_the_front_end_and_the_head_stay_in_float(exported: Path, tmp_path: Path) -> None:
    from ossicle.export.int8 import write_int8

    write_int8(tmp_path / "it.int8.onnx", exported)
    tensors = onnx.load(str(tmp_path / "it.int8.onnx")).graph.initializer
    floats = {tensor.name for tensor in tensors if tensor.data_type == onnx.TensorProto.FLOAT}
    assert {"frontend.first", "frontend.second", "frontend.bank"} <= floats
    assert any(name.startswith("model.head.1.weight") for name in floats)
    assert any(tensor.data_type == onnx.TensorProto.INT8 for tensor in tensors)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_graph_that_differs_is_refused_and_nothing_is_kept(
    make_network: Make, tmp_path: Path, written_before: None
) -> None:
    another = make_network("passt_tiny_s16", options=TINY, temperature=1.6)
    with pytest.raises(ExportRefused, match=r"scores by up to [0-9.e+-]+ .allowed: 0.0001"):
        export_model(another, output=tmp_path / "tiny.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_that_magnifies_rounding_is_held_to_double_precision(make_network: Make) -> None:
    steep = make_network("passt_tiny_s16", options=TINY, task="multi-label", temperature=2e-3)
    recognizer = load(steep, device="cpu")
    sounds = 9 * [np.resize(real_sounds(recognizer)[0], recognizer.window_samples()[0])]
    with torch.no_grad():  # no logit of this sound is beyond what rounding does
        recognizer.model.head[1].bias -= torch.from_numpy(recognizer.scores(sounds[0][None])[0])
    graph = make_graph(recognizer)

    def answering(change: Callable[[torch.nn.Module], object]) -> Session:
        """As a file on another processor: the same numbers but for rounding, of a graph that may be another."""
        other = copy.deepcopy(graph).double()
        change(other)
        return lambda waves: {
            name: output.float().numpy()
            for name, output in zip(graph.outputs, other(torch.from_numpy(waves).double()), strict=True)
        }

    with torch.inference_mode():
        found = check(recognizer, answering(lambda other: None), graph=graph, sounds=sounds)
        assert found.difference > MOST and found.windows == found.close == found.tops
        for part in ("frontend.window", "model.blocks.0.mlp.fc1.weight", "model.head.1.bias"):
            with pytest.raises(ExportRefused, match="or rounding"):
                wrong = answering(lambda other, part=part: other.state_dict()[part].mul_(1.01))
                check(recognizer, wrong, graph=graph, sounds=sounds)


def compared(ours: list[float], theirs: list[float], *, task: str = "multi-label") -> Agreement:
    """What is found of one window, from the logits of the recognizer and those of the file."""
    recognizer: Any = SimpleNamespace(
        scores=lambda windows: np.array([ours], dtype=np.float32),
        activate=lambda logits: probabilities(logits, task=task),  # type: ignore[arg-type]
    )
    logits = np.array([theirs], dtype=np.float32)
    scores = recognizer.activate(logits).astype(np.float32)
    return compare(recognizer, lambda waves: {"scores": scores, "logits": logits}, iter([np.zeros((1, 9), np.float32)]))


def test_scores_that_are_no_numbers_are_a_difference() -> None:
    assert compared([1.0, 2.0], [np.nan, np.nan]).difference == np.inf


@pytest.mark.parametrize(
    "ours, theirs, same",
    [
        ([20.0, 30.0, -3.0], [20.0, 30.0, -3.0], True),  # two scores of 1 in the file's float32, the first no better
        ([20.0, 30.0, -3.0], [30.0, 20.0, -3.0], False),  # and though scores differ by nothing, the best is another
        ([-20.0, -25.0], [-25.0, -20.0], False),  # as where no label is heard
        ([0.5, 0.5 + 1e-5], [0.5 + 1e-5, 0.5], True),
        ([300.0, 300.01], [300.01, 300.0], True),  # as near as float32 gets
    ],
)
def test_the_best_label_is_that_of_the_logits_and_equal_ones_may_change_places(
    ours: list[float], theirs: list[float], same: bool
) -> None:
    found = compared(ours, theirs)
    assert found.difference <= MOST and (found.tops == found.windows) is same


def test_windows_are_checked_from_the_shortest_to_the_longest(passt: Path) -> None:
    recognizer = load(passt, device="cpu")
    graph = make_graph(recognizer)
    sizes = shapes(recognizer, graph)
    lengths = sorted({length for length, _ in sizes})
    assert (lengths[0], lengths[-1]) == (graph.min_samples, graph.max_samples) and 32_000 in lengths
    assert {(length, clips) for length in lengths[:-1] for clips in (1, 3)} <= set(sizes)
    graph.max_samples = 60 * recognizer.rate  # as of a DATAR
    assert [size for size in shapes(recognizer, graph) if size[0] > 2 * 32_000] == [(60 * recognizer.rate, 1)]


@pytest.mark.parametrize("sounds, size", [([3, 7], (5, 1)), ([4], (9, 3)), ([2, 2, 2], (2, 3))])
def test_a_batch_holds_the_sounds_cut_or_repeated(sounds: list[int], size: tuple[int, int]) -> None:
    made = [number + np.arange(length, dtype=np.float32) for number, length in enumerate(sounds)]
    (batch,) = batches(made, [size])
    assert batch.shape == size[::-1]
    for number, row in enumerate(batch):
        sound = made[number % len(made)]
        assert (row == sound[np.arange(size[0]) % len(sound)]).all()


def test_by_default_the_sounds_are_the_built_in_recordings(passt: Path) -> None:
    recognizer = load(passt, device="cpu")
    first = read_clip(drums_folder() / "bell" / "circAfrique-Dununba1-Bell.flac", recognizer.rate).samples[:32_000]
    sounds = real_sounds(recognizer)
    assert len(sounds) == 12 and (sounds[0] == first).all()
    assert len({sound.tobytes() for sound in sounds}) == 12


def test_a_stranger_is_not_overwritten(passt: Path, tmp_path: Path) -> None:
    for name, to in (("notes.onnx", "onnx"), ("notes.pt2", "pt2")):
        (tmp_path / name).write_text("not an export")
        with pytest.raises(ExportRefused, match="not an ossicle export"):
            export_model(passt, to=to, output=tmp_path / name)  # type: ignore[arg-type]
        assert (tmp_path / name).read_text() == "not an export"


def test_a_name_that_does_not_fit_the_format_is_refused(passt: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match=r"must end in \.onnx"):
        export_model(passt, output=tmp_path / "model.bin")


def test_a_window_that_one_pass_does_not_take_is_refused(make_network: Make, tmp_path: Path) -> None:
    model = make_network("passt_tiny_s16", options=TINY, window_seconds=5.0)
    with pytest.raises(ExportRefused, match=r"window of 5 s exceeds the 1\.\d+ s"):
        export_model(model, output=tmp_path / "it.onnx")


def test_without_the_extra_it_says_what_to_install(
    passt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'ossicle\[export\]'"):
        export_model(passt, output=tmp_path / "it.onnx")


def test_data_without_sound_is_refused_and_nothing_is_kept(passt: Path, tmp_path: Path) -> None:
    for label in ("bell", "drum"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for name in ("a.wav", "b.wav"):
            (tmp_path / "data" / label / name).write_bytes(b"RIFF")
    with pytest.raises(DataRefused, match="0 of 4 recordings"):
        export_model(passt, output=tmp_path / "it.onnx", data=tmp_path / "data")
    assert not list(tmp_path.glob("*.onnx"))
