"""Whether a file gives the numbers of the recogniser that it was made from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ossicle.data import Item, read_dataset
from ossicle.data.inputs import INPUT_ERRORS, read_input
from ossicle.errors import DataRefused, ExportRefused
from ossicle.export.formats import Answer
from ossicle.export.graph import Graph
from ossicle.recognizer import Recognizer

MOST = 1e-4  # difference of scores
CLIPS = 3  # in the larger batch


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a comparison found."""

    difference: float  # largest of scores
    windows: int
    tops: int  # windows with the same best label


def check(
    recognizer: Recognizer, answer: Answer, *, graph: Graph, sounds: Sequence[Float32[np.ndarray, "_"]]
) -> Agreement:
    """Compares windows of several lengths, alone and three together.

    Raises: ExportRefused for scores that differ by more than 1e-4, or another best label.
    """
    found = compare(recognizer, answer, batches(sounds, lengths(recognizer, graph)))
    if not found.difference <= MOST or found.tops < found.windows:
        raise ExportRefused(
            f"the exported graph differs from the model: scores by up to {found.difference:.1e}, where {MOST:g} is "
            f"allowed, and another best label in {found.windows - found.tops} of {found.windows} windows; "
            "nothing was kept."
        )
    return found


def compare(recognizer: Recognizer, answer: Answer, windows: Iterator[Float32[np.ndarray, "clip time"]]) -> Agreement:
    """The largest difference of scores between a file and its recogniser, and how often the best label agrees."""
    difference, count, tops = 0.0, 0, 0
    for batch in windows:
        found = answer(batch)
        theirs, ours = found["scores"], recognizer.activate(recognizer.scores(batch))
        apart = np.abs(theirs - ours)
        if "hop_logits" in found:
            hops = recognizer.hop_scores(batch)
            apart = np.append(apart, np.abs(recognizer.activate(found["hop_logits"]) - recognizer.activate(hops)))
        # NaN must not pass for the smallest difference.
        difference = max(difference, float(np.where(np.isnan(apart), np.inf, apart).max()))
        count += len(batch)
        tops += int((theirs.argmax(-1) == ours.argmax(-1)).sum())
    return Agreement(difference=difference, windows=count, tops=tops)


def lengths(recognizer: Recognizer, graph: Graph) -> list[int]:
    """The shortest window, the model's own, and an odd one on either side of it, in samples."""
    window = recognizer.window_samples()[0]
    wanted = (graph.min_samples, (graph.min_samples + window) // 3, window, 5 * window // 4 + 1)
    return sorted({min(max(length, graph.min_samples), graph.max_samples) for length in wanted})


def batches(
    sounds: Sequence[Float32[np.ndarray, "_"]], lengths: Sequence[int]
) -> Iterator[Float32[np.ndarray, "clip time"]]:
    """Of each length one sound alone and three together, each its turn; what is short is repeated."""
    turn = 0
    for length in lengths:
        for count in (1, CLIPS):
            chosen = [sounds[(turn + number) % len(sounds)] for number in range(count)]
            turn += count
            yield np.stack([np.resize(sound, length) for sound in chosen])


def made_sounds(recognizer: Recognizer) -> list[Float32[np.ndarray, "_"]]:
    """A window each of noise, tones, sweeps and clicks, some of them soft."""
    rng = np.random.default_rng(0)
    time = np.arange(recognizer.window_samples()[0]) / recognizer.rate
    sounds = []
    for number in range(8):
        hertz = rng.uniform(60, recognizer.rate / 4, size=(3, 1))
        parts = [
            rng.normal(size=len(time)),
            np.sin(2 * np.pi * hertz * time).sum(0) + 0.01 * rng.normal(size=len(time)),
            np.sin(2 * np.pi * hertz[0] * time**2) + 0.1 * rng.normal(size=len(time)),
            np.exp(-20 * (time % 0.25)) * rng.normal(size=len(time)),
        ]
        loudness = 10 ** rng.uniform(-2.5, -0.5)
        sounds.append((loudness * parts[number % 4]).clip(-1, 1).astype(np.float32))
    return sounds


def real_sounds(recognizer: Recognizer, data: Path, *, most: int = 12) -> list[Float32[np.ndarray, "_"]]:
    """The first window of some recordings, spread over the data set.

    Raises: DataRefused where fewer than three can be used.
    """
    items = read_dataset(data).items
    sounds: list[Float32[np.ndarray, _]] = []
    for item in items[:: max(1, len(items) // most)][:most]:
        try:
            sounds.append(first_window(recognizer, item))
        except INPUT_ERRORS:
            continue
    if len(sounds) < CLIPS:
        raise DataRefused(f"{data}: {len(sounds)} of {min(len(items), most)} recordings could be used; 3 are needed.")
    return sounds


def first_window(recognizer: Recognizer, item: Item) -> Float32[np.ndarray, "_"]:
    """The beginning of a recording, as long as a window or shorter."""
    samples = read_input(item, modality="sound", rate=recognizer.rate)
    return np.asarray(samples, dtype=np.float32)[: recognizer.window_samples()[0]]
