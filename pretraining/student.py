"""The student while it trains: a PaSST with a convolutional stem, batch norms in it, and a layer for each teacher.

What ships is the PaSST alone, its batch norms folded into the convolutions (`folded`).
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ossicle.models import create_model
from ossicle.models.passt import Passt
from ossicle.models.patches import ConvStem, patches_along
from ossicle.models.tokens import select_patches
from pretraining.teacher import Heard

MODEL = "passt_tiny_conv"
RIDGE = 1e-3  # of the mean square, where layers are fitted
SPEECH = 768  # values that a speech encoder answers for a column


@contextlib.contextmanager
def watched(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Gives the input and the output of each layer in the passes made inside the block, the last by name."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda layer, given, output: seen.update({name: (given[0], output)})

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


class NormedStem(ConvStem):
    """The stem with a batch norm behind every convolution, which then needs no bias."""

    def __init__(self, dim: int, channels: tuple[int, ...]) -> None:
        super().__init__(dim, channels)
        for convolutions in (self.halve, self.refine):
            for place, conv in enumerate(convolutions):
                assert isinstance(conv, nn.Conv2d)
                conv.bias = None
                convolutions[place] = nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def pairs(self) -> list[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
        """The name that a `ConvStem` has for each convolution, the convolution, and its batch norm."""
        found = []
        for kind, pairs in (("halve", self.halve), ("refine", self.refine)):
            for number, pair in enumerate(pairs):
                conv, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], tuple(pair.children()))
                found.append((f"{kind}.{number}", conv, norm))
        return found

    def folded(self) -> dict[str, Tensor]:
        """The tensors of a `ConvStem` that computes the same in evaluation."""
        tensors = {f"proj.{name}": tensor for name, tensor in self.proj.state_dict().items()}
        for name, conv, norm in self.pairs():
            assert norm.running_mean is not None and norm.running_var is not None
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            tensors[f"{name}.weight"] = conv.weight * scale[:, None, None, None]
            tensors[f"{name}.bias"] = norm.bias - norm.running_mean * scale
        return tensors

    @torch.no_grad()
    def unfold(self, stem: ConvStem, mel: Float[Tensor, "clip mel frame"]) -> None:
        """Takes over a stem without batch norms. Their statistics are those of some clips, so that it computes nearly
        the same in training too."""
        self.proj.load_state_dict(stem.proj.state_dict())
        with watched({name: stem.get_submodule(name) for name, _, _ in self.pairs()}) as seen:
            stem(mel)
        for name, conv, norm in self.pairs():
            plain = stem.get_submodule(name)
            assert isinstance(plain, nn.Conv2d) and plain.bias is not None
            assert norm.running_mean is not None and norm.running_var is not None
            variance, mean = torch.var_mean(seen[name][1], dim=(0, 2, 3))
            conv.weight.copy_(plain.weight)
            norm.running_mean.copy_(mean - plain.bias)
            norm.running_var.copy_(variance)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.copy_(mean)


class Answer(NamedTuple):
    """What the student says of a batch; a patch here is one that patchout keeps, the hint is of all."""

    logits: Float[Tensor, "clip label"]
    embedding: Float[Tensor, "clip value"]
    map: Float[Tensor, "clip patch value"]
    hint: Float[Tensor, "clip patch channel"]
    speech: Float[Tensor, "clip column value"]
    rows: Int[Tensor, "row"]  # of the grid, kept
    columns: Int[Tensor, "column"]


class Student(nn.Module):
    """The network and its layers to the teachers' answers.

    Args:
        logits: mean and deviation of the teacher's, by label: the head learns what differs from them
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, logits: tuple[Tensor, Tensor], *, patchout: tuple[int, int] = (5, 3)) -> None:
        super().__init__()
        network = create_model(MODEL, num_classes=len(logits[0]), patchout_t=patchout[0], patchout_f=patchout[1])
        assert isinstance(network, Passt)
        self.network, dim = network, network.config.dim
        network.patch_embed = NormedStem(dim, network.config.stem)
        self.register_buffer("mean", logits[0])
        self.register_buffer("deviation", logits[1])
        self.norm = nn.LayerNorm(dim)
        self.to_embedding = nn.Linear(2 * dim, 384)
        self.to_map = nn.Linear(dim, 384)
        self.to_hint = nn.Linear(dim, 48)
        self.to_speech = nn.Linear(dim, SPEECH)

    def forward(self, mel: Float[Tensor, "clip mel frame"], *, generator: torch.Generator | None = None) -> Answer:
        network = self.network
        grid = (network.config.rows, patches_along(mel.shape[-1], network.config.stride))
        patches = torch.arange(grid[0] * grid[1])
        if self.training:
            drawn = select_patches(grid, network.config.patchout, generator=generator)
            patches = patches if drawn is None else drawn
        positions = network.positions(grid[1], generator=generator)
        embedded = network.patch_embed(mel)
        two = torch.cat([network.cls_token, network.dist_token], 1) + network.class_positions()
        x = torch.cat([two.expand(len(mel), -1, -1), embedded[:, patches] + positions(patches)], dim=1)
        for block in network.blocks:
            x = block(x)
        features, tokens = network.norm(x[:, :2]).mean(1), self.norm(x[:, 2:])
        rows, columns = (patches // grid[1]).unique(), (patches % grid[1]).unique()
        by_row = tokens.unflatten(1, (len(rows), len(columns)))
        return Answer(
            logits=network.head(features) * self.deviation + self.mean,
            embedding=self.to_embedding(torch.cat([features, tokens.mean(1)], dim=-1)),
            map=self.to_map(tokens),
            hint=self.to_hint(embedded),
            speech=self.to_speech(by_row.mean(1)),
            rows=rows,
            columns=columns,
        )

    @torch.no_grad()
    def start_from(self, shipped: Passt, mel: Float[Tensor, "clip mel frame"]) -> None:
        """Takes over what `shipped` gave away; the layers to the teachers' other answers stay as they are.

        Args:
            mel: clips that the batch norms of the stem take their first statistics from
        """
        stem = self.network.patch_embed
        assert isinstance(stem, NormedStem) and isinstance(shipped.patch_embed, ConvStem)
        stem.unfold(shipped.patch_embed, mel)
        tensors = {name: tensor for name, tensor in shipped.state_dict().items() if not name.startswith("patch_embed.")}
        tensors["head.1.weight"] = tensors["head.1.weight"] / self.deviation[:, None]
        tensors["head.1.bias"] = (tensors["head.1.bias"] - self.mean) / self.deviation
        self.network.load_state_dict(tensors, strict=False)

    def shipped(self) -> Passt:
        """The network alone: norms folded into the stem, the teacher's mean and deviation into the head."""
        network = self.network
        stem = network.patch_embed
        assert isinstance(stem, NormedStem)
        made = create_model(MODEL, num_classes=len(self.mean))
        assert isinstance(made, Passt)
        tensors = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("patch_embed.")}
        tensors |= {f"patch_embed.{name}": tensor for name, tensor in stem.folded().items()}
        tensors["head.1.weight"] = tensors["head.1.weight"] * self.deviation[:, None]
        tensors["head.1.bias"] = tensors["head.1.bias"] * self.deviation + self.mean
        made.load_state_dict({name: tensor.detach().clone() for name, tensor in tensors.items()})
        return made.eval()


