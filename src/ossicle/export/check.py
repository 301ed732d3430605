"""Compare an exported file with its model."""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from ossicle.data import Item, read_dataset
from ossicle.data.modalities import SOUND
from ossicle.data.recordings import drums_folder
from ossicle.errors import DataRefused, ExportRefused
from ossicle.export.formats import Session
from ossicle.export.graph import Graph
from ossicle.recognizer import Recognizer

MOST = 1e-4  # largest allowed difference of scores
ROUNDINGS = 8  # allowed difference, in units of the network's own float32 rounding error
CLIPS = 3  # in the larger batch


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Result of a comparison."""

    difference: float  # largest of scores
    windows: int
    close: int  # windows whose scores differ by no more than is allowed
    tops: int  # windows with the same best label, or one of equal logit


def check(
    recognizer: Recognizer, session: Session, *, graph: Graph, sounds: Sequence[Float32[np.ndarray, "_"]]
) -> Agreement:
    """Compares windows of several lengths, up to the longest, on recordings, silence and noise.

    If float32 rounding alone changes scores by more than 1e-4, they differ between processors; then the tolerance
    follows from the network's difference to double precision.

    Args:
        sounds: recordings, cut or repeated to each length

    Raises: ExportRefused if scores differ by more than 1e-4 and more than by rounding, or the best label differs.
    """
    sounds = [*sounds, *extremes(recognizer)]
    windows = batches(sounds, shapes(recognizer, graph))
    found = compare(recognizer, session, windows, rounding=lambda batch: rounding(graph, batch))
    if min(found.close, found.tops) < found.windows:
        raise ExportRefused(
            f"the exported graph differs from the model: scores by up to {found.difference:.1e} (allowed: {MOST:g} or "
            f"rounding) in {found.windows - found.close} of {found.windows} windows, the best label in "
            f"{found.windows - found.tops}; no file was written."
        )
    return found


def compare(
    recognizer: Recognizer,
    session: Session,
    windows: Iterator[Float32[np.ndarray, "clip time"]],
    *,
    rounding: Callable[[Float32[np.ndarray, "clip time"]], tuple[float, float]] = lambda batch: (0.0, 0.0),
) -> Agreement:
    """The largest difference of scores between a file and its model, and how often they agree.

    Args:
        rounding: effect of float32 on scores and logits of a batch; called for differences above 1e-4.
    """
    difference, count, close, tops = 0.0, 0, 0, 0
    for batch in windows:
        found = session(batch)
        theirs, ours = found["logits"], recognizer.scores(batch)
        apart = np.abs(found["scores"] - recognizer.activate(ours)).max(-1)
        if "hop_logits" in found:
            hops = recognizer.activate(found["hop_logits"]) - recognizer.activate(recognizer.hop_scores(batch))
            apart = np.maximum(apart, np.abs(hops).max((1, 2)))
        apart = np.where(np.isnan(apart), np.inf, apart)  # NaN must not pass for the smallest difference
        # By logits, since many scores may be equal to 0 or 1; the tolerance is relative to their size.
        deficit = ours.max(-1) - np.take_along_axis(ours, theirs.argmax(-1)[:, None], -1)[:, 0]
        equal = MOST * np.abs(ours).max(-1).clip(1)
        of_scores = of_logits = 0.0
        if (apart > MOST).any() or (deficit > equal).any():
            of_scores, of_logits = rounding(batch)
        difference = max(difference, float(apart.max()))
        count += len(batch)
        close += int((apart <= max(MOST, ROUNDINGS * of_scores)).sum())
        tops += int((deficit <= np.maximum(equal, ROUNDINGS * of_logits)).sum())
    return Agreement(difference=difference, windows=count, close=close, tops=tops)


@torch.inference_mode()
def rounding(graph: Graph, windows: Float32[np.ndarray, "clip time"]) -> tuple[float, float]:
    """Differences of scores and logits of a graph to those of the same graph in double precision.

    The graph is compared with itself, so errors of the graph do not change the result.
    """
    waves, exact = torch.from_numpy(windows), copy.deepcopy(graph).double()
    outputs = zip(graph.outputs, graph(waves), exact(waves.double()), strict=True)
    apart = {name: float((of_float - of_double).abs().max()) for name, of_float, of_double in outputs}
    # A score changes by at most half of what its logits do.
    of_hops = apart.get("hop_logits", 0.0) / (2 * graph.temperature)
    return max(apart["scores"], of_hops), apart["logits"]


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
    """Batches of these sizes from the sounds in turn; short ones are repeated."""
    turn = itertools.cycle(sounds)
    for length, clips in shapes:
        yield np.stack([np.resize(next(turn), length) for _ in range(clips)])


def extremes(recognizer: Recognizer) -> list[Float32[np.ndarray, "_"]]:
    """A window each of silence and of noise at full scale, which are rare in recordings."""
    samples = recognizer.window_samples()[0]
    noise = np.random.default_rng(0).uniform(-1, 1, samples)
    return [np.zeros(samples, dtype=np.float32), noise.astype(np.float32)]


def real_sounds(recognizer: Recognizer, data: Path | None = None, *, most: int = 12) -> list[Float32[np.ndarray, "_"]]:
    """The first window of some recordings, spread over the data set.

    Args:
        data: by default the built-in drum recordings

    Raises: DataRefused for fewer than three usable recordings.
    """
    data = data or drums_folder()
    items = read_dataset(data).items
    sounds: list[Float32[np.ndarray, _]] = []
    for item in items[:: max(1, len(items) // most)][:most]:
        try:
            sounds.append(first_window(recognizer, item))
        except SOUND.errors:
            continue
    if len(sounds) < CLIPS:
        raise DataRefused(
            f"{data}: {len(sounds)} of {min(len(items), most)} recordings are usable; at least 3 are needed."
        )
    return sounds


def first_window(recognizer: Recognizer, item: Item) -> Float32[np.ndarray, "_"]:
    """The beginning of a recording, as long as a window or shorter."""
    samples = SOUND.read(item, rate=recognizer.rate)
    return np.asarray(samples, dtype=np.float32)[: recognizer.window_samples()[0]]
