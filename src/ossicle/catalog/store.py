"""The local store of published weights: one folder for each name, beside the caches (`$OSSICLE_CACHE/weights`).

    weights/
        passt_base_s10.audioset_ap476/     a bundle (a start: model.safetensors alone), and
            source.json                    where it came from: address, size and SHA-256 of the file as published, when,
                                           and the SHA-256 of each file here
        pinned.json                        hashes that no source states, from the first download of each
        .downloads/                        what has arrived of files that are not complete

A folder appears as a whole: it is made beside and renamed.
"""

import contextlib
import dataclasses
import datetime
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ossicle import __version__
from ossicle.catalog import download
from ossicle.catalog.download import begins
from ossicle.catalog.rows import Checkpoint, checkpoints, shapes_digest
from ossicle.errors import WeightsRefused
from ossicle.files import beside, cache_folder, locked, refuse_unwritable, sha256, sync_folder, write_json

logger = logging.getLogger(__name__)

SOURCE, PINNED, DOWNLOADS = "source.json", "pinned.json", ".downloads"
TENSORS = "model.safetensors"
POLL = 0.2  # seconds between two looks at a lock


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file as its authors publish it, on this machine."""

    path: Path
    url: str
    bytes: int
    sha256: str


def store_folder() -> Path:
    return cache_folder() / "weights"


def kept_folder(row: Checkpoint) -> Path | None:
    """The folder of the weights of that name, if they are in the package or in the store."""
    if row.package_folder is not None:
        return row.package_folder
    folder = store_folder() / row.name
    return folder if (folder / SOURCE).is_file() and (folder / TENSORS).is_file() else None


def kept() -> list[Checkpoint]:
    """The rows of the catalogue that are in the store, whole or damaged."""
    return [row for row in checkpoints().values() if (store_folder() / row.name / SOURCE).is_file()]


def kept_bytes(row: Checkpoint) -> int:
    """The size on disk of the weights of that name, and of what has arrived of them."""
    folder = store_folder() / row.name
    files = [*folder.glob("*"), _arriving(row), beside(_arriving(row), ".part")]
    return sum(path.stat().st_size for path in files if path.is_file())


def fetch(row: Checkpoint, path: Path) -> Published:
    """Downloads the file of a row as it is published, and says so; its hash is compared, and pinned by `pin`.

    Raises: WeightsRefused without a network, with a sentence on what to do; and as `download`.
    """
    if variable := download.offline():
        raise WeightsRefused(
            f"{row.name} is not in {store_folder()}, and {variable} forbids the network: {by_hand(row)}."
        )
    url = download.mirrored(row.url)
    trained = f"trained on {row.data}"
    license = f"license of the weights: {row.license_or_unknown}" + (f" ({row.terms})" if row.terms else "")
    logger.warning(f"Fetching {row.name}: {row.size} from {url}; {trained}; {license}.")
    try:
        got = download.download(row.url, path, size=row.bytes, sha256=_expected(row))
    except download.NotReached as error:
        raise WeightsRefused(f"{error} Without a network: {by_hand(row)}.") from None
    except download.OtherFile as error:
        raise WeightsRefused(f"{error}{_since_pinned(row)}") from None
    return Published(path=got.path, url=url, bytes=got.bytes, sha256=got.sha256)


def adopt(row: Checkpoint, file: Path) -> Published:
    """A file that came another way, compared with the row as a download is.

    Raises: WeightsRefused for another file.
    """
    if not file.is_file():
        raise WeightsRefused(f"{file}: there is no such file; {by_hand(row)}.")
    size = file.stat().st_size
    if row.bytes is not None and size != row.bytes:
        raise WeightsRefused(f"{file}: the file has {size:,} bytes; {row.file} of {row.name} has {row.bytes:,}.")
    found, expected = sha256(file), _expected(row)
    if expected and not found.startswith(expected):
        raise WeightsRefused(
            f"{file}: its SHA-256 is {found}, that of {row.file} of {row.name} {begins(expected)}.{_since_pinned(row)}"
        )
    return Published(path=file, url=str(file.absolute()), bytes=size, sha256=found)


def check_shapes(row: Checkpoint, found: str) -> None:
    """Compares a digest of names and shapes where no whole hash has vouched for what was published.

    Raises: WeightsRefused.
    """
    if row.shapes is not None and not row.has_whole_hash and found != row.shapes:
        raise WeightsRefused(
            f"{row.file}: the names and shapes of its tensors have the digest {found}, and those of {row.name} "
            f"{row.shapes}: this is another network."
        )


def header_digest(tensors: Path) -> str:
    """The digest of the names and shapes in a safetensors file that was written here."""
    with open(tensors, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return shapes_digest({name: about["shape"] for name, about in header.items() if name != "__metadata__"})


def pin(row: Checkpoint, published: Published) -> None:
    """Keeps the hash of a file that no source states, once the file has proved to be the network, and says so."""
    if row.has_whole_hash:
        return
    path = store_folder() / PINNED
    with holding(path.with_name(f".{PINNED}.lock"), waiting_for=PINNED):
        pins = _pins()
        if row.name not in pins:
            now = datetime.date.today().isoformat()
            write_json(path, pins | {row.name: {"sha256": published.sha256, "since": now}})
            logger.warning(
                f"No source states the SHA-256 of {row.file}: {published.sha256} is pinned from now on, and another "
                "file is refused."
            )


def unpin(row: Checkpoint) -> None:
    """Forgets the pinned hash of a row."""
    path = store_folder() / PINNED
    with holding(path.with_name(f".{PINNED}.lock"), waiting_for=PINNED):
        write_json(path, {name: pinned for name, pinned in _pins().items() if name != row.name})


def settle(row: Checkpoint, *, wanted: Callable[[Path], Published], convert: Callable[[Published, Path], None]) -> Path:
    """The folder of a row in the store, which is made if it is not there; one process at a time.

    Args:
        wanted: gives the published file; called with the path that a download may take
        convert: writes what the store keeps of it into a folder

    Raises: SettingRefused where the store cannot be written; and as both.
    """
    store = store_folder()
    refuse_unwritable(store, "weights")
    with holding(store / DOWNLOADS / f"{row.name}.lock", waiting_for=row.name) as alone:
        if folder := kept_folder(row):  # another process has done it
            return folder
        arriving = _arriving(row)
        if not alone:
            arriving = arriving.with_name(f"{os.getpid()}-{row.file}")
        for abandoned in store.glob(f".{row.name}.*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        made = store / f".{row.name}.{secrets.token_hex(4)}"
        published = _arrived(row, arriving) or wanted(arriving)
        download.check_space(store, published.bytes)
        try:
            convert(published, made)
            check_shapes(row, header_digest(made / TENSORS))
            _seal(row, published, made)
            pin(row, published)
            _place(made, store / row.name)
            arriving.unlink(missing_ok=True)
        except WeightsRefused:  # it is not what it should be
            arriving.unlink(missing_ok=True)
            raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
        logger.warning(f"Kept in {store / row.name}.")
        return store / row.name


def verify(row: Checkpoint) -> str | None:
    """What is wrong with the weights of that name in the store; None if every byte is as it was kept.

    Raises: WeightsRefused where nothing of that name is there.
    """
    if row.package_folder is not None:
        whole = sha256(row.package_folder / TENSORS) == row.sha256
        return None if whole else f"{TENSORS} is not as the package has it"
    folder = store_folder() / row.name
    if not folder.is_dir():
        raise _not_kept(row)
    try:
        sealed = json.loads((folder / SOURCE).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{SOURCE} is missing or damaged"
    for name, hash in sealed.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256(folder / name) != hash:
            return f"{name} is not as it was kept"
    return None


def source_of(row: Checkpoint) -> dict[str, Any] | None:
    """What source.json says of the weights of that name; None where they are not in the store."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((store_folder() / row.name / SOURCE).read_text())
    return None


