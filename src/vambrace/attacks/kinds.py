"""Whether each option of an attack is the kind of value that its field takes: one check, before any range is looked at.

Nothing else would say so: a radius a sample, `steps=1.5` or `eps=True` get as far as some line of arithmetic, and fail
there in words that name no option, or do not fail.
"""

from __future__ import annotations

import dataclasses
import sys
from numbers import Integral, Rational, Real
from typing import TYPE_CHECKING, cast

from vambrace.core.options import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from vambrace.core.options import Options

__all__ = ["require_kinds"]


def _is_whole(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and abs(int(value)) <= _MOST


def _is_number(value: object) -> bool:
    # A fraction is a Real that no tensor multiplies by.
    return _is_whole(value) or (isinstance(value, Real) and not isinstance(value, Rational))


_MOST = sys.float_info.max
"""Longer whole numbers are no numbers to a tensor, and none that arithmetic with floats takes."""

_KINDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "int": ("a whole number", _is_whole),
    "float": ("a number", _is_number),
    "Ratio": ("a number", _is_number),
    "bool": ("True or False", lambda value: isinstance(value, bool)),
    "None": ("nothing", lambda value: value is None),
}


def require_kinds(options: Options) -> None:
    """Raise `ConfigError` E130 unless every option is of a kind that its annotation names.

    Annotations are read as they are written, such as "int | None"; a field whose annotation names anything else than
    numbers, truth and nothing is left to its own check.
    """
    for field in dataclasses.fields(cast("type", type(options))):
        names = str(getattr(field.type, "__name__", field.type)).split(" | ")
        if not all(name in _KINDS for name in names):
            continue
        value: object = getattr(options, field.name)
        require(
            any(_KINDS[name][1](value) for name in names),
            seen=f"{field.name} {_shown(value)}",
            expected=" or ".join(_KINDS[name][0] for name in names),
            fix=_fix(field.name, value),
            code="E130",
        )


def _shown(value: object) -> str:
    if isinstance(value, Integral) and abs(int(value)) > _MOST:
        return f"of {int(value).bit_length()} bits"
    if isinstance(value, str | bool | Real) or value is None:
        return repr(value)
    return f"that is a {type(value).__name__}"


def _fix(name: str, value: object) -> str:
    if isinstance(value, str):
        return f"write {name} without quotes, such as {name}=8/255" if "/" in value else f"write {name} without quotes"
    if isinstance(value, Rational) and not isinstance(value, Integral):
        return f"give float({name})"
    if isinstance(value, Real) or value is None:
        return f"correct {name}"
    several = "; `curve` takes several radii" if name == "eps" else ""
    return f"give one {name} for all samples, as a plain number{several}"
