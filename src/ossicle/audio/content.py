"""File type by the first bytes: for error messages only, never to choose a decoder."""

import codecs
from pathlib import Path

HEAD_BYTES = 512

# (offset, magic, what it is), first match wins. Those called a recording are expected to decode.
SIGNATURES = (
    (0, b"version https://git-lfs", "a Git LFS pointer, the recording itself was not downloaded"),
    (0, b"#EXTM3U", "a playlist"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"PK\x05\x06", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"SQLite format", "a database"),
    (8, b"WAVE", "a WAV recording"),
    (0, b"fLaC", "a FLAC recording"),
    (0, b"OggS", "an OGG recording"),
    (8, b"AIFF", "an AIFF recording"),
    (8, b"AIFC", "an AIFF recording"),
    (0, b"caff", "a CAF recording"),
    (0, b".snd", "an AU recording"),
    (0, b"NIST_1A", "a SPHERE recording"),
    (4, b"ftyp", "an MP4 or M4A recording"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska recording"),
    (0, b"\x30\x26\xb2\x75", "a WMA recording"),
    (0, b"ID3", "an MP3 recording"),
    (0, b"\xff\xfb", "an MP3 recording"),
)


def describe_content(path: Path) -> tuple[str, bool]:
    """Describes the type of a file by its first bytes, and whether it may be audio."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    for offset, magic, kind in SIGNATURES:
        if head[offset:].startswith(magic):
            return kind, kind.endswith("recording")
    if is_text(head):
        start = head.lstrip().lower()
        return "a web page" if start.startswith((b"<!doctype html", b"<html")) else "text", False
    return f"of an unknown kind (first bytes {head[:8].hex(' ')})", True


def is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8 or marked UTF-16, without control characters; a character cut at the end is fine."""
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\r\f" for character in text)