def remove(row: Checkpoint) -> int:
    """Removes the weights of that name and what has arrived of them; returns the bytes that this frees.

    Raises: WeightsRefused where nothing of that name is there, or where it is a part of the package.
    """
    if row.package_folder is not None:
        raise WeightsRefused(f"{row.name} is a part of the package, in {row.package_folder}; it stays there.")
    with holding(store_folder() / DOWNLOADS / f"{row.name}.lock", waiting_for=row.name):
        freed = kept_bytes(row)
        if not freed:
            raise _not_kept(row)
        download.forget(_arriving(row))
        _arriving(row).unlink(missing_ok=True)
        shutil.rmtree(store_folder() / row.name, ignore_errors=True)
    return freed


def _not_kept(row: Checkpoint) -> WeightsRefused:
    return WeightsRefused(f"{row.name} is not in {store_folder()}; `ossicle models list --weights` shows what is.")


def by_hand(row: Checkpoint) -> str:
    """What to do where there is no network, as the end of a sentence."""
    return (
        f"on a machine with one, download {row.url} ({row.size}), or `ossicle models fetch {row.name} --to DIR`; then "
        f"here `ossicle models add {row.file} --as {row.name}`"
    )


@contextlib.contextmanager
def holding(path: Path, *, waiting_for: str) -> Iterator[bool]:
    """Locks a file for this process; waits for another one that has it, and says so once. False without locks."""
    with contextlib.ExitStack() as stack:
        said = False
        while True:
            try:
                honored = stack.enter_context(locked(path))
                break
            except BlockingIOError:
                if not said:
                    logger.warning(f"Waiting for another process that is at work on {waiting_for}.")
                said = True
                time.sleep(POLL)
        yield honored


