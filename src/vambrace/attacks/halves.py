"""Inputs of half precision: the search runs in single precision, and what it finds is rounded and judged once more.

The decision of a model lies between the numbers of float16 and bfloat16. A search whose points are such numbers stops
short of it, and its own arithmetic squares what is above 256 to infinity and what is below 1e-4 to nothing. So the
inputs are widened first. What was found goes back to their dtype in a second, short search by forwards alone, which
moves a rounded success that is none further out along its way from the input until it is one again.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import torch

from vambrace.attacks.closing import Box, Closing
from vambrace.ops.projections import tighten
from vambrace.ops.rows import spread
from vambrace.search.loop import search

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.options import Norm
    from vambrace.core.progress import Progress
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Answer, Origin, Tensors

__all__ = ["Rounding", "Seeking", "run_wide"]

_PUSHES = 28
_FIRST_PUSH, _GROWTH = 2.0**-10, 1.5
"""Share of its way by which a rounded success is first moved out, and how many times as far with every try."""
_SUMMED = ("forwards", "backwards", "verifications", "queries", "zero_gradients")


class Seeking(Protocol):
    """An attack for nearest points, as far as inputs of half precision are concerned."""

    @property
    def norm(self) -> Norm:
        """What is made small."""
        ...

    @property
    def eps(self) -> float | None:
        """A success within this ends the search of its sample."""
        ...

    def seek(self, problem: Problem, *, progress: Progress) -> Attacked:
        """The nearest verified success of every sample, whose inputs are float32 or wider."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounding(Closing):
    """The rule of the second search. Start points are what the first one found; the first success ends it."""

    gradient: ClassVar[bool] = False

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        """The inputs, and the whole way from them to what was found."""
        assert origin.start is not None
        return {"inputs": origin.inputs, "way": origin.start - origin.inputs}

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        """What was found, rounded."""
        time = torch.zeros_like(restart)
        return {"point": self._rounded(anchor, torch.zeros_like(restart, dtype=torch.float64)), "time": time}

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: object) -> Tensor:
        """None is taken."""
        return torch.zeros_like(logits)

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        """Further out."""
        push = _FIRST_PUSH * _GROWTH ** state["time"].double()
        return {"point": self._rounded(anchor, push), "time": state["time"] + 1}

    def _rounded(self, anchor: Tensors, push: Tensor) -> Tensor:
        inputs, way = anchor["inputs"], anchor["way"]
        return self.box.clip((inputs + way * spread(1.0 + push, way).to(way.dtype)).to(inputs.dtype))


def run_wide(attack: Seeking, problem: Problem, *, progress: Progress) -> Attacked:
    """What `attack` finds, for inputs of any floating dtype; every success is one in the dtype of the inputs.

    On half precision a success costs at least a forward and a verification more.
    """
    inputs = problem.inputs
    if inputs.dtype.itemsize >= torch.float32.itemsize:
        return attack.seek(problem, progress=progress)
    start = None if problem.start is None else problem.start.float()
    wide = dataclasses.replace(problem, inputs=inputs.float(), start=start)
    found = _stopping_within(attack, problem).seek(wide, progress=progress)
    points, bounds = found.adversarial, problem.model.bounds
    saved, distance = tighten(points.to(inputs.dtype), inputs, math.inf, attack.norm, bounds)
    rows = found.success.nonzero().squeeze(1)
    again = dataclasses.replace(problem.take(rows), start=points[rows])
    rule = Rounding(norm=attack.norm, box=Box.of(problem), steps=_PUSHES, near=math.inf)
    return _with(dataclasses.replace(found, adversarial=saved, distance=distance), rows, search(again, rule))


def _stopping_within(attack: Seeking, problem: Problem) -> Seeking:
    """The attack, content only with what is within eps after rounding too; with the nearest, where none is surely."""
    if not attack.eps:
        return attack
    eps, bounds, inputs = attack.eps, problem.model.bounds, problem.inputs
    if bounds is not None and attack.norm != "l0":
        widest = max(float(torch.as_tensor(end).abs().max()) for end in (bounds.low, bounds.high))
        features = math.prod(inputs.shape[1:])
        units = {"linf": 1.0, "l2": math.sqrt(features), "l1": float(features)}[attack.norm]
        eps -= widest * units * torch.finfo(inputs.dtype).eps / 2
    elif bounds is None and attack.norm != "l0":
        eps = 0.0
    return dataclasses.replace(cast("Any", attack), eps=eps if eps > 0 else None)


def _with(found: Attacked, rows: Tensor, rounded: Attacked) -> Attacked:
    """The outcome with what became of the samples at `rows`, which are distinct."""
    columns = {name: getattr(found, name).index_add(0, rows, getattr(rounded, name)) for name in _SUMMED}
    for name in ("adversarial", "distance", "margin", "success"):
        columns[name] = getattr(found, name).index_copy(0, rows, getattr(rounded, name))
    columns["finite"] = found.finite.index_copy(0, rows, found.finite[rows] & rounded.finite)
    first = torch.where(rounded.success, found.forwards[rows] + rounded.first_success, -1)
    columns["first_success"] = found.first_success.index_copy(0, rows, first)
    return dataclasses.replace(found, **columns, cost=found.cost + rounded.cost)
