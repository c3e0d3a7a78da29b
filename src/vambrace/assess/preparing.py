"""From a plan to what can be run: model and data opened, preflight passed, checks chosen, every choice fixed.

Nothing is written here: a model or data that is refused leaves no run directory behind.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vambrace.assess.documents import documents_digest, documents_of, packages_of, read_documents
from vambrace.assess.effort import CHUNK_BATCHES, chunk_for, rows_a_sample
from vambrace.assess.environment import device_class, versions
from vambrace.assess.facts import Samples, data_facts, model_facts
from vambrace.assess.fit import Subject
from vambrace.assess.opening import open_data, open_model
from vambrace.assess.planfile import settled
from vambrace.assess.preflight import Preflight, preflight
from vambrace.assess.presets import resolve
from vambrace.assess.reach import reach_flags
from vambrace.assess.shipped import majority
from vambrace.assess.uncovered import uncovered
from vambrace.assess.units import Documents, Unit, cut
from vambrace.assess.worker import arithmetic
from vambrace.core.findings import Left
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vambrace.assess.plan import Plan, PlannedCheck
    from vambrace.core.progress import Progress
    from vambrace.data.batches import Batches
    from vambrace.models.contract import Model

__all__ = ["Job", "Opened", "check_workers", "open_job", "prepare", "remarks_on", "units_of"]

Json = Any


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Opened:
    """A model and data, and what is known about them before the model is asked anything.

    Attributes:
        model: the model under assessment.
        batches: data by role.
        samples: per role, which samples there are.
        declared: what the user says the model is, for one that has no identity; else "".
        seconds: wall time of opening and reading them.
    """

    model: Model
    batches: Mapping[str, Batches]
    samples: Mapping[str, Samples]
    declared: str
    seconds: float

    def facts(self) -> dict[str, Json]:
        """Both as JSON data, under "model" and "data"; see `vambrace.assess.facts`."""
        return {
            "model": model_facts(self.model, declared=self.declared),
            "data": {role: data_facts(source, self.samples[role]) for role, source in self.batches.items()},
        }


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Job:
    """What can be run.

    Attributes:
        plan: with every choice made.
        opened: model and data.
        checked: what preflight found.
        left_out: what is not tested, and why.
        seconds: wall time of preflight.
    """

    plan: Plan
    opened: Opened
    checked: Preflight
    left_out: tuple[Left, ...]
    seconds: float

    def facts(self) -> dict[str, Json]:
        """Those of what was opened, with what preflight learned about the model."""
        facts = self.opened.facts()
        learned = {"input_shape": list(self.checked.input_shape), "num_classes": self.checked.num_classes}
        return {**facts, "model": facts["model"] | learned}


def open_job(
    plan: Plan,
    *,
    model: Model | None,
    batches: Mapping[str, Batches] | None,
    declared: str,
    progress: Progress,
) -> Opened:
    """Open what the plan names, or take what is given in memory, and read the data once.

    Raises:
        ConfigError, ModelRefused, DataRefused: see `vambrace.assess.opening`.
    """
    began = time.perf_counter()
    progress.start("load", 2)
    model = model or open_model(plan)
    progress.advance("load", 1, "model")
    batches = batches or open_data(plan, progress=progress)
    samples = {role: Samples.of(source) for role, source in batches.items()}
    progress.advance("load", 1, "data")
    progress.finish("load")
    return Opened(model=model, batches=batches, samples=samples, declared=declared, seconds=time.perf_counter() - began)


def _first(opened: Opened) -> Samples:
    """The samples that are assessed."""
    return opened.samples["eval" if "eval" in opened.samples else next(iter(opened.samples))]


def prepare(plan: Plan, opened: Opened, *, only: Sequence[str], progress: Progress) -> Job:
    """Preflight, choose checks and gates, and fix batch, threads and chunk.

    Raises:
        ModelRefused, DataRefused: for what cannot be measured.
        AccessError, ConfigError, MissingExtra: for checks that the user named and that cannot run.
    """
    model = opened.model
    began = time.perf_counter()
    progress.start("preflight", 1)
    with arithmetic(plan):
        checked = preflight(model, opened.batches, plan)
    subject = Subject(
        access=model.access,
        roles=tuple(opened.batches),
        input_shape=checked.input_shape,
        span=None if model.bounds is None else model.bounds.span,
        num_classes=checked.num_classes,
        majority=majority([*Counter(_first(opened).labels).values()]),
    )
    named = bool(plan.checks)
    plan, left = resolve(plan, subject, only=only)
    _documents(plan)  # what cannot be read ends the run before anything is written
    values = math.prod(checked.input_shape)
    checked = checked.remarked(reach_flags(plan.checks, spread=checked.spread, values=values))
    progress.finish("preflight", checked.finding.sentence)
    fixed = dataclasses.replace(
        plan.run,
        batch=checked.batch,
        threads=checked.threads,
        chunk=plan.run.chunk or CHUNK_BATCHES * checked.batch,
        device=str(model.device),
    )
    checks = tuple(dataclasses.replace(each, chunk=_chunk(plan, each, checked, fixed.device)) for each in plan.checks)
    return Job(
        plan=settled(dataclasses.replace(plan, run=fixed, checks=checks)),
        opened=opened,
        checked=checked,
        left_out=(
            *left,
            *uncovered(plan.checks, access=model.access, named=named),
            *_skipped(opened.batches),
        ),
        seconds=time.perf_counter() - began,
    )


def _chunk(plan: Plan, planned: PlannedCheck, checked: Preflight, device: str) -> int | None:
    """Samples in a unit of this check; None where the plan says one number for all."""
    if planned.chunk or plan.run.chunk:
        return planned.chunk
    rows = rows_a_sample(planned.check, classes=checked.num_classes)
    return chunk_for(rows, operations=checked.row_operations, batch=checked.batch, device=device)


def units_of(plan: Plan, opened: Opened, facts: Mapping[str, Json]) -> tuple[Unit, ...]:
    """The units of a fixed plan, keyed for this machine and these versions."""
    return cut(
        plan,
        opened.samples,
        model=facts["model"],
        data=facts["data"],
        versions=versions(facts["model"]["kind"] or ""),
        device=device_class(opened.model.device),
        documents=_documents(plan),
    )


def _documents(plan: Plan) -> dict[str, Documents]:
    """What the plan's checks of documents read, as it is now.

    Raises:
        ConfigError: E174, for a file that cannot be read.
        MissingExtra: E112, for a package that such a check needs.
    """
    found: dict[str, Documents] = {}
    for planned in plan.checks:
        if documents_of(planned.check):
            contents = read_documents(planned.check, plan.base)
            found[planned.id] = Documents(
                count=len(contents), digest=documents_digest(contents), packages=packages_of(planned.check)
            )
    return found


def check_workers(plan: Plan, *, in_memory: bool) -> None:
    """Refuse other processes for what only this one has.

    Raises:
        ConfigError: E512.
    """
    if in_memory and plan.run.workers > 1:
        raise ConfigError(
            "E512",
            seen=f"{plan.run.workers} workers for a model or data in memory",
            expected="what every process can open: a model file or factory, and a data source",
            fix="name them in a plan, or use one worker",
        )


def remarks_on(source: Batches) -> tuple[str, ...]:
    """What is odd about one role's data, and what of it was passed over; sentences for people."""
    warnings: Sequence[str] = getattr(source, "warnings", ())
    skipped: Sequence[tuple[str, str]] = getattr(source, "skipped", ())
    ignored: int = getattr(source, "ignored", 0)
    return (
        *warnings,
        *([f"left out as unusable: {_listed(skipped)}"] if skipped else []),
        *([f"passed over: {ignored} hidden or other file{'' if ignored == 1 else 's'}"] if ignored else []),
    )


def _skipped(batches: Mapping[str, Batches]) -> list[Left]:
    """Files of the data that could not be used, and what is odd about the rest: it bounds what was tested."""
    left: list[Left] = []
    for role, source in batches.items():
        skipped: Sequence[tuple[str, str]] = getattr(source, "skipped", ())
        warnings: Sequence[str] = getattr(source, "warnings", ())
        if skipped:
            files = f"{len(skipped)} unusable file{'' if len(skipped) == 1 else 's'}"
            left.append(Left(name=f"{files} in {role}", reason=_listed(skipped)))
        left += [Left(name=f"{role} data", reason=warning) for warning in warnings]
    return left


def _listed(skipped: Sequence[tuple[str, str]]) -> str:
    name, why = skipped[0]
    return f"{name}: {why}" + (f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else "")
