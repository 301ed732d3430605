"""debian/copyright, machine-readable format 1.0: whose a file is, and under which license.

Stanzas name files of the source package, and a package installs them elsewhere, so that a pattern is compared with the
ends of the installed path: `data/sounds/*` holds for `usr/share/games/x/data/sounds/a.ogg`, and so does
`x-1.2/data/sounds/*`. Of what is left of a pattern at least one name must be spelled without `*` and `?`. As the format
says, the last stanza that holds wins, but one that fits with more spelled names goes before one that fits with fewer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

SOUND = re.compile(r"\.(wav|flac|aiff?|ogg|oga|mp3|opus)$", re.I)


@dataclass(frozen=True, kw_only=True)
class Stanza:
    """Some files of a source package."""

    patterns: tuple[str, ...]
    license: str  # the first line of its field: a short name, or several with `and`, `or`
    authors: str  # the copyright lines, joined by "; "


def read_copyright(text: str) -> list[Stanza]:
    """The Files stanzas in their order; none where the file is free text."""
    paragraphs = list(fields(text))
    if not paragraphs or "format" not in paragraphs[0] and "format-specification" not in paragraphs[0]:
        return []
    return [
        Stanza(
            patterns=tuple(re.split(r"[\s,]+", stanza["files"].strip())),
            license=stanza.get("license", "").strip().split("\n")[0].strip(),
            authors=one_line(stanza.get("copyright", "")),
        )
        for stanza in paragraphs
        if "files" in stanza
    ]


def fields(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file, as field (lower case) to value; a line that continues keeps its break."""
    for paragraph in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        found: dict[str, str] = {}
        name = ""
        for line in paragraph.split("\n"):
            if line.startswith("#") or not line.strip():
                continue
            head = re.match(r"([A-Za-z][A-Za-z-]*):(.*)", line)
            if head:
                name = head[1].lower()
                found[name] = head[2].strip()
            elif name:
                found[name] += "\n" + line.strip()
        if found:
            yield found


def one_line(value: str) -> str:
    return "; ".join(line.strip() for line in value.split("\n") if line.strip())


def stanza_of(stanzas: list[Stanza], path: str) -> Stanza | None:
    """The stanza that holds for an installed file."""
    best: tuple[int, Stanza] | None = None
    for stanza in stanzas:
        fit = max((names_fitting(pattern, path) for pattern in stanza.patterns), default=-1)
        if fit >= 0 and (best is None or fit >= best[0]):
            best = fit, stanza
    return best[1] if best else None


def names_fitting(pattern: str, path: str) -> int:
    """How many spelled names of a pattern hold for the end of a path; 0 for `*` alone, -1 where it does not hold."""
    last, ends = compiled(pattern)
    if last and not path.rsplit("/", 1)[-1].startswith(last):
        return -1
    return next((spelled for spelled, end in ends if end.search(path)), -1)


@cache
def compiled(pattern: str) -> tuple[str, list[tuple[int, re.Pattern[str]]]]:
    """What the last name of a path must begin with, and the ends of a pattern with their number of spelled names."""
    parts = pattern.removeprefix("./").rstrip("/").split("/")
    ends = []
    for start in range(len(parts)):
        spelled = sum(not re.search(r"[*?]", part) for part in parts[start:])
        if start == 0 or spelled:
            ends.append((spelled, re.compile(f"(?:^|/)(?:{expression('/'.join(parts[start:]))})$")))
    wild = re.search(r"[*?]", pattern)
    return "" if wild else SOUND.sub("", parts[-1]), ends


def expression(pattern: str) -> str:
    """A pattern as a regular expression: `*` and `?` also stand for a slash, a sound may have been encoded anew."""
    stem, sound = SOUND.subn("", pattern)
    quoted = re.escape(stem).replace(r"\*", ".*").replace(r"\?", ".")
    return quoted + (r"\.\w+" if sound else "")
