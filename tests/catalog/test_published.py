"""From a published name to a network that predicts: fetched, checked, kept, found again."""

import dataclasses
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from tests.catalog.conftest import small_shapes
from tests.catalog.layouts import STARTS, write_published
from tests.catalog.server import Server, breaks_off, says

import ossicle
from ossicle.bundle import CONFIG, find_bundle, find_weights, load_bundle
from ossicle.bundle.published import add_file, fetch_file, keep, published_folder
from ossicle.catalog import Checkpoint, checkpoint
from ossicle.catalog import store as shelf
from ossicle.encoders import load_encoder
from ossicle.errors import BundleRefused, ModelUnknown, OssicleError, WeightsRefused
from ossicle.training import TrainConfig
from ossicle.training.initial import start_from

Publish = Callable[..., Checkpoint]
AUDIOSET, FOLD = "passt_base_s10.audioset_ap476", "passt_base_s10.esc50_fold1_acc967"
START = "passt_tiny_s16.deit_imagenet"


def contents(store: Path) -> set[str]:
    """What is in the store, apart from locks."""
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file() and path.suffix != ".lock"}


# --- the way of a name -----------------------------------------------------------------------------------------------


def test_a_name_is_fetched_once_and_predicts_with_its_labels(
    publish: Publish,
    server: Server,
    store: Path,
    caplog: pytest.LogCaptureFixture,
    record: Callable[..., Path],
) -> None:
    row = publish(AUDIOSET, hashed=True)
    with caplog.at_level(logging.INFO, logger="ossicle"):
        model = ossicle.load("passt_s_swa_p16_128_ap476")
    said = caplog.messages[0]
    assert said.startswith(f"Fetching {AUDIOSET}: {row.bytes / 1e6:.1f} MB from {server.address}/kkoutini/PaSST/")
    assert "trained on AudioSet; license of the weights: unknown (the repository of the code" in said
    assert caplog.records[0].name.startswith("ossicle.") and caplog.messages[-1] == f"Kept in {store / AUDIOSET}."
    assert len(model.labels) == 527 and model.labels[0] == "Speech" and model.task == "multi-label"
    assert model.window_samples()[0] == 320_000 and model.rate == 32_000
    prediction = model.predict(record("tone.wav"))
    assert prediction.rows[0].label in model.labels
    asked = len(server.requests)
    assert find_bundle(AUDIOSET) == find_bundle("passt_s_swa_p16_128_ap476") == store / AUDIOSET
    assert len(server.requests) == asked
    assert contents(store) == {
        f"{AUDIOSET}/{name}" for name in ("config.json", "model.safetensors", "README.md", "SHA256SUMS", "source.json")
    }


def test_the_store_says_where_weights_came_from(publish: Publish, server: Server, store: Path) -> None:
    row = publish(AUDIOSET, hashed=True)
    source = json.loads((published_folder(row) / "source.json").read_text())
    assert (source["name"], source["bytes"], source["sha256"]) == (AUDIOSET, row.bytes, row.sha256)
    assert source["url"] == server.address + urlsplit(row.url).path
    assert set(source["files"]) == {"config.json", "model.safetensors", "README.md", "SHA256SUMS"}
    assert shelf.verify(row) is None
    card = (store / AUDIOSET / "README.md").read_text()
    assert "mAP 0.476 on AudioSet, as its authors report it" in card and "No license is stated" in card


def test_logits_are_those_of_the_published_file_and_survive_another_bundle(
    publish: Publish, store: Path, tmp_path: Path
) -> None:
    row = publish(FOLD)
    bundle = load_bundle(published_folder(row))
    published = torch.load(tmp_path / "published" / row.file, weights_only=True)
    assert all(torch.equal(tensor, published[name]) for name, tensor in bundle.model.state_dict().items())
    assert bundle.task == "single-label" and bundle.labels[:2] == ("dog", "rooster") and bundle.window_seconds == 5.0
    recognizer = ossicle.load(row.name)
    sound = np.random.default_rng(0).normal(scale=0.1, size=(1, 5 * 32_000)).astype(np.float32)
    again = tmp_path / "again"
    os.rename(store / row.name, again)
    assert np.array_equal(ossicle.load(again).scores(sound), recognizer.scores(sound))


