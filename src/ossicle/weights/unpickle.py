"""Copies the tensors of a foreign checkpoint into a safetensors file; the only module that opens pickles.

`ossicle.weights.foreign` runs this file as a process of its own, with limits on memory, processor time and written
bytes, and without network, other programs or other files to write. There, names in a pickle are looked up in two short
lists and never imported: what rebuilds a tensor becomes a description of bytes in the file, what is known to be
harmless (settings of a training) becomes an empty object, and anything else is refused when it is called. Sizes are
compared with the bytes that are there before anything is read, and bytes are copied in small parts, so the process
needs no memory for the weights. It needs no torch either.

Formats: torch's zip archives (since 1.6) and its older files, and numpy's .npz.
"""

import ast
import contextlib
import io
import json
import math
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

MAX_BYTES = 8 * 2**30  # of all tensors together
MAX_PICKLE = 2**26  # bytes of the pickle, which has only names and shapes
MAX_TENSORS = 100_000
MEMORY = 2**30  # address space
PART = 2**20  # bytes copied at a time

# torch's storages and numpy's types, by the names of safetensors.
STORAGES = {
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
NUMPY = {
    "f4": "F32",
    "f8": "F64",
    "f2": "F16",
    "i8": "I64",
    "i4": "I32",
    "i2": "I16",
    "i1": "I8",
    "u1": "U8",
    "b1": "BOOL",
}
SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

# Settings, scores and versions beside the weights: read as nothing.
HARMLESS = {
    ("argparse", "Namespace"),
    ("collections", "defaultdict"),
    ("collections", "Counter"),
    ("_codecs", "encode"),
    ("datetime", "datetime"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "WindowsPath"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch", "Tensor"),
    ("torch.nn.parameter", "Parameter"),
    ("torch.torch_version", "TorchVersion"),
    ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("lightning.pytorch.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("pytorch_lightning.utilities.parsing", "AttributeDict"),
    ("lightning.fabric.utilities.data", "AttributeDict"),
    ("lightning_fabric.utilities.data", "AttributeDict"),
    ("yacs.config", "CfgNode"),
}

HARMLESS |= {
    (module, name) for module in ("builtins", "__builtin__") for name in ("dict", "list", "set", "int", "float")
}
# Types of numbers, where a setting names one.
HARMLESS |= {
    ("torch", name) for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")
}

# The magic number and the protocol at the beginning of torch's older files.
LEGACY = (0x1950A86A20F9469CFC6C, 1001)

# Trained weights and their averages: entries of a file.
ENTRIES = {
    "state_dict": ("state_dict_ema", "ema_state_dict", "model_ema", "ema"),
    "model": ("model_ema", "ema_model", "ema"),
}


class Refused(Exception):
    """A clause that says what is wrong with the file."""


class Storage(NamedTuple):
    """A run of numbers in the file."""

    key: str
    dtype: str
    numel: int


class Stored(NamedTuple):
    """A tensor as a view of a storage; offset and strides in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Nothing:
    """Stands for every object that is not needed; takes whatever a pickle does to it and keeps nothing."""

    __slots__ = ()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **named: Any) -> "Nothing":
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __hash__(self) -> int:
        return 0

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass


class Unknown:
    """Stands for a name that is in neither list, such as a class as the key of its settings; cannot be called."""

    name = ""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        raise Refused(f"it needs {shown(cls.name)} to load, which could run code; expected only tensors")


class Entries(OrderedDict[Any, Any]):
    """A dictionary whose attributes, such as the versions of modules, are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class Kind(NamedTuple):
    """A type of storage."""

    dtype: str


def view(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Stored | Nothing:
    """In place of `torch._utils._rebuild_tensor_v2`."""
    if not isinstance(storage, Storage):
        return Nothing()
    shape, stride = tuple(shape), tuple(stride)
    if not all(isinstance(number, int) and number >= 0 for number in (offset, *shape, *stride)):
        raise Refused("a tensor has a shape or stride that is no whole number")
    if len(shape) != len(stride):
        raise Refused(shown(f"a tensor has the shape {shape} and the strides {stride}"))
    return Stored(storage, offset, shape, stride)


def parameter(data: Any = None, *rest: Any) -> Any:
    """In place of `torch._utils._rebuild_parameter`."""
    return data


def typed(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """In place of `torch._tensor._rebuild_from_type_v2`."""
    return function(*arguments)


class Call:
    """A function that a pickle may call, without attributes that it could change."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Refused("the pickle changes a function")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._function(*arguments, **named)


REBUILDING: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): Entries,
    ("torch._utils", "_rebuild_tensor"): view,
    ("torch._utils", "_rebuild_tensor_v2"): view,
    ("torch._tensor", "_rebuild_from_type_v2"): typed,
    ("torch._utils", "_rebuild_parameter"): parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): parameter,
}


class TensorUnpickler(pickle.Unpickler):
    """Reads a pickle whose names are all in the two lists; tensors become `Stored`."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in REBUILDING:
            return Call(REBUILDING[module, name])
        if module in ("torch", "torch.storage") and name in STORAGES:
            return Kind(STORAGES[name])
        if (module, name) in HARMLESS:
            return Nothing
        return type("Unknown", (Unknown,), {"name": f"{module}.{name}"})

    def persistent_load(self, given: Any) -> Storage:
        if not (isinstance(given, tuple) and len(given) >= 5 and given[0] == "storage"):
            raise Refused("it refers to something that is no storage of numbers")
        if not isinstance(given[1], Kind):
            raise Refused(f"it has a storage of {shown(getattr(given[1], 'name', 'an unknown kind'))}")
        (_, kind, key, _, numel), views = given[:5], given[5:]
        if not isinstance(numel, int) or not 0 <= numel <= MAX_BYTES:
            raise Refused(f"a storage claims {numel:,} numbers" if isinstance(numel, int) else "a storage has no size")
        storage = Storage(str(key), kind.dtype, numel)
        if any(views) or self.storages.setdefault(storage.key, storage) != storage:
            raise Refused(f"storage {shown(storage.key)} is described in two ways")
        return storage


def shown(text: str) -> str:
    """A text of the file for a message: short, and in one line."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else text[:77] + "..."


# --- files -----------------------------------------------------------------------------------------------------------


class Source(NamedTuple):
    """The tensors of a file, and how to read a storage: an open file at its first byte, and its bytes."""

    tensors: Mapping[str, Stored]
    open: Callable[[Storage], tuple[io.BufferedIOBase, int]]


def read_source(file: io.BufferedIOBase) -> Source:
    """The tensors of a file of any supported format, by what it begins with."""
    head = file.read(64)
    file.seek(0)
    if head[:4] == b"PK\x03\x04":
        archive = zipfile.ZipFile(file)
        names = archive.namelist()
        return read_npz(archive) if any(name.endswith(".npy") for name in names) else read_zip(archive, names)
    if head[:1] == b"\x80":
        return read_legacy(file)
    if not head:
        raise Refused("it is empty")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise Refused("it is a web page, so the download failed; fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise Refused("it is a pointer of Git LFS; fetch the file itself")
    raise Refused("it is not a file of torch, safetensors or numpy")


def read_zip(archive: zipfile.ZipFile, names: list[str]) -> Source:
    """A file of torch since 1.6: a pickle, and an entry for each storage."""
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refused("it is a zip file without tensors of torch")
    root = pickles[0].removesuffix("data.pkl")
    if root + "constants.pkl" in names or any(name.startswith(root + "code/") for name in names):
        raise Refused("it is a TorchScript program, which has code; save its state_dict instead")
    if root + "byteorder" in names and entry(archive, root + "byteorder", at_most=16)[0].read().strip() == b"big":
        raise Refused("its numbers are big-endian; expected little-endian")
    pickled = entry(archive, pickles[0], at_most=MAX_PICKLE)[0].read()  # to its end, where the checksum is compared
    tensors = unwrap(TensorUnpickler(io.BytesIO(pickled)).load())
    return Source(tensors, lambda storage: entry(archive, f"{root}data/{storage.key}", at_most=MAX_BYTES))


def entry(archive: zipfile.ZipFile, name: str, *, at_most: int) -> tuple[io.BufferedIOBase, int]:
    """An entry of an archive, open, and its size."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise Refused(f"{shown(name)} is missing in it") from None
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise Refused(f"{shown(name)} is compressed, which torch and numpy do not do")
    if info.file_size > at_most:
        raise Refused(
            f"{shown(name)} has {info.file_size / 2**30:.1f} GB; at most {at_most / 2**30:.2g} GB are allowed"
        )
    return cast(io.BufferedIOBase, archive.open(info)), info.file_size


def read_legacy(file: io.BufferedIOBase) -> Source:
    """A file of torch before 1.6: five pickles, then each storage after its length."""
    for expected in LEGACY:
        if TensorUnpickler(file).load() != expected:
            raise Refused("it is a pickle, but not one of torch")
    TensorUnpickler(file).load()  # sizes of types on the machine that wrote it
    unpickler = TensorUnpickler(file)
    tensors = unwrap(unpickler.load())
    keys = TensorUnpickler(file).load()
    places, place, end = {}, file.tell(), os.fstat(file.fileno()).st_size
    for key in keys:
        storage = unpickler.storages.get(key)
        if storage is None:
            raise Refused(f"storage {shown(str(key))} is of no tensor")
        file.seek(place)
        length = file.read(8)
        places[key] = place + 8
        place += 8 + storage.numel * SIZES[storage.dtype]
        if place > end:
            raise Refused(f"it is cut off: it has {end:,} bytes of at least {place:,}")
        if struct.unpack("<q", length) != (storage.numel,):
            raise Refused(f"storage {shown(key)} has another length than its tensors")

    def open_at(storage: Storage) -> tuple[io.BufferedIOBase, int]:
        if storage.key not in places:
            raise Refused(f"storage {shown(storage.key)} is missing in it")
        file.seek(places[storage.key])
        return file, storage.numel * SIZES[storage.dtype]

    return Source(tensors, open_at)


def read_npz(archive: zipfile.ZipFile) -> Source:
    """Arrays of numpy, each an entry with its shape; arrays of Python objects, which are pickles, are left out."""
    tensors, headers = {}, {}
    for name in archive.namelist():
        if not name.endswith(".npy"):
            continue
        file, size = entry(archive, name, at_most=MAX_BYTES)
        with file:
            start = file.read(10)
            if start[:6] != b"\x93NUMPY" or start[6:7] not in b"\x01\x02\x03":
                raise Refused(f"{shown(name)} is no array of numpy")
            wide = start[6] > 1
            length = int.from_bytes(start[8:10] + (file.read(2) if wide else b""), "little")
            if length > 2**16:
                raise Refused(f"{shown(name)} has a header of {length:,} bytes")
            header = ast.literal_eval(file.read(length).decode("latin-1"))
        shape, kind = tuple(header["shape"]), str(header["descr"])
        if kind[:1] not in ("<", "|") or kind[1:] not in NUMPY:
            continue
        if not all(isinstance(number, int) and number >= 0 for number in shape):
            raise Refused(shown(f"{name} has the shape {shape}"))
        storage = Storage(name, NUMPY[kind[1:]], math.prod(shape))
        stride = steps(shape[::-1])[::-1] if header["fortran_order"] else steps(shape)
        tensors[name.removesuffix(".npy")] = Stored(storage, 0, shape, stride)
        headers[name] = (12 if wide else 10) + length

    def open_array(storage: Storage) -> tuple[io.BufferedIOBase, int]:
        file, size = entry(archive, storage.key, at_most=MAX_BYTES)
        file.read(headers[storage.key])
        return file, size - headers[storage.key]

    return Source(tensors, open_array)


def unwrap(content: Any) -> dict[str, Stored]:
    """The named tensors of a checkpoint, at the top level or inside `model` or `state_dict`.

    If the file has an average in another entry, its names get the prefix `model_ema.`, the others `model.`.
    """
    for key in ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            beside = [name for name in ENTRIES[key] if isinstance(content.get(name), Mapping)]
            if beside:
                content = {
                    **{f"model.{name}": value for name, value in content[key].items()},
                    **{f"model_ema.{name}": value for name, value in content[beside[0]].items()},
                }
            else:
                content = content[key]
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Stored)}


def steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of an array without gaps, in numbers."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


# --- writing ---------------------------------------------------------------------------------------------------------


def write_tensors(source: Source, target: io.BufferedIOBase) -> None:
    """Writes the tensors as a safetensors file; each is compared with the bytes of its storage first."""
    if not source.tensors:
        raise Refused("no named tensors found; expected a state dict")
    if len(source.tensors) > MAX_TENSORS:
        raise Refused(f"it has {len(source.tensors):,} tensors; at most {MAX_TENSORS:,} are allowed")
    header, end = {}, 0
    for name, tensor in source.tensors.items():
        size = math.prod(tensor.shape) * SIZES[tensor.storage.dtype]
        last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True))
        if size > MAX_BYTES or end + size > MAX_BYTES:
            raise Refused(
                f"its tensors have more than {MAX_BYTES / 2**30:.0f} GB, with {shown(f'{name} {tensor.shape}')}"
            )
        if size and last >= tensor.storage.numel:
            raise Refused(
                f"{shown(f'{name} {tensor.shape}')} reads number {last:,} of a storage of {tensor.storage.numel:,}"
            )
        header[name] = {"dtype": tensor.storage.dtype, "shape": tensor.shape, "data_offsets": (end, end + size)}
        end += size
    if "__metadata__" in header:
        raise Refused("a tensor is called __metadata__")
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    target.write(struct.pack("<Q", len(text)) + text)
    for name, tensor in source.tensors.items():
        copy(tensor, name, source, target)


def copy(tensor: Stored, name: str, source: Source, target: io.BufferedIOBase) -> None:
    """Copies the bytes of a tensor in the order of its shape."""
    size, count = SIZES[tensor.storage.dtype], math.prod(tensor.shape)
    file, length = source.open(tensor.storage)
    if length != tensor.storage.numel * size:
        raise Refused(f"the storage of {shown(name)} has {length:,} bytes; expected {tensor.storage.numel * size:,}")
    if not count:
        return
    file.seek(tensor.offset * size, os.SEEK_CUR)
    if all(n == 1 or a == b for n, a, b in zip(tensor.shape, tensor.stride, steps(tensor.shape), strict=True)):
        for part in parts(file, count * size, name):
            target.write(part)
        return
    import numpy as np

    span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
    numbers = np.frombuffer(b"".join(parts(file, span * size, name)), dtype=f"V{size}")
    strides = tuple(size * step for step in tensor.stride)
    target.write(np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False).tobytes())


