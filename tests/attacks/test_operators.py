"""Bursts and windows beside slow versions of themselves, sample by sample."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vambrace.attacks.ball import Ball
from vambrace.attacks.operators import Burst, Toward, Windows, cosine, windows
from vambrace.core.goals import Untargeted
from vambrace.core.rng import Streams
from vambrace.ops import draws
from vambrace.search.loop import search
from vambrace.search.problem import Problem, pose
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel


def posed(eps: float, n: int = 20, *, start: bool = False, batch_size: int = 7) -> tuple[Problem, object]:
    function, bounds, inputs, labels = curved_problem(eps, n)
    model = CountingModel(function, bounds=bounds, dtype=torch.float64)
    first = bounds.clip(inputs + eps / 3) if start else None
    return pose(model, inputs, labels, rng=5, ids=None, start=first, batch_size=batch_size), function


def test_lengths_fall_from_one_to_a_hundredth() -> None:
    sizes = cosine(15)
    assert sizes[0] == 1.0
    assert math.isclose(sizes[-1], 0.01)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert cosine(1) == (1.0,)
    assert cosine(0) == ()


def ascended(function, problem: Problem, row: int, direction: Tensor, loss: str, target: int | None) -> Tensor:
    """One gradient of a sample's loss, by hand."""
    point = direction.clone().requires_grad_()
    logits = function(point[None])[0]
    label = int(problem.goal.labels[row])
    if loss == "toward":
        raised = logits[target] - logits[label]
    else:
        raised = logits[torch.arange(3) != label].amax() - logits[label]
    return torch.autograd.grad(raised, point)[0]


@pytest.mark.parametrize("loss", ["margin", "toward"])
def test_a_burst_is_the_slow_one(loss: str) -> None:
    """The point of the highest margin is what is left of a sample that does not break."""
    problem, function = posed(0.01)
    targets = (problem.goal.labels + 1) % 3
    if loss == "toward":
        problem = pose(
            problem.model,
            problem.inputs,
            Toward(problem.goal.labels, targets),
            rng=5,
            ids=None,
            start=None,
            batch_size=7,
        )
    ball = Ball(norm="linf", eps=0.01)
    out = search(problem, Burst(ball=ball, loss=loss, steps=6))
    low, high = problem.model.bounds.low, problem.model.bounds.high
    for row in range(len(problem.inputs)):
        given = problem.inputs[row]
        noise = draws.uniform(
            Streams(5).child("start"), torch.tensor([row]), shape=given.shape, low=-0.01, high=0.01, dtype=torch.float64
        )
        point, best, best_margin = (given + noise[0]).clamp(low, high), None, -math.inf
        for size in (*cosine(6), None):
            logits = function(point[None])
            margin = float(Untargeted(problem.goal.labels[row : row + 1]).margin(logits))
            if margin > best_margin:
                best, best_margin = point, margin
            if margin > 0 or size is None:
                break
            slope = ascended(function, problem, row, point, loss, int(targets[row]))
            point = torch.clamp(point + 0.01 * size * slope.sign(), given - 0.01, given + 0.01).clamp(low, high)
        assert bool(out.success[row]) == (best_margin > 0)
        assert abs(float(out.margin[row]) - best_margin) < 1e-6
        torch.testing.assert_close(out.adversarial[row], best, rtol=0, atol=1e-9)


def test_spreading_follows_a_direction_of_the_logits() -> None:
    problem, _ = posed(0.01)
    ball = Ball(norm="linf", eps=0.01)
    plain = search(problem, Burst(ball=ball, loss="margin", steps=6))
    spread = search(problem, Burst(ball=ball, loss="margin", steps=6, spreading=6, classes=3))
    other = search(problem, Burst(ball=ball, loss="margin", steps=6, spreading=6, classes=3))
    assert not torch.allclose(plain.adversarial, spread.adversarial)
    assert torch.equal(spread.adversarial, other.adversarial)
    assert spread.margin.mean() < plain.margin.mean(), "a random direction raises the margin less"


def test_noise_is_put_around_the_given_start() -> None:
    problem, _ = posed(0.03, start=True)
    ball = Ball(norm="linf", eps=0.03)
    still = search(problem, Burst(ball=ball, loss="margin", steps=0))
    assert torch.allclose(still.adversarial, problem.start.clamp(problem.inputs - 0.03, problem.inputs + 0.03))
    assert (still.forwards == 1).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_windows_climb_and_never_come_down(norm: str) -> None:
    problem, function = posed(0.01, start=True)
    ball = Ball(norm=norm, eps=0.01 if norm == "linf" else 0.02)
    before = search(problem, Burst(ball=ball, loss="margin", steps=0))
    margins = [search(problem, Windows(ball=ball, steps=steps)).margin for steps in (5, 20, 60)]
    assert (margins[0] >= before.margin - 1e-6).all()
    assert (margins[1] >= margins[0] - 1e-6)[margins[0] <= 0].all()
    assert margins[2].mean() > margins[0].mean()
    out = search(problem, Windows(ball=ball, steps=20))
    assert (out.forwards[~out.success] == 21).all()
    assert (out.backwards == 0).all()
    torch.testing.assert_close(Untargeted(problem.goal.labels).margin(function(out.adversarial)).float(), out.margin)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20), (40,), (2, 100)])
def test_windows_lie_inside_are_small_and_differ(shape: tuple[int, ...]) -> None:
    ids = torch.arange(5000)
    inside = windows(Streams(0), ids, torch.zeros_like(ids), shape).expand(5000, *shape)
    places = math.prod(shape[-2:]) if len(shape) == 3 else shape[-1]
    share = inside.flatten(1).sum(1).double() / inside[0].numel()
    assert (share > 0).all()
    assert (share <= 0.05 * 1.3 + 1 / places).all()
    assert len({tuple(row.nonzero().flatten().tolist()) for row in inside.flatten(1)}) > min(places, 60) / 2
    covered = inside.flatten(1).any(0).double().mean()
    assert covered > 0.99, "every place can be changed"
    again = windows(Streams(0), ids[3:4], torch.zeros(1, dtype=torch.int64), shape)
    assert torch.equal(again.expand(1, *shape)[0], inside[3])
    later = windows(Streams(0), ids, torch.ones_like(ids), shape)
    assert not torch.equal(later.expand(5000, *shape), inside)
