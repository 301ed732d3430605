"""The training loop, on Lightning: one for networks and for heads."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning
import numpy as np
import torch
from jaxtyping import Bool
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerStatus

from ossicle.training.callbacks import Averaging, Checkpoints, FrozenStart, Guard, Progress, Recorder, Reporter
from ossicle.training.loader import Items, Windows
from ossicle.training.module import NetworkTraining, TrainingModule
from ossicle.weights.state import SafeCheckpointIO, checkpoints, newest_state

logger = logging.getLogger(__name__)


def fit(
    module: TrainingModule,
    validation: Windows | Items | None,
    *,
    targets: Bool[np.ndarray, "item label"],
    known: Bool[np.ndarray, "item label"] | None = None,
    device: torch.device,
    precision: str = "float32",
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress = False,
    callbacks: Sequence[Callback] = (),
) -> Recorder:
    """Trains to the last epoch, or until the validation score stops rising; the weights of the best epoch stay.

    Args:
        validation: what chooses the epoch; without it the last epoch's weights stay.
        targets, known: of all examples of the data set.
        device: that of the module.
        folder: of the run, for `metrics.csv` and checkpoints; without one nothing is written.
        resume: continue from the newest checkpoint in `folder`, if there is one.
        callbacks: of Lightning, after the run's own.

    Raises:
        KeyboardInterrupt: the user stopped the run; a checkpoint remains.
        RunRefused: a loss that is not finite, or a parameter that the gradient guard names.
    """
    config = module.config
    recorder = Recorder(targets, known=known, config=config, task=module.task, folder=folder)
    averaging = [Averaging(module)] if config.average != "none" else []
    own: list[Callback] = [Guard(), recorder, *averaging]
    own.append(Reporter(recorder, validation=validation, progress=progress))
    if folder is not None:
        own.append(Checkpoints(folder / "checkpoints", minutes=config.save_minutes))
    if isinstance(module, NetworkTraining) and module.config.freeze_epochs:
        own.append(FrozenStart(module))
    quiet_lightning()
    trainer = lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        callbacks=[*own, *callbacks],
        plugins=[SafeCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    start = None
    if resume and folder is not None and checkpoints(folder / "checkpoints"):
        start, damaged = newest_state(folder / "checkpoints")
        for sentence in damaged:
            logger.info(sentence)
        logger.info(f"Continuing from {start}.")
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 calls a function that torch 2.13 has deprecated.
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            # A run without a validation part is meant so.
            warnings.filterwarnings("ignore", message="You defined a `validation_step`")
            trainer.fit(module, module.batches, validation, ckpt_path=None if start is None else str(start))
    except SystemExit:
        # Lightning ends the program on Ctrl-C; the caller decides that.
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        raise (
            KeyboardInterrupt() if folder is None else KeyboardInterrupt(f"Stopped after step {trainer.global_step}")
        ) from None
    for one in averaging:  # here, not in a callback: a run resumed after its last step has no end of training
        one.average.swap()
    best = recorder.best_weights()
    if best is not None:
        module.load_weights(best)
    return recorder


def quiet_lightning() -> None:
    """Lets Lightning log errors only: what a user should know, the callbacks log."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
