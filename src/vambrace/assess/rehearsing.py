"""What a plan would do: everything up to the first unit, and nothing written. For --dry-run, `check` and `init`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vambrace.assess.documents import DOCUMENTS
from vambrace.assess.effort import rows_a_sample
from vambrace.assess.preparing import Job, open_job, prepare, remarks_on, units_of
from vambrace.core.progress import Progress, silent
from vambrace.report.words import ACCESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.assess.plan import Plan, PlannedCheck
    from vambrace.assess.preflight import Preflight
    from vambrace.core.findings import Finding, Left
    from vambrace.data.batches import Batches
    from vambrace.models.contract import Model

__all__ = ["Rehearsal", "described", "rehearsal_of", "rehearse"]

Json = Any

UNRELIABLE = 5

_MOST_CLASSES = 20


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rehearsal:
    """What would run.

    Attributes:
        plan: as it was given.
        resolved: with checks, gates, batch, threads and chunk decided.
        finding: what preflight found.
        facts: "model" and "data" as JSON data.
        samples: check id to how many samples it measures.
        units: check id to how many units that is.
        seconds: check id to the time it may take, a rough guess from preflight's timing.
        left_out: what would not be tested.
        remarks: per role, what is odd about its data and what was passed over; for "model", what it leaves open.
        right: how many of the probed samples the model gets right.
        probed: how many samples preflight looked at.
    """

    plan: Plan
    resolved: Plan
    finding: Finding
    facts: Mapping[str, Json]
    samples: Mapping[str, int]
    units: Mapping[str, int]
    seconds: Mapping[str, float]
    left_out: tuple[Left, ...]
    remarks: Mapping[str, tuple[str, ...]]
    right: int
    probed: int

    @property
    def exit_code(self) -> int:
        """0, or 5 when preflight found that numbers about this model would mean nothing."""
        return UNRELIABLE if any(flag.level == "unreliable" for flag in self.finding.flags) else 0

    def lines(self) -> list[str]:
        """The rehearsal for people, one fact a line."""
        run = self.resolved.run
        width = max([12, *(len(planned.id) for planned in self.resolved.checks)])
        return [
            *self.subject(),
            f"run          {run.device}, batch {run.batch}, at most {run.chunk} samples a unit, "
            f"threads {run.threads}, workers {run.workers}",
            *(
                f"check        {planned.id:<{width}} {_count(self.samples[planned.id], 'sample')}, "
                f"{_count(self.units[planned.id], 'unit')}, up to {_time(self.seconds[planned.id])}"
                for planned in self.resolved.checks
            ),
            f"in all       up to {_time(self.wall)}",
            *self.short_of_time(),
            *(f"left out     {left.name}: {left.reason}" for left in self.left_out),
        ]

    def subject(self) -> list[str]:
        """The model, the data, the order of classes, and what preflight thinks of them, one fact a line."""
        model, *data, classes = described(self.facts)
        lines = [model, *(f"  note       {remark}" for remark in self.remarks.get("model", ()))]
        for role, line in zip(self.facts["data"], data, strict=True):
            lines += [line, *(f"  note       {remark}" for remark in self.remarks.get(role, ()))]
        # Answers that mean nothing are not scored.
        score = "" if self.exit_code else f" {self.right} of {self.probed} probed samples are right."
        return [
            *lines,
            classes,
            f"preflight    {self.finding.sentence}{score}",
            *(f"  {flag.level:<10} {flag.code} {flag.text}" for flag in self.finding.flags),
        ]

    def outline(self) -> str:
        """How much there is to do, in one line."""
        run = self.resolved.run
        checks, units = len(self.resolved.checks), sum(self.units.values())
        return (
            f"to do        {_count(checks, 'check')} in {_count(units, 'unit')}, up to "
            f"{_time(self.wall)} on {run.device} with {_count(run.workers, 'worker')}"
        )

    @property
    def wall(self) -> float:
        """Wall seconds that all units may take: a rough guess, from above."""
        return sum(self.seconds.values()) / self.resolved.run.workers

    def short_of_time(self) -> list[str]:
        """What to expect where the budget may not do; nothing where it does."""
        budget = self.resolved.run.budget
        if budget is None or self.wall <= budget:
            return []
        return [
            f"budget       {_time(budget)} may not do for up to {_time(self.wall)}: no unit begins after it, those in "
            "flight are finished first, and what is missing makes the run incomplete (exit 4); --resume goes on"
        ]

    def notes(self) -> dict[str, str]:
        """What was seen, as comments for a plan file: place to text."""
        found = {"model": _model(self.facts["model"]), "contract": f"class order: {_classes(self.facts['data'])}"}
        found |= {f"data.{role}": _data(facts) for role, facts in self.facts["data"].items()}
        for role, remarks in self.remarks.items():
            place = role if role == "model" else f"data.{role}"
            found[place] = "\n".join([found[place], *remarks])
        found["run"] = f"up to {_time(sum(self.seconds.values()))} on this machine with one worker"
        return found

    def as_json(self) -> dict[str, Json]:
        """The rehearsal as JSON data."""
        return {
            "exit_code": self.exit_code,
            "model": self.facts["model"],
            "data": self.facts["data"],
            "preflight": self.finding.as_json(),
            "checks": [
                {
                    "id": planned.id,
                    "kind": planned.check.kind,
                    "options": planned.check.as_json(),
                    "samples": self.samples[planned.id],
                    "units": self.units[planned.id],
                    "seconds": round(self.seconds[planned.id], 3),
                }
                for planned in self.resolved.checks
            ],
            "gates": None if self.resolved.gates is None else [gate.as_json() for gate in self.resolved.gates],
            "left_out": [{"name": left.name, "reason": left.reason} for left in self.left_out],
            "remarks": {role: list(remarks) for role, remarks in self.remarks.items()},
            "probed": {"right": self.right, "n": self.probed},
            "run": self.resolved.run.as_json(),
        }


def described(facts: Mapping[str, Json]) -> list[str]:
    """The model, the data of every role, and the order of classes, one line each.

    Args:
        facts: "model" and "data", see `vambrace.assess.facts`.
    """
    return [
        f"model        {_model(facts['model'])}",
        *(f"{role:<12} {_data(each)}" for role, each in facts["data"].items()),
        f"classes      {_classes(facts['data'])}",
    ]


def rehearse(
    plan: Plan,
    *,
    model: Model | None = None,
    batches: Mapping[str, Batches] | None = None,
    only: Sequence[str] = (),
    progress: Progress = silent,
) -> Rehearsal:
    """Open, check and choose as a run of the plan would, and stop there.

    Args:
        plan: what to do.
        model: in place of the plan's source.
        batches: data by role, in place of the plan's sources.
        only: keep the checks of these ids or kinds; empty: all.
        progress: who listens.

    Raises:
        ConfigError, AccessError, ModelRefused, DataRefused: as `execute`.
    """
    opened = open_job(plan, model=model, batches=batches, declared="", progress=progress)
    return rehearsal_of(plan, prepare(plan, opened, only=only, progress=progress))


def rehearsal_of(plan: Plan, job: Job) -> Rehearsal:
    """What a prepared job would do.

    Args:
        plan: as it was given.
        job: what `prepare` made of it.
    """
    facts = job.facts()
    units = units_of(job.plan, job.opened, facts)
    samples = {planned.id: 0 for planned in job.plan.checks}
    counts = dict.fromkeys(samples, 0)
    for unit in units:
        samples[unit.name] += 0 if unit.role == DOCUMENTS else len(unit.positions)
        counts[unit.name] += 1
    return Rehearsal(
        plan=plan,
        resolved=job.plan,
        finding=job.checked.finding,
        facts=facts,
        samples=samples,
        units=counts,
        seconds={planned.id: _seconds(planned, samples[planned.id], job.checked) for planned in job.plan.checks},
        left_out=job.left_out,
        remarks=_unproven(job.plan) | {role: remarks_on(source) for role, source in job.opened.batches.items()},
        right=round(job.checked.clean * job.checked.scored),
        probed=job.checked.scored,
    )


def _unproven(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Anybody who knows a public key can seal a file to it."""
    if not plan.model.identity or plan.model.signer:
        return {}
    return {"model": ("intact, origin not proven; --signer names who must have sealed it",)}


