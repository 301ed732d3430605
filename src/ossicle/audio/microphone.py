"""A microphone as blocks of samples. Needs the extra `mic`: sounddevice, which speaks to PortAudio."""

import queue
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ossicle.audio.resample import resampled
from ossicle.errors import AudioUnreadable, ExtraMissing
from ossicle.shapes import Float32

BEHIND_SECONDS = 5.0  # of sound waiting, from which on it is said that the model is too slow


def import_sounddevice() -> Any:
    """The module, or ExtraMissing with what to install: it is also absent where PortAudio is."""
    try:
        import sounddevice
    except Exception as error:  # no package, or no PortAudio: an OSError
        raise ExtraMissing(
            f"a microphone needs sounddevice and PortAudio, which are not here ({error}): "
            "pip install 'ossicle[mic]', and on Linux apt install libportaudio2"
        ) from error
    return sounddevice


def microphone_blocks(
    rate: int,
    *,
    device: str | int | None = None,
    block_seconds: float = 0.1,
    behind: Callable[[str], None] = lambda sentence: None,
) -> Iterator[Float32[np.ndarray, " time"]]:
    """Yields what a microphone hears, mono at `rate`, until the caller stops; nothing is dropped.

    Args:
        device: name or number; by default the system's
        behind: told, in a sentence, when the caller is slower than the sound

    Raises:
        ExtraMissing: there is no sounddevice
        AudioUnreadable: there is no such microphone, or it does not open
    """
    sounddevice = import_sounddevice()
    try:
        own = int(sounddevice.query_devices(device, "input")["default_samplerate"])
        heard: queue.Queue[np.ndarray] = queue.Queue()
        stream = sounddevice.InputStream(
            samplerate=own,
            blocksize=round(block_seconds * own),
            device=device,
            channels=1,
            dtype="float32",
            callback=lambda samples, count, time, status: heard.put(samples[:, 0].copy()),
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioUnreadable(f"the microphone {device or ''} does not open: {error}".replace("  ", " ")) from error

    def blocks() -> Iterator[np.ndarray]:
        said = False
        with stream:
            while True:
                late = heard.qsize() * block_seconds
                if late > BEHIND_SECONDS and not said:
                    behind(f"the model is {late:.0f} s behind the sound: a larger --hop or a smaller model keeps up")
                said = late > BEHIND_SECONDS
                yield heard.get()

    for piece in resampled(blocks(), own, rate):
        if len(piece):
            yield piece
