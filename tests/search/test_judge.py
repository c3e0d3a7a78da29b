"""When logits count as success."""

from __future__ import annotations

import pytest
import torch

from vambrace.attacks import PGD
from vambrace.core.goals import Untargeted
from vambrace.search.judge import CLEAR, judge
from vambrace.testing.counting import CountingModel


@pytest.mark.parametrize(("lead", "won"), [(1.1, True), (0.9, False), (0.0, False), (-1.0, False)])
def test_a_margin_counts_from_a_share_of_the_largest_logit(lead: float, won: bool) -> None:
    for top in (1e-3, 1.0, 1e6):
        logits = torch.tensor([[top, top + lead * CLEAR * top, -top]], dtype=torch.float64)
        assert bool(judge(logits, Untargeted(torch.tensor([0])).margin(logits)).won) is won


def test_no_number_is_no_success() -> None:
    goal = Untargeted(torch.zeros(5, dtype=torch.int64))
    inf, nan = float("inf"), float("nan")
    logits = torch.tensor([[0.0, inf], [-inf, 0.0], [nan, 0.0], [0.0, nan], [0.0, 1.0]])
    verdicts = judge(logits, goal.margin(logits))
    assert verdicts.won.tolist() == [False] * 4 + [True]
    assert verdicts.finite.tolist() == [False] * 4 + [True]


def test_a_search_does_not_end_within_rounding_of_the_decision() -> None:
    """At a margin of 1e-7 of the logits another batch may decide otherwise; the search goes on until it is clear."""

    def model(points: torch.Tensor) -> torch.Tensor:
        score = points[:, 0]
        return torch.stack((1.0 - score * 1e-7, 1.0 + score * 1e-7), dim=1)

    inputs, labels = torch.full((3, 2), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    target = CountingModel(model, bounds=None, dtype=torch.float64)
    out = PGD(eps=20.0, steps=5, random_start=False)(target, inputs, labels)
    assert (model(inputs).argmax(1) == 1).all(), "the decision is already on the other side"
    assert not out.success.any()
    out = PGD(eps=200.0, steps=5, random_start=False)(target, inputs, labels)
    assert out.success.all()
    assert (out.margin > CLEAR).all()


@pytest.mark.parametrize("mask", [-65504.0, -1e7, -1e9])
def test_a_masked_class_raises_no_bar(mask):
    """What is compared are the contenders: a class masked away has no part in how clear a margin is."""
    logits = torch.tensor([[3.0, 2.0, 0.0], [3.0, 2.99999, 0.0]])
    masked = torch.cat((logits, torch.full((2, 1), mask)), dim=1)
    margin = logits[:, 0] - logits[:, 1]
    assert judge(masked, margin).won.tolist() == judge(logits, margin).won.tolist() == [True, False]
    assert judge(masked, margin).finite.tolist() == [True, True]
