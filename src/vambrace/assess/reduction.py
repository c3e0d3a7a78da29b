"""From records to findings: every check's reduction, with nothing lost and nothing improved on the way.

Pure: the same records give the same findings, whoever ran the units and when. A check whose reduction fails, or gives
what results.json cannot hold, gets an error finding in its place: one plug-in's bug does not cost the run.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vambrace.assess.checks.base import Reduction
from vambrace.assess.documents import roles_of
from vambrace.assess.worker import BUG, explain_failure
from vambrace.core import canonical
from vambrace.core.findings import Cost, Finding, Flag, Status
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError
from vambrace.report.reading import parse_results

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vambrace.assess.journal import UnitRecord
    from vambrace.assess.plan import Plan, PlannedCheck
    from vambrace.assess.units import Unit
    from vambrace.core.findings import Results

__all__ = ["Reduced", "keep_valid", "quiet", "reduce_units"]

Json = Any

_log = logging.getLogger(__name__)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")
_PATH = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:\\|/)(?:[^\s/\\'\":,;)]+[/\\])+([^\s/\\'\":,;)]*)")
_PLACE = re.compile(r"\$\.findings\[(\d+)\]")
_STOPPED = {
    "budget": "budget",
    "stopped": "the run was told to stop",
    "interrupted": "the run was interrupted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """What the checks found.

    Attributes:
        findings: in the order of the plan.
        errors: error records of units, in the order of the units.
        bugs: one sentence for each bug, of a unit or of a reduction.
        unfinished: how many units have no record.
    """

    findings: tuple[Finding, ...]
    errors: tuple[Mapping[str, str], ...]
    bugs: tuple[str, ...]
    unfinished: int


def reduce_units(
    plan: Plan,
    units: Sequence[Unit],
    done: Mapping[str, UnitRecord],
    *,
    flags: Sequence[Flag],
    num_classes: int,
    class_names: Sequence[str],
    reason: str = "",
) -> Reduced:
    """The findings of all checks.

    Args:
        plan: the plan that the units were cut from.
        units: all of them.
        done: unit key to the record that holds.
        flags: those of preflight.
        num_classes: width of the logits.
        class_names: may be empty.
        reason: why units are missing; see `vambrace.assess.stopping`, or a sentence.
    """
    own: dict[int, list[Unit]] = {}
    for unit in units:
        own.setdefault(unit.check, []).append(unit)
    clean = _clean(plan, own, done)
    findings: list[Finding] = []
    errors = [error for unit in units if unit.key in done and (error := done[unit.key].error) is not None]
    bugs = [error["seen"] for error in errors if error["type"] == BUG]
    for place, planned in enumerate(plan.checks):
        reduction = _reduction(
            plan,
            planned,
            own.get(place, []),
            done,
            flags=flags,
            clean=clean,
            num_classes=num_classes,
            class_names=tuple(class_names),
            reason=reason,
        )
        try:
            found = planned.check.reduce(reduction)
            findings += found or [_error(planned, "the check gave no finding", reduction.cost)]
        except Exception as raised:  # noqa: BLE001  one check's bug must not cost the findings of the others
            error, _ = explain_failure(raised)
            bugs.append(error["seen"])
            findings.append(
                _error(planned, f"its records could not be reduced: {quiet(error['seen'])}", reduction.cost)
            )
    return Reduced(
        findings=tuple(findings),
        errors=tuple(errors),
        bugs=tuple(bugs),
        unfinished=sum(unit.key not in done for unit in units),
    )


def keep_valid(results: Results) -> tuple[Results, tuple[str, ...]]:
    """The results with every finding that results.json cannot hold turned into an error, and a sentence for each."""
    wrong: list[str] = []
    findings = [*results.findings]
    while refused := _refused(results):
        place, why = refused
        bad = findings[place]
        wrong.append(f"{bad.check} gave a finding {bad.metric!r} that results cannot hold: {why}")
        _log.error("%s", wrong[-1])
        findings[place] = Finding(
            check=str(bad.check) or "unknown",
            family=str(bad.family) or "unknown",
            metric=f"unusable-{place}",
            value=None,
            n=0,
            status=Status.ERROR,
            sentence=f"{bad.check} gave a finding that cannot be written down.",
            reason=quiet(why),
        )
        results = dataclasses.replace(results, findings=tuple(findings))
    return results, tuple(wrong)


def quiet(text: str) -> str:
    """Text of an exception without what differs between equal runs: addresses of objects and folders of files.

    >>> quiet("no <Net object at 0x7f3a2b1c> in /home/me/nets.py")
    'no <Net object at 0x...> in nets.py'
    """
    return _PATH.sub(r"\1", _ADDRESS.sub("0x...", text))


def _refused(results: Results) -> tuple[int, str] | None:
    """The first finding that cannot be written and read again, and why; None where all can."""
    for place, finding in enumerate(results.as_json()["findings"]):
        try:
            canonical.dumps(finding)
        except (ConfigError, RecursionError) as error:
            return place, error.seen if isinstance(error, ConfigError) else "it is nested too deep"
    try:
        parse_results(canonical.dumps(results.as_json()))
    except ConfigError as error:
        found = _PLACE.search(error.seen)
        if found is None:
            raise RuntimeError(f"results that no reader would take: {error.seen}") from error
        return int(found[1]), error.seen[found.start() :]
    return None


def _reduction(
    plan: Plan,
    planned: PlannedCheck,
    units: Sequence[Unit],
    done: Mapping[str, UnitRecord],
    *,
    flags: Sequence[Flag],
    clean: Mapping[str, Mapping[str, Json]],
    num_classes: int,
    class_names: tuple[str, ...],
    reason: str,
) -> Reduction:
    records: dict[str, list[Mapping[str, Json]]] = {role: [] for role in roles_of(planned.check)}
    counts = dict.fromkeys(records, 0)
    cost, seen = Cost(), list[Flag]()
    missing = ""
    for unit in units:
        counts[unit.role] += len(unit.positions)
        record = done.get(unit.key)
        if record is None:
            missing = missing or _STOPPED.get(reason, reason) or "units did not run"
        elif record.error is not None:
            if not missing.startswith("error"):
                missing = f"error: {record.error['code']}: {quiet(record.error['seen'])}"
        elif record.result is not None:
            records[unit.role] += record.result["records"]
            cost += Cost(**record.result["cost"])
            seen += [Flag.from_json(flag) for flag in record.result["flags"]]
    return Reduction(
        check=planned.id,
        records=records,
        planned=counts,
        cost=cost,
        flags=tuple(dict.fromkeys([*seen, *flags])),
        clean=clean,
        rng=Streams(plan.seed).child(planned.id),
        num_classes=num_classes,
        class_names=class_names,
        missing=missing,
        images=plan.run.images,
    )


def _clean(
    plan: Plan, own: Mapping[int, Sequence[Unit]], done: Mapping[str, UnitRecord]
) -> dict[str, Mapping[str, Json]]:
    """Records of the first clean check by sample id."""
    place = next((place for place, planned in enumerate(plan.checks) if planned.check.kind == "clean"), None)
    held = [done[unit.key].result for unit in own.get(place, ()) if unit.key in done] if place is not None else []
    return {record["id"]: record for result in held if result for record in result["records"]}


def _error(planned: PlannedCheck, why: str, cost: Cost) -> Finding:
    return Finding(
        check=planned.id,
        family=planned.check.kind,
        metric="result",
        value=None,
        n=0,
        status=Status.ERROR,
        sentence=f"{planned.id} has no result: {why}.",
        reason=why,
        cost=cost,
    )
