"""`ossicle doctor`: print versions, devices and the status of the extras."""

import importlib
import sys
from collections.abc import Sequence

from ossicle.errors import first_line

# As in pyproject.toml: purpose of each, and the modules to import, each from a distribution of that name.
EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "media": ("M4A, WebM, WMA and audio of videos", ("av",)),
    "hf": ("encoders of speech, text and images", ("transformers",)),
    "peft": ("LoRA, IA3 and VeRA inside an encoder", ("peft",)),
    "export": ("ONNX files of trained models", ("onnx", "onnxscript", "onnxruntime")),
    "mic": ("live audio from a microphone", ("sounddevice",)),
    "cluster": ("prediction and sweeps on a Ray cluster", ("ray.data",)),
    "track": ("TensorBoard logs of trainings", ("tensorboard",)),
}

CORE = (
    "torch",
    "numpy",
    "soundfile",
    "soxr",
    "safetensors",
    "huggingface_hub",
    "lightning",
    "matplotlib",
    "pillow",
    "jaxtyping",
    "pyyaml",
    "typer",
    "rich",
)


def doctor() -> None:
    """Print versions, devices, and whether each optional extra works."""
    import platform

    from ossicle import __version__

    print(f"ossicle {__version__}, Python {platform.python_version()} ({sys.executable}), {platform.platform()}")
    print("\nCore")
    for package in CORE:
        print(f"  {package:16} {installed_version(package) or 'missing: pip install ossicle'}")
    print("\nDevice")
    for line in device_lines():
        print(f"  {line}")
    print("\nPublished weights")
    print(f"  {weights_line()}")
    print("\nExtras (pip install 'ossicle[NAME]')")
    for name, (gives, modules) in EXTRAS.items():
        print(f"  {name:8} {gives:42} {extra_state(modules)}")


def weights_line() -> str:
    """How many published weights are kept, how large they are, and where."""
    from ossicle.catalog import list_checkpoints, megabytes, store

    kept = store.kept()
    size = sum(store.kept_bytes(row) for row in list_checkpoints())
    return f"{len(kept)} kept, {megabytes(size)}, in {store.store_folder()}"


def installed_version(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def extra_state(modules: Sequence[str]) -> str:
    """Tells whether an extra is absent, broken or works, by importing its modules.

    A package that is installed and raises anything at all on import (a missing shared library is an OSError) is broken.
    """
    versions = {module.partition(".")[0]: installed_version(module.partition(".")[0]) for module in modules}
    present = [f"{package} {version}" for package, version in versions.items() if version]
    absent = [package for package, version in versions.items() if not version]
    if not present:
        return "not installed"
    if absent:
        return f"incomplete: {', '.join(present)}, missing {', '.join(absent)}"
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            return f"broken: {', '.join(present)}: {first_line(error)}"
    return f"works: {', '.join(present)}"


def device_lines() -> list[str]:
    """Devices of torch, and whether bfloat16 is faster."""
    try:
        import torch
    except Exception as error:
        return [f"torch does not import: {error}"]
    from ossicle.devices import bfloat16_speedup, choose_device
    from ossicle.kernels import measured_kernels
    from ossicle.kernels.measure import processor

    lines = [f"CPU: {processor()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"]
    lines.append(f"kernels: {measured_kernels()}")
    if torch.cuda.is_available():
        lines += [f"cuda:{index}: {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        lines.append("mps: Apple GPU")
    name = choose_device().type
    ratio = bfloat16_speedup(name)
    if ratio == 0:
        lines.append(f"bfloat16 on {name}: does not work")
    else:
        verdict = "is faster" if ratio > 1.2 else "is not faster"
        lines.append(f"bfloat16 on {name}: {verdict}, matrix products take {1 / ratio:.2f} times as long as in float32")
    lines.append(f"chosen by device=auto: {name}")
    return lines
