"""Makes examples/drums: single drum hits in a folder per class, and a few drum loops, from two Debian packages.

    python scripts/make_drums.py                                  # fetches the packages with apt-get, about 165 MB
    python scripts/make_drums.py --hydrogen DIR --sonic-pi DIR    # or reads them where `dpkg -x` has put them

Debian machine or container, about half a minute after the download. The same packages give the same bytes again.

What goes in:

- Sounds that their maker named. A sample of a kit that has no name ("Sample: beats_01-39.flac") stays out, and so does
  one whose two names disagree (the "Kick" of Audiophob is a file called "tom").
- Only what both the package's copyright file and the maker's own file put under CC0, CC BY or CC BY-SA.
- At most four velocity layers of one drum (from loud to soft, evenly), and one of Sonic Pi's numbered recordings of a
  stroke of the tabla: neighbors are near-duplicates.

`group` is the kit; for Sonic Pi, which collects from many people, it is the person on freesound.org. `fold` puts whole
groups together, so that a test fold holds kits and people that the training part has never heard: the people who made
part of Audiophob and appear in Sonic Pi as well are in Audiophob's fold.
"""

import argparse
import csv
import gzip
import io
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import soundfile
import soxr

RATE = 32_000
MAX_SECONDS = 1.0
CUT_DECIBELS = -60.0
PEAK_DECIBELS = -3.0  # of every hit: what is left of a kit's loudness would only name the kit
LEAD_SECONDS = 0.002  # kept before the attack, so that a hit placed at t sounds at t
ROOT = Path(__file__).resolve().parent.parent

PACKAGES = ("hydrogen-drumkits", "sonic-pi-samples")
LICENSES = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-SA-3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "CC-BY-SA-3.0-US": "https://creativecommons.org/licenses/by-sa/3.0/us/",
}
ABOUT_CLASSES = {
    "bell": "cowbells, the iron bells of dununs, a hand bell, a synthesized bell",
    "cymbal": "crash, ride, ride bell, splash",
    "hand-drum": "djembe (bass, tone, slap) and tabla",
    "hi-hat": "closed, pedal, open and loose",
    "kick": "bass drums, played and electronic",
    "snare": "snare drums, played and electronic",
    "tom": "toms and floor toms, played and electronic",
}


@dataclass(frozen=True, kw_only=True)
class Kit:
    """One Hydrogen kit: what its own drumkit.xml must say, and which of its instruments belong to which class."""

    folder: str
    group: str
    license: str
    license_words: str  # found in drumkit.xml, or the script stops
    debian_license: str  # found in the stanza of Debian's copyright file, or the script stops
    debian_file: str
    author: str  # as drumkit.xml spells it, unless the file name holds another
    instruments: dict[str, str]  # the maker's name of the instrument -> class
    home: str
    layers: int = 4


