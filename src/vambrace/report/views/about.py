"""What was tested, how to run it again, and what it cost."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from vambrace.report.text import eps_text, number, seconds_text, thousands
from vambrace.report.words import ACCESS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.core.findings import Cost, Results

__all__ = [
    "Command",
    "CostRow",
    "Fact",
    "Planned",
    "commands",
    "cost_rows",
    "facts",
    "planned",
    "seconds_by_check",
    "subject",
]


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of "what was tested"; `code` is set in a fixed-width face."""

    name: str
    value: str
    code: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """One check of the plan, with its options as text."""

    check: str
    kind: str
    need: str
    options: str


@dataclass(frozen=True, slots=True)
class Command:
    """One command line with what it does."""

    purpose: str
    line: str


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one check cost."""

    check: str
    seconds: str
    cells: tuple[str, ...]
    total: bool = False


def subject(results: Results) -> list[str]:
    """What this report is about, in a few words."""
    roles = cast("Mapping[str, Mapping[str, Any]]", results.data)
    data = roles.get("eval") or next(iter(roles.values()), None)
    parts = [str(results.model.get("name", ""))]
    if data:
        parts.append(f"{_count(data.get('n'))} samples of {data.get('name', '')}")
    parts.append(f"profile {results.plan.get('profile', '')}, seed {results.plan.get('seed', '')}")
    return [part for part in parts if part]


def facts(results: Results, environment: Mapping[str, Any]) -> list[tuple[str, list[Fact]]]:
    """Groups of facts: model, data, run, versions."""
    model, plan = results.model, results.plan
    return [
        ("Model", [fact for fact in _model(model) if fact.value]),
        ("Data", [fact for role, data in results.data.items() for fact in _data(role, data)]),
        (
            "Run",
            [
                fact
                for fact in (
                    Fact("Profile", str(plan.get("profile", ""))),
                    Fact("Seed", str(plan.get("seed", ""))),
                    Fact("Precision", str(plan.get("dtype", ""))),
                    Fact("Device", str(environment.get("device") or plan.get("device") or "")),
                    Fact("Threads", _count(plan.get("threads"))),
                    Fact("Batch, unit", _pair(plan.get("batch"), plan.get("chunk"))),
                    Fact("Machine", _pair(environment.get("platform"), environment.get("cpu"))),
                    Fact("Started", str(environment.get("started") or "")),
                )
                if fact.value
            ],
        ),
        ("Versions", [Fact(name, version) for name, version in results.versions.items()]),
    ]


def planned(results: Results) -> list[Planned]:
    """The checks of the plan, in their order."""
    return [
        Planned(
            check=str(check.get("id", "")),
            kind=str(check.get("kind", "")),
            need="required" if check.get("required") else "optional",
            options=_options(check),
        )
        for check in cast("list[Mapping[str, Any]]", results.plan.get("checks") or [])
    ]


def commands(results: Results, environment: Mapping[str, Any], run: str) -> list[Command]:
    """Command lines that repeat the run, one finding, and the judgement."""
    made: list[Command] = []
    typed = environment.get("command")
    if isinstance(typed, list | tuple) and typed:
        made.append(Command("The command of this run:", shlex.join(str(part) for part in cast("list[object]", typed))))
    plan = environment.get("plan_file")
    if isinstance(plan, str) and plan.endswith(".toml"):
        made.append(
            Command("The same from the plan that the run kept:", f"vambrace assess {shlex.quote(f'{run}/{plan}')}")
        )
    if not made:
        made.append(
            Command(
                "The command line was not recorded. This resumes or repeats the run:", _line("assess", "--resume", run)
            )
        )
    own = ("python", "vambrace")  # what pip does not bring, and what may be of no release
    pinned = [f"{name}=={version.partition('+')[0]}" for name, version in results.versions.items() if name not in own]
    beside = ", ".join(f"{name} {results.versions[name]}" for name in own if name in results.versions)
    made.append(Command(f"With the same versions, beside {beside}:", _pip(pinned)))
    shown = next((item.finding for finding in results.findings for item in finding.evidence), None)
    if shown:
        made.append(
            Command("Carry out a saved example again; any name under a picture will do:", _line("replay", run, shown))
        )
    made.append(Command("Judge the numbers again without measuring:", _line("gate", run)))
    return made


def seconds_by_check(timings: Mapping[str, Any]) -> dict[str, float]:
    """Seconds per check id, as far as they were recorded."""
    return _seconds(timings.get("checks"))


def cost_rows(results: Results, timings: Mapping[str, Any]) -> tuple[list[CostRow], list[Fact]]:
    """A row a check with a sum at the end, and the phases of the run."""
    took = seconds_by_check(timings)
    costs: dict[str, Cost] = {}
    for finding in results.findings:
        costs[finding.check] = finding.cost
    rows = [_cost_row(check, cost, took.get(check)) for check, cost in costs.items()]
    if len(rows) > 1:
        whole = sum(list(costs.values())[1:], start=next(iter(costs.values())))
        rows.append(replace(_cost_row("All checks", whole, sum(took.values()) if took else None), total=True))
    phases = [Fact(name, seconds_text(value)) for name, value in _seconds(timings.get("phases")).items()]
    total = timings.get("total")
    if isinstance(total, int | float):
        phases.append(Fact("Whole run", seconds_text(total)))
    return rows, phases


def _model(model: Mapping[str, Any]) -> list[Fact]:
    shape = cast("list[object] | None", model.get("input_shape"))
    return [
        Fact("File", str(model.get("name", ""))),
        Fact("SHA-256", str(model.get("sha256") or "none"), code=True),
        Fact("Kind", f"{model.get('kind', '')}, {model.get('outputs', '')}"),
        Fact("Access", f"{_access(model.get('access'))}: the most that the attacks could use"),
        Fact("Classes", _count(model.get("num_classes"))),
        Fact("Input", " \u00d7 ".join(map(str, shape)) if shape else ""),
        Fact("Bounds", _bounds(model.get("bounds"))),
    ]


def _access(name: object) -> str:
    return ACCESS.get(str(name), str(name or ""))


def _data(role: str, data: Mapping[str, Any]) -> list[Fact]:
    names = {"eval": "Evaluation", "members": "Members (training data)", "nonmembers": "Non-members"}
    text = f"{data.get('name', '')}: {_count(data.get('n'))} samples, {_count(data.get('classes'))} classes"
    found = [Fact(names.get(role, role), text)]
    if data.get("sha256"):
        found.append(Fact("SHA-256", str(data["sha256"]), code=True))
    return found


def _options(check: Mapping[str, Any]) -> str:
    options = cast("Mapping[str, object]", check.get("options") or {})
    parts = [f"{_words(name)} {_option(value, options)}" for name, value in options.items() if _is_said(value)]
    if check.get("limit"):
        parts.append(f"at most {check['limit']} samples")
    return "; ".join(parts)


def _option(value: object, outer: Mapping[str, object]) -> str:
    """One value; of a method inside (`attack`, `perturbation`) its name and what the check does not say itself."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return eps_text(value)
    if isinstance(value, list | tuple):
        return " ".join(_option(item, outer) for item in cast("list[object]", value))
    if isinstance(value, dict):
        inner = cast("dict[str, object]", value)
        own = [
            f"{_words(key)} {_option(item, outer)}"
            for key, item in inner.items()
            if key != "name" and key not in outer and _is_said(item)
        ]
        return f"{inner.get('name', '')} ({', '.join(own)})" if own else str(inner.get("name", ""))
    return str(value)


