"""DeepFool: from one linearised decision to the next until the class changes, each time by the shortest way.

    >>> from vambrace.attacks import DeepFool
    >>> DeepFool(norm="linf").steps
    50

A step takes the gradients of the most likely classes, finds the decision that is nearest were the model linear, and
goes there and a little beyond. A few steps find an adversarial point that is often within a few per cent of the
nearest. When not: as a measure of robustness; the methods that slide along the decision (FAB, FMN, DDN) come nearer.

Reference: Moosavi-Dezfooli, Fawzi, Frossard 2016, "DeepFool: a simple and accurate method to fool deep neural
networks", arXiv 1511.04599, sections 3.2 and 3.3, algorithm 2. The paper knows no box: points are clipped into it, and
the next step sets out from there. The paper goes beyond the sum of its steps once, here every step does. It stops at
the first success: here a few tries on the way back to the input follow. For a target, which the paper does not treat,
the decision is where its margin is zero.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch

from vambrace.attacks.closing import Box, Closing, won
from vambrace.attacks.fixed import require_option
from vambrace.attacks.halves import run_wide
from vambrace.attacks.nearest import Nearest
from vambrace.attacks.retreat import noted, opened, point_between
from vambrace.attacks.rivals import Rivals, rivals_of
from vambrace.core.options import Norm, Ratio
from vambrace.ops.hyperplanes import onto_hyperplane
from vambrace.ops.rows import assign
from vambrace.search.loop import search

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.core.progress import Progress
    from vambrace.ops.hyperplanes import Straight
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Answer, Origin, Tensors

__all__ = ["DeepFool", "Hopping"]


_BEYOND = 1e-4
"""By how much a step aims beyond the decision, as a share of the two highest logits: ten times what counts as clear."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hopping(Closing):
    """The rule of DeepFool.

    Attributes:
        rivals: the decisions of a step.
        overshoot: share by which a step goes beyond the decision.
        tries: on the way back, after the first success.
    """

    rivals: Rivals
    overshoot: float
    tries: int

    @property
    def nowhere(self) -> tuple[Tensor, Tensor]:
        """The ends of no box."""
        end = torch.full_like(self.box.high, math.inf)
        return -end, end

    @property
    def slopes(self) -> int:
        """One a rival."""
        return self.rivals.count

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        """The first points."""
        point = self.first(origin)
        return {
            "point": point,
            "tries": torch.zeros_like(restart),
            "over": torch.zeros_like(restart, dtype=torch.bool),
            **opened(point),
        }

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        """Of the leads of the rivals over the label."""
        return self.rivals.slope(logits, goal)

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        """To the nearest linear decision; after a success, one try further back, until there were enough."""
        inputs, success = anchor["inputs"], won(answer)
        columns = noted(state, self.change(anchor, state), answer, success, self.norm, state["tries"] > 0)
        lead, gradient = self.rivals.nearest(answer, self.norm)
        # Where the box takes part of every step, points come ever nearer to the decision and never beyond it.
        gap = lead.abs() + answer.logits.topk(2, dim=1).values.abs().amax(dim=1) * _BEYOND
        # From the point itself: what the box has taken of earlier steps is no part of where the next one sets out.
        moved = onto_hyperplane(state["point"], gradient, gap, *self.nowhere, cast("Straight", self.norm))
        point = self.box.clip(torch.add(state["point"], moved, alpha=1.0 + self.overshoot))
        found = columns["outer_length"].isfinite()
        assign(point, found, point_between(inputs, columns))
        tries = state["tries"] + found
        return {**columns, "point": point, "tries": tries, "over": tries >= self.tries}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepFool(Nearest):
    """Steps onto the nearest linearised decision: near points in l2 or linf, found fast.

    A sample stops `tries` forwards after its first success. A step costs one forward and one backward a candidate; a
    sample that never succeeds `steps + 1` forwards.

    Attributes:
        norm: "l2" or "linf".
        eps: a success within this radius ends the search of its sample; None: the nearest one found is wanted.
        steps: at most.
        candidates: how many other classes a step looks at, those of the highest logits; a target is looked at alone.
        overshoot: share by which steps go beyond the decision.
        tries: evaluations on the way back to the input, after the first success; 1 or more.
    """

    name: ClassVar[str] = "deep_fool"
    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")

    steps: int = 50
    candidates: int = 10
    overshoot: Ratio = 0.02
    tries: int = 3

    def __post_init__(self) -> None:
        Nearest.__post_init__(self)
        require_option(self.steps >= 1, "steps", self.steps, "1 or more")
        require_option(self.candidates >= 1, "candidates", self.candidates, "1 or more")
        require_option(0 <= self.overshoot < math.inf, "overshoot", self.overshoot, "a share, 0 or more")
        require_option(self.tries >= 1, "tries", self.tries, "1 or more")

    def run(self, problem: Problem, *, progress: Progress) -> Attacked:
        """The nearest verified success of every sample."""
        return run_wide(self, problem, progress=progress)

    def seek(self, problem: Problem, *, progress: Progress) -> Attacked:
        """The same, for inputs of float32 or wider."""
        rivals, cost = rivals_of(problem, self.candidates)
        rule = Hopping(
            norm=self.norm,
            box=Box.of(problem),
            steps=self.steps,
            near=self.enough,
            rivals=rivals,
            overshoot=self.overshoot,
            tries=self.tries,
        )
        out = search(problem, rule, name=self.name, progress=progress)
        return dataclasses.replace(out, cost=out.cost + cost)