def test_the_front_end_is_that_of_the_weights(publish: Publish) -> None:
    for name, hop in (("stfthop100", 100), ("stfthop160", 160), ("passt_20sec", 320)):
        bundle = load_bundle(published_folder(publish(name)))
        assert bundle.frontend.config.hop_samples == hop
        assert bundle.window_seconds == (20.0 if name == "passt_20sec" else 10.0)


def test_a_doubtful_name_yields_to_the_shapes_in_the_file(publish: Publish, server: Server) -> None:
    publish("passt_base_s10.audioset_ap472")  # so that both strides are of few numbers
    row = publish("passt_b_f128_p16_s16_ap_459")
    other = checkpoint("passt_base_s10.audioset_ap472")
    server.files[urlsplit(row.url).path] = server.files[urlsplit(other.url).path]
    assert load_bundle(published_folder(row)).model_name == "passt_base_s10"


# --- starts ----------------------------------------------------------------------------------------------------------


def test_a_network_of_images_is_kept_under_its_own_names_and_predicts_nothing(publish: Publish, store: Path) -> None:
    publish(START)
    tensors = ossicle.weights.tensors.load_weights(find_weights(START))
    assert tensors["pos_embed"].shape == (1, 2 + 16, 8) and tensors["patch_embed.proj.weight"].shape[1] == 3
    assert contents(store / START) == {"model.safetensors", "source.json"}
    with pytest.raises(
        WeightsRefused, match=f"predicts nothing here; start a training from it: `ossicle train DATA --init {START}`"
    ):
        ossicle.load(START)


def test_a_training_starts_from_a_name(publish: Publish) -> None:
    publish(START)
    publish(AUDIOSET)
    network = start_from(TrainConfig(model="passt_tiny_s16", weights=START), num_classes=3, frames=100)
    assert torch.equal(network.cls_token, ossicle.create_model(START).cls_token)
    tuned = start_from(TrainConfig(model="passt_base_s10", weights=AUDIOSET), num_classes=3, frames=100)
    assert torch.equal(tuned.cls_token, load_bundle(find_bundle(AUDIOSET)).model.cls_token)
    assert tuned.config.num_classes == 3 and tuned.config.frames == 998


# --- create_model ----------------------------------------------------------------------------------------------------


def test_a_network_of_a_name_with_a_tag_has_its_weights(publish: Publish) -> None:
    row = publish(AUDIOSET)
    network = ossicle.create_model(AUDIOSET)
    published = load_bundle(find_bundle(AUDIOSET)).model.state_dict()
    assert all(torch.equal(tensor, published[name]) for name, tensor in network.state_dict().items())
    default = ossicle.create_model(row.architecture, pretrained=True, num_classes=3, drop_path=0.1)
    assert torch.equal(default.cls_token, network.cls_token) and default.config.drop_path == 0.1
    assert torch.equal(default.head[0].weight, network.head[0].weight) and default.config.num_classes == 3
    assert not torch.equal(ossicle.create_model(row.architecture).cls_token, network.cls_token)


