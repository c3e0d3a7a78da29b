"""First points: the input itself, the caller's, drawn ones; and nothing that depends on company."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vambrace.attacks import opening
from vambrace.attacks.opening import opened
from vambrace.core.access import Access, Bounds
from vambrace.core.rng import Streams
from vambrace.search.desk import Desk
from vambrace.search.problem import pose
from vambrace.testing.counting import CountingModel

UNIT = Bounds(0.0, 1.0)


def dark(points: Tensor) -> Tensor:
    """Class 1 where the mean is below 0.35, else 0."""
    score = 0.35 - points.flatten(1).mean(1)
    return torch.stack((-score, score), dim=1)


def desk(
    network, inputs: Tensor, *, start: Tensor | None = None, bounds: Bounds | None = UNIT, budget: int = 99
) -> Desk:
    model = CountingModel(network, access=Access.LABELS, bounds=bounds)
    problem = pose(model, inputs, torch.zeros(len(inputs)).long(), rng=0, ids=None, start=start, batch_size=8)
    return Desk(problem, norm="l2", budget=budget)


def test_an_input_that_is_wrong_needs_none() -> None:
    inputs = torch.stack((torch.full((1, 6, 6), 0.9), torch.full((1, 6, 6), 0.1)))
    counter = desk(dark, inputs)
    owner, points = opened(counter, Streams(0))
    assert owner.tolist() == [0]
    assert dark(points).argmax(1).tolist() == [1]
    assert counter.outcome().forwards[1] == 1


def test_start_points_come_first_and_cost_one_query() -> None:
    inputs = torch.full((3, 1, 6, 6), 0.9)
    start = torch.stack((torch.full((1, 6, 6), 0.2), torch.full((1, 6, 6), 0.8), torch.full((1, 6, 6), 0.3)))
    counter = desk(dark, inputs, start=start)
    owner, points = opened(counter, Streams(0))
    assert owner.tolist() == [0, 1, 2]
    assert torch.equal(points[[0, 2]], start[[0, 2]])
    assert counter.outcome().forwards[[0, 2]].tolist() == [2, 2]


@pytest.mark.parametrize("shape", [(1, 6, 6), (7,)])
def test_noise_of_several_kinds_finds_what_plain_noise_does_not(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of many uniform elements is never far below a half; those that are mostly low are."""
    if len(shape) == 1:
        shape = (200,)
    inputs = torch.full((20, *shape), 0.9)
    owner, points = opened(desk(dark, inputs), Streams(0))
    assert owner.tolist() == list(range(20))
    assert bool((dark(points).argmax(1) == 1).all())
    assert len(points.flatten(1).unique(dim=0)) > 15
    monkeypatch.setattr(opening, "_KINDS", 1)
    assert len(opened(desk(dark, inputs), Streams(0))[0]) < 20


def test_without_a_box_points_go_ever_wider() -> None:
    def far(points: Tensor) -> Tensor:
        size = points.flatten(1).abs().amax(1) - 40.0
        return torch.stack((-size, size), dim=1)

    owner, points = opened(desk(far, torch.full((4, 5), 0.5), bounds=None), Streams(0))
    assert owner.tolist() == [0, 1, 2, 3]
    assert bool((points.abs().amax(1) > 40).all())


def test_a_budget_ends_the_search_for_a_start() -> None:
    def never(points: Tensor) -> Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(points), 2)

    counter = desk(never, torch.full((4, 5), 0.5), budget=7)
    owner, _ = opened(counter, Streams(0))
    assert owner.tolist() == []
    out = counter.outcome()
    assert out.forwards.tolist() == [7] * 4
    assert not out.success.any()
    counter = desk(never, torch.full((2, 5), 0.5), budget=500)
    opened(counter, Streams(0))
    assert counter.outcome().forwards.tolist() == [1 + opening.TURNS] * 2
