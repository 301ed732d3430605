"""Choice of routines for matrix products and attention, by kind, direction and size, as one line of text.

No rule fits all processors. On AMD's Zen 5 oneDNN's float32 products take half of the time of MKL's, on Zen 4 the
two are alike, and on Intel's AVX-512 oneDNN is faster in some shapes and 1.7 times slower in others. So the choice is
measured by `measure`, stored in the settings of a run or job, and passed to its workers: the same choice gives the same
bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from ossicle.errors import SettingRefused

Direction = Literal["forward", "input", "weight"]  # y = x W^T, its gradient to x, its gradient to W
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

# The measured products: rows of x, features in, features out; others use the most similar one.
PRODUCTS = tuple(
    (rows, *pair)
    for small, large, numbers in (
        (48, 192, (256, 2048, 8192)),
        (192, 768, (64, 512, 2048)),
        (384, 1536, (64, 256, 1024)),
    )
    for pair in ((small, large), (large, small))
    for rows in numbers
)
# The measured attentions: tokens, and whether gradients are computed.
ATTENTIONS = ((256, False), (1024, False), (256, True), (1024, True))


@dataclass(frozen=True)
class Kernels:
    """The routine of each product in `PRODUCTS` and attention in `ATTENTIONS`, a letter each.

    Products are by oneDNN (o) or as torch does them (t), in float32 on a CPU. Attention is torch's fused kernel (f) or
    a few heads at a time (h).
    """

    forward: str
    input: str
    weight: str
    float32: str
    bfloat16: str
    by_hand: bool = True  # False: only torch's own expressions, whatever the letters

    def __post_init__(self) -> None:
        for name, value in self.letters():
            allowed, count = ("ot", len(PRODUCTS)) if name in DIRECTIONS else ("fh", len(ATTENTIONS))
            if len(value) != count or set(value) - set(allowed):
                raise SettingRefused(f"kernels: expected {count} of the letters {allowed} for {name}, got {value!r}.")

    def letters(self) -> list[tuple[str, str]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)[:-1]]

    def __str__(self) -> str:
        if not self.by_hand:
            return "plain"
        return " ".join(f"{name}={value}" for name, value in self.letters())

    def by_onednn(self, direction: Direction, *, rows: int, into: int, out: int) -> bool:
        """Whether to use oneDNN for the product of x (rows, into) and W (out, into), or for that gradient of it."""
        return getattr(self, direction)[product_cell(rows, into, out)] == "o"

    def in_tiles(self, dtype: Literal["float32", "bfloat16"], *, tokens: int, training: bool) -> bool:
        """Whether to compute attention over `tokens` a few heads at a time."""
        return getattr(self, dtype)[2 * training + (tokens > 512)] == "h"


def product_cell(rows: int, into: int, out: int) -> int:
    """The index in `PRODUCTS` of the most similar product, by width, direction and rows."""
    width = (into * out) ** 0.5
    size = (width > 192) + (width > 543)
    bounds = ((724, 4096), (181, 1024), (128, 512))[size]  # between the numbers of rows, on a scale of ratios
    return 6 * size + 3 * (into > out) + (rows > bounds[0]) + (rows > bounds[1])


def every(product: str, *, float32: str = "f", bfloat16: str = "h") -> Kernels:
    """The same routine for all sizes."""
    p, a = len(PRODUCTS), len(ATTENTIONS)
    return Kernels(product * p, product * p, product * p, float32 * a, bfloat16 * a)


TORCH, ONEDNN = every("t", bfloat16="f"), every("o")
PLAIN = replace(TORCH, by_hand=False)
NAMED = {"plain": PLAIN, "torch": TORCH, "onednn": ONEDNN}


def parse_kernels(text: str) -> Kernels:
    """Parses the `str` of a choice, or one of the names plain, torch and onednn.

    Raises: SettingRefused for anything else.
    """
    if text in NAMED:
        return NAMED[text]
    parts = dict(part.partition("=")[::2] for part in text.split())
    names = [name for name, _ in TORCH.letters()]
    if list(parts) != names:
        raise SettingRefused(f"kernels={text!r} is not one of auto, {', '.join(NAMED)}, nor a choice stored by a run.")
    return from_letters(parts)


def from_letters(letters: Mapping[str, str]) -> Kernels:
    """The choice with these letters by name."""
    return Kernels(*(letters[name] for name, _ in TORCH.letters()))  # type: ignore[arg-type]
