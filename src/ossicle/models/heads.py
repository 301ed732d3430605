"""Specification of a network's head."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

HeadKind = Literal["one class", "several classes", "numbers", "several heads"]


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """Outputs of a head: exclusive classes, independent classes, numbers, or several named heads.

    Networks currently have heads for classes; `Network.check_head` refuses the others.
    """

    kind: HeadKind
    outputs: int = 1  # classes or numbers
    heads: Mapping[str, "HeadSpec"] = field(default_factory=dict)  # by name, where there are several

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise ValueError(f"expected at least 1 output, got {self.outputs}")
        if (self.kind == "several heads") != bool(self.heads):
            raise ValueError(f"expected heads by name for several heads and for nothing else, got {self.kind}")
