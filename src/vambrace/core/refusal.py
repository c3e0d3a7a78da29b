"""What is wrong with data as one error: where, what was seen, what was expected, and the likeliest fix."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from typing import TYPE_CHECKING, Any, cast

from vambrace.core.fields import annotation_at, attribute_docs, choices_of, is_text_form, length_of
from vambrace.core.synonyms import KEYS, VALUES
from vambrace.errors import ConfigError, VambraceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

__all__ = ["closest", "explained", "located", "unknown_key", "wrong_choice", "wrong_value"]

_Json = Any

_WANTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text in quotes",
    "tuple_type": "a list in brackets",
    "list_type": "a list in brackets",
    "dict_type": "a table",
    "mapping_type": "a table",
    "dataclass_type": "a table",
    "dataclass_exact_type": "a table",
    "too_long": "fewer values",
    "too_short": "more values",
}


def explained(
    kind: type[Any], data: Mapping[str, _Json], found: list[ErrorDetails], where: str, called: str
) -> VambraceError:
    """One error for all that is wrong: unknown keys first, because they explain missing ones."""
    worst = min(found, key=lambda error: error["type"] != "unexpected_keyword_argument")
    path = _path(data, worst)
    same = [error for error in found if _path(data, error) == path]
    error = _one(kind, data, same, path, where, called)
    others = {_place(where, _path(data, each)) for each in found} - {_place(where, path)}
    if others:
        listed = ", ".join(sorted(others)[:3])
        error = type(error)(
            error.code, seen=f"{error.seen} (also wrong: {listed})", expected=error.expected, fix=error.fix
        )
    return error


def located(error: VambraceError, place: str) -> VambraceError:
    """The same error with the place in front of what was seen."""
    seen = f"{place}: {error.seen}" if place else error.seen
    return type(error)(error.code, seen=seen, expected=error.expected, fix=error.fix)


def wrong_value(place: str, value: _Json, choices: Sequence[_Json]) -> ConfigError:
    """The error for a value that is none of the allowed ones."""
    wanted, fix = _chosen(value, choices)
    return ConfigError("E166", seen=f"{place} = {_shown(value)}", expected=wanted, fix=fix)


def wrong_choice(kind: type[Any], data: Mapping[str, _Json], where: str) -> ConfigError | None:
    """The error for a value that equals an allowed one and is another type: True for 1, 1.0 for 1."""
    for name, value in data.items():
        annotation = annotation_at(kind, [name])
        choices = choices_of(annotation)
        if isinstance(value, bool | float) and any(
            value == choice and type(value) is not type(choice) for choice in choices
        ):
            return wrong_value(_place(where, [name]), value, choices)
    return None


def unknown_key(key: str, known: Sequence[str], *, where: str, called: str = "") -> ConfigError:
    """The error for a key that a table does not have."""
    meant = KEYS.get(key.lower())
    close = meant if meant in known else closest(key, known)
    return ConfigError(
        "E165",
        seen=f"{_place(where, [key])}: unknown key{f' for {called}' if called else ''}",
        expected=f"one of {', '.join(known)}" if known else "no keys",
        fix=f"did you mean `{close}`?" if close else f"remove `{key}`",
    )


def closest(word: str, known: Sequence[str]) -> str | None:
    """The known word that was probably meant, or None."""
    lowered = {name.lower().replace("-", "_"): name for name in known}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def _one(
    kind: type[Any],
    data: Mapping[str, _Json],
    errors: list[ErrorDetails],
    path: list[str | int],
    where: str,
    called: str,
) -> VambraceError:
    first, place = errors[0], _place(where, path)
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, VambraceError):
        return located(inner, place)
    if first["type"] == "unexpected_keyword_argument":
        owner = annotation_at(kind, path[:-1])
        known = [field.name for field in dataclasses.fields(owner)] if dataclasses.is_dataclass(owner) else []
        return unknown_key(str(path[-1]), known, where=_place(where, path[:-1]), called=called)
    if first["type"] == "missing" and len(path) == len(first["loc"]) and isinstance(path[-1], str):
        owner = annotation_at(kind, path[:-1])
        return ConfigError(
            "E167",
            seen=f"{place} is missing{f' for {called}' if called else ''}",
            expected=attribute_docs(owner).get(path[-1], "a value"),
            fix=f"add {path[-1]} = ...",
        )
    value = _at(data, path)
    wanted, fix = _wanted(errors, annotation_at(kind, path), value)
    return ConfigError("E166", seen=f"{place} = {_shown(value)}", expected=wanted, fix=fix)


def _wanted(errors: list[ErrorDetails], annotation: Any, value: _Json) -> tuple[str, str]:  # noqa: ANN401
    """What would have been right, and the likeliest repair."""
    if choices := choices_of(annotation):
        return _chosen(value, choices)
    sizes = [error for error in errors if error["type"] in {"missing", "too_long", "too_short"}]
    if sizes:
        size = length_of(annotation)
        return f"{size} values" if size else _WANTED.get(sizes[0]["type"], "more values"), "count the values"
    wanted = list(dict.fromkeys(_WANTED.get(error["type"], error["msg"]) for error in errors))
    if is_text_form(annotation) and "a number" in wanted:
        wanted.append('a fraction in quotes such as "8/255"')
    text = " or ".join(wanted)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9.]+|true|false", value):
        return text, "remove the quotes"
    if isinstance(value, bool):
        return text, "true and false are no numbers; write the number"
    if "a list in brackets" in wanted:
        return text, f"write [{_shown(value)}]"
    return text, f"write {text}"


def _chosen(value: _Json, choices: Sequence[_Json]) -> tuple[str, str]:
    meant = VALUES.get(str(value).lower())
    close = meant if meant in choices else closest(str(value), [str(choice) for choice in choices])
    listed = ", ".join(_shown(choice) for choice in choices)
    return f"one of {listed}", f"did you mean {_shown(close)}?" if close else "choose one of them"


def _path(data: Mapping[str, _Json], error: ErrorDetails) -> list[str | int]:
    """The part of an error's location that exists in the data: what follows names branches of unions."""
    path: list[str | int] = []
    current: _Json = data
    for part in error["loc"]:
        if isinstance(current, dict) and part in current:
            current = cast("dict[Any, _Json]", current)[part]
        elif isinstance(current, list | tuple) and isinstance(part, int) and part < len(cast("list[_Json]", current)):
            current = cast("list[_Json]", current)[part]
        elif error["type"] == "missing" and isinstance(current, dict):
            return [*path, part]
        else:
            break
        path.append(part)
    return path


def _at(data: _Json, path: Sequence[str | int]) -> _Json:
    for part in path:
        data = data[part]
    return data


def _place(where: str, path: Sequence[str | int]) -> str:
    text = where
    for part in path:
        text = f"{text}[{part}]" if isinstance(part, int) else f"{text}.{part}" if text else part
    return text


def _shown(value: _Json) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
