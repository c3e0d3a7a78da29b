"""An independent witness of model work: a model that counts the rows that pass through it, forward and backward.

It knows nothing of samples, steps or ledgers; what a method says it spent is compared with what arrived here.

    >>> import torch
    >>> model = CountingModel(torch.nn.Linear(4, 3))
    >>> inputs = torch.rand(5, 4, requires_grad=True)
    >>> model(inputs).sum().backward()
    >>> model.forward_rows, model.backward_rows, model.calls
    (5, 5, [5])
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from vambrace.core.access import Access, Bounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from vambrace.models.contract import Identity, Outputs

__all__ = ["CountingModel"]


class CountingModel:
    """The `Model` contract over any function from inputs (n, ...) to logits (n, k), with counters.

    Attributes:
        forward_rows: rows that came in.
        backward_rows: rows that a gradient flowed back for.
        calls: batch size of every call, in order.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        *,
        access: Access = Access.GRADIENTS,
        bounds: Bounds | None = Bounds(0.0, 1.0),  # noqa: B008  an immutable value
        num_classes: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        self._function = function
        self._access = access
        self._bounds = bounds
        self._classes = num_classes
        self._dtype = dtype
        self._device = torch.empty(0, device=device).device  # None: where torch puts new tensors
        self.forward_rows = 0
        self.backward_rows = 0
        self.calls: list[int] = []

    @property
    def access(self) -> Access:
        """As given."""
        return self._access

    @property
    def bounds(self) -> Bounds | None:
        """As given."""
        return self._bounds

    @property
    def outputs(self) -> Outputs:
        """Logits."""
        return "logits"

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Unknown."""
        return None

    @property
    def num_classes(self) -> int | None:
        """As given."""
        return self._classes

    @property
    def device(self) -> torch.device:
        """As given."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """As given."""
        return self._dtype

    @property
    def identity(self) -> Identity | None:
        """None: it cannot be told from another one across processes."""
        return None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to logits (n, k), counted."""
        rows = len(inputs)
        self.forward_rows += rows
        self.calls.append(rows)
        logits = self._function(inputs)
        if isinstance(logits, torch.Tensor) and logits.requires_grad:  # pyright: ignore[reportUnnecessaryIsInstance]
            logits.register_hook(functools.partial(self._count_back, rows))
        return logits

    def predict(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to classes int64 (n,), counted."""
        with torch.no_grad():
            return self(inputs).argmax(dim=1)

    def _count_back(self, rows: int, gradient: Tensor) -> None:
        self.backward_rows += rows
