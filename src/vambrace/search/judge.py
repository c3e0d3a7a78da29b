"""When logits count as success, and the one place that asks the model.

A margin above zero by less than rounding proves nothing: the same point in another batch may fall on the other
side. So a success needs a margin above 1e-5 of the two highest logits of its row, in the search and again in a
verification forward of fixed shape, at the point as it will be saved. Only the two highest: a margin compares
contenders, and the rounding of a class that is masked with -1e9 has no part in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from vambrace.errors import ModelMisbehaved
from vambrace.models.outputs import checked_logits
from vambrace.ops.knots import may_look
from vambrace.search.portions import Portions
from vambrace.search.problem import require_classes

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.models.contract import Model

__all__ = ["CLEAR", "Oracle", "Verdicts", "judge", "pushes"]

CLEAR = 1e-5
"""A margin counts above this share of the size of the row's two highest logits."""


def pushes(*, quantised: bool) -> tuple[float, ...]:
    """How much further from its input a nearest success may be put, try by try, to be one again when it is verified.

    Rounding asks for little; the levels of 8-bit images for more.
    """
    return (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, *((0.03, 0.1, 0.2, 0.4) if quantised else ()))


class Verdicts(NamedTuple):
    """What logits (m, k) say about a goal, each (m,)."""

    margin: Tensor
    """The goal's margin; NaN where logits are."""
    won: Tensor
    """Whether the margin is clearly above zero and all logits are finite."""
    finite: Tensor
    """Whether all logits are finite."""


def judge(logits: Tensor, margin: Tensor) -> Verdicts:
    """Detached logits (m, k) and the margin (m,) of a goal at them."""
    scale = logits.topk(2, dim=1).values.abs().amax(dim=1)
    finite = logits.abs().amax(dim=1) < float("inf")
    return Verdicts(margin, (margin > scale * CLEAR) & finite, finite)


class Oracle:
    """The model as the loop asks it, with a physical count of the rows it was asked.

    The model gets a copy of its own, so that one which changes its input in place changes nothing of ours (and still
    has a gradient); in its own dtype; and in the memory format it computes in. On CPU, where comparing is free of
    waiting, one that left its first copy as it was gets the points themselves from then on.

    Attributes:
        forwards: rows asked forward so far.
        backwards: rows asked backward so far.
        forward_pads: those among `forwards` that belong to no sample.
        backward_pads: those among `backwards` that belong to no sample.
        memory_format: of the images that the model is given.

    Args:
        model: what is asked.
        most_class: the largest class that anyone will look for in the logits; -1 for none.
    """

    def __init__(self, model: Model, most_class: int) -> None:
        self._most_class = most_class
        self.forwards = 0
        self.backwards = 0
        self.forward_pads = 0
        self.backward_pads = 0
        self.memory_format = torch.contiguous_format
        self._model = model
        self._exact: Model = getattr(model, "exact", model)
        self._portions = Portions(whole=getattr(model, "fixed_rows", None) is not None)
        self._careful: Model | None = None  # seen to leave alone what it is given

    def logits(self, points: Tensor, *, pads: int = 0, exact: bool = False) -> Tensor:
        """Points (m, ...), `pads` of them nobody's, to logits (m, k) in float32 or wider, in the graph of `points`.

        `exact`: what is asked decides a success, and a model that is searched in low precision answers in full.

        Raises:
            ConfigError: E133, when the goal names a class that the logits do not have.
            ModelMisbehaved: E401 to E404, when the answer is not one row of at least two scores per point.
        """
        model = self._exact if exact else self._model
        rows = points.shape[0]
        self.forwards += rows
        self.forward_pads += pads

        def answer(part: Tensor) -> Tensor:
            return checked_logits(model(part), len(part), "logits", source=model)

        if model is self._careful:
            logits = self._portions.ask(answer, points.to(model.dtype, memory_format=self.memory_format))
        else:
            given = points.clone(memory_format=self.memory_format).to(model.dtype)
            logits = self._portions.ask(answer, given)
            if may_look(points) and rows and torch.equal(given.detach(), points.detach().to(given.dtype)):
                self._careful = model
        if self._most_class >= logits.shape[1]:
            require_classes(least=0, most=self._most_class, classes=logits.shape[1])
        return logits

    def pull_back(self, logits: Tensor, slope: Tensor, points: Tensor, *, pads: int = 0, keep: bool = False) -> Tensor:
        """`slope` (m, k), a direction of the logits, as the gradient (m, ...) with respect to `points`.

        `keep` leaves the graph for another direction; `pads` of the points are nobody's.

        Raises:
            ModelMisbehaved: E405, when the logits do not depend on the points as far as autograd can see.
        """
        self.backwards += points.shape[0]
        self.backward_pads += pads
        found = None
        if logits.requires_grad:
            (found,) = torch.autograd.grad(logits, points, slope, allow_unused=True, retain_graph=keep)
        if found is None:
            raise ModelMisbehaved(
                "E405",
                seen="logits without a derivative with respect to the inputs",
                expected="a differentiable path from inputs to logits, as a model with GRADIENTS access promises",
                fix="remove detach(), .data, NumPy round trips or torch.no_grad() from forward, "
                "or declare access SCORES and use an attack that needs no gradient",
            )
        return found
