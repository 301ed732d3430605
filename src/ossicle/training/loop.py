"""The training loop, on Lightning: one for networks and for heads."""

import copy
import logging
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from lightning.pytorch.trainer.states import TrainerStatus

from ossicle.errors import SettingRefused
from ossicle.models.attention import Block
from ossicle.training.callbacks import Averaging, Checkpoints, FrozenStart, Guard, Progress, Recorder, Reporter
from ossicle.training.config import FitConfig, TrainConfig
from ossicle.training.loader import Items, Known, Targets, Windows
from ossicle.training.module import NetworkTraining, TrainingModule
from ossicle.training.ranks import STEP, environment_plugins, quiet_lightning
from ossicle.training.tracking import Tracking
from ossicle.weights.state import SafeCheckpointIO, checkpoints, newest_state

logger = logging.getLogger(__name__)
MIXED: dict[str, Literal["bf16-mixed", "16-mixed"]] = {"bfloat16": "bf16-mixed", "float16": "16-mixed"}
# Each process has a part of every block. Never run by its authors: it needs several GPUs.
FSDP_STRATEGY = partial(FSDPStrategy, timeout=STEP, auto_wrap_policy={Block}, state_dict_type="full")


def fit(
    module: TrainingModule,
    validation: Windows | Items | None,
    *,
    targets: Targets,
    known: Known = None,
    device: torch.device,
    precision: str = "float32",
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress = False,
    tracking: Tracking | None = None,
    trial: Callback | None = None,
    callbacks: Sequence[Callback] = (),
) -> Recorder:
    """Trains to the last epoch, or until the validation score stops rising; the weights of the best epoch stay.

    Args:
        validation: what chooses the epoch; without it the last epoch's weights stay.
        targets, known: of all examples of the data set.
        device: that of the module.
        folder: of the run, for `metrics.csv` and checkpoints; without one nothing is written.
        resume: continue from the newest checkpoint in `folder`, if there is one.
        tracking: hands metrics to loggers; of rank zero alone.
        trial: measures and stops the training before its first step.
        callbacks: of Lightning, after the run's own.

    Raises:
        KeyboardInterrupt: the user stopped the run; a checkpoint remains.
        RunRefused: a loss that is not finite, or a parameter that the gradient guard names.
        SettingRefused: a step that torch cannot compile.
    """
    config, ranks = module.config, module.ranks
    recorder = Recorder(targets, known=known, config=config, task=module.task, folder=folder, ranks=ranks)
    averaging = [Averaging(module)] if config.average != "none" else []
    # Of a network that is cut over processes, none has the gradients that the guard looks at.
    sharded = isinstance(module, NetworkTraining) and module.ranks.world > 1 and module.config.strategy == "fsdp"
    own: list[Callback] = [*([] if sharded else [Guard()]), recorder, *averaging]
    own.append(trial or Reporter(recorder, validation=validation, progress=progress))
    if tracking is not None:
        tracking.latest = lambda: recorder.rows[-1]
        own.append(tracking)
    if folder is not None:
        own.append(Checkpoints(folder / "checkpoints", minutes=config.save_minutes, ranks=ranks))
    if isinstance(module, NetworkTraining) and module.config.freeze_epochs:
        own.append(FrozenStart(module))
    whole = copy.deepcopy(module.model) if isinstance(module, NetworkTraining) and sharded else None
    quiet_lightning()
    mixed = MIXED.get(precision)
    trainer = lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        **processes(config, device),
        precision=mixed if sharded else None,
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        callbacks=[*own, *callbacks],
        plugins=[
            SafeCheckpointIO(),
            *environment_plugins(),
            *([] if mixed is None or sharded else [MixedPrecision(mixed, device.type)]),
        ],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    start = None
    if resume and folder is not None and ranks.from_zero(lambda: bool(checkpoints(folder / "checkpoints"))):
        start = ranks.from_zero(lambda: newest_state(folder / "checkpoints"))
        logger.info(f"Continuing from {start}.")
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 calls a function that torch 2.13 has deprecated.
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            # A run without a validation part is meant so.
            warnings.filterwarnings("ignore", message="You defined a `validation_step`")
            # Of several processes: an option that only newer versions of torch have under another name, and parts of a
            # parameter that torch lays out otherwise.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view", category=UserWarning)
            trainer.fit(module, module.batches, validation, ckpt_path=None if start is None else str(start))
    except RuntimeError as error:
        # By the name of its module: to import its class takes a second.
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        said = " ".join(str(error).split("\n")[:2])
        raise SettingRefused(
            f"torch {torch.__version__} cannot compile a step of this network ({said}): set compile=false."
        ) from error
    except SystemExit:
        # Lightning ends the program on Ctrl-C; the caller decides that.
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        raise (
            KeyboardInterrupt() if folder is None else KeyboardInterrupt(f"Stopped after step {trainer.global_step}")
        ) from None
    if isinstance(module, NetworkTraining) and whole is not None:
        tensors = module.weights()
        module.model = whole
        module.load_weights(tensors)
    for one in averaging:  # here, not in a callback: a run resumed after its last step has no end of training
        one.average.swap()
    ranks.wait()  # for the file of the best weights
    best = recorder.best_weights()
    if best is not None:
        module.load_weights(best)
    return recorder


def processes(config: FitConfig, device: torch.device) -> dict[str, Any]:
    """What the trainer is told of the processes that share the network."""
    if not isinstance(config, TrainConfig) or config.devices * config.nodes == 1:
        return {"devices": [device.index or 0] if device.type == "cuda" else 1}
    many = {"devices": config.devices, "num_nodes": config.nodes, "use_distributed_sampler": False}
    if config.strategy == "fsdp":
        return many | {"strategy": FSDP_STRATEGY()}
    # No batch normalization has buffers to share. Frozen parameters get no gradient, and this must not be waited for.
    backend = "gloo" if device.type == "cpu" else None
    return many | {
        "strategy": DDPStrategy(
            process_group_backend=backend,
            timeout=STEP,
            broadcast_buffers=False,
            find_unused_parameters=bool(config.freeze_epochs),
            gradient_as_bucket_view=True,
        )
    }