def _is_said(value: object) -> bool:
    return value is not None and value not in ("", [], {})


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cost_row(check: str, cost: Cost, seconds: float | None) -> CostRow:
    beside = cost.idle_forwards + cost.idle_backwards + cost.padding_forwards + cost.padding_backwards
    cells = (cost.forwards, cost.backwards, cost.verifications, cost.queries, beside)
    shown = tuple(thousands(cell) if cell else "\u2013" for cell in cells)
    return CostRow(check, seconds_text(seconds) if seconds is not None else "\u2013", shown)


def _bounds(bounds: object) -> str:
    if not isinstance(bounds, list | tuple):
        return "none"
    ends = cast("list[object]", bounds)
    if len(ends) == 2 and all(isinstance(end, int | float) for end in ends):
        return f"{number(cast('float', ends[0]))} to {number(cast('float', ends[1]))}"
    return "one box a feature"


def _seconds(table: object) -> dict[str, float]:
    if not isinstance(table, dict):
        return {}
    return {
        name: float(value)
        for name, value in cast("dict[str, object]", table).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _pair(*values: object) -> str:
    return ", ".join(str(value) for value in values if value is not None and value != "")


def _pip(pinned: list[str]) -> str:
    return shlex.join(("pip", "install", *pinned))


def _line(*words: str) -> str:
    return shlex.join(("vambrace", *words))