def test_a_name_with_weights_never_gives_random_ones(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(AUDIOSET)
    with pytest.raises(ValueError, match="name of weights, which are loaded; random ones are those of passt_base_s10"):
        ossicle.create_model(AUDIOSET, pretrained=False)
    with pytest.raises(ValueError, match="passt_tiny_s20 is an architecture without published weights"):
        ossicle.create_model("passt_tiny_s20", pretrained=True)
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    for refused in (
        lambda: ossicle.create_model(AUDIOSET),
        lambda: ossicle.create_model("passt_base_s10", pretrained=True),
    ):
        with pytest.raises(WeightsRefused, match="OSSICLE_OFFLINE forbids the network"):
            refused()


def test_weights_are_no_architecture() -> None:
    with pytest.raises(
        ModelUnknown,
        match=f"{AUDIOSET} is the name of weights; expected that of an architecture, such as passt_base_s10",
    ):
        start_from(TrainConfig(model=AUDIOSET), num_classes=3, frames=100)
    with pytest.raises(
        WeightsRefused, match=f"passt_base_s10 is an architecture without trained weights.*such as {AUDIOSET}"
    ):
        ossicle.load("passt_base_s10")
    with pytest.raises(ModelUnknown, match=f"'{AUDIOSET[:-1]}' are not in the catalogue; similar names: .*{AUDIOSET}"):
        ossicle.load(AUDIOSET[:-1])


# --- without a network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["OSSICLE_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_says_which_file_to_put_where(server: Server, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    sentence = (
        rf"{AUDIOSET} is not in .*weights, and {variable} forbids the network: on a machine with one, download https://"
        rf"github.com/.*-swa.pt \(344.7 MB\), or .*; then here `ossicle models add .*-swa.pt --as {AUDIOSET}`\.$"
    )
    with pytest.raises(WeightsRefused, match=sentence):
        ossicle.load(AUDIOSET)
    assert server.requests == []


