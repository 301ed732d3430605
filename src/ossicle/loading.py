"""Resolve a model reference (bundle, run folder, published weights or Hub id) and load it."""

import os
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, Literal

import torch

from ossicle.allocator import keep_freed_memory
from ossicle.bundle import find_bundle, find_weights, load_bundle, read_bundle_config
from ossicle.catalog import default_checkpoint, find_checkpoint
from ossicle.devices import Precision
from ossicle.ensemble import open_ensemble
from ossicle.errors import SettingRefused
from ossicle.models import HeadSpec, network_class, registry
from ossicle.models.base import Network
from ossicle.models.tokens import TokenReduction
from ossicle.recognizer import Recognizer
from ossicle.tuning.tuned import TunedRecognizer, load_tuned
from ossicle.weights.tensors import load_into, load_weights


def load(
    model: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: Precision = "float32",
    kernels: str = "auto",
    revision: str | None = None,
    local_files_only: bool = False,
    encoder: str | Path | None = None,
    reduction: TokenReduction | None = None,
) -> Recognizer:
    """Loads a trained model: a bundle folder, a run folder, published weights by name, or "user/name" of the Hub.

    Args:
        device: auto, cpu, cuda, mps, ...
        precision: float32 gives the same numbers everywhere, to rounding; bfloat16 is faster on some machines; auto
            measures which is
        kernels: which routines compute on a processor, see docs/speed.md: auto (measured), plain, torch, onednn, or a
            choice that a run or job has kept
        revision: branch, tag or commit of a Hub id; "user/name@revision" says the same
        local_files_only: never ask the network for published weights or a Hub id
        encoder: where the frozen encoder of a tuned head is now, if not where it was; another encoder is refused
        reduction: compute only a fraction of the tokens, see docs/speed.md

    Raises:
        BundleRefused: nothing of that name, a damaged configuration, or another encoder than the head was tuned on
        WeightsRefused: damaged weights, published ones that cannot be had, or the bare name of an architecture, whose
            scores would be random
        SettingRefused: an encoder for a network of its own
        ValueError: fewer tokens of anything but a PaSST
    """
    folder = find_bundle(os.fspath(model), revision=revision, local_files_only=local_files_only)
    config = read_bundle_config(folder)
    if "members" in config:
        if encoder is not None:
            raise SettingRefused(f"encoder={encoder}: {model} is an ensemble; load its member with it, and save that.")
        how: dict[str, Any] = {"device": device, "precision": precision, "kernels": kernels, "reduction": reduction}
        return open_ensemble(folder, lambda member: load(member, local_files_only=local_files_only, **how))
    if "encoder" in config:
        if reduction is not None:
            raise ValueError(f"{model} is a head on a frozen encoder, whose tokens are all computed")
        tuned = load_tuned(folder, encoder=encoder, local_files_only=local_files_only)
        recognizer: Recognizer = TunedRecognizer(tuned, device=device, precision=precision, kernels=kernels)
        recognizer.folder = folder
        return recognizer
    if encoder is not None:
        raise SettingRefused(f"encoder={encoder}: {model} is a network of its own, which takes none.")
    bundle = load_bundle(folder)
    recognizer = Recognizer(bundle, device=device, precision=precision, kernels=kernels, reduction=reduction)
    recognizer.folder = folder
    return recognizer


def load_among(
    model: str | Path,
    number: int,
    *,
    keep: float | None = None,
    keep_by: Literal["merge", "strided"] = "merge",
    **options: Any,
) -> Recognizer:
    """Loads a model in one of a number of processes, which share this machine's processors; see `load`.

    Args:
        keep: fraction of the tokens of a PaSST to compute
        keep_by: what happens to the other tokens
    """
    reduction = None if keep is None else TokenReduction(keep=keep, method=keep_by)
    if number == 1:
        return load(model, reduction=reduction, **options)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // number))  # for which kernels are chosen
    recognizer = load(model, reduction=reduction, **options)
    if parent_process() is None:  # which only starts the others, and is a user's own program
        torch.set_num_threads(threads)
    else:
        keep_freed_memory()
    return recognizer


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    pretrained: bool | None = None,
    head: HeadSpec | None = None,
    local_files_only: bool = False,
    **options: Any,
) -> Network:
    """Builds a network: of an architecture with random weights, or of published weights with these.

    Args:
        name: an architecture (`list_models()`), or published weights (`passt_base_s10.audioset_ap476`)
        num_classes: labels; by default those of the weights or the architecture. Another number brings a new head.
        pretrained: True loads the weights that the catalogue has for an architecture by default
        head: in place of `num_classes`
        local_files_only: never ask the network for weights
        options: fields of the network's configuration, as of `PasstConfig`

    Raises:
        ModelUnknown: unknown name
        WeightsRefused: published weights that cannot be had, or do not fit these options
        ValueError: an unknown option, a value outside its range, or weights where there are none and the reverse
    """
    row = find_checkpoint(name)
    if row is None and pretrained:
        registry.find_preset(name)
        row = default_checkpoint(name)
        if row is None:
            raise ValueError(f"{name} is an architecture without published weights; leave out pretrained=True")
    if row is None:
        return registry.create_model(name, num_classes=num_classes, head=head, **options)
    if pretrained is False:
        raise ValueError(
            f"{name} is the name of weights, which are loaded; random ones are those of {row.architecture}"
        )
    path = find_weights(row.name, local_files_only=local_files_only)
    tensors, architecture = load_weights(path), row.architecture
    if not row.is_start:
        config = read_bundle_config(path.parent)
        architecture = config["model"]["name"]
        num_classes = len(config["labels"]) if num_classes is None else num_classes
    options = network_class(architecture).options_of(tensors) | options
    model = registry.create_model(architecture, num_classes=num_classes, head=head, **options)
    load_into(model, model.adapted(tensors, source=path), source=path)
    return model
