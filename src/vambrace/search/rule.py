"""What one attack adds to the loop: a `Rule`, that is a start, something to ascend, and a step.

A rule is written for many samples at once and sees nothing but tensors whose first dimension counts them. All it
remembers of a sample lies in two dictionaries of such tensors, so that the loop can drop, move and add samples by
indexing: `anchor` holds what never changes for a sample (its box, say), `state` what does (its point).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.access import Bounds
    from vambrace.core.goals import Goal
    from vambrace.core.rng import Streams

__all__ = ["Origin", "Rule", "Tensors"]

Tensors = Mapping[str, "Tensor"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Origin:
    """Some samples as they came.

    Attributes:
        inputs: (m, ...), inside `bounds`.
        ids: int64 (m,), for draws.
        start: (m, ...), the caller's start points, or None.
        bounds: the model's box, or None.
        rng: the stream of this search.
    """

    inputs: Tensor
    ids: Tensor
    start: Tensor | None
    bounds: Bounds | None
    rng: Streams


class Rule(Protocol):
    """How one attack searches. Stateless: everything about a sample is in `anchor` and `state`.

    The loop evaluates the model at `state["point"]`, asks `slope` which way the logits should go, pulls that back to
    a gradient with respect to the point, and hands both to `step`, which gives the next state. After `steps` steps
    it evaluates once more: a restart that never succeeds costs `steps + 1` forwards and `steps` backwards. Nothing
    may depend on how many samples there are, in which order, or on one another.
    """

    gradient: ClassVar[bool]
    """Whether `step` needs gradients; without, the model is only asked forward."""

    @property
    def norm(self) -> Literal["l2", "linf"]:
        """What `eps` and distances are measured in."""
        ...

    @property
    def eps(self) -> float:
        """No point further away is a success."""
        ...

    @property
    def steps(self) -> int:
        """Steps of one restart, >= 0."""
        ...

    @property
    def restarts(self) -> int:
        """Starts a sample gets at most, >= 1."""
        ...

    def anchor(self, origin: Origin) -> Tensors:
        """What never changes for these samples."""
        ...

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor) -> Tensors:
        """The state before the first evaluation of restart `restart`, int64 (m,): fresh tensors, one named "point"."""
        ...

    def slope(self, logits: Tensor, goal: Goal) -> Tensor:
        """The derivative of what is raised with respect to the logits (m, k), which carry no graph: (m, k)."""
        ...

    def step(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal, gradient: Tensor | None) -> Tensors:
        """The state with the next point.

        May overwrite tensors of `state` and return them; must neither overwrite nor return those of `anchor`, nor
        `gradient`, which can belong to the model. Inside eps and bounds up to rounding: the loop tightens the rest.

        Args:
            anchor: see there.
            state: at the point just evaluated.
            logits: (m, k), there.
            goal: of the m samples.
            gradient: (m, ...), `slope` pulled back to the point; None where `gradient` is False.
        """
        ...
