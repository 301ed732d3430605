"""A model as one graph from samples to scores, logits and features, for windows of any length of one pass.

Shapes are symbolic during export, so no code here may depend on the length of a window; the networks use other
operations if `torch.compiler.is_exporting()`.
"""

import dataclasses
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ossicle.encoders import Hidden
from ossicle.encoders.hidden import bare
from ossicle.encoders.ours import BundleEncoder
from ossicle.ensemble import Ensemble
from ossicle.errors import ExportRefused
from ossicle.export.frontend import MatrixLogMel
from ossicle.frontend import FrontendConfig, LogMel
from ossicle.inference import MAX_WINDOW_SECONDS
from ossicle.models.base import Network
from ossicle.recognizer import Recognizer
from ossicle.tuning.tuned import TunedRecognizer
from ossicle.types import Task


class Graph(nn.Module):
    """(clip, time) to the outputs named by `outputs`, in that order.

    Args:
        max_samples: longest window; `frontend.min_samples` is the shortest.
        frames: shorter features are padded with silence to this length.
    """

    outputs: tuple[str, ...] = ("scores", "logits", "features")

    def __init__(
        self, frontend: LogMel, *, max_samples: int, frames: int | None, task: Task, temperature: float
    ) -> None:
        super().__init__()
        self.frontend = MatrixLogMel(frontend, frames=frames)
        self.min_samples, self.max_samples = frontend.min_samples, max_samples
        self.task, self.temperature = task, temperature

    @property
    def frontend_config(self) -> FrontendConfig:
        """Configuration of the front end in the graph."""
        return self.frontend.config

    def compute(self, wave: Float[Tensor, "clip time"]) -> tuple[Tensor, ...]:
        """All outputs except the scores, the logits first."""
        raise NotImplementedError

    def forward(self, waveform: Float[Tensor, "clip time"]) -> tuple[Tensor, ...]:
        logits, *others = self.compute(waveform)
        scaled = logits / self.temperature
        scores = scaled.softmax(-1) if self.task == "single-label" else scaled.sigmoid()
        return scores, logits, *others


class NetworkGraph(Graph):
    """An ossicle network with its front end."""

    def __init__(self, recognizer: Recognizer) -> None:
        bundle, frontend, model = recognizer.bundle, recognizer.frontend, recognizer.model
        window = recognizer.window_samples()[0]
        super().__init__(
            frontend,
            max_samples=longest_window(model, frontend),
            frames=frontend.frames(window) if bundle.pad else None,
            task=bundle.task,
            temperature=bundle.temperature,
        )
        self.model = model
        self.hops = recognizer.hop_feature_seconds is not None
        if self.hops:
            self.outputs = (*self.outputs, "hop_logits")

    def compute(self, wave: Float[Tensor, "clip time"]) -> tuple[Tensor, ...]:
        out = self.model.forward_features(self.frontend(wave))
        hops = (self.model.head(out.hop_features),) if self.hops else ()
        return out.logits, out.features, *hops


class TunedGraph(Graph):
    """A head on an ossicle network with its front end."""

    def __init__(self, recognizer: TunedRecognizer) -> None:
        encoder = cast(BundleEncoder, recognizer.encoder)
        super().__init__(
            encoder.frontend,
            max_samples=min(encoder.max_samples, longest_window(bare(encoder.network), encoder.frontend)),
            frames=encoder.settings["padded_frames"],
            task=recognizer.task,
            temperature=recognizer.bundle.temperature,
        )
        self.network = encoder.network  # the tuner's tensors are in it
        self.head = recognizer.bundle.model
        self._encoder = (encoder,)  # in a tuple: its network is here already

    def compute(self, wave: Float[Tensor, "clip time"]) -> tuple[Tensor, ...]:
        encoder, head = self._encoder[0], self.head
        states = encoder.states(self.frontend(wave), max(head.layers))
        if self.frontend.padded_frames is not None:
            states = states[:, :, : encoder.places(wave.shape[1])]
        mask = torch.ones(states.shape[0], states.shape[2], dtype=torch.bool, device=states.device)
        hidden = head.pooled(Hidden(features=states, mask=mask))
        return head.score(hidden), hidden.mean().mean(1)


