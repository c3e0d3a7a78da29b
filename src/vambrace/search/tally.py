"""What a search has found so far, by sample: filled in as samples leave the batch, and turned into `Attacked`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vambrace.core.access import Access
from vambrace.core.findings import Cost
from vambrace.search.outcome import Attacked

if TYPE_CHECKING:
    from vambrace.core.options import Norm
    from vambrace.search.problem import Problem

__all__ = ["Tally"]


class Tally:
    """Columns over all n samples of a problem."""

    def __init__(self, problem: Problem) -> None:
        inputs = problem.inputs
        count = len(inputs)
        self._problem = problem
        self.adversarial = torch.empty(inputs.shape, dtype=inputs.dtype, device=inputs.device)
        self.distance = torch.zeros(count, dtype=torch.float64, device=inputs.device)
        self.success = torch.zeros(count, dtype=torch.bool, device=inputs.device)
        self.finite = torch.ones(count, dtype=torch.bool, device=inputs.device)
        self.margin = torch.full((count,), float("nan"), dtype=torch.float32, device=inputs.device)
        self.first_success = torch.full((count,), -1, dtype=torch.int64, device=inputs.device)
        whole = torch.zeros((4, count), dtype=torch.int64, device=inputs.device)
        self.forwards, self.backwards, self.verifications, self.zero_gradients = whole

    def outcome(self, norm: Norm, *, forwards: int, backwards: int, padding: tuple[int, int]) -> Attacked:
        """Everything as the caller gets it.

        Args:
            norm: what distances are measured in.
            forwards: rows that the model was asked forward in all.
            backwards: rows that the model was asked backward in all.
            padding: forward and backward rows that belonged to no sample.
        """
        spent = self.forwards + self.verifications
        counted = self._problem.model.access < Access.GRADIENTS
        queries = spent if counted else torch.zeros_like(spent)
        logical, verified, back = int(self.forwards.sum()), int(self.verifications.sum()), int(self.backwards.sum())
        cost = Cost(
            forwards=logical,
            backwards=back,
            verifications=verified,
            queries=int(queries.sum()),
            idle_forwards=forwards - logical - verified - padding[0],
            idle_backwards=backwards - back - padding[1],
            padding_forwards=padding[0],
            padding_backwards=padding[1],
        )
        return Attacked(
            adversarial=self.adversarial,
            success=self.success,
            norm=norm,
            distance=self.distance,
            margin=self.margin,
            forwards=self.forwards,
            backwards=self.backwards,
            verifications=self.verifications,
            queries=queries,
            first_success=self.first_success,
            finite=self.finite,
            zero_gradients=self.zero_gradients,
            cost=cost,
        )
