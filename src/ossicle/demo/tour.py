"""`ossicle demo`: what the model in the package hears, and a recognizer of drums tuned on it, with the public API.

OUTPUT/
    report.html       everything on one page
    rounds/1, 2, ...  a run folder for each round of tuning, with its model
    all/              the metrics of all rounds together
    sequence.wav      hits at known times, of a kit that was not in the training data
    loop.flac         a real loop
    *.txt             Audacity label tracks of both; predictions.csv has the same rows
"""

import contextlib
import io
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float, Float32

from ossicle.audio import AudioInfo, read_clip
from ossicle.catalog import GENERAL, checkpoint
from ossicle.data import Dataset, read_dataset, split_folds
from ossicle.data.recordings import drums_folder
from ossicle.demo.matching import OnsetMatches, match_onsets
from ossicle.demo.onsets import label_onsets
from ossicle.demo.sequence import Assembled, assemble
from ossicle.devices import choose_device
from ossicle.encoders import load_encoder
from ossicle.evaluation import Evaluation
from ossicle.files import write_atomically
from ossicle.frontend import create_frontend
from ossicle.inference import Prediction, Row, write_tables
from ossicle.loading import load
from ossicle.recognizer import Recognizer
from ossicle.report import Chart, Section, Table, evaluation_sections, save_figure, write_report
from ossicle.report.style import Figure
from ossicle.timeline import draw_recording
from ossicle.training import FoldResult, TuneConfig, tune
from ossicle.training.estimate import duration
from ossicle.training.results import pooled
from ossicle.training.run import free_folder

