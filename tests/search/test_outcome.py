"""What is read off an outcome: who is left, what only black-box attacks broke, what is unspent, what rows cost."""

from __future__ import annotations

import dataclasses

import torch

from vambrace.core.findings import Cost
from vambrace.search.outcome import Attacked, Part

COST = Cost(
    forwards=10,
    backwards=4,
    verifications=3,
    queries=13,
    idle_forwards=2,
    idle_backwards=1,
    padding_forwards=5,
    padding_backwards=6,
)
COUNTED = ("forwards", "backwards", "verifications", "queries", "zero_gradients")


def outcome(**changed: object) -> Attacked:
    whole = torch.tensor([3, 5, 2])
    fields = {
        "adversarial": torch.zeros(3, 2),
        "success": torch.tensor([True, False, False]),
        "norm": "linf",
        "distance": torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64),
        "margin": torch.tensor([0.5, -0.5, float("nan")]),
        "forwards": whole,
        "backwards": whole - 1,
        "verifications": torch.tensor([1, 0, 0]),
        "queries": torch.tensor([4, 5, 2]),
        "first_success": torch.tensor([3, -1, -1]),
        "finite": torch.tensor([True, True, False]),
        "zero_gradients": torch.tensor([0, 1, 0]),
        "cost": COST,
    }
    return Attacked(**{**fields, **changed})


def part(name: str, *, broken: int, black_box: bool = False, regained: int = 0) -> Part:
    return Part(name=name, attacked=9, broken=broken, cost=COST, black_box=black_box, regained=regained)


def test_a_sample_that_was_not_measured_is_not_left() -> None:
    assert outcome().left == 1
    assert outcome(finite=torch.tensor([True, True, True])).left == 2
    assert outcome(success=torch.tensor([True, True, True])).left == 0


def test_only_what_gradients_did_not_break_is_beyond_them() -> None:
    white, first, second = (
        part("pgd", broken=7),
        part("square", broken=3, black_box=True, regained=1),
        part("labels", broken=2, black_box=True),
    )
    assert outcome().beyond == 0
    assert outcome(parts=(white,)).beyond == 0
    assert outcome(parts=(white, first)).beyond == 2
    assert outcome(parts=(white, first, second)).beyond == 4


def test_what_is_unspent_of_an_allowance() -> None:
    """Rows beside the logical ones were nobody's, so they take nothing from it."""
    assert outcome().unspent is None
    assert outcome(allowance=20).unspent == 20 - 10 - 4 - 3
    assert outcome(allowance=17).unspent == 0


def test_a_row_that_costs_one_call_changes_nothing() -> None:
    one = outcome(parts=(part("pgd", broken=1),), allowance=20)
    assert one.charged(1) is one


def test_rows_that_cost_several_calls_are_charged_all_over() -> None:
    one = outcome(parts=(part("pgd", broken=1),), allowance=20)
    four = one.charged(4)
    for name in COUNTED:
        assert getattr(four, name).tolist() == (getattr(one, name) * 4).tolist(), name
    assert four.first_success.tolist() == [12, -1, -1], "no success is a word and no count"
    assert dataclasses.astuple(four.cost) == tuple(4 * value for value in dataclasses.astuple(COST))
    assert four.parts[0].cost == four.cost
    assert (four.parts[0].attacked, four.parts[0].broken) == (9, 1), "samples, not rows"
    assert four.allowance == 80
    assert four.unspent == 4 * one.unspent
    assert outcome().charged(4).allowance is None
    for name in ("success", "distance", "finite", "adversarial"):
        assert torch.equal(getattr(four, name), getattr(one, name)), name
