"""Builds the corpus: fetches packages, takes sounds out, cuts clips, renders instruments and voices, drops repeats.

    python -m pretraining.corpus -o CORPUS
    python -m pretraining.corpus -o CORPUS --licenses '!GPL-*' '!CC-BY-SA-*'     # without some licenses
    python -m pretraining.corpus -o CORPUS --packages PACKAGES --workers 2

A unit is a package, or one run of a synthesizer. Its clips and its part of the manifest are written before the next
begins: a run that was killed goes on where it stopped, and a finished corpus is only read. Every choice is drawn from
the seed and the name of the unit, so that neither the order nor the number of processes changes a sample.

The corpus holds `clips/UNIT/*.flac`, `manifest.jsonl` (a row for each clip), `left_out.jsonl` (near-duplicates, and
what each repeats), `refused.jsonl` (sounds that do not decode or whose license is not accepted), `copyright/PACKAGE`
and `tables.md`.
"""

import argparse
import dataclasses
import fnmatch
import json
import multiprocessing
import shutil
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from ossicle.errors import OssicleError
from ossicle.files import remove_abandoned, sha256, write_atomically
from pretraining import rendering
from pretraining.archives import take_out
from pretraining.clips import RATE, clips_of
from pretraining.copyright import Stanza, read_copyright, stanza_of
from pretraining.debian import fetch, fetch_with_libraries, package_file, safe_name, unpack, version_of
from pretraining.duplicates import BANDS, VERSION, Print, fingerprint, near_duplicates
from pretraining.judged import ROOT, judged_prints, save
from pretraining.labels import topic_of, weak_label
from pretraining.licenses import allows, canonical
from pretraining.manifest import Row, part_of, read_rows, table, write_rows
from pretraining.sources import SOUNDFONT, SOURCES, TOOLS, VOICE_PACKAGES, VOICES, Source

SEED = 20
FIELDS = ("kind", "license", "package", "topic", "part")  # of the tables


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a build is asked for."""

    folder: Path
    packages: Path
    licenses: list[str]

    def rows_of(self, unit: str) -> Path:
        return self.folder / "units" / f"{unit}.jsonl"

    def prints_of(self, unit: str) -> Path:
        return self.folder / "units" / f"{unit}.npz"

    def refused_by(self, unit: str) -> Path:
        return self.folder / "units" / f"{unit}.refused.jsonl"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One sound on its way to clips."""

    path: str
    file: Path
    license: str
    authors: str
    label: str
    topic: str
    kind: str


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds the corpus that the shipped encoder learns from.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--packages", type=Path, help="folder of downloaded packages [OUTPUT/packages]")
    parser.add_argument(
        "--judged", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the judged sets"
    )
    parser.add_argument("--licenses", nargs="+", default=[], metavar="PATTERN", help="wanted; after '!', unwanted")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    given = parser.parse_args()
    settings = Settings(
        folder=given.output.resolve(),
        packages=(given.packages or given.output / "packages").resolve(),
        licenses=given.licenses,
    )
    check_choice(settings)
    began = time.monotonic()
    fetch([source.package for source in (*SOURCES, SOUNDFONT)] + list(VOICE_PACKAGES), settings.packages)
    tools = fetch_with_libraries(list(TOOLS), settings.packages / "tools")
    tools += [package_file(name, settings.packages) for name in (SOUNDFONT.package, *VOICE_PACKAGES)]
    unpack(tools, settings.packages / "unpacked")
    print(f"packages are there after {time.monotonic() - began:.0f} s", flush=True)

    torch.set_num_threads(1)
    began = time.monotonic()
    units = [source.package for source in SOURCES]
    units += [*rendering.instrument_units(), *rendering.voice_units()]
    build_units([unit for unit in units if not settings.rows_of(unit).exists()], settings, given.workers)
    rows = finish(units, settings, given.judged)
    print(f"{len(rows)} clips, {sum(row.seconds for row in rows) / 3600:.2f} h, {time.monotonic() - began:.0f} s")


def check_choice(settings: Settings) -> None:
    """Stops where the folder holds a corpus of another choice or of other fingerprints: the two would be mixed."""
    stored = settings.folder / "choice.json"
    choice = {"seed": SEED, "licenses": settings.licenses, "fingerprint": VERSION}
    if stored.exists() and json.loads(stored.read_text()) != choice:
        raise SystemExit(f"{settings.folder} was begun with {stored.read_text()}; choose another folder for {choice}")
    write_atomically(stored, json.dumps(choice))
    if (settings.folder / "clips").exists():
        remove_abandoned(settings.folder / "clips", below=True)


