"""The verdict: how a run ended, as a word, plain sentences and an exit code. Pure: facts in, verdict out.

| exit | word | when |
|---|---|---|
| 70 | ERROR | vambrace itself failed |
| 130 | INTERRUPTED | the user stopped it |
| 6 | RESOURCES | results.json could not be written |
| 1 | FAIL | a required gate failed |
| 5 | UNRELIABLE | a required number cannot be relied on |
| 6 | RESOURCES | disk, memory or workers gave way |
| 4 | INCOMPLETE | something required was not measured, or no gate judged |
| 0 | PASS, or MEASURED, NOT JUDGED | everything required was measured, is reliable and holds; or gates = "none" |

The first row that applies decides; all that apply are said. So a measured failure is a failure even if the run was cut
short, and nothing unmeasured is ever 0. `EXIT_ORDER` is the table as data.

Robust accuracy has no bar of its own: unless a gate judged it, the first sentence says that it was measured, not
judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vambrace.assess.gates import shown, standing_of
from vambrace.core.findings import Status, Verdict
from vambrace.report.text import eps_text, norm_text
from vambrace.report.words import number_parameter, text_parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.core.findings import Finding, GateResult

__all__ = ["Conditions", "EXIT_ORDER", "Ending", "conditions_of", "exit_code", "verdict"]

EXIT_ORDER = (
    ("bug", 70, "ERROR"),
    ("interrupted", 130, "INTERRUPTED"),
    ("unwritten", 6, "RESOURCES"),
    ("failed", 1, "FAIL"),
    ("unreliable", 5, "UNRELIABLE"),
    ("starved", 6, "RESOURCES"),
    ("incomplete", 4, "INCOMPLETE"),
)
"""Condition, exit code and word, the strongest first."""

_MOST = 3  # checks or remarks that a verdict names; the others are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended, as facts.

    Attributes:
        findings: all of them, after `vambrace.assess.gates.apply`.
        gates: what the gates said.
        judged: False when the plan says gates = "none".
        required: ids of the plan's required checks.
        unfinished: why units did not run, such as "the budget of 10m was spent"; "" when all did.
        starved: what disk, memory or workers lacked; "" when nothing.
        unwritten: why results.json is not durably written; "" when it is.
        interrupted: whether the user stopped the run.
        bug: what went wrong inside vambrace; "" when nothing did.
    """

    findings: Sequence[Finding]
    gates: Sequence[GateResult]
    judged: bool
    required: Sequence[str]
    unfinished: str = ""
    starved: str = ""
    unwritten: str = ""
    interrupted: bool = False
    bug: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What decides the exit code; each is a reason in words, empty where it does not hold."""

    bug: tuple[str, ...] = ()
    interrupted: tuple[str, ...] = ()
    unwritten: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    unreliable: tuple[str, ...] = ()
    starved: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()


def verdict(ending: Ending) -> Verdict:
    """The verdict on a run."""
    conditions = conditions_of(ending)
    code = exit_code(conditions)
    word = _word(conditions, judged=ending.judged)
    said: list[str] = []
    for name, _, _ in EXIT_ORDER:
        said += getattr(conditions, name)
    said += [f"Optional gate: {each.sentence}" for each in ending.gates if not each.required and _not_passed(each)]
    said += _remarks(ending.findings)
    first = _first(ending, conditions, word)
    robust = _unjudged_robustness(ending)
    rest = [each for each in dict.fromkeys(said) if not first.endswith(each)]
    if robust and ending.judged:
        first = f"{first.rstrip('.')}; {robust}."
    return Verdict(exit_code=code, word=word, sentences=(first, *rest))


def exit_code(conditions: Conditions) -> int:
    """The exit code of the strongest condition that holds; 0 when none does."""
    return next((code for name, code, _ in EXIT_ORDER if getattr(conditions, name)), 0)


def conditions_of(ending: Ending) -> Conditions:
    """Which conditions hold, and why."""
    required_gates = [gate for gate in ending.gates if gate.required]
    status_of = {finding.name: standing_of(finding)[0] for finding in ending.findings}
    unmeasured = [gate for gate in required_gates if gate.status not in (Status.PASS, Status.FAIL)]
    doubted = [
        finding
        for gate in unmeasured
        for finding in ending.findings
        if finding.name == gate.finding and status_of[finding.name] is Status.UNRELIABLE
    ]
    incomplete = [gate.sentence for gate in unmeasured if status_of.get(gate.finding) is not Status.UNRELIABLE]
    for check in ("preflight", *ending.required):
        own = [finding for finding in ending.findings if finding.check == check]
        doubted += own
        if check != "preflight":
            incomplete += _incomplete(check, own)
    if ending.judged and not required_gates:
        incomplete.append('No required gate judged anything; write gates = "none" to measure without judging.')
    if ending.unfinished:
        incomplete.insert(0, f"Not everything was measured: {ending.unfinished.rstrip('.')}.")
    return Conditions(
        bug=_told("vambrace itself failed", ending.bug),
        interrupted=("The run was interrupted.",) if ending.interrupted else (),
        unwritten=_told("The results could not be written", ending.unwritten),
        failed=tuple(gate.sentence for gate in required_gates if gate.status is Status.FAIL),
        unreliable=tuple(_unreliable(doubted)),
        starved=_told("Resources gave way", ending.starved),
        incomplete=tuple(dict.fromkeys(incomplete)),
    )


def _unreliable(findings: Sequence[Finding]) -> list[str]:
    """The reasons, once each, however many numbers of however many checks they void."""
    checks: dict[str, dict[str, None]] = {}
    for finding in findings:
        status, reason = standing_of(finding)
        if status is Status.UNRELIABLE:
            checks.setdefault(reason.rstrip("."), {})[finding.check] = None
    said: list[str] = []
    for reason, names in checks.items():
        concerned = [name for name in names if name != "preflight"]
        what = (
            f"The numbers of {_listed(concerned)} cannot be relied on"
            if concerned
            else "The model is not fit to be measured"
        )
        said.append(f"{what}: {reason}.")
    return said


def _listed(names: Sequence[str]) -> str:
    most = list(names[:_MOST])
    last = f"{len(names) - len(most)} more" if len(names) > len(most) else most.pop()
    return f"{', '.join(most)} and {last}" if most else last


def _remarks(findings: Sequence[Finding]) -> list[str]:
    """What qualifies numbers, or must be known about the data, once each."""
    flags = dict.fromkeys(
        (flag.code, flag.text) for finding in findings for flag in finding.flags if flag.level == "warn"
    )
    said = [f"Remark {code}: {text.rstrip('.')}." for code, text in [*flags][:_MOST]]
    more = len(flags) - len(said)
    return said + ([f"{more} more remark{'' if more == 1 else 's'} in the report."] if more else [])


def _incomplete(check: str, findings: Sequence[Finding]) -> list[str]:
    """Why a required check was not measured; a single missing metric of a measured check does not count.

    A true positive rate that needs more samples than there are leaves its check measured; a gate on it decides.
    """
    standings = [standing_of(finding) for finding in findings]
    if not findings:
        return [f"{check} gave no findings."]
    errors = [reason for status, reason in standings if status is Status.ERROR]
    if errors:
        return [f"{check} ended in an error: {errors[0].rstrip('.')}."]
    if all(status is Status.NOT_MEASURED for status, _ in standings):
        return [f"{check} was not measured: {standings[0][1].rstrip('.')}."]
    return []


def _word(conditions: Conditions, *, judged: bool) -> str:
    bad = next((word for name, _, word in EXIT_ORDER if getattr(conditions, name)), "")
    return bad or ("PASS" if judged else "MEASURED, NOT JUDGED")


def _first(ending: Ending, conditions: Conditions, word: str) -> str:
    required = [gate for gate in ending.gates if gate.required]
    failed, total = len(conditions.failed), len(required)
    match word:
        case "PASS":
            return f"{'The one required gate holds' if total == 1 else f'All {total} required gates hold'}."
        case "MEASURED, NOT JUDGED":
            return "Measured, not judged: the plan asks for no gates."
        case "FAIL":
            return f"{failed} of {total} required gates failed: {conditions.failed[0]}"
        case "UNRELIABLE":
            return conditions.unreliable[0]
        case "INCOMPLETE":
            return f"The assessment is incomplete: {conditions.incomplete[0]}"
        case "RESOURCES":
            return (conditions.unwritten or conditions.starved)[0]
        case "INTERRUPTED":
            return conditions.interrupted[0]
        case _:
            return conditions.bug[0]


def _unjudged_robustness(ending: Ending) -> str:
    """The clause about robust accuracy that no gate judged; "" where one did, or where there is none."""
    judged = {gate.finding for gate in ending.gates if gate.status in (Status.PASS, Status.FAIL)}
    robust = [
        finding
        for finding in ending.findings
        if finding.metric.startswith("robust_accuracy@") and standing_of(finding)[0] is Status.MEASURED
    ]
    if not robust or any(finding.name in judged for finding in robust):
        return ""
    lowest = min(robust, key=lambda finding: (finding.value or 0.0, finding.name))
    norm, eps = text_parameter(lowest, "norm"), number_parameter(lowest, "eps")
    radius = f"{norm_text(norm)} {eps_text(eps)}" if norm and eps else lowest.metric.partition("@")[2]
    least = shown(lowest.value or 0.0, "share")
    return f"robust accuracy was measured, not judged (lowest: {least} within {radius}, by {lowest.check})"


def _not_passed(gate: GateResult) -> bool:
    return gate.status is not Status.PASS


def _told(what: str, why: str) -> tuple[str, ...]:
    return (f"{what}: {why.rstrip('.')}.",) if why else ()
