"""AST: a transformer over all patches of a spectrogram of fixed length, with one table of positions.

Source: Gong et al., "AST: Audio Spectrogram Transformer" (arXiv 2104.01778), section 2; numbers and names as in
`ASTForAudioClassification` of Hugging Face's transformers, and in the authors' checkpoints (github.com/YuanGongND/ast).

**Deviations**
- A shorter input is filled here and not by the front end, with the same value: zero before the normalization.
- A longer input is split into windows whose logits are averaged, or optionally processed in one pass with interpolated
  positions; the published front end cuts it.
- Patches can be dropped in training, as in PaSST.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ossicle.errors import WeightsRefused
from ossicle.models.images import join_parts, of_sound
from ossicle.models.patches import HEAD_DIM, PATCH, PatchConfig, PatchTransformer, patches_along
from ossicle.models.tokens import TokenReduction

# Of published networks; read from their settings where they have some.
STRIDES = (10, 12, 14, 16)
FRAMES = (1024, 128, 512)
MEAN, DEVIATION = -4.2677393, 4.5689974  # of AudioSet


@dataclass(frozen=True, kw_only=True)
class AstConfig(PatchConfig):
    """Configuration of an AST."""

    frames: int = 1024  # of every input: a shorter one is filled
    fill: float = -MEAN / (2 * DEVIATION)  # feature of the filled frames
    norm_eps: float = 1e-12  # of the blocks and the features
    head_eps: float = 1e-12


class Ast(PatchTransformer):
    """The network: log-mel in, one logit per label out."""

    config_class = AstConfig
    pos_embed: nn.Parameter

    def __init__(self, config: AstConfig, *, frontend: str = "ast") -> None:
        tables = {"pos_embed": (1, 2 + config.rows * config.columns, config.dim)}
        super().__init__(config, frontend=frontend, tables=tables, eps=(config.norm_eps, config.head_eps))
        self.reset_parameters()

    @property
    def max_frames(self) -> int:
        """The length of every input of one pass."""
        return self.config.frames

    def class_positions(self) -> Float[Tensor, "1 2 dim"]:
        """The first two of the table."""
        return self.pos_embed[:, :2]

    def positions(
        self, columns: int, *, generator: torch.Generator | None
    ) -> Callable[[Int[Tensor, "patch"] | None], Float[Tensor, "patch dim"]]:
        """The rest of the table, row by row; interpolated along time for more columns."""
        table = self.pos_embed[0, 2:]  # (patch, dim)
        if columns > self.config.columns:
            line = table.unflatten(0, (self.config.rows, -1)).transpose(1, 2)  # (row, dim, column)
            table = F.interpolate(line, columns, mode="linear").transpose(1, 2).flatten(0, 1)
        return lambda patches: table if patches is None else table.index_select(0, patches)

    def embed(
        self,
        spec: Float[Tensor, "clip mel frame"],
        *,
        generator: torch.Generator | None,
        reduction: TokenReduction | None = None,
    ) -> Float[Tensor, "clip token dim"]:
        """As of every network of patches, with a shorter input filled up."""
        missing = self.config.frames - spec.shape[-1]
        if torch.compiler.is_exporting() or missing > 0:
            spec = F.pad(spec, (0, missing), value=self.config.fill)
        return super().embed(spec, generator=generator, reduction=reduction)

    def layer_states(self, spec: Float[Tensor, "clip mel frame"], layers: int) -> Float[Tensor, "clip layer time dim"]:
        """The outputs of the first blocks, averaged over frequency, without the columns that were filled."""
        return super().layer_states(spec, layers)[:, :, : self.layer_times(spec.shape[-1])]

    # --- weights of others --------------------------------------------------------------------------------------------

    @classmethod
    def options_of(cls, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Length, depth and norms of the weights."""
        options = cls.recognize(tensors, settings={}) or {}
        return {name: options[name] for name in ("frames", "depth", "norm_eps", "head_eps") if name in options}

    @classmethod
    def recognize(cls, tensors: Mapping[str, Tensor], *, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The options of an AST of Hugging Face's transformers, of its authors, or of ours."""
        if not {AUTHORS, HUGGING} & tensors.keys() and not ("pos_embed" in tensors and of_sound(tensors)):
            return None
        own = renamed(tensors)
        if own["pos_embed"].ndim != 3:
            raise WeightsRefused(
                f"the table of positions has the shape {tuple(own['pos_embed'].shape)}; expected three axes"
            )
        _, positions, dim = own["pos_embed"].shape
        classes = own.get("head.1.bias", own.get("head.1.weight"))
        if classes is None:
            raise WeightsRefused("an AST without a head for labels; expected ASTForAudioClassification")
        options: dict[str, Any] = {
            "num_classes": classes.shape[0],
            "dim": dim,
            "depth": len({name.split(".")[1] for name in own if name.startswith("blocks.")}),
        }
        if "model_type" in settings:
            return options | sizes_of(settings)
        named = settings.get("num_heads") if settings.get("dim") == dim else None
        options |= {"num_heads": named or max(1, dim // HEAD_DIM)} | sizes_by_table(positions)
        return options | ({"norm_eps": 1e-6, "head_eps": 1e-5} if AUTHORS in tensors else {})

    def adapted(
        self,
        tensors: Mapping[str, Tensor],
        *,
        source: str | Path,
        new_head: bool = True,
        report: Callable[[str], None] = lambda sentence: None,
    ) -> dict[str, Tensor]:
        """The tensors under our names; a head for other labels is replaced by the new one."""
        if unused := [name for name in tensors if name.startswith("v.head")]:
            report(f"{source}: not used: {', '.join(unused)}, the head of the image network that it started from.")
        return super().adapted(renamed(tensors), source=source, new_head=new_head)


# --- names of others --------------------------------------------------------------------------------------------------

AUTHORS, HUGGING = "v.pos_embed", "audio_spectrogram_transformer.embeddings.position_embeddings"

# Of transformers, in the published files and since its version 5.
NAMES = (
    (r"^audio_spectrogram_transformer\.", ""),
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^embeddings\.distillation_token", "dist_token"),
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^(encoder\.layer|layers)\.(?=\d)", "blocks."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.attention\.(?=query|key|value)", "attn."),
    (r"attention\.q_proj", "attn.query"),
    (r"attention\.k_proj", "attn.key"),
    (r"attention\.v_proj", "attn.value"),
    (r"attention\.(output\.dense|o_proj)", "attn.proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"(?<=\d\.)output\.dense", "mlp.fc2"),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.layernorm", "head.0"),
    (r"^classifier\.dense", "head.1"),
)


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an AST by our names; query, key and value of equal shapes become one."""
    if AUTHORS in tensors:
        # The head of the image network that it started from is still in the file.
        inner = {name.removeprefix("v."): t for name, t in tensors.items() if not name.startswith("v.head")}
        return {re.sub(r"^mlp_head\.", "head.", name): tensor for name, tensor in inner.items()}
    if HUGGING not in tensors:
        return dict(tensors)
    named = {}
    for name, tensor in tensors.items():
        for theirs, ours in NAMES:
            name = re.sub(theirs, ours, name)
        named[name] = tensor
    return join_parts(named)


# What this network has in one way alone, in the settings of transformers.
FIXED = {"patch_size": PATCH, "hidden_act": "gelu", "qkv_bias": True}


def sizes_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Heads, stride, bins, frames and norms in the settings of transformers, and the value of frames that are filled.

    Raises: WeightsRefused for a network of another kind, or values of another type.
    """
    preprocessor = settings.get("preprocessor") or {}
    sizes = {
        name: number(settings, name, default, whole=True)
        for name, default in (
            ("hidden_size", 768),
            ("num_attention_heads", 12),
            ("frequency_stride", 10),
            ("time_stride", 10),
            ("num_mel_bins", 128),
            ("max_length", 1024),
            ("intermediate_size", 3072),
        )
    }
    fixed = {"time_stride": sizes["frequency_stride"], "intermediate_size": 4 * sizes["hidden_size"]} | FIXED
    for name, value in fixed.items():
        if (given := sizes.get(name, settings.get(name, value))) != value:
            raise WeightsRefused(f"config.json has {name}={given}; an Ast has {value}")
    for name in ("num_mel_bins", "max_length"):
        if (given := preprocessor.get(name, sizes[name])) != sizes[name]:
            raise WeightsRefused(
                f"config.json has {name}={sizes[name]}, preprocessor_config.json {given}; they must agree"
            )
    mean, deviation = number(preprocessor, "mean", MEAN), number(preprocessor, "std", DEVIATION)
    if not deviation > 0:
        raise WeightsRefused(f"preprocessor_config.json has std={deviation}; expected more than 0")
    eps = number(settings, "layer_norm_eps", AstConfig.norm_eps)
    return {
        "num_heads": sizes["num_attention_heads"],
        "stride": sizes["frequency_stride"],
        "mels": sizes["num_mel_bins"],
        "frames": sizes["max_length"],
        "fill": -mean / (2 * deviation) if preprocessor.get("do_normalize", True) else 0.0,
        "norm_eps": eps,
        "head_eps": eps,
    }


def number(settings: Mapping[str, Any], name: str, default: int | float, *, whole: bool = False) -> Any:
    """A number of settings that were read from a file.

    Raises: WeightsRefused for anything else; for a whole number also below 1.
    """
    value = settings.get(name, default)
    expected = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, expected) or whole and value < 1:
        raise WeightsRefused(f"{name} is {value!r}; expected a {'whole ' if whole else ''}number")
    return value


def sizes_by_table(positions: int) -> dict[str, Any]:
    """Stride and frames of a published network with as many positions, at 128 bins.

    Raises: WeightsRefused if there is none.
    """
    for frames in FRAMES:
        for stride in STRIDES:
            if positions == 2 + patches_along(128, stride) * patches_along(frames, stride):
                return {"stride": stride, "mels": 128, "frames": frames}
    raise WeightsRefused(f"a table of {positions} positions is of no published AST; put its config.json beside it")
