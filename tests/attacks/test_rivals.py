"""Which decisions a search by linear decisions looks at, and what counting the classes costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vambrace.attacks import FAB, DeepFool
from vambrace.attacks.rivals import Rivals, dual_lengths, rivals_of
from vambrace.core.findings import Cost
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.rng import Streams
from vambrace.search.problem import pose
from vambrace.search.rule import Answer
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel

LOGITS = torch.tensor([[3.0, 1.0, 2.0, -1.0], [0.0, 5.0, 4.0, 4.5]], dtype=torch.float64)
GOAL = Untargeted(torch.tensor([0, 3]))


def test_slopes_are_those_of_the_leads() -> None:
    for count in (1, 2, 3):
        rivals = Rivals(count=count)
        lead = rivals.lead(LOGITS, GOAL)
        expected = torch.tensor([[-1.0, -2.0, -4.0], [0.5, -0.5, -4.5]], dtype=torch.float64).T[:count]
        assert torch.equal(lead, expected)
        free = LOGITS.clone().requires_grad_()
        slopes = [torch.autograd.grad(row.sum(), free, retain_graph=True)[0] for row in rivals.lead(free, GOAL)]
        found = rivals.slope(LOGITS, GOAL)
        assert torch.equal(found, slopes[0] if count == 1 else torch.stack(slopes))


def test_a_target_has_one_decision() -> None:
    goal = Targeted(torch.tensor([2, 0]))
    rivals = Rivals(count=1)
    assert rivals.lead(LOGITS, goal).tolist() == [[-1.0, -5.0]]
    assert rivals.slope(LOGITS, goal).tolist() == [[-1.0, 0.0, 1.0, 0.0], [1.0, -1.0, 0.0, 0.0]]


def test_the_nearest_decision_weighs_lead_by_gradient() -> None:
    gradients = torch.ones(3, 2, 5, dtype=torch.float64)
    gradients[2, 0] *= 10  # the rival that is furthest behind sample 0 catches up fastest
    answer = Answer(LOGITS, GOAL, gradients, None, Streams(0))
    for norm, dual in (("linf", 5.0), ("l2", 5**0.5), ("l1", 1.0)):
        lead, gradient = Rivals(count=3).nearest(answer, norm)
        assert lead.tolist() == [-4.0, 0.5]
        assert gradient[0].tolist() == [10.0] * 5
        torch.testing.assert_close(dual_lengths(gradients[0], norm), torch.full((2,), dual, dtype=torch.float64))


def test_classes_are_counted_once_where_the_model_does_not_say() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 6)

    def problem(classes: int | None, goal: Untargeted | Targeted | Tensor, n: int = 6):
        model = CountingModel(function, bounds=bounds, dtype=torch.float64, num_classes=classes)
        return pose(model, inputs[:n], goal, rng=0, ids=None, start=None, batch_size=4), model

    posed, model = problem(None, labels)
    assert rivals_of(posed, None) == (Rivals(count=2), Cost(idle_forwards=1))
    assert model.calls == [1]
    assert rivals_of(posed, 1) == (Rivals(count=1), Cost(idle_forwards=1))
    for classes, goal, n in ((3, labels, 6), (None, Targeted(labels), 6), (None, labels[:0], 0)):
        posed, model = problem(classes, goal, n)
        rivals, cost = rivals_of(posed, 10)
        assert (rivals.count, cost, model.calls) == (2 if classes else 1, Cost(), [])


@pytest.mark.parametrize("attack", [DeepFool(), FAB(norm="l2", steps=10)], ids=["deep_fool", "fab"])
def test_autocast_around_the_call_reaches_no_call_of_the_model(attack) -> None:
    """Nor the one that counts the classes: a model that has no half precision could not answer it."""
    weights = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))

    def function(points: Tensor) -> Tensor:
        logits = points @ weights
        assert logits.dtype == torch.float32
        return logits

    inputs = torch.rand(8, 6, generator=torch.Generator().manual_seed(1))
    labels = function(inputs).argmax(1)
    expected = attack(CountingModel(function), inputs, labels)
    with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
        out = attack(CountingModel(function), inputs, labels)
    assert torch.equal(out.adversarial, expected.adversarial)
    assert torch.equal(out.success, expected.success)
    assert out.success.any()
