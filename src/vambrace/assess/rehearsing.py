"""What a plan would do: everything up to the first unit, and nothing written. For --dry-run, `check` and `init`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vambrace.assess.preparing import open_job, prepare, units_of
from vambrace.core.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.assess.plan import Plan, PlannedCheck
    from vambrace.assess.preflight import Preflight
    from vambrace.core.findings import Finding, Left
    from vambrace.data.batches import Batches
    from vambrace.models.contract import Model

__all__ = ["Rehearsal", "rehearse"]

Json = Any

UNRELIABLE = 5


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
    """

    plan: Plan
    resolved: Plan
    finding: Finding
    facts: Mapping[str, Json]
    samples: Mapping[str, int]
    units: Mapping[str, int]
    seconds: Mapping[str, float]
    left_out: tuple[Left, ...]

    @property
    def exit_code(self) -> int:
        """0, or 5 when preflight found that numbers about this model would mean nothing."""
        return UNRELIABLE if any(flag.level == "unreliable" for flag in self.finding.flags) else 0

    def lines(self) -> list[str]:
        """The rehearsal for people, one fact a line."""
        run = self.resolved.run
        width = max([12, *(len(planned.id) for planned in self.resolved.checks)])
        return [
            f"model        {_model(self.facts['model'])}",
            *(f"{role:<12} {_data(facts)}" for role, facts in self.facts["data"].items()),
            f"classes      {self._classes()}",
            f"run          {run.device}, batch {run.batch}, chunk {run.chunk}, "
            f"threads {run.threads}, workers {run.workers}",
            f"preflight    {self.finding.sentence}",
            *(f"  {flag.level:<10} {flag.code} {flag.text}" for flag in self.finding.flags),
            *(
                f"check        {planned.id:<{width}} {self.samples[planned.id]} samples, "
                f"{self.units[planned.id]} units, about {_time(self.seconds[planned.id])}"
                for planned in self.resolved.checks
            ),
            f"in all       about {_time(sum(self.seconds.values()) / run.workers)}",
            *(f"left out     {left.name}: {left.reason}" for left in self.left_out),
        ]

    def notes(self) -> dict[str, str]:
        """What was seen, as comments for a plan file: place to text."""
        found = {"model": _model(self.facts["model"]), "contract": f"class order: {self._classes()}"}
        found |= {f"data.{role}": _data(facts) for role, facts in self.facts["data"].items()}
        found["run"] = f"about {_time(sum(self.seconds.values()))} on this machine with one worker"
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
            "run": self.resolved.run.as_json(),
        }

    def _classes(self) -> str:
        data = self.facts["data"]
        names = (data.get("eval") or next(iter(data.values())))["class_names"]
        shown = ", ".join(f"{place} {name}" for place, name in enumerate(names[:20]))
        return (shown + (f", ... {len(names)} in all" if len(names) > 20 else "")) or "not named"


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
    job = prepare(plan, opened, only=only, progress=progress)
    facts = job.facts()
    units = units_of(job.plan, opened, facts)
    samples = {planned.id: 0 for planned in job.plan.checks}
    counts = dict.fromkeys(samples, 0)
    for unit in units:
        samples[unit.name] += len(unit.positions)
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
    )


def _seconds(planned: PlannedCheck, samples: int, checked: Preflight) -> float:
    """An upper guess: every sample uses all its steps."""
    check = planned.check
    attack = getattr(check, "attack", None)
    if attack is None:
        forwards = 1 + len(getattr(check, "severities", ()))
        return samples * forwards * checked.forward_seconds
    steps = (getattr(attack, "steps", 1) + 1) * max(1, getattr(attack, "restarts", 1))
    row = checked.gradient_seconds or checked.forward_seconds
    return samples * len(getattr(check, "eps", (0,))) * steps * row


def _model(facts: Mapping[str, Json]) -> str:
    shape = "x".join(str(size) for size in facts["input_shape"])
    return (
        f"{facts['name']}: gives {facts['access']}, inputs {shape} in {facts['bounds']}, {facts['num_classes']} outputs"
    )


def _data(facts: Mapping[str, Json]) -> str:
    return f"{facts['name']}: {facts['n']} samples in {sum(count > 0 for count in facts['counts'])} classes"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
