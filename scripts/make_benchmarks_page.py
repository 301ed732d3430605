"""Make docs/benchmarks.md, and the tables in README.md, from benchmarks/results.

    python scripts/make_benchmarks_page.py

Tables are quoted from `results/NAME.md` with two or three digits, and with the processor, date and commit of their run.
A result without a section of its own here comes last. A test compares both documents with the results.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SOURCE = "https://github.com/ossicle/ossicle/blob/main/benchmarks/results"

INTRODUCTION = """# Benchmarks

<!-- Made by scripts/make_benchmarks_page.py from benchmarks/results. Do not edit. -->

Every number was measured with the script that is named below it, on the processor that is named there. Sides that are
compared take turns within one run, so a busy machine slows all of them alike. Ratios differ between processors. The
scripts are in [benchmarks/](https://github.com/ossicle/ossicle/tree/main/benchmarks); the files linked below have all
digits, and the bounds that each result was held to."""

BOUNDS = {"wanted", "met"}  # columns that say what a result was held to


@dataclass(frozen=True, kw_only=True)
class Section:
    """How one result is shown.

    Args:
        columns: the only ones to show, by how they begin; of tables that have none of them, all
        without: tables to leave out, by their first column's name
        join: a column that the tables below all headings are joined by into one
    """

    title: str
    about: str = ""
    columns: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    join: str = ""


SECTIONS = {
    "general_probe": Section(
        title="The encoder in the package",
        about="""Features frozen: a logistic regression on mean and deviation of every block, standardized, on the
official folds of ESC-50, five speaker-disjoint folds of FSDD, EmoDB and RAVDESS, and the drums of the demo by maker.
Probe, layers, regularization and the draws of 8 clips were fixed before the first figure, and none of these sets
trained the encoder. Beside it its teachers, measured alike, and mean and deviation of the log-mel
([guide](general.md)).""",
    ),
    "general_curve": Section(
        title="The encoder in the package while it trained",
        about="The same probe on ESC-50 with the averaged weights at some steps of the training, of one seed.",
    ),
    "general_tags": Section(
        title="Its labels",
        about="""The labels of the encoder in the package on the clips of ESC-50, beside its teacher's. The last row
takes the highest label of those that belong to a class of ESC-50, by a map in the script.""",
    ),
    "general_tune": Section(
        title="A training from it",
        about="""`ossicle train` with its defaults on fold 1 of ESC-50, on one thread beside other work. With the recipe
`scratch`, 60 or 80 epochs, `passt_tiny_s16` from random weights is at 0.58 to 0.63 on this fold:
[below](#esc-50-from-random-weights).""",
    ),
    "general_paid": Section(
        title="What paid in its training",
        about="""Short trainings of the encoder in the package from random weights, each without a part of what it
learns from, and the probe on frozen features of what came out. The tagger is `mn04`, the speech encoder that of
Whisper tiny.en.""",
    ),
    "passt": Section(
        title="PaSST and hear21passt",
        about="""[hear21passt](https://github.com/kkoutini/passt_hear21) 0.0.26, the authors' package, and ossicle run
the same network (`passt_base_s10`, for which both give the same logits) on 10 s clips, batch of 2. A step includes
the optimizer: ours is the fused AdamW. `s10` and `s16` are strides; `40/4` means that patchout drops 40 columns and 4
rows of patches.""",
    ),
    "hear": Section(
        title="HEAR embeddings",
        about="""hear21passt and ossicle with the same random weights: differences in every variant on a narrow network,
and of `base` at full size; seconds for the timestamp embeddings of 30 s, 601 windows of 160 ms.""",
    ),
    "deformable": Section(
        title="Deformable attention",
        about="""One layer, compared with a plain implementation (`grid_sample`, `einsum`, `softmax`) that has the
same weights and gives the same numbers. Ours without a position bias shows the most that a faster bias could gain.""",
    ),
    "density": Section(
        title="Density adaptive attention",
        about="""Compared with
[gaussian-adaptive-attention](https://github.com/gioannides/Gaussian-Adaptive-Attention) 0.1.5 on (32, 24, 1024)
values, 8 heads, 4 Gaussians. `product` computes what the package computes, as one softmax; `gate` and `mixture` are
the other two operators of that name.""",
        without=("goal, product against package",),
    ),
    "predict": Section(
        title="Prediction",
        about="""From 44.1 kHz stereo MP3 to a table, windows of 10 s, two cores, float32. "By hand" is the same
network in the loop that one would write oneself. [birdnetlib](https://github.com/joeweiss/birdnetlib) is a tagger of
birds with a model of its own, another network.""",
    ),
    "length": Section(
        title="Length of the audio",
        about="""Time and memory of one forward pass. The segmented DATAR attends within segments, so its cost grows
linearly.""",
    ),
    "export": Section(
        title="Exported models",
        about="""One window of 5 s and of 10 s in each format, in turns on the same threads. The tiny and the small
network were trained on ESC-50 without fold 1; base has random weights, for its time alone.""",
    ),
    "tokens": Section(
        title="Fewer tokens",
        about="""Trained PaSST networks that compute only a fraction of their tokens
([guide](speed.md#fewer-tokens-without-training)). Merging loses less accuracy at the same `keep`, and takes longer.
Nothing was chosen by these numbers.""",
        columns=("method", "keep", "of the time", "accuracy", "difference"),
    ),
    "esc50_main": Section(
        title="ESC-50 from random weights",
        about="""`passt_tiny_s16` on official fold 1, three seeds, no model selection. At 60 epochs patchout changes
the accuracy by less than the seeds do, in less than half of the time. 80 epochs with patchout take little more than
half of the time of 60 without, and score higher; three seeds do not decide that difference.""",
    ),
    "esc50_recipe": Section(
        title="Parts of the ESC-50 recipe",
        about="""One part of the recipe removed or added at a time: 20 epochs, one seed, balanced accuracy on a
validation part of some 240 clips. Seeds alone move the difference of two such numbers by up to 0.08. Beyond that,
SpecAugment on top of patchout costs accuracy in so short a training, and is off by default; the rest is undecided.""",
    ),
    "datar_ablation_screen": Section(
        title="Parts of DATAR, ESC-10",
        about="""`datar_nano` with one part changed at a time, from random weights: 10 epochs, three seeds, five
folds, one recipe for all and no model selection. Held together to 5 % (Holm), no difference is decided. Closest to it
come key stride 2 and the bottleneck, which score higher, and keys that do not move, which score lower.""",
        columns=("variant", "mean accuracy", "difference", "95 %", "verdict", "parameters"),
    ),
    "datar_ablation_main": Section(
        title="Parts of DATAR, ESC-50",
        about="""The same on fold 1 of ESC-50. Nothing is decided here either. Both studies rank keys that do not move
last and attention in windows alone second to last.""",
        columns=("variant", "mean accuracy", "difference", "95 %", "verdict", "parameters"),
    ),
    "tuning": Section(
        title="Heads on frozen encoders",
        about="""Accuracy on held-out speakers (EmoDB and RAVDESS with Whisper tiny, five folds), on a fold of ESC-50
(PaSST tiny), on held-out texts (AG News with MiniLM, five folds, 150 texts of a class), and on held-out images of
five classes of CIFAR-10 that the encoder, a small ViT trained on the other five, has not seen (five folds, 200 images
of a class). The epoch is chosen on a validation part; folds and budget are the same for all heads. `identity` is the
decoder with nothing in front of it. [Tuning](tuning.md#what-the-heads-are-worth) says what follows.""",
        join="accuracy",
    ),
    "importance": Section(
        title="Importance Factor",
        about="""Rank correlations over the layers of each encoder. The importance of the trained gate ranks the
layers as that of the untrained gate does; no relation was seen with what a probe reads from each layer.""",
        join="value",
        without=("layers kept",),
    ),
    "convert": Section(
        title="Conversion of a published checkpoint",
        about="""`ossicle models convert` of a PaSST-S at full size ([guide](models.md#published-checkpoints)): the
weights are mapped and not held, and the process that opens the pickle holds none of them. Both packages compute the
logits from the same file.""",
    ),
    "mutations": Section(title="Damaged recordings", about="Files of every format, damaged at random and then read."),
}
NOT_SHOWN = {"slow"}


