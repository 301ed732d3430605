"""`ossicle predict`: which sounds are in these files, and when."""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ossicle.cli.outcome import SOME_FAILED, say

if TYPE_CHECKING:
    from ossicle.data import Item, Modality
    from ossicle.listening import Hearing, Listener
    from ossicle.predict import Reporting, Row
    from ossicle.recognizer import Recognizer

STANDARD_INPUT = "-"
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
            help="One or several; by default a table, with -o a CSV file. Without -o everything is printed.",
        ),
    ] = None,
    window: Annotated[float | None, typer.Option(help="Seconds heard at once; by default the model's.")] = None,
    hop: Annotated[
        float | None, typer.Option(help="Seconds from one window to the next; by default the window.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Report labels from this score on, in place of the thresholds.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Report at most this many labels for each window.")] = None,
    labels: Annotated[str | None, typer.Option(metavar="A,B,...", help="Report these labels alone.")] = None,
    overlap: Annotated[
        Literal["mean", "max"] | None,
        typer.Option(help="Report stretches in place of overlapping windows, by the mean or the highest of these."),
    ] = None,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="With -o, also draw each recording with what was heard.")
    ] = False,
    text: Annotated[str | None, typer.Option(help="Column with the text, of tables for a model of texts.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps, ...")] = "auto",
    encoder: Annotated[
        str | None, typer.Option(help="Where the frozen encoder of a tuned head is, if not where it was.")
    ] = None,
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
    each: Annotated[
        bool, typer.Option("--each", help="Also a table for each recording.", rich_help_panel=FOLDER)
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what the folder holds.", rich_help_panel=FOLDER)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Throw away what the folder holds.", rich_help_panel=FOLDER)
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
) -> None:
    """Label recordings, window by window; a recording that cannot be used is named and the others are done."""
    from ossicle.listening import Hearing
    from ossicle.loading import load

    live = mic or inputs == [Path(STANDARD_INPUT)]
    if not live and not inputs:
        raise typer.BadParameter("Name a recording, a folder, - for standard input, or give --mic.")
    if live and (output is not None or (mic and inputs)):
        raise typer.BadParameter("Live sound is printed, and is the only input: leave out -o and other inputs.")
    _together(output, {"--each": each, "--resume": resume, "--overwrite": overwrite, "--timeline": timeline}, "-o")
    _together(output, {"--workers": workers > 1, "--cluster": cluster}, "-o")
    _together(pcm, {"--rate": rate, "--channels": channels > 1}, "--pcm")
    wanted = _read_formats(formats, to_folder=output is not None)
    reporting = _reporting(
        events,
        {"release": release, "median": median, "min_seconds": min_duration, "merge_gap": merge_gap},
        top_k=top_k,
        min_score=min_score,
        labels=None if labels is None else tuple(label.strip() for label in labels.split(",")),
        overlap=overlap,
    )
    recognizer = load(model, device=device, encoder=encoder)
    if recognizer.modality != "sound":
        given: dict[str, Any] = {"--window": window, "--hop": hop, "--overlap": overlap, "--events": events, "-": live}
        given |= {"--workers": workers > 1, "--cluster": cluster, "--resume": resume, "--timeline": timeline}
        given |= {f"--format {name}": name in wanted for name in ("audacity", "raven")}
        if names := [name for name, value in given.items() if value]:
            kind = recognizer.modality
            raise typer.BadParameter(f"{model} answers {kind}s, which have no times: leave out {names[0]}.")
    hearing = Hearing(window=window, hop=hop, reporting=reporting, batch=1 if live else Hearing.batch)
    _check(recognizer, hearing)

    if live:
        missing: list[str] = []
        if mic:
            blocks = _microphone(recognizer, mic_device)
        else:
            blocks = _standard_input(recognizer, pcm, rate, channels, cut_off=missing.append)
        _listen(recognizer, blocks, hearing, formats=wanted)
        for sentence in missing:
            say(sentence)
        if missing:
            raise typer.Exit(SOME_FAILED)
        return
    items, failures = _find_items(inputs or [], recognizer.modality, text=text)
    if output is None or recognizer.modality != "sound":
        count = _print(recognizer, items, hearing, formats=wanted, output=output)
        failed, total = count + len(failures), len(items) + len(failures)
    else:
        start = functools.partial(load, model, device=device, encoder=encoder)
        failed = _work(
            recognizer,
            [item.file for item in items],
            output,
            hearing,
            failures=failures,
            pool=_pool(start, workers, cluster, hearing),
            formats=wanted,
            timeline=timeline,
            each=each,
            resume=resume,
            overwrite=overwrite,
        )
        total = len(items) + len(failures)
    if failed:
        say(f"{failed} of {total} {NOUNS[recognizer.modality]} could not be used.")
        raise typer.Exit(SOME_FAILED)


