"""Variants of running a network, the workload, and the measured cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ossicle.errors import SettingRefused

Engine = Literal["eager", "compiled", "ONNX", "ONNX int8"]
# Merging is more exact than pruning, so it comes first among variants of one fraction.
Method = Literal["merge", "strided"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run a network."""

    name: str
    engine: Engine = "eager"
    precision: Literal["float32", "bfloat16"] = "float32"
    keep: float = 1.0  # fraction of the patch tokens
    keep_by: Method = "merge"

    @property
    def is_file(self) -> bool:
        """Whether it runs from an exported file, without torch."""
        return self.engine in ("ONNX", "ONNX int8")


def variants(*, keep: Sequence[float] = (), files: bool = True) -> list[Variant]:
    """The variants to measure, the most exact first.

    Args:
        keep: fractions of the patch tokens to measure as well, with each method
        files: include variants that run from an exported file

    Raises: SettingRefused for an invalid fraction.
    """
    if wrong := [fraction for fraction in keep if not 0 < fraction < 1]:
        raise SettingRefused(f"keep={wrong[0]:g}: expected a fraction above 0 and below 1.")
    forms = [
        Variant(name="float32"),
        Variant(name="float32, compiled", engine="compiled"),
        Variant(name="float32, ONNX", engine="ONNX"),
        Variant(name="bfloat16", precision="bfloat16"),
        Variant(name="int8, ONNX", engine="ONNX int8"),
        *(
            Variant(name=f"{method}, keep {fraction:g}", keep=fraction, keep_by=method)
            for fraction in sorted(set(keep), reverse=True)
            for method in get_args(Method)
        ),
    ]
    return [form for form in forms if files or not form.is_file]


@dataclass(frozen=True, kw_only=True)
class Work:
    """The workload of every variant."""

    model: str  # bundle, run, Hub id or registry name
    seconds: float = 10.0  # length of a clip
    batch: int = 1  # clips in a pass
    threads: int | None = None  # by default torch's number
    device: str = "auto"
    encoder: str | None = None  # path of the frozen encoder of a tuned head, if it has moved


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one variant, or a sentence why it is not available."""

    variant: Variant
    clip_seconds: float | None = None  # median over the rounds
    peak_bytes: int | None = None  # peak memory of its process
    problem: str = ""


def fitting(costs: Sequence[Cost], *, budget_seconds: float) -> Cost | None:
    """The first, most exact variant within the budget per clip, or None."""
    return next((cost for cost in costs if cost.clip_seconds is not None and cost.clip_seconds <= budget_seconds), None)
