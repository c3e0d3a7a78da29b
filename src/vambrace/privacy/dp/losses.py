"""Losses that give one number a sample: by name, or the caller's own, held to their form by the engine.

>>> import torch
>>> named("mse")(torch.zeros(2, 3), torch.ones(2, 3))
tensor([1., 1.])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from vambrace.errors import ConfigError

__all__ = ["Loss", "LossName", "named"]

LossName = Literal["cross_entropy", "mse", "binary_cross_entropy_with_logits"]
Loss = Callable[[Tensor, Tensor], Tensor]

_IGNORED = -100  # torch's own label for positions that do not count


def named(loss: LossName | Loss) -> Loss:
    """Outputs and labels to (n,): the loss of a name, or the caller's own unchanged.

    "cross_entropy": logits (n, k) or (n, k, ...), with the mean over positions; positions labelled -100 do not count.
    Labels are whole numbers of any type, or probabilities of the logits' shape. "mse": mean over everything but
    samples. "binary_cross_entropy_with_logits": the same mean. The last two need labels of the outputs' shape: torch
    would broadcast (n, 1) against (n,), and every loss would depend on every label.

    Raises:
        ConfigError: E150, for another name, or a torch module that reduces. The losses raise E153 for outputs and
            labels of different shapes.
    """
    if loss == "cross_entropy":
        return _cross_entropy
    if loss == "mse":
        return _mse
    if loss == "binary_cross_entropy_with_logits":
        return _binary
    reduction = getattr(loss, "reduction", "none")
    if not callable(loss) or reduction != "none":
        seen = repr(loss) if not callable(loss) else f"a loss with reduction={reduction!r}"
        raise ConfigError(
            "E150",
            seen=f"loss {seen}",
            expected=f"one of {', '.join(get_args(LossName))}, or a function of outputs and labels that gives (n,)",
            fix='use a name, or reduction="none" and the mean over all dimensions but the first',
        )
    return loss


def _cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    shares = labels.is_floating_point()  # probabilities, one for every class
    labels = labels if shares else labels.long()
    losses = F.cross_entropy(outputs, labels, reduction="none")
    if losses.dim() < 2:
        return losses
    if shares:
        return _mean(losses)
    counted = (labels != _IGNORED).flatten(1).sum(dim=1)
    return losses.flatten(1).sum(dim=1) / counted.clamp(min=1)


def _mse(outputs: Tensor, labels: Tensor) -> Tensor:
    _require_shape(outputs, labels)
    return _mean(F.mse_loss(outputs, labels.to(outputs.dtype), reduction="none"))


def _binary(outputs: Tensor, labels: Tensor) -> Tensor:
    _require_shape(outputs, labels)
    return _mean(F.binary_cross_entropy_with_logits(outputs, labels.to(outputs.dtype), reduction="none"))


def _mean(losses: Tensor) -> Tensor:
    return losses.flatten(1).mean(dim=1) if losses.dim() > 1 else losses


def _require_shape(outputs: Tensor, labels: Tensor) -> None:
    if outputs.shape != labels.shape:
        raise ConfigError(
            "E153",
            seen=f"outputs {tuple(outputs.shape)} and labels {tuple(labels.shape)}",
            expected="labels of the outputs' shape",
            fix="reshape one of them, such as outputs.squeeze(1): broadcast, each loss would see every label",
        )
