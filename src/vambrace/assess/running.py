"""An assessment from beginning to end: what `vambrace assess` calls, and `assess.run` for models in memory.

    from vambrace import assess, data, models
    model = models.from_torch(network, bounds=(0, 1), identity="digits-cnn-3")
    report = assess.run(model, data.load("digits:test"), profile="smoke")
    report.exit_code, report.path

`execute` runs a plan, `rehearse` says what it would do, `resume` goes on with a run, `run` is `execute` for what is in
memory. A run whose model or data
is refused leaves nothing behind; every other ends in a directory with results.json, also when it was cut short.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vambrace.assess.engine import run_units
from vambrace.assess.environment import environment
from vambrace.assess.facts import check_same_data, check_same_model
from vambrace.assess.finishing import conclude, deliver
from vambrace.assess.journal import Journal
from vambrace.assess.plan import DataSpec, GateSpec, ModelSpec, Plan, PlannedCheck, RunSpec, TrustSpec
from vambrace.assess.planfile import plan_as_json, plan_from_json
from vambrace.assess.preparing import Opened, check_workers, open_job, prepare, units_of
from vambrace.assess.rehearsing import Rehearsal, rehearsal_of, rehearse
from vambrace.assess.report import Report
from vambrace.assess.rundir import RunDirectory
from vambrace.assess.stopping import Stop
from vambrace.assess.worker import Worker, arithmetic
from vambrace.core import canonical
from vambrace.core.clock import now
from vambrace.core.contract import InputContract
from vambrace.core.findings import Finding, Left
from vambrace.core.progress import Progress, silent
from vambrace.executors import ProcessExecutor, SerialExecutor
from vambrace.report.reading import read_results

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vambrace.assess.checks.base import Check
    from vambrace.assess.engine import Ended
    from vambrace.assess.finishing import Format
    from vambrace.assess.units import Unit
    from vambrace.data.batches import Batches
    from vambrace.executors import Executor
    from vambrace.models.contract import Model

__all__ = ["Rehearsal", "Report", "execute", "rehearse", "resume", "run"]

_FORMATS: tuple[Format, ...] = ("html", "json", "junit")
_WORKER = "vambrace.assess.worker:build"

Json = Any


def execute(
    plan: Plan,
    *,
    model: Model | None = None,
    batches: Mapping[str, Batches] | None = None,
    identity: str = "",
    only: Sequence[str] = (),
    baseline: Path | None = None,
    name: str | None = None,
    formats: Sequence[Format] = _FORMATS,
    announce: Callable[[Rehearsal], None] | None = None,
    progress: Progress = silent,
) -> Report:
    """Carry out a plan in a new run directory below `plan.run.out`.

    Args:
        plan: what to do; checks and gates it leaves open are chosen by its profile.
        model: in place of the plan's source.
        batches: data by role, in place of the plan's sources.
        identity: what the model in `model` is, for one that has no identity of its own; needed to resume the run.
        only: keep the checks of these ids or kinds; empty: all.
        baseline: a finished run directory that this run may not fall below.
        name: of the run directory; None: time and random id.
        formats: which reports are written beside results.json.
        announce: told what will run, once it is known and before anything is written.
        progress: who listens.

    Raises:
        ConfigError, AccessError, ModelRefused, DataRefused: before anything is written.
        ResourceError: when the run directory cannot be made or written, before units start.
    """
    check_workers(plan, in_memory=model is not None or batches is not None)
    kept = None if baseline is None else canonical.dumps(read_results(baseline / "results.json").as_json())
    opened = open_job(plan, model=model, batches=batches, declared=identity, progress=progress)
    job = prepare(plan, opened, only=only, progress=progress)
    if announce:
        announce(rehearsal_of(plan, job))
    facts = {
        **job.facts(),
        "preflight": job.checked.finding.as_json(),
        "left_out": [dataclasses.asdict(left) for left in job.left_out],
    }
    with (
        Stop(plan.run.budget) as stop,
        RunDirectory.create(
            Path(plan.run.out), plan=plan_as_json(job.plan), facts=facts, name=name, baseline=kept
        ) as directory,
    ):
        return _carry_out(
            directory,
            job.plan,
            opened,
            stop=stop,
            phases={"load": opened.seconds, "preflight": job.seconds},
            formats=formats,
            progress=progress,
        )


def resume(
    path: Path,
    *,
    model: Model | None = None,
    batches: Mapping[str, Batches] | None = None,
    identity: str = "",
    retry_errors: bool = False,
    budget: float | None = None,
    workers: int | None = None,
    baseline: Path | None = None,
    formats: Sequence[Format] = _FORMATS,
    progress: Progress = silent,
) -> Report:
    """Go on with the run directory `path`: units that are not in its journal run, results and reports are written anew.

    Args:
        path: a run directory.
        model: as it was given to the run; None where the run opened it itself.
        batches: the same.
        identity: the same; "" where none was given.
        retry_errors: run units again that ended in an error.
        budget: wall seconds for this part of the run; None: what the plan says.
        workers: processes for this part of the run; None: what the plan says.
        baseline: another finished run to compare with; None: the one that the run began with, if any.
        formats: which reports are written beside results.json.
        progress: who listens.

    Raises:
        ConfigError: E500 to E506 for a directory, model or data that this run cannot go on with.
        ResourceError: E600, when another process works on it.
    """
    with Stop() as stop, RunDirectory.open(path) as directory:
        plan = plan_from_json(directory.file.plan)
        here = dataclasses.replace(
            plan.run,
            budget=plan.run.budget if budget is None else budget,
            workers=plan.run.workers if workers is None else workers,
        )
        plan = dataclasses.replace(plan, run=here)
        stop.budget = plan.run.budget
        check_workers(plan, in_memory=model is not None or batches is not None)
        with stop.interruptible():
            opened = open_job(plan, model=model, batches=batches, declared=identity, progress=progress)
            facts = opened.facts()
        check_same_model(directory.file.facts["model"], facts["model"])
        check_same_data(directory.file.facts["data"], facts["data"])
        return _carry_out(
            directory,
            plan,
            opened,
            stop=stop,
            phases={"load": opened.seconds},
            formats=formats,
            progress=progress,
            retry_errors=retry_errors,
            baseline=baseline,
        )


def run(
    model: Model,
    batches: Batches,
    *,
    members: Batches | None = None,
    nonmembers: Batches | None = None,
    profile: Literal["smoke", "ci", "full"] = "ci",
    seed: int = 0,
    checks: Sequence[PlannedCheck | Check] = (),
    gates: Sequence[GateSpec] | Literal["none"] = (),
    options: RunSpec | None = None,
    out: str | Path | None = None,
    identity: str = "",
    baseline: str | Path | None = None,
    name: str | None = None,
    progress: Progress = silent,
) -> Report:
    """Assess a model in memory.

    Args:
        model: such as `models.from_torch(network, bounds=(0, 1))` or `vambrace.load(...)`.
        batches: samples it is assessed on, such as `data.load("val/")`.
        members: samples it was trained on, for privacy checks.
        nonmembers: samples it was not trained on, from the same source.
        profile: which checks run and which gates judge, where `checks` and `gates` are empty.
        seed: root of all randomness.
        checks: what to measure.
        gates: what decides; "none" measures and does not judge.
        options: budget, batch, threads, images; workers must be 1.
        out: folder that receives the run directory; None: that of `options`, by default runs/.
        identity: what the model is, where it has no identity of its own; needed to resume the run.
        baseline: a finished run directory that this run may not fall below.
        name: of the run directory; None: time and random id.
        progress: who listens.
    """
    roles = {"eval": batches, "members": members, "nonmembers": nonmembers}
    given = {role: source for role, source in roles.items() if source is not None}
    spec = options or RunSpec()
    plan = Plan(
        profile=profile,
        seed=seed,
        model=ModelSpec(),
        contract=InputContract(bounds=_scalar_bounds(model)),
        data={role: DataSpec(source="") for role in given},
        trust=TrustSpec(),
        run=spec if out is None else dataclasses.replace(spec, out=str(out)),
        checks=_planned(checks),
        gates=None if gates == "none" else tuple(gates),
    )
    return execute(
        plan,
        model=model,
        batches=given,
        identity=identity,
        baseline=None if baseline is None else Path(baseline),
        name=name,
        progress=progress,
    )


def _carry_out(
    directory: RunDirectory,
    plan: Plan,
    opened: Opened,
    *,
    stop: Stop,
    phases: dict[str, float],
    formats: Sequence[Format],
    progress: Progress,
    retry_errors: bool = False,
    baseline: Path | None = None,
) -> Report:
    """Units, findings and files of a run directory that this process holds."""
    facts = directory.file.facts
    units = units_of(plan, opened, facts)
    machine = environment(opened.model.device)
    directory.write_json("environment.json", machine)
    kept = baseline / "results.json" if baseline else directory.baseline
    compared = read_results(kept) if kept else None
    journal = Journal.open(directory.journal, directory.file.run)
    try:
        _note_incidents(journal, directory, units)
        began = time.perf_counter()
        with arithmetic(plan):
            executor = _executor(directory, plan, opened, len(units))
            ended = run_units(units, executor, journal, stop=stop, progress=progress, retry_errors=retry_errors)
        phases["units"] = time.perf_counter() - began
    finally:
        journal.close()
    began = time.perf_counter()
    concluded = conclude(
        plan,
        units,
        ended,
        facts=facts,
        samples=opened.samples,
        preflight=Finding.from_json(facts["preflight"]),
        left_out=[Left(**left) for left in facts["left_out"]],
        baseline=compared,
    )
    phases["findings"] = time.perf_counter() - began
    timings = _timings(phases, units, ended, journal)
    progress.start("report", 1)
    results, written = deliver(concluded, directory, formats=formats, timings=timings, environment=machine)
    progress.finish("report")
    return Report(
        path=directory.path,
        results=results,
        exit_code=results.verdict.exit_code,
        written=written,
        timings=timings,
        environment=machine,
    )


def _executor(directory: RunDirectory, plan: Plan, opened: Opened, units: int) -> Executor:
    if plan.run.workers == 1 or units <= 1:
        return SerialExecutor(Worker(plan, opened.model, opened.batches, evidence=directory.evidence).run)
    argument = {
        "plan": dict(directory.file.plan),
        "facts": {name: directory.file.facts[name] for name in ("model", "data")},
        "evidence": str(directory.evidence.resolve()),
    }
    return ProcessExecutor(_WORKER, argument, workers=min(plan.run.workers, units))


def _note_incidents(journal: Journal, directory: RunDirectory, units: Sequence[Unit]) -> None:
    """Put into the journal what this process found when it came, once each."""
    parsed = journal.parsed
    known = {incident.text for incident in parsed.incidents}
    found = [("E508" if damage.kind == "torn" else "E507", damage.text) for damage in parsed.damage]
    if directory.lock.stale:
        found.append(("E602", f"The lock of {directory.lock.stale} was stale and was taken over."))
    keys = {unit.key for unit in units}
    if other := [record for record in parsed.latest.values() if record.key not in keys]:
        found.append(
            (
                "E514",
                f"{len(other)} finished unit(s) were measured by other versions, on another device or of other files; "
                "they run again.",
            )
        )
    for code, text in found:
        if code == "E508" or text not in known:
            journal.append_incident(code=code, text=text, at=now())


def _timings(phases: Mapping[str, float], units: Sequence[Unit], ended: Ended, journal: Journal) -> dict[str, Json]:
    """timings.json; see docs/formats/results-v1.md and docs/formats/run-directory-v1.md."""
    records = [ended.done[unit.key] for unit in units if unit.key in ended.done]
    checks: dict[str, float] = {}
    for record in records:
        checks[record.check] = checks.get(record.check, 0.0) + record.seconds
    incidents: list[dict[str, str]] = [
        {"code": each.code, "text": each.text, "at": each.at}
        for each in (*journal.parsed.incidents, *journal.incidents)
    ]
    incidents += [
        {"code": record.error["code"], "text": record.error["seen"], "at": "", "log": record.log}
        for record in records
        if record.error is not None and record.log
    ]
    if ended.failure:
        incidents.append({"code": ended.failure.code, "text": ended.failure.seen, "at": now()})
    return {
        "total": sum(phases.values()),
        "phases": dict(phases),
        "checks": checks,
        "units": [
            {"check": record.check, "role": record.role, "chunk": record.chunk, "seconds": record.seconds}
            for record in records
        ],
        "incidents": incidents,
    }


def _planned(checks: Sequence[PlannedCheck | Check]) -> tuple[PlannedCheck, ...]:
    """Checks with ids: a bare check is called by its kind and method, and numbered where that is taken."""
    planned: list[PlannedCheck] = []
    for check in checks:
        if isinstance(check, PlannedCheck):
            planned.append(check)
            continue
        method = getattr(check, "name", "")
        norm = getattr(getattr(check, "attack", None), "norm", "")
        base = "-".join(part for part in (method or check.kind, norm) if part)
        taken = {each.id for each in planned}
        name = next(each for each in (base, *(f"{base}-{n}" for n in range(2, len(checks) + 2))) if each not in taken)
        planned.append(PlannedCheck(id=name, check=check, named=True))
    return tuple(planned)


def _scalar_bounds(model: Model) -> tuple[float, float] | None:
    bounds = model.bounds
    if bounds is None or not isinstance(bounds.low, int | float) or not isinstance(bounds.high, int | float):
        return None
    return float(bounds.low), float(bounds.high)
