"""`ossicle predict`: which sounds are in these files, and when."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ossicle.cli.options import Device, EncoderPlace, Keep, KeepBy, Track
from ossicle.cli.outcome import SOME_FAILED, say

if TYPE_CHECKING:
    from ossicle.data import Item
    from ossicle.jobs import JobResult
    from ossicle.jobs.command import Pool, PredictOptions
    from ossicle.recognizer import Recognizer

EVENTS, FOLDER, STREAM = "Events", "A folder of results", "Live sound"


def predict(
    model: Annotated[str, typer.Argument(help="Bundle folder, run folder, or Hugging Face Hub id (user/name).")],
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Recordings, folders with recordings, or - for standard input; or images. For a model of texts, "
            "tables with a column of texts, or text files.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for tables of what was heard.")] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="table,csv,jsonl,audacity,raven",
            help="By default a table, with -o a CSV file; with -o also several.",
        ),
    ] = None,
    window: Annotated[float | None, typer.Option(help="Seconds heard at once; by default the model's.")] = None,
    hop: Annotated[
        float | None,
        typer.Option(help="Seconds from one window to the next; by default the model's, or all of --window."),
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Report labels from this score on, in place of the thresholds.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Report at most this many labels for each window.")] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Report these labels alone; one with a comma in quotes.")
    ] = None,
    overlap: Annotated[
        Literal["mean", "max"] | None,
        typer.Option(help="Report stretches in place of overlapping windows, by the mean or the highest of these."),
    ] = None,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="With -o, also draw each recording with what was heard.")
    ] = False,
    text: Annotated[str | None, typer.Option(help="Column with the text, of tables for a model of texts.")] = None,
    device: Device = "auto",
    encoder: EncoderPlace = None,
    keep: Keep = None,
    keep_by: KeepBy = None,
    events: Annotated[
        bool,
        typer.Option(
            "--events", help="Report events with onset and offset in place of windows.", rich_help_panel=EVENTS
        ),
    ] = False,
    release: Annotated[
        float | None,
        typer.Option(help="An event lasts down to this share of its threshold; 1.", rich_help_panel=EVENTS),
    ] = None,
    median: Annotated[
        int | None, typer.Option(help="Windows to take the median of; odd, 1.", rich_help_panel=EVENTS)
    ] = None,
    min_duration: Annotated[
        float | None, typer.Option(help="Seconds below which an event is dropped; 0.", rich_help_panel=EVENTS)
    ] = None,
    merge_gap: Annotated[
        float | None,
        typer.Option(help="Seconds between events that count as one; 0.", rich_help_panel=EVENTS),
    ] = None,
    track: Track = None,
    each: Annotated[
        bool, typer.Option("--each", help="Also a table for each recording.", rich_help_panel=FOLDER)
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what the folder holds.", rich_help_panel=FOLDER)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Throw away the results that the folder holds.", rich_help_panel=FOLDER)
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the files.", rich_help_panel=FOLDER)] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Share the files on a Ray cluster; local starts one here.", rich_help_panel=FOLDER
        ),
    ] = None,
    pcm: Annotated[
        str | None,
        typer.Option(metavar="s16le|f32le|...", help="Standard input is raw samples, not WAV.", rich_help_panel=STREAM),
    ] = None,
    rate: Annotated[int | None, typer.Option(help="Of raw samples, hertz.", rich_help_panel=STREAM)] = None,
    channels: Annotated[int, typer.Option(min=1, help="Of raw samples.", rich_help_panel=STREAM)] = 1,
    mic: Annotated[
        bool, typer.Option("--mic", help="Listen to the microphone, until Ctrl-C.", rich_help_panel=STREAM)
    ] = False,
    mic_device: Annotated[
        str | None, typer.Option(help="Name or number of the microphone.", rich_help_panel=STREAM)
    ] = None,
    latency: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Live sound that is waited for at a time; by default 0.1.", rich_help_panel=STREAM
        ),
    ] = None,
) -> None:
    """Label recordings, window by window; a recording that cannot be used is named and the others are done."""
    from ossicle.jobs.command import PredictOptions, WrongUsage, needs
    from ossicle.jobs.store import kept_setting

    options = PredictOptions(
        output=output,
        formats=formats,
        window=window,
        hop=hop,
        min_score=min_score,
        top_k=top_k,
        labels=labels,
        overlap=overlap,
        events=events,
        release=release,
        median=median,
        min_duration=min_duration,
        merge_gap=merge_gap,
        track=track,
        each=each,
        resume=resume,
        overwrite=overwrite,
        workers=workers,
        pcm=pcm,
        rate=rate,
        channels=channels,
        mic=mic,
        mic_device=mic_device,
        latency=latency,
    )
    try:
        options.check(inputs or [], **{"--cluster": cluster, "--timeline": timeline})
        needs(keep is not None, {"--keep-by": keep_by}, "--keep")
        if cluster is not None:  # whose actors work in another folder
            model, encoder = _absolute(model), encoder and _absolute(encoder)
        # A job goes on with the routines that it was begun with, whatever is measured now.
        kept = None if output is None or overwrite else kept_setting(output, "kernels")
        start = functools.partial(
            _load, model, device=device, encoder=encoder, keep=keep, keep_by=keep_by, kernels=kept or "auto"
        )
        failed = _predict(start, inputs or [], options, text=text, timeline=timeline, cluster=cluster)
    except WrongUsage as error:
        raise typer.BadParameter(str(error), param_hint=error.option) from error
    if failed:
        raise typer.Exit(SOME_FAILED)


def _absolute(name: str) -> str:
    """A local path from the root on; a Hub id, or the name of an encoder, stays."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _load(
    model: str,
    *,
    device: str,
    encoder: str | None,
    keep: float | None,
    keep_by: Literal["merge", "strided"] | None,
    kernels: str,
) -> "Recognizer":
    from ossicle.jobs.command import WrongUsage
    from ossicle.loading import load
    from ossicle.models.tokens import TokenReduction

    try:
        reduction = None if keep is None else TokenReduction(keep=keep, method=keep_by or "merge")
        return load(model, device=device, encoder=encoder, reduction=reduction, kernels=kernels)
    except ValueError as error:
        if keep is None:
            raise
        raise WrongUsage(f"{error}.", "--keep") from error