def test_offline_the_hub_is_not_asked_either(
    shared_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[bool] = []

    def snapshot_download(repository: str, *, local_files_only: bool, **_: object) -> str:
        asked.append(local_files_only)
        return str(shared_bundle)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    find_bundle("someone/bells")
    monkeypatch.setenv("OSSICLE_OFFLINE", "yes")
    find_bundle("someone/bells")
    load_encoder("someone/bells")
    assert asked == [False, True, True]


def test_local_files_only_asks_nobody(server: Server, publish: Publish) -> None:
    row = publish(AUDIOSET)
    with pytest.raises(WeightsRefused, match="nothing is to be fetched: on a machine with"):
        ossicle.load(AUDIOSET, local_files_only=True)
    assert server.requests == []
    published_folder(row)
    ossicle.load(AUDIOSET, local_files_only=True)


def test_a_server_that_is_not_there_says_what_else_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSSICLE_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(
        WeightsRefused, match=r"the connection failed \(Connection refused\)\. Without a network: .*models add"
    ):
        find_bundle(AUDIOSET)


def test_a_file_travels_without_a_network(
    publish: Publish, server: Server, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = publish(AUDIOSET, hashed=True)
    got = fetch_file(row, tmp_path / "stick")
    assert got.path == tmp_path / "stick" / row.file and not store.exists()
    assert fetch_file(row, tmp_path / "stick").sha256 == got.sha256 and len(server.requests) == 1
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    add_file(row, got.path)
    assert got.path.exists() and ossicle.load(AUDIOSET).labels[0] == "Speech"


def test_a_file_for_another_machine_is_checked_and_pinned_too(publish: Publish, tmp_path: Path) -> None:
    row = publish(START, damage=wrong("extra"))
    with pytest.raises(WeightsRefused, match="this is another network"):
        fetch_file(row, tmp_path / "stick")
    assert list((tmp_path / "stick").iterdir()) == [] and shelf.pinned_hash(row) is None
    row = publish(START)
    assert fetch_file(row, tmp_path / "stick").sha256 == shelf.pinned_hash(row)
    (tmp_path / "stick" / row.file).write_bytes(b"of the user")
    with pytest.raises(WeightsRefused, match="its SHA-256 is"):
        fetch_file(row, tmp_path / "stick")
    assert (tmp_path / "stick" / row.file).read_bytes() == b"of the user"


# --- what is refused -------------------------------------------------------------------------------------------------


def wrong(name: str) -> Callable[[dict[str, torch.Tensor]], object]:
    """Ways in which a file can be of another network."""
    return {
        "missing": lambda tensors: tensors.pop("norm.weight"),
        "extra": lambda tensors: tensors.update(more=torch.zeros(2)),
        "misshapen": lambda tensors: tensors.update({"norm.weight": torch.zeros(9)}),
        "not finite": lambda tensors: tensors["norm.weight"].fill_(float("nan")),
        "another grid": lambda tensors: tensors.update(
            freq_new_pos_embed=torch.zeros(1, 8, 8, 1), time_new_pos_embed=torch.zeros(1, 8, 1, 62)
        ),
    }[name]


@pytest.mark.parametrize(
    "damage, says_what",
    [
        ("missing", r"1 missing \(norm.weight \(8,\)\)"),
        ("extra", r"1 unexpected \(more \(2,\)\)"),
        ("misshapen", r"1 misshapen \(norm.weight \(9,\), wanted \(8,\)\)"),
        ("not finite", "tensor norm.weight has NaN or infinity"),
        ("another grid", "the shapes are those of stride=16; passt_base_s10 has stride=10"),
    ],
)
def test_another_network_is_refused_and_nothing_is_kept(
    publish: Publish, store: Path, damage: str, says_what: str
) -> None:
    row = publish(AUDIOSET, damage=wrong(damage))
    with pytest.raises(WeightsRefused, match=says_what) as refusal:
        published_folder(row)
    assert row.file in str(refusal.value) and "\n" not in str(refusal.value)
    assert contents(store) == set()


def test_a_start_of_other_shapes_is_refused_by_its_digest(publish: Publish, store: Path) -> None:
    row = publish(START, damage=wrong("extra"))
    with pytest.raises(
        WeightsRefused, match=rf"digest [0-9a-f]{{16}}, and those of {START} {row.shapes}: this is another network"
    ):
        published_folder(row)
    assert contents(store) == set()


def test_swapped_files_are_refused(publish: Publish, store: Path, tmp_path: Path) -> None:
    row, other = publish(AUDIOSET, hashed=True), publish(FOLD, hashed=True)
    with pytest.raises(WeightsRefused, match=rf"the file has {other.bytes:,} bytes; .* has {row.bytes:,}"):
        add_file(row, tmp_path / "published" / other.file)
    third = write_published(row, tmp_path / "third" / row.file, shapes=small_shapes(row), seed=3)
    with pytest.raises(WeightsRefused, match=rf"its SHA-256 is \w+, that of {row.file} of {AUDIOSET} {row.sha256}\."):
        add_file(row, third)
    with pytest.raises(WeightsRefused, match="nothing.pt: there is no such file; on a machine with"):
        add_file(row, tmp_path / "nothing.pt")
    assert contents(store) == set()


def test_a_hash_in_the_name_of_a_file_is_compared(publish: Publish) -> None:
    row = publish(START, sha256="b40b3cf7")
    with pytest.raises(WeightsRefused, match=r"has the SHA-256 \w{64}, expected b40b3cf7\.\.\.\."):
        published_folder(row)


def test_a_file_that_is_no_checkpoint_is_refused(publish: Publish, server: Server, store: Path) -> None:
    row = publish(AUDIOSET)
    server.files[urlsplit(row.url).path] = b"PK\x03\x04" + bytes(1000)
    with pytest.raises(WeightsRefused, match="the checkpoint cannot be loaded"):
        published_folder(row)
    assert contents(store) == set()
    server.always = says(200, b"<html><title>Log in</title>", kind="text/html")
    with pytest.raises(WeightsRefused, match=r"sent a web page \(Log in\) instead of a file of weights"):
        published_folder(row)


# --- pins ------------------------------------------------------------------------------------------------------------


def test_an_unknown_hash_is_pinned_at_the_first_download_and_said(
    publish: Publish, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = publish(AUDIOSET)
    published_folder(row)
    pinned = shelf.pinned_hash(row)
    assert f"No source states the SHA-256 of {row.file}: {pinned} is pinned from now on" in " ".join(caplog.messages)
    shelf.remove(row)
    published_folder(row)  # the same file
    shelf.remove(row)
    other = publish(AUDIOSET, seed=1)
    with pytest.raises(
        WeightsRefused,
        match=rf"expected {pinned}\. It was pinned on 20\d\d-.*`ossicle models remove {AUDIOSET} --forget-hash`",
    ):
        published_folder(other)
    shelf.unpin(row)
    published_folder(other)
    assert shelf.pinned_hash(row) != pinned


def test_a_whole_hash_of_the_catalogue_needs_no_pin(publish: Publish, store: Path) -> None:
    published_folder(publish(AUDIOSET, hashed=True))
    assert not (store / "pinned.json").exists()


def test_a_damaged_list_of_pins_is_none(publish: Publish, store: Path) -> None:
    store.mkdir(parents=True)
    (store / "pinned.json").write_text("[1")
    row = publish(AUDIOSET)
    published_folder(row)
    assert shelf.pinned_hash(row)


# --- the store -------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_verified_and_removed(publish: Publish, store: Path) -> None:
    row = publish(AUDIOSET)
    folder = published_folder(row)
    assert shelf.kept() == [row] and shelf.kept_bytes(row) > 1000
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert shelf.verify(row) == "model.safetensors is not as it was kept"
    (folder / CONFIG).unlink()
    assert shelf.verify(row) == "config.json is missing"
    shelf.remove(row)
    assert shelf.kept() == [] and not folder.exists()
    for action in (shelf.remove, shelf.verify):
        with pytest.raises(WeightsRefused, match="is not in .*weights; `ossicle models list --weights` shows what is"):
            action(row)


def test_weights_whose_tensors_are_gone_are_fetched_again(publish: Publish, server: Server) -> None:
    row = publish(AUDIOSET)
    (published_folder(row) / "model.safetensors").unlink()
    assert shelf.kept() == [row] and shelf.verify(row) == "model.safetensors is missing"
    published_folder(row)
    assert shelf.verify(row) is None and len(server.requests) == 2


def test_a_download_that_broke_off_counts_and_can_be_removed(publish: Publish, server: Server, store: Path) -> None:
    row = publish(AUDIOSET)
    server.behave, server.always = [breaks_off(5000)], breaks_off(0)
    with pytest.raises(WeightsRefused, match="the same command goes on.* Without a network"):
        published_folder(row)
    assert shelf.kept_bytes(row) == 5000 and shelf.kept() == []
    assert shelf.remove(row) == 5000 and contents(store) == set()


def test_what_a_killed_process_left_in_the_store_is_cleared(publish: Publish, store: Path) -> None:
    row = publish(AUDIOSET)
    half, older = store / f".{AUDIOSET}.0123abcd", store / AUDIOSET
    for folder in (half, older):
        folder.mkdir(parents=True)
        (folder / CONFIG).write_text("{}")
    assert load_bundle(published_folder(row)).labels[0] == "Speech"
    assert not half.exists()


def test_a_store_that_cannot_be_written_is_said_first(
    publish: Publish, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OssicleError, match="cache of weights cannot be written there .*OSSICLE_CACHE"):
        published_folder(publish(AUDIOSET))
    assert server.requests == []


FETCHING = """
import dataclasses, logging, sys
import pytest
from tests.catalog.conftest import shrink
from ossicle.bundle.published import published_folder
from ossicle.catalog import checkpoint

logging.basicConfig(format="%(message)s")
shrink("passt_base_s10", pytest.MonkeyPatch())
published_folder(dataclasses.replace(checkpoint(sys.argv[1]), bytes=None, sha256=None, shapes=None))
"""


def test_a_full_disk_in_the_middle_leaves_nothing_half_there(publish: Publish, server: Server, store: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limits on the size of files")
    row = publish(AUDIOSET, hashed=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    arrived = store / ".downloads" / row.file

    def full(arriving: Path) -> shelf.Published:
        published = shelf.fetch(row, arriving)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))  # less than the bundle has
        return published

    try:
        with pytest.raises(OSError, match="File too large") as error:
            shelf.settle(row, wanted=full, convert=lambda published, folder: keep(row, published, folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Path(error.value.filename).is_relative_to(store)
    assert contents(store) == {str(arrived.relative_to(store))} and shelf.kept_bytes(row) == row.bytes
    published_folder(row)
    assert len(server.requests) == 1 and not arrived.exists()


def test_two_processes_at_once_fetch_once(publish: Publish, server: Server, store: Path) -> None:
    row = publish(AUDIOSET)
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", FETCHING, AUDIOSET]
    with shelf.holding(store / ".downloads" / f"{row.name}.lock", waiting_for=row.name):
        others = [
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
            for _ in range(2)
        ]
        for other in others:
            assert other.stderr is not None
            assert other.stderr.readline() == f"Waiting for another process that is at work on {AUDIOSET}.\n"
    said = [other.communicate(timeout=60)[1] for other in others]
    assert [other.returncode for other in others] == [0, 0], said
    assert len(server.requests) == 1 and shelf.verify(row) is None


# --- names that are folders too --------------------------------------------------------------------------------------


def test_a_bundle_in_a_folder_of_that_name_wins_and_it_is_said(
    make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    make_bundle(Path("openmic"))
    assert ossicle.load("openmic").labels == ("bell", "drum", "voice")
    assert "openmic is a folder here and published weights as well; the folder is used." in caplog.messages


def test_a_folder_without_a_bundle_does_not_hide_the_name(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("openmic")
    monkeypatch.chdir(tmp_path)
    Path("openmic").mkdir()
    assert ossicle.load("openmic").labels[0] == "accordion"
    with pytest.raises(BundleRefused, match="neither a bundle"):
        (tmp_path / "other").mkdir()
        find_bundle("other")


# --- full size -------------------------------------------------------------------------------------------------------


def served(row: Checkpoint, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file of full size with random numbers on the server; the row has its hash."""
    content = write_published(row, tmp_path / "published" / row.file).read_bytes()
    known = dataclasses.replace(row, bytes=len(content), sha256=ossicle.files.sha256(tmp_path / "published" / row.file))
    monkeypatch.setitem(ossicle.catalog.rows.checkpoints(), row.name, known)
    server.files[urlsplit(row.url).path] = content
    return content


def test_a_checkpoint_of_full_size_predicts(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Callable[..., Path]
) -> None:
    row = checkpoint("passt_l_kd_p16_128_ap47")
    content = served(row, server, tmp_path, monkeypatch)
    server.behave = [breaks_off(100_000_000)]
    model = ossicle.load(row.name)
    assert server.sent == len(content) > 200e6
    prediction = model.predict(record("tone.wav"))
    assert prediction.top[0] in model.labels and len(model.labels) == 527
    assert shelf.verify(checkpoint(row.name)) is None
    published = torch.load(tmp_path / "published" / row.file, weights_only=True, mmap=True)
    assert all(torch.equal(tensor, published[name]) for name, tensor in model.model.state_dict().items())


@pytest.mark.parametrize(
    "name",
    [
        "passt_tiny_s16.deit_imagenet",
        "passt_tiny_s16.augreg_imagenet",
        "datar_tiny.dat_imagenet",
        "datar_tiny.swin_imagenet",
    ],
)
def test_a_start_of_full_size_is_kept(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = checkpoint(name)
    served(row, server, tmp_path, monkeypatch)
    tensors = ossicle.weights.tensors.load_weights(find_weights(name))
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == STARTS[row.name]
