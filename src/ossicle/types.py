"""Words of the house that every room uses: what a task is, and the names of shapes.

Shapes are jaxtyping's names where it is installed, and names that say nothing where it is not.
The part of the package that runs without torch also runs without jaxtyping: a small device has neither. Modules of that
part take the names from here, all others from jaxtyping.
"""

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Float64, Int, Int64, Shaped
else:
    try:
        from jaxtyping import Float, Float32, Float64, Int, Int64, Shaped
    except ImportError:

        class _Array:
            """`Float[np.ndarray, "clip label"]` is the array type alone."""

            def __class_getitem__(cls, item: tuple[type, str]) -> Any:
                return item[0]

        Float = Float32 = Float64 = Int = Int64 = Shaped = _Array

Task = Literal["single-label", "multi-label"]

__all__ = ["Float", "Float32", "Float64", "Int", "Int64", "Shaped", "Task"]
