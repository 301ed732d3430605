"""Recordings that judge the encoder and must never train it: none of them, and nothing that nearly repeats one.

ESC-50 (with its ESC-10 rows), FSDD, EmoDB and RAVDESS lie in a folder beside the checkout; the drum hits and loops are
the project's own. Whole kits of the drums are left out by name in `sources`, since another stroke on the same drum is
no near-duplicate and would still give the test away.
"""

from pathlib import Path

import numpy as np

from ossicle.audio import find_audio, read_clip
from ossicle.files import write_atomically
from pretraining.clips import RATE, SECONDS
from pretraining.duplicates import BANDS, VERSION, Print, fingerprint

ROOT = Path(__file__).resolve().parent.parent
SETS = ("esc50", "fsdd", "emodb", "ravdess")


def judged_prints(data: Path, cache: Path) -> tuple[list[Print], list[str]]:
    """Fingerprints of all judged recordings, and their names; kept in `cache`.

    Raises: SystemExit where a set is missing, since a corpus that was not compared with it cannot be judged by it.
    """
    missing = [name for name in SETS if not (data / name / "audio").is_dir()]
    if missing:
        raise SystemExit(
            f"{data} lacks {', '.join(missing)}: near-duplicates of the sets that judge the encoder cannot be found; "
            "name the folder that holds them with --judged"
        )
    paths = find_audio(ROOT / "examples" / "drums")
    paths += [path for name in SETS for path in find_audio(data / name / "audio")]
    names = [str(path.relative_to(ROOT if ROOT in path.parents else data)) for path in paths]
    if cache.exists():
        stored = np.load(cache)
        if stored["names"].tolist() == names and "version" in stored and int(stored["version"]) == VERSION:
            return np.split(stored["prints"], np.cumsum(stored["frames"])[:-1]), names
    prints = [fingerprint(read_clip(path, RATE, end=SECONDS).samples) for path in paths]
    columns = {
        "names": np.array(names),
        "version": np.array(VERSION),
        "frames": np.array([len(one) for one in prints]),
        "prints": np.concatenate(prints).reshape(-1, BANDS),
    }
    write_atomically(cache, lambda path: save(path, columns))
    return prints, names


def save(path: Path, columns: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **columns)
