"""The forms that a network can be run in, what each is given to do, and what it took."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ossicle.errors import SettingRefused

Engine = Literal["eager", "compiled", "ONNX", "ONNX int8"]
# Merging keeps of every token something, and comes first among forms of one share.
Method = Literal["merge", "strided"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One form of a network."""

    name: str
    engine: Engine = "eager"
    precision: Literal["float32", "bfloat16"] = "float32"
    keep: float = 1.0  # share of the patch tokens
    keep_by: Method = "merge"

    @property
    def is_file(self) -> bool:
        """Whether it runs from an exported file, without torch."""
        return self.engine in ("ONNX", "ONNX int8")


def variants(*, keep: Sequence[float] = (), files: bool = True) -> list[Variant]:
    """The forms that are measured, the most exact first.

    Args:
        keep: shares of the patch tokens with which to measure besides, by each method
        files: with the forms that run from an exported file

    Raises: SettingRefused for a share that is none.
    """
    if wrong := [share for share in keep if not 0 < share < 1]:
        raise SettingRefused(f"keep={wrong[0]:g}: a share above 0 and below 1 is allowed.")
    forms = [
        Variant(name="float32"),
        Variant(name="float32, compiled", engine="compiled"),
        Variant(name="float32, ONNX", engine="ONNX"),
        Variant(name="bfloat16", precision="bfloat16"),
        Variant(name="int8, ONNX", engine="ONNX int8"),
        *(
            Variant(name=f"{method}, keep {share:g}", keep=share, keep_by=method)
            for share in sorted(set(keep), reverse=True)
            for method in get_args(Method)
        ),
    ]
    return [form for form in forms if files or not form.is_file]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every form is given to do."""

    model: str  # bundle, run, Hub id or registry name
    seconds: float = 10.0  # length of a clip
    batch: int = 1  # clips in a pass
    threads: int | None = None  # by default as many as torch takes
    device: str = "auto"
    encoder: str | None = None  # where the frozen one of a tuned head is, if not where it was


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one form took: or in a sentence why it does not run here."""

    variant: Variant
    clip_seconds: float | None = None  # median over the rounds
    peak_bytes: int | None = None  # the most memory that its process held
    problem: str = ""


def fitting(costs: Sequence[Cost], *, budget_seconds: float) -> Cost | None:
    """The first, which is the most exact, that takes no longer for a clip; None where there is none."""
    return next((cost for cost in costs if cost.clip_seconds is not None and cost.clip_seconds <= budget_seconds), None)