LOOP = "mika55-loop_mika.flac"
HITS = 32  # in the sequence
TOLERANCE = 0.05  # seconds
NAMED = 3  # labels of the loop
# A head on the frozen encoder. 120 hits are few: all of them train, and without validation data the last epoch is used.
CONFIG = TuneConfig(validation=0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tour:
    """Results of the demo, and its output folder."""

    folder: Path
    evaluation: Evaluation  # of all rounds together
    onsets: OnsetMatches  # of the sequence
    heard: Prediction  # the loop, by the model in the package
    loop: tuple[Row, ...]


def run_demo(
    output: Path,
    *,
    drums: Path | None = None,
    config: TuneConfig = CONFIG,
    say: Callable[[str], None] = print,
) -> Tour:
    """Says what is in a loop, cross-validates a tuned head on drum hits by kit, predicts hits in a sequence and in the
    loop, and writes a report.

    Command: ossicle demo
    Machine and time: two cores, a minute.

    Args:
        output: output folder; if it is not empty, a new folder next to it.
        drums: a folder like the built-in one, which is the default.
        config: of every round.
        say: prints a line.
    """
    began = time.monotonic()
    drums = drums or drums_folder()
    output = output if not output.exists() or not any(output.iterdir()) else free_folder(output)
    dataset = read_dataset(drums)
    say("ossicle demo: label sounds with the model in the package, and tune it to recognize drums.\n")
    heard = load(GENERAL, device=config.device).predict(drums / "loops" / LOOP, top_k=NAMED)
    say(f"1. {checkpoint(GENERAL).name}, the model in the package, knows 527 labels. {heard_sentence(heard)}")

    say(f"\n2. The drums have no such labels: {summarize_hits(dataset)}:")
    say(f"   {', '.join(dataset.labels)}.")
    say("   Tuning a head on the model: each round leaves some makers out and tests on their hits.")
    results = rounds(dataset, config, output=output, say=say)
    with log_apart():
        evaluation = pooled(dataset, results, folder=output / "all")
    say(f"   {score_sentence(evaluation)}")
    say(f"   {majority_sentence(evaluation)}")

    result, kit = largest_kit(dataset, results)
    recognizer = load(result.folder / "model", device=config.device)
    say(f"\n3. Events: a sequence of hits by {kit}, which were not used for tuning:")
    sequence = sequence_of(dataset, kit, rate=recognizer.rate, file="sequence.wav")
    found = hits_in(sequence.samples, recognizer, file="sequence.wav")
    onsets = match_onsets(found, sequence.truth, tolerance=TOLERANCE)
    for line in sequence_sentences(onsets):
        say(f"   {line}")

    loop = read_clip(drums / "loops" / LOOP, recognizer.rate).samples
    hits = hits_in(loop, recognizer, file="loop.flac")
    say(f"\n4. A real loop ({LOOP}, {len(loop) / recognizer.rate:.1f} s), without reference labels:")
    say(f"   {loop_sentence(hits)}")

    # Everything is computed; write the files.
    write_atomically(output / "sequence.wav", lambda path: write_wav(path, sequence))
    write_atomically(output / "loop.flac", (drums / "loops" / LOOP).read_bytes())
    tables = {output / "sequence.wav": found, output / "loop.flac": hits}
    recordings = [(AudioInfo(), rows) for rows in tables.values()]
    write_tables(output, recordings, files=list(tables), formats=("csv", "audacity"), provenance=recognizer.provenance)
    frontend, labels = create_frontend("passt").eval(), recognizer.labels
    pictures = {
        "sequence": draw_recording(
            frontend, [sequence.samples], found, labels=labels, reference=sequence.truth, title="sequence.wav"
        ),
        "loop": draw_recording(frontend, [loop], hits, labels=labels, title="loop.flac"),
    }
    for name, figure in pictures.items():
        save_figure(figure, output / f"{name}.png")
    tour = Tour(folder=output, evaluation=evaluation, onsets=onsets, heard=heard, loop=tuple(hits))
    write_page(tour, pictures, dataset=dataset, results=results, kit=kit)
    say(f"\nDone in {duration(time.monotonic() - began)}. Open in a browser:")
    say(f"   {output / 'report.html'}")
    say("In Audacity, open (File > Import > Audio, then Labels):")
    for name in ("sequence.wav", "loop.flac"):
        say(f"   {output / name}  with  {output / name}.txt")
    say("Next, predict on other recordings, or tune and train on your own:")
    say(f"   ossicle predict {GENERAL} RECORDING")
    say(f"   ossicle predict {result.folder} RECORDING")
    say(f"   ossicle tune {GENERAL} FOLDER   # with a folder of recordings for each class; in seconds")
    say("   ossicle train FOLDER          # all of the model; in minutes")
    return tour


def write_page(
    tour: Tour, pictures: Mapping[str, Figure], *, dataset: Dataset, results: Sequence[FoldResult], kit: str
) -> None:
    """Writes `report.html`: summary, metrics, the sequence and the loop."""
    hits = sequence_sentences(tour.onsets)
    facts = [f"{summarize_hits(dataset)}.", score_sentence(tour.evaluation), majority_sentence(tour.evaluation)]
    write_report(
        tour.folder / "report.html",
        title="ossicle demo: drum sounds",
        sections=[
            Section(title="In short", blocks=[" ".join(facts), *hits, rounds_table(dataset, results)]),
            *evaluation_sections(tour.evaluation.metrics),
            Section(
                title="A sequence",
                blocks=[
                    f"Hits by {kit}, left out of this model's tuning, assembled at random distances.",
                    *hits,
                    Chart(
                        figure=pictures["sequence"],
                        alt="spectrogram of the sequence with found and true hits",
                        caption="Filled: predicted (onset by spectral flux, label by the model). Outlined: reference.",
                    ),
                ],
            ),
            Section(
                title="A real loop",
                blocks=[
                    f"{LOOP}; its maker and license are in the README.md of the recordings. "
                    f"{heard_sentence(tour.heard)} {loop_sentence(tour.loop)}",
                    Chart(figure=pictures["loop"], alt="spectrogram of the loop with found hits"),
                ],
            ),
        ],
    )


def rounds(dataset: Dataset, config: TuneConfig, *, output: Path, say: Callable[[str], None]) -> list[FoldResult]:
    """Tunes and tests once for each fold; logs go to a file."""
    results = []
    folds = split_folds(dataset)
    encoder = load_encoder(GENERAL, device=str(choose_device(config.device)))
    for number, fold in enumerate(folds, 1):
        began = time.monotonic()
        folder = output / "rounds" / fold
        with log_apart() as log:
            tuned = tune(encoder, dataset, config, output=folder, folds=fold, cache=output / "cache")
        results.append(tuned.folds[0])
        write_atomically(folder / "log.txt", log.getvalue())
        tested = results[-1].tested
        right = results[-1].evaluation.metrics.accuracy.value or 0.0
        say(
            f"   round {number} of {len(folds)}, without {makers(dataset, tested)}: "
            f"{right * len(tested):.0f} of {len(tested)} hits right ({duration(time.monotonic() - began)})"
        )
    return results


@contextlib.contextmanager
def log_apart() -> Iterator[io.StringIO]:
    """Redirects the log of a tuning from the console to the buffer that it yields."""
    log = io.StringIO()
    logger, handler = logging.getLogger("ossicle.training"), logging.StreamHandler(log)
    logger.addHandler(handler)
    logger.propagate = False
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield log
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(level)


def makers(dataset: Dataset, clips: Sequence[int] | np.ndarray, most: int = 2) -> str:
    """The groups of these clips, those with most clips first."""
    names = [name for name, _ in Counter(dataset.items[index].group or "?" for index in clips).most_common()]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def largest_kit(dataset: Dataset, results: Sequence[FoldResult]) -> tuple[FoldResult, str]:
    """The group with the most classes (then clips), and the round that left it out."""
    labels: dict[str, list[str]] = {}
    for item in dataset.items:
        labels.setdefault(item.group or "?", []).extend(item.labels)
    kit = max(labels, key=lambda group: (len(set(labels[group])) >= 5, len(labels[group]), group))
    return next(r for r in results if any(dataset.items[i].group == kit for i in r.tested)), kit


def sequence_of(dataset: Dataset, kit: str, *, rate: int, file: str) -> Assembled:
    """A sequence of a kit's hits in random order, each class about equally often."""
    rng = np.random.default_rng(0)
    by_label: dict[str, list[Path]] = {}
    for item in dataset.items:
        if item.group == kit:
            by_label.setdefault(item.labels[0], []).append(item.file)
    decks = [(label, rng.permutation(np.array(files, dtype=object)).tolist()) for label, files in by_label.items()]
    dealt = [(files[turn], label) for turn in range(HITS) for label, files in decks if turn < len(files)]
    chosen = [dealt[i] for i in rng.permutation(min(HITS, len(dealt)))]
    return assemble([(read_clip(path, rate).samples, label) for path, label in chosen], rate=rate, file=file)


def hits_in(samples: Float32[np.ndarray, " time"], recognizer: Recognizer, *, file: str) -> list[Row]:
    """The hits of a recording: times from the spectral flux, names from the model."""

    def score(part: Float32[np.ndarray, " part"]) -> Float[np.ndarray, " label"]:
        return recognizer.predict((part, recognizer.rate)).scores

    return label_onsets(
        samples,
        recognizer.rate,
        score,
        labels=recognizer.labels,
        longest=recognizer.bundle.window_seconds,
        file=file,
    )


def write_wav(path: Path, sequence: Assembled) -> None:
    """Writes the sequence as 16-bit WAV."""
    soundfile.write(path, sequence.samples, sequence.rate, subtype="PCM_16", format="WAV")


def summarize_hits(dataset: Dataset) -> str:
    """Number of hits, makers and classes."""
    groups = {item.group for item in dataset.items}
    return f"{len(dataset)} drum hits by {len(groups)} makers, in {len(dataset.labels)} classes"


def score_sentence(evaluation: Evaluation) -> str:
    """The pooled accuracy with its interval."""
    own = evaluation.metrics.accuracy
    span = "" if own.low is None or own.high is None else f" (95 % interval {own.low:.0%} to {own.high:.0%})"
    return (
        f"All {evaluation.metrics.clips} hits, each by a model trained without its maker: "
        f"{own.value or 0.0:.0%} correct{span}."
    )


def majority_sentence(evaluation: Evaluation) -> str:
    """Accuracy of the majority class."""
    baseline = evaluation.metrics.baseline
    return f"Always predicting {baseline.label}, the most frequent class: {baseline.accuracy or 0.0:.0%}."


def sequence_sentences(onsets: OnsetMatches) -> list[str]:
    """Onset F1, and label accuracy of the matched hits."""
    pairs, named = len(onsets.pairs), onsets.named
    return [
        f"{pairs} of {onsets.true} hits found within {1000 * TOLERANCE:.0f} ms, {onsets.found - pairs} false "
        f"positives: onset F1 {onsets.f1:.2f}.",
        f"{named} of these {pairs} have the correct label: label accuracy {named / max(pairs, 1):.0%}.",
    ]


def heard_sentence(prediction: Prediction) -> str:
    """What a recording has in it."""
    scores = dict(zip(prediction.labels, prediction.scores, strict=True))
    return f"In {LOOP} it hears {', '.join(f'{label} ({scores[label]:.2f})' for label in prediction.chosen)}."


def loop_sentence(rows: Sequence[Row]) -> str:
    """Number of predicted hits by class."""
    counts = Counter(row.label for row in rows).most_common()
    return f"{len(rows)} hits predicted: {', '.join(f'{count} {label}' for label, count in counts)}."


def rounds_table(dataset: Dataset, results: Sequence[FoldResult]) -> Table:
    """A row for each round: the makers left out, their hits and the accuracy."""
    rows = [
        [
            makers(dataset, result.tested, most=30),
            str(len(result.tested)),
            f"{result.evaluation.metrics.accuracy.value:.2f}",
        ]
        for result in results
    ]
    return Table(header=["left out", "hits", "accuracy"], rows=rows, caption="Round by round.")
