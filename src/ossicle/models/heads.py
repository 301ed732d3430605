"""What a task asks of a network's head."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

HeadKind = Literal["one class", "several classes", "numbers", "several heads"]


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """What comes out of a head: scores of classes that exclude each other or do not, numbers, or of each head its own.

    Today networks have heads for classes; `Network.check_head` refuses the others.
    """

    kind: HeadKind
    outputs: int = 1  # classes or numbers
    heads: Mapping[str, "HeadSpec"] = field(default_factory=dict)  # by name, where there are several

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise ValueError(f"a head has at least 1 output, not {self.outputs}")
        if (self.kind == "several heads") != bool(self.heads):
            raise ValueError(f"expected heads by name for several heads and for nothing else, got {self.kind}")
