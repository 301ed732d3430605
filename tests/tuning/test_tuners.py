"""Tuners: that they start as nothing, that all of them trains and nothing else, that they are kept and taken out."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ossicle.encoders import Encoder, load_encoder
from ossicle.encoders.hidden import fingerprint
from ossicle.errors import ExtraMissing, RunRefused, SettingRefused, WeightsRefused
from ossicle.models.density import DensityGate
from ossicle.tuning.guard import PASSES, GradientGuard
from ossicle.tuning.tuners import TUNERS, Gate, Tuner, blocks_that_run, create_tuner
from ossicle.weights.tensors import load_weights, save_weights

pytest.importorskip("peft", reason="peft is not installed: pip install 'ossicle[peft]'")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

# The makers of tiny networks belong to the tests of encoders.
spec = importlib.util.spec_from_file_location("makers", Path(__file__).parents[1] / "encoders" / "conftest.py")
assert spec is not None and spec.loader is not None
makers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(makers)

FAMILIES = [name for name in makers.EVERY if not name.endswith(" stable")]

Load = Callable[[str], Encoder]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Loads a new encoder of that name."""
    folders: dict[str, Path] = {}

    def encoder(name: str) -> Encoder:
        network = name.removesuffix(" cropped")
        if network not in folders:
            makers.transformers.utils.logging.disable_progress_bar()
            folder = tmp_path_factory.mktemp("encoders") / network.replace(" ", "_")
            save = makers.save_ours if network in makers.OURS else makers.save_network
            folders[network] = save(network, folder)
        return load_encoder(folders[network], crop=name.endswith(" cropped"))

    return encoder


def batch_of(encoder: Encoder) -> dict[str, Tensor]:
    """Two prepared inputs, of different lengths where the modality has any."""
    rng = np.random.default_rng(0)
    inputs: dict[str, list[Any]] = {
        "sound": [rng.normal(scale=0.1, size=round(s * (encoder.rate or 0))).astype(np.float32) for s in (0.4, 0.55)],
        "text": ["a man plays the drum", "two dogs bark at night and rain falls on an old tin roof"],
        "image": [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(2)],
    }
    return encoder.prepare(inputs[encoder.modality])


def tune(encoder: Encoder, tuner: Tuner, *, passes: int = 2, batch: dict[str, Tensor] | None = None) -> GradientGuard:
    """Trains the tuner, and a head of one number beside it, under the guard."""
    torch.manual_seed(0)
    head = torch.nn.Parameter(torch.ones(()))
    guard = GradientGuard([*encoder.named_parameters(), ("head", head)])
    optimizer = torch.optim.AdamW([*tuner.parameters(), head], lr=1e-2)
    batch = batch_of(encoder) if batch is None else batch
    encoder.train()
    for _ in range(passes):
        optimizer.zero_grad()
        (head * encoder.encode(batch).mean()).sin().sum().backward()
        guard.check()
        optimizer.step()
    guard.finish()
    encoder.eval()
    return guard


@torch.no_grad()
def features(encoder: Encoder) -> Tensor:
    return encoder.encode(batch_of(encoder)).features


# --- every tuner -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["lora", "ia3", "density"])
def test_in_every_family_a_tuner_starts_as_nothing_trains_whole_and_leaves_the_encoder_as_it_was(
    name: str, family: str, load: Load
) -> None:
    encoder = load(family)
    before = features(encoder)
    tuner = create_tuner(name, encoder)
    torch.testing.assert_close(features(encoder), before)
    guard = tune(encoder, tuner)
    assert not guard._silent and len(guard.trained) == 1 + len(list(tuner.parameters())) > 1
    assert not torch.allclose(features(encoder), before, rtol=0, atol=1e-4)
    tuner.remove()
    assert torch.equal(features(encoder), before)
    assert fingerprint(encoder.network, encoder.settings) == encoder.fingerprint  # names and every bit
    assert not encoder.adapted and not any(p.requires_grad for p in encoder.parameters())
    assert not encoder.train().network.training


@pytest.mark.parametrize("name", TUNERS)
@pytest.mark.parametrize("family", ["hubert", "bert", "passt", "datar"])
def test_a_tuner_is_saved_alone_and_gives_the_same_bits_again(
    name: str, family: str, load: Load, tmp_path: Path
) -> None:
    encoder = load(family)
    tuner = create_tuner(name, encoder)
    tune(encoder, tuner)
    state = tuner.state_dict()
    assert state.keys() == dict(tuner.named_parameters()).keys()
    assert not any(tensor.requires_grad for tensor in state.values())
    save_weights(tmp_path / "tuner.safetensors", state)
    tuned = features(encoder)
    other = load(family)
    again = create_tuner(name, other)
    assert not torch.equal(features(other), tuned)
    again.load_state_dict(load_weights(tmp_path / "tuner.safetensors"))
    assert torch.equal(features(other), tuned)
    assert not set(state) & set(load(family).network.state_dict())


