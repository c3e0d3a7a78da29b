"""Tables of what each attack of an ensemble did."""

from __future__ import annotations

import dataclasses

import pytest

from vambrace.core.findings import Finding, Status
from vambrace.report.views.attacks import ensembles

ROW = {"name": "apgd-ce", "attacked": 100, "broken": 7, "forwards": 9000, "backwards": 8900, "verifications": 7}


def finding(eps: float, attacks: object, check: str = "standard-linf") -> Finding:
    return Finding(
        check=check,
        metric=f"robust_accuracy@{eps:.6g}",
        family="adversarial",
        status=Status.MEASURED,
        value=0.5,
        unit="share",
        n=100,
        higher_is_better=True,
        sentence="",
        parameters={"norm": "linf", "eps": eps},
        series={"attacks": attacks},
    )


def test_a_table_says_what_each_attack_did() -> None:
    (table,) = ensembles([finding(0.3, [ROW, {**ROW, "name": "square", "attacked": 93, "backwards": 0}])])
    assert [turn.name for turn in table.turns] == ["apgd-ce", "square"]
    assert table.turns[0].cells == ("100", "7", "9,000", "8,900", "7")
    assert table.where.endswith(", 0.3")
    assert table.calls == "269 rows a sample in all."


def test_the_largest_radius_of_each_check_comes_first_and_tables_are_few() -> None:
    many = [finding(eps, [ROW], check) for check in ("a", "b") for eps in (0.1, 0.2, 0.3, 0.4)]
    tables = ensembles(many)
    assert [(table.check, table.where[-3:]) for table in tables[:2]] == [("a", "0.4"), ("b", "0.4")]
    assert len(tables) == 6


@pytest.mark.parametrize(
    "attacks", ["text", [], [1], [{**ROW, "name": 3}], [{**ROW, "broken": -1}], [{**ROW, "broken": 1.5}], [{}], None]
)
def test_malformed_series_give_no_table(attacks: object) -> None:
    assert ensembles([finding(0.3, attacks)]) == []


def test_other_families_have_none() -> None:
    assert ensembles([dataclasses.replace(finding(0.3, [ROW]), family="natural")]) == []
