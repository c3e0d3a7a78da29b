"""Findings are JSON data: `as_json` and `from_json` are inverse, and the bytes are canonical."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.core import canonical
from vambrace.core.findings import (
    Cost,
    Evidence,
    Finding,
    Flag,
    GateResult,
    Interval,
    Left,
    Results,
    Status,
    Verdict,
)

finite = st.floats(-(2.0**50), 2.0**50)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
plain = st.dictionaries(
    words, st.one_of(st.none(), st.booleans(), finite, words, st.lists(finite, max_size=3)), max_size=3
)
costs = st.builds(Cost, **dict.fromkeys(Cost.__dataclass_fields__, st.integers(0, 2**40)))
flags = st.builds(
    Flag,
    code=st.just("E401"),
    level=st.sampled_from(["warn", "unreliable"]),
    text=words,
    families=st.lists(words, max_size=2).map(tuple),
)
findings = st.builds(
    Finding,
    check=words,
    family=words,
    metric=words,
    value=st.none() | finite,
    n=st.integers(0, 10**6),
    status=st.sampled_from(list(Status)),
    sentence=words,
    unit=words,
    interval=st.none() | st.builds(Interval, low=finite, high=finite, method=words),
    higher_is_better=st.booleans(),
    reason=words,
    flags=st.lists(flags, max_size=2).map(tuple),
    cost=costs,
    parameters=plain,
    series=plain,
    evidence=st.lists(
        st.builds(Evidence, finding=words, kind=words, file=words, sample=words, data=plain), max_size=2
    ).map(tuple),
)
results = st.builds(
    Results,
    schema=st.just("vambrace/results/1"),
    model=plain,
    data=plain,
    plan=plain,
    versions=st.dictionaries(words, words, max_size=2),
    findings=st.lists(findings, max_size=2).map(tuple),
    gates=st.lists(
        st.builds(
            GateResult,
            gate=words,
            finding=words,
            status=st.sampled_from([Status.PASS, Status.FAIL, Status.NOT_MEASURED]),
            observed=st.none() | finite,
            threshold=st.none() | finite,
            required=st.booleans(),
            sentence=words,
        ),
        max_size=2,
    ).map(tuple),
    left_out=st.lists(st.builds(Left, name=words, reason=words), max_size=2).map(tuple),
    verdict=st.builds(
        Verdict, exit_code=st.integers(0, 255), word=words, sentences=st.lists(words, max_size=3).map(tuple)
    ),
)


@given(results)
def test_there_and_back(value):
    raw = canonical.dumps(value.as_json())
    back = Results.from_json(json.loads(raw))
    assert back == value
    assert canonical.dumps(back.as_json()) == raw
    assert all(type(finding.status) is Status for finding in back.findings)


def test_statuses_are_the_seven_words():
    assert [status.value for status in Status] == [
        "pass", "fail", "warn", "measured", "not_measured", "unreliable", "error"
    ]  # fmt: skip


@given(costs, costs)
def test_costs_add_field_by_field(one, two):
    total = one + two
    for name in Cost.__dataclass_fields__:
        assert getattr(total, name) == getattr(one, name) + getattr(two, name)
    assert one + Cost() == one


def test_a_finding_is_addressed_by_check_and_metric():
    finding = Finding(
        check="pgd", family="adversarial", metric="m@0.3", value=1.0, n=1, status=Status.PASS, sentence=""
    )
    assert finding.name == "pgd.m@0.3"


def test_a_flag_concerns_its_families():
    assert Flag(code="E401", level="warn", text="x").concerns("anything")
    some = Flag(code="E401", level="warn", text="x", families=("clean",))
    assert some.concerns("clean")
    assert not some.concerns("natural")


def test_unknown_fields_are_not_dropped_in_silence():
    value = Results(
        schema="vambrace/results/1", model={}, data={}, plan={}, versions={}, findings=(), gates=(), left_out=(),
        verdict=Verdict(exit_code=0, word="PASS", sentences=()),
    )  # fmt: skip
    data = value.as_json() | {"verdict": {"exit_code": 0, "word": "PASS", "sentences": [], "colour": "green"}}
    with pytest.raises(TypeError, match="colour"):
        Results.from_json(data)
