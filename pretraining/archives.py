"""The sounds in a package: its own files, and those that games pack in archives or in one large file.

    zip, pk3, pk4, jar, wz    zip archives
    wad                       id Software's; lumps named DS*: 8-byte header, unsigned bytes
    rcc                       Qt's compiled resources: a tree of names, contents plain or compressed by zlib
    cat                       OpenTTD's sound set: WAVE files one after another, told apart by their headers

A sound inside an archive is called ARCHIVE!NAME.
"""

import io
import re
import struct
import wave
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pretraining.debian import copy_out, members

SOUNDS = frozenset(".wav .ogg .oga .opus .flac .mp3 .aiff .aif .au .g722 .gsm".split())
HEADERLESS = {".g722": ("g722", 16_000), ".gsm": ("gsm", 8_000)}
RCC_COMPRESSED, RCC_FOLDER, RCC_ZSTD = 1, 2, 4

Contents = Iterator[tuple[str, bytes]]


def take_out(package: Path, folder: Path) -> tuple[list[tuple[str, Path]], str]:
    """Copies every sound of a package into `folder`: what each is called and where it lies; and the copyright file."""
    found: list[tuple[str, Path]] = []
    text = ""
    archives: list[tuple[str, Path]] = []
    with members(package) as entries:
        for name, entry, archive in entries:
            suffix = Path(name).suffix.lower()
            copyright_file = name.startswith("usr/share/doc/") and name.endswith("/copyright")
            if not entry.isfile() or not (copyright_file or suffix in SOUNDS or suffix in OPENERS):
                continue
            stream = archive.extractfile(entry)
            assert stream is not None
            if copyright_file:
                text = stream.read().decode("utf-8", "replace")
            elif suffix in SOUNDS:
                found.append((name, folder / f"{len(found):06d}{suffix}"))
                copy_out(stream, found[-1][1])
            else:
                archives.append((name, folder / f"archive-{len(archives)}{suffix}"))
                copy_out(stream, archives[-1][1])
    for _, path in found:
        if path.suffix in HEADERLESS:
            with_header(path)
    for name, path in archives:
        for inner, content in OPENERS[path.suffix](path):
            found.append((f"{name}!{inner}", folder / f"{len(found):06d}{Path(inner).suffix.lower()}"))
            found[-1][1].write_bytes(content)
        path.unlink()
    return sorted(found), text


def with_header(path: Path) -> None:
    """Decodes what telephones send (G.722 at 16 kHz, GSM at 8 kHz), which only its suffix tells, and writes a WAVE."""
    import av

    codec, rate = HEADERLESS[path.suffix]
    with av.open(str(path), format=codec, options={} if codec == "g722" else {"sample_rate": str(rate)}) as recording:
        blocks = [frame.to_ndarray().tobytes() for frame in recording.decode(audio=0)]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(b"".join(blocks))


def open_zip(path: Path) -> Contents:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if Path(name).suffix.lower() in SOUNDS:
                    yield name, archive.read(name)


def open_wad(path: Path) -> Contents:
    data = path.read_bytes()
    if data[:4] not in (b"IWAD", b"PWAD"):
        return
    count, at = struct.unpack_from("<ii", data, 4)
    for start, size, name in struct.iter_unpack("<ii8s", data[at : at + 16 * count]):
        title = name.rstrip(b"\0").decode("ascii", "replace")
        lump = data[start : start + size]
        if title.startswith("DS") and size > 8 and lump[:2] == b"\3\0":
            rate, samples = struct.unpack_from("<HI", lump, 2)
            yield f"{title}.wav", unsigned_wave(lump[8 : 8 + samples], rate)


def unsigned_wave(samples: bytes, rate: int) -> bytes:
    """A WAVE file of unsigned bytes."""
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setparams((1, 1, rate, 0, "NONE", ""))
        file.writeframes(samples)
    return held.getvalue()


def open_rcc(path: Path) -> Contents:
    data = path.read_bytes()
    if data[:4] != b"qres":
        return
    version, tree, contents, names = struct.unpack_from(">iiii", data, 4)
    size = 14 if version < 2 else 22  # since version 2 with the time of the last change

    def name_at(offset: int) -> str:
        (length,) = struct.unpack_from(">H", data, names + offset)
        return data[names + offset + 6 :][: 2 * length].decode("utf-16-be")

    def walk(node: int, parents: str) -> Contents:
        name, flags = struct.unpack_from(">iH", data, tree + size * node)
        title = parents + name_at(name) if node else ""
        if flags & RCC_FOLDER:
            count, first = struct.unpack_from(">ii", data, tree + size * node + 6)
            for child in range(first, first + count):
                yield from walk(child, title + "/" if title else "")
        elif Path(title).suffix.lower() in SOUNDS and not flags & RCC_ZSTD:
            (offset,) = struct.unpack_from(">i", data, tree + size * node + 10)
            (length,) = struct.unpack_from(">i", data, contents + offset)
            content = data[contents + offset + 4 :][:length]
            yield title, zlib.decompress(content[4:]) if flags & RCC_COMPRESSED else content

    yield from walk(0, "")


def open_cat(path: Path) -> Contents:
    data = path.read_bytes()
    for number, start in enumerate(match.start() for match in re.finditer(b"RIFF....WAVE", data, re.S)):
        (length,) = struct.unpack_from("<I", data, start + 4)
        yield f"{number:03d}.wav", data[start : start + 8 + length]


OPENERS: dict[str, Callable[[Path], Contents]] = {
    **dict.fromkeys((".zip", ".pk3", ".pk4", ".jar", ".wz"), open_zip),
    ".wad": open_wad,
    ".rcc": open_rcc,
    ".cat": open_cat,
}
