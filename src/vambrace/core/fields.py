"""What the fields of an option dataclass are: their types, and what its docstring says about them.

>>> from vambrace.core.contract import InputContract
>>> attribute_docs(InputContract)["size"]
'(height, width) the model needs; None: as stored.'
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from vambrace.core.options import TextForm

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["annotation_at", "attribute_docs", "choices_of", "field_types", "is_text_form", "length_of"]


@cache
def attribute_docs(kind: type[Any]) -> dict[str, str]:
    """What the `Attributes:` section of a docstring says about each field, or that of a base, in one line each."""
    text = kind.__doc__ or ""
    _, found, section = text.partition("Attributes:\n")
    base = kind.__base__
    docs: dict[str, str] = {} if base in (None, object) else dict(attribute_docs(base))
    indent = len(section) - len(section.lstrip(" "))
    names: list[str] = []
    for line in section.splitlines() if found else ():
        depth = len(line) - len(line.lstrip(" "))
        if line.strip() and depth < indent:
            break
        entry = re.match(r"([\w, ]+): (.*)", line.strip()) if depth == indent else None
        if entry:
            names = [name.strip() for name in entry.group(1).split(",")]
            docs.update(dict.fromkeys(names, entry.group(2)))
        elif line.strip():
            docs.update({name: f"{docs[name]} {line.strip()}" for name in names})
    return docs


@cache
def field_types(kind: type[Any]) -> dict[str, Any]:
    """The annotation of every field, resolved, with its metadata."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def is_text_form(annotation: Any) -> bool:  # noqa: ANN401  an annotation may be any form
    """Whether numbers of this annotation may be written as text, such as "8/255"."""
    if get_origin(annotation) is Annotated:
        return any(isinstance(extra, TextForm) for extra in annotation.__metadata__)
    return any(is_text_form(part) for part in get_args(annotation))


def choices_of(annotation: Any) -> list[Any]:  # noqa: ANN401
    """The values that a `Literal`, or a union with one, allows; empty for other types."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    return [choice for part in parts for choice in choices_of(part)]


def length_of(annotation: Any) -> int | None:  # noqa: ANN401
    """How many values a tuple of fixed length has."""
    for part in (annotation, *get_args(annotation)):
        if get_origin(part) is tuple and Ellipsis not in get_args(part):
            return len(get_args(part))
    return None


def annotation_at(kind: Any, path: Sequence[str | int]) -> Any:  # noqa: ANN401
    """The type that stands at a path into the data of an option dataclass, or None where it cannot be told."""
    current = kind
    for part in path:
        owner = _dataclass_in(current)
        if owner is not None and isinstance(part, str):
            current = field_types(owner).get(part)
            continue
        sequence = next((each for each in (current, *get_args(current)) if get_origin(each) is tuple), None)
        items = get_args(sequence)
        if not isinstance(part, int) or not items:
            return None
        current = items[0] if Ellipsis in items else items[min(part, len(items) - 1)]
    return _dataclass_in(current) or current


def _dataclass_in(annotation: Any) -> type[Any] | None:  # noqa: ANN401
    parts = (annotation, *get_args(annotation))
    return next((part for part in parts if isinstance(part, type) and dataclasses.is_dataclass(part)), None)
