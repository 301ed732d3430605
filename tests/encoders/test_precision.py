"""Encoders in half precision: half of the memory, nearly the same features, and heads that know which they were."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import ossicle
from ossicle.data import Item
from ossicle.encoders import Encoder, load_encoder
from ossicle.encoders.cache import open_features
from ossicle.errors import SettingRefused
from ossicle.training import TuneConfig, tune
from ossicle.tuning.tuners import create_tuner

Inputs = Callable[[Encoder], list[Any]]
LABELS = ("music", "weather")
NEWS = [("music", "a man plays the drum"), ("weather", "rain falls on an old tin roof")] * 12


def nbytes(encoder: Encoder) -> int:
    return sum(p.nbytes for p in encoder.network.parameters())


def test_every_family_is_loaded_in_half_of_the_memory_with_nearly_the_same_features(
    every: str, saved: Callable[[str], Path], inputs: Inputs
) -> None:
    name, crop = every.removesuffix(" cropped"), every.endswith("cropped")
    whole, half = (load_encoder(saved(name), crop=crop, precision=one) for one in ("float32", "bfloat16"))
    assert {p.dtype for p in half.network.parameters()} == {torch.bfloat16} and half.precision == "bfloat16"
    assert 2 * nbytes(half) == nbytes(whole)
    assert half.fingerprint != whole.fingerprint and "precision" not in whole.settings
    batch = half.prepare(inputs(half))
    with torch.inference_mode():
        means = [encoder.encode(batch).mean() for encoder in (whole, half)]
    assert means[1].dtype == torch.float32
    assert float((means[1] - means[0]).abs().max()) < 0.05 * float(means[0].abs().max())
    assert not torch.equal(*means)


def test_float16_is_available_and_other_precisions_are_refused(saved: Callable[[str], Path], untyped: Any) -> None:
    assert {p.dtype for p in load_encoder(saved("llama"), precision="float16").network.parameters()} == {torch.float16}
    refusal = "Precision 'int8' is not available. Available: float32, bfloat16, float16"
    with untyped(), pytest.raises(SettingRefused, match=refusal):
        load_encoder(saved("llama"), precision="int8")  # type: ignore[arg-type]


def test_no_tensor_of_a_network_in_half_precision_is_ever_in_float32(
    saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in bfloat16 that is read in bfloat16: 13 billion parameters have no room for more."""
    folder = saved("llama")
    widest = 0
    empty = torch.nn.Linear.__init__

    def watched(self: torch.nn.Linear, *args: Any, **options: Any) -> None:
        nonlocal widest
        empty(self, *args, **options)
        if self.weight.device.type != "meta":
            widest = max(widest, self.weight.element_size())

    monkeypatch.setattr(torch.nn.Linear, "__init__", watched)
    load_encoder(folder, precision="bfloat16")
    assert widest <= 2


@pytest.mark.parametrize("name", ["lora", "ia3", "vera", "density"])
def test_a_tuner_in_half_precision_trains_in_float32(name: str, saved: Callable[[str], Path], inputs: Inputs) -> None:
    if name != "density":
        pytest.importorskip("peft", reason="peft is not installed: pip install 'ossicle[peft]'")
    encoder = load_encoder(saved("llama"), precision="bfloat16")
    tuner = create_tuner(name, encoder)
    assert {p.dtype for p in tuner.parameters()} == {torch.float32}
    optimizer = torch.optim.SGD(tuner.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        encoder.encode(encoder.prepare(inputs(encoder))).mean().square().sum().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tuner.parameters())
    tuner.remove()
    assert {p.dtype for p in encoder.network.parameters()} == {torch.bfloat16}


def test_a_head_finds_its_encoder_in_the_precision_that_it_was_tuned_on(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = [f"{text} {number},{label}" for number, (label, text) in enumerate(NEWS)]
    (tmp_path / "news.csv").write_text("\n".join(["text,label", *rows]))
    config = TuneConfig(
        head="mha_bn", options={"num_heads": 2, "hidden": 4}, encoder_precision="bfloat16", epochs=2, device="cpu"
    )
    result = tune(str(saved("llama")), tmp_path / "news.csv", config, output=tmp_path / "run", cache=tmp_path / "cache")
    recognizer: Any = ossicle.load(result.folder)
    assert recognizer.encoder.precision == "bfloat16"
    evaluation = ossicle.evaluate(result.folder, tmp_path / "news.csv")
    assert evaluation.scores == pytest.approx(result.evaluation.scores, abs=1e-3)


def test_features_are_kept_in_float32_and_apart_from_those_of_another_precision(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    items = [
        Item(file=tmp_path / "t.csv", labels=(label,), text=text, row=row) for row, (label, text) in enumerate(NEWS[:4])
    ]
    stores = []
    for precision in ("float32", "bfloat16"):
        encoder = load_encoder(saved("llama"), precision=precision)  # type: ignore[arg-type]
        stores.append(open_features(encoder, items, pool="mean", folder=tmp_path / "cache"))
    assert not set(stores[0].shards) & set(stores[1].shards)
    with safe_open(stores[1].shards[0], framework="pt") as shard:
        assert shard.get_tensor("features").dtype == torch.float32
