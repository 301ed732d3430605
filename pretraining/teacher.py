"""The teacher: EfficientAT `mn04_as`, an AudioSet tagger of one million parameters, and its answers to a corpus.

    python -m pretraining.teacher CORPUS --weights shared/weights/mn04_audioset -o ANSWERS

Schmid, Koutini and Widmer, "Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge Distillation" (ICASSP
2023): a MobileNetV3 of width 0.4, distilled from an ensemble of PaSST. Its batch norms are folded into the
convolutions, its layers are data (`layers.json`), and its input is our `passt` log-mel. The weights (MIT) stay outside
the project, and so do its answers.

The answers are blocks of safetensors, `answers-00000.safetensors` and so on, of 1,024 rows of the manifest each in
their order: `logits` (clip, 527) and `embeddings` (clip, 384) as float16, before any sigmoid or standardization. A
block is written whole, and a run that was killed goes on with the first one that is missing. `statistics.safetensors`
holds mean and deviation of both over the training part: the embeddings' common mean would drown what tells clips apart.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import soundfile
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ossicle.files import write_atomically, write_json
from ossicle.frontend import frontend_config, log_mel
from pretraining.manifest import Row, read_rows

BLOCK = 1024  # rows of a file of answers
SHORTEST = 1.0  # seconds; a shorter clip is followed by silence, as the student hears it
FRONTEND = frontend_config("passt")
ACTIVATIONS = {"relu": F.relu, "hardswish": F.hardswish, "none": lambda x: x}


class Teacher(nn.Module):
    """The network: log-mel (clip, 1, mel, frame) of any length to logits and embeddings.

    Args:
        folder: holds `model.safetensors` and `layers.json`
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.layers: list[dict[str, Any]] = json.loads((folder / "layers.json").read_text())["layers"]
        self.tensors = load_file(folder / "model.safetensors")

    def forward(self, mel: Float[Tensor, "clip 1 mel frame"]) -> tuple[Float[Tensor, "clip label"], Tensor]:
        x, kept = mel, mel
        for layer in self.layers:
            if layer["op"] == "residual_begin":
                kept = x
            elif layer["op"] == "residual_end":
                x = x + kept
            elif layer["op"] == "squeeze_excite":
                x = x * self.excitation(x, layer["name"])
            else:
                x = self.convolution(x, layer)
        embedding = x.mean(dim=(2, 3))
        return self.linear(F.hardswish(self.linear(embedding, "head_1")), "head_2"), embedding

    def convolution(self, x: Tensor, layer: dict[str, Any]) -> Tensor:
        weight, bias = self.tensors[layer["name"] + ".weight"], self.tensors[layer["name"] + ".bias"]
        y = F.conv2d(x, weight, bias, stride=layer["stride"], padding=layer["padding"], groups=layer["groups"])
        return ACTIVATIONS[layer["activation"]](y)

    def excitation(self, x: Tensor, name: str) -> Tensor:
        squeezed = F.relu(self.linear(x.mean(dim=(2, 3)), name + ".fc1"))
        return self.linear(squeezed, name + ".fc2").sigmoid()[:, :, None, None]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.tensors[name + ".weight"], self.tensors[name + ".bias"])


def features(samples: Float[Tensor, "clip time"]) -> Float[Tensor, "clip 1 mel frame"]:
    """What the teacher reads of clips at 32 kHz."""
    missing = round(SHORTEST * FRONTEND.rate) - samples.shape[-1]
    return log_mel(F.pad(samples, (0, max(0, missing))), FRONTEND)[:, None]


# --- its answers to a corpus ------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Stores the teacher's logits and embeddings of every clip of a corpus."
    )
    parser.add_argument("corpus", type=Path, help="folder with manifest.jsonl")
    parser.add_argument("--weights", type=Path, required=True, help="folder with model.safetensors and layers.json")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the answers")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = read_rows(given.corpus / "manifest.jsonl")
    check_same_corpus(given.output, rows)
    teacher = Teacher(given.weights).eval()
    for start in range(0, len(rows), BLOCK):
        path = given.output / f"answers-{start // BLOCK:05d}.safetensors"
        if not path.exists():
            store_block(path, teacher, given.corpus, rows[start : start + BLOCK])
    write_statistics(given.output, rows)


def store_block(path: Path, teacher: Teacher, corpus: Path, rows: list[Row]) -> None:
    began = time.process_time()
    answers = answer(teacher, corpus, rows)
    write_atomically(path, lambda temporary: save_file(answers, temporary))
    speed = len(rows) / (time.process_time() - began)
    seconds = sum(row.seconds for row in rows) / len(rows)
    print(f"{path.name}: {speed:.1f} clips of {seconds:.1f} s in a second of processor time", flush=True)


def check_same_corpus(folder: Path, rows: list[Row]) -> None:
    """Stops where answers to another manifest lie in the folder."""
    path = folder / "corpus.json"
    files = hashlib.sha256("\n".join(row.file for row in rows).encode()).hexdigest()
    if path.exists() and json.loads(path.read_text())["files"] != files:
        raise SystemExit(f"{folder} holds answers to another corpus; choose another folder, or remove it")
    write_json(path, {"files": files, "clips": len(rows)})


@torch.no_grad()
def answer(teacher: Teacher, corpus: Path, rows: list[Row]) -> dict[str, Tensor]:
    """Logits and embeddings of clips, each run alone: its bits do not depend on its neighbors."""
    logits, embeddings = [], []
    for row in rows:
        samples, _ = soundfile.read(corpus / row.file, dtype="float32")
        scores, embedding = teacher(features(torch.from_numpy(samples)[None]))
        logits.append(scores.half())
        embeddings.append(embedding.half())
    return {"logits": torch.cat(logits), "embeddings": torch.cat(embeddings)}


def write_statistics(folder: Path, rows: list[Row]) -> None:
    """Mean and deviation of logits and embeddings over the training part."""
    answers = [load_file(path) for path in sorted(folder.glob("answers-*.safetensors"))]
    training = torch.tensor([row.part == "train" for row in rows])
    statistics = {}
    for name in ("logits", "embeddings"):
        values = torch.cat([block[name] for block in answers])[training].double()
        statistics[f"{name}.mean"] = values.mean(dim=0).float()
        statistics[f"{name}.deviation"] = values.std(dim=0).float()
    write_atomically(folder / "statistics.safetensors", lambda path: save_file(statistics, path))


if __name__ == "__main__":
    main()
