"""Values per sample beside tensors of samples: spreading the one over the other, and overwriting chosen samples.

>>> import torch
>>> images = torch.zeros(2, 1, 2, 2)
>>> spread(torch.tensor([1.0, 2.0]), images).shape
torch.Size([2, 1, 1, 1])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["assign", "assign_each", "spread"]


def spread(values: Tensor, like: Tensor) -> Tensor:
    """Values (n,) shaped (n, 1, ..., 1), so that they broadcast against the samples of `like` (n, ...)."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def assign(target: Tensor, chosen: Tensor, values: Tensor) -> None:
    """Overwrite the samples of `target` (n, ...) where `chosen` (n,) holds by those of `values` (n, ...).

    On CPU only the chosen samples are touched; elsewhere asking which they are would make the host wait for the
    device, so the whole tensor is written.
    """
    assign_each(chosen, (target, values))


def assign_each(chosen: Tensor, *pairs: tuple[Tensor, Tensor]) -> None:
    """`assign` for several pairs of target and values, with one question which samples are chosen."""
    if chosen.device.type != "cpu":
        for target, values in pairs:
            torch.where(spread(chosen, target), values, target, out=target)
        return
    index = chosen.nonzero().view(-1)
    for target, values in pairs:
        _assign_at(target, index, values)


def _assign_at(target: Tensor, index: Tensor, values: Tensor) -> None:
    count = index.shape[0]
    if count == target.shape[0]:
        target.copy_(values)
    elif count and target.is_contiguous() and values.is_contiguous():
        target.index_copy_(0, index, values.index_select(0, index))
    elif count:
        target[index] = values[index]
