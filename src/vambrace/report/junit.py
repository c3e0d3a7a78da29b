"""JUnit XML, the form in which continuous integration shows test results.

One `testsuite` a family; one `testcase` for every planned check and every gate; a suite `run` whose
testcase `verdict` is red exactly when the exit code is not 0, so that the file is never greener than the
run. Not a full report: numbers and evidence are in results.json. The form is `tests/vectors/junit.xsd`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast
from xml.etree import ElementTree as ET

from vambrace.core.findings import Status
from vambrace.report.words import FAMILIES, exit_meaning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vambrace.core.findings import Finding, GateResult, Results

__all__ = ["render"]

_MISSING = frozenset({Status.NOT_MEASURED, Status.UNRELIABLE, Status.ERROR})
_KINDS = frozenset({"clean", "adversarial", "natural", "membership", "dp"})
# What XML 1.0 (section 2.2) cannot hold, not even escaped; the C1 controls are legal but steer terminals.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST = 4000

_Outcome = Literal["passed", "failure", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class _Case:
    suite: str
    name: str
    outcome: _Outcome
    message: str = ""
    output: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class _Suite:
    name: str
    cases: list[_Case] = field(default_factory=list[_Case])
    seen: Counter[str] = field(default_factory=Counter[str])

    def add(self, case: _Case) -> None:
        """Keep `case`, under a name of its own: readers take equal names for one test."""
        name = _text(case.name)
        self.seen[name] += 1
        self.cases.append(replace(case, name=name if self.seen[name] == 1 else f"{name} ({self.seen[name]})"))


def render(results: Results, *, seconds: Mapping[str, float] | None = None) -> bytes:
    """The run as JUnit XML; `seconds` are per check id."""
    suites: dict[str, _Suite] = {name: _Suite(name) for name in FAMILIES}
    for case in (*_checks(results, seconds or {}), *_gates(results), _verdict(results)):
        suites.setdefault(case.suite, _Suite(case.suite)).add(case)
    kept = [suite for suite in suites.values() if suite.cases]
    root = ET.Element("testsuites", {"name": "vambrace", **_counts([case for suite in kept for case in suite.cases])})
    for suite in kept:
        node = ET.SubElement(root, "testsuite", {"name": _text(suite.name), **_counts(suite.cases)})
        for case in suite.cases:
            _write(node, case)
    ET.indent(root)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="utf-8") + b"\n"


def _checks(results: Results, seconds: Mapping[str, float]) -> list[_Case]:
    cases: list[_Case] = []
    plan = cast("list[Mapping[str, Any]]", results.plan.get("checks") or [])
    checks = {str(item["id"]): (bool(item["required"]), str(item.get("kind", ""))) for item in plan}
    unplanned = {finding.check: (True, "") for finding in results.findings if finding.check not in checks}
    for check, (required, kind) in (unplanned | checks).items():
        found = [finding for finding in results.findings if finding.check == check]
        wrong = _wrong(found)
        cases.append(
            _Case(
                suite=found[0].family if found else kind if kind in _KINDS else "run",
                name=f"check {check}",
                outcome=("error" if required else "skipped") if wrong else "passed",
                message=wrong,
                output="\n".join(_line(finding) for finding in found),
                seconds=seconds.get(check, 0.0),
            )
        )
    return cases


def _wrong(found: Sequence[Finding]) -> str:
    """Why a check does not count as measured; "" where it does."""
    if not found:
        return "The check left no finding."
    for status in (Status.ERROR, Status.UNRELIABLE):
        for finding in found:
            if finding.status is status:
                return f"{finding.name}: {finding.reason or finding.sentence}"
    if all(finding.status is Status.NOT_MEASURED for finding in found):
        return f"{found[0].name}: {found[0].reason or found[0].sentence}"
    return ""


def _line(finding: Finding) -> str:
    return f"{finding.metric}: {finding.status}: {finding.reason if finding.status in _MISSING else finding.sentence}"


def _gates(results: Results) -> list[_Case]:
    families = {finding.name: finding.family for finding in results.findings}
    return [
        _Case(
            suite=families.get(gate.finding, "run"),
            name=f"gate {gate.gate} on {gate.finding}",
            outcome=_gate_outcome(gate),
            message=gate.sentence,
        )
        for gate in results.gates
    ]


def _gate_outcome(gate: GateResult) -> _Outcome:
    if gate.status is Status.PASS:
        return "passed"
    if not gate.required:
        return "skipped"
    return "failure" if gate.status is Status.FAIL else "error"


def _verdict(results: Results) -> _Case:
    verdict = results.verdict
    outcome: _Outcome = "passed" if verdict.exit_code == 0 else "failure" if verdict.exit_code == 1 else "error"
    meaning = exit_meaning(verdict)
    left = [f"left out: {left.name}: {left.reason}" for left in results.left_out]
    return _Case(
        suite="run",
        name="verdict",
        outcome=outcome,
        message=f"{verdict.word}, exit code {verdict.exit_code} ({meaning}): {' '.join(verdict.sentences)}",
        output="\n".join((*verdict.sentences, *left)),
    )


def _write(suite: ET.Element, case: _Case) -> None:
    node = ET.SubElement(
        suite,
        "testcase",
        {
            "classname": _text(f"vambrace.{case.suite}"),
            "name": case.name,
            "time": f"{case.seconds:.3f}",
        },
    )
    if case.outcome in {"failure", "error"}:
        told = ET.SubElement(node, case.outcome, {"message": _text(case.message), "type": f"vambrace.{case.outcome}"})
        told.text = _text(case.message)
    elif case.outcome == "skipped":
        ET.SubElement(node, "skipped", {"message": _text(case.message)})
    if case.output:
        ET.SubElement(node, "system-out").text = _text(case.output)


def _counts(cases: Sequence[_Case]) -> dict[str, str]:
    def number(outcome: _Outcome) -> str:
        return str(sum(case.outcome == outcome for case in cases))

    return {
        "tests": str(len(cases)),
        "failures": number("failure"),
        "errors": number("error"),
        "skipped": number("skipped"),
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }


def _text(text: str) -> str:
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\u2026"
    return _ILLEGAL.sub("\ufffd", cut)
