"""The end of a run: findings, gates, verdict, results.json, reports.

results.json is written first and holds nothing that differs between equal runs. Whatever fails after it costs its
own file and the exit code, never the results.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vambrace.assess.documents import documents_of, packages_of
from vambrace.assess.environment import versions
from vambrace.assess.gates import against_baseline, apply, judge
from vambrace.assess.reduction import keep_valid, quiet, reduce_units
from vambrace.assess.units import chosen
from vambrace.assess.verdict import Ending, verdict
from vambrace.core import canonical
from vambrace.core.findings import Results
from vambrace.core.outcomes import pack
from vambrace.errors import ResourceError
from vambrace.report import write as write_reports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vambrace.assess.checks.base import Check
    from vambrace.assess.engine import Ended
    from vambrace.assess.facts import Samples
    from vambrace.assess.plan import Plan
    from vambrace.assess.rundir import RunDirectory
    from vambrace.assess.units import Unit
    from vambrace.core.findings import Finding, Left

__all__ = ["Concluded", "Format", "conclude", "deliver"]

Format = Literal["html", "json", "junit"]
Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Concluded:
    """What a run found, before anything is written.

    Attributes:
        results: for results.json: nothing in it differs between equal runs.
        ending: the facts behind the verdict, in full words.
    """

    results: Results
    ending: Ending


def conclude(
    plan: Plan,
    units: Sequence[Unit],
    ended: Ended,
    *,
    facts: Mapping[str, Json],
    samples: Mapping[str, Samples],
    preflight: Finding,
    left_out: Sequence[Left],
    baseline: Results | None = None,
) -> Concluded:
    """Findings, gates and verdict from the records of all units.

    Args:
        plan: with every choice made.
        units: all units of the plan.
        ended: how they ended.
        facts: "model" and "data", see `vambrace.assess.facts`.
        samples: per role, which samples there are.
        preflight: its finding; its flags concern all others.
        left_out: what was not tested.
        baseline: results of the run to compare with.
    """
    class_names = _class_names(facts)
    reduced = reduce_units(
        plan,
        units,
        ended.done,
        flags=preflight.flags,
        num_classes=int(facts["model"]["num_classes"] or len(class_names)),
        class_names=class_names,
        reason=f"resources: {ended.failure.code}" if ended.failure else ended.reason,
    )
    data = {role: _data(role_facts) for role, role_facts in facts["data"].items()}
    gates = against_baseline(plan.gates, baseline)
    findings = (preflight, *reduced.findings)
    starved = [f"{error['code']}: {error['seen']}" for error in reduced.errors if error["type"] == "ResourceError"]
    if ended.failure:
        starved.insert(0, f"{ended.failure.code}: {ended.failure.seen}")
    ending = Ending(
        findings=findings,
        gates=(),
        judged=gates is not None,
        required=[planned.id for planned in plan.checks if planned.required],
        unfinished=_unfinished(plan, ended, reduced.unfinished, len(units)),
        starved=starved[0] if starved else "",
        interrupted=ended.reason == "interrupted",
        bug=quiet("; ".join(dict.fromkeys(reduced.bugs))),
    )
    results = Results(
        schema="vambrace/results/1",
        model=_model(facts["model"], class_names),
        data=data,
        plan=_plan(plan, samples, facts["model"]["dtype"]),
        versions=versions(facts["model"]["kind"] or "") | _used(plan),
        findings=findings,
        gates=(),
        left_out=tuple(left_out),
        verdict=verdict(ending),
    )
    results, unusable = keep_valid(results)
    judged = judge(gates or (), results.findings, data=data, plan=results.plan, baseline=baseline)
    ending = dataclasses.replace(
        ending,
        findings=apply(results.findings, judged),
        gates=judged,
        bug=quiet("; ".join(dict.fromkeys([*reduced.bugs, *unusable]))),
    )
    silent = dataclasses.replace(ending, starved=_without_space(ending.starved))
    results = dataclasses.replace(
        results,
        plan={**results.plan, "ending": _how_it_ended(silent)},
        findings=tuple(ending.findings),
        gates=judged,
        verdict=verdict(silent),
    )
    return Concluded(results=results, ending=ending)


def deliver(
    concluded: Concluded,
    directory: RunDirectory,
    *,
    formats: Sequence[Format],
    timings: Mapping[str, Json],
    environment: Mapping[str, Json],
) -> tuple[Results, tuple[Path, ...]]:
    """Write results.json, then timings and reports; what was written, and the results as they stand after that.

    A disk that fails here is not raised: it becomes part of the verdict that is handed back.
    """
    results, ending = concluded.results, concluded.ending
    written: list[Path] = []
    try:
        written.append(directory.write_json("results.json", results.as_json()))
    except ResourceError as error:
        ending = dataclasses.replace(ending, unwritten=error.seen)
        return dataclasses.replace(results, verdict=verdict(ending)), ()
    try:
        directory.write_json("timings.json", timings)
        others: list[Format] = [name for name in formats if name != "json"]
        # As everybody else will read them: a report that is written again comes out byte for byte the same.
        told = Results.from_json(_as_stored(results.as_json()))
        beside = {"timings": _as_stored(timings), "environment": _as_stored(environment)}
        for name in others:  # one at a time: what is on the disk counts, whatever becomes of the next
            written += write_reports(told, directory.path, [name], **beside)
    except ResourceError as error:
        ending = dataclasses.replace(ending, starved=ending.starved or f"{error.code}: {error.seen}")
    return dataclasses.replace(results, verdict=verdict(ending)), tuple(written)


def _as_stored(data: Json) -> Json:
    return canonical.loads(canonical.dumps(data))


def _class_names(facts: Mapping[str, Json]) -> tuple[str, ...]:
    data = facts["data"]
    first = data.get("eval") or next(iter(data.values()), None)
    return tuple(first["class_names"]) if first else ()


def _unfinished(plan: Plan, ended: Ended, missing: int, total: int) -> str:
    if not missing:
        return ""
    count = f"{missing} of {total} units did not run"
    match ended.reason:
        case "budget":
            return f"the budget of {plan.run.budget:g} s was spent, and {count}"
        case "stopped":
            return f"the run was told to stop, and {count}"
        case _:
            return count


def _without_space(text: str) -> str:
    """The sentence for results.json: how much room was left differs from run to run."""
    return quiet(text.partition(" (")[0]) if text.startswith("E601") else quiet(text)


def _model(facts: Mapping[str, Json], class_names: Sequence[str]) -> dict[str, Json]:
    same = ("name", "access", "bounds", "outputs", "input_shape", "num_classes")
    return {
        **{name: facts[name] for name in same},
        "sha256": facts["weights"],
        "kind": facts["kind"] or "memory",
        "class_names": list(class_names),
    }


def _data(facts: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "name": facts["name"],
        "n": facts["n"],
        "classes": sum(count > 0 for count in facts["counts"]),
        "counts": list(facts["counts"]),
        "sha256": facts["sha256"],
        "ids": facts["ids"],
    }


def _how_it_ended(ending: Ending) -> dict[str, Json]:
    """What cut the run short, for whoever judges it again."""
    return {
        "unfinished": ending.unfinished,
        "starved": ending.starved,
        "interrupted": ending.interrupted,
        "bug": ending.bug,
    }


def _plan(plan: Plan, samples: Mapping[str, Samples], dtype: str) -> dict[str, Json]:
    return {
        "profile": plan.profile,
        "seed": plan.seed,
        "checks": [
            {
                "id": planned.id,
                "kind": planned.check.kind,
                "required": planned.required,
                "limit": planned.limit,
                "chunk": planned.chunk or plan.run.chunk,
                "samples": {role: _measured(samples[role], planned.limit) for role in planned.check.roles},
                "options": _shown(planned.check),
            }
            for planned in plan.checks
        ],
        "gates": None if plan.gates is None else [gate.as_json() for gate in plan.gates],
        "chunk": plan.run.chunk,
        "batch": plan.run.batch,
        "threads": plan.run.threads,
        "dtype": dtype,
        "device": plan.run.device.partition(":")[0],
    }


def _shown(check: Check) -> dict[str, Json]:
    """Options, with the names of files in place of their paths, which are different on every machine."""
    return check.as_json() | {name: Path(path).name for name, path in documents_of(check).items()}


def _used(plan: Plan) -> dict[str, str]:
    """Versions of the optional packages that checks of documents rest on."""
    return {name: version for planned in plan.checks for name, version in packages_of(planned.check).items()}


def _measured(samples: Samples, limit: int | None) -> str:
    """Which samples of a role a check with this limit measures, packed; see `vambrace.assess.sampled`."""
    taken = {samples.ids[position] for position in chosen(samples, limit)}
    return pack([each in taken for each in sorted(samples.ids)])
