"""What gradient attacks ascend: one number a sample, and why cross entropy is not computed as such.

Cross entropy of class y is log(1 + exp(-t)) with t = log p_y - log(1 - p_y), the log odds. It falls as t
rises, so that descending t moves in the direction of the cross entropy gradient and orders points equally;
the two differ by the factor 1 - p_y, which attacks that use only the direction never see. Computed as such
that factor, and with it the gradient, rounds to zero once the model is sure of itself (a gap of about 17
between float32 logits, 104 for all of them), and the model looks robust. The log odds do not saturate.

    >>> import torch
    >>> logits = torch.tensor([[200.0, 0.0, 50.0]])
    >>> log_odds(logits, torch.tensor([0])).tolist()
    [150.0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from vambrace.core.goals import Goal, Targeted, Untargeted
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Loss", "log_odds", "require_loss", "slope", "value"]

Loss = Literal["ce", "margin"]


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """log(p / (1 - p)) of each sample's class: own logit minus the log-sum-exp of the others.

    Args:
        logits: (n, k), k >= 2.
        classes: int64 (n,).

    Returns:
        (n,), differentiable.
    """
    column = classes.unsqueeze(1)
    others = logits.scatter(1, column, float("-inf")).logsumexp(dim=1)
    return logits.gather(1, column).squeeze(1) - others


def value(loss: Loss, logits: Tensor, goal: Goal) -> Tensor:
    """What to raise so that `goal` comes nearer: logits (n, k) to (n,), differentiable.

    "ce": the log odds of the target class, or the negative log odds of the true one: ordered as cross entropy.
    "margin": the goal's own margin (Carlini & Wagner 2017, arXiv 1608.04644, loss f6), for any goal.
    """
    if loss == "ce" and isinstance(goal, Untargeted):
        return -log_odds(logits, goal.labels)
    if loss == "ce" and isinstance(goal, Targeted):
        return log_odds(logits, goal.classes)
    return goal.margin(logits)


def slope(loss: Loss, logits: Tensor, goal: Goal) -> Tensor:
    """The derivative of `value` with respect to the logits: (n, k) to (n, k).

    For "ce" in closed form: the softmax over the other classes, minus one at the class itself.
    """
    if loss == "ce" and isinstance(goal, Untargeted | Targeted):
        column = (goal.labels if isinstance(goal, Untargeted) else goal.classes).unsqueeze(1)
        away = logits.detach().scatter(1, column, float("-inf")).softmax(dim=1).scatter_(1, column, -1.0)
        return away if isinstance(goal, Untargeted) else away.neg_()
    with torch.enable_grad():
        free = logits.detach().requires_grad_()
        raised = value(loss, free, goal)
        if raised.requires_grad:
            return torch.autograd.grad(raised, free, torch.ones_like(raised))[0]
    raise ConfigError(
        "E134",
        seen=f"a goal of type {type(goal).__name__} whose margin has no derivative",
        expected="a margin that is differentiable in the logits",
        fix="compute the margin from the logits with torch operations",
    )


def require_loss(loss: Loss, goal: Goal) -> None:
    """Raise `ConfigError` E135 unless `loss` is defined for `goal`."""
    if loss == "ce" and not isinstance(goal, Untargeted | Targeted):
        raise ConfigError(
            "E135",
            seen=f'loss "ce" with a goal of type {type(goal).__name__}',
            expected="a goal that names one class a sample: Untargeted or Targeted",
            fix='use loss="margin", which works for every goal',
        )
