"""Other people's checkpoints: every wrapping they come in, and none that runs code."""

import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ossicle.errors import WeightsRefused
from ossicle.models.images import mono_kernel
from ossicle.models.passt import Passt, PasstConfig, infer_config, positions_from_image
from ossicle.weights.foreign import load_checkpoint, read_checkpoint
from ossicle.weights.tensors import load_weights, save_weights

GOLDEN = Path(__file__).parent.parent / "golden"


def network(seed: int = 0, **changes: Any) -> Passt:
    torch.manual_seed(seed)
    fields: dict[str, Any] = {"num_classes": 4, "dim": 8, "num_heads": 1, "depth": 2, "stride": 16}
    return Passt(PasstConfig(**(fields | changes)))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


WRAPPINGS = {
    "flat": lambda t: t,
    "in model": lambda t: {"model": t, "epoch": 3},
    "in state_dict": lambda t: {"state_dict": t},
    "net.": lambda t: {"state_dict": prefixed(t, "net.") | {"mel.window": torch.ones(3)}},
    "wrapper": lambda t: prefixed(t, "net.") | {"device_proxy": torch.ones(1)},
    "module.": lambda t: prefixed(t, "module."),
    "compiled": lambda t: {"state_dict": prefixed(t, "net._orig_mod.")},
    "compiled, parallel": lambda t: {"state_dict": prefixed(t, "module.net._orig_mod.")},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_wrapping_comes_off(tmp_path: Path, wrapping: str) -> None:
    tensors = network().state_dict()
    torch.save(WRAPPINGS[wrapping](tensors), tmp_path / "w.pt")
    assert same(read_checkpoint(tmp_path / "w.pt"), tensors)


PAIRS = {
    "net. and net_swa.": lambda t, a: {"state_dict": prefixed(t, "net.") | prefixed(a, "net_swa.")},
    "of torch": lambda t, a: {
        "state_dict": prefixed(t, "net.") | prefixed(a, "net_swa.module.") | {"net_swa.n_averaged": torch.ones(())}
    },
    "model. and model_ema.": lambda t, a: {"state_dict": prefixed(t, "model.") | prefixed(a, "model_ema.module.")},
    "model and model_ema": lambda t, a: {"model": t, "model_ema": a, "epoch": 3},
    "state_dict and state_dict_ema": lambda t, a: {"state_dict": prefixed(t, "module."), "state_dict_ema": a},
}


@pytest.mark.parametrize("pair", PAIRS)
def test_of_a_network_and_its_average_the_average_is_taken_and_told(tmp_path: Path, pair: str) -> None:
    trained, average = network(0).state_dict(), network(1).state_dict()
    torch.save(PAIRS[pair](trained, average), tmp_path / "w.ckpt")
    said: list[str] = []
    assert same(read_checkpoint(tmp_path / "w.ckpt", report=said.append), average)
    assert same(read_checkpoint(tmp_path / "w.ckpt", average=True), average)
    assert same(read_checkpoint(tmp_path / "w.ckpt", average=False, report=said.append), trained)
    first, second = (sentence.partition(" average ")[2] for sentence in said)
    name, other = ("net_swa", "net") if "net" in pair or "torch" in pair else ("model_ema", "model")
    assert first == f"{name}; using {name}, not {other}." and second == f"{name}; using {other}, not {name}."


def test_an_average_of_another_network_is_not_taken_unasked(tmp_path: Path) -> None:
    trained, average = network(0).state_dict(), network(1, num_classes=7).state_dict()
    torch.save(prefixed(trained, "net.") | prefixed(average, "net_swa."), tmp_path / "w.ckpt")
    with pytest.raises(
        WeightsRefused,
        match=r"differ in their shapes; select net_swa with weights_average=true \(--average\), or net with",
    ):
        read_checkpoint(tmp_path / "w.ckpt")
    assert same(read_checkpoint(tmp_path / "w.ckpt", average=True), average)
    assert same(read_checkpoint(tmp_path / "w.ckpt", average=False), trained)


def test_an_average_that_is_not_there_is_refused(tmp_path: Path) -> None:
    tensors, said = network().state_dict(), list[str]()
    for content in (prefixed(tensors, "net."), tensors):
        torch.save(content, tmp_path / "w.ckpt")
        assert same(read_checkpoint(tmp_path / "w.ckpt", report=said.append), tensors)
        with pytest.raises(WeightsRefused, match="has no averaged weights; leave out weights_average=true"):
            read_checkpoint(tmp_path / "w.ckpt", average=True)
    torch.save(prefixed(tensors, "net_swa."), tmp_path / "w.ckpt")
    assert same(read_checkpoint(tmp_path / "w.ckpt", report=said.append), tensors)
    with pytest.raises(WeightsRefused, match="has only net_swa; leave out weights_average=false"):
        read_checkpoint(tmp_path / "w.ckpt", average=False)
    assert said == []


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("boom"),))


