"""Which elements of a tensor are masked, and what is done to the others: pure functions on whole tensors.

>>> import torch
>>> smallest(torch.tensor([0.3, -0.1, 0.1, 2.0]), 2)
tensor([False,  True,  True, False])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["altered", "emptied", "smallest"]


def smallest(weights: Tensor, count: int, taken: Tensor | None = None) -> Tensor:
    """A mask of exactly `count` elements: those that `taken` marks, then by magnitude, ties by position.

    Position is row-major whatever the memory format, so equal weights give equal masks on every device. NaN counts as
    the largest magnitude.

    Args:
        weights: floating point, any shape.
        count: at least the number marked by `taken`, at most the number of elements.
        taken: bool, of the same shape.

    Returns:
        bool, of the same shape.
    """
    if not count:
        return torch.zeros(weights.shape, dtype=torch.bool, device=weights.device)
    size = _wide(weights).abs().reshape(-1)
    size = size.masked_fill(size.isnan(), torch.inf)
    if taken is not None:
        size = size.masked_fill(taken.reshape(-1), -1.0)
    edge = size.kthvalue(count).values
    below, level = size < edge, size == edge
    room = count - below.sum()
    return (below | (level & (level.cumsum(0) <= room))).reshape(weights.shape)


def altered(
    weights: Tensor,
    mask: Tensor,
    *,
    noise: Tensor | None = None,
    noise_above: float = 0.75,
    lower_clip: float | None = None,
    upper_clip: float | None = None,
) -> Tensor:
    """Masked elements exactly 0; kept ones with noise, then with clipped magnitude.

    Args:
        weights: floating point, any shape, not empty.
        mask: bool, of the same shape.
        noise: of the same shape; added to kept elements above `noise_above` times the largest kept magnitude.
        noise_above: 0 to 1.
        lower_clip: smaller kept magnitudes are raised to it, sign kept (+0 counts as positive), but only once the
            smallest kept magnitude is above half of it, that is when the masks have reached it. Before, it would make
            many weights equal that the next masks must tell apart.
        upper_clip: larger kept magnitudes are lowered to it.

    Returns:
        Of the weights' dtype, to which clips are rounded; float16 and bfloat16 are computed in float32.
    """
    found = _wide(weights)
    size = found.abs()
    least = size.masked_fill(mask, torch.inf).min()
    if noise is not None:
        large = size > noise_above * size.masked_fill(mask, 0.0).max()
        found = torch.where(large, found + noise, found)
    if upper_clip is not None:
        found = found.clamp(-upper_clip, upper_clip)
    if lower_clip is not None:
        small = (found.abs() < lower_clip) & (least > lower_clip / 2)
        found = torch.where(small, torch.full_like(found, lower_clip).copysign(found), found)
    return found.masked_fill(mask, 0.0).to(weights.dtype)


def emptied(gradient: Tensor, mask: Tensor) -> Tensor:
    """A gradient without its masked elements: a dense one in place, a sparse one (of an embedding, say) anew.

    Filled and not multiplied, so that NaN and infinity go, too.
    """
    if not gradient.is_sparse:
        return gradient.masked_fill_(mask, 0.0)
    gradient = gradient.coalesce()
    values = gradient.values().masked_fill(mask[tuple(gradient.indices())], 0.0)
    # Said outright, because torch warns where nothing is said: these indices come from a tensor that was checked.
    return torch.sparse_coo_tensor(
        gradient.indices(), values, gradient.shape, is_coalesced=True, check_invariants=False
    )


def _wide(weights: Tensor) -> Tensor:
    """Detached, in float64 where the weights are, else in float32, which holds the narrower types exactly."""
    return weights.detach().to(torch.float64 if weights.dtype == torch.float64 else torch.float32)