# --- tables ----------------------------------------------------------------------------------------------------------


def shorten(text: str) -> str:
    """Rounds the decimal numbers of a cell to three digits."""

    def rounded(match: re.Match[str]) -> str:
        sign, number = match.groups()
        value = float(number)
        decimals = len(number.partition(".")[2])
        wanted = 2 - math.floor(math.log10(value)) if value else decimals
        return f"{sign}{value:.{min(decimals, max(0, wanted))}f}"

    return re.sub(r"(?<![\d.])([+-]?)(\d+\.\d+)(?![\d.e])", rounded, text)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def quoted(table: list[str], section: Section) -> list[str]:
    """A table's lines with the columns that are shown and rounded numbers."""
    head = cells(table[0])
    shown = [i for i, name in enumerate(head) if name.startswith(section.columns)] if section.columns else []
    shown = shown or [i for i, name in enumerate(head) if name not in BOUNDS]
    rows = [["measured" if name == "got" else name for name in head], *map(cells, table[1:])]
    return [f"| {' | '.join(shorten(row[i]) if i < len(row) else '' for i in shown)} |" for row in rows]


def joined(tables: dict[str, list[str]], column: str) -> list[str]:
    """One table of a column of many: a row for each first cell of theirs, a column for each heading."""
    found: dict[str, dict[str, str]] = {}
    first = cells(next(iter(tables.values()))[0])[0]
    for heading, table in tables.items():
        head = cells(table[0])
        if column in head:
            for row in map(cells, table[2:]):
                found.setdefault(row[0], {})[heading] = shorten(row[head.index(column)])
    headings = [heading for heading in tables if any(heading in row for row in found.values())]
    lines = [f"| {name} | {' | '.join(row.get(one, '') for one in headings)} |" for name, row in found.items()]
    return [f"| {first} | {' | '.join(headings)} |", "|---" * (len(headings) + 1) + "|", *lines]