# --- what was asked for -----------------------------------------------------------------------------------------------


def _together(needed: Any, given: dict[str, Any], name: str) -> None:
    """Refuses options that say nothing without another one."""
    if needed is None and (alone := [option for option, value in given.items() if value]):
        raise typer.BadParameter(f"This needs {name} as well.", param_hint=alone[0])


def _read_formats(text: str | None, *, to_folder: bool) -> tuple[str, ...]:
    from ossicle.predict import FORMATS

    if text is None:
        return ("csv",) if to_folder else ("table",)
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in FORMATS]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(FORMATS)}.", param_hint="--format")
    return names


def _reporting(events: bool, rules: dict[str, Any], **choices: Any) -> "Reporting":
    from ossicle.predict import EventRules, Reporting

    given = {name: value for name, value in rules.items() if value is not None}
    if given and not events:
        name = "min-duration" if "min_seconds" in given else next(iter(given)).replace("_", "-")
        raise typer.BadParameter("This needs --events as well.", param_hint=f"--{name}")
    try:
        return Reporting(events=EventRules(**given) if events else None, **choices)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--events") from error


def _check(recognizer: "Recognizer", hearing: "Hearing") -> None:
    """Refuses a window and labels that the model does not take, before anything is heard."""
    from ossicle.predict import label_indices

    try:
        label_indices(recognizer.labels, hearing.reporting.labels)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--labels") from error
    if recognizer.modality == "sound":
        try:
            recognizer.window_samples(window=hearing.window, hop=hearing.hop)
        except ValueError as error:
            raise typer.BadParameter(f"{error}.", param_hint="--window / --hop") from error


NOUNS = {"sound": "recordings", "text": "texts", "image": "images"}


def _find_items(inputs: list[Path], modality: "Modality", *, text: str | None) -> tuple[list["Item"], list[str]]:
    """What the inputs name, each once, in order, and the folders that cannot be listed, a sentence each.

    A missing file stays in and fails later, by name.
    """
    from ossicle.data import find_items
    from ossicle.errors import DataRefused

    items: list[Item] = []
    failures: list[str] = []
    for path in inputs:
        found = find_items(path, modality=modality, text=text, unlisted=failures.append)
        if not found and not failures:
            raise DataRefused(f"{path}: there is no {NOUNS[modality].removesuffix('s')} in this folder or below it.")
        items += found
    return list(dict.fromkeys(items)), failures


# --- to the terminal --------------------------------------------------------------------------------------------------


def _print(
    recognizer: "Recognizer", items: list["Item"], hearing: "Hearing", *, formats: tuple[str, ...], output: Path | None
) -> int:
    """Prints what each item says, or writes it whole to a folder; gives how many could not be used."""
    from ossicle.data.inputs import INPUT_ERRORS
    from ossicle.predict import TABLES, table_lines, table_text, write_tables

    tables = [name for name in formats if name in TABLES]
    if output is None and any(TABLES[name].per_recording for name in tables) and len(items) > 1:
        raise typer.BadParameter(
            "An Audacity label track belongs to one recording: give -o for several.", param_hint="--format"
        )
    rows_of_file: dict[Path, tuple[Row, ...]] = {}
    failed = 0
    for item in items:
        try:
            rows = _rows(recognizer, item, hearing)
        except INPUT_ERRORS as error:
            say(str(error))
            failed += 1
            continue
        rows_of_file[Path(item.place)] = rows
        if "table" in formats:
            for line in table_lines(item.place, rows):
                print(line)
    if output is None:
        for name in tables:
            everything = (row for rows in rows_of_file.values() for row in rows)
            sys.stdout.writelines(table_text(name, everything, recognizer.source))
        return failed
    written = write_tables(
        output, rows_of_file.items(), files=list(rows_of_file), formats=tables, source=recognizer.source
    )
    _say_written(written)
    return failed


def _rows(recognizer: "Recognizer", item: "Item", hearing: "Hearing") -> "tuple[Row, ...]":
    if recognizer.modality == "sound":
        options = {"window": hearing.window, "hop": hearing.hop, "reporting": hearing.reporting}
        return recognizer.predict_item(item, **options).rows
    return recognizer.predict_item(item, reporting=hearing.reporting).rows


def _say_written(written: Iterable[Path]) -> None:
    """Names the tables of everything, and one of those of single recordings."""
    paths = list(written)
    together = [path for path in paths if path.stem.startswith("predictions") or path.name == "errors.csv"]
    apart = [path for path in paths if path not in together]
    for path in together:
        print(f"Wrote {path}")
    if apart:
        print(f"Wrote {apart[0]}" + (f" and {len(apart) - 1} more" if len(apart) > 1 else ""))


