"""Warnings about a recording that can be read: logged once, and returned with the clip."""

import functools
import logging
from collections.abc import Callable

import numpy as np

from ossicle.audio.hush import HUSH
from ossicle.types import Float32

LOG = logging.getLogger("ossicle.audio")
# Fraction of the energy that uncorrelated channels keep when averaged: below it they cancel.
CANCELLED = 0.02
AUDIBLE = 1e-10  # mean square of a channel: -100 dB of full scale
JUDGED_SECONDS = 10.0  # of sound that is still arriving, after which its channels are judged


@functools.lru_cache(maxsize=4096)
def log_once(sentence: str) -> None:
    with HUSH.lifted():
        LOG.warning(sentence)


class Notes:
    """Warnings about one recording, and the energy that its channels lose when they are averaged.

    Args:
        report: called once with each sentence; by default it is logged
    """

    def __init__(self, name: str, *, report: Callable[[str], None] | None = None) -> None:
        self.name, self.report = name, report or log_once
        self.sentences: list[str] = []
        self.frames = self.channels = 0
        self.apart = self.together = 0.0  # energy of the channels, and of their mean

    def add(self, remark: str) -> None:
        """Adds a warning about the recording."""
        sentence = f"{self.name}: {remark}"
        if sentence not in self.sentences:
            self.sentences.append(sentence)
            self.report(sentence)

    def weigh(self, block: Float32[np.ndarray, "time channel"], mono: Float32[np.ndarray, " time"]) -> None:
        """Adds the energy of a block and of its mean over the channels."""
        if block.shape[1] > 1:
            flat = np.ascontiguousarray(block).reshape(-1)
            self.frames += len(block)
            self.channels = block.shape[1]
            self.apart += float(flat @ flat)
            self.together += float(mono @ mono)

    def judge(self) -> None:
        """Adds a warning if the channels cancel each other."""
        audible = self.apart > AUDIBLE * self.frames * self.channels
        if audible and self.together * self.channels**2 < CANCELLED * self.apart:
            self.add(
                f"its {self.channels} channels cancel each other in their mean (inverted phase); "
                "keep one channel (sox IN OUT remix 1)"
            )
