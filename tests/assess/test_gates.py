"""Gates: the worse end decides, what was not measured never passes, and a baseline is compared honestly."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assess.judging import finding, one, paired, results, world
from vambrace.assess.gates import apply, judge, standing_of
from vambrace.assess.plan import GateSpec
from vambrace.core.findings import Flag, Status
from vambrace.core.intervals import wilson
from vambrace.errors import ConfigError

UNRELIABLE = Flag(code="E401", level="unreliable", text="the model answers at random")
WARN = Flag(code="E402", level="warn", text="one class is never predicted")


class TestThreshold:
    @pytest.mark.parametrize(
        ("spec", "status", "observed"),
        [
            ({"min": 0.88}, "pass", 0.88),
            ({"min": 0.8801}, "fail", 0.88),
            ({"min": 0.9}, "fail", 0.88),
            ({"min": 0.9, "use": "value"}, "pass", 0.9),
            ({"min": 0.9, "use": "ci_high"}, "pass", 0.92),
            ({"max": 0.92}, "pass", 0.92),
            ({"max": 0.9199}, "fail", 0.92),
            ({"max": 0.9, "use": "value"}, "pass", 0.9),
            ({"max": 0.88, "use": "ci_low"}, "pass", 0.88),
        ],
    )
    def test_the_worse_end_decides(self, spec, status, observed):
        result = one(GateSpec(metric="clean.accuracy", **spec))
        assert (result.status, result.observed) == (Status(status), observed)
        assert result.finding == "clean.accuracy"

    @given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["ci_low", "ci_high", "value", None]))
    def test_passing_is_exactly_the_comparison(self, value, spread, threshold, use):
        low, high = value * (1 - spread), value + (1 - value) * spread
        found = finding(value=value, low=low, high=high)
        ends = {"ci_low": low, "ci_high": high, "value": value}
        above = one(GateSpec(metric="clean.accuracy", min=threshold, use=use), found)
        below = one(GateSpec(metric="clean.accuracy", max=threshold, use=use), found)
        assert (above.status is Status.PASS) == (ends[use or "ci_low"] >= threshold)
        assert (below.status is Status.PASS) == (ends[use or "ci_high"] <= threshold)
        assert {above.status, below.status} <= {Status.PASS, Status.FAIL}

    def test_words(self):
        result = one(GateSpec(metric="clean.accuracy", min=0.9))
        assert result.gate == "clean.accuracy ci_low >= 0.9"
        assert result.sentence == (
            "Accuracy (clean.accuracy) is 90 %, but 1,000 samples are not enough to show that it is at least 90 %: "
            "its 95 % interval begins at 88 %. More samples would tell."
        )
        low = one(GateSpec(metric="clean.accuracy", min=0.91))
        assert low.sentence == (
            "Accuracy (clean.accuracy) is 90 %; demanded is at least 91 %, and its 95 % interval begins at 88 %."
        )
        points = finding(
            "natural-rotate.drop@1", 4.0, low=2.0, high=6.5, unit="points", higher_is_better=False, family="natural"
        )
        result = one(GateSpec(metric="natural-*.drop@1", max=10), points)
        assert result.gate == "natural-*.drop@1 ci_high <= 10"
        assert result.sentence == (
            "The loss of accuracy under natural-rotate at severity 1 (natural-rotate.drop@1) is 4 points, "
            "surely at most 10 points: its 95 % interval ends at 6.5 points."
        )
        value = one(GateSpec(metric="clean.accuracy", min=0.9, use="value"))
        assert value.sentence == "Accuracy (clean.accuracy) is 90 %, at least 90 % as demanded."
        lenient = one(GateSpec(metric="clean.accuracy", min=0.91, use="ci_high"))
        assert "possibly at least 91 %" in lenient.sentence
        fit = finding("preflight.ok", 1.0, low=None, family="preflight")
        assert one(GateSpec(metric="preflight.ok", min=1.0, use="value"), fit).sentence == (
            "The model is fit to be measured (preflight.ok)."
        )

    def test_words_of_a_loss_that_few_samples_do_not_show(self):
        a, b = paired([True] * 40 + [False] * 10, [True] * 40 + [False] * 10)
        gate = GateSpec(metric="clean.accuracy", max_drop=0.01)
        result = one(gate, a, baseline=results(b), **world(a))
        assert result.status is Status.FAIL
        assert "did not change against the baseline" in result.sentence
        assert result.sentence.endswith("50 samples are not enough to show less, more would tell.")


UNMEASURED = {
    "not measured": {"status": Status.NOT_MEASURED, "value": None, "low": None, "reason": "the budget ended"},
    "unreliable": {"status": Status.UNRELIABLE, "reason": "random"},
    "error": {"status": Status.ERROR, "value": None, "low": None, "reason": "a unit failed"},
    "unreliable flag on a measured number": {"flags": (UNRELIABLE,)},
    "NaN": {"value": math.nan},
    "infinite": {"value": math.inf},
    "no value": {"value": None},
    "no sample": {"n": 0},
    "passed before, unreliable now": {"status": Status.PASS, "flags": (UNRELIABLE,)},
}


@pytest.mark.parametrize("name", UNMEASURED)
@pytest.mark.parametrize(
    "gate",
    [
        {"min": 0.0},
        {"max": 1.0},
        {"min": -1e9, "use": "value"},
        {"max": 1e9, "use": "value"},
        {"max_drop": 1.0},
        {"max_drop": 1.0, "use": "value"},
    ],
    ids=str,
)
def test_what_is_not_measured_never_passes(name, gate):
    found = finding(**UNMEASURED[name])
    result = one(GateSpec(metric="*.*", **gate), found, baseline=results(finding()), **world(finding()))
    assert result.status is Status.NOT_MEASURED
    assert result.observed is None
    assert "cannot be judged" in result.sentence
    # Nor does anything that a baseline did not measure.
    spec = GateSpec(metric="*.*", max_drop=1.0, use="value")
    assert one(spec, finding(), baseline=results(found)).status is Status.NOT_MEASURED


class TestMissingInterval:
    def test_a_number_without_an_interval_is_judged_only_when_asked(self):
        bare = finding(low=None)
        assert one(GateSpec(metric="clean.accuracy", min=0.5), bare).status is Status.NOT_MEASURED
        assert "use" in one(GateSpec(metric="clean.accuracy", min=0.5), bare).sentence
        assert one(GateSpec(metric="clean.accuracy", min=0.5, use="value"), bare).status is Status.PASS

    @pytest.mark.parametrize(("low", "high"), [(math.nan, 0.9), (0.5, math.nan), (0.95, 0.9), (-math.inf, 0.9)])
    def test_a_broken_interval_is_none(self, low, high):
        broken = finding(low=low, high=high)
        assert one(GateSpec(metric="clean.accuracy", min=-1e9), broken).status is Status.NOT_MEASURED


class TestPatterns:
    def test_every_match_must_hold(self):
        found = [finding(f"natural-{name}.accuracy@1", low=low) for name, low in (("a", 0.7), ("b", 0.5), ("c", 0.9))]
        statuses = [each.status.value for each in judge([GateSpec(metric="natural-*.accuracy@1", min=0.6)], found)]
        assert statuses == ["pass", "fail", "pass"]

    def test_no_match_is_not_measured(self):
        result = one(GateSpec(metric="natural-*.drop@1", max=10))
        assert result.status is Status.NOT_MEASURED
        assert result.finding == "natural-*.drop@1"

    @pytest.mark.parametrize(
        ("pattern", "name", "matches"),
        [
            ("pgd.robust_accuracy@0.3", "pgd.robust_accuracy@0.3", True),
            ("pgd.robust_accuracy@0.3", "pgd.robust_accuracy@0x3", False),
            ("pgd.robust_accuracy@0.3", "pgd.robust_accuracy@0.31", False),
            ("*.robust_accuracy@*", "pgd-l2.robust_accuracy@0.3", True),
            ("pgd*.robust_accuracy@*", "apgd.robust_accuracy@0.3", False),
            ("a[b].c", "ab.c", False),
            ("*.*", "x.y", True),
        ],
    )
    def test_only_the_star_is_special(self, pattern, name, matches):
        found = one(GateSpec(metric=pattern, min=0.0), finding(name))
        assert (found.status is Status.PASS) == matches

    def test_order_is_that_of_gates_then_findings(self):
        found = [finding("a.x"), finding("b.x")]
        names = [
            (each.gate, each.finding)
            for each in judge([GateSpec(metric="*.x", min=0), GateSpec(metric="a.x", max=1)], found)
        ]
        assert names == [("*.x ci_low >= 0", "a.x"), ("*.x ci_low >= 0", "b.x"), ("a.x ci_high <= 1", "a.x")]


class TestGateSpec:
    @pytest.mark.parametrize(
        "spec",
        [
            {},
            {"min": 0.1, "max": 0.2},
            {"min": 0.1, "max_drop": 0.2},
            {"min": math.nan},
            {"max": math.inf},
            {"max_drop": -0.1},
            {"metric": "accuracy", "min": 0.1},
            {"metric": "", "min": 0.1},
            {"metric": "clean .accuracy", "min": 0.1},
        ],
    )
    def test_what_is_no_condition(self, spec):
        with pytest.raises(ConfigError, match="E530"):
            GateSpec(**({"metric": "clean.accuracy"} | spec))


class TestApply:
    def gate(self, **other):
        return judge([GateSpec(metric="clean.accuracy", **other)], [finding()])

    def test_statuses(self):
        good, bad = {"min": 0.5}, {"min": 0.95}
        for gates, expected in [
            ([good], Status.PASS),
            ([bad], Status.FAIL),
            ([good, bad], Status.FAIL),
            ([bad | {"required": False}], Status.WARN),
            ([good, bad | {"required": False}], Status.WARN),
            ([], Status.MEASURED),
        ]:
            judged = [each for gate in gates for each in self.gate(**gate)]
            (after,) = apply([finding()], judged)
            assert after.status is expected

    def test_judging_again_takes_the_first_judgement_back(self):
        (failed,) = apply([finding()], self.gate(min=0.95))
        (passed,) = apply([failed], self.gate(min=0.5))
        (bare,) = apply([passed], [])
        assert [failed.status, passed.status, bare.status] == [Status.FAIL, Status.PASS, Status.MEASURED]
        (flagged,) = apply([dataclasses.replace(finding(flags=(WARN,)), status=Status.PASS)], [])
        assert flagged.status is Status.WARN

    @pytest.mark.parametrize("name", [name for name in UNMEASURED if "measured number" not in name])
    def test_what_is_not_measured_keeps_its_status(self, name):
        found = finding(**UNMEASURED[name])
        (after,) = apply([found], self.gate(min=0.0))
        assert after == found

    def test_every_status_and_gate_outcome(self):
        """Nothing but a measured number ever becomes pass or fail."""
        for status, outcome, required in itertools.product(Status, ("pass", "fail", "not_measured"), (True, False)):
            (result,) = self.gate(min=0.5)
            result = dataclasses.replace(result, status=Status(outcome), required=required)
            (after,) = apply([finding(status=status)], [result])
            if status in (Status.NOT_MEASURED, Status.UNRELIABLE, Status.ERROR):
                assert after.status is status
            else:
                assert (after.status is Status.PASS) == (outcome == "pass")
                assert (after.status is Status.FAIL) == (outcome == "fail" and required)


def test_flags_of_another_family_do_not_concern():
    elsewhere = dataclasses.replace(UNRELIABLE, families=("adversarial",))
    assert standing_of(finding(flags=(elsewhere,)))[0] is Status.MEASURED
    assert standing_of(finding(flags=(elsewhere,), family="adversarial"))[0] is Status.UNRELIABLE


def test_a_wilson_finding_end_to_end():
    interval = wilson(950, 1000)
    found = finding(value=0.95, low=interval.low, high=interval.high)
    assert one(GateSpec(metric="clean.accuracy", min=0.93), found).status is Status.PASS
    assert one(GateSpec(metric="clean.accuracy", min=0.94), found).status is Status.FAIL
