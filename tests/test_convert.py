"""A published checkpoint becomes a bundle: the same logits, its labels, its front end, and what was chosen is said."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import ossicle
from ossicle.bundle import Converted, convert_checkpoint, load_bundle, read_labels
from ossicle.errors import ModelUnknown, RunRefused, WeightsRefused
from ossicle.frontend import frontend_config
from ossicle.models import Preset, create_model, register_network, registry
from ossicle.models.passt import Passt, PasstConfig
from ossicle.weights.tensors import load_weights, save_weights

GOLDEN = Path(__file__).parent / "golden"
LABELS = ["bell", "drum", "voice", "wind"]


def network(seed: int = 0, **changes: Any) -> Passt:
    torch.manual_seed(seed)
    fields: dict[str, Any] = {"num_classes": 4, "dim": 16, "num_heads": 1, "depth": 3, "stride": 16}
    return Passt(PasstConfig(**(fields | changes))).eval()


def prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def spec(frames: int = 1000) -> Tensor:
    return torch.randn(2, 128, frames, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def known() -> Iterator[Callable[..., None]]:
    """Registers architectures for a test."""
    before = dict(registry._registered)

    def register(name: str, *, frontend: str = "passt", **options: Any) -> None:
        preset = Preset(name=name, options=options, frontend=frontend)
        register_network("ossicle.models.passt:Passt", presets=[preset])

    yield register
    registry._registered.clear()
    registry._registered.update(before)


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Converted]:
    """Saves what it is given as a checkpoint and converts it to the bundle `out`."""

    def write(content: Any, **options: Any) -> Converted:
        torch.save(content, tmp_path / "w.pt")
        return convert_checkpoint(tmp_path / "w.pt", output=tmp_path / "out", **options)

    return write


# --- the same network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["s10", "s14", "s16", "s10_short"])
def test_the_logits_are_those_of_the_published_network(
    case: str, convert: Callable[..., Converted], known: Callable[..., None]
) -> None:
    path = GOLDEN / f"passt_net_{case}.safetensors"
    with safe_open(path, "pt") as file:
        made = json.loads(file.metadata()["config"])
    known("golden", dim=made["embed_dim"], num_heads=made["num_heads"])  # heads are not in the shapes
    tensors = load_weights(path)
    state = {name.removeprefix("state."): t for name, t in tensors.items() if name.startswith("state.")}
    done = convert({"state_dict": prefixed(state, "net.")}, model="golden")
    model = load_bundle(done.folder).model
    assert (model.config.stride, model.config.depth) == (made["stride"], made["depth"])
    with torch.inference_mode():
        out = model.forward_features(tensors["spec"])
    torch.testing.assert_close(out.logits, tensors["logits"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.features, tensors["features"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(half: torch.dtype, convert: Callable[..., Converted]) -> None:
    state = {name: tensor.to(half) for name, tensor in network().state_dict().items()}
    done = convert(state)
    kept = load_weights(done.folder / "model.safetensors")
    assert all(torch.equal(kept[name], tensor.float()) for name, tensor in state.items())


def test_a_color_kernel_is_summed(convert: Callable[..., Converted]) -> None:
    state = dict(network().state_dict())
    kernel = state["patch_embed.proj.weight"]
    state["patch_embed.proj.weight"] = torch.cat([kernel / 2, kernel / 4, kernel / 4], 1)
    kept = load_weights(convert(state).folder / "model.safetensors")
    torch.testing.assert_close(kept["patch_embed.proj.weight"], kernel)


@pytest.mark.parametrize(
    ("average", "said", "seed"),
    [(None, "using net_swa, not net", 1), (True, "using net_swa, not net", 1), (False, "using net, not net_swa", 0)],
)
def test_of_weights_and_their_average_one_is_chosen_and_told(
    average: bool | None, said: str, seed: int, convert: Callable[..., Converted]
) -> None:
    states = [dict(network(number).state_dict()) for number in (0, 1)]
    content = {"state_dict": prefixed(states[0], "net.") | prefixed(states[1], "net_swa."), "epoch": 3}
    done = convert(content, average=average)
    assert any(said in sentence for sentence in done.notes)
    kept = load_weights(done.folder / "model.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in states[seed].items())


def test_cut_to_seven_blocks_it_is_the_network_with_seven_blocks(convert: Callable[..., Converted]) -> None:
    model = network(depth=12)
    done = convert(model.state_dict(), depth=7)
    assert len(done.unused) == 5 * 12 and done.unused[0].startswith("blocks.2.")
    assert any("Kept blocks 0, 1, 3, 5, 7, 9, 11; fine-tune" in sentence for sentence in done.notes)
    model.cut_depth(-2)
    with torch.inference_mode():
        torch.testing.assert_close(load_bundle(done.folder).model(spec()), model(spec()))


@pytest.mark.parametrize(
    ("depth", "kept"), [(12, [*range(12)]), (6, [0, 1, 4, 7, 10, 11]), (8, [0, *range(5, 12)]), (1, [0])]
)
def test_every_depth_can_be_had(depth: int, kept: list[int], convert: Callable[..., Converted]) -> None:
    model = network(depth=12)
    tensors = load_weights(convert(model.state_dict(), depth=depth).folder / "model.safetensors")
    for place, block in enumerate(kept):
        assert torch.equal(
            tensors[f"blocks.{place}.mlp.fc1.weight"], model.state_dict()[f"blocks.{block}.mlp.fc1.weight"]
        )
    assert f"blocks.{depth}.norm1.weight" not in tensors


def test_more_blocks_than_there_are_cannot_be_kept(convert: Callable[..., Converted]) -> None:
    with pytest.raises(WeightsRefused, match=r"w\.pt: a network of 3 blocks cannot be cut to 7"):
        convert(network().state_dict(), depth=7)


# --- its architecture -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [10, 12, 14, 16])
def test_the_architecture_follows_from_the_shapes(stride: int, convert: Callable[..., Converted]) -> None:
    with torch.device("meta"):
        shapes = create_model(f"passt_tiny_s{stride}").state_dict()
    done = convert({name: torch.zeros(tensor.shape) for name, tensor in shapes.items()})
    bundle = load_bundle(done.folder)
    assert done.model == f"passt_tiny_s{stride}" and len(done.notes) == 1
    assert (bundle.model.config.stride, bundle.model.config.frames) == (stride, 998)
    assert bundle.window_seconds == 10 and bundle.task == "multi-label" and len(done.labels) == 527
    assert bundle.frontend.config == frontend_config("passt")


def test_other_sizes_are_taken_as_the_nearest_and_told(convert: Callable[..., Converted]) -> None:
    done = convert(network(dim=192, num_heads=3).state_dict())
    assert done.model == "passt_tiny_s16" and "No architecture has exactly these shapes; taken as" in done.notes[0]
    assert load_bundle(done.folder).model.config.depth == 3


def test_shapes_of_two_front_ends_want_a_choice(convert: Callable[..., Converted], known: Callable[..., None]) -> None:
    options = {"dim": 16, "num_heads": 1, "depth": 3, "stride": 16, "frames": 2000}
    known("seconds_20", **options)
    known("hop_160", frontend="passt_hop160", **options)
    state = network(frames=2000).state_dict()
    said = r"those of hop_160 \(front end passt_hop160\) and seconds_20 \(front end passt\); choose with --model"
    with pytest.raises(WeightsRefused, match=said):
        convert(state)
    for options, name, seconds in (
        ({"model": "seconds_20"}, "seconds_20", 20),
        ({"frontend": "passt_hop160"}, "hop_160", 10),
    ):
        done = convert(state, **options)
        assert done.model == name and load_bundle(done.folder).window_seconds == seconds


def test_an_architecture_of_another_family_is_refused(convert: Callable[..., Converted]) -> None:
    with pytest.raises(WeightsRefused, match=r"w\.pt: these are the weights of a Passt, not of datar_tiny\."):
        convert(network().state_dict(), model="datar_tiny")
    with pytest.raises(ModelUnknown, match="passt_tiny"):
        convert(network().state_dict(), model="passt_tyny_s16")
    with pytest.raises(WeightsRefused, match="takes 128 mel bins; the front end has 64"):
        convert(network().state_dict(), frontend=frontend_config("passt", mels=64))


def test_a_datar_wants_its_name(convert: Callable[..., Converted]) -> None:
    model = create_model("datar_nano", num_classes=4)
    with pytest.raises(WeightsRefused, match=r"w\.pt: the weights of a Datar, .* name its model"):
        convert(model.state_dict())
    made = load_bundle(convert(model.state_dict(), model="datar_nano", labels=LABELS).folder).model
    assert all(torch.equal(made.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_another_stride_than_the_named_one_follows_the_shapes(convert: Callable[..., Converted]) -> None:
    done = convert(network().state_dict(), model="passt_tiny_s10")
    assert done.model == "passt_tiny_s10" and load_bundle(done.folder).model.config.stride == 16


def test_weights_of_images_start_a_training_and_make_no_bundle(convert: Callable[..., Converted]) -> None:
    with torch.device("meta"):
        shapes = create_model("passt_small_s16").state_dict()
    state = {name: torch.zeros(tensor.shape) for name, tensor in shapes.items() if "pos_embed" not in name}
    state = {name: tensor for name, tensor in state.items() if not name.startswith("head")}
    state |= {"pos_embed": torch.zeros(1, 2 + 24 * 24, 384), "patch_embed.proj.weight": torch.zeros(384, 3, 16, 16)}
    said = "weights of DeiT, a network of images, have no labels .*: ossicle train DATA --model passt_small_s10 --init"
    with pytest.raises(WeightsRefused, match=said):
        convert({"model": state})


# --- labels and the rest of the bundle --------------------------------------------------------------------------------


def test_the_bundle_predicts_with_its_labels(convert: Callable[..., Converted]) -> None:
    done = convert(network().state_dict(), labels=LABELS, task="single-label", weights_license="Apache-2.0")
    assert done.labels == tuple(LABELS) and done.tensors == len(network().state_dict()) and done.unused == ()
    recognizer = ossicle.load(done.folder, device="cpu")
    wave = np.random.default_rng(0).normal(size=64_000).astype(np.float32)
    prediction = recognizer.predict((wave, 32_000))
    assert prediction.top[0] in LABELS and float(prediction.scores.sum()) == pytest.approx(1.0)
    assert recognizer.bundle.weights_license == "Apache-2.0"
    assert "Converted from w.pt" in (done.folder / "README.md").read_text()


def test_without_labels_they_are_numbered_and_told(convert: Callable[..., Converted]) -> None:
    done = convert(network().state_dict())
    assert done.labels == ("class_0", "class_1", "class_2", "class_3")
    assert any("class_0 to class_3; name them with --labels" in sentence for sentence in done.notes)
    assert any("taken as multi-label, which --task changes" in sentence for sentence in done.notes)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (LABELS[:3], "the network has 4 outputs; got 3 labels"),
        ([*LABELS, "e"], "the network has 4 outputs; got 5 labels"),
        (["a", "b", "a", "c"], "the label 'a' is empty or occurs twice"),
        (["a", "b", "", "c"], "the label '' is empty or occurs twice"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: list[str], said: str, convert: Callable[..., Converted]) -> None:
    with pytest.raises(WeightsRefused, match=said):
        convert(network().state_dict(), labels=labels)


def test_labels_are_read_from_lines_and_from_audiosets_table(tmp_path: Path) -> None:
    lines, table = tmp_path / "labels.txt", tmp_path / "class_labels_indices.csv"
    lines.write_bytes("\ufeffbell\r\nvoice, low\n\nwind \n".encode())
    assert read_labels(lines) == ["bell", "voice, low", "wind"]
    table.write_text('index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n')
    assert read_labels(table) == ["Speech", "Male speech, man speaking"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"index,mid,display_name\n0,/m/1,a\n2,/m/2,b\n", r"line 3 has the index 2; expected 1"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (None, "there is no such file; expected one label a line"),
    ],
)
def test_a_table_of_labels_with_a_hole_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "labels").write_bytes(content)
    with pytest.raises(WeightsRefused, match=said):
        read_labels(tmp_path / "labels")


def test_the_labels_of_audioset_fit_and_differ() -> None:
    path = Path(__file__).resolve().parents[2] / "shared" / "labels" / "audioset_class_labels_indices_527.csv"
    if not path.exists():
        pytest.skip("needs ../shared/labels, which lie beside the checkout")
    assert len(set(read_labels(path))) == 527


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path, convert: Callable[..., Converted]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("all of it")
    with pytest.raises(RunRefused, match="files that are not part of a bundle"):
        convert(network().state_dict())
    assert (tmp_path / "out" / "thesis.txt").read_text() == "all of it"


def test_a_bundle_is_not_converted_again(tmp_path: Path, convert: Callable[..., Converted]) -> None:
    done = convert(network().state_dict())
    for file in (done.folder, done.folder / "model.safetensors"):
        with pytest.raises(WeightsRefused, match="this is a bundle already; use it as it is"):
            convert_checkpoint(file, output=tmp_path / "again")


def test_a_conversion_twice_gives_the_same_bytes(tmp_path: Path, convert: Callable[..., Converted]) -> None:
    first = {path.name: path.read_bytes() for path in convert(network().state_dict()).folder.iterdir()}
    second = {path.name: path.read_bytes() for path in convert(network().state_dict()).folder.iterdir()}
    assert first == second


def test_a_safetensors_file_converts_and_stays_as_it_is(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", network().state_dict())
    before = (tmp_path / "w.safetensors").read_bytes()
    convert_checkpoint(tmp_path / "w.safetensors", output=tmp_path / "out")
    assert (tmp_path / "w.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "w.safetensors"]