def _predict(
    start: "Callable[..., Recognizer]",
    inputs: list[Path],
    options: "PredictOptions",
    *,
    text: str | None,
    timeline: bool,
    cluster: str | None,
) -> int:
    """Hears, reads or sees the inputs; gives how many could not be used."""
    from ossicle.cli.progress import hours_of_sound, latest_lines
    from ossicle.jobs import command
    from ossicle.loading import load_among

    if (
        options.workers > 1 and cluster is None
    ):  # each has a part of the processors, and the routines are chosen for that
        start = functools.partial(load_among, start, options.workers)
    recognizer = start()
    if text is not None and recognizer.modality != "text":
        raise command.WrongUsage("This model answers no texts, and needs no column of them.", "--text")
    if recognizer.modality != "sound":
        _refuse_times(recognizer.modality, inputs, options, {"--timeline": timeline, "--cluster": cluster})
        return _predict_whole(recognizer, inputs, options, text=text)
    return command.predict(
        recognizer,
        inputs,
        options,
        say=say,
        pool=_pool(functools.partial(start, kernels=str(recognizer.kernels)), options, cluster),
        screen=latest_lines,
        bar=hours_of_sound,
        draw=functools.partial(_draw, recognizer, options.track) if timeline else command.no_pictures,
    )


def _pool(start: "Callable[..., Recognizer]", options: "PredictOptions", cluster: str | None) -> "Pool | None":
    if cluster is not None:
        from ossicle.jobs.cluster import ClusterWorkers

        return ClusterWorkers(start, number=options.workers, config=options.config(), address=cluster)
    if options.workers > 1:
        from ossicle.jobs import Workers

        return Workers(start, number=options.workers, config=options.config())
    return None


def _draw(recognizer: "Recognizer", track: int | None, folder: Path, result: "JobResult") -> list[Path]:
    from ossicle.timeline import draw_recordings, picture_paths

    result.store.written.claim(picture_paths(folder, result.files))
    return draw_recordings(folder, result.rows(), files=result.files, labels=recognizer.labels, track=track)


# --- what has no times ------------------------------------------------------------------------------------------------

NOUNS = {"text": "texts", "image": "images"}


def _refuse_times(modality: str, inputs: list[Path], options: "PredictOptions", more: dict[str, Any]) -> None:
    """Refuses options of sound, the first one by name."""
    from ossicle.jobs.command import WrongUsage

    given: dict[str, Any] = {
        "--window": options.window,
        "--hop": options.hop,
        "--overlap": options.overlap,
        "--events": options.events,
        "--workers": options.workers > 1,
        "--track": options.track,
        "--resume": options.resume,
        "--each": options.each,
        "-": options.live(inputs),
        **{f"--format {name}": name in options.wanted for name in ("audacity", "raven")},
        **more,
    }
    if names := [name for name, value in given.items() if value]:
        raise WrongUsage(f"This model answers {NOUNS[modality]}, which have no times: leave out {names[0]}.")


def _predict_whole(recognizer: "Recognizer", inputs: list[Path], options: "PredictOptions", *, text: str | None) -> int:
    """Prints or writes what each text or image says."""
    from ossicle.audio import AudioInfo
    from ossicle.data import find_items
    from ossicle.data.inputs import INPUT_ERRORS
    from ossicle.errors import DataRefused
    from ossicle.inference import TABLES, Row, table_lines, table_paths, table_text, write_tables
    from ossicle.jobs.command import check_labels, say_written
    from ossicle.jobs.store import Written

    config, noun = options.config(), NOUNS[recognizer.modality]
    check_labels(recognizer, config)
    items: list[Item] = []
    for path in inputs:
        found = find_items(path, modality=recognizer.modality, text=text)
        if not found:
            raise DataRefused(f"{path}: there is no {noun.removesuffix('s')} in this folder or below it.")
        items += found
    items = list(dict.fromkeys(items))
    tables = [name for name in options.wanted if name in TABLES]
    if options.output is not None:
        written = Written(options.output)
        written.begin(table_paths(options.output, [], formats=tables), overwrite=options.overwrite)
    rows_of_place: dict[Path, tuple[Row, ...]] = {}
    failed = 0
    for item in items:
        try:
            rows = recognizer.predict_item(item, reporting=config.reporting).rows
        except INPUT_ERRORS as error:
            say(str(error))
            failed += 1
            continue
        rows_of_place[Path(item.place)] = rows
        if "table" in options.wanted:
            print("\n".join(table_lines(item.place, rows)))
    everything = [(AudioInfo(), rows) for rows in rows_of_place.values()]
    if options.output is None:
        for name in tables:
            sys.stdout.writelines(table_text(name, everything, recognizer.source))
    else:
        written.claim(table_paths(options.output, list(rows_of_place), formats=tables))
        files, source = list(rows_of_place), recognizer.source
        say_written(write_tables(options.output, everything, files=files, formats=tables, source=source))
    if failed:
        say(f"{failed} of {len(items)} {noun} could not be used.")
    return failed
