"""PaSST: a transformer over spectrogram patches that drops patches while training.

Source: Koutini et al., "Efficient Training of Audio Transformers with Patchout" (arXiv 2110.05069), section 2; tensor
names and numbers as in the published checkpoints (github.com/kkoutini/PaSST, models/passt.py).

**Deviations**
- Patches are gathered before they are embedded, so a dropped patch costs nothing; the reference convolves first.
  The numbers are the same.
- Attention is `scaled_dot_product_attention`, in bfloat16 on a CPU `tiled_attention`; the reference forms the matrix.
- An input longer than the time positions is split into windows whose logits are averaged, or optionally processed
  in one pass with interpolated positions; the reference cuts it (and reads its length too early, so patchout fails).
- At stride 20 the time table has all 50 columns of 10 s; the reference has 49 and cuts one.
- Every random number comes from the generator that the caller passes, where one is passed.
"""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ossicle.draws import onto
from ossicle.errors import WeightsRefused
from ossicle.models.images import mono_kernel, vit_kind, vit_weights
from ossicle.models.patches import HEAD_DIM, PATCH, PatchConfig, PatchTransformer, patches_along

# Of published networks; not stored in checkpoints.
STRIDES = (10, 12, 14, 16, 20)
LENGTHS = (998, 2000, 3000, 3200)


