"""A plan as a commented `vambrace.toml` that reads back equal: what `vambrace init` writes.

Comments are the documentation of the fields themselves, and notes about what was seen. Fields at their default stand
there as comments, so that a reader sees what could be said.
"""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from typing import TYPE_CHECKING, Any, cast

from vambrace.assess.methods import check_as_table
from vambrace.core.fields import attribute_docs
from vambrace.core.options import Options, parse_ratio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assess.plan import Plan

__all__ = ["toml_value", "write_commented_toml"]

Json = Any

_WIDTH = 100
_SHORT = 6  # characters of a decimal that people would write themselves, such as 0.2
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_FRACTIONS = frozenset({"eps", "step_size"})


def write_commented_toml(plan: Plan, notes: Mapping[str, str] | None = None) -> str:
    """The text of a plan file; `vambrace.assess.reading.parse_plan` of its data gives an equal plan.

    Args:
        plan: what to write; its `base` is where the file will lie, and is not written.
        notes: comments by place: "" for the head, "model", "contract.bounds", "data.eval", "check.<id>", "gate", "run".
    """
    said = dict(notes or {})
    lines = [
        *_comment("A plan for `vambrace assess`. Words: docs/formats/plan-v1.md; `vambrace list` shows the methods."),
        *_comment(said.get("", "")),
        f"schema = {plan.schema}",
        *_comment("smoke: about a minute; ci: about a quarter of an hour; full: as long as it takes"),
        f"profile = {toml_value(plan.profile)}",
        f"seed = {plan.seed}",
    ]
    if plan.gates is None:
        lines += [*_comment("measure, and do not judge"), 'gates = "none"']
    lines += _options("model", plan.model, said)
    lines += _options("contract", plan.contract, said)
    for role, spec in plan.data.items():
        lines += _options(f"data.{role}", spec, said)
    lines += _options("trust", plan.trust, said)
    lines += _options("run", plan.run, said)
    if not plan.checks:
        lines += ["", *_comment("No [[check]] tables: the profile chooses what the model and the data allow.")]
    for planned in plan.checks:
        lines += ["", *_comment(said.get(f"check.{planned.id}", "")), "[[check]]"]
        lines += [f"{_key(key)} = {_shown(key, value)}" for key, value in check_as_table(planned).items()]
    if plan.gates == ():
        lines += ["", *_comment("No [[gate]] tables: the profile's own gates decide. Yours come on top of them.")]
    for place, gate in enumerate(plan.gates or ()):
        lines += ["", *(_comment(said.get("gate", "")) if not place else []), "[[gate]]"]
        given = {key: value for key, value in gate.as_json().items() if value is not None}
        lines += [f"{key} = {toml_value(value)}" for key, value in given.items() if key != "required" or not value]
    return "\n".join(lines) + "\n"


def toml_value(value: Json) -> str:
    """JSON data, without null, as a TOML 1.0 value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON escapes are TOML escapes, but for DEL, which TOML wants escaped and JSON leaves.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, cast('list[Json]', value)))}]"
    table = cast("dict[str, Json]", value)
    inside = ", ".join(f"{_key(key)} = {toml_value(each)}" for key, each in table.items() if each is not None)
    return f"{{ {inside} }}" if inside else "{}"


def _options(name: str, options: Options, notes: Mapping[str, str]) -> list[str]:
    """One table: every field with its documentation; those at their default as comments."""
    kind = type(options)
    docs = attribute_docs(kind)
    lines = ["", *_comment(notes.get(name, "")), f"[{name}]"]
    described = ""
    for field in dataclasses.fields(cast("Any", options)):
        value = options.as_json()[field.name]
        text = docs.get(field.name, "").replace("None:", "left out:")
        if text != described:
            lines += _comment(text)
        described = text
        lines += _comment(notes.get(f"{name}.{field.name}", ""))
        if value is None:
            lines.append(f"# {field.name} =")
        elif field.name == "budget":
            lines.append(f"budget = {_spoken(cast('float', value))}")
        else:
            unsaid = getattr(options, field.name) == _default(field)
            lines += [f"{'# ' if unsaid else ''}{field.name} = {toml_value(value) if unsaid else _wrapped(value)}"]
    return lines


def _spoken(seconds: float) -> str:
    """A time in the form that people write, where that is exact."""
    whole = int(seconds)
    if whole != seconds or whole > 86_400:
        return repr(seconds)
    return f'"{whole // 60}m"' if whole % 60 == 0 else f'"{whole}s"'


def _default(field: dataclasses.Field[Any]) -> Json:
    return field.default_factory() if callable(field.default_factory) else field.default


def _wrapped(value: Json) -> str:
    """A long list on several lines, so that a thousand class names can be read."""
    text = toml_value(value)
    if len(text) <= _WIDTH or not isinstance(value, list):
        return text
    items = [toml_value(each) for each in cast("list[Json]", value)]
    return "[\n" + "".join(f"    {item},\n" for item in items) + "]"


def _shown(key: str, value: Json) -> str:
    """A value of a check; radii that are whole 255ths and no short decimals are written as the fractions they are."""
    if key in _FRACTIONS:
        values = cast("list[Json]", value) if isinstance(value, list) else [value]
        fractions = [_fraction(each) for each in values]
        return f"[{', '.join(fractions)}]" if isinstance(value, list) else fractions[0]
    return toml_value(value)


def _fraction(value: Json) -> str:
    if isinstance(value, int | float) and 0 < value < 1:
        text = f"{round(value * 255)}/255"
        if len(repr(value)) > _SHORT and parse_ratio(text) == value:
            return toml_value(text)
    return toml_value(value)


def _comment(text: str) -> list[str]:
    """Comment lines; no text can leave its comment, whatever file name or class name it quotes."""
    lines = [
        "".join(char if char.isprintable() else " " for char in line) for line in text.splitlines() if line.strip()
    ]
    return [f"# {part}" for line in lines for part in textwrap.wrap(line, _WIDTH - 2, break_on_hyphens=False)]


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else toml_value(name)
