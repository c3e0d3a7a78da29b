"""JUnit XML: valid, escaped, and never greener than the run."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from report import sample
from vambrace.core.findings import Left, Results, Status, Verdict
from vambrace.report.junit import render

SCHEMA = xmlschema.XMLSchema(Path(__file__).parents[1] / "vectors" / "junit.xsd")
RUNS = {
    "full": sample.results(),
    "many": sample.results(classes=300),
    "pass": sample.passing(),
    "refused": sample.refused(),
}


def tree(results: Results) -> ET.Element:
    content = render(results, seconds=sample.TIMINGS["checks"])
    SCHEMA.validate(io.BytesIO(content))
    return ET.fromstring(content)


def cases(root: ET.Element) -> dict[str, str]:
    """Name of each testcase to its outcome."""
    marks = ("failure", "error", "skipped")
    return {
        case.get("name", ""): next((mark for mark in marks if case.find(mark) is not None), "passed")
        for case in root.iter("testcase")
    }


@pytest.mark.parametrize("kind", RUNS)
def test_valid_and_counted(kind: str) -> None:
    root = tree(RUNS[kind])
    for group in [root, *root.findall("testsuite")]:
        found = list(group.iter("testcase"))
        assert int(group.get("tests", "")) == len(found)
        for mark, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(group.get(name, "")) == sum(case.find(mark) is not None for case in found)
    assert float(root.get("time", "")) == pytest.approx(
        sum(sample.TIMINGS["checks"].get(c["id"], 0) for c in RUNS[kind].plan["checks"]), abs=0.01
    )


def test_outcomes() -> None:
    found = cases(tree(RUNS["full"]))
    assert found["check clean"] == "passed"
    assert found["check pgd-linf"] == "passed"
    assert found["check pgd-l2"] == "skipped"  # unreliable, but optional
    assert found["check fgsm-l1"] == "skipped"
    assert found["check natural-jpeg"] == "passed"  # three of five severities were measured
    assert found["check preflight"] == "passed"
    assert (
        found["gate pgd-linf.robust_accuracy@0.0313725 ci_low >= 0.42 on pgd-linf.robust_accuracy@0.0313725"]
        == "failure"
    )
    assert found["gate clean.accuracy ci_low >= 0.9 on clean.accuracy"] == "passed"
    assert found["gate pgd-l2.robust_accuracy@* ci_low >= 0.3 on pgd-l2.robust_accuracy@0.5"] == "skipped"
    assert found["verdict"] == "failure"


def required(results: Results) -> Results:
    checks = [{**check, "required": True} for check in results.plan["checks"]]
    gates = tuple(replace(gate, required=True) for gate in results.gates)
    return replace(results, plan={**results.plan, "checks": checks}, gates=gates)


def test_required_checks_that_are_not_sound_are_errors() -> None:
    found = cases(tree(required(RUNS["full"])))
    assert found["check pgd-l2"] == "error"
    assert found["check fgsm-l1"] == "error"
    assert found["gate pgd-l2.robust_accuracy@* ci_low >= 0.3 on pgd-l2.robust_accuracy@0.5"] == "error"


def test_required_check_without_any_number_is_an_error() -> None:
    whole = RUNS["full"]
    gone = tuple(
        replace(f, value=None, status=Status.NOT_MEASURED, reason="The budget ended.") if f.check == "clean" else f
        for f in whole.findings
        if f.check != "loss"
    )
    found = cases(tree(replace(whole, findings=gone)))
    assert found["check clean"] == "error"
    assert found["check loss"] == "error"  # no finding at all


def test_unreliable_preflight_is_an_error() -> None:
    assert cases(tree(RUNS["refused"]))["check preflight"] == "error"


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 70, 130, 99])
def test_never_greener_than_the_run(code: int) -> None:
    verdict = Verdict(exit_code=code, word="PASS" if code == 0 else "ERROR", sentences=("Said.",))
    found = cases(tree(replace(RUNS["pass"], verdict=verdict)))
    assert found["verdict"] == ("passed" if code == 0 else "failure" if code == 1 else "error")
    assert all(outcome in {"passed", "skipped"} for name, outcome in found.items() if name != "verdict")


def test_suites_are_families() -> None:
    names = [suite.get("name") for suite in tree(RUNS["full"]).findall("testsuite")]
    assert names == ["preflight", "clean", "adversarial", "natural", "membership", "run"]


def test_equal_gates_keep_a_testcase_each() -> None:
    whole = RUNS["pass"]
    root = tree(replace(whole, gates=(whole.gates[0], whole.gates[0])))
    twice = [case.get("name", "") for case in root.iter("testcase") if "clean.accuracy" in case.get("name", "")]
    assert len(twice) == 2 == len(set(twice))


def test_deterministic() -> None:
    assert render(RUNS["full"]) == render(RUNS["full"])


NASTY = [
    "]]>",
    "<failure/>",
    "&amp;",
    "\x00\x08\x1b[31m",
    "\ud800",
    "\ufffe\uffff",
    "\u0085\u009b",
    "\"'",
    "\r\n\t",
    "\U0001f600",
    "x" * 9000,
]


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_nasty_text(text: str) -> None:
    whole = RUNS["full"]
    finding = replace(whole.findings[1], family=text, sentence=text, check=text, metric=text)
    gate = replace(whole.gates[1], gate=text, sentence=text, finding=text)
    plan = {**whole.plan, "checks": [{"id": text, "kind": text, "required": True}]}
    verdict = replace(whole.verdict, sentences=(text,))
    left = (Left(name=text, reason=text),)
    root = tree(replace(whole, findings=(finding,), gates=(gate,), plan=plan, verdict=verdict, left_out=left))
    assert {case.tag for suite in root for case in suite} == {"testcase"}
    assert "\x1b" not in ET.tostring(root, encoding="unicode")


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    whole = RUNS["refused"]
    finding = replace(whole.findings[0], sentence=text, reason=text)
    tree(replace(whole, findings=(finding,), left_out=(Left(name=text, reason=text),)))


def test_schema_can_fail() -> None:
    """The judge of the other tests: a wrong file is refused."""
    content = render(RUNS["full"]).replace(b"<skipped ", b"<ignored ").replace(b"</skipped>", b"</ignored>")
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        SCHEMA.validate(io.BytesIO(content))
