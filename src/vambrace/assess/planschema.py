"""The JSON Schema of plan files, for editors and for whoever writes plans by program.

`plan.schema.json` beside this file is what `plan_schema` gives for the methods that vambrace brings itself; a test
compares them, and `python -m vambrace.assess.planschema` writes the file again. The reader is stricter in what no
schema can say: radii that rise, hashes that match, methods that fit the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from vambrace.assess.plan import ROLES, DataSpec, GateSpec, ModelSpec, RunSpec, TrustSpec
from vambrace.core import registry
from vambrace.core.contract import InputContract
from vambrace.core.spec import schema_of

__all__ = ["FILE", "plan_schema", "text", "write"]

FILE = Path(__file__).with_name("plan.schema.json")

Json = Any

_PLACE: dict[str, Json] = {
    "id": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", "description": "unique in the plan"},
    "required": {"type": "boolean", "default": True, "description": "a required check that was not measured: exit 4"},
    "named": {"type": "boolean", "default": True, "description": "false: leave it out where the model cannot serve it"},
    "limit": {"type": "integer", "minimum": 1, "description": "at most this many samples"},
}


def plan_schema(*, plugins: bool = False) -> dict[str, Json]:
    """The schema of a plan (JSON Schema 2020-12).

    Args:
        plugins: also the methods of other installed packages.
    """
    checks = [
        *(_method("attack", name, registry.ATTACKS, _radii()) for name in _names(registry.ATTACKS, plugins)),
        *(
            _method("perturb", name, registry.PERTURBATIONS, _severities())
            for name in _names(registry.PERTURBATIONS, plugins)
        ),
        *(
            _method("check", name, registry.CHECKS, {})
            for name in _names(registry.CHECKS, plugins)
            if name not in ("adversarial", "natural")
        ),
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vambrace plan, version 1",
        "type": "object",
        "properties": {
            "schema": {"const": 1, "description": "version of the plan's form"},
            "profile": {"enum": ["smoke", "ci", "full"], "default": "ci"},
            "seed": {"type": "integer", "minimum": 0, "maximum": 2**53, "default": 0},
            "gates": {"const": "none", "description": "measure, and do not judge"},
            "model": _table(ModelSpec),
            "contract": _table(InputContract),
            "data": {
                "type": "object",
                "properties": dict.fromkeys(ROLES, _table(DataSpec)),
                "additionalProperties": False,
            },
            "trust": _table(TrustSpec),
            "run": _table(RunSpec),
            "check": {"type": "array", "items": {"oneOf": checks}},
            "gate": {"type": "array", "items": _table(GateSpec)},
        },
        "required": ["schema"],
        "additionalProperties": False,
        "not": {"required": ["gates", "gate"]},
    }


def write() -> None:
    """Write `plan.schema.json` again."""
    FILE.write_text(text(), encoding="utf-8")


def text() -> str:
    """The content of `plan.schema.json`."""
    return json.dumps(plan_schema(), indent=1, ensure_ascii=True) + "\n"


def _names(group: str, plugins: bool) -> list[str]:
    return [name for name in registry.names(group) if plugins or registry.entry(group, name).distribution == "vambrace"]


def _method(selector: str, name: str, group: str, more: dict[str, Json]) -> dict[str, Json]:
    schema = _table(registry.load(group, name))
    required = [key for key in schema.get("required", []) if key not in more]
    return schema | {
        "properties": {selector: {"const": name}, **_PLACE, **schema.get("properties", {}), **more},
        "required": [selector, *required, *(["eps"] if "eps" in more else [])],
    }


def _radii() -> dict[str, Json]:
    one: Json = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}
    return {
        "eps": {
            "description": 'radius in the units of the inputs, or several; each a number or a fraction such as "8/255"',
            "anyOf": [*one["anyOf"], {"type": "array", "items": one, "minItems": 1}],
        }
    }


def _severities() -> dict[str, Json]:
    return {
        "severities": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": 5},
            "minItems": 1,
            "uniqueItems": True,
            "default": [1, 2, 3, 4, 5],
        }
    }


def _table(kind: type[Any]) -> dict[str, Json]:
    """The schema of an option dataclass; null is taken out, because TOML has no word for it."""
    return _without_null(schema_of(kind))


def _without_null(schema: Json) -> Json:
    if isinstance(schema, list):
        return [_without_null(each) for each in cast("list[Json]", schema) if each != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    pairs = cast("dict[str, Json]", schema).items()
    found = {key: _without_null(value) for key, value in pairs if not (key == "default" and value is None)}
    choices = cast("list[Json] | None", found.get("anyOf"))
    if choices and len(choices) == 1:
        del found["anyOf"]
        found |= choices[0]
    return found


if __name__ == "__main__":
    write()
