"""The recordings, or other files of some kind, below a folder."""

import os
from collections.abc import Callable, Collection
from pathlib import Path

from ossicle.errors import DataRefused
from ossicle.files import printable

# Lower case. A suffix only selects files of a folder; the type of a file is detected from its content.
AUDIO_SUFFIXES = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .aiff .aif .aifc .caf .au .w64 .rf64 .sph .voc "
    ".m4a .m4b .mp4 .m4v .mov .3gp .3g2 .aac .ac3 .eac3 .amr .wma .wmv .asf .webm .mka .mkv .avi .flv "
    ".mp2 .mpg .mpeg .mts .m2ts .ogv .wv .ape .tta".split()
)

Unlisted = Callable[[str, str], None]  # a folder and the reason, a sentence


def find_audio(folder: str | os.PathLike[str], *, unlisted: Unlisted | None = None) -> list[Path]:
    """Lists the files below `folder` whose suffix, in any case, is one of `AUDIO_SUFFIXES`; see `find_files`."""
    return find_files(folder, AUDIO_SUFFIXES, unlisted=unlisted)


def find_files(
    folder: str | os.PathLike[str], suffixes: Collection[str], *, unlisted: Unlisted | None = None
) -> list[Path]:
    """Lists the files below `folder` whose suffix, in lower case, is one of `suffixes`, sorted by relative path.

    Hidden files and folders (a leading dot: copies in progress, resource forks) are left out.
    Links to folders are followed, each folder once.

    Args:
        unlisted: called for a folder that cannot be listed; by default that is an error

    Raises:
        DataRefused: `folder` is missing, is not a folder, or a folder below it cannot be listed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataRefused(
            f"{folder}: {'this is a file' if root.exists() else 'there is no such folder'}; name a folder"
        )

    def refuse(error: OSError) -> None:
        sentence = f"{printable(error.filename)}: this folder cannot be listed ({error.strerror})"
        if unlisted is None:
            raise DataRefused(sentence) from error
        unlisted(error.filename, sentence)

    found = []
    seen = set()
    for parent, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:  # a link back to a folder above, or a second way in
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(parent, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes
        ]
    return sorted(found, key=lambda path: path.relative_to(root).parts)
