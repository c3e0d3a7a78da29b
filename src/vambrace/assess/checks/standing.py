"""How a check's findings stand: complete or not, with which flags, and what that makes of their numbers.

What was not measured never passes. A number needs every planned sample: when some are missing, there is none, and the
finding says how many there were and why. Samples without finite logits count as wrong and make the finding unreliable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vambrace.core.findings import Finding, Flag, Status
from vambrace.core.registry import name_of
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vambrace.assess.checks.base import Record, Reduction
    from vambrace.core.findings import Evidence, Interval
    from vambrace.core.options import Options

__all__ = ["Standing", "in_order", "not_finite", "registered_name", "standing"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Standing:
    """What holds for all findings of a check.

    Attributes:
        reduction: what they are made from.
        family: of the findings.
        status: of a finding that has a number.
        reason: why there is no number, or why it means nothing; else "".
        flags: that concern the family, unreliable ones first.
        complete: whether every planned sample has a record.
    """

    reduction: Reduction
    family: str
    status: Status
    reason: str
    flags: tuple[Flag, ...]
    complete: bool

    def finding(
        self,
        metric: str,
        value: float | None,
        *,
        sentence: str,
        n: int,
        unit: str = "share",
        interval: Interval | None = None,
        higher_is_better: bool = True,
        parameters: Mapping[str, Any],
        series: Mapping[str, Any] | None = None,
        evidence: Sequence[Evidence] = (),
        unmeasured: str = "",
    ) -> Finding:
        """One finding in this standing; the arguments are fields of `Finding`.

        Where records are missing, or where `unmeasured` says why this metric has no number although they are all there,
        the finding has no value, interval, series or evidence.
        """
        status, reason = self.status, self.reason
        if self.complete and unmeasured:
            status, reason = Status.NOT_MEASURED, unmeasured
        measured = self.complete and not unmeasured
        if not measured:
            sentence = f"{metric} of {self.reduction.check} was not measured: {reason}."
        elif status is Status.UNRELIABLE:
            sentence = f"{sentence} This number cannot be relied on: {reason}"
        return Finding(
            check=self.reduction.check,
            family=self.family,
            metric=metric,
            value=value if measured else None,
            n=n,
            status=status,
            sentence=sentence,
            unit=unit,
            interval=interval if measured else None,
            higher_is_better=higher_is_better,
            reason=reason,
            flags=self.flags,
            cost=self.reduction.cost,
            parameters=parameters,
            series=(series or {}) if measured else {},
            evidence=tuple(evidence) if measured else (),
        )


def standing(
    reduction: Reduction, *, family: str, roles: Sequence[str], flags: Sequence[Flag] = (), what: str = "samples"
) -> Standing:
    """How the findings of a check stand.

    Args:
        reduction: what the check has.
        family: of its findings.
        roles: whose records it needs.
        flags: what the records themselves show; flags of units and of preflight are added from the reduction.
        what: what there is a record of each.
    """
    concerned = {flag for flag in (*reduction.flags, *flags) if flag.concerns(family)}
    ordered = tuple(sorted(concerned, key=lambda flag: (flag.level != "unreliable", flag.code, flag.text)))
    status, reason = Status.MEASURED, ""
    if ordered:
        status = Status.WARN
    if ordered and ordered[0].level == "unreliable":
        status, reason = Status.UNRELIABLE, ordered[0].text
    planned = sum(reduction.planned.get(role, 0) for role in roles)
    done = sum(len(reduction.records.get(role, ())) for role in roles)
    empty = [role for role in roles if not reduction.planned.get(role, 0)]
    complete = done == planned and not empty
    if not complete:
        status, reason = _missing(reduction.missing, f"{done:,} of {planned:,} {what} were measured", empty)
    return Standing(reduction=reduction, family=family, status=status, reason=reason, flags=ordered, complete=complete)


def in_order(records: Sequence[Record]) -> list[Record]:
    """Records by sample id: what follows cannot depend on the order in which they came."""
    return sorted(records, key=lambda record: int(record["id"]))


def not_finite(records: Sequence[Record], *, family: str) -> list[Flag]:
    """The flag E410 where records say that the model gave no numbers; else nothing."""
    bad = sum(not record["finite"] for record in records)
    if not bad:
        return []
    text = f"For {bad:,} of {len(records):,} samples the model gave NaN or infinite logits; they count as wrong."
    return [Flag(code="E410", level="unreliable", text=text, families=(family,))]


def registered_name(group: str, options: Options) -> str:
    """The name under which a plan calls this method; the class's own name for one that is not registered."""
    try:
        return name_of(group, type(options))
    except ConfigError:
        return type(options).__name__


def _missing(missing: str, have: str, empty: Sequence[str]) -> tuple[Status, str]:
    if empty:
        return Status.NOT_MEASURED, f"there are no samples in {' and '.join(empty)}"
    if missing.startswith("error"):
        return Status.ERROR, f"{have}, then {missing.partition(':')[2].strip() or 'a unit failed'}"
    if missing == "budget":
        return Status.NOT_MEASURED, f"the budget ended when {have}"
    return Status.NOT_MEASURED, f"only {have}" + (f" ({missing})" if missing else "")
