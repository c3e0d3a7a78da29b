"""Options as frozen dataclasses: methods are values that print, hash, travel and are read from TOML.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, slots=True, kw_only=True)
    ... class Blur(Options):
    ...     radius: Ratio = 1.0
    >>> Blur(radius=0.5).as_json()
    {'radius': 0.5}

Fields hold JSON scalars, tuples of them, or other options. `Ratio` is a float that people may write
as a fraction in a plan or on the command line: "8/255" is stored as the nearest float, so it equals
`8/255` in Python and shares its unit key.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["Norm", "Options", "Ratio", "parse_ratio", "require"]

Norm = Literal["l0", "l1", "l2", "linf"]


def parse_ratio(value: object) -> float:
    """A finite float from a number or from text such as "8/255" or "0.5".

        >>> parse_ratio("8/255") == 8 / 255
        True

    Raises:
        ConfigError: E102, for anything else.
    """
    if isinstance(value, str):
        try:
            number = float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError, OverflowError):
            number = math.nan
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    else:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(
            "E102",
            seen=f"{value!r} where a number is needed",
            expected='a finite number or a fraction such as "8/255"',
            fix="write the value as a number, or as a fraction in quotes",
        )
    return number


class _FractionText:
    """Lets pydantic read a float field from "8/255" as well; pydantic is met only when a plan is read."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(_as_ratio, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, object]:
        return {
            "anyOf": [
                {"type": "number"},
                {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?( ?/ ?[0-9]+)?$"},
            ]
        }


def _as_ratio(value: object) -> object:
    # Only text is ours to read: wrong types must reach pydantic's own strict check and its located message.
    return parse_ratio(value) if isinstance(value, str) else value


Ratio = Annotated[float, _FractionText()]


class Options:
    """Base of every option dataclass: strict when read from a plan, unknown keys refused."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    def as_json(self) -> dict[str, object]:
        """The fields as JSON data, in order of declaration; equal options give equal data."""
        fields = dataclasses.fields(cast("type", type(self)))
        return {field.name: _jsonable(getattr(self, field.name)) for field in fields}


def _jsonable(value: object) -> object:
    if isinstance(value, Options):
        return value.as_json()
    if isinstance(value, tuple):
        return [_jsonable(item) for item in cast("tuple[object, ...]", value)]
    return value


def require(holds: bool, *, seen: str, expected: str, fix: str, code: str = "E103") -> None:
    """Raise `ConfigError` unless `holds`; the one guard that option values use in `__post_init__`."""
    if not holds:
        raise ConfigError(code, seen=seen, expected=expected, fix=fix)