def _arriving(row: Checkpoint) -> Path:
    return store_folder() / DOWNLOADS / row.file


def _arrived(row: Checkpoint, path: Path) -> Published | None:
    """The file that an earlier process fetched and could not keep, if it is the right one."""
    if not path.is_file():
        return None
    try:
        return dataclasses.replace(adopt(row, path), url=download.mirrored(row.url))
    except WeightsRefused:
        path.unlink()
        return None


def _pins() -> dict[str, Any]:
    try:
        pins = json.loads((store_folder() / PINNED).read_text())
        return pins if isinstance(pins, dict) else {}
    except (OSError, ValueError):
        return {}


def _expected(row: Checkpoint) -> str | None:
    """The hash that the file must have, or its first digits: the pinned one where the catalogue has no whole one."""
    pinned = None if row.has_whole_hash else pinned_hash(row)
    return pinned or row.sha256


def pinned_hash(row: Checkpoint) -> str | None:
    """The hash of the first download, where no source states one."""
    pinned = _pins().get(row.name)
    return pinned.get("sha256") if isinstance(pinned, dict) else None


def _since_pinned(row: Checkpoint) -> str:
    """What to do where a pinned hash refuses a file, as a further sentence."""
    if row.has_whole_hash or pinned_hash(row) is None:
        return ""
    return (
        f" It was pinned on {_pins()[row.name].get('since')}; if the authors have replaced the file, forget it by "
        f"`ossicle models remove {row.name} --forget-hash`."
    )


def _seal(row: Checkpoint, published: Published, folder: Path) -> None:
    content = {
        "name": row.name,
        "url": published.url,
        "bytes": published.bytes,
        "sha256": published.sha256,
        "license": row.license,
        "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "library_version": __version__,
        "files": {path.name: sha256(path) for path in sorted(folder.iterdir())},
    }
    write_json(folder / SOURCE, content)


def _place(made: Path, folder: Path) -> None:
    """Renames a folder into the store; what was there without being complete goes."""
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(made, folder)
    sync_folder(folder.parent)
