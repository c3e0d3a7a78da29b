"""Ensembles in the adversarial check: what each attack did, black box against white box, joint attacks in one unit."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import torch

from vambrace.assess.checks.adversarial import AdversarialCheck
from vambrace.assess.checks.breaks import beaten, turns_at
from vambrace.attacks import PGD, Adaptive, HopSkipJump, Square
from vambrace.core.access import Access
from vambrace.core.findings import Cost, Status
from vambrace.models import Counted
from vambrace.search.outcome import Attacked, Part

CHECK = AdversarialCheck(attack=Adaptive(eps=0.1, budget=120, patience=10), eps=(0.02, 0.06))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parted(PGD):
    """PGD that says an ensemble had broken so many of so many without gradients."""

    broken: int = 0
    left: int = 0
    name: ClassVar[str] = "pgd"

    def run(self, problem, **how):
        found = PGD.run(self, problem, **how)
        part = Part(
            name="square",
            attacked=self.left + self.broken,
            broken=self.broken,
            cost=Cost(forwards=7),
            black_box=True,
        )
        return _Told(
            **{field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
            | {"parts": (part,), "by": torch.zeros(len(found.success), dtype=torch.int64), "told": self.left}
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Told(Attacked):
    """An outcome that says so many are left."""

    told: int

    @property
    def left(self) -> int:
        return self.told


def test_every_attack_of_an_ensemble_is_listed_at_its_radius(world) -> None:
    findings = world.findings(CHECK)
    for eps in CHECK.eps:
        rows = findings[f"robust_accuracy@{eps:.6g}"].series["attacks"]
        assert [row["name"] for row in rows[:1]] == ["clean"]
        assert {"burst", "verification"} <= {row["name"] for row in rows}
    first = findings["robust_accuracy@0.02"].series["attacks"]
    success = findings["success@0.02"]
    assert sum(row["broken"] for row in first) == round(success.value * success.n)


def test_units_add_up(world) -> None:
    halves = [list(world.measured(CHECK, places).records) for places in (range(30), range(30, 60))]
    for eps in CHECK.eps:
        both = {row["name"]: row for row in turns_at([*halves[0], *halves[1]], eps)}
        for name, row in both.items():
            each = [one for half in halves for one in turns_at(half, eps) if one["name"] == name]
            assert row["broken"] == sum(one["broken"] for one in each)
            assert row["forwards"] == sum(one["forwards"] for one in each)


def test_single_attacks_have_no_list(world) -> None:
    findings = world.findings(AdversarialCheck(attack=PGD(eps=0.1, steps=5), eps=(0.02,)))
    assert "attacks" not in findings["robust_accuracy@0.02"].series


def test_only_attacks_that_look_at_all_samples_are_joint() -> None:
    assert CHECK.joint
    assert not AdversarialCheck(attack=PGD(eps=0.1), eps=(0.1,)).joint


@pytest.mark.parametrize(
    ("broken", "survivors", "code"), [(28, 829, "E467"), (13, 868, "E468"), (1, 5, "E467"), (0, 868, None)]
)
def test_a_black_box_attack_that_beats_gradients_is_flagged(
    world, broken: int, survivors: int, code: str | None
) -> None:
    """The thresholds of the design: 28 of 829 take the meaning away, 13 of 868 qualify it."""
    check = AdversarialCheck(attack=Parted(eps=0.1, steps=5, broken=broken, left=survivors - broken), eps=(0.03,))
    finding = world.findings(check)["robust_accuracy@0.03"]
    codes = [flag.code for flag in finding.flags if flag.code in ("E467", "E468")]
    assert codes == ([code] if code else [])
    expected = {"E467": Status.UNRELIABLE, "E468": Status.WARN, None: Status.MEASURED}[code]
    assert finding.status is expected


def test_the_worst_radius_counts() -> None:
    def turn(eps: float, broken: int) -> dict:
        sums = {"attacked": 829, "regained": 0, "forwards": 1, "backwards": 0, "verifications": 0}
        return {"eps": eps, "name": "square", "black_box": True, "broken": broken, "left": 829 - broken, **sums}

    records = [{"turns": [turn(0.1, 2), turn(0.3, 28)]}]
    assert [flag.code for flag in beaten(records, (0.1, 0.3))] == ["E467"]
    assert [flag.code for flag in beaten(records, (0.1,))] == ["E468"]


def test_several_black_box_parts_of_several_units_count_together_and_what_gradients_regain_does_not() -> None:
    """13 of 868 do not take the meaning away; twice as many, in two parts or two units, do."""

    def unit(*broken: tuple[int, int], left: int) -> dict:
        sums = {"attacked": 99, "forwards": 1, "backwards": 0, "verifications": 0, "black_box": True, "eps": 0.1}
        return {
            "turns": [
                sums | {"name": f"part {k}", "broken": n, "regained": r, "left": left}
                for k, (n, r) in enumerate(broken)
            ]
        }

    def codes(*records: dict) -> list[str]:
        return [flag.code for flag in beaten(records, (0.1,))]

    assert codes(unit((13, 0), left=855)) == ["E468"]
    assert codes(unit((13, 0), (13, 0), left=842)) == ["E467"]
    assert codes(unit((13, 0), left=421), unit((13, 0), left=421)) == ["E467"]
    assert codes(unit((13, 13), (13, 0), left=855)) == ["E468"]
    assert codes(unit((13, 13), (13, 13), left=868)) == []


class TestBlackBox:
    def test_scores_alone_are_attacked_by_square(self, world, monkeypatch) -> None:
        counted = world.model = Counted(world.model)
        monkeypatch.setattr(type(counted), "access", property(lambda self: Access.SCORES))
        check = AdversarialCheck(attack=Square(eps=0.1, queries=60), eps=(0.05, 0.1))
        measured = world.measured(check)
        finding = world.findings(check)["robust_accuracy@0.1"]
        assert 0 < finding.value < 1
        assert "black-box attack square" in finding.sentence
        assert measured.cost.queries == measured.cost.forwards + measured.cost.verifications
        assert measured.cost.idle_forwards == measured.cost.padding_forwards == 0

    def test_labels_alone_are_attacked_along_the_decision(self, world, labels_only) -> None:
        world.model = labels_only(world.model)
        check = AdversarialCheck(attack=HopSkipJump(norm="l2", budget=150), eps=(0.1, 0.3))
        findings = world.findings(check)
        near, far = (findings[f"robust_accuracy@{eps:.6g}"].value for eps in check.eps)
        assert 0 < far < near
        assert all(
            "broken" not in record or record["distance"] <= record["broken"] for record in world.measured(check).records
        )
