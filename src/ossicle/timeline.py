"""Plots of recordings of any length: a spectrogram above the rows of a prediction."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32

from ossicle.audio import read_blocks
from ossicle.files import beside, legible
from ossicle.frontend import LogMel, create_frontend
from ossicle.inference import Row, places_of
from ossicle.report import save_figure, timeline_figure
from ossicle.report.style import Figure
from ossicle.report.timeline import MOST_COLUMNS


def draw_recordings(
    folder: Path,
    recordings: Iterable[tuple[Path, Iterable[Row]]],
    *,
    files: Sequence[Path],
    labels: Sequence[str],
    track: int | None = None,
) -> list[Path]:
    """Plots each recording with its rows, beside its tables; returns the paths of the plots.

    Args:
        files: all of them, in the same order
        track: see `read_blocks`
    """
    frontend = create_frontend("passt").eval()
    written = []
    for (file, rows), path in zip(recordings, picture_paths(folder, files), strict=True):
        blocks = read_blocks(file, frontend.rate, track=track)
        save_figure(draw_recording(frontend, blocks, list(rows), labels=labels, title=legible(file.name)), path)
        written.append(path)
    return written


def picture_paths(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The paths that `draw_recordings` writes."""
    return [folder / beside(place, ".png") for place in places_of(files)]


def draw_recording(
    frontend: LogMel,
    blocks: Iterable[Float32[np.ndarray, " _"]],
    rows: Sequence[Row],
    *,
    labels: Sequence[str],
    title: str,
    reference: Sequence[Row] = (),
) -> Figure:
    """Plots the log-mel of a recording that comes in blocks, with the rows below it."""
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
    """The log-mel of a recording in at most `MOST_COLUMNS` columns, and its length in seconds.

    Each column is the maximum of equally many frames. Too many columns are merged in pairs, so the memory does
    not grow with the length. The frames are those of the whole recording, whatever blocks it comes in.
    """
    device, hop, edge = frontend.bank.device, frontend.config.hop_samples, frontend.config.fft_samples // 2
    before = -(-max(edge, frontend.min_samples) // hop)  # frames of context that are kept for the next ones
    columns = np.full((MOST_COLUMNS, frontend.config.mels), -np.inf, np.float32)
    each, frames, samples = 1, 0, 0  # frames to a column, frames so far

    def add(wave: Float32[np.ndarray, " _"], first: int, end: int) -> None:
        nonlocal each, frames
        mel = frontend(torch.from_numpy(wave)[None].to(device))[0].T.cpu().numpy()[first:end]
        places = np.arange(frames, frames + len(mel))
        frames += len(mel)
        while frames > each * MOST_COLUMNS:
            columns[: MOST_COLUMNS // 2] = np.maximum(columns[::2], columns[1::2])
            columns[MOST_COLUMNS // 2 :] = -np.inf
            each *= 2
        np.maximum.at(columns, places // each, mel)

    held, added = np.zeros(0, dtype=np.float32), 0  # samples not done with, and how many of their frames are in
    for block in blocks:
        samples += len(block)
        held = np.concatenate([held, block])
        heard = (len(held) - 1 - edge) // hop + 1  # frames that no later sample changes
        if heard > before:
            add(held, added, heard)
            held, added = held[(heard - before) * hop :], before
    end = max(1, frontend.frames(len(held)))
    if end > added:
        add(np.pad(held, (0, max(0, frontend.min_samples - len(held)))), added, end)
    return columns[: -(-frames // each)].T, samples / frontend.rate