class EnsembleGraph(Graph):
    """The graphs of an ensemble's members, which compute a window in one pass each."""

    def __init__(self, ensemble: Ensemble) -> None:
        nn.Module.__init__(self)
        self.members = nn.ModuleList(make_graph(member) for member in ensemble.members)
        self.temperatures = tuple(member.bundle.temperature for member in ensemble.members)
        # Beyond its window a member would cut the sound.
        longest = min(member.window_samples()[0] for member in ensemble.members)
        self.min_samples = ensemble.min_samples
        self.max_samples = min(longest, *(graph.max_samples for graph in self.graphs))
        self.task, self.temperature = ensemble.task, ensemble.bundle.temperature
        self._hertz = ensemble.hertz

    @property
    def graphs(self) -> list[Graph]:
        """Of the members."""
        return [cast(Graph, member) for member in self.members]

    @property
    def frontend_config(self) -> FrontendConfig:
        """That of the first member, over the frequencies of all."""
        low, high = self._hertz
        first = self.graphs[0].frontend_config
        return dataclasses.replace(first, min_hertz=low, max_hertz=high, min_hertz_jitter=1, max_hertz_jitter=1)

    def compute(self, wave: Float[Tensor, "clip time"]) -> tuple[Tensor, ...]:
        outputs = [graph.compute(wave) for graph in self.graphs]
        logits = [out[0] / temperature for out, temperature in zip(outputs, self.temperatures, strict=True)]
        return torch.stack(logits).mean(0), torch.cat([out[1] for out in outputs], 1)


def longest_window(model: Network, frontend: LogMel) -> int:
    """Longest window of one pass, in samples."""
    frames = model.export_frames(frontend.frames(round(MAX_WINDOW_SECONDS * frontend.rate)))
    return frontend.samples(frames + 1) - 1


def make_graph(recognizer: Recognizer) -> Graph:
    """The graph of a model.

    Raises:
        ExportRefused: a frozen encoder of another library, a window longer than one pass, or an ensemble of members of
            several rates.
    """
    graph: Graph
    if isinstance(recognizer, Ensemble):
        check_exportable(recognizer)
        graph = EnsembleGraph(recognizer)
    elif not isinstance(recognizer, TunedRecognizer):
        graph = NetworkGraph(recognizer)
    elif isinstance(recognizer.encoder, BundleEncoder):
        graph = TunedGraph(recognizer)
    else:
        raise ExportRefused(
            f"the frozen encoder {recognizer.encoder.name} cannot be exported; "
            "heads on ossicle's own networks can be exported."
        )
    if isinstance(recognizer, TunedRecognizer) and recognizer.encoder.precision != "float32":
        raise ExportRefused(
            f"the encoder {recognizer.encoder.name} is in {recognizer.encoder.precision}, and a graph is in float32; "
            "tune the head on the encoder in float32 to export it."
        )
    window, rate = recognizer.window_samples()[0], recognizer.rate
    if window > graph.max_samples:
        raise ExportRefused(
            f"the model's window of {window / rate:g} s exceeds the {graph.max_samples / rate:g} s of one pass of "
            "its network, which is the limit of an exported graph."
        )
    return graph.eval()


def check_exportable(ensemble: Ensemble) -> None:
    """Refuses an ensemble that is no single graph.

    Raises: ExportRefused for members of several rates, or a window that a member would cut.
    """
    rates = sorted({member.rate for member in ensemble.members})
    if len(rates) > 1:
        raise ExportRefused(
            f"the members of this ensemble take sound at {' and '.join(map(str, rates))} Hz, and a graph takes one "
            "rate; export each member by itself."
        )
    shortest = min(member.window_samples()[0] for member in ensemble.members)
    if (window := ensemble.window_samples()[0]) > shortest:
        raise ExportRefused(
            f"the window of this ensemble is {window / ensemble.rate:g} s and that of a member "
            f"{shortest / ensemble.rate:g} s, which is the limit of an exported graph; make it with "
            f"--window {shortest / ensemble.rate:g}."
        )
