"""Some steps of a small student in one process or in several: python ranked_teachers.py OUTPUT DEVICES.

One teacher is at hand, the other has stored outputs for half of the clips. Saves the losses, in float64.
"""

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ossicle.frontend import create_frontend, frontend_config
from ossicle.inference import ModelInfo, Predictor
from ossicle.models import create_model
from ossicle.training import TrainConfig
from ossicle.training.distillation import Distillation, Lesson
from ossicle.training.loader import Batch, Windows
from ossicle.training.loop import fit
from ossicle.training.ranks import ALONE, Ranks, in_processes, settle_processes
from ossicle.training.teacher_outputs import TeacherOutputs
from ossicle.training.teachers import Teacher

RANKED = runpy.run_path(str(Path(__file__).with_name("ranked.py")))
CLIPS, VALIDATION = RANKED["CLIPS"], RANKED["VALIDATION"]
LABELS = ("a", "b", "c")


class Levels(Predictor):
    """Hears how loud the parts of a clip are."""

    rate, min_samples = 32_000, 1  # type: ignore[assignment]
    bundle = ModelInfo(
        model_name="levels",
        task="multi-label",
        labels=LABELS,
        window_seconds=1.0,
        hop_seconds=1.0,
        library_version="0",
        version="0" * 12,
    )

    def scores(self, windows: np.ndarray) -> np.ndarray:
        parts = np.array_split(windows, len(LABELS), axis=1)
        return np.stack([np.log(np.abs(part).mean(1) + 1e-6) for part in parts], 1).astype(np.float32) + 2

    def features(self, windows: np.ndarray) -> np.ndarray:
        return self.scores(windows)[:, ::-1] * np.array([1.0, -2.0, 0.5], np.float32)


class Precise(Distillation):
    """A student in float64, on features in float32."""

    def augmented(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        spec, targets, known = super().augmented(batch, generator)
        return spec.double(), targets.double(), known

    def compared(self, batch: Batch) -> Tensor:
        self.frontend.eval()
        spec = self.frontend(batch.waves, lengths=batch.lengths, frames=self.frames).double()
        out = self.model.forward_features(spec)
        mine = [rows for projection in self.projected for rows in projection(out.logits, out.features)]
        return torch.cat([rows for rows in mine if rows is not None], 1)

    def copied(self) -> None:  # type: ignore[override]
        """Nothing is measured."""


def lesson_of(data: Any) -> Lesson:
    rng, every = np.random.default_rng(5), np.arange(CLIPS + VALIDATION)
    heard = [Levels().clip_outputs(data.read(int(clip))[None], rate=32_000) for clip in every]
    logits, features = (np.concatenate([pair[number] for pair in heard])[:, None] for number in (0, 1))
    names = tuple(str(number) for number in every)
    own = TeacherOutputs(path=Path("own"), names=names, logits=logits, embeddings=features, labels=LABELS)
    half = rng.choice(every, len(every) // 2, replace=False)
    rows = np.full(len(every), -1)
    rows[half] = np.arange(len(half))
    embeddings = rng.standard_normal((len(half), 1, 7)).astype(np.float32)
    stored = TeacherOutputs(path=Path("half"), names=tuple(map(str, half)), embeddings=embeddings)
    return Lesson(
        teachers=(
            Teacher(name="own", stored=own, rows=every, predictor=Levels()),
            Teacher(name="half", stored=stored, rows=rows),
        ),
        unlabeled=True,
    )


def some_steps(ranks: Ranks = ALONE) -> tuple[list[float], list[float]]:
    """The loss of each step, and that of the validation part after each epoch."""
    config = TrainConfig(
        **{"epochs": 1, "batch_size": 7, "lr": 1e-3, "warmup": 0.5, "device": "cpu", "precision": "float32"},
        **{"gain": 7.0, "roll": 0.01, "mixup": 0.0, "patchout_t": 1, "drop_path": 0.3, "unlabeled": True},
        teachers=["own", "half"],
        devices=ranks.world,
    )
    data, window = RANKED["store"](), 12_800
    frontend = frontend_config("passt", freq_mask=16, time_mask=8)
    torch.manual_seed(0)
    options = {"depth": 1, "frames": frontend.frames(window), "patchout_t": 1, "drop_path": 0.3}
    model = create_model("passt_tiny_s16", num_classes=len(LABELS), **options)
    lesson, train = lesson_of(data), np.arange(CLIPS)
    targets = np.zeros((CLIPS + VALIDATION, len(LABELS)), bool)
    batches = lesson.batches(data, train, targets, window=window, batch_size=7, seed=0, ranks=ranks)
    part = np.arange(CLIPS, CLIPS + VALIDATION)
    validation = Windows(data, part, targets, window=window, batch_size=4, ranks=ranks)
    module = Precise(
        model,
        create_frontend(frontend),
        config,
        lesson=lesson,
        train=train,
        labels=LABELS,
        task="multi-label",
        frames=frontend.frames(window),
        batches=batches,
    )
    module.model.double()
    module.projections.double()
    losses = RANKED["Losses"]()
    recorder = fit(module, validation, targets=targets, device=torch.device("cpu"), callbacks=[losses])
    return losses.each, [row["val_loss"] for row in recorder.rows]


if __name__ == "__main__":
    output, devices = sys.argv[1:]

    def steps(ranks: Ranks) -> None:
        losses, validation = some_steps(ranks)
        if ranks.zero:
            np.savez(output, losses=losses, validation=validation)

    in_processes(settle_processes(TrainConfig(devices=int(devices), device="cpu")), steps)
