"""Plain data to options, strictly: the one reader behind plans, the command line and stored runs.

Types are exact (True is not 1, 1.0 is not a step count; a whole number is a fine float), unknown keys are
refused with the nearest known one or the translation of another toolkit's word, and every message names its
place:

    >>> from vambrace.core.contract import InputContract
    >>> read(InputContract, {"bounds": [0, "1/2"]}, where="contract").bounds
    (0.0, 0.5)
    >>> read(InputContract, {"clip_min": 0}, where="contract")
    Traceback (most recent call last):
    vambrace.errors.ConfigError: E165: contract.clip_min: unknown key; expected one of bounds, mean, std,
    size,
        resize, layout, channels, classes, strip_prefix, state_key. Fix: did you mean `bounds`?

`as_json` of an option and `read` are inverse. Data comes from `vambrace.core.dialect` or from code; plug-ins
are found by name in `vambrace.core.registry`. pydantic is imported with this module, which only readers of
plans need.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from vambrace.core.dialect import check_data
from vambrace.core.fields import attribute_docs
from vambrace.core.refusal import explained, located, wrong_choice
from vambrace.errors import ConfigError, VambraceError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read", "schema_of"]

_Kind = TypeVar("_Kind")
_Json = Any


def read(kind: type[_Kind], data: Mapping[str, _Json], *, where: str = "", called: str = "") -> _Kind:
    """An instance of an option dataclass from JSON data.

    Args:
        kind: the dataclass.
        data: its fields; those left out take their defaults.
        where: the place of `data` in the plan, such as "check[1]", for messages.
        called: what it is, for messages, such as "attack pgd".

    Raises:
        ConfigError: E160 for data that is not JSON; E165 for an unknown key; E166 for a wrong value; E167 for
            a missing key; the code of the option itself where its own check refuses the value.
    """
    check_data(data, where=where or kind.__name__)
    adapter = _adapter(kind)
    if wrong := wrong_choice(kind, data, where):
        raise wrong
    try:
        return adapter.validate_json(json.dumps(data, allow_nan=False))
    except ValidationError as error:
        raise explained(kind, data, error.errors(include_url=False), where, called) from error
    except VambraceError as error:  # pydantic wraps ValueErrors only
        raise located(error, where) from error


def schema_of(kind: type[Any]) -> dict[str, _Json]:
    """The JSON Schema (2020-12) of an option dataclass, with the descriptions of its docstring."""
    schema = _adapter(kind).json_schema()
    for name, part in cast("dict[str, _Json]", schema.get("properties", {})).items():
        part.pop("title", None)
        if text := attribute_docs(kind).get(name):
            part["description"] = text
    schema.pop("title", None)
    schema["description"] = (kind.__doc__ or "").strip().split("\n\n", 1)[0]
    return schema


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    try:
        adapter = TypeAdapter(kind)
        adapter.rebuild(raise_errors=True)
        return adapter
    except (PydanticUserError, NameError, TypeError) as error:
        raise ConfigError(
            "E164",
            seen=f"the fields of {kind.__module__}.{kind.__qualname__} cannot be read: {str(error).splitlines()[0]}",
            expected="fields of JSON scalars, tuples of them, or other options, with types imported at run time",
            fix="import the types of its annotations outside of TYPE_CHECKING",
        ) from error
