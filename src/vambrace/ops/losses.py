"""What gradient attacks ascend: one number a sample, and why cross entropy is not computed as such.

Cross entropy of class y is log(1 + exp(-t)) with t = log p_y - log(1 - p_y), the log odds. It falls as t
rises, so that descending t moves in the direction of the cross entropy gradient and orders points equally;
the two differ by the factor 1 - p_y, which attacks that use only the direction never see. Computed as such
that factor, and with it the gradient, rounds to zero once the model is sure of itself (a gap of about 17
between float32 logits, 104 for all of them), and the model looks robust. The log odds do not saturate.

At the other end, logits that lie within one of each other (cosines without a temperature, say) make all other classes
count alike. Their gradient pulls towards the mean of the others, not towards the one that is near, and the model looks
robust again. Such rows are followed as if they were as far apart as those of ordinary classifiers; all other rows are
left as they are.

The difference of logits ratio ("dlr") divides a margin by the spread of the highest logits, so that neither scale nor
shift of the logits changes it. Its slope is in closed form, and the highest logits are selected, not sorted.

    >>> import torch
    >>> logits = torch.tensor([[200.0, 0.0, 50.0]])
    >>> log_odds(logits, torch.tensor([0])).tolist()
    [150.0]
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, cast

import torch

from vambrace.core.goals import Goal, Targeted, Untargeted
from vambrace.errors import ConfigError
from vambrace.ops.knots import may_look

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Loss", "log_odds", "require_loss", "slope", "toward_slope", "toward_value", "value"]

Loss = Literal["ce", "margin", "dlr"]

_LEAST_SPREAD = 1e-12
"""What a difference of logits is divided by at least, as in the authors' code."""

_FLAT, _APART = 1.0, 16.0
"""Largest less smallest logit of a row: up to which it is flat, and what it is followed at then.

Trained networks have medians of 7 to 30. Anything from 8 to 100 makes the logits of five networks times 0.01, or times
a millionth, break as often as the networks themselves do.
"""


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

    "ce": the log odds of the target class, or the negative log odds of the true one: ordered as cross entropy. In rows
    of flat logits the others count by their distance from the highest of them, as far as the module says.
    "margin": the goal's own margin (Carlini & Wagner 2017, arXiv 1608.04644, loss f6), for any goal.
    "dlr": the goal's margin over the difference of the first and the third highest logit (Croce & Hein 2020,
    arXiv 2003.01690, equation 6); for a target, over the first less the mean of the third and fourth (equation 7,
    where the best other class stands for the true one, which a target does not name).

    Raises:
        ConfigError: E135, for "dlr" on fewer than three classes, four for a target.
    """
    if loss == "ce" and isinstance(goal, Untargeted):
        return -_odds(logits, goal.labels)
    if loss == "ce" and isinstance(goal, Targeted):
        return _odds(logits, goal.classes)
    if loss == "dlr":
        return _ratio(logits, *_contenders(logits, goal), named=isinstance(goal, Targeted))[0]
    return goal.margin(logits)


def slope(loss: Loss, logits: Tensor, goal: Goal) -> Tensor:
    """The derivative of `value` with respect to the logits: (n, k) to (n, k).

    For "ce" in closed form: the softmax over the other classes, minus one at the class itself. For "dlr" too.
    """
    if loss == "ce" and isinstance(goal, Untargeted | Targeted):
        column = (goal.labels if isinstance(goal, Untargeted) else goal.classes).unsqueeze(1)
        known = logits.detach()
        apart = known if _are_apart(known) else _apart(known)[0]
        away = apart.scatter(1, column, float("-inf")).softmax(dim=1).scatter_(1, column, -1.0)
        return away if isinstance(goal, Untargeted) else away.neg_()
    if loss == "dlr":
        return _ratio_slope(logits.detach(), *_contenders(logits, goal), named=isinstance(goal, Targeted))
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


def toward_value(loss: Loss, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """What to raise so that each sample's class `targets` overtakes its class `labels`: logits (n, k) to (n,).

    For searches that flee the label by way of one class after the other, while any class but the label is a success.
    "ce": the log odds of the target. "margin": its logit less that of the label. "dlr": that difference over the
    first highest logit less the mean of the third and fourth (Croce & Hein 2020, arXiv 2003.01690, equation 7).

    Args:
        loss: which.
        logits: (n, k).
        labels: int64 (n,).
        targets: int64 (n,), other classes than the labels.

    Raises:
        ConfigError: E135, for "dlr" on fewer than four classes.
    """
    if loss == "ce":
        return _odds(logits, targets)
    if loss == "dlr":
        return _ratio(logits, targets, labels, named=True)[0]
    return _picked(logits, targets) - _picked(logits, labels)


def toward_slope(loss: Loss, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The derivative of `toward_value` with respect to the logits: (n, k) to (n, k), in closed form."""
    if loss == "ce":
        return slope("ce", logits, Targeted(targets))
    if loss == "dlr":
        return _ratio_slope(logits.detach(), targets, labels, named=True)
    return _between(logits, targets, labels)


