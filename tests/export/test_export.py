"""A file gives the numbers of the model that it was made from, or there is no file."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import ossicle
from ossicle.encoders import load_encoder
from ossicle.errors import DataRefused, ExportRefused, ExtraMissing
from ossicle.export import export_model
from ossicle.export.check import MOST
from ossicle.export.formats import Answer, open_onnx, open_pt2
from ossicle.export.graph import make_graph
from ossicle.loading import load
from ossicle.recognizer import Recognizer
from ossicle.tuning.tuned import TunedHead, TunedRecognizer, save_tuned

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'ossicle[export]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'ossicle[export]'")

Make = Callable[..., Path]
TINY: dict[str, Any] = {"depth": 2, "frames": 100}


@pytest.fixture(scope="module", autouse=True)
def graphs(untyped: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    with untyped():
        yield


def about(path: Path) -> dict[str, Any]:
    """The metadata of an ONNX file."""
    (entry,) = [entry for entry in onnx.load(str(path)).metadata_props if entry.key == "ossicle"]
    return json.loads(entry.value)


def assert_same(recognizer: Recognizer, answer: Answer, lengths: list[int]) -> None:
    """Every output at every length, for one clip and for three."""
    rng = np.random.default_rng(0)
    for length in lengths:
        for clips in (1, 3):
            waves = rng.normal(scale=0.1, size=(clips, length)).astype(np.float32)
            got = answer(waves)
            logits, features = recognizer.scores(waves), recognizer.features(waves)
            np.testing.assert_allclose(got["logits"], logits, rtol=1e-3, atol=5e-4)
            np.testing.assert_allclose(got["features"], features, rtol=1e-3, atol=5e-4)
            np.testing.assert_allclose(got["scores"], recognizer.activate(logits), rtol=0, atol=MOST)
            if recognizer.hop_feature_seconds is not None:
                hops = recognizer.hop_scores(waves)
                np.testing.assert_allclose(got["hop_logits"], hops, rtol=1e-3, atol=5e-4)


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
                "deform": (False, True, True, True),
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
    export_model(passt, to="pt2", output=done.path)  # what it wrote it may replace


@pytest.fixture(scope="module")
def tuned(make_network: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A density head on a PaSST of three blocks, with silence after short clips."""
    bundle = make_network("passt_tiny_s16", options={"depth": 3, "frames": 100}, pad=True)
    encoder = load_encoder(bundle)
    torch.manual_seed(0)
    head = TunedHead(
        "density", layers=(1, 2, 3), dim=encoder.dim, pool="statistics", num_classes=3, options={"hidden": 4}
    )
    folder = tmp_path_factory.mktemp("tuned") / "head"
    answers: dict[str, Any] = {"task": "single-label", "labels": ("a", "b", "c"), "window_seconds": 0.5, "pad": False}
    save_tuned(folder, encoder=encoder, model=head, **answers)
    return folder


def test_a_head_on_a_network_of_ours_gives_the_same_numbers(tuned: Path, tmp_path: Path) -> None:
    path = export_model(tuned, output=tmp_path / "head.onnx").path
    values, recognizer = about(path), load(tuned, device="cpu")
    assert values["model"]["name"].startswith("density on") and values["frontend"]["rate"] == values["rate"]
    assert_same(recognizer, open_onnx(path), [values["min_samples"], 9_000, 16_000, values["max_samples"]])


def test_a_head_on_another_encoder_is_refused(tuned: Path) -> None:
    recognizer = load(tuned, device="cpu")
    assert isinstance(recognizer, TunedRecognizer)
    recognizer.encoder = SimpleNamespace(name="whisper-tiny")  # type: ignore[assignment]
    with pytest.raises(ExportRefused, match="whisper-tiny is not one of ours; heads on PaSST and DATAR"):
        make_graph(recognizer)


# --- what travels beside the graph -----------------------------------------------------------------------------------


def test_the_file_says_all_that_the_bundle_says(passt: Path, exported: Path) -> None:
    values, bundle = about(exported), load(passt, device="cpu").bundle
    assert values["schema_version"] == 1 and values["library_version"] == ossicle.__version__
    assert values["model"] == {"name": "passt_tiny_s16", "version": bundle.version}
    assert values["labels"] == list(bundle.labels) and values["task"] == bundle.task
    assert values["thresholds"] is None and values["temperature"] == 1.5
    assert values["window"] == {"seconds": 1.0, "hop_seconds": 1.0, "pad": False}
    assert values["rate"] == 32_000 and values["hop_feature_seconds"] is None
    assert values["frontend"]["kind"] == "passt" and values["weights_licence"] is None
    assert list(exported.parent.iterdir()) == [exported]  # no weights beside it


def test_the_axes_have_names(exported: Path) -> None:
    graph = onnx.load(str(exported)).graph
    assert [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim] == ["clip", "time"]
    assert [output.name for output in graph.output] == ["scores", "logits", "features"]


# --- eight bits ------------------------------------------------------------------------------------------------------


def test_eight_bits_are_smaller_and_nearly_the_same(passt: Path, tmp_path: Path) -> None:
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
    passt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ossicle.export.frontend.PREEMPHASIS", 0.5)
    with pytest.raises(ExportRefused, match=r"scores by up to [0-9.e+-]+, where 0.0001 is allowed"):
        export_model(passt, output=tmp_path / "tiny.onnx")
    assert not list(tmp_path.iterdir())


def test_scores_that_are_no_numbers_are_a_difference(passt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ossicle.export.check import compare

    recognizer = load(passt, device="cpu")
    windows = np.zeros((1, 32_000), dtype=np.float32)
    found = compare(recognizer, lambda waves: {"scores": np.full((1, 3), np.nan)}, iter([windows]))
    assert found.difference == np.inf


def test_a_stranger_is_not_overwritten(passt: Path, tmp_path: Path) -> None:
    for name, to in (("notes.onnx", "onnx"), ("notes.pt2", "pt2")):
        (tmp_path / name).write_text("not an export")
        with pytest.raises(ExportRefused, match="no export of ossicle"):
            export_model(passt, to=to, output=tmp_path / name)  # type: ignore[arg-type]
        assert (tmp_path / name).read_text() == "not an export"


def test_a_name_that_does_not_fit_the_format_is_refused(passt: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match=r"must end in \.onnx"):
        export_model(passt, output=tmp_path / "model.bin")


def test_a_window_that_one_pass_does_not_take_is_refused(make_network: Make, tmp_path: Path) -> None:
    model = make_network("passt_tiny_s16", options=TINY, window_seconds=5.0)
    with pytest.raises(ExportRefused, match=r"window of 5 s is longer than the 1\.\d+ s"):
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
