"""A family of networks that the package knows nothing of goes through every room."""

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

import ossicle
from ossicle.data import read_dataset
from ossicle.errors import ModelUnknown, SettingRefused
from ossicle.evaluation import evaluate
from ossicle.export import export_model
from ossicle.models import HeadSpec, Preset, create_model, list_models, register_network, registry, summarize_model
from ossicle.models.attention import drop_path, drop_path_rates
from ossicle.models.base import BlockParts, Layout, Network, Output
from ossicle.training import TrainConfig, TuneConfig, train, tune

# --- the family, in at most 60 lines ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    num_classes: int
    dim: int = 8
    depth: int = 2
    mels: int = 128
    drop_path: float = 0.0


class ToyBlock(nn.Module):
    def __init__(self, dim: int, rate: float) -> None:
        super().__init__()
        self.dim, self.rate = dim, rate
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        branch = self.fc2(self.fc1(self.norm(x)).relu())
        return x + (drop_path(branch, rate=self.rate, generator=generator) if self.training else branch)


class Toy(Network):
    """Frames through residual blocks; the mean over time to a linear head."""

    config_class = ToyConfig
    train_settings = ("depth", "drop_path")
    block_parts = BlockParts(queries=("fc1",), values=("fc2",))

    def __init__(self, config: ToyConfig, *, frontend: str) -> None:
        super().__init__(config, frontend=frontend)
        self.stem = nn.Linear(config.mels, config.dim)
        self.blocks = nn.ModuleList(
            ToyBlock(config.dim, rate) for rate in drop_path_rates(config.drop_path, config.depth)
        )
        self.head = nn.Linear(config.dim, config.num_classes)

    @property
    def layout(self) -> Layout:
        return Layout(num_layers=self.config.depth, dim=self.config.dim, description="frames")

    def forward_features(
        self, spec: Tensor, *, generator: torch.Generator | None = None, hidden_states: bool = False
    ) -> Output:
        states = [self.stem(self.check(spec).mT)]
        for block in self.blocks:
            states.append(self.run_block(block, states[-1], generator=generator))
        features = states[-1].mean(1)
        return Output(self.head(features), features, tuple(states) if hidden_states else None)


PRESETS = [Preset(name="toy", options={}), Preset(name="toy_wide", options={"dim": 16}, width="16")]


# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    known = dict(registry._registered)
    register_network(Toy, presets=PRESETS)
    yield
    registry._registered.clear()
    registry._registered.update(known)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Twelve clips of 0.4 s, tones and noise."""
    rng = np.random.default_rng(0)
    for number in range(12):
        label = ("noise", "tone")[number % 2]
        path = tmp_path / "sounds" / label / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = rng.normal(size=12_800) if label == "noise" else np.sin((0.05 + number / 99) * np.arange(12_800))
        soundfile.write(path, 0.2 * samples, 32_000)
    return tmp_path / "sounds"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_registered_family_is_trained_evaluated_asked_exported_and_tuned(
    sounds: Path, tmp_path: Path, untyped: Callable
) -> None:
    dataset, cache = read_dataset(sounds), tmp_path / "cache"
    config = TrainConfig(model="toy", depth=3, drop_path=0.2, epochs=2, batch_size=4, warmup=0.0, device="cpu")
    result = train(dataset, config, output=tmp_path / "run", cache=cache)
    assert evaluate(tmp_path / "run", sounds, output=tmp_path / "test").failures == ()
    recognizer = ossicle.load(tmp_path / "run")
    assert isinstance(recognizer.model, Toy) and len(recognizer.model.blocks) == 3
    prediction = recognizer.predict(sounds / "tone" / "1.wav")
    assert float(prediction.scores.sum()) == pytest.approx(1.0) and set(prediction.labels) == {"noise", "tone"}
    assert len(result.folds) == 1

    pytest.importorskip("peft", reason="peft is not installed: pip install 'ossicle[peft]'")
    tuning = TuneConfig(tuner="lora", epochs=2, batch_size=4, device="cpu")
    tune(tmp_path / "run", dataset, tuning, output=tmp_path / "tuned", cache=cache)
    assert set(ossicle.load(tmp_path / "tuned").predict(sounds / "tone" / "1.wav").labels) == {"noise", "tone"}

    with untyped():
        for folder in ("run", "tuned"):
            exported = export_model(tmp_path / folder, to="pt2", output=tmp_path / f"{folder}.pt2")
            assert exported.agreement.difference < 1e-4


def test_a_registered_family_is_listed_and_counted() -> None:
    assert list_models("toy*") == ["toy", "toy_wide"]
    summary = summarize_model("toy_wide")
    assert (summary.preset.width, summary.tokens, summary.seconds) == ("16", 1000, None)
    assert summary.parameters == sum(p.numel() for p in create_model("toy_wide").parameters())


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(ValueError, match="model passt_tiny_s16 is already registered"):
        register_network(Toy, presets=[Preset(name="other", options={}), Preset(name="passt_tiny_s16", options={})])
    with pytest.raises(ModelUnknown):
        create_model("other")
    register_network(Toy, presets=PRESETS)  # the same once more, as a notebook does


def test_settings_that_the_family_does_not_have_are_refused() -> None:
    from ossicle.training.initial import build

    with pytest.raises(SettingRefused, match="patchout_t: not a setting of toy"):
        build(TrainConfig(model="toy", patchout_t=0.3), num_classes=2)
    with pytest.raises(SettingRefused, match="no option frames; it has depth, dim, drop_path, mels"):
        build(TrainConfig(model="toy", network={"frames": 3}), num_classes=2)


def test_heads_that_no_network_has_yet_are_refused() -> None:
    assert create_model("toy", head=HeadSpec(kind="several classes", outputs=4)).config.num_classes == 4
    with pytest.raises(ValueError, match="a Toy has no head for numbers; available: one class, several classes"):
        create_model("toy", head=HeadSpec(kind="numbers", outputs=2))
    with pytest.raises(ValueError, match="no head for several heads"):
        create_model("toy", head=HeadSpec(kind="several heads", heads={"a": HeadSpec(kind="one class", outputs=2)}))


# --- installed packages -----------------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Puts a module and its entry point where installed packages are."""
    monkeypatch.syspath_prepend(tmp_path)

    def package(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        about = tmp_path / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[ossicle.networks]\n{name} = {name}\n")
        importlib.invalidate_caches()
        registry.load_entry_points.cache_clear()

    yield package
    registry.load_entry_points.cache_clear()


def test_a_family_of_an_installed_package_is_known_and_loaded_when_it_is_built(
    install: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        "ossicle_toys",
        "from ossicle.models import Preset, register_network\n"
        "register_network('toy_network:Toy', presets=[Preset(name='installed_toy', options={'depth': 1})])\n",
    )
    assert "installed_toy" in list_models() and "toy_network" not in sys.modules
    monkeypatch.setitem(sys.modules, "toy_network", sys.modules[__name__])
    assert len(create_model("installed_toy", num_classes=2).blocks) == 1


def test_a_package_that_cannot_be_imported_is_left_out_and_the_log_says_so(
    install: Callable[[str, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    install("ossicle_broken", "import nothing_of_this_name\n")
    assert "toy" in list_models()
    assert "ossicle_broken are left out: No module named 'nothing_of_this_name'" in caplog.text
