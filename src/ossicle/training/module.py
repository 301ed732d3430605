"""One optimizer step and one validation pass, in the terms of Lightning: of a network, and of a head on an encoder."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import lightning
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ossicle.encoders import Encoder, Hidden
from ossicle.errors import RunRefused
from ossicle.frontend import LogMel, augment
from ossicle.models.base import Network, drawing_from
from ossicle.training.config import FitConfig, TrainConfig, TuneConfig
from ossicle.training.loader import Batch, Batches
from ossicle.training.losses import mean_loss
from ossicle.training.optimizers import adamw
from ossicle.training.schedules import falls, learning_rate
from ossicle.tuning.tuned import TunedHead
from ossicle.tuning.tuners import Tuner
from ossicle.types import Task
from ossicle.weights.tensors import load_into

UNSEEN = 50  # losses that stay on a GPU before somebody looks at them


class TrainingModule(lightning.LightningModule):
    """What trains, with the loss, the optimizer and the batches of its run.

    A subclass says how a batch becomes logits. All randomness of a step comes from the batch's own seed, and the
    position of the batches travels in the checkpoint, so that a resumed run is the run.
    """

    config: FitConfig
    fused = True  # the optimizer's kernel
    logged_epochs = 1  # a line in the log for every so many

    def __init__(self, config: FitConfig, *, task: Task, batches: Batches) -> None:
        super().__init__()
        self.config, self.task, self.batches = config, task, batches
        self.ranks = batches.ranks
        self.val_outputs: list[tuple[Tensor, Tensor]] = []  # (clips, logits) of the pass under way
        self.val_scores: list[float] = []  # of the epochs so far, which a schedule may go by
        self.losses: list[float] = []  # of the steps of the epoch so far that were looked at
        self._unseen: list[tuple[int, Tensor]] = []  # number and loss of those since, on the device
        self.last_loss = math.nan  # that was looked at

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that train, by name."""
        raise NotImplementedError

    def rate_scale(self, name: str) -> float:
        """The learning rate of a parameter, as a multiple of that of the settings."""
        return 1.0

    def optimizer(self) -> torch.optim.Optimizer:
        """A new optimizer of what trains."""
        return adamw(self.trained(), self.config, fused=self.fused, scale=self.rate_scale)

    def watched(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters that the gradient guard looks at, frozen ones too."""
        return self.trained()

    def weights(self) -> dict[str, Tensor]:
        """The tensors that are kept of the best epoch."""
        raise NotImplementedError

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `weights` gave."""
        raise NotImplementedError

    def train_logits(
        self, batch: Batch, generator: torch.Generator
    ) -> tuple[Float[Tensor, "clip label"], Float[Tensor, "clip label"], Float[Tensor, "clip label"] | None]:
        """Logits of a batch, what they should have been, and how much each counts; None counts all of them whole."""
        raise NotImplementedError

    def val_logits(self, batch: Batch) -> Float[Tensor, "clip label"]:
        """Logits of a batch, nothing drawn at random."""
        raise NotImplementedError

    def copied(self) -> "TrainingModule | None":
        """A copy to measure a step on, or None where a step is not worth measuring."""
        return None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        logits, targets, known = self.train_logits(batch, batch.generator())
        loss = mean_loss(logits, targets, task=self.task, settings=self.config, known=known)
        if batch.piece is not None:
            loss = loss * batch.part
        self._unseen.append((self.global_step, loss.detach()))
        if self.sees_at_once or len(self._unseen) == UNSEEN:
            self.look()
        return loss

    @property
    def sees_at_once(self) -> bool:
        """Whether a loss can be looked at without waiting for a device."""
        return self.device.type == "cpu"

    def look(self) -> None:
        """Looks at the losses since the last look, as the mean over the processes, and so waits for the device.

        Raises: RunRefused for one that is not finite; then nothing may be kept of the steps since.
        """
        if not self._unseen:
            return
        numbers, tensors = zip(*self._unseen, strict=True)
        self._unseen = []
        losses = self.ranks.mean(torch.stack(tensors).tolist())
        for number, loss in zip(numbers, losses, strict=True):
            if not math.isfinite(loss):
                raise RunRefused(
                    f"the loss became {loss} at step {number}; begin another run with a lower learning rate than "
                    f"lr={self.config.lr:g}."
                )
        self.losses += losses
        self.last_loss = losses[-1]

    def epoch_loss(self) -> float:
        """The mean loss of the steps of an epoch, at its end."""
        self.look()
        mean = float(np.mean(self.losses))
        self.losses = []
        return mean

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the logits, on the device; the recorder joins those of one clip."""
        self.val_outputs.append((batch.clips, self.val_logits(batch).float()))

    def on_validation_epoch_start(self) -> None:
        """Drops the outputs of the pass before; weights after a loss that is not finite are not worth a pass."""
        self.look()
        self.val_outputs = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the losses, all of them finite, and the position of the next batch.

        Lightning stores the position too, but drops it between two epochs.
        """
        self.look()
        checkpoint["losses"] = self.losses
        checkpoint["batches"] = self.batches.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continues at the next batch."""
        self.losses = checkpoint["losses"]
        self.batches.load_state_dict(checkpoint["batches"])

    @property
    def fallen_rate(self) -> float:
        """What a rate that falls when the validation score stops rising has fallen to."""
        if self.config.schedule != "plateau":
            return 1.0
        return self.config.plateau_factor ** falls(self.val_scores, patience=self.config.plateau_patience)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Limits the norm of the gradient; Lightning's own does not with the fused optimizer.

        That takes the scale off the gradients itself, in its step; so the norm here is of scaled gradients. One that
        is not finite leaves them so, and the scaler skips the step.
        """
        if not self.config.clip_gradient:
            return
        parameters = [p for _, p in self.trained()]
        scaler = None if self._trainer is None else getattr(self._trainer.precision_plugin, "scaler", None)
        if scaler is None:
            torch.nn.utils.clip_grad_norm_(parameters, self.config.clip_gradient)
            return
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = norm / scaler.scale(torch.ones_like(norm))
        torch.nn.utils.clip_grads_with_norm_(parameters, self.config.clip_gradient, norm)

    def configure_optimizers(self) -> Any:
        """The optimizer, with a rate that moves with every step."""
        optimizer = self.optimizer()
        epochs = self.config.epochs or 1
        steps = max(1, math.ceil(len(self.batches) / self.config.accumulate)) * epochs
        warmup = min(self.config.warmup / epochs, 0.5)

        def rate(step: int) -> float:
            # Half a step ahead, so that neither the first nor the last step has a rate of zero.
            return learning_rate((step + 0.5) / steps, self.config, warmup=warmup) * self.fallen_rate

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class NetworkTraining(TrainingModule):
    """A network and its front end, with every augmentation that the settings switch on.

    Args:
        frames: feature frames of a training clip; shorter clips are followed by silence up to it.
    """

    config: TrainConfig

    def __init__(
        self, model: Network, frontend: LogMel, config: TrainConfig, *, task: Task, frames: int, batches: Batches
    ) -> None:
        super().__init__(config, task=task, batches=batches)
        self.model, self.frontend, self.frames = model, frontend, frames
        model.gradient_checkpointing = config.gradient_checkpointing
        # In a tuple, or the same weights would be registered twice.
        self._network = (torch.compile(model) if config.compile else model,)
        self._depths = model.parameter_depths() if config.layer_decay != 1 else {}

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters of the network."""
        return self.model.named_parameters()

    def rate_scale(self, name: str) -> float:
        """A block learns slower than the next by the factor `layer_decay`; the head has the rate of the settings.

        Source: Clark et al., "ELECTRA" (arXiv 2003.10555), appendix; of image transformers BEiT (arXiv 2106.08254).
        """
        return self.config.layer_decay ** (max(self._depths.values()) - self._depths[name]) if self._depths else 1.0

    def weights(self) -> dict[str, Tensor]:
        """The network's tensors."""
        return self.model.state_dict()

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Into the network."""
        load_into(self.model, dict(tensors), source="the best epoch")

    def on_fit_start(self) -> None:
        """Batches are copied ahead to the device of this process."""
        self.batches.send_to(self.device)

    def copied(self) -> TrainingModule:
        """Network and front end copied and not compiled, with a rate of zero: a copy must not diverge."""
        config = dataclasses.replace(self.config, compile=False, lr=0.0)
        model, frontend = copy.deepcopy(self.model).train(), copy.deepcopy(self.frontend)
        return NetworkTraining(model, frontend, config, task=self.task, frames=self.frames, batches=self.batches)

    def train_logits(
        self, batch: Batch, generator: torch.Generator
    ) -> tuple[Float[Tensor, "clip label"], Float[Tensor, "clip label"], Float[Tensor, "clip label"] | None]:
        """Of the augmented batch."""
        spec, targets, known = self.augmented(batch, generator)
        if self.config.compile:  # which traces no generator but torch's own
            with drawing_from(generator):
                return self._network[0](spec), targets, known
        return self._network[0](spec, generator=generator), targets, known

    def val_logits(self, batch: Batch) -> Float[Tensor, "clip label"]:
        """Of the batch as it is."""
        return self.model(self.frontend(batch.waves, lengths=batch.lengths, frames=self.frames))

    def augmented(
        self, batch: Batch, generator: torch.Generator
    ) -> tuple[Float[Tensor, "clip mel frame"], Float[Tensor, "clip label"], Float[Tensor, "clip label"] | None]:
        """Features and labels of a batch after every augmentation, and how much of a label is known.

        A loss of a mix is the sum of those of its parts, each over the labels that are known of it. Binary
        cross-entropy is linear in the target, so one target that counts for as much as is known is the same.
        """
        config, targets, waves, lengths = self.config, batch.targets, batch.waves, batch.lengths
        if batch.known is not None:
            targets = torch.cat([targets * batch.known, batch.known], 1)  # mixed alike
        if config.gain:
            waves = augment.gain(waves, decibels=config.gain, generator=generator)
        if config.roll:
            most = round(config.roll * self.frontend.rate)
            waves = augment.roll(waves, max_samples=most, lengths=lengths, generator=generator)
        if config.wave_mixup:  # every clip may meet every other: all are as long as the longest of all processes
            if batch.piece is not None:
                waves = F.pad(waves, (0, batch.piece.longest - waves.shape[1]))
            lengths = torch.full_like(lengths, waves.shape[1])
            waves, targets = augment.mix_waves(waves, targets, probability=config.wave_mixup, generator=generator)
        spec = self.frontend(waves, lengths=lengths, frames=self.frames, generator=generator)
        if config.mixup:
            spec, targets = augment.mix_spectrograms(spec, targets, alpha=config.mixup, generator=generator)
        if batch.known is None:
            return spec, targets, None
        true, known = targets.chunk(2, dim=1)
        return spec, true / known.clamp(min=1e-6), known


# Gives the hidden states of some examples: the layers that a head takes, pooled over time as it takes them.
Features = Callable[[Any], Hidden]


class HeadTraining(TrainingModule):
    """A head on a frozen encoder, and the tuner inside the encoder if there is one.

    Args:
        features: gives hidden states, with a graph where there is a tuner.
        encoder: that of the tuner, which trains and evaluates as the head does.
    """

    config: TuneConfig
    fused = False

    def __init__(
        self,
        head: TunedHead,
        features: Features,
        config: TuneConfig,
        *,
        task: Task,
        batches: Batches,
        tuner: Tuner | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__(config, task=task, batches=batches)
        self.head, self.features, self.tuner = head, features, tuner
        self.logged_epochs = max(1, config.epochs // 10)
        self._encoder = (encoder,)  # in a tuple, or it would be a part of this, and of every checkpoint

    def parts(self) -> dict[str, TunedHead | Tuner]:
        """What trains, by name."""
        return {"head": self.head, **({"tuner": self.tuner} if self.tuner is not None else {})}

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of the head and of the tuner."""
        for part, owner in self.parts().items():
            yield from ((f"{part}.{name}", p) for name, p in owner.named_parameters())

    def watched(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Those, and the encoder's."""
        (encoder,) = self._encoder
        return [*self.trained(), *(encoder.named_parameters(prefix="encoder") if encoder is not None else [])]

    def weights(self) -> dict[str, Tensor]:
        """The tensors of the head and of the tuner."""
        return {
            f"{part}.{name}": tensor
            for part, owner in self.parts().items()
            for name, tensor in owner.state_dict().items()
        }

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Into the head and the tuner."""
        for part, owner in self.parts().items():
            own = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
            owner.load_state_dict(own)

    def rate_scale(self, name: str) -> float:
        """LoRA+: B, zero at first, learns faster than A.

        Source: Hayou et al., "LoRA+" (arXiv 2402.12354), section 4.
        """
        return self.config.lora_plus if ".lora_B." in name else 1.0

    def train_logits(
        self, batch: Batch, generator: torch.Generator
    ) -> tuple[Float[Tensor, "clip label"], Float[Tensor, "clip label"], Float[Tensor, "clip label"] | None]:
        """Dropout of a tuner and of other people's networks takes no generator: torch's own is seeded for the step."""
        self.set_training(True)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if self.device.type == "cuda" else []):
            torch.manual_seed(batch.seed)
            logits = self.head.score(self.features(batch.clips.cpu().numpy()))
        batch = batch.to(logits.device)
        return logits, batch.targets, batch.known

    def val_logits(self, batch: Batch) -> Float[Tensor, "clip label"]:
        """Nothing is dropped."""
        self.set_training(False)
        return self.head.score(self.features(batch.clips.cpu().numpy()))

    def set_training(self, mode: bool) -> None:
        """Sets the mode of head and encoder; Lightning does not know the encoder."""
        self.head.train(mode)
        (encoder,) = self._encoder
        if encoder is not None:
            encoder.train(mode)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the tuner's tensors, which lie inside the encoder."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["tuner"] = self.tuner.state_dict() if self.tuner is not None else {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts them back."""
        super().on_load_checkpoint(checkpoint)
        if self.tuner is not None:
            self.tuner.load_state_dict(checkpoint["tuner"])
