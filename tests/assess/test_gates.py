"""Gates: the worse end decides, what was not measured never passes, and a baseline is compared honestly."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.assess.gates import NOT_FALLING, against_baseline, apply, judge, standing_of
from vambrace.assess.plan import GateSpec
from vambrace.core.findings import Finding, Flag, Interval, Results, Status, Verdict
from vambrace.core.intervals import bonett_price, mover, wilson
from vambrace.core.outcomes import KEY, pack
from vambrace.errors import ConfigError

UNRELIABLE = Flag(code="E401", level="unreliable", text="the model answers at random")
WARN = Flag(code="E402", level="warn", text="one class is never predicted")


def finding(name="clean.accuracy", value=0.9, *, low=0.88, high=0.92, **other):
    check, _, metric = name.partition(".")
    interval = None if low is None else Interval(low=low, high=high, method="x")
    fields = {"family": "clean", "n": 1000, "status": Status.MEASURED, "sentence": "", "interval": interval}
    return Finding(check=check, metric=metric, value=value, **(fields | other))


def one(gate, *findings, **world):
    (result,) = judge([gate], findings or [finding()], **world)
    return result


def results(*findings, sha="a"):
    return Results(
        schema="vambrace/results/1", model={}, data={"eval": {"sha256": sha}}, plan={}, versions={}, findings=findings,
        gates=(), left_out=(), verdict=Verdict(exit_code=0, word="PASS", sentences=("",)),
    )  # fmt: skip


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
        result = one(gate, a, baseline=results(b), data={"eval": {"sha256": "a"}})
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
    result = one(GateSpec(metric="*.*", **gate), found, data={"eval": {"sha256": "a"}}, baseline=results(finding()))
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


def paired(now, before, **other):
    """Two findings with outcomes, and the shares they are."""
    return [
        finding(value=sum(each) / len(each), n=len(each), low=0.0, high=1.0, series={KEY: pack(each)}, **other)
        for each in (now, before)
    ]


class TestBaseline:
    GATE = GateSpec(metric="clean.accuracy", max_drop=0.02)
    SAME = {"data": {"eval": {"sha256": "a"}}}

    def test_without_a_baseline(self):
        assert one(self.GATE).status is Status.NOT_MEASURED
        assert "--baseline" in one(self.GATE).sentence

    def test_a_number_that_the_baseline_lacks(self):
        assert one(self.GATE, baseline=results()).status is Status.NOT_MEASURED

    def test_a_pattern_that_neither_run_has(self):
        result = one(NOT_FALLING, finding(), baseline=results(finding()))
        assert (result.status, result.finding) == (Status.NOT_MEASURED, NOT_FALLING.metric)

    def test_a_number_that_only_the_baseline_has(self):
        """Leaving an attack out must not look like withstanding it."""
        gone = finding("pgd.robust_accuracy@0.3")
        (result,) = judge([NOT_FALLING], [finding()], baseline=results(gone))
        assert (result.finding, result.status) == (gone.name, Status.NOT_MEASURED)

    def test_unpaired_loss(self):
        now = finding(value=0.87, low=0.85, high=0.89)
        result = one(self.GATE, now, baseline=results(finding()))
        loss = mover(0.9, finding().interval, 0.87, now.interval)
        assert result.observed == pytest.approx(loss.high)
        assert result.status is Status.FAIL
        assert "unpaired" in result.sentence

    def test_paired_loss_is_sharper(self):
        before = [True] * 900 + [False] * 100
        now = [True] * 897 + [False] * 103
        a, b = paired(now, before)
        result = one(self.GATE, a, baseline=results(b), **self.SAME)
        assert result.observed == pytest.approx(bonett_price(3, 0, 1000).high)
        assert result.status is Status.PASS
        assert result.sentence == (
            "Accuracy (clean.accuracy) became worse by 0.3 points against the baseline "
            "(95 % interval of the loss, paired: -0.138 points to 0.736 points); "
            "the upper end, 0.736 points, is within the allowed 2 points."
        )
        other = one(self.GATE, a, baseline=results(b, sha="b"), **self.SAME)
        assert "unpaired" in other.sentence
        assert other.status is Status.FAIL

    @pytest.mark.parametrize(
        "series", [{}, {KEY: "3:0"}, {KEY: "1000:zz"}, {KEY: 7}, {KEY: pack([True] * 1000)}, {KEY: pack([True] * 900)}]
    )
    def test_outcomes_that_do_not_fit_are_not_used(self, series):
        a, b = paired([True] * 890 + [False] * 110, [True] * 900 + [False] * 100)
        bad = dataclasses.replace(a, series=series)
        assert "unpaired" in one(self.GATE, bad, baseline=results(b), **self.SAME).sentence

    def test_lower_is_better(self):
        points = {"unit": "points", "higher_is_better": False}
        now = finding("r.drop@1", 6.0, low=5.0, high=7.0, **points)
        before = finding("r.drop@1", 4.0, low=3.0, high=5.0, **points)
        gate = GateSpec(metric="r.drop@1", max_drop=2.0, use="value")
        assert one(gate, now, baseline=results(before), **self.SAME).observed == pytest.approx(2.0)
        assert one(gate, now, baseline=results(before), **self.SAME).status is Status.PASS
        assert one(gate, before, baseline=results(now), **self.SAME).observed == pytest.approx(-2.0)

    def test_a_bare_loss_on_other_samples_says_nothing(self):
        """A worse model on easier samples must not look better than its baseline."""
        gate = GateSpec(metric="clean.accuracy", max_drop=0.0, use="value")
        result = one(gate, finding(value=0.99), baseline=results(finding(), sha="b"), **self.SAME)
        assert result.status is Status.NOT_MEASURED
        assert "other samples" in result.sentence

    def test_a_paired_rate_where_lower_is_better(self):
        a, b = paired([True] * 30 + [False] * 70, [True] * 20 + [False] * 80, higher_is_better=False)
        result = one(GateSpec(metric="clean.accuracy", max_drop=0.0, use="value"), a, baseline=results(b), **self.SAME)
        assert (result.status, result.observed) == (Status.FAIL, pytest.approx(0.1))
        result = one(GateSpec(metric="clean.accuracy", max_drop=0.0), a, baseline=results(b), **self.SAME)
        assert result.observed == pytest.approx(bonett_price(10, 0, 100).high)

    @pytest.mark.parametrize("higher", [True, False])
    def test_the_unpaired_loss_keeps_its_lopsided_ends(self, higher):
        one_end, other_end = Interval(low=0.5, high=0.9, method="x"), Interval(low=0.78, high=0.85, method="x")
        now = finding(value=0.6, low=one_end.low, high=one_end.high, higher_is_better=higher)
        before = finding(value=0.8, low=other_end.low, high=other_end.high, higher_is_better=higher)
        loss = mover(0.8, other_end, 0.6, one_end) if higher else mover(0.6, one_end, 0.8, other_end)
        found = one(GateSpec(metric="clean.accuracy", max_drop=1), now, baseline=results(before))
        assert found.observed == pytest.approx(loss.high)
        lower = one(GateSpec(metric="clean.accuracy", max_drop=1, use="ci_low"), now, baseline=results(before))
        assert lower.observed == pytest.approx(loss.low)

    @pytest.mark.parametrize("use", ["ci_low", "ci_high", "value", None])
    def test_which_end_of_the_loss(self, use):
        a, b = paired([True] * 80 + [False] * 20, [True] * 90 + [False] * 10)
        loss = bonett_price(10, 0, 100)
        gate = GateSpec(metric="clean.accuracy", max_drop=0.05, use=use)
        expected = {"ci_low": loss.low, "ci_high": loss.high, "value": 0.1, None: loss.high}[use]
        assert one(gate, a, baseline=results(b), **self.SAME).observed == pytest.approx(expected)

    def test_other_options_cannot_be_compared(self):
        now, before = finding(parameters={"steps": 10}), finding(parameters={"steps": 40})
        result = one(self.GATE, now, baseline=results(before))
        assert result.status is Status.NOT_MEASURED
        assert "steps 40 then, 10 now" in result.sentence
        same = finding(parameters={"steps": 10.0, "radii": (1, 2)}), finding(parameters={"steps": 10, "radii": [1, 2]})
        assert one(self.GATE, same[0], baseline=results(same[1])).status is not Status.NOT_MEASURED

    def test_other_units_cannot_be_compared(self):
        assert one(self.GATE, finding(unit="points"), baseline=results(finding())).status is Status.NOT_MEASURED

    def test_without_intervals_only_the_value_is_judged(self):
        bare = finding(low=None)
        assert one(self.GATE, bare, baseline=results(bare)).status is Status.NOT_MEASURED
        value = GateSpec(metric="clean.accuracy", max_drop=0.0, use="value")
        assert one(value, bare, baseline=results(bare), **self.SAME).status is Status.PASS

    def test_robust_accuracy_may_not_fall(self):
        before = finding("pgd.robust_accuracy@0.3", 0.5, family="adversarial")
        for value, status in ((0.5, "pass"), (0.51, "pass"), (0.499, "fail")):
            now = dataclasses.replace(before, value=value)
            assert one(NOT_FALLING, now, baseline=results(before), **self.SAME).status is Status(status)

    def test_a_tolerant_gate_of_one_s_own_takes_the_place_of_the_strict_one(self):
        """As docs/how-to-ci.md shows it: one sample lost and won elsewhere is noise, ten lost are not."""
        name, family = "pgd.robust_accuracy@0.3", {"family": "adversarial"}
        own = GateSpec(metric="*.robust_accuracy@*", max_drop=0.0, use="ci_low")
        for lost, strict, tolerant in ((1, "fail", "pass"), (10, "fail", "fail")):
            before = [True] * 50 + [False] * 50
            a, b = paired([False] * lost + before[lost:], before, **family)
            now, then = (dataclasses.replace(each, check="pgd", metric="robust_accuracy@0.3") for each in (a, b))
            base = results(then)
            assert now.name == name
            assert against_baseline((own,), base) == (own,)
            assert one(NOT_FALLING, now, baseline=base, **self.SAME).status is Status(strict)
            assert one(own, now, baseline=base, **self.SAME).status is Status(tolerant)

    def test_the_default_gate_is_added_once(self):
        gates = (GateSpec(metric="clean.accuracy", min=0.5),)
        base = results(finding("pgd.robust_accuracy@0.3", family="adversarial"))
        own = (GateSpec(metric="pgd.robust_accuracy@0.3", max_drop=0.01),)
        assert against_baseline(gates, base) == (*gates, NOT_FALLING)
        assert against_baseline(own, base) == own
        assert against_baseline(gates, None) == gates
        assert against_baseline(gates, results(finding())) == gates, "nothing there that could fall"
        assert against_baseline(None, base) is None


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
