"""What every command line that predicts does with its options: print, fill a folder, or follow live audio."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ossicle.audio.hush import speak_apart
from ossicle.errors import JobStopped, ending
from ossicle.inference.predictor import Predictor
from ossicle.inference.writers import table_lines
from ossicle.jobs.folders import FileResults, Outcome, find_recordings
from ossicle.jobs.live import LineView, plain_lines, predict_live
from ossicle.jobs.options import PredictOptions
from ossicle.jobs.predict import Opener, check_model, load_model, predict_with
from ossicle.jobs.printing import print_files, print_items, print_results, print_written
from ossicle.jobs.progress import files_bar
from ossicle.jobs.store import HIDDEN

Say = Callable[[str], None]
Plot = Callable[[Predictor, FileResults], Sequence[Path]]  # plots results and gives the paths


def run_command(
    opener: Opener,
    inputs: Sequence[Path],
    options: PredictOptions,
    *,
    say: Say,
    lines: LineView = plain_lines,
    plot: Plot | None = None,
) -> int:
    """Predicts the inputs as the options say; returns how many could not be used.

    Args:
        opener: loads the model
        say: takes a sentence about what went wrong
        lines: shows lines of live audio
        plot: plots results in a folder

    Raises: WrongUsage
    """
    options.check(inputs)
    predictor = load_model(opener, options)
    speak_apart()  # decoders are silenced while others have something to say
    if options.output is not None:
        bad, total = fill_folder(predictor, inputs, options, opener=opener, say=say, plot=plot)
    else:
        check_model(predictor, options)
        if not predictor.timed:
            bad, total = print_items(predictor, inputs, options, say=say)
        elif options.live(inputs):
            return predict_live(predictor, options, say=say, lines=lines)
        else:
            files, failed = find_recordings(inputs)
            for outcome in failed:
                say(str(outcome.error))
            bad = len(failed) + print_files(predictor, files, options, say=say)
            total = len(files) + len(failed)
    if bad:
        say(f"{bad} of {total} {predictor.plural} could not be used.")
    return bad


def fill_folder(
    predictor: Predictor,
    inputs: Sequence[Path],
    options: PredictOptions,
    *,
    opener: Opener,
    say: Say,
    plot: Plot | None,
) -> tuple[int, int]:
    """Fills a folder with results and says what came of it; returns how many could not be used, and of how many."""
    folder, resumable = options.output, predictor.timed
    assert folder is not None
    began, done, total = time.monotonic(), 0, 0
    said: set[str] = set()
    try:
        with files_bar() as show:

            def progress(outcome: Outcome, count: int, of: int) -> None:
                nonlocal done, total
                done, total = count, of
                if outcome.error is not None:
                    say(outcome.error)
                    said.add(outcome.file)
                show(outcome, count, of)

            results = predict_with(predictor, inputs, options, opener=opener, progress=progress)
    except KeyboardInterrupt:
        if not (resumable and total):
            raise
        raise KeyboardInterrupt(
            f"Interrupted: {done} of {total} recordings are done and kept in {folder}; the same command with --resume "
            "continues."
        ) from None
    except OSError as error:
        # A write that fails does not say where. Before there is a job, nothing is kept and opening says where.
        if not resumable or ending(error) is None or not (folder / HIDDEN).is_dir():
            raise
        raise JobStopped(
            f"{folder}: {error.strerror}; what is done is kept there, and the same command with --resume continues."
        ) from error
    took = time.monotonic() - began
    for outcome in results.failed:  # folders that cannot be listed are no step of the job
        if outcome.file not in said:
            say(str(outcome.error))
    if "table" in options.format_names:
        for file, rows in results:
            print("\n".join(table_lines(str(file), rows)))
    print_results(results, took=took)
    if plot is not None:  # last: a file that has changed since is an error
        print_written(plot(predictor, results))
    return len(results.failed), len(results.files) + len(results.failed)
