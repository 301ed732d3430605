"""A self-contained HTML page without scripts or network access."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ossicle import __version__
from ossicle.files import write_atomically
from ossicle.report.style import Figure, png_bytes


@dataclass(frozen=True, kw_only=True)
class FractionCell:
    """A table cell between 0 and 1: a number with a bar, or with its interval if it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text, numbers as text, or fractions with a bar; columns in `words` are prose, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | FractionCell]]
    caption: str = ""
    words: Sequence[int] = (0,)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A plot with alternative text and a caption."""

    figure: Figure
    alt: str
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with paragraphs (plain text), tables and charts below it."""

    title: str
    blocks: Sequence[str | Table | Chart]


def write_report(path: Path, *, title: str, sections: Sequence[Section]) -> None:
    """Writes the page. All text is escaped, such as markup in labels."""
    write_atomically(path, report_html(title, sections))


def report_html(title: str, sections: Sequence[Section]) -> str:
    """The page as text."""
    links = "".join(f'<a href="#part-{i}">{escape(section.title)}</a>' for i, section in enumerate(sections))
    body = "\n".join(_section_html(section, i) for i, section in enumerate(sections))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<header><h1>{escape(title)}</h1>{f"<nav>{links}</nav>" if len(sections) > 1 else ""}</header>
<main>
{body}
</main>
<footer>ossicle {escape(__version__)}</footer>
</body>
</html>
"""


def _section_html(section: Section, index: int) -> str:
    blocks = "\n".join(_block_html(block) for block in section.blocks)
    return f'<section id="part-{index}">\n<h2>{escape(section.title)}</h2>\n{blocks}\n</section>'


def _block_html(block: str | Table | Chart) -> str:
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    if isinstance(block, Chart):
        content = base64.b64encode(png_bytes(block.figure)).decode()
        width = round(block.figure.get_figwidth() * 96)  # natural width, so that text of all charts has one size
        caption = f"<figcaption>{escape(block.caption)}</figcaption>" if block.caption else ""
        source = f"data:image/png;base64,{content}"
        return f'<figure><img src="{source}" alt="{escape(block.alt)}" width="{width}">{caption}</figure>'
    caption = f"<caption>{escape(block.caption)}</caption>" if block.caption else ""
    kinds = [' class="words"' if column in block.words else "" for column in range(len(block.header))]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(block.header, kinds, strict=True))
    rows = "\n".join(
        "<tr>"
        + "".join(_cell_html(cell, kind, first=not i) for i, (cell, kind) in enumerate(zip(row, kinds, strict=True)))
        + "</tr>"
        for row in block.rows
    )
    table = f"<table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _cell_html(cell: str | FractionCell, kind: str, *, first: bool) -> str:
    if isinstance(cell, str):  # a label may be written from right to left
        opened, closed = ('<th scope="row"', "th") if first else ("<td", "td")
        return f'{opened}{kind} dir="auto">{escape(cell)}</{closed}>'
    low, high = (0.0, cell.value) if cell.low is None or cell.high is None else (cell.low, cell.high)
    drawn = f"--from:{100 * low:.1f}%;--to:{100 * high:.1f}%"
    kind, dot = ("bar", "") if cell.low is None else ("range", f'<b style="--at:{100 * cell.value:.1f}%"></b>')
    return f'<td class="fraction">{cell.value:.3f}<span class="{kind}"><i style="{drawn}"></i>{dot}</span></td>'


CSS = """
:root { --ink: #1f2933; --faint: #5f6b76; --rule: #e3e7eb; --paper: #ffffff; --card: #f6f8fa; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --faint: #9aa5b1; --rule: #323a43; --paper: #15191e; --card: #1d232a; --accent: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header { border-bottom: 3px solid var(--accent); padding-bottom: .9rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
nav a { color: var(--accent); text-decoration: none; margin-right: 1.2rem; font-size: .92rem; }
nav a:hover { text-decoration: underline; }
p { max-width: 46rem; margin: .5rem 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .9rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding-bottom: .4rem; overflow-wrap: anywhere; }
th, td { padding: .32rem .65rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
.words { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 11.5rem; }
th:first-child, td:first-child { padding-left: .2rem; }
tbody th { font-weight: inherit; }
thead th { border-bottom: 2px solid var(--rule); color: var(--faint); font-weight: 600; }
tbody tr:hover { background: var(--card); }
.fraction span { display: inline-block; position: relative; width: 6rem; height: .55rem; margin-left: .7rem;
  border-radius: 2px; background: var(--rule); }
.fraction i { position: absolute; left: var(--from); width: max(1px, calc(var(--to) - var(--from))); top: 0; bottom: 0;
  background: var(--accent); border-radius: 2px; }
.fraction .bar { width: 4rem; }
.fraction .range i { opacity: .45; }
.fraction b { position: absolute; left: calc(var(--at) - 1.5px); width: 3px; top: -2px; bottom: -2px;
  background: var(--accent); }
figure { margin: 1rem 0 1.4rem; }
img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--rule); border-radius: 6px;
  padding: 8px; }
figcaption { color: var(--faint); font-size: .92rem; max-width: 46rem; overflow-wrap: anywhere; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--rule); color: var(--faint);
  font-size: .85rem; }
@media print { body { max-width: none; padding: 0; } nav { display: none; } figure, tr { break-inside: avoid; } }
"""
