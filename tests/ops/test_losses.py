"""The loss that attacks ascend: direction and order of cross entropy, also where that is lost to rounding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from vambrace.core.goals import Targeted, Untargeted
from vambrace.errors import ConfigError
from vambrace.ops.losses import log_odds, require_loss, slope, value


@given(st.integers(0, 2**31), st.floats(0.01, 20), st.integers(2, 12))
def test_slope_is_a_positive_multiple_of_the_cross_entropy_gradient(seed: int, scale: float, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, classes, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(classes, (6,), generator=generator)
    for goal, sign in ((Untargeted(labels), 1.0), (Targeted(labels), -1.0)):
        leaf = logits.clone().requires_grad_()
        loss = sign * F.cross_entropy(leaf, labels, reduction="none")
        (expected,) = torch.autograd.grad(loss.sum(), leaf)
        factor = 1 - logits.softmax(1).gather(1, labels.unsqueeze(1))
        torch.testing.assert_close(slope("ce", logits, goal) * factor, expected, rtol=1e-7, atol=1e-12)


@given(st.integers(0, 2**31), st.floats(0.01, 10))
def test_value_orders_points_as_cross_entropy_does(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(40, 5, generator=generator, dtype=torch.float64) * scale
    labels = torch.zeros(40, dtype=torch.int64)
    loss = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(F.softplus(value("ce", logits, Untargeted(labels))), loss, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(F.softplus(-value("ce", logits, Targeted(labels))), loss, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("kind", [Untargeted, Targeted])
def test_slope_is_the_derivative_of_value(loss: str, kind: type) -> None:
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    goal = kind(torch.tensor([0, 1, 2, 3, 0]))
    (expected,) = torch.autograd.grad(value(loss, logits, goal).sum(), logits)
    torch.testing.assert_close(slope(loss, logits, goal), expected)
    assert not slope(loss, logits, goal).requires_grad


@pytest.mark.parametrize("gap", [50.0, 250.0, 1e4, 1e30])
def test_a_model_sure_of_itself_still_has_a_direction(gap: float) -> None:
    """Cross entropy in float32 has none: the tools that follow it call such a model robust."""
    logits = torch.tensor([[gap, 0.0, gap / 2]])
    label = torch.tensor([0])
    leaf = logits.clone().requires_grad_()
    (lost,) = torch.autograd.grad(F.cross_entropy(leaf, label), leaf)
    assert lost[0, 0] == 0, "p - 1 is lost to rounding"
    found = slope("ce", logits, Untargeted(label))
    assert found[0, 0] == -1
    assert found[0, 1:].sum() == 1
    assert found[0, 2] > 0.99


def test_log_odds_of_two_classes_is_their_difference() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.0, 5.0]])
    assert log_odds(logits, torch.tensor([0, 0])).tolist() == [3.0, -5.0]


def test_losses_that_do_not_fit_a_goal_are_refused() -> None:
    labels = torch.tensor([0, 1])
    both = Untargeted(labels) & Targeted(labels)
    require_loss("margin", both)
    require_loss("ce", Targeted(labels))
    with pytest.raises(ConfigError, match="E135.*margin"):
        require_loss("ce", both)

    class Flat(Untargeted):
        def margin(self, logits: torch.Tensor) -> torch.Tensor:
            return (logits.argmax(1) == 1).float()

    with pytest.raises(ConfigError, match="E134"):
        slope("margin", torch.randn(2, 3), Flat(labels))