@dataclass(frozen=True, kw_only=True)
class PasstConfig(PatchConfig):
    """Configuration of a PaSST network."""

    @property
    def columns(self) -> int:
        """Length of the time table: as published (frames // stride), and never less than `frames` need."""
        return max(self.frames // self.stride, patches_along(self.frames, self.stride))


class Passt(PatchTransformer):
    """The network: log-mel in, one logit per label out."""

    config_class = PasstConfig
    new_pos_embed: nn.Parameter
    freq_new_pos_embed: nn.Parameter
    time_new_pos_embed: nn.Parameter

    def __init__(self, config: PasstConfig, *, frontend: str = "passt") -> None:
        dim = config.dim
        tables = {
            "new_pos_embed": (1, 2, dim),
            "freq_new_pos_embed": (1, dim, config.rows, 1),
            "time_new_pos_embed": (1, dim, 1, config.columns),
        }
        super().__init__(config, frontend=frontend, tables=tables, eps=(1e-6, 1e-5))
        # The published checkpoints carry this second head, and the published forward never uses it.
        self.head_dist = nn.Linear(dim, config.num_classes).requires_grad_(False)
        self.reset_parameters()

    def class_positions(self) -> Float[Tensor, "1 2 dim"]:
        """A table of its own."""
        return self.new_pos_embed

    def positions(
        self, columns: int, *, generator: torch.Generator | None
    ) -> Callable[[Int[Tensor, "patch"] | None], Float[Tensor, "patch dim"]]:
        """The sum of one table over time and one over frequency; in training a short clip begins anywhere in time."""
        time = self.time_new_pos_embed[0, :, 0]  # (dim, column)
        if columns > self.config.columns:
            time = F.interpolate(time[None], columns, mode="linear")[0]
        elif self.training and columns < self.config.columns:
            offset = torch.randint(self.config.columns - columns + 1, (), generator=generator)
            time = time.index_select(1, onto(offset + torch.arange(columns), time.device))
        else:
            time = time[:, :columns]
        time = time.T  # (column, dim)
        freq = self.freq_new_pos_embed[0, :, :, 0].T  # (row, dim)

        def at(patches: Int[Tensor, "patch"] | None) -> Float[Tensor, "patch dim"]:
            if patches is None:
                return (freq[:, None] + time).flatten(0, 1)
            return freq.index_select(0, patches // columns) + time.index_select(0, patches % columns)

        return at

    @classmethod
    def options_of(cls, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Length and depth of a PaSST's weights; nothing of an image transformer's."""
        if "time_new_pos_embed" not in tensors:
            return {}
        config = infer_config(tensors)
        return {"frames": config.frames, "depth": config.depth}

    @classmethod
    def recognize(cls, tensors: Mapping[str, Tensor], *, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The options of a published PaSST; its tables of positions are found in no other network."""
        if not {"freq_new_pos_embed", "time_new_pos_embed"} & tensors.keys():
            return None
        config = infer_config(tensors)
        if settings.get("dim") == config.dim and "num_heads" in settings:
            config = replace(config, num_heads=settings["num_heads"])
        # Several lengths have as many columns.
        named = replace(config, frames=settings.get("frames", config.frames))
        config = named if named.columns == config.columns else config
        return {
            name: getattr(config, name)
            for name in ("num_classes", "dim", "num_heads", "depth", "stride", "frames", "stem")
        }

    @classmethod
    def image_network(cls, tensors: Mapping[str, Tensor]) -> str | None:
        """DeiT or ViT."""
        return vit_kind(tensors)

    @classmethod
    def lengthened(cls, tensors: Mapping[str, Tensor], *, frames: int) -> Mapping[str, Tensor]:
        """The time positions of a PaSST stretched to longer inputs, linearly, as `interpolate_positions` does."""
        if (table := tensors.get("time_new_pos_embed")) is None:
            return tensors
        config = infer_config(tensors)
        columns = patches_along(frames, config.stride)
        if columns <= config.columns:
            return tensors
        return {**tensors, "time_new_pos_embed": F.interpolate(table[:, :, 0], columns, mode="linear")[:, :, None]}

    def explain_misfit(self, shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> list[str]:
        """Position tables of other sizes mean another stride or length."""
        tables = [shapes[name] for name in ("freq_new_pos_embed", "time_new_pos_embed") if name in shapes]
        if len(tables) < 2 or all(found == wanted for found, wanted in tables):
            return []
        (freq, own_freq), (time, own_time) = tables
        return [
            f"the file has {freq[2]} x {time[3]} positions (frequency x time), expected {own_freq[2]} x "
            f"{own_time[3]}; use the stride and length of the weights"
        ]

    def adapted(
        self,
        tensors: Mapping[str, Tensor],
        *,
        source: str | Path,
        new_head: bool = True,
        report: Callable[[str], None] = lambda sentence: None,
    ) -> dict[str, Tensor]:
        """The tensors of a PaSST, or of an image transformer: DeiT, or a ViT with one class token.

        A color kernel is converted to mono, and positions of an image to ours; a head for other labels is replaced by
        the new one.

        Source: section 3.2 of the paper, and models/passt.py of the reference code.
        """
        adapted, kind = dict(tensors), vit_kind(tensors)
        if kind:
            adapted = vit_weights(adapted)
            grid = (self.config.rows, self.config.columns)
            if (table := adapted["pos_embed"]).ndim == 3 and table.is_floating_point():
                del adapted["pos_embed"]
                adapted |= positions_from_image(table, grid=grid, source=source)
            once = "" if kind == "DeiT" else "; its class token serves as both of ours"
            report(f"{source}: weights of {kind}, a network of images{once}. New: head. Not used: its own head.")
        kernel, own = adapted.get("patch_embed.proj.weight"), self.state_dict()
        if kernel is not None and kernel.ndim == 4 and kernel.shape[1] == 3:
            adapted["patch_embed.proj.weight"] = mono_kernel(kernel)
        head = adapted.get("head.1.weight")
        if new_head and (head is None or head.shape != own["head.1.weight"].shape):
            new = ("head.1.", "head_dist.") if "head.0.weight" in adapted else ("head.", "head_dist.")
            adapted = {name: tensor for name, tensor in adapted.items() if not name.startswith(new)}
            adapted |= {name: tensor.clone() for name, tensor in own.items() if name.startswith(new)}
        return adapted


# --- weights of others ------------------------------------------------------------------------------------------------


def infer_config(tensors: Mapping[str, Tensor], *, num_heads: int | None = None) -> PasstConfig:
    """Reads width, depth, stride, length and labels from the shapes of a PaSST checkpoint.

    Args:
        num_heads: not determined by shapes; by default heads of width 64, as in every published network.

    Raises:
        WeightsRefused: not the tensors of a PaSST, or position tables that fit no stride.
    """
    try:
        rows = tensors["freq_new_pos_embed"].shape[2]
        columns = tensors["time_new_pos_embed"].shape[3]
    except (KeyError, IndexError) as error:
        raise WeightsRefused(f"these are not the tensors of a PaSST: {error} is missing or of another rank") from error
    dim = most_common(tensors, r"blocks\.\d+\.norm[12]\.(weight|bias)")
    num_classes = most_common(tensors, r"(head\.1|head_dist)\.(weight|bias)")
    levels = (f"patch_embed.halve.{level}.weight" for level in range(len(tensors)))
    stem = tuple(tensors[name].shape[0] for name in itertools.takewhile(tensors.__contains__, levels))
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    for stride in STRIDES if not stem else (PATCH,):
        for frames in (*LENGTHS, columns * stride):
            config = PasstConfig(
                num_classes=num_classes,
                dim=dim,
                num_heads=num_heads or max(1, dim // HEAD_DIM),
                depth=depth,
                stride=stride,
                frames=max(frames, 16),
                stem=stem,
            )
            if (config.rows, config.columns) == (rows, columns):
                return config
    raise WeightsRefused(
        f"no stride of {', '.join(map(str, STRIDES))} gives {rows} x {columns} positions (frequency x time)"
    )


def most_common(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """The most common first axis of the tensors whose name matches, so that a single misshapen one is found out.

    Raises: WeightsRefused if there is none.
    """
    sizes = [tensor.shape[0] for name, tensor in tensors.items() if re.fullmatch(pattern, name) and tensor.ndim]
    if not sizes:
        raise WeightsRefused(f"these are not the tensors of a PaSST: none has a name like {pattern}")
    return max(sizes, key=sizes.count)


def positions_from_image(
    pos_embed: Float[Tensor, "1 token dim"], *, grid: tuple[int, int], source: str | Path = "the checkpoint"
) -> dict[str, Tensor]:
    """Splits an image's position table (two class tokens, then a square) into ours for time and for frequency.

    The square is resized bicubically to (rows, columns); each of our tables is its mean over the other axis.
    """
    side = round(max(pos_embed.shape[1] - 2, 0) ** 0.5)
    if side < 1 or side**2 != pos_embed.shape[1] - 2:
        raise WeightsRefused(
            f"{source}: pos_embed has {pos_embed.shape[1]} positions; two class tokens and a square are needed"
        )
    tokens, patches = pos_embed[:, :2], pos_embed[:, 2:]
    square = patches.mT.unflatten(2, (side, side))  # (1, dim, row, column)
    stretched = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return {
        "new_pos_embed": tokens.clone(),
        "freq_new_pos_embed": stretched.mean(dim=3, keepdim=True),
        "time_new_pos_embed": stretched.mean(dim=2, keepdim=True),
    }
