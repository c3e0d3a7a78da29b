"""Gates: what a plan demands of the numbers, judged by the worse end of their intervals.

A gate passes only on a number that was measured, is reliable, and holds at the end of its 95 % interval that is worse
for it. A number that is missing, unreliable, in error, or without the interval the gate asks for is `not_measured`,
never passed; so is a pattern that matches nothing.

Against a baseline run, a gate judges the *loss*: how much worse the number became, in its own unit. Both runs must
have measured the same thing (equal parameters). Where results say which samples were right, the loss is that on the
samples which both runs measured, with a paired interval; else it has the interval of two independent estimates, and
the bare difference of two numbers is judged only where both are of the same samples. Which samples those are is decided
check by check, because each may have its own limit. With a baseline, robust accuracy may not fall: `against_baseline`.

Everything here is a pure function of findings, which `vambrace gate` calls again on a finished run.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from vambrace.assess.losses import Loss, loss_between
from vambrace.assess.plan import GateSpec
from vambrace.assess.sampled import sampled
from vambrace.assess.shipped import pattern_of
from vambrace.core.findings import Finding, GateResult, Status
from vambrace.report.words import metric_phrase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vambrace.core.findings import Results

__all__ = ["NOT_FALLING", "against_baseline", "apply", "judge", "shown", "standing_of"]

NOT_FALLING = GateSpec(metric="*.robust_accuracy@*", max_drop=0.0, use="value")
"""With a baseline, robust accuracy may not fall: on equal samples and options any loss is real, whatever its cause."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    """What a loss is judged in: data and plan of this run, and the run before."""

    data: Mapping[str, Any]
    plan: Mapping[str, Any]
    baseline: Results | None


_UNJUDGED = (Status.NOT_MEASURED, Status.UNRELIABLE, Status.ERROR)


def judge(
    gates: Sequence[GateSpec],
    findings: Sequence[Finding],
    *,
    data: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    baseline: Results | None = None,
) -> tuple[GateResult, ...]:
    """One result for each gate and each finding it matches, in the order of gates, then findings.

    Args:
        gates: what is demanded.
        findings: what was found; statuses of an earlier judgement do not matter.
        data: `Results.data` of this run; with `plan` it says which samples a check measured.
        plan: `Results.plan` of this run.
        baseline: results of the run to compare with; without it every `max_drop` is not measured.
    """
    world = _World(data=data or {}, plan=plan or {}, baseline=baseline)
    return tuple(result for gate in gates for result in _judge_one(gate, findings, world))


def against_baseline(gates: tuple[GateSpec, ...] | None, baseline: Results | None) -> tuple[GateSpec, ...] | None:
    """The gates of a plan when there is a baseline: `NOT_FALLING` is added where the baseline has robust accuracy.

    Not where a gate of the plan compares robust accuracy itself. An explicit "none" (None) stays none.
    """
    if gates is None or baseline is None:
        return gates
    compared = any(gate.max_drop is not None and "robust_accuracy" in gate.metric for gate in gates)
    robust = any(finding.metric.startswith("robust_accuracy@") for finding in baseline.findings)
    return (*gates, NOT_FALLING) if robust and not compared else gates


def apply(findings: Sequence[Finding], results: Sequence[GateResult]) -> tuple[Finding, ...]:
    """The findings with the statuses that gates give them; statuses of an earlier judgement are taken back first.

    A failed required gate fails its finding, a failed optional one makes it a warning, a passed one passes it.
    What has no reliable number keeps its status, whatever a gate says.
    """
    return tuple(
        _with_status(finding, [each for each in results if each.finding == finding.name]) for finding in findings
    )


def standing_of(finding: Finding) -> tuple[Status, str]:
    """Whether a finding may be judged: MEASURED, or the status that forbids it with the reason."""
    bad = [flag for flag in finding.flags if flag.level == "unreliable" and flag.concerns(finding.family)]
    if finding.status in _UNJUDGED:
        return finding.status, finding.reason or f"it is {finding.status.value.replace('_', ' ')}"
    if bad:
        return Status.UNRELIABLE, bad[0].text
    if finding.value is None or not math.isfinite(finding.value):
        return Status.NOT_MEASURED, "there is no number"
    if finding.n <= 0:
        return Status.NOT_MEASURED, "there is no sample behind it"
    return Status.MEASURED, ""


def _with_status(finding: Finding, results: Sequence[GateResult]) -> Finding:
    if standing_of(finding)[0] is not Status.MEASURED:
        return finding
    statuses = [(each.status, each.required) for each in results]
    if (Status.FAIL, True) in statuses:
        status = Status.FAIL
    elif (Status.FAIL, False) in statuses:
        status = Status.WARN
    elif any(each is Status.PASS for each, _ in statuses):
        status = Status.PASS
    elif finding.status in (Status.PASS, Status.FAIL):
        status = Status.WARN if finding.flags else Status.MEASURED
    else:
        status = finding.status
    return dataclasses.replace(finding, status=status)


def _judge_one(gate: GateSpec, findings: Sequence[Finding], world: _World) -> list[GateResult]:
    baseline = world.baseline
    pattern = pattern_of(gate)
    matched = [finding for finding in findings if pattern.fullmatch(finding.name)]
    if gate.max_drop is None:
        results = [_threshold(gate, finding) for finding in matched]
        return results or [_unmeasured(gate, gate.metric, "no finding has this name")]
    results = [_drop(gate, finding, world) for finding in matched]
    # A number that the baseline has and this run has not is a loss that nobody measured.
    ours = {finding.name for finding in matched}
    theirs = [each.name for each in baseline.findings if pattern.fullmatch(each.name)] if baseline else []
    results += [_unmeasured(gate, name, "the baseline has it, this run has not") for name in theirs if name not in ours]
    return results or [_unmeasured(gate, gate.metric, "no finding has this name")]


def _threshold(gate: GateSpec, finding: Finding) -> GateResult:
    status, reason = standing_of(finding)
    if status is not Status.MEASURED:
        return _unmeasured(gate, finding, reason)
    lower_bounded = gate.min is not None
    use = gate.use or ("ci_low" if lower_bounded else "ci_high")
    observed = _end(finding, use)
    if observed is None:
        return _unmeasured(gate, finding, 'it has no interval; say use = "value" to judge the number alone')
    threshold = gate.min if gate.min is not None else gate.max
    assert threshold is not None  # noqa: S101  a gate has one of the three
    holds = observed >= threshold if lower_bounded else observed <= threshold
    return GateResult(
        gate=_text(gate, use),
        finding=finding.name,
        status=Status.PASS if holds else Status.FAIL,
        observed=observed,
        threshold=threshold,
        required=gate.required,
        sentence=_sentence(gate, finding, use, observed, threshold, holds=holds),
    )


def _sentence(gate: GateSpec, finding: Finding, use: str, observed: float, threshold: float, *, holds: bool) -> str:
    """A threshold and a number in words; a number that is right by itself, and not surely, is told from a bad one."""
    if finding.name == "preflight.ok" and holds:
        return "The model is fit to be measured (preflight.ok)."
    value = finding.value or 0.0
    least = gate.min is not None
    demand = f"{'at least' if least else 'at most'} {shown(threshold, finding.unit)}"
    number = f"{_called(finding)} is {shown(value, finding.unit)}"
    if use == "value":
        return f"{number}, {demand} as demanded." if holds else f"{number}; demanded is {demand}."
    end = f"its 95 % interval {'begins' if use == 'ci_low' else 'ends'} at {shown(observed, finding.unit)}"
    worse = use == ("ci_low" if least else "ci_high")
    if holds:
        return f"{number}, {'surely' if worse else 'possibly'} {demand}: {end}."
    if value >= threshold if least else value <= threshold:
        few = f"{_samples(finding.n)} not enough to show that it is {demand}"
        return f"{number}, but {few}: {end}. More samples would tell."
    return f"{number}; demanded is {demand}, and {end}."


def _called(finding: Finding) -> str:
    """What a number is, in words, with the name by which plans address it."""
    return f"{metric_phrase(finding)} ({finding.name})"


def _samples(n: int) -> str:
    return "1 sample is" if n == 1 else f"{n:,} samples are"


def _drop(gate: GateSpec, finding: Finding, world: _World) -> GateResult:
    baseline = world.baseline
    if baseline is None:
        return _unmeasured(gate, finding, "there is no baseline: add --baseline RUN")
    status, reason = standing_of(finding)
    if status is not Status.MEASURED:
        return _unmeasured(gate, finding, reason)
    before = next((each for each in baseline.findings if each.name == finding.name), None)
    if before is None:
        return _unmeasured(gate, finding, "the baseline has no such number")
    status, reason = standing_of(before)
    if status is not Status.MEASURED:
        return _unmeasured(gate, finding, f"in the baseline {reason}")
    loss = loss_between(
        finding,
        before,
        ours=sampled(finding.check, data=world.data, plan=world.plan),
        theirs=sampled(finding.check, data=baseline.data, plan=baseline.plan),
    )
    if isinstance(loss, str):
        return _unmeasured(gate, finding, loss)
    if gate.use == "value" and not (loss.paired or loss.same):
        counts = f"{before.n:,} then, {finding.n:,} now"
        reason = f'the baseline measured other samples ({counts}); use = "ci_high" judges the interval of such a loss'
        return _unmeasured(gate, finding, reason)
    use = gate.use or "ci_high"
    observed = _end(loss, use)
    if observed is None:
        return _unmeasured(gate, finding, 'the loss has no interval; say use = "value" to judge the number alone')
    assert gate.max_drop is not None  # noqa: S101  the caller's branch
    holds = observed <= gate.max_drop
    change, rule = _change(loss, finding.unit), _allowed(gate, loss, observed, finding, holds=holds)
    return GateResult(
        gate=_text(gate, use),
        finding=finding.name,
        status=Status.PASS if holds else Status.FAIL,
        observed=observed,
        threshold=gate.max_drop,
        required=gate.required,
        sentence=f"{_called(finding)} {change}; {rule}.",
    )


def _end(measured: Finding | Loss, use: str) -> float | None:
    if use == "value":
        return measured.value
    interval = measured.interval
    if interval is None or not interval.low <= interval.high:
        return None
    end = interval.low if use == "ci_low" else interval.high
    return end if math.isfinite(end) else None


def _change(loss: Loss, unit: str) -> str:
    if loss.value == 0:
        moved = "did not change"
    else:
        moved = f"became {'worse' if loss.value > 0 else 'better'} by {_difference(abs(loss.value), unit)}"
    moved = f"{moved} against the baseline"
    if loss.paired and not loss.same:
        moved = f"{moved} on the {loss.paired:,} sample{'' if loss.paired == 1 else 's'} that both runs measured"
    if loss.interval is None:
        return moved
    ends = f"{_difference(loss.interval.low, unit)} to {_difference(loss.interval.high, unit)}"
    return f"{moved} (95 % interval of the loss, {'paired' if loss.paired else 'unpaired'}: {ends})"


def _allowed(gate: GateSpec, loss: Loss, observed: float, finding: Finding, *, holds: bool) -> str:
    allowed = gate.max_drop or 0.0
    most = _difference(allowed, finding.unit)
    if gate.use == "value":
        return f"a loss of {most} is allowed" if gate.max_drop else "no loss is allowed"
    end = f"the {'lower' if gate.use == 'ci_low' else 'upper'} end, {_difference(observed, finding.unit)},"
    few = (
        ""
        if holds or loss.value > allowed
        else f"; {_samples(loss.paired or finding.n)} not enough to show less, more would tell"
    )
    return f"{end} is {'within' if holds else 'above'} the allowed {most}{few}"


def _difference(value: float, unit: str) -> str:
    """A difference in the unit of the numbers; between shares that is points, because per cent would be ambiguous."""
    return f"{100 * value:.3g} points" if unit == "share" else shown(value, unit)


def _unmeasured(gate: GateSpec, found: Finding | str, reason: str) -> GateResult:
    """A gate that judges nothing: on a finding, or on a name or pattern that no finding has."""
    name, called = (found, found) if isinstance(found, str) else (found.name, _called(found))
    threshold = next(each for each in (gate.min, gate.max, gate.max_drop) if each is not None)
    return GateResult(
        gate=_text(gate, gate.use or ("ci_low" if gate.min is not None else "ci_high")),
        finding=name,
        status=Status.NOT_MEASURED,
        observed=None,
        threshold=threshold,
        required=gate.required,
        sentence=f"{called} cannot be judged: {reason.rstrip('.')}.",
    )


def _text(gate: GateSpec, use: str) -> str:
    end = "" if use == "value" else f" {use}"
    if gate.min is not None:
        return f"{gate.metric}{end} >= {gate.min:.6g}"
    if gate.max is not None:
        return f"{gate.metric}{end} <= {gate.max:.6g}"
    return f"{gate.metric} loss{end} <= {gate.max_drop:.6g} against the baseline"


def shown(value: float, unit: str) -> str:
    """A number in its unit, for sentences: "89.7 %", "2.5 points", "0.61"."""
    if unit == "share":
        return f"{100 * value:.4g} %"
    text = f"{value:.4g}"
    return f"{text} {unit}" if unit in {"points", "nats"} else text