KITS = (
    Kit(
        folder="Audiophob",
        group="Audiophob",
        home="https://soundcloud.com/audiophobdubstep",
        license="CC0-1.0",
        license_words="Creative Commons 0 License",
        debian_license="CC0",
        debian_file="Audiophob",
        author="soundcloud.com/audiophobdubstep",
        # Left out, for the file's own name says something else: Kick (a tom), Pedal HH (fxshake).
        instruments={
            "Snare Jazz": "snare",
            "Snare Rock": "snare",
            "Tom Low": "tom",
            "Tom Mid": "tom",
            "Tom Hi": "tom",
            "Closed HH": "hi-hat",
            "Open HH": "hi-hat",
            "Cowbell": "bell",
            "Ride Jazz": "cymbal",
            "Crash": "cymbal",
        },
    ),
    Kit(
        folder="rumpf_kit_z01_h2",
        group="rumpf_kit_z01",
        home="https://sourceforge.net/projects/rumpf-kit/",
        license="CC-BY-3.0",
        license_words="http://creativecommons.org/licenses/by/3.0/",
        debian_license="CC-BY-3.0",
        debian_file="rumpf_kit_z01_h2",
        author="Emanuel Rumpf",
        instruments={
            "c3 - bass drum 1": "kick",
            "f3 - bass drum 2": "kick",
            "g3 - bass drum 3": "kick",
            "a3 - bass drum 4": "kick",
            "d3 - snare 1": "snare",
            "e3 - snare 2": "snare",
            "f#3 - hi-hat closed": "hi-hat",
            "g#3 - hi-hat pedal": "hi-hat",
            "a#3 - hi-hat open": "hi-hat",
            "b3 - low tom": "tom",
            "c4 - middle tom": "tom",
            "d4 - high tom": "tom",
            "c#4 - crash": "cymbal",
            "d#4 - cymbal 1": "cymbal",
            "e4 - cymbal 2": "cymbal",
            "f4 - ride bell": "cymbal",
            "g#4 - cowbell": "bell",
        },
    ),
    Kit(
        folder="BJA_Pacific",
        group="BJA_Pacific",
        home="http://www.bransinanderson.com/",
        license="CC-BY-SA-3.0-US",
        license_words="Attribution-Share Alike 3.0 United States",
        debian_license="CC-BY-SA-3.0-us",
        debian_file="BJA_Pacific",
        author="Luc Tanguay/Bransin James Anderson",
        instruments={
            "BassDrum": "kick",
            "Snare": "snare",
            "Snare Dry": "snare",
            "Hi Hat Closed": "hi-hat",
            "Hi Hat Opened": "hi-hat",
            "Hi Hat Free": "hi-hat",
            "Tom": "tom",
            "Floor Tom": "tom",
            "Crash Left": "cymbal",
            "Crash Right": "cymbal",
            "Ride": "cymbal",
            "Ride 2": "cymbal",
            "Ride Bell": "cymbal",
        },
    ),
    Kit(
        folder="circAfrique v4",
        group="circAfrique",
        home="http://www.circAfrique.com",
        license="CC-BY-SA-3.0",
        license_words="Creative Commons - Attribution-ShareAlike 3.0 Unported",
        debian_license="CC-BY-SA-3.0",
        debian_file="circAfrique",
        author="Jim Harney",
        # The heads of the dununs stay out: they are struck with sticks, neither toms nor hand drums.
        instruments={
            **{f"Djembe{drum} {stroke}": "hand-drum" for drum in range(1, 6) for stroke in ("Bass", "Tone", "Slap")},
            "Sangban1 Bell Hit": "bell",
            "Sangban1 Bell Mute": "bell",
            "Dununba1 Bell": "bell",
            "Dununba1 Bell Mute": "bell",
            "Kenkeni1 Bell Hit": "bell",
            "Kenkeni1 Bell Mute": "bell",
        },
    ),
)

# Sonic Pi: pattern of the file's stem -> class. A cymbal that closes, opens and has a pedal is a hi-hat.
SONIC_PI = (
    (r"bd_.*|drum_bass_(hard|soft)|drum_heavy_kick|elec_(hollow|soft)_kick", "kick"),
    (r"sn_.*|drum_snare_(hard|soft)|elec_(.*_)?snare", "snare"),
    (r"drum_cymbal_(closed|open|pedal)", "hi-hat"),
    (r"drum_cymbal_(hard|soft)|drum_splash_(hard|soft)|elec_cymbal", "cymbal"),
    (r"drum_tom_.*|elec_fuzz_tom", "tom"),
    (r"tabla_.*", "hand-drum"),
    (r"drum_cowbell|perc_bell|elec_bell", "bell"),
)
LOOPS = ("loop_breakbeat", "loop_mika", "loop_safari", "loop_tabla")