def test_tensors_that_do_not_fit_are_named_and_change_nothing(load: Load) -> None:
    encoder = load("hubert")
    tuner = create_tuner("density", encoder)
    state = {name: tensor + 1 for name, tensor in tuner.state_dict().items()}
    first = next(name for name in state if name.endswith("strength"))
    for changed, said in (
        ({name: tensor for name, tensor in state.items() if name != first}, f"1 missing \\({first}\\)"),
        ({**state, "encoder.layer_norm.weight": torch.ones(32)}, r"1 unexpected \(encoder.layer_norm.weight\)"),
        ({**state, first: torch.ones(2)}, rf"1 misshapen \({first} \(2,\), wanted \(\)\)"),
    ):
        with pytest.raises(WeightsRefused, match=f"the weights do not fit density in .*: {said}$"):
            tuner.load_state_dict(changed)
    assert all(not p.any() for name, p in tuner.named_parameters() if name.endswith("strength"))


def test_random_weights_depend_on_the_seed_alone(load: Load) -> None:
    torch.manual_seed(1)
    drawn = torch.get_rng_state()
    states = []
    for seed in (0, 0, 1):
        tuner = create_tuner("lora", load("bert"), seed=seed)
        states.append(torch.cat([p.flatten() for p in tuner.parameters()]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize("name", TUNERS)
@pytest.mark.parametrize("family", ["wavlm", "datar"])
def test_only_the_blocks_that_run_are_adapted(name: str, family: str, load: Load) -> None:
    encoder = load(family)
    tuner = create_tuner(name, encoder, layers=2)
    last = list(blocks_that_run(encoder, 3))[-1]
    names = [key for key, _ in tuner.named_parameters()]
    assert not any(key.startswith(f"{last}.") or key.startswith("stages.3") for key in names)
    encoder.encode(batch_of(encoder), layers=2).mean().sum().backward()
    assert all(p.grad is not None for p in tuner.parameters())
    with pytest.raises(ValueError, match="layers is 4; expected 1 to 3"):
        create_tuner(name, load(family), layers=4)


def test_a_second_tuner_must_wait_for_the_first_to_leave(load: Load) -> None:
    encoder = load("hubert")
    tuner = create_tuner("density", encoder)
    with pytest.raises(ValueError, match="already has a tuner"):
        create_tuner("lora", encoder)
    tuner.remove()
    create_tuner("lora", encoder).remove()


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("adapter", {}, "Tuner 'adapter' is not available. Available: lora, ia3, vera, density"),
        ("lora", {"r": 4}, "the tuner lora has no option 'r'; it has targets, rank, alpha, dropout, dora"),
        ("density", {"num_heads": 4}, "the tuner density has no option 'num_heads'; it has none"),
        ("lora", {"rank": 0}, "the tuner lora cannot be built with these options"),
        ("lora", {"dropout": 1.5}, "the tuner lora cannot be built with these options"),
        (
            "lora",
            {"targets": ["q_proj", "w_proj"]},
            "no block has a linear layer 'w_proj'; available in .*: attention.",
        ),
        ("ia3", {"targets": []}, "targets are empty"),
        ("ia3", {"targets": "w_proj"}, "no block has a linear layer 'w_proj'"),
        ("ia3", {"targets": 5}, "targets=5 is no list of names"),
        ("lora", {"seed": 1}, "the tuner lora has no option 'seed'; it has targets, rank"),
        ("lora", {"layers": 1}, "the tuner lora has no option 'layers'; it has targets, rank"),
    ],
)
def test_what_a_tuner_does_not_have_is_refused_by_name_and_the_encoder_stays(
    name: str, options: dict[str, Any], said: str, load: Load
) -> None:
    encoder = load("hubert")
    with pytest.raises(SettingRefused, match=said):
        create_tuner(name, encoder, options=options)
    assert not encoder.adapted and fingerprint(encoder.network, encoder.settings) == encoder.fingerprint


@pytest.mark.parametrize(
    "name, options",
    [
        *[(name, {"targets": ["feed_forward.output_dense"]}) for name in ("lora", "ia3", "vera")],
        *[("lora", option) for option in ({"rank": 2}, {"alpha": 64.0}, {"dropout": 0.9}, {"dora": True})],
        *[("vera", option) for option in ({"rank": 2}, {"dropout": 0.9})],
    ],
)
def test_every_option_reaches_the_weights(name: str, options: dict[str, Any], load: Load) -> None:
    tuned = []
    for changed in ({}, options):
        encoder = load("hubert")
        tune(encoder, create_tuner(name, encoder, options=changed))
        tuned.append(features(encoder))
    assert not torch.allclose(tuned[0], tuned[1], rtol=0, atol=1e-6)


