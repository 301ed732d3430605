"""A microphone as blocks of samples. Needs the extra `mic`: sounddevice, which uses PortAudio."""

import contextlib
import math
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np

from ossicle.audio.clip import check_block_seconds, check_rate
from ossicle.audio.resample import resampled
from ossicle.audio.source import AudioInfo
from ossicle.errors import AudioUnreadable, ExtraMissing
from ossicle.types import Float32

BEHIND_SECONDS = 5.0  # of queued audio before a warning that the model is too slow
GONE_SECONDS = 10.0  # without a block, after which a microphone counts as unplugged
MOST_LOST_SECONDS = 60.0  # between two blocks; more is a clock that was set


def import_sounddevice() -> Any:
    """The module, or ExtraMissing with what to install: it is also absent where PortAudio is."""
    try:
        import sounddevice
    except Exception as error:  # no package, or no PortAudio: an OSError
        raise ExtraMissing(
            f"a microphone needs sounddevice and PortAudio, which are not available ({error}): "
            "pip install 'ossicle[mic]', and on Linux apt install libportaudio2"
        ) from error
    return sounddevice


def refuse(sentence: str) -> None:
    """Raises an error for a microphone that stops."""
    raise AudioUnreadable(sentence)


def microphone_blocks(
    rate: int,
    *,
    device: str | int | None = None,
    block_seconds: float = 0.1,
    behind: Callable[[str], None] = lambda sentence: None,
    cut_off: Callable[[str], None] = refuse,
    info: AudioInfo | None = None,
) -> Iterator[Float32[np.ndarray, " time"]]:
    """Yields blocks of a microphone, mono at `rate`, until the caller stops or Ctrl-C is pressed.

    Blocks are queued while the caller is busy. Samples that the system drops are replaced by silence of the same
    length, if it is known. The first Ctrl-C ends the recording and not the program, so that all of it is still scored.

    Args:
        device: name or number; by default the system's
        block_seconds: length of a block
        behind: called with a sentence when the caller is too slow, and for each loss
        cut_off: called with a sentence when the microphone stops delivering audio; by default that is an error
        info: receives the microphone's own rate before the first block, and counts frames as they arrive

    Raises:
        ExtraMissing: sounddevice is not installed
        AudioUnreadable: the microphone does not exist, cannot be opened or stops delivering audio
        ValueError: an argument is invalid
    """
    check_rate(rate)
    check_block_seconds(block_seconds)
    sounddevice = import_sounddevice()
    name = "the microphone" if device is None else f"the microphone {device}"
    # Blocks, each with the seconds lost before it, if any were; None ends them. A SimpleQueue, as a signal may put.
    queued: queue.SimpleQueue[tuple[np.ndarray, float | None] | None] = queue.SimpleQueue()
    due = math.inf  # when the next block begins, by the clock of the device

    def take(samples: np.ndarray, count: int, time: Any, status: Any) -> None:
        nonlocal due
        queued.put((samples[:, 0].copy(), time.inputBufferAdcTime - due if status.input_overflow else None))
        due = time.inputBufferAdcTime + count / own

    def blocks() -> Iterator[np.ndarray]:
        warned = False
        while True:
            late = queued.qsize() * block_seconds
            if late > BEHIND_SECONDS and not warned:
                behind(f"the model is {late:.0f} s behind; use a larger --hop or a smaller model")
            warned = late > BEHIND_SECONDS
            try:
                block = queued.get(timeout=GONE_SECONDS + block_seconds)
            except queue.Empty:
                cut_off(f"no audio from {name} for {GONE_SECONDS:g} s; check the connection")
                return
            if block is None:
                return
            samples, lost = block
            if lost is not None and 0 < lost < MOST_LOST_SECONDS:
                behind(f"the system dropped {lost:.2f} s of audio, which is replaced by silence")
                yield np.zeros(round(lost * own), np.float32)
            elif lost is not None:  # not every system has a clock for its sound
                behind("the system dropped audio; times from here on may be too early")
            yield samples

    with contextlib.ExitStack() as stack:
        try:
            own = int(sounddevice.query_devices(device, "input")["default_samplerate"])
            size = max(1, round(block_seconds * own))
            stream = sounddevice.InputStream(
                samplerate=own, blocksize=size, device=device, channels=1, dtype="float32", callback=take
            )
            stack.enter_context(stream)
        except (sounddevice.PortAudioError, ValueError) as error:
            raise AudioUnreadable(f"{name} cannot be opened: {error}") from error
        stack.enter_context(interrupts(lambda: queued.put(None)))
        info = info or AudioInfo()
        info.rate = own
        for piece in resampled(counted(blocks(), info), own, rate):
            if len(piece):
                yield piece


def counted(blocks: Iterator[np.ndarray], info: AudioInfo) -> Iterator[np.ndarray]:
    """Yields the blocks and counts their samples in `info`."""
    for block in blocks:
        info.frames += len(block)
        yield block


@contextlib.contextmanager
def interrupts(end: Callable[[], None]) -> Iterator[None]:
    """Calls `end` on the first Ctrl-C instead of raising KeyboardInterrupt."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        end()

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
