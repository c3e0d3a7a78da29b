"""Losses that give one number a sample: by name, or the caller's own, held to their form by the engine.

>>> named("mse")(torch.zeros(2, 3), torch.ones(2, 3))
tensor([1., 1.])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from vambrace.errors import ConfigError

__all__ = ["Loss", "LossName", "named"]

LossName = Literal["cross_entropy", "mse", "binary_cross_entropy_with_logits"]
Loss = Callable[[Tensor, Tensor], Tensor]


def named(loss: LossName | Loss) -> Loss:
    """Outputs and labels to (n,): the loss of a name, or the caller's own unchanged.

    "cross_entropy": logits (n, k) or (n, k, ...), with the mean over positions; positions labelled -100 do not count.
    "mse": mean over everything but samples. "binary_cross_entropy_with_logits": the same mean.

    Raises:
        ConfigError: E150, for another name, or a torch module that reduces.
    """
    if loss == "cross_entropy":
        return _cross_entropy
    if loss == "mse":
        return lambda outputs, labels: _mean(F.mse_loss(outputs, labels, reduction="none"))
    if loss == "binary_cross_entropy_with_logits":
        return lambda outputs, labels: _mean(
            F.binary_cross_entropy_with_logits(outputs, labels.to(outputs.dtype), reduction="none")
        )
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
    losses = F.cross_entropy(outputs, labels, reduction="none")
    if losses.dim() < 2:
        return losses
    counted = (labels != -100).flatten(1).sum(dim=1) if labels.shape == losses.shape else losses[0].numel()
    return losses.flatten(1).sum(dim=1) / torch.as_tensor(counted).clamp(min=1)


def _mean(losses: Tensor) -> Tensor:
    return losses.flatten(1).mean(dim=1) if losses.dim() > 1 else losses
