"""How many rows a model on CPU answers fastest, found by watching what one call of it sets aside.

What lies between the layers of a network is taken from the system and given back at every call. Beyond a few MiB it is
neither in the cache, nor does the allocator keep it, so that each call pays for fresh pages: a network of four
convolutions took 185 microseconds a row at 32 rows and 280 at 128 (torch 2.13, glibc), of which half was the system's.
So what carries no gradient is asked in portions. The first call is answered whole and watched, which depends on the
model and the shape of a sample alone, and costs no row.

When not: with gradients, everything between the layers is kept until the way back, however it was asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Portions"]

_BYTES = 4 << 20
_FEWEST = 16


class Portions:
    """Rows in calls of as many as fit; one for each model and form of samples.

    Args:
        whole: never in portions, for models that fill up every call to a number of rows of their own.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self._most: int | None = None

    def ask(self, answer: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
        """What `answer` gives for points (m, ...): one row for each of them, in order."""
        rows = len(points)
        if self._whole or points.device.type != "cpu" or torch.is_grad_enabled() or rows <= _FEWEST:
            return answer(points)
        if self._most is None:
            with _Watch(rows) as watch:
                found = answer(points)
            self._most = max(_FEWEST, _BYTES * rows // max(1, watch.largest))
            return found
        if rows <= self._most:
            return answer(points)
        even = -(-rows // -(-rows // self._most))  # a last portion of a few rows would cost more than its share
        return torch.cat([answer(points[first : first + even]) for first in range(0, rows, even)])


class _Watch(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that was made anew for all rows together."""

    supports_higher_order_operators = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled parts are asked as ever; torch would not compile them here, and fail where that is a must."""
        return True

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows
        self.largest = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  torch's own signature
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  whatever the operator gives
        del types
        found: Any = func(*args, **(kwargs or {}))
        returns: Any = getattr(getattr(func, "_schema", None), "returns", ())  # none for operators of a higher order
        # Views and what is written in place take no room.
        if all(each.alias_info is None for each in returns):
            for each in pytree.tree_leaves(found):
                if isinstance(each, Tensor) and each.dim() and each.size(0) % self._rows == 0:
                    self.largest = max(self.largest, each.numel() * each.element_size())
        return found
