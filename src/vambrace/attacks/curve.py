"""An attack at several radii: which samples break at which, with one ledger."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vambrace.core.findings import Cost
from vambrace.core.options import parse_ratio, require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from vambrace.core.options import Norm
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem

__all__ = ["Curve", "SPENT", "radii", "trace"]

SPENT = ("forwards", "backwards", "verifications", "queries", "zero_gradients")
"""Columns of an outcome that say what was spent on a sample."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Curve:
    """The outcome of an attack on n samples at r radii.

    A success at a smaller radius is a success at every larger one and is not searched for again, so accuracy never
    rises with the radius. Where nothing was found the radius is censored: it is at least the largest one tried.

    Attributes:
        norm: the norm of the radii.
        eps: r radii, ascending.
        outcomes: one `Attacked` over all n samples a radius. Work is counted at the radius it was spent at: a sample
            taken over from a smaller radius has no forwards there, and `first_success` 0. So is `finite`: a sample
            whose logits were once not finite is not asked again and stays unmeasured.
    """

    norm: Norm
    eps: tuple[float, ...]
    outcomes: tuple[Attacked, ...]

    @property
    def broken(self) -> Tensor:
        """Bool (n,): whether any radius broke the sample."""
        return self.outcomes[-1].success

    @property
    def radius(self) -> Tensor:
        """float64 (n,): the smallest radius that broke the sample; the largest one tried where none did."""
        found = torch.stack([outcome.success for outcome in self.outcomes])
        radii = torch.tensor(self.eps, dtype=torch.float64, device=found.device)
        return torch.where(found.any(dim=0), radii[found.int().argmax(dim=0)], radii[-1])

    @property
    def finite(self) -> Tensor:
        """Bool (n,): False where any logit seen at any radius was NaN or infinite."""
        return self.outcomes[-1].finite

    @property
    def cost(self) -> Cost:
        """Everything that was spent."""
        return sum((outcome.cost for outcome in self.outcomes), Cost())


def radii(eps: Sequence[float | str]) -> tuple[float, ...]:
    """Radii as ascending, distinct numbers; text such as "8/255" is read. Raises `ConfigError` E140."""
    # One number as an array or tensor is iterable by its type alone.
    several = isinstance(eps, Iterable) and not isinstance(eps, str) and getattr(eps, "ndim", 1) > 0  # pyright: ignore[reportUnnecessaryIsInstance]
    values = sorted(parse_ratio(value) for value in eps) if several else []
    require(
        len(values) > 0 and values[0] >= 0 and len(set(values)) == len(values),
        seen=f"radii {tuple(eps) if several else eps!r}",
        expected="at least one radius, none negative, none twice",
        fix="give eps as a sequence such as (2/255, 4/255, 8/255)",
        code="E140",
    )
    return tuple(values)


def trace(
    problem: Problem,
    eps: tuple[float, ...],
    norm: Norm,
    attack: Callable[[Problem, float], Attacked],
    *,
    reuses: bool = False,
) -> Curve:
    """Run `attack` at each radius, ascending, on the samples that no smaller one broke.

    Args:
        problem: checked arguments.
        eps: radii, ascending.
        norm: of the radii.
        attack: what runs at one of them.
        reuses: whether each but the first starts from the points that the one before left.
    """
    outcomes: list[Attacked] = []
    for radius in eps:
        if not outcomes:
            outcomes.append(attack(problem, radius))
            continue
        before = outcomes[-1]
        left = (~before.success & before.finite).nonzero().squeeze(1)
        part = problem.take(left)
        if reuses:
            part = dataclasses.replace(part, start=before.adversarial[left])
        outcomes.append(_merged(before, left, attack(part, radius)))
    return Curve(norm=norm, eps=eps, outcomes=tuple(outcomes))


_KEPT = ("adversarial", "success", "distance", "margin", "finite")


def _merged(before: Attacked, left: Tensor, part: Attacked) -> Attacked:
    columns = {name: getattr(before, name).clone() for name in _KEPT}
    columns |= {name: torch.zeros_like(getattr(before, name)) for name in SPENT}
    columns["first_success"] = torch.where(before.success, 0, -1)
    for name, column in columns.items():
        column[left] = getattr(part, name)
    by = None
    if part.by is not None:
        by = torch.full_like(columns["forwards"], -1)
        by[left] = part.by
    told = {name: getattr(part, name) for name in ("cost", "parts", "allowance", "stopped")}
    return dataclasses.replace(before, **columns, by=by, **told)