# --- sections --------------------------------------------------------------------------------------------------------


def run_line(line: str) -> str:
    """The line below a table of results (command, machine, versions, date, commit) as a sentence of the page."""
    command, about = re.fullmatch(r"`([^`]+)`; (.*)\.", line).groups()
    about = re.sub(r"threads (\d+)", lambda m: f"{m[1]} thread" + "s" * (m[1] != "1"), about).replace("date ", "")
    place = f"on {about.removeprefix('machine ')}" if about.startswith("machine ") else f"with {about}"
    return f"Measured {place}: `{command}`."


def shown(name: str, section: Section) -> list[str]:
    """The lines of one result."""
    _, *lines = (RESULTS / f"{name}.md").read_text(encoding="utf-8").split("\n")
    blocks = [block.split("\n") for block in re.split(r"\n{2,}", "\n".join(lines).strip())]
    heading, tables, text = "", {}, []
    for block in blocks:
        if block[0].startswith("## "):
            heading = block[0].removeprefix("## ")
            if not section.join:
                text += [f"### {heading}", ""]
        elif block[0].startswith("|"):
            if cells(block[0])[0] in section.without:
                continue
            if section.join:
                if " as the reference" not in heading:
                    tables.setdefault(heading.split(",")[0].split(":")[0], block)
            else:
                text += [*quoted(block, section), ""]
        elif re.fullmatch(r"`[^`]+`; .*\.", block[0]):
            text += [run_line(block[0]), ""]
        elif not section.join and not block[0].startswith("!["):
            text += [*map(shorten, block), ""]
    return [*joined(tables, section.join), "", *text] if tables else text


def page() -> str:
    """The whole of docs/benchmarks.md."""
    parts = [INTRODUCTION]
    found = {path.stem for path in RESULTS.glob("*.md")}
    known = {name: section for name, section in SECTIONS.items() if name in found}
    others = sorted(found - SECTIONS.keys() - NOT_SHOWN)
    for name, section in {**known, **{name: Section(title="") for name in others}}.items():
        path = RESULTS / f"{name}.md"
        title = section.title or path.read_text(encoding="utf-8").split("\n")[0].removeprefix("# ")
        about = [re.sub(r"\n", " ", section.about), ""] if section.about else []
        whole = f"All digits: [{name}.md]({SOURCE}/{name}.md)."
        parts.append("\n".join(["", f"## {title}", "", *about, *shown(name, section), whole]))
    return "\n".join(parts) + "\n"


# --- README ----------------------------------------------------------------------------------------------------------


ROWS = {
    "inference, float32": "inference, float32",
    "inference, bf16": "inference, bfloat16",
    "step, s10, no patchout, float32": "training step, float32",
    "step, s10, patchout 40/4, float32": "training step with patchout, float32",
    "step, s10, no patchout, bf16": "training step, bfloat16",
    "step, s10, patchout 40/4, bf16": "training step with patchout, bfloat16",
}


def readme_table() -> str:
    """Seconds a clip of the published PaSST package and of ours, on each processor."""
    machines = json.loads((RESULTS / "passt.json").read_text(encoding="utf-8"))["machines"]
    names = [re.sub(r"\(R\)| Processor|, \d+ cores$", "", name) for name in sorted(machines)]
    lines = [
        f"| seconds per 10 s clip, hear21passt / ossicle | {' | '.join(names)} |",
        "|---" + "|--:" * len(names) + "|",
    ]
    for row, title in ROWS.items():
        times = [machines[name]["times"].get(row) for name in sorted(machines)]
        sides = [f"{time['peer']['seconds']:.2f} / {time['ours']['seconds']:.2f}" if time else "" for time in times]
        lines.append(f"| {title} | {' | '.join(sides)} |")
    return "\n".join(lines)


def probes_table() -> str:
    """The probes of the encoder in the package and of what stands beside it, one set a row."""
    text = (RESULTS / "general_probe.md").read_text(encoding="utf-8")
    header, _, *rows = [cells(line) for line in text.splitlines() if line.startswith("|")]
    rows = [row for row in rows if not row[0].startswith("*")]
    lines = [f"| {' | '.join([header[0], *(row[0] for row in rows)])} |", "|---|" + "--:|" * len(rows)]
    for number, title in enumerate(header[1:], 1):
        values = [f"{float(row[number]):.2f}" if row[number] else "" for row in rows]
        lines.append(f"| {' | '.join([title, *values])} |")
    return "\n".join(lines)


def readme(text: str) -> str:
    """README.md with the tables of today's results."""
    for name, table in (("passt", readme_table()), ("general", probes_table())):
        begin, end = f"<!-- results:{name} -->\n", f"\n<!-- /results:{name} -->"
        before, after = text.split(begin)[0], text.split(end)[1]
        text = before + begin + table + end + after
    return text


def main() -> None:
    (ROOT / "docs" / "benchmarks.md").write_text(page(), encoding="utf-8")
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