Scales = dict[str, tuple[Tensor, Tensor]]  # mean and deviation of each of the teachers' outputs over the corpus


def targets(answer: Answer, heard: Heard, scale: Scales, speech: Tensor) -> dict[str, Tensor]:
    """What each output of the student is to be. All are standardized: their common mean would drown what tells clips
    apart."""

    def standard(values: Tensor, name: str) -> Tensor:
        mean, deviation = scale[name]
        return (values - mean) / deviation

    taught = heard.map.permute(0, 2, 3, 1)[:, answer.rows // 2][:, :, answer.columns // 2].flatten(1, 2)
    return {
        "logits": standard(heard.logits, "logits"),
        "embedding": standard(heard.embedding, "embedding"),
        "map": standard(taught, "map").clamp(-5, 5),
        "hint": standard(heard.hint.flatten(2).mT, "hint").clamp(-5, 5),
        "speech": standard(speech[:, answer.columns], "speech"),
    }


def losses(answer: Answer, heard: Heard, scale: Scales, speech: Tensor, spoken: Tensor) -> dict[str, Tensor]:
    """What is wrong with an answer, a number for each teacher's output; their weighted sum is minimized.

    Args:
        speech, spoken: (clip, column, value) of a speech encoder, and the columns for which it answers
    """
    wanted = targets(answer, heard, scale, speech)
    mean, deviation = scale["logits"]
    logits = answer.logits.float()
    found = {
        "labels": F.binary_cross_entropy_with_logits(logits, heard.logits.sigmoid(), reduction="none").sum(1).mean()
        / 10,
        "logits": F.mse_loss((logits - mean) / deviation, wanted["logits"]),
        "embedding": 1 - F.cosine_similarity(answer.embedding.float(), wanted["embedding"]).mean(),
        "map": F.smooth_l1_loss(answer.map.float(), wanted["map"]),
        "hint": F.smooth_l1_loss(answer.hint.float(), wanted["hint"]) / 2,
    }
    kept = spoken[:, answer.columns]
    if kept.any():
        found["speech"] = F.mse_loss(answer.speech.float()[kept], wanted["speech"][kept])
    return found


Batch = tuple[Float[Tensor, "clip mel frame"], Heard, Tensor, Tensor]  # log-mel, answers, speech, where it is spoken


@torch.no_grad()
def fit(student: Student, batches: Iterable[Batch], scale: Scales) -> None:
    """Sets the layers to the teachers' answers, the head aside, by least squares over some batches."""
    layers = {name: student.get_submodule(f"to_{name}") for name in ("embedding", "map", "hint", "speech")}
    sums: dict[str, list[Tensor]] = {}
    for mel, heard, speech, spoken in batches:
        with watched(layers) as seen:
            answer = student(mel)
        wanted = targets(answer, heard, scale, speech)
        for name in layers:
            x, y = seen[name][0], wanted[name]
            x, y = (
                values[spoken[:, answer.columns]] if name == "speech" else values.flatten(0, -2) for values in (x, y)
            )
            x = F.pad(x, (0, 1), value=1.0).double()
            now = [x.mT @ x, x.mT @ y.double()]
            before = sums.get(name, [torch.zeros_like(one) for one in now])
            sums[name] = [old + new for old, new in zip(before, now, strict=True)]
    for name, (squares, products) in sums.items():
        layer = layers[name]
        assert isinstance(layer, nn.Linear)
        ridge = RIDGE * squares.diagonal().mean() * torch.eye(len(squares))
        solved = torch.linalg.solve(squares + ridge, products)
        layer.weight.copy_(solved[:-1].mT)
        layer.bias.copy_(solved[-1])
