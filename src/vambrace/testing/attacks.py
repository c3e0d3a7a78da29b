"""What every fixed-radius attack must hold to, as one function that plug-ins run on theirs.

    from vambrace.testing.attacks import check_attack
    def test_mine():
        check_attack(Mine(eps=0.1))

An `AssertionError` says which promise is broken, and how. The attack is run on two problems that are built around its
own radius: a linear model, where for every sample it is known how far the decision is, and a small curved one with
inputs at the edges of the box.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from vambrace.core.access import Bounds
from vambrace.core.goals import Targeted, Untargeted
from vambrace.ops.norms import distances
from vambrace.testing.promises import (
    Function,
    Trial,
    check_company,
    check_empty,
    check_form,
    check_ledger,
    check_not_finite,
    check_surroundings,
    counting,
    holds,
)

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.core.options import Norm
    from vambrace.core.rng import Streams
    from vambrace.models.contract import Model
    from vambrace.search.outcome import Attacked

__all__ = ["Attack", "check_attack", "curved_problem", "linear_problem"]


class Attack(Protocol):
    """What is checked: options with a norm and a radius, called on a model."""

    @property
    def norm(self) -> Norm:
        """What `eps` is measured in."""
        ...

    @property
    def eps(self) -> float:
        """The radius."""
        ...

    def __call__(
        self,
        model: Model,
        inputs: Tensor,
        goal: Goal | Tensor,
        *,
        rng: Streams | int = 0,
        ids: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Attacked:
        """Search within `eps` of every input."""
        ...


def check_attack(attack: Attack, *, strength: float = 0.9) -> None:
    """Raise `AssertionError` unless the attack keeps its promises.

    Checked: every success is one, in a forward of ours, inside eps and bounds in float64; on the linear model every
    sample whose decision lies nearer than `strength` times eps falls, and none that lies further than eps; a targeted
    goal reaches its target; form of the result; the ledger against a model that counts, at batch 1, 7 and 64; equal
    outcomes whole, in parts, in another order and at any batch size; inputs, parameters and global random states left
    alone; logits that are not finite are neither success nor measured; an empty batch.

    Args:
        attack: the options, with `eps` > 0.
        strength: share of the radius within which a linear decision must be found.
    """
    _check_strength(attack, strength)
    _check_targets(attack)
    trial = Trial(*curved_problem(attack.eps))
    check_ledger(attack, trial)
    check_company(attack, trial)
    check_surroundings(attack, trial)
    check_not_finite(attack, trial, reach=2.0 * attack.eps)
    check_empty(attack, trial)


def linear_problem(norm: Norm, eps: float) -> tuple[Function, Bounds, Tensor, Tensor, Tensor]:
    """A linear model in float64 with two classes, and samples whose nearest other decision is known.

    Returns:
        The model, its bounds (wide enough not to matter), inputs (n, 1, 4, 4), labels (n,), and how many radii away
        the decision lies, (n,).
    """
    weight = torch.linspace(-1.0, 1.5, 16, dtype=torch.float64)
    # What one radius is worth along the weight: its norm in the dual of the norm that changes are measured in.
    dual = {"linf": weight.abs().sum(), "l2": weight.square().sum().sqrt(), "l1": weight.abs().max()}
    per_radius = dual[norm]
    radii = torch.tensor([0.1, 0.4, 0.6, 0.75, 0.89, 0.9, 1.01, 1.1, 2.0], dtype=torch.float64).repeat(2)
    labels = torch.tensor([0, 1]).repeat_interleave(9)
    centre = 8.0 * eps
    side = (2.0 * labels - 1.0).double()
    away: Tensor = side * radii * eps * per_radius / weight.square().sum()
    inputs: Tensor = centre + away.unsqueeze(1) * weight

    def model(points: Tensor) -> Tensor:
        score = (points.flatten(1) - centre) @ weight
        return torch.stack((-score, score), dim=1) / 2

    return model, Bounds(0.0, 16.0 * eps), inputs.reshape(-1, 1, 4, 4), labels, radii


def curved_problem(eps: float, n: int = 23) -> tuple[Function, Bounds, Tensor, Tensor]:
    """A small network in float64 with three classes on inputs at and near the edges of the box, some of them breakable.

    Returns:
        The model, its bounds, inputs (n, 1, 4, 4) and the classes that the model gives them.
    """
    generator = torch.Generator().manual_seed(5)
    inner = torch.randn(16, 24, generator=generator, dtype=torch.float64) / 4
    outer = torch.randn(24, 3, generator=generator, dtype=torch.float64) / 5
    high = 5.0 * eps

    def model(points: Tensor) -> Tensor:
        return torch.tanh((points.flatten(1) / high - 0.5) @ inner) @ outer

    wide = torch.rand(n, 1, 4, 4, generator=generator, dtype=torch.float64) * 1.6 - 0.3
    inputs = wide.clamp(0.0, 1.0) * high
    return model, Bounds(0.0, high), inputs, model(inputs).argmax(dim=1)


def _check_strength(attack: Attack, strength: float) -> None:
    network, bounds, inputs, labels, radii = linear_problem(attack.norm, attack.eps)
    out = attack(counting(network, bounds), inputs, labels)
    check_form(out, inputs)
    _check_claims(attack, out, network, bounds, inputs, Untargeted(labels))
    missed = (radii <= strength) & ~out.success
    holds(not bool(missed.any()), f"a linear decision {radii[missed].tolist()} radii away is not found")
    holds(not bool((out.success & (radii > 1.0)).any()), "a success beyond the radius")


def _check_targets(attack: Attack) -> None:
    network, bounds, inputs, labels = curved_problem(attack.eps)
    for shift in (1, 2):
        goal = Targeted((labels + shift) % 3)
        out = attack(counting(network, bounds), inputs, goal)
        _check_claims(attack, out, network, bounds, inputs, goal)
        # On its way to a target a search must bring it nearer: an attack that flees the label alone does not.
        before, after = (goal.margin(network(points)) for points in (inputs, out.adversarial))
        holds(bool((after >= before).double().mean() > 0.9), "a targeted goal does not come nearer")


def _check_claims(attack: Attack, out: Attacked, network: Function, bounds: Bounds, inputs: Tensor, goal: Goal) -> None:
    points = out.adversarial
    with torch.no_grad():
        reached = goal.margin(network(points)) > 0
    holds(not bool((out.success & ~reached).any()), "a success that does not reach the goal")
    size = distances(points, inputs, attack.norm)
    holds(bool((size <= attack.eps).all()), f"a point {float(size.max())} away, further than eps {attack.eps}")
    holds(torch.allclose(size, out.distance, rtol=1e-9, atol=0), "distance is not what the points show")
    holds(bool(bounds.contains(points).all()), "a point outside the bounds")
    holds(torch.equal(out.first_success >= 0, out.success), "first_success and success disagree")