# Groups that are not named here go to the last fold. Every class is in at least three folds, hand drums in two.
FOLDS = (
    {"BJA_Pacific"},
    {"circAfrique"},
    {"Audiophob", "menegass", "zgump", "cubix"},
    {"dio_333", "looppool"},
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One sound as its maker published it."""

    path: Path
    label: str
    group: str
    author: str
    license: str
    source: str  # where it comes from, for a reader
    name: str  # stem of the file we write


def kit_sources(kit: Kit, root: Path, debian: str) -> Iterator[Source]:
    """Reads one kit: checks both statements of its license, then yields the named instruments."""
    folder = root / "usr/share/hydrogen/data/drumkits" / kit.folder
    text = (folder / "drumkit.xml").read_text(encoding="utf-8")
    kit_xml = ElementTree.fromstring(re.sub(r'\sxmlns="[^"]+"', "", text))
    require(kit.license_words in (kit_xml.findtext("license") or ""), f"{kit.folder}: another license in drumkit.xml")
    require(kit.author == kit_xml.findtext("author"), f"{kit.folder}: another author in drumkit.xml")
    stanza = debian_stanza(debian, f"drumkits/{kit.debian_file}.h2drumkit")
    require(f"License: {kit.debian_license}\n" in stanza, f"{kit.folder}: another license in Debian's copyright file")

    instruments = {(i.findtext("name") or "").strip(): i for i in kit_xml.iter("instrument")}
    for name, label in kit.instruments.items():
        require(name in instruments, f"{kit.folder}: no instrument named {name!r}")
        layers = [layer.findtext("filename") or "" for layer in instruments[name].iter("layer")]
        files = layers or [instruments[name].findtext("filename") or ""]
        # drumkit.xml lists layers from loud to soft or the reverse; names end in the velocity.
        files = sorted(files, reverse=True)
        for file in thin(files, kit.layers):
            author = kit.author
            # Audiophob keeps freesound's file names: number__person__title.
            if found := re.fullmatch(r"\d+__(.+?)__.+", Path(file).stem):
                author = f"{found[1]} (freesound.org), chosen by {kit.author}"
            layer = f"-{Path(file).stem}" if len(files) > 1 else ""
            yield Source(
                path=folder / file,
                label=label,
                group=kit.group,
                author=author,
                license=kit.license,
                source=f"{kit.folder}: {name} ({file})",
                name=plain(f"{kit.group}-{name}{layer}"),
            )


def sonic_pi_sources(root: Path, debian: str) -> tuple[list[Source], list[Source]]:
    """Reads Sonic Pi's samples: hits and loops that both its README and Debian's copyright file declare CC0."""
    folder = root / "usr/share/sonic-pi/samples"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    require("placed in the public domain via the Creative Commons 0 License" in readme, "Sonic Pi: README changed")
    links = dict(re.findall(r"`:(\w+)`\s*-\s*(https?://\S+)", readme))
    hits: list[Source] = []
    loops: list[Source] = []
    for path in thinned(sorted(folder.glob("*.flac"))):
        label = next((label for pattern, label in SONIC_PI if re.fullmatch(pattern, path.stem)), None)
        if label is None and path.stem not in LOOPS:
            continue
        stanza = debian_stanza(debian, f"etc/samples/{path.name}")
        link = links.get(path.stem)
        if link is None or "License: CC0\n" not in stanza:
            print(f"left out, not declared CC0 in both places: {path.name}")
            continue
        person = re.search(r"/people/([^/]+)/", link)
        if person is None:
            raise SystemExit(f"{path.name}: no author in {link}")
        author = person[1].replace("%20", " ")
        require(f"/people/{person[1]}/" in stanza, f"{path.name}: README and copyright file name two authors")
        source = Source(
            path=path,
            label=label or "loop",
            group=plain(author),
            author=f"{author} (freesound.org)",
            license="CC0-1.0",
            source=f"Sonic Pi: {path.name}, {link.replace('http:', 'https:')}",
            name=plain(f"{author}-{path.stem}"),
        )
        (hits if label else loops).append(source)
    return hits, loops


def debian_stanza(copyright_file: str, file: str) -> str:
    """The paragraph of a Debian copyright file whose `Files:` field holds `file`, or an empty text."""
    for stanza in copyright_file.split("\n\n"):
        field = re.match(r"Files:((?:.*\n)(?: .*\n)*)", stanza.lstrip("\n") + "\n")
        if field and file in field[1].split():
            return stanza + "\n"
    return ""


def thin(files: list[str], most: int) -> list[str]:
    """At most `most` of the layers, evenly from the first; of a long list the softest stays out (mostly noise)."""
    if len(files) <= most:
        return files
    return [files[round(i * (len(files) - 1) / most)] for i in range(most)]


def thinned(paths: list[Path]) -> list[Path]:
    """The paths without all but the first of the tabla's numbered recordings of one stroke."""
    return [path for path in paths if not re.fullmatch(r"tabla_\w*?([2-9]|\d\d+)", path.stem)]


def plain(name: str) -> str:
    """A file name for every system: letters, digits, dots, underscores and hyphens."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name.replace("#", "sharp")).strip("-")


def hit(samples: np.ndarray) -> np.ndarray:
    """Cuts a hit 2 ms before its attack and where it has fallen by 60 dB, after 1 s at most; fades, sets the peak."""
    envelope = np.abs(samples)
    peak = envelope.max()
    start = max(0, int(np.argmax(envelope >= 0.1 * peak)))
    # Back to where the attack leaves the quiet before it: the last sample below 1 % of the peak, at most 20 ms.
    quiet = np.flatnonzero(envelope[max(0, start - RATE // 50) : start] < 0.01 * peak)
    if quiet.size:
        start = max(0, start - RATE // 50) + int(quiet[-1])
    else:
        start = max(0, start - RATE // 50)
    start = max(0, start - round(LEAD_SECONDS * RATE))
    samples = samples[start : start + round(MAX_SECONDS * RATE)].copy()

    block = RATE // 100
    blocks = np.abs(np.pad(samples, (0, -len(samples) % block))).reshape(-1, block).max(axis=1)
    loud = np.flatnonzero(blocks >= peak * 10 ** (CUT_DECIBELS / 20))
    samples = samples[: (int(loud[-1]) + 1) * block]

    fade_in, fade_out = min(32, len(samples)), min(round(0.03 * RATE), len(samples) // 4)
    samples[:fade_in] *= np.linspace(0, 1, fade_in)
    samples[len(samples) - fade_out :] *= np.linspace(1, 0, fade_out) ** 2
    return samples / np.abs(samples).max() * 10 ** (PEAK_DECIBELS / 20)


def read_mono(path: Path) -> np.ndarray:
    """Decodes a file to 32 kHz; channels are averaged."""
    samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    mono = samples.mean(axis=1)
    return mono if rate == RATE else soxr.resample(mono, rate, RATE, quality="VHQ")


def write_flac(path: Path, samples: np.ndarray) -> None:
    """Writes 16-bit FLAC; a peak above full scale (resampling can overshoot) is scaled down."""
    samples = samples / max(1.0, float(np.abs(samples).max()) / 0.999)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.round(samples * 32767).astype(np.int16), RATE, subtype="PCM_16", format="FLAC")


def fold_of(group: str) -> int:
    """Number of the fold that holds a group, from 1."""
    return next((number for number, groups in enumerate(FOLDS, 1) if group in groups), len(FOLDS) + 1)


def write_readme(path: Path, hits: list[tuple[str, Source]], loops: list[tuple[str, Source]], packages: str) -> None:
    """Writes README.md: what this is, classes by groups, license and author of every file."""
    classes = sorted({source.label for _, source in hits})
    groups = sorted({source.group for _, source in hits}, key=lambda group: (fold_of(group), group.lower()))
    counts = Counter((source.group, source.label) for _, source in hits)
    out = io.StringIO()
    print(
        f"""# Drum hits and drum loops

{len(hits)} recordings of single drum hits in {len(classes)} classes, a folder each, and {len(loops)} drum loops
(`loops/`, not a class). 32 kHz, mono, 16-bit FLAC. `meta.csv` lists the hits:
`file,label,group,fold,author,license,source`.

Made by `scripts/make_drums.py` from the Debian packages {packages}.
**Changes to every file:** channels averaged to mono, resampled to 32 kHz. Hits are also cut (2 ms before the attack,
and where the level has fallen by 60 dB, after 1 s at the latest), faded at both ends and scaled to a peak of -3 dB.

## Licenses

Each file keeps the license of its maker, given below file by file; ossicle's own license does not apply to them.
The CC BY-SA files stay under CC BY-SA when you pass them on, changed or not.

| license | files | text |
|---|---|---|""",
        file=out,
    )
    used = Counter(source.license for _, source in hits + loops)
    for license, address in LICENSES.items():
        print(f"| {license} | {used[license]} | <{address}> |", file=out)
    print(
        """
## Classes by groups

`group` is the kit, or for the samples of Sonic Pi the person on freesound.org who made them. `fold` holds whole groups,
so that hits are always recognized in kits that the training has never heard. Only sounds that their maker named are
here, at most four velocity layers of a drum, and one of the numbered recordings of a stroke.
""",
        file=out,
    )
    print("| fold | group | " + " | ".join(classes) + " | all |", file=out)
    print("|---" * (len(classes) + 3) + "|", file=out)
    for group in groups:
        row = [counts[group, label] for label in classes]
        print(f"| {fold_of(group)} | {group} | " + " | ".join(str(n or "") for n in row) + f" | {sum(row)} |", file=out)
    total = [sum(counts[group, label] for group in groups) for label in classes]
    print("| | **all** | " + " | ".join(map(str, total)) + f" | {sum(total)} |\n", file=out)
    for label in classes:
        print(f"- **{label}**: {ABOUT_CLASSES[label]}", file=out)
    print("\n## Kits\n\n| group | kit | author | license | home |\n|---|---|---|---|---|", file=out)
    for kit in KITS:
        license = f"[{kit.license}]({LICENSES[kit.license]})"
        print(f"| {kit.group} | {kit.folder} | {kit.author} | {license} | <{kit.home}> |", file=out)
    print("\nSonic Pi (<https://sonic-pi.net>) had trimmed many of its samples before.", file=out)
    for title, rows in (("Hits", hits), ("Loops", loops)):
        print(f"\n## {title}, file by file\n\n| file | author | license | from |\n|---|---|---|---|", file=out)
        for file, source in rows:
            origin = source.source.replace("|", "\\|")
            print(f"| {file} | {source.author} | [{source.license}]({LICENSES[source.license]}) | {origin} |", file=out)
    path.write_text(out.getvalue(), encoding="utf-8")


def fetch(package: str, folder: Path) -> Path:
    """Downloads and unpacks a Debian package into `folder`."""
    subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
    unpacked = folder / package
    subprocess.run(["dpkg", "-x", str(next(folder.glob(f"{package}_*.deb"))), str(unpacked)], check=True)
    return unpacked


def version(root: Path, package: str) -> str:
    """The package's version, from its own changelog."""
    changelog = root / "usr/share/doc" / package / "changelog.Debian.gz"
    found = re.match(
        rf"{re.escape(package)} \(([^)]+)\)|\S+ \(([^)]+)\)", gzip.decompress(changelog.read_bytes()).decode()
    )
    if found is None:
        raise SystemExit(f"{changelog}: no version in the first line")
    return found[1] or found[2]


def require(condition: bool, message: str) -> None:
    """Stops the script: what it relies on has changed, and a person must look."""
    if not condition:
        raise SystemExit(message)


def make(hydrogen: Path, sonic_pi: Path, output: Path) -> None:
    """Writes the whole folder anew."""
    debian = {
        package: (root / "usr/share/doc" / package / "copyright").read_text(encoding="utf-8")
        for package, root in zip(PACKAGES, (hydrogen, sonic_pi), strict=True)
    }
    sources = [source for kit in KITS for source in kit_sources(kit, hydrogen, debian["hydrogen-drumkits"])]
    hits, loops = sonic_pi_sources(sonic_pi, debian["sonic-pi-samples"])
    sources = sorted(sources + hits, key=lambda source: (source.label, fold_of(source.group), source.name.lower()))

    require(not output.exists() or (output / "meta.csv").is_file(), f"{output}: this is no folder of drums")
    shutil.rmtree(output, ignore_errors=True)
    written = []
    for source in sources:
        file = f"{source.label}/{source.name}.flac"
        require(not (output / file).exists(), f"two sounds want the name {file}")
        write_flac(output / file, hit(read_mono(source.path)))
        written.append((file, source))
    written_loops = []
    for source in loops:
        file = f"loops/{source.name}.flac"
        write_flac(output / file, read_mono(source.path))
        written_loops.append((file, source))

    with open(output / "meta.csv", "w", newline="", encoding="utf-8") as table:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["file", "label", "group", "fold", "author", "license", "source"])
        for file, s in written:
            rows.writerow([file, s.label, s.group, fold_of(s.group), s.author, s.license, s.source])
    versions = " and ".join(
        f"`{package}` {version(root, package)}" for package, root in zip(PACKAGES, (hydrogen, sonic_pi), strict=True)
    )
    write_readme(output / "README.md", written, written_loops, versions)

    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{len(written)} hits and {len(written_loops)} loops, {size / 1e6:.1f} MB, in {output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--hydrogen", type=Path, help="hydrogen-drumkits as unpacked by dpkg -x (or / where installed)")
    parser.add_argument("--sonic-pi", type=Path, help="sonic-pi-samples as unpacked by dpkg -x (or / where installed)")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "examples/drums")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(
            arguments.hydrogen or fetch(PACKAGES[0], Path(folder)),
            arguments.sonic_pi or fetch(PACKAGES[1], Path(folder)),
            arguments.output,
        )


if __name__ == "__main__":
    main()
