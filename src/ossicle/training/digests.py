"""SHA-256 of every file of a run folder, by which a damaged one is noticed when the run is resumed.

    RUN/.ossicle/digests     the hash of the second line; and, as JSON, for each file those of its last two versions

The hash of a file is written before the file takes its name. So a process that is killed between the two leaves a file
with the hash before the last, and none with an unknown one. Bundles and checkpoints have hashes of their own.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ossicle.errors import RunRefused
from ossicle.files import sha256, write_atomically
from ossicle.jobs.store import HIDDEN

VERSIONS = 2


class Digests:
    """The hashes of the files in a run folder, of several folds too.

    Raises: RunRefused where the file of them is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / HIDDEN / "digests"
        self.known: dict[str, list[str]] = {}
        if self.file.exists():
            seal, _, content = self.file.read_bytes().partition(b"\n")
            if hashlib.sha256(content).hexdigest().encode() != seal:
                raise RunRefused(f"{self.file}: damaged; remove it, and the run goes on without a check of its files.")
            self.known = json.loads(content)

    def note(self, path: Path, temporary: Path) -> None:
        """Adds what a file of the folder is about to be; hidden ones are nobody's result."""
        try:
            relative = path.relative_to(self.folder)
        except ValueError:
            return
        if any(part.startswith(".") for part in relative.parts):
            return
        name = relative.as_posix()
        self.known[name] = [sha256(temporary), *self.known.get(name, [])][:VERSIONS]
        content = json.dumps(self.known).encode()
        write_atomically(self.file, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    def damaged(self, names: Iterable[str] | None = None) -> list[Path]:
        """Which of these files, by default of all, are none that the run wrote; those that are gone are not."""
        paths = {name: self.folder / name for name in self.known if names is None or Path(name).name in names}
        return [path for name, path in paths.items() if path.is_file() and sha256(path) not in self.known[name]]