# --- to a folder ------------------------------------------------------------------------------------------------------


def _pool(start: Any, workers: int, cluster: str | None, hearing: "Hearing") -> Any:
    if cluster is not None:
        from ossicle.listening.cluster import ClusterWorkers

        return ClusterWorkers(start, number=workers, hearing=hearing, address=cluster)
    if workers > 1:
        from ossicle.listening import Workers
        from ossicle.loading import load_among

        return Workers(functools.partial(load_among, start, workers), number=workers, hearing=hearing)
    return None


def _work(
    recognizer: "Recognizer",
    files: list[Path],
    output: Path,
    hearing: "Hearing",
    *,
    failures: list[str],
    formats: tuple[str, ...],
    timeline: bool,
    **options: Any,
) -> int:
    """Runs a job and says what came of it; gives how many inputs could not be used."""
    import time

    from ossicle.cli.progress import hours_of_sound
    from ossicle.listening import Heard, run_job
    from ossicle.predict import table_lines

    began = time.monotonic()
    failed = [Heard(file=sentence.partition(":")[0], error=sentence) for sentence in failures]
    for heard in failed:
        say(str(heard.error))
    done = {"files": 0}
    try:
        with hours_of_sound() as show:

            def progress(heard: "Heard", count: int, total: int) -> None:
                done["files"] = count
                if heard.error is not None:
                    say(heard.error)
                show(heard.seconds, count, total)

            result = run_job(
                output,
                files,
                recognizer,
                hearing=hearing,
                formats=formats,
                failed=failed,
                progress=progress,
                **options,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Interrupted after {done['files']} of {len(files)} recordings, which are kept in {output}; "
            "the same command with --resume goes on."
        ) from None
    if "table" in formats:
        for file, rows in result.rows():
            for line in table_lines(str(file), list(rows)):
                print(line)
    pictures: list[Path] = []
    if timeline:
        from ossicle.timeline import draw_recordings

        pictures = draw_recordings(output, result.rows(), files=result.files, labels=recognizer.labels)
    _say_written([*result.written, *pictures])
    fresh = len(result.files) - result.before
    if result.before:
        print(f"{result.before} recordings were done before.")
    if fresh:
        took = time.monotonic() - began
        print(
            f"{fresh} recordings heard, {result.seconds / 3600:.2f} h, in {took:.0f} s "
            f"({fresh / took:.1f} files/s, {result.seconds / 60 / took:.2f} h of sound a minute)."
        )
    return len(result.failed)


# --- live -------------------------------------------------------------------------------------------------------------


def _standard_input(
    listener: "Listener", pcm: str | None, rate: int | None, channels: int, *, cut_off: Callable[[str], None]
) -> Iterator[Any]:
    from ossicle.audio.stream import Layout, stream_blocks

    layout = None
    if pcm is not None:
        if rate is None:
            raise typer.BadParameter("Raw samples do not say their rate: give --rate.", param_hint="--pcm")
        try:
            layout = Layout(encoding=pcm, rate=rate, channels=channels)
        except ValueError as error:
            raise typer.BadParameter(f"{error}.", param_hint="--pcm") from error
    return stream_blocks(sys.stdin.buffer, listener.rate, layout=layout, cut_off=cut_off)


def _microphone(listener: "Listener", device: str | None) -> Iterator[Any]:
    from ossicle.audio.microphone import microphone_blocks

    number = int(device) if device is not None and device.isdecimal() else device
    return microphone_blocks(listener.rate, device=number, behind=say)


def _listen(listener: "Listener", blocks: Iterator[Any], hearing: "Hearing", *, formats: tuple[str, ...]) -> None:
    """Prints each row as soon as it is known."""
    from ossicle.predict import TABLES

    if len(formats) > 1:
        raise typer.BadParameter("Live sound is printed in one format.", param_hint="--format")
    (name,) = formats
    rows = listener.stream(
        blocks,
        file=STANDARD_INPUT,
        reporting=hearing.reporting,
        window=hearing.window,
        hop=hearing.hop,
        batch=hearing.batch,
    )
    with closing(rows):
        if name == "table":
            _refresh(rows)
            return
        print(TABLES[name].header, end="", flush=True)
        number = 0
        for some in rows:
            for row in some:
                number += 1
                print(TABLES[name].line(row, number, listener.source), end="", flush=True)


def _refresh(rows: Iterator[list["Row"]]) -> None:
    """The latest rows at the bottom of a terminal; line after line in a pipe."""
    from ossicle.cli.progress import latest_lines

    with latest_lines() as show:
        for some in rows:
            for row in some:
                show(f"{row.start:8.2f} - {row.end:8.2f} s  {row.label:<24} {row.score:.4f}")
