r"""Canonical JSON (RFC 8785): equal data gives equal bytes, so files can be hashed and compared.

>>> dumps({"b": 1e21, "a": [1.0, 0.1, "\u20ac"]})
b'{"a":[1,0.1,"\xe2\x82\xac"],"b":1e+21}'
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, Never, cast

from vambrace.errors import ConfigError

__all__ = ["digest", "dumps", "loads"]

_EXACT = 2**53
_TEXT = json.JSONEncoder(ensure_ascii=False)
_SURROGATE = re.compile("[\ud800-\udfff]")


def dumps(data: object) -> bytes:
    """JSON data to canonical UTF-8 bytes.

    Raises:
        ConfigError: E105, for NaN, infinities, integers beyond 2**53, lone surrogates, or values that are not JSON.
    """
    return _write(data, "$").encode()


def digest(data: object) -> str:
    """SHA-256 of the canonical bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(dumps(data)).hexdigest()


def loads(text: bytes) -> Any:  # noqa: ANN401  JSON data has no narrower type
    """The data in JSON text, such that `dumps` of it gives canonical text back byte for byte.

    Numbers are those of RFC 8785, doubles: digits without a point that only a double can mean become a float.

        >>> loads(b'[1,1e+21,57014991971970710]')
        [1, 1e+21, 5.701499197197071e+16]

    Raises:
        ValueError: for text that is not JSON, numbers that no double holds, or keys that repeat.
        RecursionError: for text that is nested too deep.
    """
    return json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_constant, object_pairs_hook=_unique)


def _whole(text: str) -> int | float:
    # Python reads digits of any length exactly, which is neither what was meant nor what can be written again.
    if len(text) <= 17 and abs(value := int(text)) <= _EXACT:
        return value
    return _finite(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number beyond doubles: {text[:40]}")
    return value


def _constant(text: str) -> Never:
    raise ValueError(f"{text} is not JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice in one object")
    return found


def _write(data: object, where: str) -> str:
    if data is None or isinstance(data, bool):
        return {None: "null", True: "true", False: "false"}[data]
    if isinstance(data, str):
        if _SURROGATE.search(data):
            raise _refusal(where, "text with a lone surrogate")
        return _TEXT.encode(str(data))
    if isinstance(data, int):
        if abs(data) > _EXACT:
            raise _refusal(where, f"the integer {data}, which JSON readers round")
        return str(int(data))
    if isinstance(data, float):
        return _number(data, where)
    if isinstance(data, list | tuple):
        items = cast("list[object]", data)
        return "[" + ",".join(_write(item, f"{where}[{i}]") for i, item in enumerate(items)) + "]"
    if isinstance(data, dict):
        pairs = cast("dict[object, object]", data)
        if not all(isinstance(key, str) for key in pairs):
            raise _refusal(where, "a key that is not text")
        keys = sorted(cast("dict[str, object]", pairs), key=lambda key: key.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(_write(key, where) + ":" + _write(pairs[key], f"{where}.{key}") for key in keys) + "}"
    raise _refusal(where, f"a {type(data).__name__}")


def _number(value: float, where: str) -> str:
    """Shortest round-trip digits laid out as ECMAScript does (ECMA-262, Number::toString)."""
    if not math.isfinite(value):
        raise _refusal(where, f"the number {value}")
    if value == 0:
        return "0"
    # Not `repr`, which a subclass may write its own way, as NumPy's float64 does.
    sign, text = ("-" if value < 0 else ""), float.__repr__(abs(value))
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    # `point` is where the decimal point stands, counted from the first significant digit.
    point = int(exponent or 0) + (len(whole) if whole != "0" else len(fraction.lstrip("0")) - len(fraction))
    digits = (whole + fraction).strip("0")
    size = len(digits)
    if size <= point <= 21:
        return sign + digits + "0" * (point - size)
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = point - 1
    tail = f".{digits[1:]}" if size > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if power > 0 else '-'}{abs(power)}"


def _refusal(where: str, seen: str) -> ConfigError:
    return ConfigError(
        "E105",
        seen=f"{seen} at {where}",
        expected="JSON data: null, booleans, finite numbers, text, lists, and dicts with text keys",
        fix="convert the value before it is stored",
    )
