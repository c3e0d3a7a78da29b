"""What one attack adds to the loop: a `Rule`, that is a start, something to ascend, and a step.

A rule is written for many samples at once and sees nothing but tensors whose first dimension counts them. All it
remembers of a sample lies in two dictionaries of such tensors, so that the loop can drop, move and add samples by
indexing: `anchor` holds what never changes for a sample (its box, say), `state` what does (its point).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.access import Bounds
    from vambrace.core.goals import Goal
    from vambrace.core.options import Norm
    from vambrace.core.rng import Streams

__all__ = ["Answer", "Keeps", "Origin", "Plain", "Rule", "Tensors"]

Tensors = Mapping[str, "Tensor"]

Keeps = Literal["last", "margin", "nearest"]
"""Which point a sample is left with: the last one, the one of the highest margin, or the nearest that was a success."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Origin:
    """Some samples as they came.

    Attributes:
        inputs: (m, ...), inside `bounds`.
        ids: int64 (m,), for draws.
        start: (m, ...), the caller's start points, or None.
        bounds: the model's box, or None.
        rng: the stream of this search.
        goal: of the m samples.
        logits: (m, k) at the inputs, for rules that are `clean`; else None.
    """

    inputs: Tensor
    ids: Tensor
    start: Tensor | None
    bounds: Bounds | None
    rng: Streams
    goal: Goal
    logits: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the model said at the points of m rows.

    Attributes:
        logits: (m, k), without graph.
        goal: of the m samples.
        gradient: (m, ...) of the first view, or the sum of those of the first `leading` views; (s, m, ...) where the
            rule has s `slopes`; None for rules without.
        others: (m, ...), the sum of the gradients of all other views; None where there are none.
        rng: the stream of this search.
        ahead: how many points are wanted, the next one among them; more than 1 only from rules that look `ahead`.
        known: float64 (m,), the margins at the logits, where the search has asked for them already; else None.
    """

    logits: Tensor
    goal: Goal
    gradient: Tensor | None
    others: Tensor | None
    rng: Streams
    ahead: int = 1
    known: Tensor | None = None

    @property
    def margin(self) -> Tensor:
        """float64 (m,), the goal's margins at the logits."""
        return self.goal.margin(self.logits).double() if self.known is None else self.known

    @property
    def slope(self) -> Tensor:
        """The gradient, for rules that always get one."""
        if self.gradient is None:
            raise ValueError("this rule steps along gradients")
        return self.gradient


