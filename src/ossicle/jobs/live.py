"""Live audio: standard input and the microphone, with each row as soon as it is known."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from itertools import chain
from typing import Any

from ossicle.audio import AudioInfo
from ossicle.errors import AudioUnreadable
from ossicle.files import printable
from ossicle.inference.predictor import Predictor
from ossicle.inference.writers import decimals, table_text
from ossicle.jobs.options import STANDARD_INPUT, PredictOptions, WrongUsage

LineView = Callable[[], AbstractContextManager[Callable[[str], None]]]  # opens what shows lines


@contextlib.contextmanager
def plain_lines() -> Iterator[Callable[[str], None]]:
    """Shows one line after the other."""
    yield lambda line: print(line, flush=True)


def predict_live(
    predictor: Predictor, options: PredictOptions, *, say: Callable[[str], None], lines: LineView = plain_lines
) -> int:
    """Prints each row as soon as it is known; returns 1 if the sound broke off, else 0."""
    breaks: list[str] = []
    info = AudioInfo()
    waiting: dict[str, Any] = {"cut_off": breaks.append, "info": info}
    if options.latency is not None:
        waiting["block_seconds"] = options.latency
    if options.mic:
        from ossicle.audio.microphone import microphone_blocks

        number = options.mic_device
        device = int(number) if number is not None and number.isdecimal() else number
        blocks = microphone_blocks(predictor.rate, device=device, behind=say, **waiting)
    else:
        from ossicle.audio.stream import Layout, stream_blocks

        layout = None
        if options.pcm is not None and options.rate is not None:
            try:
                layout = Layout(encoding=options.pcm, rate=options.rate, channels=options.channels)
            except ValueError as error:
                raise WrongUsage(f"`pcm`: {error}.") from error
        if sys.stdin is None:  # closed, as daemons have it
            raise AudioUnreadable("standard input is closed; send sound into it, or name a recording")
        blocks = stream_blocks(sys.stdin.buffer, predictor.rate, layout=layout, remark=say, **waiting)
    rows = predictor.stream(
        blocks,
        file=STANDARD_INPUT,
        reporting=options.config().reporting,
        window=options.window,
        hop=options.hop,
        batch=1,  # a window waits for no other
        info=info,
    )
    (name,) = options.format_names
    with closing(rows):
        if name == "table":
            with lines() as show:
                digits = 2
                for some in rows:
                    digits = decimals(some, least=digits)
                    for row in some:
                        times = f"{row.start:8.{digits}f} - {row.end:8.{digits}f} s"
                        show(f"{times}  {printable(row.label):<24} {row.score:.4f}")
        else:
            for text in table_text(name, [(info, chain.from_iterable(rows))], predictor.provenance):
                print(text, end="", flush=True)
    for sentence in breaks:
        say(sentence)
    return len(breaks[:1])
