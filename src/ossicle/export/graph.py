"""A model as one graph from samples to scores, logits and features, for windows of any length of one pass.

Shapes are symbolic during export, so no code here may depend on the length of a window; the networks use other
operations if `torch.compiler.is_exporting()`.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ossicle.encoders import Hidden
from ossicle.encoders.hidden import bare
from ossicle.encoders.ours import BundleEncoder
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


def longest_window(model: Network, frontend: LogMel) -> int:
    """Longest window of one pass, in samples."""
    frames = model.export_frames(frontend.frames(round(MAX_WINDOW_SECONDS * frontend.rate)))
    return frontend.samples(frames + 1) - 1


def make_graph(recognizer: Recognizer) -> Graph:
    """The graph of a model.

    Raises:
        ExportRefused: a frozen encoder of another library, or a window longer than one pass.
    """
    graph: Graph
    if not isinstance(recognizer, TunedRecognizer):
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
