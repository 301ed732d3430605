"""How many copies of the judged recordings are found: cut elsewhere, quieter, encoded anew.

    python -m pretraining.recall DATA [--clips 200]

Prints the share of copies that are found, by class of ESC-50 where it is low, and how many recordings are taken for a
repetition of another recording that is none.
"""

import argparse
import csv
import io
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
import torch

from ossicle.audio import read_clip
from ossicle.types import Float32
from pretraining.clips import RATE
from pretraining.duplicates import fingerprint, near_duplicates


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures how many copies of ESC-50 clips are found.")
    parser.add_argument("data", type=Path, help="folder with esc50")
    parser.add_argument("--clips", type=int, default=200, help="of which a copy is made")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with open(given.data / "esc50" / "meta.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    waves = [read_clip(given.data / "esc50" / "audio" / row["filename"], RATE).samples for row in rows]
    prints = [fingerprint(wave) for wave in waves]
    draw = np.random.default_rng(0)
    chosen = draw.permutation(len(rows))[: given.clips].tolist()
    copies = [fingerprint(copied(waves[number], draw)) for number in chosen]
    found = near_duplicates([*prints, *copies], known=len(prints), checked=[False] * (len(prints) + len(copies)))
    by_class: dict[str, list[bool]] = defaultdict(list)
    for place, number in enumerate(chosen):
        by_class[rows[number]["category"]].append(len(prints) + place in found)
    hits = [hit for found_ones in by_class.values() for hit in found_ones]
    print(f"{sum(hits)} of {len(hits)} copies are found")
    poor = {name: f"{sum(one)}/{len(one)}" for name, one in sorted(by_class.items()) if np.mean(one) < 0.5}
    print(f"classes of which fewer than half are: {poor}")
    alike = near_duplicates(prints)
    other = [pair for pair in alike.items() if rows[pair[0]]["src_file"] != rows[pair[1]]["src_file"]]
    same = [f"{rows[a]['category']} {rows[a]['filename']} = {rows[b]['filename']}" for a, b in other]
    print(f"{len(alike)} of {len(rows)} recordings repeat another, {len(other)} of them one of another source: {same}")


def copied(wave: Float32[np.ndarray, " time"], draw: np.random.Generator) -> Float32[np.ndarray, " time"]:
    """A stretch of 2 to 4.5 s from anywhere, up to 15 dB quieter, encoded as Ogg Vorbis."""
    length = min(len(wave), round(draw.uniform(2.0, 4.5) * RATE))
    start = int(draw.integers(0, len(wave) - length + 1))
    part = wave[start : start + length] * np.float32(10 ** (-draw.uniform(0, 15) / 20))
    held = io.BytesIO()
    soundfile.write(held, part, RATE, format="OGG", subtype="VORBIS")
    held.seek(0)
    return soundfile.read(held, dtype="float32")[0]


if __name__ == "__main__":
    main()
