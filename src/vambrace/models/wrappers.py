"""Models around models: `Batched` limits how many rows run at once, `Counted` knows exactly what was asked.

Wrappers compose, and each is a `Model` again:

    model = Counted(Batched(from_torch(net), size=64), budget=100_000)

They give at most GRADIENTS: work done on the activations of a wrapped module would pass by the wrapper uncounted.
Whoever needs the module itself asks for it: `counted.model.model.module`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

import torch

from vambrace.core.access import Access, Bounds
from vambrace.errors import BudgetSpent, ConfigError
from vambrace.models.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from torch import Tensor

    from vambrace.models.contract import Identity, Model, Outputs
    from vambrace.models.ledger import Charge

__all__ = ["Batched", "Counted", "Wrapper"]


class Wrapper:
    """Hands every property of the wrapped model through; the base of the wrappers here.

    Attributes:
        model: the wrapped model.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def access(self) -> Access:
        """What the wrapped model gives, GRADIENTS at most."""
        return min(self.model.access, Access.GRADIENTS)

    @property
    def bounds(self) -> Bounds | None:
        """The box of valid inputs."""
        return self.model.bounds

    @property
    def outputs(self) -> Outputs:
        """What the network itself emits."""
        return self.model.outputs

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of one sample."""
        return self.model.input_shape

    @property
    def num_classes(self) -> int | None:
        """Width of the logits."""
        return self.model.num_classes

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating type the model computes in."""
        return self.model.dtype

    @property
    def fixed_rows(self) -> int | None:
        """How many rows the wrapped model answers at once, always; None: as many as there are."""
        rows: int | None = getattr(self.model, "fixed_rows", None)
        return rows

    @property
    def identity(self) -> Identity | None:
        """Of the wrapped model: a wrapper does not change its answers."""
        return self.model.identity


class Batched(Wrapper):
    """Runs at most `size` rows at a time, so that a large call fits in memory. The answers are those of one call.

        >>> import torch
        >>> from vambrace.models import from_torch
        >>> model = from_torch(torch.nn.Linear(4, 2).eval())
        >>> Batched(model, size=3)(torch.rand(8, 4)).shape, model.calls
        (torch.Size([8, 2]), 3)

    Args:
        model: the model to wrap.
        size: most rows a call; at least 1.
    """

    def __init__(self, model: Model, size: int) -> None:
        if size < 1:
            raise ConfigError(
                "E115", seen=f"size {size} of Batched", expected="1 or more", fix="give the largest batch that fits"
            )
        super().__init__(model)
        self.size = size

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to logits (n, k)."""
        if inputs.shape[0] <= self.size:
            return self.model(inputs)
        return torch.cat([self.model(part) for part in _parts(inputs, self.size)])

    def predict(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to classes, int64 (n,)."""
        if inputs.shape[0] <= self.size:
            return self.model.predict(inputs)
        return torch.cat([self.model.predict(part) for part in _parts(inputs, self.size)])

    def __repr__(self) -> str:
        return f"Batched({self.model!r}, size={self.size})"


class Counted(Wrapper):
    """Counts every row that reaches the model, by sample where ids are given, and stops at a hard budget.

        >>> import torch
        >>> from vambrace.models import from_torch
        >>> counted = Counted(from_torch(torch.nn.Linear(4, 2).eval()), budget=3)
        >>> with counted.charged([11, 12]):
        ...     labels = counted.predict(torch.rand(2, 4))
        >>> counted.queries, counted.per_sample[11].queries
        (2, 1)

    A call that would go over the budget raises before any of its rows reaches the model, and counts nothing. Rows count
    when they are handed to the model, also when it then raises: a server would have counted them. A backward pass
    counts once for each time a gradient arrives at the logits of a call; it costs no budget.

    Attributes:
        budget: most rows that may be asked, forward calls and predictions together; None: no limit.
        calls: how often the model was called.
        forwards: rows through the network, by call or `predict`.
        backwards: rows of backward passes.
        queries: rows of `predict`, and rows of calls on models that give no gradients: what a server would bill.
        unattributed: forward rows without an id or with a negative one.
    """

    def __init__(self, model: Model, budget: int | None = None) -> None:
        if budget is not None and budget < 0:
            raise ConfigError(
                "E115",
                seen=f"budget {budget} of Counted",
                expected="0 or more rows",
                fix="give the number of rows, or None",
            )
        super().__init__(model)
        self.budget = budget
        self.calls = 0
        self.forwards = 0
        self.backwards = 0
        self.queries = 0
        self.unattributed = 0
        self.ledger = Ledger()
        self._charged: Tensor | None = None

    @contextlib.contextmanager
    def charged(self, ids: Tensor | Sequence[int]) -> Generator[Counted]:
        """Inside, each row of every call is charged to the sample whose id stands at its place.

        Args:
            ids: int64 (n,), one for each row of the calls inside; negative: nobody's (padding, idle). Their backward
                passes are charged to the same samples, also when they run after the block.
        """
        before = self._charged
        # A copy: the caller may compact its own ids in place while backward passes are still to come.
        self._charged = torch.as_tensor(ids).detach().to("cpu", torch.int64, copy=True)
        try:
            yield self
        finally:
            self._charged = before

    @property
    def remaining(self) -> int | None:
        """Rows left in the budget; None without one."""
        return None if self.budget is None else self.budget - self.forwards

    @property
    def per_sample(self) -> dict[int, Charge]:
        """Every charged sample id with its forwards, backwards and queries."""
        return self.ledger.per_sample()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to logits (n, k); E120 when the budget does not cover all n rows."""
        ids = self._spend(inputs.shape[0], query=self.model.access < Access.GRADIENTS)
        logits = self.model(inputs)
        if logits.requires_grad:
            rows = inputs.shape[0]

            def count(_: Tensor) -> None:
                self.backwards += rows
                if ids is not None:
                    self.ledger.charge("backwards", ids)

            logits.register_hook(count)
        return logits

    def predict(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to classes, int64 (n,); E120 when the budget does not cover all n rows."""
        self._spend(inputs.shape[0], query=True)
        return self.model.predict(inputs)

    def _spend(self, rows: int, *, query: bool) -> Tensor | None:
        ids = self._charged
        if ids is not None and len(ids) != rows:
            raise ConfigError(
                "E116",
                seen=f"a call with {rows} rows while {len(ids)} sample ids are charged",
                expected="one id a row",
                fix="open charged() with the ids of exactly the rows in the call; "
                "put Batched inside Counted, not around it",
            )
        if self.budget is not None and self.forwards + rows > self.budget:
            raise BudgetSpent(
                "E120",
                seen=f"a call of {rows} rows after {self.forwards} of {self.budget}",
                expected="a call inside the budget",
                fix=f"ask at most {self.budget - self.forwards} more rows, or raise the budget",
            )
        self.calls += 1
        self.forwards += rows
        self.queries += rows if query else 0
        if ids is None:
            self.unattributed += rows
        else:
            self.unattributed += int((ids < 0).sum())
            self.ledger.charge("forwards", ids)
            if query:
                self.ledger.charge("queries", ids)
        return ids

    def __repr__(self) -> str:
        return f"Counted({self.model!r}, budget={self.budget})"


def _parts(inputs: Tensor, size: int) -> Sequence[Tensor]:
    return cast("Sequence[Tensor]", inputs.split(size))
