"""The verdict: the whole truth table of exit codes, and what the first sentence says."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from vambrace.assess.gates import apply, judge
from vambrace.assess.plan import GateSpec
from vambrace.assess.verdict import EXIT_ORDER, Conditions, Ending, conditions_of, exit_code, verdict
from vambrace.core.findings import Finding, Flag, GateResult, Interval, Status

NAMES = ("bug", "interrupted", "unwritten", "failed", "unreliable", "starved", "incomplete")


def expected_code(on):
    """The rule of the design: 70 > 130 > 6 if results.json is not durably written > 1 > 5 > 6 otherwise > 4."""
    if "bug" in on:
        return 70
    if "interrupted" in on:
        return 130
    if "unwritten" in on:
        return 6
    if "failed" in on:
        return 1
    if "unreliable" in on:
        return 5
    if "starved" in on:
        return 6
    return 4 if "incomplete" in on else 0


WORDS = {70: "ERROR", 130: "INTERRUPTED", 6: "RESOURCES", 1: "FAIL", 5: "UNRELIABLE", 4: "INCOMPLETE"}


def finding(name="clean.accuracy", status=Status.MEASURED, value=0.9, **other):
    check, _, metric = name.partition(".")
    missing = status in (Status.NOT_MEASURED, Status.ERROR)
    fields = {
        "family": "clean", "n": 100, "sentence": "", "value": None if missing else value,
        "interval": None if missing else Interval(low=value - 0.1, high=value + 0.1, method="x"),
        "reason": "" if status is Status.MEASURED else f"{status.value} for a reason",
    }  # fmt: skip
    return Finding(check=check, metric=metric, status=status, **(fields | other))


def gate(name="clean.accuracy", status=Status.PASS, *, required=True):
    return GateResult(
        gate=f"{name} >= 0.5", finding=name, status=status, observed=0.8, threshold=0.5, required=required,
        sentence=f"{name} was judged {status.value}.",
    )  # fmt: skip


GOOD = Ending(
    findings=(finding("preflight.ok", value=1.0), finding()), gates=(gate(),), judged=True, required=("clean",)
)

FACTS = {
    "bug": {"bug": "KeyError"},
    "interrupted": {"interrupted": True},
    "unwritten": {"unwritten": "no space left"},
    "starved": {"starved": "a worker died"},
    "incomplete": {"unfinished": "the budget of 10m was spent"},
}


def ending(on):
    """A run of which exactly the conditions in `on` hold."""
    facts = {key: value for name in on if name in FACTS for key, value in FACTS[name].items()}
    findings, gates, required = list(GOOD.findings), list(GOOD.gates), ["clean"]
    if "failed" in on:
        findings.append(finding("pgd.robust_accuracy@0.3"))
        gates.append(gate("pgd.robust_accuracy@0.3", Status.FAIL))
    if "unreliable" in on:
        findings.append(finding("apgd.robust_accuracy@0.3", Status.UNRELIABLE))
        required.append("apgd")
    return dataclasses.replace(GOOD, findings=findings, gates=gates, required=required, **facts)


SUBSETS = [frozenset(on) for size in range(8) for on in itertools.combinations(NAMES, size)]


@pytest.mark.parametrize("on", SUBSETS, ids=lambda on: "+".join(sorted(on)) or "nothing")
def test_the_whole_truth_table(on):
    """All 128 combinations, from the conditions and from the facts of a run."""
    assert exit_code(Conditions(**dict.fromkeys(on, ("x",)))) == expected_code(on)
    state = ending(on)
    assert {name for name in NAMES if getattr(conditions_of(state), name)} == on
    found = verdict(state)
    assert found.exit_code == expected_code(on)
    assert found.word == WORDS.get(found.exit_code, "PASS")
    unjudged = verdict(dataclasses.replace(state, judged=False, gates=()))
    without = on - {"failed"}
    assert unjudged.exit_code == expected_code(without)
    assert unjudged.word == WORDS.get(unjudged.exit_code, "MEASURED, NOT JUDGED")


def test_the_table_is_whole():
    assert len(SUBSETS) == 128
    assert [name for name, _, _ in EXIT_ORDER] == list(NAMES)
    assert {field.name for field in dataclasses.fields(Conditions)} == set(NAMES)


@pytest.mark.parametrize("on", SUBSETS, ids=lambda on: "+".join(sorted(on)) or "nothing")
def test_everything_that_holds_is_said(on):
    text = " ".join(verdict(ending(on)).sentences)
    said = {
        "bug": "KeyError", "interrupted": "interrupted", "unwritten": "no space left", "failed": "judged fail",
        "unreliable": "apgd cannot be relied on", "starved": "a worker died", "incomplete": "budget of 10m",
    }  # fmt: skip
    for name, words in said.items():
        assert (words in text) == (name in on)


class TestWhatMakesARunIncomplete:
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"gates": ()}, 4),
            ({"gates": (gate(required=False),)}, 4),
            ({"gates": (gate(status=Status.NOT_MEASURED),)}, 4),
            ({"gates": (gate(), gate("x.y", Status.NOT_MEASURED))}, 4),
            ({"gates": (gate(), gate("x.y", Status.NOT_MEASURED, required=False))}, 0),
            ({"gates": (gate(), gate("x.y", Status.FAIL, required=False))}, 0),
            ({"required": ("clean", "gone")}, 4),
            ({"findings": (finding("preflight.ok", value=1.0),)}, 4),
            ({"findings": (finding(), finding("clean.loss", Status.ERROR))}, 4),
            ({"findings": (finding(), finding("clean.loss", Status.NOT_MEASURED))}, 0),
            ({"findings": (finding("clean.accuracy", Status.NOT_MEASURED),)}, 4),
            ({"findings": (finding(), finding("extra.x", Status.ERROR))}, 0),
            ({"findings": (finding(), finding("extra.x", Status.UNRELIABLE))}, 0),
            ({"findings": (finding(), finding("preflight.ok", Status.UNRELIABLE))}, 5),
            ({"findings": (finding(), finding("clean.loss", Status.UNRELIABLE))}, 5),
        ],
    )
    def test_rows(self, change, code):
        assert verdict(dataclasses.replace(GOOD, **change)).exit_code == code

    def test_a_required_gate_on_an_optional_unreliable_number(self):
        state = dataclasses.replace(
            GOOD,
            findings=(*GOOD.findings, finding("extra.x", Status.UNRELIABLE)),
            gates=(gate(), gate("extra.x", Status.NOT_MEASURED)),
        )
        assert verdict(state).exit_code == 5

    def test_a_flag_is_enough_to_be_unreliable(self):
        flag = Flag(code="E401", level="unreliable", text="the model answers at random")
        state = dataclasses.replace(GOOD, findings=(finding(flags=(flag,)),))
        assert verdict(state).exit_code == 5

    def test_gates_none_still_needs_its_checks(self):
        state = dataclasses.replace(GOOD, judged=False, gates=(), required=("clean", "gone"))
        assert verdict(state).exit_code == 4
        assert verdict(dataclasses.replace(state, required=("clean",))).exit_code == 0

    def test_the_same_reason_is_said_once(self):
        many = [finding(f"pgd.robust_accuracy@{eps}", Status.UNRELIABLE, reason="masked") for eps in (0.1, 0.2, 0.3)]
        found = verdict(dataclasses.replace(GOOD, findings=(finding(), *many), required=("clean", "pgd")))
        assert " ".join(found.sentences).count("masked") == 1

    def test_the_same_reason_for_many_checks_is_said_once(self):
        bad = [finding(f"{name}.x", Status.UNRELIABLE, reason="One class only.") for name in "abcde"]
        preflight = finding("preflight.ok", Status.UNRELIABLE, reason="One class only.")
        gates = (gate("a.x", Status.NOT_MEASURED), gate("preflight.ok", Status.NOT_MEASURED))
        state = dataclasses.replace(GOOD, findings=(preflight, *bad), gates=gates, required=("a", "b", "c", "d", "e"))
        assert verdict(state).sentences == ("The numbers of a, b, c and 2 more cannot be relied on: One class only.",)

    def test_an_unfit_model_that_voids_no_check_is_said(self):
        state = dataclasses.replace(GOOD, findings=(finding(), finding("preflight.ok", Status.UNRELIABLE)))
        assert verdict(state).sentences[0] == "The model is not fit to be measured: unreliable for a reason."


class TestRemarks:
    FLAG = Flag(code="E413", level="warn", text="The model has 10 outputs for 7 classes.", families=("preflight",))

    def test_they_are_said_in_a_verdict_that_passes(self):
        found = verdict(dataclasses.replace(GOOD, findings=(finding("preflight.ok", flags=(self.FLAG,)), finding())))
        assert found.word == "PASS"
        assert found.sentences[1] == "Remark E413: The model has 10 outputs for 7 classes."

    def test_once_each_and_not_too_many(self):
        flags = tuple(dataclasses.replace(self.FLAG, code=f"E49{at}", families=()) for at in range(5))
        many = verdict(dataclasses.replace(GOOD, findings=(finding(flags=flags), finding("clean.loss", flags=flags))))
        assert [each[:11] for each in many.sentences[1:-1]] == ["Remark E490", "Remark E491", "Remark E492"]
        assert many.sentences[-1] == "2 more remarks in the report."

    def test_robust_accuracy_is_placed_by_norm_and_radius(self):
        found = robust(parameters={"norm": "linf", "eps": 8 / 255})
        first = verdict(dataclasses.replace(GOOD, findings=(*GOOD.findings, found))).sentences[0]
        assert "(lowest: 41.2 % within L\u221e 8/255, by pgd-linf)" in first


def robust(value=0.412, name="pgd-linf.robust_accuracy@0.0313725", **other):
    return finding(name, value=value, family="adversarial", **other)


class TestFirstSentence:
    def first(self, **change):
        return verdict(dataclasses.replace(GOOD, **change)).sentences[0]

    def test_pass(self):
        assert self.first() == "The one required gate holds."
        assert self.first(gates=(gate(), gate("preflight.ok"))) == "All 2 required gates hold."

    def test_robust_accuracy_without_a_bar_is_said_at_once(self):
        found = (*GOOD.findings, robust(), robust(0.6, "apgd.robust_accuracy@0.0313725"))
        assert self.first(findings=found) == (
            "The one required gate holds; robust accuracy was measured, not judged "
            "(lowest: 41.2 % within 0.0313725, by pgd-linf)."
        )
        failed = self.first(findings=found, gates=(gate(status=Status.FAIL),))
        assert failed.startswith(
            "1 of 1 required gates failed: clean.accuracy was judged fail; robust accuracy was measured"
        )

    @pytest.mark.parametrize("status", [Status.PASS, Status.FAIL])
    def test_a_gate_that_judged_it_ends_the_clause(self, status):
        gates = (gate(), gate(robust().name, status))
        assert "not judged" not in self.first(findings=(*GOOD.findings, robust()), gates=gates)

    def test_a_gate_that_could_not_judge_it_does_not(self):
        gates = (gate(), gate(robust().name, Status.NOT_MEASURED))
        assert "robust accuracy was measured, not judged" in self.first(
            findings=(*GOOD.findings, robust()), gates=gates
        )

    def test_robust_accuracy_that_was_not_measured_is_not_called_measured(self):
        bad = finding(robust().name, Status.UNRELIABLE, family="adversarial")
        assert "not judged" not in self.first(findings=(*GOOD.findings, bad))

    def test_no_gates(self):
        found = verdict(dataclasses.replace(GOOD, judged=False, gates=(), findings=(*GOOD.findings, robust())))
        assert (found.word, found.exit_code) == ("MEASURED, NOT JUDGED", 0)
        assert found.sentences[0] == "Measured, not judged: the plan asks for no gates."

    def test_nothing_is_said_twice(self):
        for on in SUBSETS:
            sentences = verdict(ending(on)).sentences
            assert len(set(sentences)) == len(sentences)
            assert not any(sentences[0].endswith(other) for other in sentences[1:])


class TestEndToEnd:
    """Gates that always pass would turn these red."""

    GATES = (GateSpec(metric="clean.accuracy", min=0.75), GateSpec(metric="natural-*.drop@1", max=10))

    def run(self, *findings):
        judged = judge(self.GATES, findings)
        return verdict(
            Ending(findings=apply(findings, judged), gates=judged, judged=True, required=("clean", "natural-a"))
        )

    def drop(self, high, **other):
        interval = Interval(low=high - 5, high=high, method="x")
        fields = {"unit": "points", "higher_is_better": False, "interval": interval, "family": "natural"}
        return finding("natural-a.drop@1", value=high - 2, **(fields | other))

    @pytest.mark.parametrize(
        ("findings", "code"),
        [
            ([("clean", 0.9), ("drop", 9.0)], 0),
            ([("clean", 0.84), ("drop", 9.0)], 1),
            ([("clean", 0.9), ("drop", 10.1)], 1),
            ([("clean", 0.9)], 4),
            ([("drop", 9.0)], 4),
            ([], 4),
        ],
    )
    def test_rows(self, findings, code):
        made = [finding(value=number) if kind == "clean" else self.drop(number) for kind, number in findings]
        assert self.run(*made).exit_code == code

    def test_unreliable(self):
        assert self.run(finding(status=Status.UNRELIABLE), self.drop(9.0)).exit_code == 5
        assert self.run(finding(status=Status.UNRELIABLE), self.drop(11.0)).exit_code == 1
