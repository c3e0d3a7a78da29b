"""A randomised model, averaged over several calls: what an attack on it should follow and be judged by.

    >>> import torch
    >>> from vambrace.models import from_torch
    >>> model = from_torch(torch.nn.Linear(4, 2).eval())
    >>> Expectation(model, samples=3)(torch.rand(5, 4)).shape, model.calls
    (torch.Size([5, 2]), 3)

A network that draws noise gives another gradient at each call, and one that looks wrong once may be right on average.
Averaged, gradients point where the model as a whole weakens, and a success is one of the model and not of a draw.

The logits are the log of the mean probability of each class, computed without leaving the log domain: so one draw
counts for one, however large its logits, the class on top is that of the averaged model, and nothing saturates. For
a model that is not random they are its own logits but for a constant.

Ledger: a row that the expectation is asked about is `samples` rows of the model, forward and backward, and that is what
outcomes and findings count (`calls_a_row`). What limits an attack, such as its queries, is in rows of what it is given;
a budget of the model's own rows belongs inside: `Expectation(Counted(model, budget=...))`.

Reference: Athalye, Carlini, Wagner 2018, arXiv 1802.00420, section 4.2.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from vambrace.core.access import Access
from vambrace.errors import ConfigError
from vambrace.models.wrappers import Counted, Wrapper

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.models.contract import Identity, Model

__all__ = ["Expectation", "calls_a_row"]


class Expectation(Wrapper):
    """The `Model` contract over the mean of several calls.

    It draws nothing itself: whatever randomness the model has is the model's. All `samples` calls are in the graph at
    once, so a gradient takes their memory.

    Attributes:
        model: the randomised model.
        samples: calls that are averaged.

    Args:
        model: the randomised model.
        samples: calls that are averaged, 1 or more.

    Raises:
        ConfigError: E115, for fewer than one.
    """

    def __init__(self, model: Model, samples: int = 20) -> None:
        if samples < 1:
            raise ConfigError(
                "E115", seen=f"samples {samples} of Expectation", expected="1 or more", fix="average over 20 calls"
            )
        super().__init__(model)
        self.samples = samples

    @property
    def identity(self) -> Identity | None:
        """The wrapped model's, with the number of calls."""
        inner = self.model.identity
        if inner is None:
            return None
        return dataclasses.replace(inner, detail={**inner.detail, "expectation": self.samples})

    @property
    def exact(self) -> Model:
        """What claims are verified by: the expectation of the exact model, where the wrapped one is less than exact."""
        inner: Model | None = getattr(self.model, "exact", None)
        return self if inner is None else Expectation(inner, self.samples)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to logits (n, k), all finite where the model's are."""
        draws = torch.stack([F.log_softmax(self.model(inputs), dim=1) for _ in range(self.samples)])
        return draws.logsumexp(dim=0) - math.log(self.samples)

    def predict(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to classes, int64 (n,): of the mean, or by most votes where the model gives labels only."""
        if self.model.access >= Access.SCORES:
            with torch.no_grad():
                return self(inputs).argmax(dim=1)
        votes = torch.stack([self.model.predict(inputs) for _ in range(self.samples)])
        if not votes.numel():
            return votes[0]
        return F.one_hot(votes).sum(dim=0).argmax(dim=1)

    def __repr__(self) -> str:
        return f"Expectation({self.model!r}, samples={self.samples})"


def calls_a_row(model: Model) -> int:
    """How many rows of the model inside each row of `model` is: the samples of all expectations around it, multiplied.

    Where something is `Counted`, its rows are what is counted, whatever lies inside.

        >>> import torch
        >>> from vambrace.models import from_torch
        >>> model = from_torch(torch.nn.Linear(4, 2).eval())
        >>> calls_a_row(model), calls_a_row(Expectation(model, samples=3))
        (1, 3)
    """
    calls = 1
    while isinstance(model, Wrapper) and not isinstance(model, Counted):
        if isinstance(model, Expectation):
            calls *= model.samples
        model = model.model
    return calls
