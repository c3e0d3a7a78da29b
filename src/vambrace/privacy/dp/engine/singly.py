"""Per-sample gradients the general way, written down: `torch.func.vmap`, or one sample after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vambrace.privacy.dp.engine.exact import unwarned
from vambrace.privacy.dp.engine.quiet import Guarded

if TYPE_CHECKING:
    from vambrace.privacy.dp.engine.engine import Task

__all__ = ["WAYS", "Way", "singly"]

Way = Literal["vmap", "one by one"]
WAYS: tuple[Way, ...] = ("vmap", "one by one")


def singly(way: Way, task: Task, rows: slice, names: Sequence[str], parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients (m, *shape) of some rows, one tensor a parameter.

    Raises:
        RuntimeError: where the task has no function of one sample; and whatever the way raises on this module.
    """
    if task.single is None:
        raise RuntimeError("this batch cannot be taken apart into samples")
    values = {name: each.detach() for name, each in zip(names, parameters, strict=True)}
    leaves = [leaf[rows] for leaf in task.leaves]
    with Guarded(), unwarned():
        if way == "vmap":
            dims = (None, *(0,) * len(leaves))
            slope = torch.func.vmap(torch.func.grad(task.single), in_dims=dims, randomness="different")
            mapped = slope(values, *leaves)
            return tuple(mapped[name] for name in names)
        given = tuple(each.requires_grad_() for each in values.values())
        found = [_slope(task.single(values, *sample), given) for sample in zip(*leaves, strict=True)]
        return tuple(torch.stack(each) for each in zip(*found, strict=True))


def _slope(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """By plain autograd, which can do more than `torch.func.grad`: functions of the module's own, for instance."""
    if not loss.requires_grad:
        return tuple(torch.zeros_like(each) for each in parameters)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return tuple(each.to_dense() if each.is_sparse else each for each in found)
