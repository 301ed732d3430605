"""One optimizer step and one evaluation pass, in the terms of Lightning."""

import math
from collections.abc import Iterable
from typing import Any

import lightning
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ossicle.errors import RunRefused
from ossicle.frontend import LogMel, augment
from ossicle.frontend.batch import spectrograms
from ossicle.training.config import TrainConfig, TuneConfig
from ossicle.training.loader import Batch, Batches


def loss_of(
    logits: Float[Tensor, "clip label"],
    targets: Float[Tensor, "clip label"],
    *,
    task: str,
    smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> Float[Tensor, ""]:
    """Cross-entropy over labels that exclude each other, binary cross-entropy averaged over labels that do not.

    Args:
        focal_gamma: above zero the focal loss (Lin et al., arXiv 1708.02002): what is answered well, with probability
            p, counts (1 - p)^gamma of itself.
    """
    logits = logits.float()
    if task == "single-label":
        loss = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        right = (logits.softmax(-1) * targets).sum(-1)
    else:
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        right = torch.where(targets > 0.5, logits, -logits).sigmoid()
    if focal_gamma:
        loss = loss * (1 - right).clamp(min=1e-6) ** focal_gamma
    return loss.mean()


def learning_rate(progress: float, config: TrainConfig | TuneConfig, *, warmup: float) -> float:
    """The learning rate as a share of its peak.

    Args:
        progress: share of the run behind us, 0 to 1.
        warmup: share of the run over which the rate rises linearly.
    """
    if progress < warmup:
        return progress / warmup
    start = max(warmup, config.hold)
    if config.schedule == "constant" or progress <= start:
        return 1.0
    left = 1 - min((progress - start) / max(config.decay_until - start, 1e-9), 1.0)
    shape = left if config.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
    return config.final_lr + (1 - config.final_lr) * shape


class Trainee(lightning.LightningModule):
    """A model and its front end, with what a training step does to a batch.

    Args:
        frames: feature frames of a training clip; shorter clips are followed by silence up to it.
        batches: what it trains on; their position travels in the checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        frontend: LogMel,
        config: TrainConfig,
        *,
        task: str,
        frames: int,
        batches: Batches,
    ) -> None:
        super().__init__()
        self.model, self.frontend, self.config = model, frontend, config
        self.task, self.frames, self.batches = task, frames, batches
        # In a tuple, or the same weights would be registered twice.
        self._network = (torch.compile(model) if config.compile else model,)
        self.val_outputs: list[tuple[Tensor, Tensor]] = []  # (clips, logits) of the pass under way
        self.last_loss = math.nan

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch; all randomness comes from the batch's own seed."""
        generator = torch.Generator().manual_seed(batch.seed)
        spec, targets = self.augmented(batch, generator)
        logits = self._network[0](spec, generator=generator)
        loss = loss_of(logits, targets, task=self.task, smoothing=self.config.label_smoothing)
        self.last_loss = loss.item()
        if not math.isfinite(self.last_loss):
            raise RunRefused(
                f"the loss became {self.last_loss} at step {self.global_step}; begin another run with a lower "
                f"learning rate than lr={self.config.lr:g}."
            )
        return loss

    def augmented(
        self, batch: Batch, generator: torch.Generator
    ) -> tuple[Float[Tensor, "clip mel frame"], Float[Tensor, "clip label"]]:
        """Features and labels of a batch after every augmentation that the settings switch on."""
        config, targets, waves = self.config, batch.targets.clone(), batch.waves
        if config.wave_mixup:  # every clip may meet every other: the shorter are followed by silence
            waves = [*pad_sequence(waves, batch_first=True)]

        def change(positions: Tensor, clips: Tensor) -> Tensor:
            if config.gain:
                clips = augment.gain(clips, decibels=config.gain, generator=generator)
            if config.roll:
                clips = augment.roll(clips, max_samples=round(config.roll * self.frontend.rate), generator=generator)
            if config.wave_mixup:
                positions = positions.to(targets.device)
                clips, targets[positions] = augment.mix_waves(
                    clips, targets[positions], probability=config.wave_mixup, generator=generator
                )
            return clips

        spec = spectrograms(self.frontend, waves, frames=self.frames, generator=generator, change=change)
        if config.mixup:
            spec, targets = augment.mix_spectrograms(spec, targets, alpha=config.mixup, generator=generator)
        return spec, targets

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the position of the next batch. Lightning stores it too, but forgets it between two epochs."""
        checkpoint["batches"] = self.batches.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continues at the next batch."""
        self.batches.load_state_dict(checkpoint["batches"])

    def on_validation_epoch_start(self) -> None:
        """Forgets the outputs of the pass before."""
        self.val_outputs = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the logits of every window; the recorder joins them by clip."""
        spec = spectrograms(self.frontend, batch.waves, frames=self.frames)
        self.val_outputs.append((batch.clips.cpu(), self.model(spec).float().cpu()))

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Limits the norm of the gradient. Lightning's own refuses the fused optimizer, for a scaler we do not use."""
        if self.config.clip_gradient:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_gradient, foreach=True)

    def configure_optimizers(self) -> Any:
        """AdamW, with decay on matrices only, and a rate that moves with every optimizer step."""
        optimizer = adamw(self.model.named_parameters(), self.config, fused=True)
        epochs = self.config.epochs or 1
        steps = max(1, math.ceil(len(self.batches) / self.config.accumulate)) * epochs
        warmup = min(self.config.warmup / epochs, 0.5)

        def rate(step: int) -> float:
            # Half a step ahead, so that neither the first nor the last step has a rate of zero.
            return learning_rate((step + 0.5) / steps, self.config, warmup=warmup)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def adamw(
    parameters: Iterable[tuple[str, nn.Parameter]], config: TrainConfig | TuneConfig, *, fused: bool = False
) -> torch.optim.AdamW:
    """The optimizer of all that trains, with decay where `decays` says."""
    trained = [(name, p) for name, p in parameters if p.requires_grad]
    groups = [
        {"params": [p for name, p in trained if decays(name, p)], "weight_decay": config.weight_decay},
        {"params": [p for name, p in trained if not decays(name, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, fused=fused)


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices and kernels, not to biases and their tables, norms, tokens, positions,
    learned signals and what places a density, which are no smaller for being nearer to zero."""
    matrix = sum(size > 1 for size in parameter.shape) > 1 and parameter.shape[0] > 1
    own = name.rpartition(".")[2]
    return matrix and "bias" not in own and own not in ("offset", "log_spread", "log_scale", "logit")
