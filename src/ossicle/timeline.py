"""Recordings of any length to pictures: a spectrogram, and below it what was found."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32

from ossicle.audio import read_blocks
from ossicle.frontend import LogMel, create_frontend
from ossicle.predict import Row, places_of
from ossicle.report import save_figure, timeline_figure
from ossicle.report.style import Figure
from ossicle.report.timeline import MOST_COLUMNS


def draw_recordings(
    folder: Path, recordings: Iterable[tuple[Path, Iterable[Row]]], *, files: Sequence[Path], labels: Sequence[str]
) -> list[Path]:
    """Draws each recording with its rows, to where its tables lie; gives the pictures' paths.

    Args:
        files: all of them, in the same order
    """
    frontend = create_frontend("passt").eval()
    written = []
    for (file, rows), place in zip(recordings, places_of(files), strict=True):
        blocks = read_blocks(file, frontend.rate)
        path = folder / place.with_name(f"{place.name}.png")
        save_figure(draw_recording(frontend, blocks, list(rows), labels=labels, title=file.name), path)
        written.append(path)
    return written


def draw_recording(
    frontend: LogMel,
    blocks: Iterable[Float32[np.ndarray, " _"]],
    rows: Sequence[Row],
    *,
    labels: Sequence[str],
    title: str,
    reference: Sequence[Row] = (),
) -> Figure:
    """The log-mel of a recording that arrives in blocks, with the rows below it."""
    mel, seconds = loudest(frontend, blocks)
    return timeline_figure(
        mel,
        rows,
        seconds=seconds,
        fmin=frontend.config.min_hertz,
        fmax=frontend.config.max_hertz,
        reference=reference,
        labels=labels,
        title=title,
    )


@torch.inference_mode()
def loudest(
    frontend: LogMel, blocks: Iterable[Float32[np.ndarray, " _"]]
) -> tuple[Float[np.ndarray, "mel column"], float]:
    """The log-mel of a recording in columns of the loudest frames, and its seconds.

    Whenever there are too many columns, two neighbours become one: an hour costs no more memory than a minute.
    """
    device = frontend.bank.device
    columns: list[np.ndarray] = []
    each, count, samples = 1, 0, 0  # frames to a column, columns so far
    held = np.zeros(0, dtype=np.float32)
    for block in blocks:
        samples += len(block)
        held = np.concatenate([held, block])
        if len(held) < frontend.min_samples:
            continue  # too short to have a spectrum of its own: it goes with the next
        mel = frontend(torch.from_numpy(held)[None].to(device))[0].cpu().numpy()
        held = held[:0]
        columns.append(np.maximum.reduceat(mel, np.arange(0, mel.shape[1], each), axis=1))
        count += columns[-1].shape[1]
        while count > 2 * MOST_COLUMNS:
            columns = [np.maximum.reduceat(np.concatenate(columns, axis=1), np.arange(0, count, 2), axis=1)]
            each, count = 2 * each, columns[0].shape[1]
    if not columns:  # shorter than one patch
        padded = np.pad(held, (0, frontend.min_samples - len(held)))
        columns = [frontend(torch.from_numpy(padded)[None].to(device))[0].cpu().numpy()]
    return np.concatenate(columns, axis=1), samples / frontend.rate
