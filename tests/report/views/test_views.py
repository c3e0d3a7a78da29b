"""The smaller views: classes, leakage, examples, facts, limits, reliability, series."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from report import sample
from vambrace.core.findings import Evidence, Flag, Results, Status
from vambrace.report.pictures import Shown
from vambrace.report.views import about, leakage, limits, reliability
from vambrace.report.views.classes import by_class, class_name
from vambrace.report.views.examples import _in_turn, examples
from vambrace.report.views.series import numbers, same_length

WHOLE = sample.results()


def test_weakest_classes_first() -> None:
    found = by_class(WHOLE.findings, WHOLE.model, 4)
    assert found is not None
    values = [float(row.value.split()[0]) for row in found.rows]
    assert values == sorted(values)
    assert (len(found.rows), found.more) == (4, 6)
    assert found.rows[0].name in found.sentence


@pytest.mark.parametrize("name", ["class", "accuracy", "n"])
def test_malformed_classes_are_left_out(name: str) -> None:
    first = next(f for f in WHOLE.findings if f.name == "clean.accuracy")
    for bad in (None, [], [1], "abc", [None] * 10):
        assert by_class([replace(first, series={**first.series, name: bad})], {}, 4) is None


def test_names_of_classes() -> None:
    assert class_name({"class_names": ["cat"]}, 0) == "cat"
    assert class_name({"class_names": ["cat"]}, 1) == "class 1"
    assert class_name({"class_names": ["cat"]}, -1) == "class -1"
    assert class_name({}, 3) == "class 3"


def test_roc_marks_are_the_measured_rates() -> None:
    (roc,) = leakage.rocs(WHOLE.findings)
    assert "14.5 %" in roc.picture
    assert "0.1 % false alarms" not in roc.picture  # not measured
    assert "AUC 0.534" in roc.sentence


@pytest.mark.parametrize(
    ("fpr", "tpr"),
    [([0.1], [0.1]), ([0.2, 0.1], [0.1, 0.2]), ([0.1, 0.2], [0.1]), ([0.1, 2], [0.1, 0.2]), ([0.1, 0.2], [None, 0.2])],
)
def test_malformed_roc_draws_nothing(fpr: list[Any], tpr: list[Any]) -> None:
    auc = next(f for f in WHOLE.findings if f.name == "loss.auc")
    assert leakage.rocs([replace(auc, series={"fpr": fpr, "tpr": tpr})]) == []


def test_series() -> None:
    assert numbers({"a": (1, 2.5)}, "a") == (1.0, 2.5)
    assert not same_length((1.0,), None)
    assert not same_length((1.0,), (1.0, 2.0))


def counts(found: list[Any]) -> dict[str, int]:
    return {group.check: len(group.strips) for group in found}


def test_examples(tmp_path: Path) -> None:
    whole = sample.results(tmp_path)
    found = examples(whole, tmp_path, images=6, budget=10**7)
    assert counts(found) == {"pgd-linf": 6, "natural-rotate": 4}
    first = found[0].strips[0]
    assert isinstance(first.shown, Shown)
    assert (first.label, first.prediction) == ("zero", "three")
    assert "L∞ distance 8/255 of 8/255 allowed" in first.facts
    assert first.sample == "test/0/00000.png"
    assert counts(examples(whole, tmp_path, images="all", budget=10**7)) == {"pgd-linf": 6, "natural-rotate": 4}
    assert counts(examples(whole, tmp_path, images=1, budget=10**7)) == {"pgd-linf": 1, "natural-rotate": 1}
    assert examples(whole, tmp_path, images="none", budget=10**7) == []
    assert examples(whole, tmp_path, images=0, budget=10**7) == []
    assert examples(WHOLE, tmp_path, images=6, budget=10**7) == []


def test_examples_without_room_or_file_say_so(tmp_path: Path) -> None:
    whole = sample.results(tmp_path)
    found = examples(whole, tmp_path, images=6, budget=0)
    assert {strip.missing for group in found for strip in group.strips} == {"There was no room left for the picture."}
    elsewhere = examples(whole, tmp_path / "moved", images=6, budget=10**7)
    assert all("E555" in strip.missing and strip.shown is None for group in elsewhere for strip in group.strips)


def test_every_radius_shows_its_worst_before_any_shows_its_second() -> None:
    def item(name: str) -> Evidence:
        return Evidence(finding=name, kind="adversarial", file="", sample="1", data={})

    lists = [[item("a1"), item("a2"), item("a3")], [item("b1")], [item("c1"), item("c2")]]
    assert [e.finding for e in _in_turn(lists, 4)] == ["a1", "a2", "b1", "c1"]
    assert [e.finding for e in _in_turn(lists, 99)] == ["a1", "a2", "a3", "b1", "c1", "c2"]


def test_evidence_without_names_is_told_by_number(tmp_path: Path) -> None:
    whole = sample.results(tmp_path)
    bare = [
        replace(f, evidence=tuple(replace(e, data={"label": 3, "prediction": 99}) for e in f.evidence))
        for f in whole.findings
    ]
    first = examples(replace(whole, findings=tuple(bare)), tmp_path, images=1, budget=10**7)[0].strips[0]
    assert (first.label, first.prediction) == ("three", "class 99")
    assert first.sample.isdigit()


def test_commands_survive_the_shell() -> None:
    environment = {"command": ["vambrace", "assess", "a b.toml; rm -rf ~", "$(x)"]}
    lines = [command.line for command in about.commands(WHOLE, environment, "runs/a b")]
    assert shlex.split(lines[0]) == environment["command"]
    assert "vambrace gate 'runs/a b'" in lines
    assert any(line == "pip install torch==2.13.0 numpy==2.4.1" for line in lines)


def test_commands_without_a_record() -> None:
    lines = [command.line for command in about.commands(WHOLE, {"command": None, "plan_file": 3}, "runs/x")]
    assert lines[0] == "vambrace assess --resume runs/x"


def test_facts_skip_what_is_not_known() -> None:
    bare = replace(WHOLE, model={}, data={}, plan={}, versions={})
    assert [title for title, found in about.facts(bare, {}) if found] == ["Model"]
    assert about.planned(bare) == []
    names = {fact.name: fact.value for _, found in about.facts(WHOLE, sample.ENVIRONMENT) for fact in found}
    assert names["Input"] == "1 × 8 × 8"
    assert names["Bounds"] == "0 to 1"
    assert names["Seed"] == "7"


def test_options_of_checks_are_words() -> None:
    told = {check.check: check.options for check in about.planned(WHOLE)}
    assert told["pgd-linf"] == (
        "attack pgd (norm linf, steps 40, random start yes); eps 1/255 2/255 4/255 8/255 16/255"
    )
    assert told["natural-rotate"] == "perturbation rotate; severities 1 2 3 4 5"
    assert told["clean"] == ""
    limited = replace(WHOLE, plan={"checks": [{"id": "a", "limit": 50, "options": {"eps": 0.5, "x": None, "y": []}}]})
    assert about.planned(limited)[0].options == "eps 0.5; at most 50 samples"


def test_many_checks_show_a_few_each(tmp_path: Path) -> None:
    first = next(f for f in sample.results(tmp_path).findings if f.evidence)
    many = replace(WHOLE, findings=tuple(replace(first, check=f"c{i}") for i in range(10)))
    assert set(counts(examples(many, tmp_path, images=6, budget=10**7)).values()) == {3}
    assert set(counts(examples(many, tmp_path, images="all", budget=10**7)).values()) == {6}


def test_costs_add_up_once_a_check() -> None:
    rows, phases = about.cost_rows(WHOLE, sample.TIMINGS)
    assert rows[-1].total
    assert rows[-1].cells[1] == "80.1k"  # backward: two attacks at 40k, preflight 64
    assert {fact.name for fact in phases} == {"load", "preflight", "units", "report", "Whole run"}
    assert about.cost_rows(WHOLE, {"checks": "no", "phases": [1], "total": "x"})[1] == []


def test_limits_name_what_ran_and_what_did_not() -> None:
    said = " ".join(limits.limits(WHOLE))
    assert "upper bound" in said
    assert "No attack ran" not in said
    nothing = limits.limits(sample.refused())
    assert any(line.startswith("No attack ran") for line in nothing)
    assert any("PASS means" in line for line in limits.limits(sample.passing()))
    small: Results = replace(WHOLE, data={"eval": {"n": 50}})
    assert any("Only 50 samples" in line for line in limits.limits(small))


def test_flags_once_and_the_grave_ones_first() -> None:
    warn = Flag(code="E412", level="warn", text="W.")
    grave = Flag(code="E431", level="unreliable", text="U.")
    found = [sample.finding(check, "clean", "accuracy", 0.5, flags=(warn, grave)) for check in ("a", "b", "a")]
    assert [(row.code, row.checks) for row in reliability.flags(found)] == [("E431", ("a", "b")), ("E412", ("a", "b"))]
    assert reliability.flags([sample.finding("a", "b", "c", None, status=Status.ERROR)]) == []
