"""Our own networks as encoders, from a bundle.

PaSST: every block's patch tokens, their mean over frequency; a time is a column of patches. The class and distillation
tokens are left out.

DATAR: the dims of its stages differ, so the blocks of one stage are read: the one with the most blocks, the deepest of
several (the third of DATAR-T: 6 blocks of dim 384). Mean over frequency; a time is a column of that stage's map. The
stages before it run whole, the ones behind it not at all.

A clip longer than the network's table of positions is heard in pieces. A bundle that was trained with silence after
short clips gets it here too, and the mask leaves it out.
"""

import dataclasses
import json
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from ossicle.bundle import Bundle
from ossicle.encoders.hidden import bare
from ossicle.encoders.sound import SoundEncoder
from ossicle.frontend import LogMel
from ossicle.frontend.batch import spectrograms
from ossicle.models.datar import PATCH as DATAR_PATCH
from ossicle.models.datar import Datar
from ossicle.models.passt import PATCH as PASST_PATCH
from ossicle.models.passt import Passt, patches_along


def told_of(config: Any) -> dict[str, Any]:
    """The options of a network that are not as they are by default: an option of a later version changes nothing."""
    options = ((field, getattr(config, field.name)) for field in dataclasses.fields(config))
    told = {field.name: value for field, value in options if value != field.default}
    return json.loads(json.dumps(told, default=dataclasses.asdict))


class BundleEncoder(SoundEncoder):
    """What PaSST and DATAR share: the bundle's front end."""

    def __init__(
        self, bundle: Bundle, *, max_frames: int, num_layers: int, dim: int, name: str, **settings: Any
    ) -> None:
        frontend = bundle.frontend
        window = frontend.frames(max(round(bundle.window_seconds * frontend.rate), frontend.min_samples))
        super().__init__(
            bundle.model,
            rate=frontend.rate,
            max_samples=frontend.samples(max_frames + 1) - 1,
            num_layers=num_layers,
            dim=dim,
            name=name,
            settings={
                "family": bundle.model_name,
                "network": told_of(cast(Any, bundle.model).config),
                "frontend": frontend.config.to_dict(),
                "padded_frames": min(window, max_frames) if bundle.pad else None,
                **settings,
            },
        )
        self._frontend = (frontend,)  # in a tuple, so that it stays on the CPU when the encoder moves

    @property
    def frontend(self) -> LogMel:
        """Samples to log-mel, on the CPU."""
        return self._frontend[0]

    def front(self, wave: Float32[np.ndarray, "time"]) -> Float[Tensor, "mel frame"]:
        silence = max(0, self.frontend.min_samples - len(wave))
        padded = F.pad(torch.from_numpy(wave), (0, silence))
        return spectrograms(self.frontend, [padded], frames=self.settings["padded_frames"])[0]

    def frames(self, samples: int) -> int:
        """Frames of a piece, without the silence behind it."""
        return max(1, self.frontend.frames(samples))

    def train(self, mode: bool = True) -> "BundleEncoder":
        super().train(mode)
        for module in self.network.modules():
            # Patchout and dropout of ours want a generator, which `encode` has not; what a tuner has added may train.
            if type(module).__module__.startswith("ossicle.models"):
                module.training = False
        return self


class PasstEncoder(BundleEncoder):
    """PaSST: a layer is a block, a time is a column of patches."""

    def __init__(self, bundle: Bundle, *, name: str) -> None:
        model = cast(Passt, bundle.model)
        max_frames = model.max_frames
        if model.config.interpolate_positions:
            max_frames = max(max_frames, bundle.frontend.frames(round(bundle.window_seconds * bundle.frontend.rate)))
        super().__init__(
            bundle,
            max_frames=max_frames,
            num_layers=len(model.blocks),
            dim=model.config.dim,
            name=name,
            states="patch tokens, mean over frequency",
        )

    def places(self, samples: int) -> int:
        return patches_along(max(self.frames(samples), PASST_PATCH), bare(self.network).config.stride)

    def states(self, rows: Float[Tensor, "row mel frame"], layers: int) -> Float[Tensor, "row layer time dim"]:
        model: Passt = bare(self.network)
        x = model.embed(rows, generator=None)
        states = []
        for block in model.blocks[:layers]:
            x = block(x)
            states.append(x[:, 2:].unflatten(1, (model.config.rows, -1)).mean(1))
        return torch.stack(states, dim=1)


class DatarEncoder(BundleEncoder):
    """DATAR: a layer is a block of the stage with the most, a time is a column of its map."""

    def __init__(self, bundle: Bundle, *, name: str) -> None:
        config = cast(Datar, bundle.model).config
        stage = max(range(len(config.depths)), key=lambda number: (config.depths[number], number))
        super().__init__(
            bundle,
            max_frames=config.frames,
            num_layers=config.depths[stage],
            dim=config.dims[stage],
            name=name,
            states=f"blocks of stage {stage + 1}, mean over frequency",
        )
        self.stage = stage

    def places(self, samples: int) -> int:
        return -(-self.frames(samples) // (DATAR_PATCH * 2**self.stage))

    def states(self, rows: Float[Tensor, "row mel frame"], layers: int) -> Float[Tensor, "row layer time dim"]:
        model: Any = bare(self.network)  # a Datar
        x = model.spectrogram_adaptor(model.check(rows)).unsqueeze(-1)
        for number, stage in enumerate(model.stages[: self.stage + 1]):
            x = stage.merge(x)
            if number == 0:
                x = model.position_table(x)
            states = []
            for block in stage.blocks[: layers if number == self.stage else None]:
                x = block(x)  # (row, row of the map, column, dim)
                states.append(x.mean(1))
        return torch.stack(states, dim=1)


def bundle_encoder(bundle: Bundle, *, name: str) -> BundleEncoder:
    """The encoder of a bundle's network."""
    kinds: dict[type[nn.Module], type[PasstEncoder] | type[DatarEncoder]] = {Passt: PasstEncoder, Datar: DatarEncoder}
    return kinds[type(bundle.model)](bundle, name=name)