def parts(file: io.BufferedIOBase, length: int, name: str) -> Iterator[bytes]:
    """The next bytes of a file; a whole entry of a zip file is compared with its checksum at its end."""
    while length:
        part = file.read(min(PART, length))
        if not part:
            raise Refused(f"it is cut off in {shown(name)}")
        length -= len(part)
        yield part


# --- the process -----------------------------------------------------------------------------------------------------

FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pty.")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def confine(cpu_seconds: int) -> None:
    """Limits this process: memory, time, written bytes, no network, no other programs, no other files."""
    with contextlib.suppress(ImportError):  # Windows
        import resource

        for limit, most in (
            (resource.RLIMIT_AS, MEMORY),
            (resource.RLIMIT_CPU, cpu_seconds),
            (resource.RLIMIT_FSIZE, MAX_BYTES + MAX_PICKLE),
            (resource.RLIMIT_CORE, 0),
        ):
            soft, hard = resource.getrlimit(limit)
            with contextlib.suppress(OSError, ValueError):  # a system without such a limit
                # The signal for the first of the two limits says which one it was.
                resource.setrlimit(limit, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard))

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN) or event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            raise Refused(f"reading it tried {event}, which it must not")

    sys.addaudithook(watch)


def extract(path: str, target: str, *, begin: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Copies the tensors of one file into another, and says what kept it from that.

    Args:
        begin: called when both are open
    """
    try:
        with open(path, "rb") as file, open(target, "wb") as out:
            begin()
            write_tensors(read_source(file), out)
    except Refused as refused:
        return {"refused": str(refused)}
    except MemoryError:
        return {"refused": f"reading it needs more than {MEMORY / 2**30:.0f} GB of memory"}
    except OSError as error:
        if error.errno is not None:
            return {"errno": error.errno}
        return {"refused": f"it is damaged ({shown(str(error))})"}
    # Damaged bytes raise errors of any type, and none of them is a mistake of ours.
    except Exception as error:
        return {"refused": f"it is damaged or cut off ({shown(str(error).strip() or type(error).__name__)})"}
    return {}


if __name__ == "__main__":
    print(json.dumps(extract(sys.argv[1], sys.argv[2], begin=lambda: confine(int(sys.argv[3])))))
