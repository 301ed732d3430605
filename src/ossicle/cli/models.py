"""`ossicle models`: networks and their size and cost; published weights, and those that are kept here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ossicle.cli import convert, ensemble
from ossicle.cli.outcome import USER_ERROR, Sentences, say

if TYPE_CHECKING:
    from rich.table import Table

    from ossicle.catalog import Checkpoint

app = typer.Typer(
    cls=Sentences,
    help="Networks, and the weights that are published for them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(ensemble.ensemble)
app.command()(ensemble.soup)

Name = Annotated[str, typer.Argument(help="Name from `ossicle models list --weights`.")]


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as 'passt_tiny_*'.")] = "*",
    weights: Annotated[
        bool,
        typer.Option("--weights", help="List published weights: data, metric, license, size, and what is kept here."),
    ] = False,
) -> None:
    """List the networks, or the published weights, whose name matches."""
    from rich.console import Console

    table = weights_table(pattern) if weights else networks_table(pattern)
    console = Console()
    # Piped output is not truncated to a width.
    (console if console.is_terminal else Console(width=160)).print(table)


def networks_table(pattern: str) -> "Table":
    from rich.table import Table

    from ossicle.catalog import list_checkpoints
    from ossicle.errors import ModelUnknown
    from ossicle.models import find_preset, list_models

    names = list_models(pattern)
    if not names:
        there = (
            " among the networks; try --weights" if list_checkpoints(pattern) else "; `ossicle models list` lists all"
        )
        raise ModelUnknown(f"no model matches {pattern!r}{there}")
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    for title in ("width", "depth", "stride", "labels", "weights"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("front end", no_wrap=True)
    published = [row.architecture for row in list_checkpoints()]
    for name in names:
        preset = find_preset(name)
        count = str(published.count(name) or "")
        table.add_row(name, preset.width, preset.depth, preset.stride, str(preset.num_classes), count, preset.frontend)
    return table


def weights_table(pattern: str) -> "Table":
    from rich.table import Table

    from ossicle.catalog import list_checkpoints, megabytes, store
    from ossicle.errors import ModelUnknown

    rows = list_checkpoints(pattern)
    if not rows:
        raise ModelUnknown(f"no published weights match {pattern!r}; `ossicle models list --weights` lists all")
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("trained on", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    table.add_column("license", no_wrap=True)
    for title in ("size", "rate", "kept here"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        kept = store.kept_bytes(row)
        here = f"{megabytes(kept)}{'' if store.kept_folder(row) else ', in part'}" if kept else ""
        table.add_row(
            row.name,
            row.data,
            str(row.metric or "unknown"),
            row.license_or_unknown,
            row.size.replace("about ", "~"),
            f"{row.rate / 1000:g} kHz" if row.rate else "",
            "in the package" if row.shipped else here,
        )
    return table


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of a network or of published weights.")]) -> None:
    """Show parameters and multiplications (MACs) of a network, or where weights come from."""
    from ossicle.catalog import find_checkpoint

    row = find_checkpoint(name)
    title, facts = (name, network_facts(name)) if row is None else (row.name, weights_facts(row))
    print(title)
    for key, value in facts.items():
        print(f"  {key:16}  {value}")


def network_facts(name: str) -> dict[str, str]:
    from ossicle.catalog import list_checkpoints
    from ossicle.models import summarize_model

    summary = summarize_model(name)
    preset = summary.preset
    counted = f"{preset.counted_frames * preset.frame_seconds:g} s"
    facts = {
        "parameters": f"{summary.parameters:,}",
        f"MACs at {counted}": f"{summary.macs / 1e9:.4g} G",
        f"tokens at {counted}": f"{summary.tokens:,}",
        "longest input": "any length" if summary.seconds is None else f"{summary.seconds:.2f} s",
        "fewer tokens": "yes, by --keep" if summary.reduces_tokens else "no",
        "front end": preset.frontend,
        "width": preset.width,
        "depth": preset.depth,
        "stride": preset.stride,
        "labels": str(preset.num_classes),
    }
    if weights := [row.name for row in list_checkpoints() if row.architecture == name]:
        facts["weights"] = ("\n" + " " * 20).join(weights)
    return facts | ({"note": preset.note} if preset.note else {})


def weights_facts(row: "Checkpoint") -> dict[str, str]:
    from ossicle.catalog import store

    source = store.source_of(row) or {}
    hash = source.get("sha256") or store.pinned_hash(row) or row.sha256
    by = "of the file that was fetched" if "sha256" in source else row.hashes or "pinned at the first download"
    facts = {
        "network": row.architecture,
        "also called": ", ".join(row.aliases),
        "trained on": row.data,
        "predicts": "nothing: a network of images to start a training from"
        if row.is_start
        else f"{len(row.labels)} labels ({row.task}), in windows of {row.window_seconds:g} s",
        "reported metric": f"{row.metric} on {row.metric.data} ({row.metric.source})" if row.metric else "unknown",
        "license": row.license_or_unknown + (f": {row.terms}" if row.terms else ""),
        "address": row.url,
        "page": f"{row.page}, {row.paper}",
        "size": row.size,
        "SHA-256": f"{hash}{'' if len(hash) == 64 else '...'} ({by})"
        if hash
        else "unknown: pinned at the first download",
        "kept here": f"in the package, {row.package_folder}"
        if row.shipped
        else f"{source['since']}, {store.store_folder() / row.name}"
        if source
        else "no",
        "note": row.note,
    }
    return {key: value for key, value in facts.items() if value}


@app.command()
def fetch(
    name: Name,
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the file as it is published into this folder, for another machine."),
    ] = None,
) -> None:
    """Download published weights, and check them; they are used by name."""
    from ossicle.bundle.published import fetch_file, published_folder
    from ossicle.catalog import checkpoint, megabytes, store

    row = checkpoint(name)
    if to is None:
        already = store.kept_folder(row)
        folder = published_folder(row)
        print(f"{row.name}: {'already ' if already else ''}in {folder}")
        return
    got = fetch_file(row, to)
    print(f"Wrote {got.path} ({megabytes(got.bytes)}, SHA-256 {got.sha256})")
    print(f"Where it is to be used: ossicle models add {got.path.name} --as {row.name}")


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="File as it is published, from `ossicle models fetch NAME --to DIR`.")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Name from `ossicle models list --weights`.")],
) -> None:
    """Add a file of published weights that came without a network, checked as a download is."""
    from ossicle.bundle.published import add_file
    from ossicle.catalog import checkpoint, store

    row = checkpoint(name)
    if folder := store.kept_folder(row):
        print(f"{row.name}: already in {folder}")
        return
    print(f"{row.name}: in {add_file(row, file)}")


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="Name of weights that are kept here; by default all.")] = None,
) -> None:
    """Compare the weights that are kept here with the hashes of when they were fetched."""
    from ossicle.catalog import checkpoint, store

    rows = store.kept() if name is None else [checkpoint(name)]
    damaged = 0
    for row in rows:
        if problem := store.verify(row):
            damaged += 1
            again = f"`ossicle models remove {row.name}`, then `ossicle models fetch {row.name}`"
            say(f"{row.name}: {problem}; {again}.")
        else:
            print(f"{row.name}: {'as it came with the package' if row.shipped else 'as it was fetched'}")
    if name is None and not rows:
        print(f"{store.store_folder()}: no weights are kept here")
    if damaged:
        raise typer.Exit(USER_ERROR)


@app.command()
def remove(
    name: Name,
    forget_hash: Annotated[
        bool, typer.Option("--forget-hash", help="Also forget the hash that was pinned at the first download.")
    ] = False,
) -> None:
    """Remove weights that are kept here."""
    from ossicle.catalog import checkpoint, megabytes, store

    row = checkpoint(name)
    if forget_hash and store.pinned_hash(row):
        store.unpin(row)
        print(f"{row.name}: its pinned hash is forgotten")
        if not store.kept_bytes(row):
            return
    print(f"{row.name}: removed, {megabytes(store.remove(row))} are free again")


app.command()(convert.convert)
