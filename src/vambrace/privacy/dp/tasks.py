"""A batch, a module and a loss as the engine's task: all losses at once, or one sample with parameters of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vambrace.privacy.dp.batches import flatten, rebuild
from vambrace.privacy.dp.engine.engine import Task

if TYPE_CHECKING:
    from vambrace.privacy.dp.batches import Part

__all__ = ["casting", "task"]


def casting(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Autocast to a type; None: none, whatever the caller's own context says."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def task(
    module: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    part: Part,
    device: torch.device,
    dtype: torch.dtype | None,
) -> Task:
    """The task of a part of a batch, whose tensors are on `device`; `dtype` as for `casting`."""

    def losses() -> Tensor:
        with casting(device, dtype):
            return loss(module, part.tree)

    def single(values: dict[str, Tensor], *leaves: Tensor) -> Tensor:
        tree = rebuild(part.tree, [leaf.unsqueeze(0) for leaf in leaves])
        named = {f"module.{name}": value for name, value in values.items()}
        with casting(device, dtype):
            return torch.func.functional_call(_Whole(module, loss), named, (tree,)).sum()

    return Task(losses, part.count, flatten(part.tree), single)


class _Whole(nn.Module):
    """A module with its loss, so that both can be called with other parameters."""

    def __init__(self, module: nn.Module, loss: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.module, self._loss = module, loss

    def forward(self, tree: Any) -> Tensor:  # noqa: ANN401
        return self._loss(self.module, tree)
