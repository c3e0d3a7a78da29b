"""Losses against a baseline: paired where both runs say which samples were right, and never between other samples."""

from __future__ import annotations

import dataclasses

import pytest

from assess.judging import finding, one, paired, results, world
from vambrace.assess.gates import NOT_FALLING, against_baseline, judge
from vambrace.assess.plan import GateSpec
from vambrace.core.findings import Interval, Status
from vambrace.core.intervals import bonett_price, mover
from vambrace.core.outcomes import KEY, pack


class TestBaseline:
    GATE = GateSpec(metric="clean.accuracy", max_drop=0.02)

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
        result = one(self.GATE, a, baseline=results(b), **world(a))
        assert result.observed == pytest.approx(bonett_price(3, 0, 1000).high)
        assert result.status is Status.PASS
        assert result.sentence == (
            "Accuracy (clean.accuracy) became worse by 0.3 points against the baseline "
            "(95 % interval of the loss, paired: -0.138 points to 0.736 points); "
            "the upper end, 0.736 points, is within the allowed 2 points."
        )
        other = one(self.GATE, a, baseline=results(b, sha="b"), **world(a))
        assert "unpaired" in other.sentence
        assert other.status is Status.FAIL

    @pytest.mark.parametrize(
        "series", [{}, {KEY: "3:0"}, {KEY: "1000:zz"}, {KEY: 7}, {KEY: pack([True] * 1000)}, {KEY: pack([True] * 900)}]
    )
    def test_outcomes_that_do_not_fit_are_not_used(self, series):
        a, b = paired([True] * 890 + [False] * 110, [True] * 900 + [False] * 100)
        bad = dataclasses.replace(a, series=series)
        assert "unpaired" in one(self.GATE, bad, baseline=results(b), **world(bad)).sentence

    def test_lower_is_better(self):
        points = {"unit": "points", "higher_is_better": False}
        now = finding("r.drop@1", 6.0, low=5.0, high=7.0, **points)
        before = finding("r.drop@1", 4.0, low=3.0, high=5.0, **points)
        gate = GateSpec(metric="r.drop@1", max_drop=2.0, use="value")
        assert one(gate, now, baseline=results(before), **world(now)).observed == pytest.approx(2.0)
        assert one(gate, now, baseline=results(before), **world(now)).status is Status.PASS
        assert one(gate, before, baseline=results(now), **world(before)).observed == pytest.approx(-2.0)

    def test_a_bare_loss_on_other_samples_says_nothing(self):
        """A worse model on easier samples must not look better than its baseline."""
        gate = GateSpec(metric="clean.accuracy", max_drop=0.0, use="value")
        result = one(gate, finding(value=0.99), baseline=results(finding(), sha="b"), **world(finding(value=0.99)))
        assert result.status is Status.NOT_MEASURED
        assert "other samples (1,000 then, 1,000 now)" in result.sentence

    def test_a_paired_rate_where_lower_is_better(self):
        a, b = paired([True] * 30 + [False] * 70, [True] * 20 + [False] * 80, higher_is_better=False)
        result = one(GateSpec(metric="clean.accuracy", max_drop=0.0, use="value"), a, baseline=results(b), **world(a))
        assert (result.status, result.observed) == (Status.FAIL, pytest.approx(0.1))
        result = one(GateSpec(metric="clean.accuracy", max_drop=0.0), a, baseline=results(b), **world(a))
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
        assert one(gate, a, baseline=results(b), **world(a)).observed == pytest.approx(expected)

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
        assert one(value, bare, baseline=results(bare), **world(bare)).status is Status.PASS

    def test_robust_accuracy_may_not_fall(self):
        before = finding("pgd.robust_accuracy@0.3", 0.5, family="adversarial")
        for value, status in ((0.5, "pass"), (0.51, "pass"), (0.499, "fail")):
            now = dataclasses.replace(before, value=value)
            assert one(NOT_FALLING, now, baseline=results(before), **world(now)).status is Status(status)

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
            assert one(NOT_FALLING, now, baseline=base, **world(now)).status is Status(strict)
            assert one(own, now, baseline=base, **world(now)).status is Status(tolerant)

    def test_the_default_gate_is_added_once(self):
        gates = (GateSpec(metric="clean.accuracy", min=0.5),)
        base = results(finding("pgd.robust_accuracy@0.3", family="adversarial"))
        own = (GateSpec(metric="pgd.robust_accuracy@0.3", max_drop=0.01),)
        assert against_baseline(gates, base) == (*gates, NOT_FALLING)
        assert against_baseline(own, base) == own
        assert against_baseline(gates, None) == gates
        assert against_baseline(gates, results(finding())) == gates, "nothing there that could fall"
        assert against_baseline(None, base) is None


