"""Text of a plan to plain data: TOML or JSON, with everything refused that the two do not share.

What comes out is JSON data: no dates, no infinities, no NaN, no repeated keys, no lone surrogates, integers
that every JSON reader keeps exact. So the same plan can be written in either form, travel as JSON, and be
hashed. `vambrace.core.spec` turns the data into options.

    >>> parse_toml('eps = "8/255"', where="plan")
    {'eps': '8/255'}

Sizes are bounded before anything is parsed: a plan is written by people, and a parser that a hostile file can
keep busy for minutes is a fault of the reader.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import tomllib
from typing import TYPE_CHECKING, Any, NoReturn, cast

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["check_data", "parse_json", "parse_toml", "read_file"]

_LARGEST_FILE = 256 * 1024
_MOST_DOTS_A_LINE = 2048  # a dotted key costs the TOML parser the square of its parts
_DEEPEST = 32
_EXACT = 2**53
_NORM_AS_NUMBER = {"inf": "linf", "1": "l1", "2": "l2", "0": "l0"}


def read_file(path: Path) -> dict[str, Any]:
    """The data of a plan file: JSON where the name ends in `.json`, else TOML.

    Raises:
        ConfigError: E160, when it cannot be read or is no such data.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(
            "E160",
            seen=f"{path} cannot be read: {error.strerror or error}",
            expected="a plan file in TOML or JSON",
            fix="check the path; `vambrace init MODEL DATA` writes a plan",
        ) from error
    if len(raw) > _LARGEST_FILE:
        _refuse(str(path), f"more than {_LARGEST_FILE // 1024} KiB", "a plan that people can read", "is it a plan?")
    try:
        # Editors on Windows may put a byte order mark in front; it means nothing in UTF-8.
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(str(path), f"a byte that is not UTF-8 at {error.start}", "a text file in UTF-8", "save it as UTF-8")
    return (parse_json if path.suffix.lower() == ".json" else parse_toml)(text, where=str(path))


def parse_toml(text: str, *, where: str) -> dict[str, Any]:
    """TOML 1.0 to data.

    Args:
        text: the document.
        where: the file's name, for messages.

    Raises:
        ConfigError: E160, for text that is not TOML, and for dates, infinities and NaN.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > _MOST_DOTS_A_LINE:
            _refuse(f"{where}, line {number}", "thousands of dots", "a line that people can read", "break it up")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _refuse(where, f"no valid TOML: {error}", "TOML 1.0", _toml_hint(text, str(error)))
    except ValueError as error:  # an integer of thousands of digits
        _refuse(where, f"no valid TOML: {error}", "TOML 1.0", "correct that number")
    except RecursionError:
        _refuse(where, "values nested too deeply", f"at most {_DEEPEST} levels", "flatten the value")
    check_data(data, where=where)
    return data


def parse_json(text: str, *, where: str) -> dict[str, Any]:
    """JSON to data; repeated keys, NaN and infinities are refused.

    Args:
        text: the document, an object.
        where: the file's name, for messages.

    Raises:
        ConfigError: E160.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            _refuse(where, f"the key {twice!r} twice in one object", "each key once", f"remove one {twice!r}")
        return found

    def constant(name: str) -> NoReturn:
        _refuse(where, f"the number {name}", "finite numbers", "leave the key out, or write a number")

    try:
        data: Any = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        _refuse(where, f"no valid JSON: {error}", "JSON", "correct that line")
    except RecursionError:
        _refuse(where, "values nested too deeply", f"at most {_DEEPEST} levels", "flatten the value")
    except ValueError as error:  # an integer of thousands of digits
        if isinstance(error, ConfigError):
            raise
        _refuse(where, f"no valid JSON: {error}", "JSON", "correct that number")
    if not isinstance(data, dict):
        _refuse(where, f"a {type(data).__name__}", "an object of keys and values", "wrap it in { }")
    found = cast("dict[str, Any]", data)
    check_data(found, where=where)
    return found


def check_data(data: Mapping[str, Any], *, where: str) -> None:
    """Refuse what TOML and JSON do not share, naming the place.

    Raises:
        ConfigError: E160, for dates, infinities, NaN, integers beyond 2**53, NUL and lone surrogates in text.
    """
    _check(data, where, "", 0)


def _check(value: object, where: str, path: str, depth: int) -> None:
    place = f"{where}: {path}" if path else where
    if depth > _DEEPEST:
        _refuse(place, "values nested too deeply", f"at most {_DEEPEST} levels", "flatten the value")
    if isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            _check_text(str(key), place)
            _check(item, where, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast("list[object]", value)):
            _check(item, where, f"{path}[{index}]", depth + 1)
    elif isinstance(value, str):
        _check_text(value, place)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if abs(value) > _EXACT:
            _refuse(place, f"an integer of {value.bit_length()} bits", "at most 2**53 in size", "use a smaller number")
    elif isinstance(value, float):
        if not math.isfinite(value):
            named = _NORM_AS_NUMBER.get(str(value)) if path.endswith("norm") else None
            fix = f'write norm = "{named}"' if named else "leave the key out, or write a finite number"
            _refuse(place, f"the number {value}", "a finite number", fix)
    elif isinstance(value, datetime.date | datetime.time):
        _refuse(place, f"the date or time {value}", "text, numbers, lists and tables", "put it in quotes")
    else:
        _refuse(place, f"a {type(value).__name__}", "text, numbers, lists and tables", "write it as one of these")


def _check_text(text: str, place: str) -> None:
    if any(char == "\0" or 0xD800 <= ord(char) <= 0xDFFF for char in text):
        _refuse(place, "text with a NUL or half a character", "plain text", "remove that character")


def _toml_hint(text: str, message: str) -> str:
    """What people who come from YAML, JSON or a shell write by mistake."""
    found = re.search(r"line (\d+)", message)
    lines = text.splitlines()
    line = lines[int(found.group(1)) - 1].strip() if found and int(found.group(1)) <= len(lines) else ""
    if text.lstrip().startswith("{"):
        return "it looks like JSON: give the file a name that ends in .json"
    if re.match(r"^[\w.-]+\s*:", line):
        return f"TOML writes `key = value`: {line.partition(':')[0].strip()} = ..."
    if re.search(r"=\s*[0-9.]+\s*/\s*[0-9.]+", line):
        return 'put the fraction in quotes, such as eps = "8/255"'
    if re.search(r"=\s*(True|False|None|yes|no|on|off|null)\b", line):
        return "TOML writes true and false in lower case, and leaves a key out for nothing"
    if re.match(r"^[\w.-]+\s*=\s*[A-Za-z/~]", line):
        return "put text in quotes"
    return "correct that line"


def _refuse(where: str, seen: str, expected: str, fix: str) -> NoReturn:
    raise ConfigError("E160", seen=f"{where}: {seen}", expected=expected, fix=fix)
