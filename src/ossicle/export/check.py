"""Whether a file gives the numbers of the recogniser that it was made from."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ossicle.data import Item, read_dataset
from ossicle.data.inputs import INPUT_ERRORS, read_input
from ossicle.data.recordings import drums_folder
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
    tops: int  # windows with the same best label, or one of equal logit


def check(
    recognizer: Recognizer, answer: Answer, *, graph: Graph, sounds: Sequence[Float32[np.ndarray, "_"]]
) -> Agreement:
    """Compares windows of several lengths, up to the longest, on recordings, silence and noise.

    Args:
        sounds: recordings, cut or repeated to each length

    Raises: ExportRefused for scores that differ by more than 1e-4, or another best label.
    """
    sounds = [*sounds, *extremes(recognizer)]
    found = compare(recognizer, answer, batches(sounds, shapes(recognizer, graph)))
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
        theirs, ours = found["logits"], recognizer.scores(batch)
        apart = np.abs(found["scores"] - recognizer.activate(ours))
        if "hop_logits" in found:
            hops = recognizer.hop_scores(batch)
            apart = np.append(apart, np.abs(recognizer.activate(found["hop_logits"]) - recognizer.activate(hops)))
        # NaN must not pass for the smallest difference.
        difference = max(difference, float(np.where(np.isnan(apart), np.inf, apart).max()))
        count += len(batch)
        # By logits, of which few are equal where many scores are 0 or 1; they are as exact as they are large.
        equal = MOST * np.abs(ours).max(-1).clip(1)
        chosen = np.take_along_axis(ours, theirs.argmax(-1)[:, None], -1)[:, 0]
        tops += int((chosen >= ours.max(-1) - equal).sum())
    return Agreement(difference=difference, windows=count, tops=tops)


def shapes(recognizer: Recognizer, graph: Graph) -> list[tuple[int, int]]:
    """Samples and clips of each batch.

    The shortest window, the model's own and an odd one on either side of it, each alone and three together; and the
    longest, which may be a minute, alone.
    """
    window = recognizer.window_samples()[0]
    wanted = (graph.min_samples, (graph.min_samples + window) // 3, window, 5 * window // 4 + 1)
    lengths = {min(max(length, graph.min_samples), graph.max_samples) for length in wanted}
    return sorted({(length, clips) for length in lengths for clips in (1, CLIPS)} | {(graph.max_samples, 1)})


def batches(
    sounds: Sequence[Float32[np.ndarray, "_"]], shapes: Sequence[tuple[int, int]]
) -> Iterator[Float32[np.ndarray, "clip time"]]:
    """The sounds in turn, in batches of these sizes; what is short is repeated."""
    turn = itertools.cycle(sounds)
    for length, clips in shapes:
        yield np.stack([np.resize(next(turn), length) for _ in range(clips)])


def extremes(recognizer: Recognizer) -> list[Float32[np.ndarray, "_"]]:
    """A window each of silence and of noise at full scale, which few recordings hold."""
    samples = recognizer.window_samples()[0]
    noise = np.random.default_rng(0).uniform(-1, 1, samples)
    return [np.zeros(samples, dtype=np.float32), noise.astype(np.float32)]


def real_sounds(recognizer: Recognizer, data: Path | None = None, *, most: int = 12) -> list[Float32[np.ndarray, "_"]]:
    """The first window of some recordings, spread over the data set.

    Args:
        data: by default the built-in recordings of drums

    Raises: DataRefused where fewer than three can be used.
    """
    data = data or drums_folder()
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