class TestLimits:
    """Equal data, and checks that take parts of it: what counts as the same samples is decided check by check."""

    NAME = "pgd.robust_accuracy@0.3"
    # Samples that both runs have, in ascending order of ids; the baseline has 30, this run the first and the last 10.
    FEW = [place < 10 or place >= 90 for place in range(100)]
    MANY = [place < 20 or place >= 90 for place in range(100)]

    def runs(self, right_now, right_then):
        """This run and its baseline: whether the models are right about the samples at those of 100 places."""
        few, many = (
            [each in right for each, taken in enumerate(mask) if taken]
            for right, mask in ((right_now, self.FEW), (right_then, self.MANY))
        )
        now, then = (
            finding(
                self.NAME, sum(each) / len(each), n=len(each), low=0.0, high=1.0, series={KEY: pack(each)},
                family="adversarial",
            )
            for each in (few, many)
        )  # fmt: skip
        return now, then

    def judged(self, gate, now, then, *, few=None, many=None, ids="i"):
        baseline = results(then, pgd=many or self.MANY)
        return one(gate, now, baseline=baseline, **world(now, ids=ids, pgd=few or self.FEW))

    def test_a_worse_model_on_fewer_samples_is_worse(self):
        """The baseline is right about its 20 common samples and wrong about the others; this one loses 5 of the 20."""
        common = [*range(10), *range(90, 100)]
        now, then = self.runs(common[:15], common)
        assert now.value == 0.75
        assert then.value == pytest.approx(2 / 3)
        result = self.judged(NOT_FALLING, now, then)
        assert (result.status, result.observed) == (Status.FAIL, 0.25)
        assert "became worse by 25 points against the baseline on the 20 samples that both runs measured" in (
            result.sentence
        )
        end = self.judged(GateSpec(metric=self.NAME, max_drop=0.0), now, then)
        assert end.observed == pytest.approx(bonett_price(5, 0, 20).high)
        other = self.judged(NOT_FALLING, *self.runs(common, common))
        assert (other.status, other.observed) == (Status.PASS, 0.0)

    def test_few_common_samples_are_said(self):
        now, then = self.runs(range(100), range(100))
        result = self.judged(GateSpec(metric=self.NAME, max_drop=0.01), now, then)
        assert result.sentence.endswith("20 samples are not enough to show less, more would tell.")

    def test_no_common_sample(self):
        now, then = self.runs(range(100), range(100))
        apart = [20 <= place < 40 for place in range(100)]
        result = self.judged(NOT_FALLING, now, then, few=apart)
        assert result.status is Status.NOT_MEASURED
        assert "other samples (30 then, 20 now)" in result.sentence

    @pytest.mark.parametrize("series", [{}, {KEY: pack([True] * 19)}], ids=["no outcomes", "outcomes of others"])
    def test_a_bare_loss_between_unequal_parts_says_nothing(self, series):
        now, then = self.runs([], [])
        now = dataclasses.replace(now, value=1.0, series=series)
        result = self.judged(NOT_FALLING, now, then)
        assert (result.status, result.observed) == (Status.NOT_MEASURED, None)
        assert "other samples (30 then, 20 now)" in result.sentence
        assert "unpaired" in self.judged(GateSpec(metric=self.NAME, max_drop=1.0), now, then).sentence

    def test_equal_contents_under_other_ids_are_not_paired(self):
        """Outcomes stand in the order of ids: under other ids they are outcomes of other samples."""
        now, then = self.runs(range(15), range(15))
        assert self.judged(NOT_FALLING, now, then, ids="j").status is Status.NOT_MEASURED

    @pytest.mark.parametrize("lacks", ["plan", "data"])
    def test_results_that_do_not_say(self, lacks):
        now = finding(self.NAME, 0.5, family="adversarial")
        here = world(now) | ({"plan": {"checks": [{"id": "pgd"}]}} if lacks == "plan" else {"data": {"eval": {}}})
        result = one(NOT_FALLING, now, baseline=results(now), **here)
        assert result.status is Status.NOT_MEASURED

    def test_data_that_a_check_does_not_use_does_not_matter(self):
        now = finding("membership.auc", 0.6, low=None, higher_is_better=False, unit="auc")
        gate = GateSpec(metric="membership.auc", max_drop=0.0, use="value")
        data = {role: {"sha256": "a", "ids": "i"} for role in ("eval", "members", "nonmembers")}
        plan = {"checks": [{"id": "membership", "samples": dict.fromkeys(("members", "nonmembers"), "4:f")}]}
        before = dataclasses.replace(results(now), data=data, plan=plan)
        for role, status in (("eval", "pass"), ("members", "not_measured"), ("nonmembers", "not_measured")):
            changed = data | {role: {"sha256": "b", "ids": "i"}}
            assert one(gate, now, baseline=before, data=changed, plan=plan).status is Status(status), role

    def test_preflight_follows_the_data(self):
        now = finding("preflight.ok", 1.0, low=None, family="preflight")
        gate = GateSpec(metric="preflight.ok", max_drop=0.0, use="value")
        for sha, status in (("a", "pass"), ("b", "not_measured")):
            assert one(gate, now, baseline=results(now), **world(sha=sha)).status is Status(status)
