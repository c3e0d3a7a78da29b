"""A few samples whose gradients are known the slow way, to hold faster ways against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from vambrace.privacy.dp.engine.engine import Task

__all__ = ["Proof", "checked_losses", "short"]

_CLOSE = {torch.float64: 1e-6, torch.float32: 2e-3}
"""Largest relative difference by the type of the losses; half precision is in `_ROUGH`."""

_ROUGH = 0.1


class Proof:
    """Samples alone and together.

    Attributes:
        rows: the samples.
        random: whether the module gives other losses each time; then nothing can be held against anything.

    Args:
        parameters: what is differentiated.
        task_of: numbers of samples to a task on them.

    Raises:
        ConfigError: E151, where a sample's loss depends on the samples beside it; E153, for losses of the wrong form.
    """

    def __init__(self, parameters: Sequence[Tensor], task_of: Callable[[Sequence[int]], Task]) -> None:
        self.rows = (0, 1, 2)
        together = [checked_losses(task_of(self.rows)).detach() for _ in range(2)]
        alone = [checked_losses(task_of([row])) for row in self.rows]
        self.random = not torch.equal(together[0].nan_to_num(), together[1].nan_to_num())
        lone = torch.stack([each.detach()[0] for each in alone])
        self._close = _CLOSE.get(lone.dtype, _ROUGH)
        if torch.is_autocast_enabled(lone.device.type):
            self._close = _ROUGH
        off = (lone - together[0]).abs() / (1.0 + lone.abs())
        if not self.random and bool((off > self._close).any()):
            raise _mixing(off)
        self._gradients = [_gradients(each.sum(), parameters) for each in alone]

    def agrees(self, gradients: Sequence[Tensor]) -> bool:
        """Whether per-sample gradients (3, elements), one tensor a parameter, are those of the samples alone."""
        if self.random:
            return True
        for row, own in enumerate(self._gradients):
            given = torch.cat([each[row].flatten() for each in gradients]).double()
            if not bool(given.isfinite().all()) or not bool(own.isfinite().all()):
                continue
            if float((given - own).norm()) > self._close * float(own.norm()) + 1e-12:
                return False
        return True


def checked_losses(task: Task) -> Tensor:
    """The losses of a task, held to their form.

    Raises:
        ConfigError: E153, for anything but one number a sample.
    """
    losses: object = task.losses()
    if isinstance(losses, Tensor) and losses.shape == (task.count,) and losses.is_floating_point():
        return losses
    shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
    raise ConfigError(
        "E153",
        seen=f"a loss of shape {shape} for {task.count} samples",
        expected=f"one floating loss a sample, shape ({task.count},)",
        fix='do not reduce over samples: reduction="none", then the mean over all dimensions but the first',
    )


def short(error: BaseException) -> str:
    """The first line of an error, cut."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return text if len(text) <= 120 else text[:117] + "..."


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    filled = [torch.zeros_like(each) if one is None else one for each, one in zip(parameters, found, strict=True)]
    return torch.cat([each.flatten() for each in filled]).double()


def _mixing(off: Tensor) -> ConfigError:
    return ConfigError(
        "E151",
        seen=f"a sample whose loss changes by {float(off.max()):.2g} (relative) with the samples beside it",
        expected="losses that depend on their own sample alone, or clipping bounds nothing",
        fix="replace what looks across the batch (batch statistics, contrastive or ranking losses, padding to the "
        "longest sample without a mask); for BatchNorm: dp.fix_modules(module)",
    )
