"""RayS: equal to a naive loop over samples, exact where the best direction of signs is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import black_box
from vambrace.attacks import rays
from vambrace.attacks.rays import RayS, blocks
from vambrace.core.access import Access
from vambrace.core.goals import Targeted
from vambrace.errors import ConfigError
from vambrace.testing.attacks import curved_problem


def naive(network, given: Tensor, reached, budget: int, tolerance: float) -> tuple[float, int]:
    """One sample, one query at a time, from the paper: the smallest distance of a point across, and the queries."""
    features, queries, best = given.numel(), 0, math.inf
    signs, radius = torch.ones_like(given), 0.5

    class SpentError(Exception):
        pass

    def across(ray: Tensor, reach: float) -> bool:
        nonlocal queries, best
        if queries == budget:
            raise SpentError
        queries += 1
        point = (given + ray * reach).clamp(0.0, 0.5)
        won = reached(int(network(point[None]).argmax()))
        best = min(best, float((point - given).abs().max())) if won else best
        return won

    def attempt(ray: Tensor) -> None:
        nonlocal signs, radius
        if not across(ray, radius):
            return
        low, high = 0.0, radius
        while high - low > tolerance * high:
            middle = (low + high) / 2
            low, high = (low, middle) if across(ray, middle) else (middle, high)
        signs, radius = ray, high

    try:
        if across(signs, 0.0):
            return 0.0, queries
        attempt(signs)
        while True:
            for level in range(math.ceil(math.log2(features)) + 1):
                size = math.ceil(features / 2**level)
                for first in range(0, features, size):
                    ray = signs.clone().flatten()
                    ray[first : first + size] *= -1
                    attempt(ray.reshape(signs.shape))
    except SpentError:
        return best, queries


@pytest.mark.parametrize("targeted", [False, True])
def test_equals_a_naive_loop(targeted: bool) -> None:
    network, bounds, inputs, labels = curved_problem(0.1)
    wanted = (labels + 1) % 3
    goal = Targeted(wanted) if targeted else labels
    attack = RayS(budget=150)
    out = attack(black_box.counting(network, bounds, Access.LABELS), inputs, goal, batch_size=10)
    for row in range(len(inputs)):

        def reached(found: int, row: int = row) -> bool:
            return found == int(wanted[row]) if targeted else found != int(labels[row])

        best, queries = naive(network, inputs[row], reached, attack.budget, attack.tolerance)
        assert int(out.forwards[row]) == queries
        assert bool(out.success[row]) == (best < math.inf)
        if best < math.inf:
            assert float(out.distance[row]) == pytest.approx(best, rel=1e-9), f"sample {row}"


def test_finds_the_nearest_decision_of_a_linear_model() -> None:
    """The gradient's signs are the best direction; flips find it one block at a time."""
    assert float(black_box.found_over_best(RayS(budget=400)).max()) < 1.002


@pytest.mark.parametrize("features", [1, 2, 5, 16, 28])
def test_blocks_cover_every_element_once_a_level(features: int) -> None:
    flip = torch.tensor([[-1], [0]])
    assert blocks(*flip, features).tolist() == [[1] * features]
    seen: dict[int, Tensor] = {}
    while True:
        flip = rays._after(flip, features)
        level = int(flip[0, 0])
        if level == 0 and 0 in seen:
            break
        seen[level] = seen.get(level, torch.zeros(features)) + (blocks(*flip, features)[0] < 0)
    assert sorted(seen) == list(range(len(seen)))
    assert all(each.tolist() == [1] * features for each in seen.values())


@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.GRADIENTS])
def test_keeps_the_promises_of_black_box_attacks(access: Access) -> None:
    black_box.check_black_box(RayS(budget=70), access)


def test_start_points_give_first_directions() -> None:
    network, bounds, inputs, labels = curved_problem(0.1)
    away = black_box.other_points(network, inputs, (labels + 1) % 3)
    out = RayS(budget=3)(black_box.counting(network, bounds, Access.LABELS), inputs, labels, start=away)
    plain = RayS(budget=3)(black_box.counting(network, bounds, Access.LABELS), inputs, labels)
    assert int(out.success.sum()) >= int(plain.success.sum())
    free = RayS(budget=60)(black_box.counting(network, None, Access.LABELS), inputs, labels)
    assert free.success.any()


@pytest.mark.parametrize("options", [{"budget": 0}, {"norm": "l2"}, {"tolerance": 0.0}, {"tolerance": 1.0}])
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        RayS(**options)


def test_mutants_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(rays, "blocks", lambda level, block, features: torch.ones(len(level), features).to(torch.int8))
        with pytest.raises(AssertionError):
            test_finds_the_nearest_decision_of_a_linear_model()
    with monkeypatch.context() as patch:
        patch.setattr(rays, "_after", lambda flip, features: flip)
        with pytest.raises(AssertionError):
            test_finds_the_nearest_decision_of_a_linear_model()
