"""Parse and type-check settings given as text."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from ossicle.errors import SettingRefused


def checked_options(
    maker: Callable[..., Any], options: Mapping[str, Any], *, what: str, fixed: Collection[str]
) -> dict[str, Any]:
    """Options by name for a function that takes them as keywords, each of the type of its annotation.

    Args:
        what: what has the options, for the sentence.
        fixed: the function's other arguments, which are no options.

    Raises: SettingRefused for a name that it does not take, and a value of the wrong type.
    """
    allowed = {name: hint for name, hint in get_type_hints(maker).items() if name not in {*fixed, "return"}}
    if unknown := sorted(options.keys() - allowed.keys()):
        has = f"it has {', '.join(allowed)}" if allowed else "it has none"
        raise SettingRefused(f"{what} has no option {unknown[0]!r}; {has}.")
    return {name: typed(name, value, allowed[name]) for name, value in options.items()}


def typed(name: str, value: Any, hint: Any) -> Any:
    """The value as the hint wants it; text is read as YAML, so `1e-4`, `null` and `[a, b]` work, and `a` for `[a]`.

    Where text is wanted it stays what it is, apart from `null`.

    Raises: SettingRefused for another type, or a word that is none of a Literal's.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType, Literal) else (hint,)
    if str not in kinds or value == "null":
        value = from_yaml(name, value)
    if get_origin(hint) is dict:
        if isinstance(value, dict):
            return value
        raise SettingRefused(f"{name}={value!r} is no mapping of names to values.")
    if any(get_origin(kind) is Sequence for kind in kinds) and value is not None:
        if isinstance(value, str | list | tuple):
            return [value] if isinstance(value, str) else [str(one) for one in value]
        raise SettingRefused(f"{name}={value!r} is no list of names.")
    choices = [c for kind in kinds for c in (get_args(kind) or ([kind] if isinstance(kind, str) else []))]
    if choices:
        if value in choices or (value is None and type(None) in kinds):
            return value
        raise SettingRefused(f"{name}={value!r} is not one of {', '.join(map(str, choices))}.")
    if value is None and type(None) in kinds:
        return None
    if bool in kinds:
        if isinstance(value, bool):
            return value
    elif isinstance(value, bool):
        pass
    elif float in kinds:
        number = value if int in kinds and isinstance(value, int) else _number(value)
        if number is not None:
            return number
    elif int in kinds:
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            return int(value)
    elif str in kinds and value is not None:
        return str(value)
    wanted = " or ".join("nothing (null)" if kind is type(None) else kind.__name__ for kind in kinds)
    raise SettingRefused(f"{name}={value!r} is not {wanted}.")


def from_yaml(name: str, value: Any) -> Any:
    """What a text says as YAML; what is no text as it is. Numbers count by tens, unlike YAML's 010 and 1:30.

    Raises: SettingRefused for a text that is not YAML.
    """
    if not isinstance(value, str) or not value:
        return value
    if re.fullmatch(r"[-+]?0\d+", value):
        return int(value)
    if re.fullmatch(r"[-+]?\d+(:\d+)+(\.\d*)?", value):
        return value
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingRefused(f"{name}={value} cannot be read: {getattr(error, 'problem', None) or error}.") from None


def _number(value: Any) -> float | None:
    """A float of a YAML scalar; YAML 1.1 takes `1e-4` for text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
