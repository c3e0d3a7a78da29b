"""What a gradient attack ascends: a loss of the goal, or, restart by restart, the way to one class after the other.

With `targets` the search flees each sample's label by way of the classes that were nearest to it on the unchanged
input: the first start goes for the best other class, the second for the next, and after the last one the round begins
again from new starts. Any class but the label is a success, whichever was aimed at. `AimedAscent` is what the rules
of APGD share: a ball, an aim, and restarts as the aim has them.

Reference: Croce & Hein 2020, arXiv 2003.01690, sections 4 and 5 (the targeted attacks of AutoAttack).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from vambrace.ops import losses
from vambrace.search.rule import Plain

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.attacks.ball import Ball
    from vambrace.core.goals import Goal, Untargeted
    from vambrace.core.options import Norm
    from vambrace.search.rule import Origin, Tensors

__all__ = ["Aim", "AimedAscent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What is raised, for rules that hold one; its functions take the anchors and states of the samples.

    Attributes:
        loss: which.
        restarts: starts a sample gets at most, or at most for each target.
        targets: classes that are aimed at in turn, at most all but the label; None: the goal's own loss is raised.
    """

    loss: losses.Loss
    restarts: int = 1
    targets: int | None = None

    @property
    def starts(self) -> int:
        """How many starts a sample gets at most."""
        return self.restarts * (self.targets or 1)

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        """With targets "targets", int64 (m, t), in falling order of the logits at the inputs; else nothing."""
        if self.targets is None:
            return {}
        logits = cast("Tensor", origin.logits)
        labels = cast("Untargeted", origin.goal).labels
        others = logits.scatter(1, labels.unsqueeze(1), float("-inf"))
        return {"targets": others.topk(min(self.targets, logits.shape[1] - 1), dim=1).indices}

    def again(self, anchor: Tensors, restart: Tensor) -> Tensor:
        """Whether samples get one more start after number `restart`: bool (m,)."""
        classes = 1 if self.targets is None else anchor["targets"].shape[1]
        return restart + 1 < self.restarts * classes

    def start(self, anchor: Tensors, restart: Tensor) -> dict[str, Tensor]:
        """With targets "target", int64 (m,), what start number `restart` goes for; else nothing."""
        if self.targets is None:
            return {}
        targets = anchor["targets"]
        return {"target": targets.gather(1, (restart % targets.shape[1]).unsqueeze(1)).squeeze(1)}

    def value(self, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        """What is raised, (m,)."""
        if self.targets is None:
            return losses.value(self.loss, logits, goal)
        return losses.toward_value(self.loss, logits, cast("Untargeted", goal).labels, state["target"])

    def slope(self, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        """Its derivative with respect to the logits, (m, k)."""
        if self.targets is None:
            return losses.slope(self.loss, logits, goal)
        return losses.toward_slope(self.loss, logits, cast("Untargeted", goal).labels, state["target"])


@dataclass(frozen=True, slots=True, kw_only=True)
class AimedAscent(Plain):
    """Base of a rule that climbs toward an aim within a ball; derive with `start` and `step`.

    Attributes:
        ball: where points may be.
        aim: what is ascended, and how often.
        steps: of one restart.
        random_start: whether starts are drawn.
    """

    ball: Ball
    aim: Aim
    steps: int
    random_start: bool

    @property
    def norm(self) -> Norm:
        """The ball's."""
        return self.ball.norm

    @property
    def eps(self) -> float:
        """The ball's."""
        return self.ball.eps

    @property
    def restarts(self) -> int:
        """The aim's starts."""
        return self.aim.starts

    @property
    def clean(self) -> bool:
        """Where targets are chosen by the logits of the inputs."""
        return self.aim.targets is not None

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        """That of the ball and that of the aim."""
        return self.ball.anchor(origin) | self.aim.anchor(origin)

    def again(self, anchor: Tensors, restart: Tensor) -> Tensor:
        """As the aim says."""
        return self.aim.again(anchor, restart)

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        """The aim's."""
        del anchor
        return self.aim.slope(state, logits, goal)