def test_a_file_that_runs_code_is_refused_unrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Bomb()}, "zip.pt")
    Path("bare.pt").write_bytes(pickle.dumps(Bomb()))
    for name in ("zip.pt", "bare.pt"):
        with pytest.raises(
            WeightsRefused, match=f"{name}: the checkpoint cannot be loaded: it needs .* to load, which could run code"
        ):
            read_checkpoint(name)
    assert not Path("boom").exists()


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(100)}, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "hello")
    rng = random.Random(0)
    noise = [rng.randbytes(rng.randrange(1, 60)) for _ in range(50)]
    contents = [b"", b"text", whole[: len(whole) // 2], whole[:-1], (tmp_path / "other.zip").read_bytes(), *noise]
    for content in contents:
        (tmp_path / "w.pt").write_bytes(content)
        with pytest.raises(WeightsRefused, match="w.pt"):
            read_checkpoint(tmp_path / "w.pt")
    with pytest.raises(WeightsRefused, match="no such file"):
        read_checkpoint(tmp_path / "none.pt")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(WeightsRefused, match="no named tensors found"):
        read_checkpoint(tmp_path / "list.pt")


@pytest.mark.parametrize("stride", [10, 12, 14, 16, 20])
@pytest.mark.parametrize("frames", [500, 998, 2000, 3200])
def test_shapes_tell_the_network(stride: int, frames: int) -> None:
    with torch.device("meta"):
        model = network(stride=stride, frames=frames, depth=7, num_classes=20)
    found = infer_config(model.state_dict(), num_heads=1)
    assert (found.depth, found.stride, found.num_classes, found.dim) == (7, stride, 20, 8)
    assert (found.rows, found.columns) == (model.config.rows, model.config.columns)


def test_shapes_of_no_passt_are_refused() -> None:
    with pytest.raises(WeightsRefused, match="freq_new_pos_embed"):
        infer_config({"conv.weight": torch.ones(1)})
    state = network().state_dict() | {"freq_new_pos_embed": torch.zeros(1, 8, 40, 1)}
    with pytest.raises(WeightsRefused, match="no stride"):
        infer_config(state)


def test_image_weights_are_adapted_as_the_reference_does() -> None:
    golden = load_weights(GOLDEN / "passt_from_deit.safetensors")
    made = positions_from_image(golden["pos_embed"], grid=(12, 99))
    for name in ("new_pos_embed", "freq_new_pos_embed", "time_new_pos_embed"):
        torch.testing.assert_close(made[name], golden[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mono_kernel(golden["conv_rgb"]), golden["conv_mono"], rtol=1e-4, atol=1e-5)


def test_a_distilled_image_transformer_starts_a_network(tmp_path: Path) -> None:
    model = network()
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    deit = network(1).state_dict()
    for name in [*deit]:
        if "new_pos" in name or name.startswith("head"):
            del deit[name]
    deit |= {"pos_embed": torch.randn(1, 2 + 9, 8), "patch_embed.proj.weight": torch.randn(8, 3, 16, 16)}
    deit |= {
        f"{head}.{part}": torch.randn(1000, 8)[:, : 8 if part == "weight" else 1].squeeze()
        for head in ("head", "head_dist")
        for part in ("weight", "bias")
    }
    torch.save({"model": deit}, tmp_path / "deit.pth")
    load_checkpoint(model, tmp_path / "deit.pth")
    after = model.state_dict()
    assert torch.equal(after["blocks.1.mlp.fc1.weight"], deit["blocks.1.mlp.fc1.weight"])
    assert torch.equal(after["new_pos_embed"], deit["pos_embed"][:, :2])
    assert torch.equal(after["head.1.weight"], own["head.1.weight"])


def test_positions_that_are_no_square_are_refused() -> None:
    with pytest.raises(WeightsRefused, match="12 positions"):
        positions_from_image(torch.zeros(1, 12, 8), grid=(8, 62), source="w.pth")


def test_other_labels_get_a_new_last_layer_and_keep_the_norm(tmp_path: Path) -> None:
    published, model = network(0, num_classes=527).state_dict(), network(1, num_classes=4)
    published["head.0.weight"] = torch.rand(8)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_weights(tmp_path / "w.safetensors", published)
    load_checkpoint(model, tmp_path / "w.safetensors")
    after = model.state_dict()
    assert torch.equal(after["head.0.weight"], published["head.0.weight"])
    assert torch.equal(after["head.1.weight"], own["head.1.weight"])
    assert torch.equal(after["head_dist.bias"], own["head_dist.bias"])
    assert torch.equal(after["blocks.0.attn.qkv.weight"], published["blocks.0.attn.qkv.weight"])


def test_the_same_labels_keep_the_whole_head() -> None:
    published, model = network(0).state_dict(), network(1)
    assert same(model.adapted(published, source="w"), dict(published))
