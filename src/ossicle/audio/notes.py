"""What is worth saying of a recording that is read all the same: to the log, once, and with the clip."""

import functools
import logging
from collections.abc import Callable

import numpy as np

from ossicle.audio.hush import HUSH
from ossicle.types import Float32

LOG = logging.getLogger("ossicle.audio")
# Of the energy that channels without anything in common keep when they are averaged: below this share they cancel.
CANCELLED = 0.02
AUDIBLE = 1e-10  # mean square of a channel: -100 dB of full scale
JUDGED_SECONDS = 10.0  # of sound that is still arriving, after which its channels are judged


@functools.lru_cache(maxsize=4096)
def log_once(sentence: str) -> None:
    with HUSH.lifted():
        LOG.warning(sentence)


class Notes:
    """Sentences about one recording, and what its channels lose when they are averaged.

    Args:
        say: told each sentence once; by default the log is
    """

    def __init__(self, name: str, *, say: Callable[[str], None] | None = None) -> None:
        self.name, self.say = name, say or log_once
        self.sentences: list[str] = []
        self.frames = self.channels = 0
        self.apart = self.together = 0.0  # energy of the channels, and of their mean

    def add(self, remark: str) -> None:
        """Notes something about the recording."""
        sentence = f"{self.name}: {remark}"
        if sentence not in self.sentences:
            self.sentences.append(sentence)
            self.say(sentence)

    def weigh(self, block: Float32[np.ndarray, "time channel"], mono: Float32[np.ndarray, " time"]) -> None:
        """Takes a block with its mean over the channels into account."""
        if block.shape[1] > 1:
            flat = np.ascontiguousarray(block).reshape(-1)
            self.frames += len(block)
            self.channels = block.shape[1]
            self.apart += float(flat @ flat)
            self.together += float(mono @ mono)

    def judge(self) -> None:
        """Notes channels that cancel each other in what was weighed."""
        audible = self.apart > AUDIBLE * self.frames * self.channels
        if audible and self.together * self.channels**2 < CANCELLED * self.apart:
            self.add(
                f"its {self.channels} channels cancel each other, so that almost nothing is left of their mean; one is "
                "the other upside down: keep one channel alone (sox IN OUT remix 1)"
            )
