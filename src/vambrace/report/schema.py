"""The published form of results.json, and a checker for it that needs no extra package.

The schema file is the one description of the format: other tools validate with any JSON Schema 2020-12
validator, this module reads the same file. It knows exactly the keywords that the file uses and refuses
others, so the two cannot drift apart in silence. Not a general validator.

    >>> fault({"schema": "vambrace/results/1"})
    ('$', "no field 'model'")
"""

from __future__ import annotations

import json
import math
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["VERSION", "fault", "schema"]

VERSION = "vambrace/results/1"

_Json = Any
_Schema = dict[str, Any]
_Fault = tuple[str, str]

_NOTES = frozenset({"$schema", "$id", "$defs", "title", "description"})
_LONGEST = 80  # characters of a wrong value that a message repeats


@cache
def schema() -> _Schema:
    """The JSON Schema of results.json, as data."""
    text = resources.files("vambrace.report").joinpath("results.schema.json").read_text(encoding="utf-8")
    return cast("_Schema", json.loads(text))


def fault(data: _Json) -> _Fault | None:
    """The first place where `data` departs from the schema: (JSON path, what is wrong); None where it does not."""
    return next(_faults(data, schema(), "$"), None)


def _faults(data: _Json, rule: _Schema, where: str) -> Iterator[_Fault]:
    for keyword, wanted in rule.items():
        if keyword not in _NOTES and keyword not in _BESIDE:
            yield from _KEYWORDS[keyword](data, wanted, where, rule)


def _reference(data: _Json, wanted: str, where: str, _rule: _Schema) -> Iterator[_Fault]:
    yield from _faults(data, schema()["$defs"][wanted.removeprefix("#/$defs/")], where)


def _type(data: _Json, wanted: str | list[str], where: str, _rule: _Schema) -> Iterator[_Fault]:
    names = [wanted] if isinstance(wanted, str) else wanted
    if not any(_is(data, name) for name in names):
        yield where, f"{_show(data)} where {' or '.join(names)} is needed"


def _const(data: _Json, wanted: _Json, where: str, _rule: _Schema) -> Iterator[_Fault]:
    if not _same(data, wanted):
        yield where, f"{_show(data)} where {_show(wanted)} is needed"


def _enum(data: _Json, wanted: list[_Json], where: str, _rule: _Schema) -> Iterator[_Fault]:
    if not any(_same(data, item) for item in wanted):
        yield where, f"{_show(data)}, which is none of {', '.join(map(_show, wanted))}"


def _properties(data: _Json, wanted: Mapping[str, _Schema], where: str, _rule: _Schema) -> Iterator[_Fault]:
    if isinstance(data, dict):
        fields = cast("dict[str, _Json]", data)
        for name, rule in wanted.items():
            if name in fields:
                yield from _faults(fields[name], rule, f"{where}.{name}")


def _required(data: _Json, wanted: list[str], where: str, _rule: _Schema) -> Iterator[_Fault]:
    if isinstance(data, dict):
        yield from ((where, f"no field {name!r}") for name in wanted if name not in data)


def _additional(data: _Json, wanted: bool | _Schema, where: str, rule: _Schema) -> Iterator[_Fault]:
    if isinstance(data, dict):
        known = rule.get("properties", {})
        for name, value in cast("dict[str, _Json]", data).items():
            if name not in known and not isinstance(wanted, bool):
                yield from _faults(value, wanted, f"{where}{_step(name)}")
            elif name not in known and not wanted:
                yield where, f"the unknown field {_show(name)}"


def _items(data: _Json, wanted: _Schema, where: str, _rule: _Schema) -> Iterator[_Fault]:
    if isinstance(data, list):
        for place, item in enumerate(cast("list[_Json]", data)):
            yield from _faults(item, wanted, f"{where}[{place}]")


def _bound(
    measure: Callable[[_Json], float | None], low: bool
) -> Callable[[_Json, float, str, _Schema], Iterator[_Fault]]:
    def check(data: _Json, wanted: float, where: str, _rule: _Schema) -> Iterator[_Fault]:
        size = measure(data)
        if size is not None and (size < wanted if low else size > wanted):
            yield where, f"{_show(data)}: {size:g} is {'below' if low else 'above'} {wanted:g}"

    return check


def _pattern(data: _Json, wanted: str, where: str, _rule: _Schema) -> Iterator[_Fault]:
    if isinstance(data, str) and not re.search(wanted, data):
        yield where, f"{_show(data)}, which does not match {wanted}"


def _any_of(data: _Json, wanted: list[_Schema], where: str, _rule: _Schema) -> Iterator[_Fault]:
    found = [next(_faults(data, rule, where), None) for rule in wanted]
    if None not in found:
        # The last alternative is the full form; what is wrong with it says most.
        yield cast("_Fault", found[-1])


def _if(data: _Json, wanted: _Schema, where: str, rule: _Schema) -> Iterator[_Fault]:
    if next(_faults(data, wanted, where), None) is None:
        yield from _faults(data, rule["then"], where)


def _is(data: _Json, name: str) -> bool:
    number = isinstance(data, int | float) and not isinstance(data, bool)
    match name:
        case "null":
            return data is None
        case "boolean":
            return isinstance(data, bool)
        case "integer":
            return number and math.isfinite(data) and data == int(data)
        case "number":
            return number
        case "string":
            return isinstance(data, str)
        case "array":
            return isinstance(data, list)
        case _:
            return isinstance(data, dict)


def _same(data: _Json, wanted: _Json) -> bool:
    return data == wanted and isinstance(data, bool) == isinstance(wanted, bool)


def _step(name: str) -> str:
    return f".{name}" if re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]{0,79}", name) else f"[{_show(name)}]"


def _show(data: _Json) -> str:
    text = json.dumps(data, ensure_ascii=True, default=repr)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _number(data: _Json) -> float | None:
    return data if isinstance(data, int | float) and not isinstance(data, bool) else None


def _length(data: _Json) -> float | None:
    return len(data) if isinstance(data, str) else None


def _count(data: _Json) -> float | None:
    return len(cast("list[_Json]", data)) if isinstance(data, list) else None


_BESIDE = frozenset({"then"})  # read by the keyword it belongs to
_KEYWORDS: dict[str, Callable[[_Json, Any, str, _Schema], Iterator[_Fault]]] = {
    "$ref": _reference,
    "type": _type,
    "const": _const,
    "enum": _enum,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "minItems": _bound(_count, low=True),
    "maxItems": _bound(_count, low=False),
    "minLength": _bound(_length, low=True),
    "minimum": _bound(_number, low=True),
    "maximum": _bound(_number, low=False),
    "pattern": _pattern,
    "anyOf": _any_of,
    "if": _if,
}