# --- which layers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, family, layers",
    [
        ("lora", "hubert", {"q_proj", "v_proj"}),
        ("ia3", "hubert", {"k_proj", "v_proj", "output_dense"}),
        ("lora", "wavlm", {"intermediate_dense", "output_dense"}),
        ("ia3", "wavlm", {"intermediate_dense", "output_dense"}),
        ("lora", "bert", {"query", "value"}),
        ("lora", "mpnet", {"q", "v"}),
        ("lora", "distilbert", {"q_lin", "v_lin"}),
        ("ia3", "llama", {"k_proj", "v_proj", "down_proj"}),
        ("lora", "passt", {"qkv"}),
        ("ia3", "passt", {"qkv", "fc2"}),
        ("lora", "datar", {"qkv", "q_proj", "kv_proj"}),
        ("ia3", "datar", {"qkv", "kv_proj", "fc2"}),
    ],
)
def test_by_default_a_tuner_adapts_what_its_paper_does_where_the_network_hears_it(
    name: str, family: str, layers: set[str], load: Load
) -> None:
    tuner = create_tuner(name, load(family))
    adapted = {key.partition(".lora_")[0].partition(".ia3_")[0] for key, _ in tuner.named_parameters()}
    assert {key.rpartition(".")[2] for key in adapted} == layers
    assert not any("attention.output" in key for key in adapted)


@pytest.mark.parametrize("target", ["qkv", "proj", "fc1", "fc2"])
def test_every_linear_layer_of_a_block_of_ours_takes_an_adapter(target: str, load: Load) -> None:
    encoder = load("passt")
    assert not tune(encoder, create_tuner("lora", encoder, options={"targets": [target]}))._silent


def test_an_adapter_that_the_network_passes_by_is_named_by_the_guard(load: Load) -> None:
    encoder = load("wavlm")
    with pytest.raises(RunRefused) as refused:
        tune(encoder, create_tuner("lora", encoder, options={"targets": "q_proj"}), passes=PASSES)
    assert str(refused.value).startswith("network.encoder.layers.0.attention.q_proj.lora_A.default.weight, ")
    assert " and 3 more: 6 of 7 parameters that should train, and their gradient was absent or" in str(refused.value)


def test_blocks_that_are_left_out_at_random_do_not_trip_the_guard(load: Load) -> None:
    encoder = load("hubert")
    tuner = create_tuner("lora", encoder)
    network: Any = encoder.network
    network.config.layerdrop = 0.2
    ran: list[int] = []
    for layer in network.encoder.layers:
        layer.register_forward_hook(lambda *_: ran.append(1))
    one_clip = encoder.prepare([np.sin(np.arange(6000, dtype=np.float32))])
    tune(encoder, tuner, passes=PASSES, batch=one_clip)
    assert len(ran) < 3 * PASSES


# --- the gate --------------------------------------------------------------------------------------------------------


def test_the_gate_at_full_strength_is_that_of_the_paper_over_the_places_of_a_clip() -> None:
    torch.manual_seed(0)
    y = torch.randn(2, 3, 4, 8)
    gate = Gate(8)
    assert torch.equal(gate(y), y)
    torch.nn.init.ones_(gate.strength)
    torch.testing.assert_close(gate(y), DensityGate(8)(y.flatten(1, 2)).view_as(y))
    z = (y - y.mean((1, 2), keepdim=True)) / y.var((1, 2), correction=0, keepdim=True).sqrt()
    torch.testing.assert_close(gate(y), y * (-z.square() / 4).exp(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["hubert", "bert", "passt", "datar", "whisper"])
def test_a_gate_hears_nothing_of_the_other_clips(family: str, load: Load) -> None:
    encoder = load(family)
    tuner = create_tuner("density", encoder)
    with torch.no_grad():
        for name, parameter in tuner.named_parameters():
            parameter.add_(0.5 if name.endswith("strength") else 0.1 * torch.randn(parameter.shape))
    inputs = ["a man", "two dogs bark at night and rain falls on an old tin roof"]
    if encoder.modality == "sound":
        inputs = [np.sin(np.arange(round(s * (encoder.rate or 0)), dtype=np.float32)) for s in (0.4, 0.9)]
    with torch.no_grad():
        both, alone = (encoder.encode(encoder.prepare(given)) for given in (inputs, inputs[:1]))
    torch.testing.assert_close(both.features[:1][:, :, both.mask[0]], alone.features, rtol=1e-4, atol=1e-5)


# --- peft ------------------------------------------------------------------------------------------------------------


def test_peft_is_imported_when_it_is_used_and_named_when_it_is_absent(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys, ossicle.tuning.tuners; assert not {'peft', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.setitem(sys.modules, "peft", None)
    encoder = load("bert")
    with pytest.raises(ExtraMissing, match=r"needs peft, .*; pip install 'ossicle\[peft\]'"):
        create_tuner("lora", encoder)
    create_tuner("density", encoder)  # ours needs none
