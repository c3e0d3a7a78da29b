"""Rows of the scorecard: nothing unsound looks sound, and a cost is shown once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from report import sample
from vambrace.core.findings import Cost, Status
from vambrace.report.views.scorecard import cost_text, gate_rows, groups, row, tiles

WHOLE = sample.results()


def one(name: str, **changes: object) -> object:
    found = next(f for f in WHOLE.findings if f.name == name)
    return row(replace(found, **changes), WHOLE.gates, {})


def test_row() -> None:
    shown = one("pgd-linf.robust_accuracy@0.0313725")
    assert (shown.label, shown.value, shown.interval) == ("Accuracy under attack, L∞ 8/255", "43.1 %", "[40.1, 46.2]")
    assert (shown.look, shown.word, shown.struck) == ("fail", "fails", False)
    assert [gate.rule for gate in shown.gates] == ["ci_low >= 0.42"]


@pytest.mark.parametrize("status", [Status.UNRELIABLE, Status.ERROR, Status.NOT_MEASURED])
def test_unsound_numbers_are_struck(status: Status) -> None:
    shown = one("clean.accuracy", status=status)
    assert shown.struck
    assert "hollow" in shown.bar
    assert shown.look not in {"pass", "measured"}


@pytest.mark.parametrize("status", [Status.PASS, Status.FAIL, Status.WARN, Status.MEASURED])
def test_sound_numbers_are_not(status: Status) -> None:
    assert not one("clean.accuracy", status=status).struck


def test_a_reason_is_said_once() -> None:
    shown = one("clean.accuracy", sentence="Not measured: no data.", reason="no data")
    assert (shown.sentence, shown.reason) == ("", "Not measured: no data.")
    shown = one("clean.accuracy", sentence="A.", reason="B.")
    assert (shown.sentence, shown.reason) == ("A.", "B.")


def test_preflight_is_a_word_without_a_bar() -> None:
    shown = row(sample.refused().findings[0], (), {})
    assert (shown.value, shown.struck, shown.bar) == ("no", False, None)
    assert row(WHOLE.findings[0], (), {}).value == "yes"


def test_threshold_only_where_it_was_compared_with_this_number() -> None:
    drop = sample.gate("clean.accuracy max_drop 0.02", "clean.accuracy", Status.PASS, 0.004, 0.02)
    clean = next(f for f in WHOLE.findings if f.name == "clean.accuracy")
    assert "threshold" not in row(clean, (drop,), {}).bar
    low = sample.gate("clean.accuracy ci_low >= 0.9", "clean.accuracy", Status.PASS, clean.interval.low, 0.9)
    assert "threshold" in row(clean, (low,), {}).bar


def test_cost_once_a_check() -> None:
    group = next(g for g in groups(WHOLE, {"pgd-linf": 121.5}, 400) if g.family == "adversarial")
    rows = [r for r in group.rows if r.check == "pgd-linf"]
    assert (rows[0].cost, rows[0].seconds) == ("81.6k passes", "2 min 02 s")
    assert {(r.cost, r.seconds) for r in rows[1:]} == {("", "")}


def test_queries_are_shown_where_they_are_what_is_spent() -> None:
    finding = replace(WHOLE.findings[0], cost=Cost(forwards=10, queries=5000))
    assert cost_text(finding) == "5k queries"
    assert cost_text(replace(finding, cost=Cost())) == ""


def test_gates_that_do_not_hold_come_first() -> None:
    looks = [gate.look for gate in gate_rows(WHOLE.gates)]
    assert looks == ["fail", "missing", *["pass"] * 6]
    optional = sample.gate("a.b >= 1", "a.b", Status.FAIL, 0.0, 1.0, required=False)
    assert gate_rows([optional])[0].look == "warn"


def test_groups_fold_details_away_but_nothing_urgent() -> None:
    names = {r.name for g in groups(WHOLE, {}, 400) for r in g.rows}
    urgent = {f.name for f in WHOLE.findings if f.status in {Status.FAIL, Status.ERROR, Status.UNRELIABLE, Status.WARN}}
    assert urgent <= names
    assert "natural-rotate.accuracy@1" not in names
    assert sum(len(g.rows) + g.more for g in groups(WHOLE, {}, 400)) == len(WHOLE.findings)
    assert all(len(g.rows) <= 3 for g in groups(WHOLE, {}, 3))


def test_tiles() -> None:
    assert [tile.name for tile in tiles(WHOLE)] == [
        "clean.accuracy",
        "pgd-linf.robust_accuracy@0.0313725",  # what a gate failed on, not the largest radius
        "natural-rotate.mean_accuracy",
        "loss.auc",
    ]
    assert tiles(sample.refused()) == []
