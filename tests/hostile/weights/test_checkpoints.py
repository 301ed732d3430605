"""Checkpoints from strangers: code, bombs, lies about sizes, damage, other files. One sentence each, nothing run."""

import errno
import io
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ossicle.bundle import convert_checkpoint, load_bundle
from ossicle.errors import WeightsRefused
from ossicle.models.passt import Passt, PasstConfig
from ossicle.weights import foreign, unpickle
from ossicle.weights.foreign import read_checkpoint
from ossicle.weights.tensors import load_weights, save_weights


def refused(path: Path) -> str:
    """The sentence that a file is refused with: one line, which begins with the file."""
    with pytest.raises(WeightsRefused) as error:
        read_checkpoint(path)
    sentence = str(error.value)
    assert sentence.startswith(f"{path}: ") and "\n" not in sentence and len(sentence) < 500
    return sentence


def archive(path: Path, entries: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


class Storage:
    """What a pickle refers to in torch's archives."""

    def __init__(self, numel: Any, kind: str = "FloatStorage", key: str = "0") -> None:
        self.reference = ("storage", getattr(torch, kind), key, "cpu", numel)


class Rebuilt:
    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class Writer(pickle.Pickler):
    def persistent_id(self, given: Any) -> Any:
        return given.reference if isinstance(given, Storage) else None


def pickled(content: Any) -> bytes:
    buffer = io.BytesIO()
    Writer(buffer, protocol=2).dump(content)
    return buffer.getvalue()


def described(path: Path, *arguments: Any, data: bytes = bytes(16)) -> Path:
    """A checkpoint of one tensor, described by the arguments of torch's function, with these bytes."""
    return archive(path, {"a/data.pkl": pickled({"weight": Rebuilt(*arguments)}), "a/data/0": data})


# --- code -------------------------------------------------------------------------------------------------------------


class Calls:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


CODE = {
    "os.system": lambda mark: Calls(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Calls(eval, f"open({str(mark)!r}, 'w')"),
    "builtins.exec": lambda mark: Calls(exec, f"open({str(mark)!r}, 'w')"),
    "builtins.open": lambda mark: Calls(open, str(mark), "w"),
    "subprocess.Popen": lambda mark: Calls(subprocess.Popen, ["touch", str(mark)]),
    "builtins.getattr": lambda mark: Calls(getattr, "text", "upper"),
    "torch.load": lambda mark: Calls(torch.load, str(mark)),
    "numpy.load": lambda mark: Calls(np.load, str(mark), None, True),
    "pickle.loads": lambda mark: Calls(pickle.loads, pickle.dumps(Calls(os.system, f"touch {mark}"))),
}
PLACES = {
    "alone": lambda code: code,
    "a tensor": lambda code: {"weight": code},
    "a name": lambda code: OrderedDict([((code,), torch.ones(1))]),
    "the optimizer": lambda code: {"state_dict": {"weight": torch.ones(1)}, "optimizer": [code]},
    "an attribute": lambda code: attributed(code),
}


def attributed(code: Any) -> Any:
    content = OrderedDict(weight=torch.ones(1))
    content._metadata = {"": code}  # type: ignore[attr-defined]
    return content


@pytest.mark.parametrize("code", CODE)
def test_code_is_named_and_never_run(tmp_path: Path, code: str) -> None:
    mark, names = tmp_path / "mark", set()
    for place, content in PLACES.items():
        for legacy in (False, True):
            path = tmp_path / f"{place} {legacy}.pt"
            torch.save(content(CODE[code](mark)), path, _use_new_zipfile_serialization=not legacy)
            names.add(refused(path).removeprefix(f"{path}: ").partition(" to load")[0])
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f"bare {protocol}.pkl"
        path.write_bytes(pickle.dumps(CODE[code](mark), protocol=protocol))
        refused(path)
    said = "the checkpoint cannot be loaded: it needs "
    assert all(name.startswith(said) and name.endswith(code.partition(".")[2]) for name in names)
    assert not mark.exists()


# Opcodes: c module, name; ( mark; t tuple; R call; b set attributes; . end; } dictionary; q, h memo; U short text.
ATTACKS = {
    "a chain of names": b"\x80\x04\x8c\x0btorch._utils\x8c\x1b_rebuild_tensor_v2.__globals\x93.",
    "attributes of a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x08__code__K\x01sb.",
    "attributes of a function, by slots": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}U\x09_functionK\x01s\x86b.",
    "attributes of a class": b"\x80\x02cargparse\nNamespace\n}U\x0c__setstate__K\x01sb.",
    "attributes of a type of storage": b"\x80\x02ctorch\nFloatStorage\n}U\x05dtypeK\x01sb.",
    "a call of a number": b"\x80\x02K\x01)R.",
    "an extension": b"\x80\x02\x82\x01.",
    "a module's own attribute": b"\x80\x02cargparse\n_sys\n.",
    "an empty stack": b"\x80\x02.",
    "a memo that is not there": b"\x80\x02h\x07.",
    "a huge memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a text of 2^62 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "a frame of 2^62 bytes": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b".",
    "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "bytes that are no text": b"\x80\x02U\x02\xff\xfe.",
    "no end": b"\x80\x02}",
    "ten million marks": b"\x80\x02" + b"(" * 10_000_000 + b".",
    "a deep nest": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_pickles_made_by_hand_end_in_a_sentence(tmp_path: Path, attack: str) -> None:
    refused(archive(tmp_path / "zip.pt", {"a/data.pkl": ATTACKS[attack], "a/data/0": b""}))
    (tmp_path / "bare.pt").write_bytes(ATTACKS[attack])
    refused(tmp_path / "bare.pt")


def test_a_pickle_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "CPU_SECONDS", 1)
    # A pair of the pair before, forty times: the hash of the last, as a key, takes 2^40 steps.
    nest = b"\x80\x02}K\x01K\x01\x86" + b"2\x86" * 40 + b"K\x01s."
    path = archive(tmp_path / "w.pt", {"a/data.pkl": nest})
    assert "more than 1 s of processor time" in refused(path)


def test_a_process_that_dies_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = tmp_path / "crash.py"
    crash.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setattr(unpickle, "__file__", str(crash))
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pt")
    assert "ended with code -9" in refused(tmp_path / "w.pt")


CONFINED = """
import os, socket, subprocess, sys
from ossicle.weights import unpickle
unpickle.confine(5)
tries = (
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: subprocess.run(["true"]),
    lambda: os.system("true"),
    lambda: os.execv("/bin/true", ["true"]),
    lambda: os.fork(),
    lambda: open("boom", "w"),
    lambda: os.open("boom", os.O_CREAT | os.O_RDWR),
    lambda: bytearray(2 * unpickle.MEMORY),
)
for number, attempt in enumerate(tries):
    try:
        attempt()
    except (unpickle.Refused, MemoryError):
        continue
    sys.exit(f"{number} was allowed")
"""


def test_the_process_has_no_network_no_programs_no_files_and_little_memory(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CONFINED], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_process_does_not_see_the_secrets_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    given, run = [], subprocess.run

    def watched(*arguments: Any, **options: Any) -> Any:
        given.append(options["env"])
        return run(*arguments, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pt")
    assert read_checkpoint(tmp_path / "w.pt")["a"] == 1
    assert len(given) == 1 and "secret" not in given[0].values()


# --- sizes ------------------------------------------------------------------------------------------------------------

HUGE = 2**62
LIES = {
    "numbers of a storage": ((Storage(HUGE), 0, (4,), (1,)), "claims 4,611,686,018,427,387,904 numbers"),
    "a negative storage": ((Storage(-4), 0, (4,), (1,)), "claims -4 numbers"),
    "a storage without a number": ((Storage("4"), 0, (4,), (1,)), "a storage has no size"),
    "a storage of less": ((Storage(8), 0, (8,), (1,)), "has 16 bytes; expected 32"),
    "a storage of more": ((Storage(2), 0, (2,), (1,)), "has 16 bytes; expected 8"),
    "a shape of 2^62": ((Storage(4), 0, (HUGE,), (0,)), "more than 8 GB"),
    "a shape of 2^80": ((Storage(4), 0, (2**40, 2**40), (0, 0)), "more than 8 GB"),
    "a shape beyond": ((Storage(4), 0, (5,), (1,)), "weight (5,) reads number 4 of a storage of 4"),
    "an offset beyond": ((Storage(4), 2, (4,), (1,)), "reads number 5 of a storage of 4"),
    "strides beyond": ((Storage(4), 0, (2, 2), (4, 1)), "reads number 5 of a storage of 4"),
    "a negative offset": ((Storage(4), -1, (4,), (1,)), "no whole number"),
    "a negative shape": ((Storage(4), 0, (-4,), (1,)), "no whole number"),
    "a shape of text": ((Storage(4), 0, ("4",), (1,)), "no whole number"),
    "more strides than shape": ((Storage(4), 0, (4,), (1, 1)), "the shape (4,) and the strides (1, 1)"),
    "another key": ((Storage(4, key="../../etc/passwd"), 0, (4,), (1,)), "a/data/../../etc/passwd is missing in it"),
    "a kind without size": ((Storage(4, kind="ComplexFloatStorage"), 0, (4,), (1,)), "torch.ComplexFloatStorage"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_about_sizes_are_found_before_anything_is_read(tmp_path: Path, lie: str) -> None:
    arguments, said = LIES[lie]
    assert said in refused(described(tmp_path / "w.pt", *arguments, False, OrderedDict()))


def test_a_tensor_that_tells_the_truth_is_read(tmp_path: Path) -> None:
    """The control: the same file with honest numbers."""
    data = np.arange(4, dtype=np.float32).tobytes()
    path = described(tmp_path / "w.pt", Storage(4), 0, (2, 2), (1, 2), False, OrderedDict(), data=data)
    assert read_checkpoint(path)["weight"].tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize("name", ["a/data.pkl", "a/data/0"])
def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, name: str) -> None:
    entries = {"a/data.pkl": pickled({"weight": Rebuilt(Storage(2**20), 0, (2**20,), (1,), False, OrderedDict())})}
    entries["a/data/0"] = bytes(2**22)
    path = archive(tmp_path / "w.pt", {key: content for key, content in entries.items() if key != name})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, entries[name] + bytes(2**24))
    assert f"{name} is compressed, which torch and numpy do not do" in refused(path)


def test_one_run_of_bytes_for_many_tensors_is_limited(tmp_path: Path) -> None:
    tensor = Rebuilt(Storage(2**20), 0, (2**10, 2**20), (0, 1), False, OrderedDict())
    content = pickled({str(number): tensor for number in range(100)})
    path = archive(tmp_path / "w.pt", {"a/data.pkl": content, "a/data/0": bytes(2**22)})
    assert "its tensors have more than 8 GB" in refused(path)


def test_a_million_tensors_are_too_many(tmp_path: Path) -> None:
    tensor = Rebuilt(Storage(1), 0, (), (), False, OrderedDict())
    content = pickled({str(number): tensor for number in range(100_001)})
    path = archive(tmp_path / "w.pt", {"a/data.pkl": content, "a/data/0": bytes(4)})
    assert "100,001 tensors; at most 100,000" in refused(path)


@pytest.mark.parametrize("length", [2**62, 2**63 + 1, 2**30])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_header_of_any_length_is_not_believed(tmp_path: Path, suffix: str, length: int) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(struct.pack("<Q", length) + b'{"a": 1}' + bytes(1000))
    refused(path)


def npy(header: str, *, data: bytes = bytes(16)) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


NPZ = {
    "a shape of 2^62": (npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({HUGE},)}}"), "more than 8 GB"),
    "a shape of more": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (5,)}"), "has 16 bytes; expected 20"),
    "a negative shape": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4,)}"), "has the shape (-4,)"),
    "objects": (npy("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}"), "no named tensors"),
    "code in its header": (npy("__import__('os').system('touch boom')"), "damaged"),
    "half a header": (npy("{'descr': '<f4', 'fortran")[:20], "damaged"),
    "no array": (b"hello", "is no array of numpy"),
}


