"""`ossicle-runtime MODEL.onnx INPUT...`: `ossicle predict` where there is no torch, with the same options."""

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ossicle.errors import DONE, SOME_FAILED, USER_ERROR, WRONG_USAGE, begin, end, ending, log_shown
from ossicle.jobs import Workers
from ossicle.jobs.command import PredictOptions, WrongUsage, predict
from ossicle.runtime import load


def parser() -> argparse.ArgumentParser:
    """The options of `ossicle predict` that have a meaning here."""
    command = argparse.ArgumentParser("ossicle-runtime", description="Label recordings with an exported model.")
    add = command.add_argument
    add("model", type=Path, help="ONNX file of `ossicle export`")
    add("inputs", type=Path, nargs="*", metavar="INPUT", help="recordings, folders with recordings, or -")
    add("-o", "--output", type=Path, help="folder for tables of what was heard")
    add("--format", dest="formats", metavar="table,csv,jsonl,audacity,raven", help="with -o also several")
    add("--window", type=float, help="seconds heard at once")
    add("--hop", type=float, help="seconds from one window to the next")
    add("--min-score", type=float, help="report labels from this score on")
    add("--top-k", type=int, help="report at most this many labels for each window")
    add("--labels", metavar="A,B,...", help="report these labels alone; one with a comma in quotes")
    add("--overlap", choices=("mean", "max"), help="report stretches in place of overlapping windows")
    add("--events", action="store_true", help="report events with onset and offset, not windows")
    add("--release", type=float, help="an event lasts down to this share of its threshold")
    add("--median", type=int, help="windows to take the median of")
    add("--min-duration", type=float, help="seconds below which an event is dropped")
    add("--merge-gap", type=float, help="seconds between events that count as one")
    add("--track", type=int, help="of several audio tracks, counted from 1; by default the file's own choice")
    add("--each", action="store_true", help="also a table for each recording")
    add("--resume", action="store_true", help="go on with what the folder holds")
    add("--overwrite", action="store_true", help="throw away the results that the folder holds")
    add("--workers", type=int, default=1, help="processes that share the files")
    add("--pcm", metavar="s16le|f32le|...", help="standard input is raw samples, not WAV")
    add("--rate", type=int, help="of raw samples, hertz")
    add("--channels", type=int, default=1, help="of raw samples")
    add("--mic", action="store_true", help="listen to the microphone, until Ctrl-C")
    add("--mic-device", help="name or number of the microphone")
    add("--latency", type=float, metavar="SECONDS", help="live sound that is waited for at a time; by default 0.1")
    add("--threads", type=int, help="of each process, to compute with; by default the cores are shared")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit code: 0 done, 1 the user's error, 2 wrong usage, 3 some failed, 130."""
    begin()
    with log_shown(say):
        return end(run(arguments), say=say)


def run(arguments: Sequence[str] | None) -> int:
    """The command, but for what it has printed and not yet written."""
    given = vars(parser().parse_intermixed_args(arguments))  # inputs behind options too
    model, inputs, threads = given.pop("model"), given.pop("inputs"), given.pop("threads")
    options = PredictOptions(**given)
    try:
        options.check(inputs)
        if threads is not None and threads < 1:
            raise WrongUsage(f"This is 1 or more, not {threads}.", "--threads")
        workers = None
        if options.workers > 1:
            each = threads or max(1, (os.cpu_count() or 1) // options.workers)
            start = functools.partial(load, model, threads=each)
            workers = Workers(start, number=options.workers, config=options.config())
        failed = predict(load(model, threads=threads), inputs, options, say=say, pool=workers)
        return SOME_FAILED if failed else DONE
    except WrongUsage as error:
        say(f"{error}" + (f" ({error.option})" if error.option else ""))
        return WRONG_USAGE
    except BrokenPipeError:  # whoever read has left
        return USER_ERROR
    except (Exception, KeyboardInterrupt) as error:
        if (how := ending(error)) is None:
            raise
        say(how[0])
        return how[1]


def say(sentence: str) -> None:
    """Prints one sentence about what went wrong, on standard error."""
    print(f"ossicle-runtime: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
