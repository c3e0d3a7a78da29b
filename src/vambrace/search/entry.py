"""How samples enter the loop: as they came, and as rows at their first start."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from vambrace.search.rule import Origin
from vambrace.search.slots import Slots

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.search.judge import Oracle
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Rule, Tensors

__all__ = ["Entry"]


class Entry:
    """Makes rows of samples.

    Args:
        problem: that they belong to.
        rule: what is done with them.
        oracle: asked about the inputs where the rule is `clean`; lays images as the model computes.
        keeping: whether rows keep another point than their last one.
    """

    def __init__(self, problem: Problem, rule: Rule, oracle: Oracle, *, keeping: bool) -> None:
        self._problem = problem
        self._rule = rule
        self._oracle = oracle
        self._keeping = keeping

    def origin(self, index: Tensor) -> Origin:
        """The samples at `index`, int64 (m,), without logits."""
        problem = self._problem
        return Origin(
            inputs=problem.inputs[index],
            ids=problem.ids[index],
            start=None if problem.start is None else problem.start[index],
            bounds=problem.model.bounds,
            rng=problem.rng,
            goal=problem.goal.take(index),
            logits=None,
        )

    def slots(self, index: Tensor) -> Slots:
        """Rows that hold the samples at `index`, int64 (m,), at their first start."""
        origin = self.origin(index)
        if self._rule.clean:
            origin = replace(origin, logits=self._oracle.logits(origin.inputs).detach())
        anchor = self._laid(self._rule.anchor(origin))
        state = self._laid(self._rule.start(origin, anchor, torch.zeros_like(index), None))
        return Slots(index=index, anchor=anchor, state=state, keeping=self._keeping)

    def _laid(self, tensors: Tensors) -> dict[str, Tensor]:
        """Tensors of the shape of images in the memory format that the model computes in."""
        form = self._oracle.memory_format
        return {
            name: tensor.contiguous(memory_format=form) if tensor.dim() == self._problem.inputs.dim() else tensor
            for name, tensor in tensors.items()
        }