@pytest.mark.parametrize("lie", NPZ)
def test_arrays_of_numpy_are_not_believed_either(tmp_path: Path, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, said = NPZ[lie]
    assert said in refused(archive(tmp_path / "w.npz", {"weight.npy": content}))
    assert not (tmp_path / "boom").exists()


# --- damage and other files -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "w.pt"
    torch.manual_seed(0)
    torch.save({"state_dict": {"a": torch.randn(40), "b": torch.randn(3, 5).T, "c": torch.arange(4)}}, path)
    return path


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path, whole: Path) -> None:
    for legacy in (False, True):
        path = tmp_path / "w.pt"
        torch.save(torch.load(whole), path, _use_new_zipfile_serialization=not legacy)
        content = path.read_bytes()
        assert read_checkpoint(path).keys() == {"a", "b", "c"}
        for length in {*range(70), *range(70, len(content), 37), len(content) - 1}:
            path.write_bytes(content[:length])
            assert "refused" in unpickle.extract(str(path), str(tmp_path / "copy"))
        refused(path)


def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path: Path, whole: Path) -> None:
    content, wanted, path = whole.read_bytes(), read_checkpoint(whole), tmp_path / "w.pt"
    rng, kept = random.Random(0), 0
    for _ in range(400):
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
        if said := unpickle.extract(str(path), str(tmp_path / "copy")):
            assert said.keys() == {"refused"} and "\n" not in said["refused"]
            continue
        kept += 1
        found = load_weights(tmp_path / "copy")
        assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert 0 < kept < 300


