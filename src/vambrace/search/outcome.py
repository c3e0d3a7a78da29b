"""What a search hands back: `Attacked`, per sample and of one type whatever the arguments."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch

from vambrace.core.findings import Cost

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.options import Norm

__all__ = ["Attacked", "Part"]

_COUNTED = ("forwards", "backwards", "verifications", "queries", "zero_gradients")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one attack of an ensemble did.

    Attributes:
        name: of the attack, distinct within an outcome.
        attacked: samples that it was run on, counted again each time.
        broken: samples that it broke.
        cost: what it spent.
        black_box: whether it asked for scores or labels only, on what attacks with gradients had left.
        regained: of a black-box attack: those of the broken that attacks with gradients broke too, asked once more.
    """

    name: str
    attacked: int
    broken: int
    cost: Cost
    black_box: bool = False
    regained: int = 0

    @property
    def beyond(self) -> int:
        """Samples that it broke without gradients, and that attacks with them did not."""
        return self.broken - self.regained if self.black_box else 0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Attacked:
    """The outcome of an attack on n samples.

    Guarantees, for every sample with `success`: the goal is reached by `adversarial` in a verification forward of
    its own with a margin above rounding, and `adversarial` as returned lies within eps and bounds, measured in fp64.
    A failure is censored: `success` is False, `adversarial` is the last point tried (inside eps and bounds).

    Attributes:
        adversarial: (n, ...), dtype and device of the inputs.
        success: bool (n,).
        norm: the norm `distance` is measured in.
        distance: float64 (n,), size of the change in input units.
        margin: float32 (n,), the goal's margin at `adversarial`: as verified where success; NaN where it is not finite.
        forwards: int64 (n,), logical forwards up to the sample's stop (steps + 1 for PGD that never succeeds).
        backwards: int64 (n,), logical backwards up to the stop.
        verifications: int64 (n,), forwards spent on confirming claims.
        queries: int64 (n,), what a query-counted model was asked: forwards + verifications on SCORES and LABELS access.
        first_success: int64 (n,), number of logical forwards when the verified success was first seen; -1 where none.
        finite: bool (n,), False where any logit seen was NaN or infinite: such a sample is unmeasured, never robust.
        zero_gradients: int64 (n,), backwards of steps whose whole input gradient was exactly zero or no number.
        cost: totals of the call, with the idle and padding rows that ran beside the logical ones.
        parts: of an ensemble, what each of its attacks did, in the order of their first turns; else empty.
        by: of an ensemble, int64 (n,), which of `parts` broke a sample, -1 where none did; else None.
        allowance: forwards, backwards and verifications that the call was allowed in all; None: no such limit.
        stopped: of a search that decides when to stop, why it did; else empty.
        sightless: of an outcome that was read off another one's search and so has no steps of its own, `blind` as that
            search had it; else None.
    """

    adversarial: Tensor
    success: Tensor
    norm: Norm
    distance: Tensor
    margin: Tensor
    forwards: Tensor
    backwards: Tensor
    verifications: Tensor
    queries: Tensor
    first_success: Tensor
    finite: Tensor
    zero_gradients: Tensor
    cost: Cost
    parts: tuple[Part, ...] = ()
    by: Tensor | None = None
    allowance: int | None = None
    stopped: str = ""
    sightless: Tensor | None = None

    @property
    def blind(self) -> Tensor:
        """Bool (n,): whether the input gradient was zero, or no number, at half of a sample's steps or more."""
        if self.sightless is not None:
            return self.sightless
        return (self.backwards > 0) & (2 * self.zero_gradients >= self.backwards)

    @property
    def left(self) -> int:
        """Samples that were measured and not broken."""
        return int((~self.success & self.finite).sum())

    @property
    def beyond(self) -> int:
        """Samples that only black-box attacks of an ensemble broke."""
        return sum(part.beyond for part in self.parts)

    @property
    def unspent(self) -> int | None:
        """What is left of the allowance; None without one."""
        if self.allowance is None:
            return None
        return self.allowance - self.cost.forwards - self.cost.backwards - self.cost.verifications

    def charged(self, calls: int) -> Attacked:
        """The same outcome where each row that was asked is `calls` rows of the model: its whole ledger times that."""
        if calls == 1:
            return self
        columns = {name: getattr(self, name) * calls for name in _COUNTED}
        columns["first_success"] = torch.where(self.first_success > 0, self.first_success * calls, self.first_success)
        parts = tuple(replace(part, cost=_times(part.cost, calls)) for part in self.parts)
        allowance = None if self.allowance is None else self.allowance * calls
        return replace(self, **columns, cost=_times(self.cost, calls), parts=parts, allowance=allowance)


def _times(cost: Cost, calls: int) -> Cost:
    return Cost(**{field.name: getattr(cost, field.name) * calls for field in fields(cost)})
