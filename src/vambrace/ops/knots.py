"""Between which two of its knots a monotone function crosses a level, found without a look of the host.

Projections on balls end in such a question, one a sample, about a piecewise linear function. On CPU Newton's method
ends as soon as nothing moves, after two or three turns as a rule. Elsewhere asking whether anything moves makes the
host wait for the device, at every turn; a binary search among the knots takes as many turns as their number decides.

    >>> import torch
    >>> knots = torch.tensor([[0.0, 1.0, 4.0, 9.0], [0.0, 2.0, 3.0, 5.0]])
    >>> last_within(knots, lambda at: at.square() <= 17.0)
    (tensor([[4.],
            [3.]]), tensor([[9.],
            [5.]]))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["last_within", "may_look"]


def may_look(like: Tensor) -> bool:
    """Whether the host may look at values without waiting for the device that `like` is on."""
    return like.device.type == "cpu"


def last_within(knots: Tensor, within: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Each sample's last knot that is within, and the one that follows, itself where none does: (n, 1) each.

    Args:
        knots: (n, m), ascending; the first of each sample is within, asked or not.
        within: values (n, 1), one a sample, to bool (n, 1): true up to some value, and false from there on.
    """
    count = knots.shape[1]
    place = knots.new_zeros((len(knots), 1), dtype=torch.int64)
    for turn in reversed(range((count - 1).bit_length())):
        further = place + (1 << turn)
        passes = within(knots.gather(1, further.clamp(max=count - 1))) & (further < count)
        place = torch.where(passes, further, place)
    return knots.gather(1, place), knots.gather(1, (place + 1).clamp_(max=count - 1))