def _seconds(planned: PlannedCheck, samples: int, checked: Preflight) -> float:
    """An upper guess: every sample uses all its steps."""
    return samples * rows_a_sample(planned.check, classes=checked.num_classes) * checked.forward_seconds


def _model(facts: Mapping[str, Json]) -> str:
    shape = "x".join(str(size) for size in facts["input_shape"])
    bounds = facts["bounds"]
    box = "without bounds" if bounds is None else "in [" + ", ".join(map(_end, bounds)) + "]"
    return f"{facts['name']}: gives {ACCESS[facts['access']]}, inputs {shape} {box}, {facts['num_classes']} outputs"


def _end(bound: Json) -> str:
    """One end of the bounds: a number, or a table of numbers that is not shown."""
    return f"{bound:g}" if isinstance(bound, int | float) else "..."


def _classes(data: Mapping[str, Json]) -> str:
    first = data.get("eval") or next(iter(data.values()))
    names = first["class_names"]
    if not names:
        return f"labels 0 to {len(first['counts']) - 1}, without names"
    if names == [str(label) for label in range(len(names))]:
        return f"0 to {len(names) - 1}, in this order"
    shown = ", ".join(f"{place} {name}" for place, name in enumerate(names[:_MOST_CLASSES]))
    return shown + (f", ... {len(names)} in all" if len(names) > _MOST_CLASSES else "")


def _data(facts: Mapping[str, Json]) -> str:
    there = sum(count > 0 for count in facts["counts"])
    of = f"{there} of {len(facts['counts'])}" if there < len(facts["counts"]) else f"{there}"
    return f"{facts['name']}: {_count(facts['n'], 'sample')} in {of} class{'es' if len(facts['counts']) != 1 else ''}"


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}{'' if number == 1 else 's'}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