OTHERS = {
    "nothing": (b"", "it is empty"),
    "a web page": (b"\n<!DOCTYPE html><html>Not found</html>", "it is a web page, so the download failed"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a file of torch, safetensors or numpy"),
    "a sound": (b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(100), "not a file of torch, safetensors or numpy"),
    "a list of numbers": (pickle.dumps([1, 2, 3]), "a pickle, but not one of torch"),
    "a text": (b"hello", "not a file of torch, safetensors or numpy"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_named(tmp_path: Path, kind: str) -> None:
    content, said = OTHERS[kind]
    (tmp_path / "w.pt").write_bytes(content)
    assert said in refused(tmp_path / "w.pt")


def test_a_program_of_torch_is_named(tmp_path: Path) -> None:
    archive(tmp_path / "w.pt", {"m/data.pkl": b"", "m/constants.pkl": b"", "m/code/a.py": b""})
    assert "TorchScript program, which has code; save its state_dict" in refused(tmp_path / "w.pt")


def test_a_zip_of_anything_and_a_folder_are_named(tmp_path: Path) -> None:
    assert "a zip file without tensors of torch" in refused(archive(tmp_path / "w.pt", {"readme": b"hello"}))
    assert "there is no such file" in refused(tmp_path)


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.pt", {"a": torch.ones(2)})
    assert read_checkpoint(tmp_path / "w.pt")["a"].tolist() == [1, 1]
    torch.save({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    assert "not a complete safetensors file" in refused(tmp_path / "w.safetensors")


class Callback:
    """Lightning's older checkpoints name the class of each callback beside its settings."""


def test_settings_and_optimizers_beside_the_weights_do_no_harm(tmp_path: Path) -> None:
    import argparse
    from collections import defaultdict

    content = {
        "state_dict": {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.nn.Parameter(torch.ones(3, 2).T)},
        "args": argparse.Namespace(lr=1e-3, device=torch.device("cpu"), dtype=torch.float32),
        "optimizer": {"state": defaultdict(dict, {0: {"step": torch.ones(())}})},
        "score": np.float64(0.5),
        "path": Path("x"),
        "size": torch.Size([2, 3]),
        "callbacks": {Callback: {"best": 0.5}},
    }
    for legacy in (False, True):
        torch.save({**content, "callbacks": [Callback()]}, tmp_path / "w.ckpt")
        assert "Callback to load, which could run code" in refused(tmp_path / "w.ckpt")
        torch.save(content, tmp_path / "w.ckpt", _use_new_zipfile_serialization=not legacy)
        found = read_checkpoint(tmp_path / "w.ckpt")
        assert found.keys() == {"a", "b"} and found["a"].dtype == torch.bfloat16 and found["b"].shape == (2, 3)


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(Passt(PasstConfig(num_classes=4, dim=16, num_heads=1, depth=2, stride=16)).state_dict())


def conversion_refused(folder: Path, tensors: dict[str, Tensor], **options: Any) -> str:
    """The sentence; the bundle that was there before is still there, and nothing else."""
    torch.save(tensors, folder / "w.pt")
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(WeightsRefused) as error:
        convert_checkpoint(folder / "w.pt", output=folder / "bundle", **options)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert str(error.value).startswith(f"{folder / 'w.pt'}: ") and "\n" not in str(error.value)
    return str(error.value)


EVERY = sorted(Passt(PasstConfig(num_classes=4, dim=16, num_heads=1, depth=2, stride=16)).state_dict())


@pytest.mark.parametrize("name", EVERY)
def test_one_tensor_missing_misshapen_or_not_finite_is_named(
    tmp_path: Path, state: dict[str, Tensor], name: str
) -> None:
    save_weights(tmp_path / "w.safetensors", state)
    assert name in conversion_refused(tmp_path, {key: t for key, t in state.items() if key != name})
    wrong = torch.cat([state[name], state[name]])
    said = conversion_refused(tmp_path, state | {name: wrong})
    if "pos_embed" not in name:
        assert f"1 misshapen ({name} {tuple(wrong.shape)}, wanted {tuple(state[name].shape)}" in said
    broken = state[name].clone()
    broken.flatten()[-1] = float("nan")
    assert conversion_refused(tmp_path, state | {name: broken}).endswith(f"tensor {name} has NaN or infinity.")


def test_tables_of_positions_tell_of_another_length(tmp_path: Path, state: dict[str, Tensor]) -> None:
    said = conversion_refused(tmp_path, state | {"freq_new_pos_embed": torch.zeros(1, 16, 11, 1)})
    assert "no stride of 10, 12, 14, 16, 20 gives 11 x 62 positions" in said


def test_a_tensor_too_much_and_numbers_of_another_kind_are_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    assert "1 unexpected (extra (2, 3))" in conversion_refused(tmp_path, state | {"extra": torch.ones(2, 3)})
    whole = state["norm.weight"].long()
    assert "not of floating point (norm.weight)" in conversion_refused(tmp_path, state | {"norm.weight": whole})


def test_blocks_with_a_gap_or_a_number_of_2_62_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    gap = {name.replace("blocks.1.", "blocks.7."): tensor for name, tensor in state.items()}
    assert "missing (blocks.1." in conversion_refused(tmp_path, gap)
    conversion_refused(tmp_path, {name.replace("blocks.1.", f"blocks.{HUGE}."): t for name, t in state.items()})


def test_a_network_of_somebody_else_is_named(tmp_path: Path) -> None:
    said = conversion_refused(tmp_path, {"conv1.weight": torch.ones(3, 2), "fc.bias": torch.ones(2)})
    assert "not the weights of a network that ossicle has (Ast, Datar, Passt); found conv1.weight (3, 2)" in said


def test_a_refusal_leaves_the_older_bundle(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "w.pt")
    convert_checkpoint(tmp_path / "w.pt", output=tmp_path / "bundle", labels=["a", "b", "c", "d"])
    conversion_refused(tmp_path, {name: tensor for name, tensor in state.items() if name != "cls_token"})
    assert load_bundle(tmp_path / "bundle").labels == ("a", "b", "c", "d")


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be longer than this, as on a disk that is full by then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_disk_that_is_full_in_the_middle_leaves_nothing(
    tmp_path: Path, state: dict[str, Tensor], suffix: str, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / f"w{suffix}"
    save_weights(path, state) if suffix == ".safetensors" else torch.save(state, path)
    request.getfixturevalue("small_files")
    with pytest.raises(OSError) as error:
        convert_checkpoint(path, output=tmp_path / "bundle")
    assert error.value.errno == errno.EFBIG and error.value.filename is not None
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
