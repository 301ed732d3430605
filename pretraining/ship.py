"""Writes the trained student as the bundle that the package carries.

    python -m pretraining.ship RUN --store STORE --corpus CORPUS --teacher WEIGHTS --version 1 [-o FOLDER]

The averaged weights of `RUN/state.pt` in float16, in `src/ossicle/catalog/shipped/NAME` unless another folder is named,
with a threshold for each label, fitted to the teacher's answers on the validation part, and a card that lists teachers
and every package that the sounds came from. With `--int8 FILE.onnx` also what ossicle-runtime carries.
"""

import argparse
import copy
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ossicle.bundle import Card, save_bundle
from ossicle.catalog.rows import HERE, SHIPPED, read_labels
from ossicle.export import export_model
from ossicle.files import sha256, write_atomically
from ossicle.frontend import frontend_config
from ossicle.metrics import fit_thresholds
from ossicle.models.passt import Passt
from pretraining.features import Store
from pretraining.manifest import read_rows
from pretraining.mixtures import Mixer
from pretraining.student import MODEL, Student
from pretraining.teacher import Teacher
from pretraining.train import BATCH

WINDOW = 5.0  # seconds: the student learns from such clips
MIXTURES = 6000  # of the validation part, for the thresholds
LEAST = 10  # mixtures in which the teacher hears a label; with fewer its threshold is the teacher's
HEARD = 0.5  # the teacher's probability from which on a label is there
LOWEST = 0.1  # threshold, and probability that counts for the calibration
LIMITS = (
    "It tells kinds of sounds: speech, music, animals, vehicles, tools, weather and the like. Its labels are those of "
    "its teacher, with its errors, and rare labels are seldom right. It must not decide about people: not who speaks, "
    "not how they are, and it is no alarm that anyone's safety may rest on."
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the trained student as a bundle.")
    parser.add_argument("run", type=Path, help="folder with state.pt")
    parser.add_argument("--store", type=Path, required=True, help="what `pretraining.features` wrote")
    parser.add_argument("--corpus", type=Path, required=True, help="for the sources on the card")
    parser.add_argument("--teacher", type=Path, required=True, help="folder with model.safetensors and layers.json")
    parser.add_argument("--version", type=int, required=True)
    parser.add_argument(
        "--earlier",
        nargs=2,
        type=float,
        default=(0, 0),
        metavar=("STEPS", "HOURS"),
        help="of the training whose weights it started from",
    )
    parser.add_argument("-o", "--output", type=Path, help="folder of the bundle")
    parser.add_argument("--int8", type=Path, help="FILE.onnx, with integers of eight bits")
    given = parser.parse_args()
    name = f"{MODEL}.general_v{given.version}"
    folder = given.output or HERE / SHIPPED / name
    state = torch.load(given.run / "state.pt", weights_only=True)
    steps = state["step"] + int(given.earlier[0])
    network = trained(state)
    store = Store.open(given.store)
    groups = np.load(given.store / "groups.npy")
    mixer = Mixer(store, np.flatnonzero(store.part != "train"), groups, seed=4, change=False, row=0)
    wanted, found = answers(network, Teacher(given.teacher).eval(), mixer)
    save(
        network,
        folder,
        thresholds=thresholds(wanted, found),
        weights_license="Apache-2.0",
        card=Card(
            title=name,
            data=sources(given.corpus, steps, state["seconds"] / 3600 + given.earlier[1]),
            protocol="Mixtures of the clips of the corpus that were held out, one name in twenty.",
            metrics=agreement(wanted, found),
            limits=LIMITS,
        ),
    )
    if given.int8 is not None:
        with tempfile.TemporaryDirectory() as scratch:
            exported = export_model(folder, output=Path(scratch, "model.onnx"), int8=True)
            assert exported.int8 is not None
            write_atomically(given.int8, exported.int8.path.read_bytes())
    weights = folder / "model.safetensors"
    print(f"{folder}, after {steps} steps; its row in checkpoints.toml:")
    print(f'bytes = {weights.stat().st_size}\nsha256 = "{sha256(weights)}"')


def trained(state: dict[str, Any]) -> Passt:
    """The network of the averaged weights of a training, rounded as they ship."""
    student = Student((state["average"]["mean"], state["average"]["deviation"]))
    student.load_state_dict(state["average"])
    return student.eval().shipped().half().float()


def save(network: Passt, folder: Path, **about: Any) -> None:
    """Writes a bundle in float16."""
    save_bundle(
        folder,
        model=copy.deepcopy(network).half(),
        model_name=MODEL,
        frontend=frontend_config("passt"),
        task="multi-label",
        labels=[label for label, _ in read_labels("audioset")],
        window_seconds=WINDOW,
        pad=True,  # a short clip is followed by silence, as where it learnt: it agrees with its teacher more often
        **about,
    )


@torch.inference_mode()
def answers(
    network: Passt, teacher: Teacher, mixer: Mixer
) -> tuple[Float[np.ndarray, "clip label"], Float[np.ndarray, "clip label"]]:
    """Probabilities of teacher and student for mixtures."""
    wanted, found = [], []
    for number in range(MIXTURES // BATCH):
        mel = torch.from_numpy(np.stack([mixer.clip(number, one).mel for one in range(BATCH)]))
        wanted.append(teacher(mel[:, None]).logits.sigmoid())
        found.append(network(mel).sigmoid())
    return torch.cat(wanted).numpy(), torch.cat(found).numpy()


def thresholds(
    wanted: Float[np.ndarray, "clip label"], found: Float[np.ndarray, "clip label"]
) -> Float[np.ndarray, " label"]:
    """For each label the threshold of the best F1 against the teacher, at least `LOWEST`; `HEARD` where it is too rare
    to tell."""
    there = wanted >= HEARD
    fitted = fit_thresholds(found, there).clip(LOWEST)
    return np.where(there.sum(0) >= LEAST, fitted, HEARD)


def agreement(wanted: Float[np.ndarray, "clip label"], found: Float[np.ndarray, "clip label"]) -> list[str]:
    """How the student's probabilities agree with the teacher's, in sentences."""
    top = (wanted.argmax(1) == found.argmax(1)).mean()
    counted = found >= LOWEST
    bins = np.minimum((10 * found[counted]).astype(int), 9)
    sizes = np.bincount(bins, minlength=10)
    gaps = [abs((found[counted] - wanted[counted])[bins == number].mean()) for number in np.flatnonzero(sizes)]
    off = float(np.average(gaps, weights=sizes[sizes > 0]))
    return [
        f"its highest label is the teacher's in {top:.2f} of {len(found):,} mixtures",
        f"calibration error against the teacher, of the probabilities from {LOWEST} up: {off:.3f}",
    ]


def sources(corpus: Path, steps: int, hours: float) -> str:
    """The teachers, and every package with its license and clips."""
    rows = [row for row in read_rows(corpus / "manifest.jsonl") if row.part == "train"]
    clips = Counter((row.package, row.license) for row in rows)
    listed = "; ".join(f"{package} ({license}, {count})" for (package, license), count in sorted(clips.items()))
    return (
        f"Mixtures of {len(rows):,} clips ({sum(row.seconds for row in rows) / 3600:.1f} hours) from free packages of "
        "Debian 12, with no labels but those of the teachers: EfficientAT mn04_as (MIT), which learnt from AudioSet, "
        f"and for speech the encoder of Whisper tiny.en (MIT). {steps:,} steps, {hours:.0f} core hours; "
        "pretraining/README.md has the recipe.\n\n"
        f"Packages, with license and clips: {listed}"
    )


if __name__ == "__main__":
    main()