def require_loss(loss: Loss, goal: Goal, classes: int | None = None, *, toward: bool = False) -> None:
    """Raise `ConfigError` E135 unless `loss` is defined for `goal`.

    Args:
        loss: what is to be raised.
        goal: what counts as a success.
        classes: of the model; None: not known yet.
        toward: whether `toward_value` is what is raised, which flees a label.
    """
    if toward and not isinstance(goal, Untargeted):
        raise ConfigError(
            "E135",
            seen=f"targets chosen for a goal of type {type(goal).__name__}",
            expected="labels to get away from, by way of the classes that are nearest",
            fix="leave out targets, or give labels in place of the goal",
        )
    if loss != "margin" and not isinstance(goal, Untargeted | Targeted):
        raise ConfigError(
            "E135",
            seen=f'loss "{loss}" with a goal of type {type(goal).__name__}',
            expected="a goal that names one class a sample: Untargeted or Targeted",
            fix='use loss="margin", which works for every goal',
        )
    if loss == "dlr" and classes is not None:
        _require_spread(classes, named=toward or isinstance(goal, Targeted))


def _require_spread(classes: int, *, named: bool) -> None:
    least = 4 if named else 3
    if classes < least:
        raise ConfigError(
            "E135",
            seen=f'loss "dlr"{" toward a class" if named else ""} on a model of {classes} classes',
            expected=f"at least {least} classes, because the loss compares the {least} highest logits",
            fix='use loss="ce" or loss="margin", which work from two classes on',
        )


def _contenders(logits: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
    """The class to raise and the class to lower, each int64 (n,)."""
    require_loss("dlr", goal)
    named = goal.labels if isinstance(goal, Untargeted) else cast("Targeted", goal).classes
    first, second = logits.detach().topk(2, dim=1).indices.unbind(dim=1)
    rival = torch.where(first == named, second, first)
    return (rival, named) if isinstance(goal, Untargeted) else (named, rival)


def _ratio(logits: Tensor, up: Tensor, down: Tensor, *, named: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The ratio (n,), what it was divided by (n,), and the classes of the three or four highest logits (n, 3 or 4)."""
    _require_spread(logits.shape[1], named=named)
    highest, classes = logits.topk(4 if named else 3, dim=1)
    below = highest[:, 2:].mean(dim=1)
    spread = (highest[:, 0] - below).clamp(min=_LEAST_SPREAD)
    return (_picked(logits, up) - _picked(logits, down)) / spread, spread, classes


def _ratio_slope(logits: Tensor, up: Tensor, down: Tensor, *, named: bool) -> Tensor:
    ratio, spread, classes = _ratio(logits, up, down, named=named)
    moved = torch.where(spread > _LEAST_SPREAD, ratio, 0.0).unsqueeze(1)
    share = 1.0 / (classes.shape[1] - 2)
    found = _between(logits, up, down)
    found.scatter_add_(1, classes[:, :1], -moved)
    found.scatter_add_(1, classes[:, 2:], (share * moved).expand(-1, classes.shape[1] - 2))
    return found.div_(spread.unsqueeze(1))


def _apart(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, k) with flat rows magnified, and by how much each is, (n, 1), or (1, 1) where none is flat."""
    if _are_apart(logits.detach()):
        return logits, logits.new_ones(1, 1)
    low, high = logits.detach().aminmax(dim=1, keepdim=True)
    distance = high - low
    flat = distance <= _FLAT
    by = torch.where(flat, _APART / distance.clamp(min=_APART * torch.finfo(logits.dtype).tiny), 1.0)
    return (logits - torch.where(flat, high, 0.0)) * by, by


def _are_apart(logits: Tensor) -> bool:
    """Whether no row of logits (n, k) is flat, where a look at them is free: elsewhere the host would wait."""
    if not may_look(logits) or not logits.numel():
        return False
    low, high = logits.aminmax(dim=1)
    return high.sub_(low).min().item() > _FLAT


def _odds(logits: Tensor, classes: Tensor) -> Tensor:
    """The log odds, in flat rows with the others apart, in units of the logits: (n, k) to float64 (n,).

    The constant lets others that are all alike count the same at any magnification, so that a flat point and one that
    is not can still be compared. It is added in float64, or small differences would be lost beside it.
    """
    apart, by = _apart(logits)
    by = by.squeeze(1)
    return (log_odds(apart, classes) / by).double() - math.log(logits.shape[1] - 1) * (1.0 - 1.0 / by.double())


def _between(logits: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The derivative of the logit of one class less that of another: (n, k)."""
    found = torch.zeros_like(logits).scatter_(1, up.unsqueeze(1), 1.0)
    return found.scatter_(1, down.unsqueeze(1), -1.0)


def _picked(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes.unsqueeze(1)).squeeze(1)