class Rule(Protocol):
    """How one attack searches. Stateless: everything about a sample is in `anchor` and `state`.

    The loop evaluates the model at `state["point"]`, asks `slope` which way the logits should go, pulls that back to
    a gradient with respect to the point, and hands both to `step`, which gives the next state. After `steps` steps
    it evaluates once more: a restart that never succeeds costs `steps + 1` forwards and `steps` backwards, and more
    where a step looks at several `views` or slopes. A rule may end a restart earlier: where the state has a bool
    tensor "over" (m,), the evaluation of a point that it marks is the last one of that restart. It may also search
    beyond eps for a while: points that a bool tensor "outside" (m,) marks are never claimed, and never kept. In a bool
    tensor "found" (m,) the loop marks samples of which any point was a success, the last one of a restart among them.
    Nothing may depend on how many samples there are, in which order, or on one another. `Plain` answers all that most
    rules answer alike.
    """

    gradient: ClassVar[bool]
    """Whether `step` needs gradients; without, the model is only asked forward."""
    ahead: ClassVar[bool]
    """Whether the search stands still until an answer matters, so that the loop may ask about later points before
    those in front of them are answered: see `step`, `moves`, `passed`. Only rules without gradients."""

    @property
    def clean(self) -> bool:
        """Whether starts need the logits of the inputs themselves: one more forward a sample."""
        ...

    @property
    def norm(self) -> Norm:
        """What `eps` and distances are measured in."""
        ...

    @property
    def eps(self) -> float:
        """No point further away is a success; inf: the nearest success is wanted, however far."""
        ...

    @property
    def steps(self) -> int:
        """Steps of one restart, >= 0."""
        ...

    @property
    def restarts(self) -> int:
        """Starts a sample gets at most, >= 1."""
        ...

    @property
    def keeps(self) -> Keeps:
        """What a sample is left with. "nearest" searches on after a success, until one is near `enough`."""
        ...

    @property
    def enough(self) -> float:
        """For rules that keep the nearest: a success this near ends the search; 0: only one at the input itself."""
        ...

    @property
    def views(self) -> int:
        """Places around a point at which a step takes gradients, >= 1."""
        ...

    @property
    def sighted(self) -> bool:
        """Whether the first view is the point itself, so that the forward that judges it also gives a gradient."""
        ...

    @property
    def leading(self) -> int:
        """How many views, from the first, make up `Answer.gradient`; >= 1, at most `views`."""
        ...

    @property
    def slopes(self) -> int:
        """Gradients that a step takes at the first view, >= 1; more than one only with a single view."""
        ...

    def anchor(self, origin: Origin) -> Tensors:
        """What never changes for these samples; for rules that keep the nearest, "inputs" among it."""
        ...

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> Tensors:
        """The state before the first evaluation of a restart: fresh tensors, one of them named "point".

        Args:
            origin: the samples.
            anchor: see there.
            restart: int64 (m,), from 0.
            before: the state at the end of the restart before; None at the first one.
        """
        ...

    def again(self, anchor: Tensors, restart: Tensor) -> Tensor:
        """Whether samples get one more start after restart number `restart`, int64 (m,): bool (m,)."""
        ...

    def look(self, anchor: Tensors, state: Tensors, point: Tensor, view: int, rng: Streams) -> Tensor:
        """Where view number `view` takes its gradient: `point` (m, ...) to (m, ...), differentiable; 0 is the first."""
        ...

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        """What is raised, differentiated by the logits (m, k), which carry no graph: (m, k), or (s, m, k)."""
        ...

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> Tensors:
        """The state with the next point.

        May overwrite tensors of `state` and return them; must neither overwrite nor return those of `anchor`, nor
        gradients, which can belong to the model. Inside eps and bounds up to rounding: the loop tightens the rest.

        Where `answer.ahead` is more than 1, "ahead" (m, answer.ahead, ...) comes with the state: the next point, and
        those that follow as long as no answer moves the search.
        """
        ...

    def moves(self, state: Tensors, margin: Tensor) -> Tensor:
        """Which margins, float64 (m, k), of k points ahead of each sample, would move the search: a new bool (m, k)."""
        ...

    def passed(self, state: Tensors, count: Tensor) -> Tensors:
        """The state `count` points on, int64 (m,), whose answers left the search where it is; the loop puts "point"."""
        ...


class Plain:
    """Base of a rule: one gradient at the point itself, the last point kept. Override what differs."""

    __slots__ = ()

    gradient: ClassVar[bool] = True
    ahead: ClassVar[bool] = False

    @property
    def clean(self) -> bool:
        """No."""
        return False

    @property
    def keeps(self) -> Keeps:
        """The last point."""
        return "last"

    @property
    def enough(self) -> float:
        """Only the input itself."""
        return 0.0

    @property
    def views(self) -> int:
        """One."""
        return 1

    @property
    def sighted(self) -> bool:
        """The point itself is looked at."""
        return True

    @property
    def leading(self) -> int:
        """The first."""
        return 1

    @property
    def slopes(self) -> int:
        """One."""
        return 1

    def again(self: Rule, anchor: Tensors, restart: Tensor) -> Tensor:
        """Up to `restarts` starts."""
        del anchor
        return restart + 1 < self.restarts

    def look(self, anchor: Tensors, state: Tensors, point: Tensor, view: int, rng: Streams) -> Tensor:
        """The point itself."""
        del anchor, state, view, rng
        return point

    def moves(self, state: Tensors, margin: Tensor) -> Tensor:
        """Every answer may matter."""
        del state
        return torch.ones_like(margin, dtype=torch.bool)

    def passed(self, state: Tensors, count: Tensor) -> Tensors:
        """Nothing that counts points."""
        del count
        return state
