"""The standard ensemble: the attacks, order and budgets of AutoAttack, each on what the ones before left.

    >>> from vambrace.attacks.standard import Standard
    >>> [name for name, _ in Standard(norm="linf", eps=8 / 255).stages(10)]
    ['apgd-ce', 'apgd-t', 'fab-t', 'square']

Its figure is the field's currency: a model's accuracy under it can be compared with what RobustBench lists. A sample
leaves at its first verified success, within an attack too, so that the same budgets cost less on models that break.
When not: where calls are dear. `Adaptive` finds as much for a twentieth of them.

| version | attacks, in order |
|---|---|
| "standard" | APGD-CE, APGD-T with 9 targets, FAB-T with 9 targets, Square with 5,000 queries |
| "plus" | APGD-CE and APGD-DLR with 5 starts, FAB with 5 starts, Square, APGD-T, FAB-T |
| "rand" | APGD-CE and APGD-DLR on the expectation over 20 calls, for models that answer at random |

Where a loss needs more classes than the model has, the margin is raised in its place (targeted DLR below four
classes, DLR below three); and where the goal is not to leave a label, there are no targets to aim at, so that those
attacks go for the goal itself.

In l1 APGD begins at larger radii (`APGD.large_radii`), as AutoAttack does; "standard" has five starts for APGD-CE and
five targets for APGD-T there. Of the other two versions AutoAttack says nothing in l1: they keep their numbers.

Reference: Croce & Hein 2020, arXiv 2003.01690, section 5; for l1, Croce & Hein 2021, arXiv 2103.01208.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from vambrace.attacks.apgd import APGD
from vambrace.attacks.ball import Ball
from vambrace.attacks.board import Board
from vambrace.attacks.fab import FAB
from vambrace.attacks.fixed import FixedRadius, require_option
from vambrace.attacks.nearest import Nearest, censored
from vambrace.attacks.square import Square
from vambrace.core.access import Access
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.options import Norm
from vambrace.core.progress import silent
from vambrace.models.expectation import Expectation

if TYPE_CHECKING:
    from vambrace.core.goals import Goal
    from vambrace.core.progress import Progress
    from vambrace.ops.losses import Loss
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem

__all__ = ["Standard", "Version"]

Version = Literal["standard", "plus", "rand"]

_TARGETS, _L1_TARGETS, _STEPS, _QUERIES, _STARTS, _DRAWS = 9, 5, 100, 5000, 5, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard(FixedRadius):
    """AutoAttack's ensemble.

    Attributes:
        norm: what `eps` is measured in.
        eps: radius in the units of the inputs.
        version: which attacks, see above. With "rand" each question is twenty calls of the model, and counted so.
    """

    name: ClassVar[str] = "standard"
    norms: ClassVar[tuple[Norm, ...]] = ("l1", "l2", "linf")
    version: Version = "standard"

    def __post_init__(self) -> None:
        FixedRadius.__post_init__(self)
        known = get_args(Version)
        require_option(self.version in known, "version", self.version, " or ".join(f'"{each}"' for each in known))

    def stages(self, classes: int, goal: Goal | None = None) -> tuple[tuple[str, FixedRadius | Nearest], ...]:
        """The attacks by name, in order.

        Args:
            classes: of the model.
            goal: what is sought; None: to leave a label.
        """
        away = goal is None or isinstance(goal, Untargeted)
        named = away or isinstance(goal, Targeted)
        plain: Loss = "ce" if named else "margin"
        spread: Loss = "dlr" if named and classes >= (3 if away else 4) else "margin"
        aimed: Loss = "dlr" if classes >= 4 else "margin"
        targets = min(_TARGETS, classes - 1) if away else None
        sparse, usual = self.norm == "l1", self.version == "standard"
        starts = _STARTS if self.version == "plus" or (sparse and usual) else 1
        few = min(_L1_TARGETS, targets) if targets and sparse and usual else targets
        apgd = APGD(norm=self.norm, eps=self.eps, steps=_STEPS, large_radii=sparse)
        ce = dataclasses.replace(apgd, loss=plain, restarts=starts)
        dlr = dataclasses.replace(ce, loss=spread)
        if self.version == "rand":
            return ("apgd-ce", ce), ("apgd-dlr", dlr)
        apgd_t = dataclasses.replace(apgd, loss=aimed if away else spread, targets=few)
        fab_t = FAB(norm=self.norm, eps=self.eps, steps=_STEPS, targets=targets)
        square = Square(norm=self.norm, eps=self.eps, queries=_QUERIES)
        if usual:
            return ("apgd-ce", ce), ("apgd-t", apgd_t), ("fab-t", fab_t), ("square", square)
        fab = FAB(norm=self.norm, eps=self.eps, steps=_STEPS, restarts=_STARTS)
        return (
            ("apgd-ce", ce),
            ("apgd-dlr", dlr),
            ("fab", fab),
            ("square", square),
            ("apgd-t", apgd_t),
            ("fab-t", fab_t),
        )

    def run(self, problem: Problem, *, progress: Progress = silent) -> Attacked:
        """One attack after the other."""
        draws = _DRAWS if self.version == "rand" else 1
        if draws > 1:
            problem = dataclasses.replace(problem, model=Expectation(problem.model, samples=draws))
        board = Board(problem, Ball(norm=self.norm, eps=self.eps))
        if not len(problem.inputs):
            return board.outcome()
        classes = board.look().shape[1]
        for name, attack in self.stages(classes, problem.goal):
            left = board.alive
            if not len(left):
                break
            part = dataclasses.replace(problem.take(left), rng=problem.rng.child(name))
            found = attack.run(part, progress=progress)
            found = censored(found, self.eps) if isinstance(attack, Nearest) else found
            board.add(name, left, found, black_box=attack.needs < Access.GRADIENTS)
        return board.outcome().charged(draws)