def build_units(units: list[str], settings: Settings, workers: int) -> None:
    jobs = [(unit, settings) for unit in units]
    if workers == 1:
        for job in jobs:
            print(build_unit(job), flush=True)
    elif jobs:
        with multiprocessing.get_context("spawn").Pool(
            workers, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            for line in pool.imap_unordered(build_unit, jobs):
                print(line, flush=True)


# --- one unit ---------------------------------------------------------------------------------------------------------


def build_unit(job: tuple[str, Settings]) -> str:
    """Makes the clips of a package or of a synthesizer's run; its part of the manifest is written last."""
    unit, settings = job
    began = time.process_time()
    draw = np.random.default_rng([SEED, zlib.crc32(unit.encode())])
    refused: list[tuple[str, str]] = []
    rows: list[Row] = []
    prints: list[Print] = []
    shutil.rmtree(settings.folder / "clips" / unit, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="ossicle-corpus-") as temporary:
        package, version, source, recordings = RECORDINGS[kind_of(unit)](unit, Path(temporary), settings, draw, refused)
        for recording in recordings:
            if not allows(settings.licenses, recording.license):
                continue
            for row, one in cut(recording, unit, package, version, source, settings, draw, refused):
                rows.append(row)
                prints.append(one)
    keep_prints(settings.prints_of(unit), prints)
    write_rows_of_refused(settings.refused_by(unit), unit, refused)
    write_rows(settings.rows_of(unit), rows)
    hours = sum(row.seconds for row in rows) / 3600
    spent = time.process_time() - began
    return f"{unit}: {len(rows)} clips, {hours:.2f} h, {len(refused)} refused, {spent:.0f} s of processor time"


def kind_of(unit: str) -> str:
    return unit.split("-")[0] if unit.startswith(("instruments-", "voice-")) else "package"


Found = tuple[str, str, Source, Iterator[Recording]]


def of_package(
    unit: str, temporary: Path, settings: Settings, draw: np.random.Generator, refused: list[tuple[str, str]]
) -> Found:
    """The sounds of a Debian package."""
    source = next(source for source in SOURCES if source.package == unit)
    package = package_file(unit, settings.packages)
    sounds, text = take_out(package, temporary)
    write_atomically(settings.folder / "copyright" / unit, text)
    stanzas = read_copyright(text)
    sounds = [sound for sound in sounds if wanted(source, sound[0])]
    if len(sounds) > source.most:
        sounds = [sounds[index] for index in sorted(draw.permutation(len(sounds))[: source.most])]
    return unit, version_of(package), source, licensed(source, stanzas, sounds, refused)


def wanted(source: Source, path: str) -> bool:
    taken = not source.only or any(fnmatch.fnmatchcase(path, pattern) for pattern in source.only)
    return taken and not any(fnmatch.fnmatchcase(path, pattern) for pattern in source.skip)


def licensed(
    source: Source, stanzas: list[Stanza], sounds: list[tuple[str, Path]], refused: list[tuple[str, str]]
) -> Iterator[Recording]:
    """Yields the sounds whose license is known and accepted."""
    for path, file in sounds:
        stanza = stanza_of(stanzas, path.replace("!", "/"))
        named = source.license or (stanza.license if stanza else "")
        license = canonical(named)
        if license is None:
            refused.append((path, f"license {named!r} is not accepted" if named else "no stanza names its license"))
            continue
        yield Recording(
            path=path,
            file=file,
            license=license,
            authors=source.authors or (stanza.authors if stanza else ""),
            label=weak_label(path),
            topic=topic_of(path, source.kind),
            kind=source.kind,
        )


def of_instruments(
    unit: str, temporary: Path, settings: Settings, draw: np.random.Generator, refused: list[tuple[str, str]]
) -> Found:
    """Notes and phrases on the instruments of the sound font."""
    sounds = rendering.instrument_units()[unit](settings.packages / "unpacked", temporary, draw)
    version = version_of(package_file(SOUNDFONT.package, settings.packages))
    recordings = (
        Recording(
            path=sound.path,
            file=sound.file,
            license=SOUNDFONT.license,
            authors=SOUNDFONT.authors,
            label=sound.label,
            topic="drum" if sound.label == "percussion" else "music",
            kind=SOUNDFONT.kind,
        )
        for sound in sounds
    )
    return SOUNDFONT.package, version, SOUNDFONT, recordings


def of_voice(
    unit: str, temporary: Path, settings: Settings, draw: np.random.Generator, refused: list[tuple[str, str]]
) -> Found:
    """Sentences or words of a synthetic voice."""
    voice = next(voice for voice in VOICES if unit.removesuffix("-words") == rendering.unit_of(voice))
    sounds = rendering.voice_units()[unit](settings.packages / "unpacked", temporary, draw)
    held = settings.packages if list(settings.packages.glob(f"{voice.package}_*.deb")) else settings.packages / "tools"
    source = Source(package=voice.package, kind="voice", per_file=1)
    recordings = (
        Recording(
            path=sound.path,
            file=sound.file,
            license=voice.license,
            authors=voice.authors,
            label=sound.label,
            topic="speech",
            kind=source.kind,
        )
        for sound in sounds
    )
    return voice.package, version_of(package_file(voice.package, held)), source, recordings


RECORDINGS: dict[str, Callable[..., Found]] = {
    "package": of_package,
    "instruments": of_instruments,
    "voice": of_voice,
}


def cut(
    recording: Recording,
    unit: str,
    package: str,
    version: str,
    source: Source,
    settings: Settings,
    draw: np.random.Generator,
    refused: list[tuple[str, str]],
) -> Iterator[tuple[Row, Print]]:
    """Writes the clips of a recording, and yields their rows and fingerprints."""
    try:
        clips = list(clips_of(recording.file, most=source.per_file, draw=draw))
    except OssicleError as error:
        refused.append((recording.path, str(error).replace(str(recording.file), recording.file.name)))
        return
    digest = sha256(recording.file)
    for number, (start, samples) in enumerate(clips):
        file = Path("clips", unit, f"{digest[:12]}-{number}-{safe_name(Path(recording.path).stem)[:60]}.flac")
        (settings.folder / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(settings.folder / file, samples, RATE, subtype="PCM_16")
        row = Row(
            file=str(file),
            package=package,
            version=version,
            path=recording.path,
            sha256=digest,
            license=recording.license,
            authors=recording.authors,
            kind=recording.kind,
            label=recording.label,
            topic=recording.topic,
            part=part_of(package, recording.label),
            start=round(start, 4),
            seconds=round(len(samples) / RATE, 4),
        )
        yield row, fingerprint(samples)


def keep_prints(path: Path, prints: list[Print]) -> None:
    columns = {
        "frames": np.array([len(one) for one in prints], np.int64),
        "prints": np.concatenate(prints) if prints else np.zeros((0, BANDS), np.uint8),
    }
    write_atomically(path, lambda temporary: save(temporary, columns))


def write_rows_of_refused(path: Path, unit: str, refused: list[tuple[str, str]]) -> None:
    lines = (json.dumps({"unit": unit, "path": sound, "reason": reason}) + "\n" for sound, reason in refused)
    write_atomically(path, "".join(lines))


# --- all units --------------------------------------------------------------------------------------------------------


def finish(units: list[str], settings: Settings, judged: Path) -> list[Row]:
    """Leaves near-duplicates out and writes the manifest and the tables."""
    known, names = judged_prints(judged, settings.folder / "judged.npz")
    rows: list[Row] = []
    prints: list[Print] = []
    for unit in units:
        found = read_rows(settings.rows_of(unit))
        stored = np.load(settings.prints_of(unit))
        rows += found
        prints += np.split(stored["prints"], np.cumsum(stored["frames"])[:-1]) if found else []
    # A note is much like its neighbor, and is meant to be: what was rendered is compared with the judged sets alone.
    checked = [True] * len(known) + [row.kind not in ("instruments", "voice") for row in rows]
    repeated = near_duplicates([*known, *prints], known=len(known), checked=checked)
    left_out = {later - len(known): earlier for later, earlier in repeated.items()}
    kept = [row for number, row in enumerate(rows) if number not in left_out]
    repeats = [
        {
            **dataclasses.asdict(rows[number]),
            "repeats": names[earlier] if earlier < len(known) else rows[earlier - len(known)].file,
        }
        for number, earlier in sorted(left_out.items())
    ]
    write_lines(settings.folder / "left_out.jsonl", repeats)
    refused = "".join(settings.refused_by(unit).read_text() for unit in units)
    write_atomically(settings.folder / "refused.jsonl", refused)
    write_rows(settings.folder / "manifest.jsonl", kept)
    # Exact copies below one name are one file, which one of them keeps.
    for file in {str(repeat["file"]) for repeat in repeats} - {row.file for row in kept}:
        (settings.folder / file).unlink(missing_ok=True)
    write_atomically(settings.folder / "tables.md", "\n\n".join(table(kept, field) for field in FIELDS) + "\n")
    against = Counter(str(repeat["repeats"]).split("/")[0] for repeat in repeats)
    print(f"{len(repeats)} near-duplicates left out, by what they repeat: {dict(against)}")
    return kept


def write_lines(path: Path, values: list[dict[str, object]]) -> None:
    write_atomically(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


if __name__ == "__main__":
    main()
