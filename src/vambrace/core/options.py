"""Options as frozen dataclasses: methods are values that print, hash, travel and are read from TOML.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, slots=True, kw_only=True)
    ... class Blur(Options):
    ...     radius: Ratio = 1.0
    >>> Blur(radius=0.5).as_json()
    {'radius': 0.5}

Fields hold JSON scalars, tuples of them, or other options. `Ratio` is a float that people may write
as a fraction in a plan or on the command line: "8/255" is stored as the nearest float, so it equals
`8/255` in Python and shares its unit key. `Duration` is seconds that may be written "90s", "10m" or "1h30m".
`vambrace.core.spec` reads options strictly; types that stand in their annotations must be imported at run
time.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from numbers import Integral, Real
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["Duration", "Norm", "Options", "Ratio", "TextForm", "parse_duration", "parse_ratio", "require"]

Norm = Literal["l0", "l1", "l2", "linf"]

# Exponents have at most three digits: Fraction("1e999999999") would compute a number of a gigabyte.
_NUMBER = r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?"
_RATIO = re.compile(rf"^{_NUMBER}( ?/ ?[0-9]{{1,40}}(\.[0-9]{{1,40}})?)?$")
_DURATION = re.compile(r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,9}(\.[0-9]{1,6})?s)?$")


def parse_ratio(value: object) -> float:
    """A finite float from a number or from text such as "8/255" or "0.5".

        >>> parse_ratio("8/255") == 8 / 255
        True

    Raises:
        ConfigError: E102, for anything else.
    """
    if isinstance(value, str):
        number = _fraction(value.strip())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value) if abs(value) < 1e308 else math.nan
    else:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(
            "E102",
            seen=f"{_shown(value)} where a number is needed",
            expected='a finite number or a fraction such as "8/255"',
            fix="write the value as a number, or as a fraction in quotes",
        )
    return number


def parse_duration(value: object) -> float:
    """Seconds from a number or from text such as "90s", "10m" or "1h30m".

        >>> parse_duration("1h30m")
        5400.0

    Raises:
        ConfigError: E107, for anything else, and for text without a unit.
    """
    if isinstance(value, str):
        text = value.strip()
        found = _DURATION.fullmatch(text) if text else None
        parts = [float(part[:-1]) if part else 0.0 for part in found.group(1, 2, 3)] if found else [math.nan]
        seconds = math.fsum(part * unit for part, unit in zip(parts, (3600.0, 60.0, 1.0), strict=False))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if 0 <= value < 1e12 else math.nan
    else:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ConfigError(
            "E107",
            seen=f"{_shown(value)} where a time is needed",
            expected='text such as "90s", "10m" or "1h30m", or a number of seconds',
            fix='write the time with its unit, such as "10m"',
        )
    return seconds


@dataclasses.dataclass(frozen=True, slots=True)
class TextForm:
    """Lets a float field be read from text as well; pydantic is met only when a plan is read.

    Attributes:
        parse: text to float; raises `ConfigError`.
        pattern: of the text, for the JSON Schema.
    """

    parse: Callable[[object], float]
    pattern: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self._from_text, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, object]:
        return {"anyOf": [{"type": "number"}, {"type": "string", "pattern": self.pattern}]}

    def _from_text(self, value: object) -> object:
        # Only text is ours to read: wrong types must reach pydantic's own strict check and its located
        # message.
        return self.parse(value) if isinstance(value, str) else value


Ratio = Annotated[float, TextForm(parse_ratio, _RATIO.pattern)]
Duration = Annotated[float, TextForm(parse_duration, _DURATION.pattern)]


class Options:
    """Base of every option dataclass: strict when read from a plan, unknown keys refused."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    def as_json(self) -> dict[str, object]:
        """The fields as JSON data, in order of declaration; equal options give equal data."""
        fields = dataclasses.fields(cast("type", type(self)))
        return {field.name: _jsonable(getattr(self, field.name)) for field in fields}


def require(holds: bool, *, seen: str, expected: str, fix: str, code: str = "E103") -> None:
    """Raise `ConfigError` unless `holds`; the one guard that option values use in `__post_init__`."""
    if not holds:
        raise ConfigError(code, seen=seen, expected=expected, fix=fix)


def _fraction(text: str) -> float:
    if not _RATIO.fullmatch(text):
        return math.nan
    above, _, below = text.partition("/")
    try:
        # One rounding, from the exact quotient: so "8/255" is the float that 8 / 255 is.
        return float(Fraction(above.strip()) / Fraction(below.strip() or "1"))
    except (ZeroDivisionError, OverflowError):
        return math.nan


def _jsonable(value: object) -> object:
    if isinstance(value, Options):
        return value.as_json()
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in cast("tuple[object, ...]", value)]
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in cast("Mapping[str, object]", value).items()}
    if isinstance(value, bool):
        return value
    # Numbers of NumPy are numbers, but none that JSON knows.
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
