"""From a model and labeled examples to an evaluation."""

import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Float, Int64

from ossicle.data import Dataset, Item, modality_of
from ossicle.data.check import cut_short
from ossicle.errors import AudioUnreadable, SettingRefused
from ossicle.evaluation.parts import Part, choose_part, read_labeled
from ossicle.evaluation.result import Evaluation, own_files, write_evaluation
from ossicle.jobs.progress import counting
from ossicle.loading import load
from ossicle.models.tokens import TokenReduction
from ossicle.recognizer import Recognizer
from ossicle.report import evaluation_lines

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]  # called with how many are done, and how many there are


def no_progress(done: int, total: int) -> None:
    """Shows nothing."""


@dataclass(frozen=True, kw_only=True)
class ItemScores:
    """The logits of the examples that could be used, which these are, and why each of the others could not."""

    logits: Float[np.ndarray, "item label"]
    used: Int64[np.ndarray, " item"]  # positions among the examples that were asked for, ascending
    failures: tuple[str, ...]  # one sentence each


def score_items(recognizer: Recognizer, items: Sequence[Item], *, progress: Progress = no_progress) -> ItemScores:
    """Scores each example by itself, as `Recognizer.predict` does; one that cannot be used is named and left out."""
    logits, used, failures = [], [], []
    errors = modality_of(recognizer.modality).errors
    for position, item in enumerate(items):
        try:
            logits.append(recognizer.item_logits(item))
            used.append(position)
        except errors as error:
            failures.append(str(error))
        progress(position + 1, len(items))
    return ItemScores(
        logits=np.stack(logits) if logits else np.zeros((0, len(recognizer.labels)), dtype=np.float32),
        used=np.asarray(used, dtype=np.int64),
        failures=tuple(failures),
    )


def evaluate(
    model: str | os.PathLike[str] | Recognizer,
    data: str | os.PathLike[str] | Dataset,
    *,
    output: str | os.PathLike[str] | None = None,
    part: Part = "auto",
    columns: Mapping[str, Any] | None = None,
    device: str = "auto",
    encoder: str | None = None,
    reduction: TokenReduction | None = None,
    progress: bool | Progress = False,
) -> Evaluation:
    """Evaluates a model on labeled examples: metrics with 95 % intervals, each class, every prediction.

    >>> evaluation = evaluate("runs/drums", "drums")  # doctest: +SKIP

    Args:
        model: a bundle folder, a run folder, published weights by name, a Hugging Face Hub id, or what `load` gave.
        data: what `read_dataset` reads, or what it gave.
        output: folder to save to; refused before anything is scored if somebody else's files are in it.
        part: "auto" is the test part if the model's run was trained on this very data, else all of it.
        columns: of the table, by name (`file`, `label`, `group`, `fold`, `text`), and the `track`; those that are not
            named are those of the training, if the data have them.
        device, encoder, reduction: of a model that is loaded here; see `load`.
        progress: True for a bar on a terminal, or a function that is called after each example.

    Raises:
        DataRefused: labels that the model does not know, several labels a clip for a model that gives one, or a part
            that is not there
        AudioUnreadable: not one of the clips could be used
        SettingRefused: a reduction of the tokens that this network does not take
    """
    if part not in get_args(Part):
        raise ValueError(f"part={part!r} is not available; available: {', '.join(get_args(Part))}")
    written = None if output is None else own_files(Path(output))
    recognizer, name = model, str(model)
    if isinstance(recognizer, Recognizer):
        name, reduction = recognizer.bundle.model_name, recognizer.reduction
    else:
        try:
            recognizer = load(
                Path(model) if isinstance(model, os.PathLike) else str(model),
                device=device,
                encoder=encoder,
                reduction=reduction,
            )
        except ValueError as error:
            raise SettingRefused(f"{name}: {error}.") from error
    dataset, same = read_labeled(recognizer, data, folder=recognizer.folder, columns=columns)
    logger.info(dataset.layout)
    chosen, protocol = choose_part(dataset, recognizer.folder, part=part, model=name, same=same)
    if reduction is not None:
        protocol += f"; with {reduction.keep:g} of the tokens, {reduction.method}"
    bar = (
        counting(f"{dataset.noun.capitalize()}s")
        if progress is True
        else contextlib.nullcontext(progress or no_progress)
    )
    with bar as show:
        evaluation = evaluate_items(recognizer, dataset, chosen, protocol=protocol, progress=show)
    for line in evaluation_lines(evaluation.metrics):
        logger.info(line)
    if written is not None:
        write_evaluation(evaluation, written.folder, claim=written.claim)
        logger.info(f"Report: {written.folder / 'report.html'}")
    return evaluation


def evaluate_items(
    recognizer: Recognizer,
    dataset: Dataset,
    chosen: Int64[np.ndarray, " item"],
    *,
    protocol: str,
    progress: Progress = no_progress,
) -> Evaluation:
    """Scores the chosen examples of a data set, and measures the scores.

    Raises: AudioUnreadable where not one of them could be used.
    """
    items = [dataset.items[index] for index in chosen]
    for sentence in cut_short(dataset, items):
        logger.info(sentence)
    scored = score_items(recognizer, items, progress=progress)
    if not len(scored.used):
        raise AudioUnreadable(
            f"{dataset.path}: not one of {len(items)} {dataset.noun}s could be used; the first: {scored.failures[0]}"
        )
    return Evaluation.of(
        dataset,
        chosen[scored.used],
        scores=recognizer.activate(scored.logits),
        thresholds=recognizer.thresholds,
        task=recognizer.task,
        protocol=protocol,
        title=f"{recognizer.bundle.model_name} on {dataset.root.name}",
        failures=scored.failures,
    )
