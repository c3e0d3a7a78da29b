"""The way between two points, and the decision on it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vambrace.attacks.between import between, narrow
from vambrace.core.access import Access
from vambrace.search.desk import Desk
from vambrace.search.problem import pose
from vambrace.testing.counting import CountingModel


def test_ends_and_middle() -> None:
    inputs, far = torch.zeros(3, 2), torch.tensor([[1.0, -0.2]]).repeat(3, 1)
    share = torch.tensor([0.0, 0.5, 1.0]).double()
    assert torch.allclose(between(inputs, far, share, "l2"), torch.tensor([[0, 0], [0.5, -0.1], [1, -0.2]]))
    assert torch.allclose(between(inputs, far, share, "linf"), torch.tensor([[0, 0], [0.5, -0.2], [1, -0.2]]))
    assert torch.equal(far, torch.tensor([[1.0, -0.2]]).repeat(3, 1)), "far is overwritten"


def above(points: Tensor) -> Tensor:
    score = points[:, 0] - 0.3
    return torch.stack((-score, score), dim=1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_decision_is_found_to_the_tolerance(norm: str) -> None:
    model = CountingModel(above, access=Access.LABELS)
    inputs = torch.tensor([[0.0, 0.0], [0.1, 0.5], [0.2, 0.9]])
    problem = pose(model, inputs, torch.zeros(3).long(), rng=0, ids=None, start=None, batch_size=2)
    desk = Desk(problem, norm=norm, budget=30)
    far = torch.tensor([[1.0, 0.1], [0.8, 0.2]])
    found = narrow(desk, torch.tensor([0, 2]), far, 2.0**-10)
    assert desk.left.tolist() == [20, 30, 20]
    assert bool((above(found).argmax(1) == 1).all())
    assert found[:, 0].tolist() == pytest.approx([0.3, 0.3], abs=2e-3)


def test_a_budget_that_ends_on_the_way_keeps_the_nearest_point() -> None:
    model = CountingModel(above, access=Access.LABELS)
    problem = pose(model, torch.zeros(1, 2), torch.zeros(1).long(), rng=0, ids=None, start=None, batch_size=2)
    desk = Desk(problem, norm="l2", budget=2)
    found = narrow(desk, torch.tensor([0]), torch.tensor([[1.0, 0.0]]), 2.0**-10)
    assert found.tolist() == [[0.5, 0.0]]
    assert desk.left.tolist() == [0]
