"""What a hurried reader sees first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from report import sample
from vambrace.core.findings import Status
from vambrace.report.selection import by_family, headlines, key_numbers, reasons
from vambrace.report.words import FAMILIES, STATUSES, VERDICTS, metric_label

WHOLE = sample.results()


def test_families_in_the_order_of_the_report() -> None:
    others = [
        sample.finding("x", "fuzz", "neurons", 3.0, unit="count"),
        sample.finding("dp", "dp", "epsilon", 2.4, unit="epsilon"),
    ]
    mixed = [*others, *reversed(WHOLE.findings)]
    assert [family for family, _ in by_family(mixed)] == [*FAMILIES, "fuzz"]


@pytest.mark.parametrize("status", [Status.FAIL, Status.ERROR, Status.UNRELIABLE, Status.WARN])
def test_nothing_urgent_is_folded_away(status: Status) -> None:
    detail = next(f for f in WHOLE.findings if f.metric == "drop@3")
    changed = [replace(f, status=status) if f is detail else f for f in WHOLE.findings]
    assert detail.name in {f.name for f in headlines(changed)}
    assert detail.name not in {f.name for f in headlines(WHOLE.findings)}


def test_a_check_with_nothing_but_details_keeps_them() -> None:
    only = [f for f in WHOLE.findings if f.check == "natural-rotate" and f.metric != "mean_accuracy"]
    assert headlines(only) == only


def test_key_numbers_prefer_what_was_judged_then_the_worst() -> None:
    assert key_numbers(WHOLE.findings)[1].metric == "robust_accuracy@0.0313725"
    plain = [replace(f, status=Status.MEASURED) for f in WHOLE.findings if f.family == "adversarial" and f.value]
    sound = [f for f in plain if f.check != "pgd-l2"]
    assert key_numbers(sound)[0].value == 0.04
    auc = [sample.finding(f"m{v}", "membership", "auc", v, higher_is_better=False) for v in (0.5, 0.7, 0.6)]
    assert key_numbers(auc)[0].value == 0.7


def test_an_unreliable_number_never_stands_for_a_sound_one() -> None:
    bad = sample.finding("a", "clean", "accuracy", 0.1, status=Status.UNRELIABLE)
    good = sample.finding("b", "clean", "accuracy", 0.9)
    assert key_numbers([bad, good]) == [good]
    assert key_numbers([bad]) == [bad]  # but it is shown, as what it is, where there is no other


def test_reasons_once() -> None:
    found = {reason: len(where) for reason, where in reasons(WHOLE.findings)}
    assert found["The time budget ended."] == 4


def test_every_status_and_verdict_has_a_look() -> None:
    assert set(STATUSES) == set(Status)
    looks = [look for look, _ in STATUSES.values()]
    assert len(set(looks)) == len(looks)  # shapes tell them apart
    assert VERDICTS["PASS"] == "pass"
    assert [word for word, look in VERDICTS.items() if look == "pass"] == ["PASS"]


def test_labels_of_plug_ins_are_their_own_words() -> None:
    assert metric_label(sample.finding("x", "fuzz", "neurons@3", 1.0)) == "neurons@3"
    assert metric_label(sample.finding("x", "adversarial", "robust_accuracy@0.3", 1.0)) == "Accuracy under attack, 0.3"
    odd = sample.finding("x", "membership", "tpr@0.1", 1.0, parameters={"fpr": True})
    assert metric_label(odd) == "Members found @0.1"
