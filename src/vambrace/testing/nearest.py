"""What every attack that looks for the nearest adversarial point must hold to, as one function that plug-ins run.

    from vambrace.testing.nearest import check_nearest
    def test_mine():
        check_nearest(Mine(norm="l2"))

An `AssertionError` says which promise is broken, and how. The attack is run on a linear model, where for every sample
it is known how near the nearest point is, and on a small curved one with inputs at the edges of the box.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from vambrace.core.access import Bounds
from vambrace.core.findings import Cost
from vambrace.core.goals import Targeted, Untargeted
from vambrace.ops.norms import distances
from vambrace.testing.attacks import curved_problem
from vambrace.testing.promises import (
    Trial,
    check_company,
    check_empty,
    check_form,
    check_ledger,
    check_not_finite,
    check_surroundings,
    holds,
)

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.attacks.nearest import Nearest
    from vambrace.core.goals import Goal
    from vambrace.core.options import Norm
    from vambrace.search.outcome import Attacked

__all__ = ["check_nearest", "nearest_problem"]


def check_nearest(attack: Nearest, *, slack: float = 0.05, reached: float = 0.9) -> None:
    """Raise `AssertionError` unless the attack keeps its promises.

    Checked: every success is one, in a forward of ours, inside the bounds and as far away as it says, in float64; on
    the linear model every sample falls, none nearer than it can and none further than `slack` beyond; a targeted goal
    reaches its target; an input that reaches the goal already comes back unchanged; with `eps` a search stops early,
    finds what it would have found, and claims nothing further away; the curve over radii is read off one run; form of
    the result; the ledger against a model that counts, at batch 1, 7 and 64; equal outcomes whole, in parts, in another
    order and at any batch size; inputs, parameters and global random states left alone; logits that are not finite are
    neither success nor measured; an empty batch.

    Args:
        attack: the options, with `eps` None.
        slack: share of the least distance by which a linear decision may be missed; for l0 at least one element.
        reached: share of samples of the curved model that must reach a target.
    """
    _check_strength(attack, slack)
    trial = Trial(*curved_problem(0.1))
    _check_targets(attack, trial, reached)
    _check_reached_already(attack, trial)
    _check_radius(attack, trial)
    check_ledger(attack, trial)
    check_company(attack, trial)
    check_surroundings(attack, trial)
    check_not_finite(attack, trial, reach=0.2)
    check_empty(attack, trial)


def nearest_problem(norm: Norm) -> tuple[Trial, Tensor]:
    """A linear model in float64 with two classes, and how far each sample is from the other one: float64 (n,).

    The box binds no nearest point in l1, l2 and linf; in l0 it is what makes one element not enough.
    """
    weight = torch.linspace(-1.0, 1.5, 16, dtype=torch.float64)
    radii = torch.tensor([0.05, 0.3, 0.5, 0.8, 1.0, 1.2], dtype=torch.float64).repeat(2)
    labels = torch.tensor([0, 1]).repeat_interleave(6)
    side = (2.0 * labels - 1.0).double()
    # In units of the score; a sample lies on the side of its label, a bit of noise along the decision beside it.
    gap = 0.3 * radii
    noise = torch.rand(12, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / 50 - 0.01
    noise -= ((noise @ weight) / weight.square().sum()).unsqueeze(1) * weight
    inputs = 0.5 + noise + (side * gap / weight.square().sum()).unsqueeze(1) * weight
    ends = (0.4, 0.6) if norm == "l0" else (0.0, 1.0)

    def network(points: Tensor) -> Tensor:
        score = (points.flatten(1) - 0.5) @ weight
        return torch.stack((-score, score), dim=1) / 2

    if norm == "l0":
        away = -side.unsqueeze(1) * weight
        worth = torch.where(away > 0, ends[1] - inputs, inputs - ends[0]) * weight.abs()
        gathered = worth.sort(dim=1, descending=True).values.cumsum(dim=1)
        least = (gathered < gap.unsqueeze(1)).sum(dim=1).double() + 1.0
    else:
        dual = {"linf": weight.abs().sum(), "l2": weight.square().sum().sqrt(), "l1": weight.abs().max()}
        least = gap / dual[norm]
    return Trial(network, Bounds(*ends), inputs.reshape(-1, 1, 4, 4), labels), least


def _check_strength(attack: Nearest, slack: float) -> None:
    trial, least = nearest_problem(attack.norm)
    out = attack(trial.model, trial.inputs, trial.labels)
    check_form(out, trial.inputs)
    _check_claims(attack, out, trial, Untargeted(trial.labels))
    holds(bool(out.success.all()), f"linear decisions {least[~out.success].tolist()} away are not found")
    holds(not bool((out.distance < least * (1.0 - 1e-9)).any()), "nearer than the decision is: the distance is wrong")
    most = (least + 1.0).maximum(least * (1.0 + slack)) if attack.norm == "l0" else least * (1.0 + slack)
    far = out.distance > most
    holds(not bool(far.any()), f"points {out.distance[far].tolist()} away where {least[far].tolist()} is enough")


def _check_targets(attack: Nearest, trial: Trial, reached: float) -> None:
    for shift in (1, 2):
        goal = Targeted((trial.labels + shift) % 3)
        out = attack(trial.model, trial.inputs, goal)
        _check_claims(attack, out, trial, goal)
        share = float(out.success.double().mean())
        holds(share >= reached, f"a targeted goal is reached by {share:.0%} of the samples only")


def _check_claims(attack: Nearest, out: Attacked, trial: Trial, goal: Goal) -> None:
    points = out.adversarial
    with torch.no_grad():
        reached = goal.margin(trial.network(points)) > 0
    holds(not bool((out.success & ~reached).any()), "a success that does not reach the goal")
    size = distances(points, trial.inputs, attack.norm)
    holds(torch.allclose(size, out.distance, rtol=1e-9, atol=0), "distance is not what the points show")
    holds(bool(trial.bounds.contains(points).all()), "a point outside the bounds")
    holds(torch.equal(out.first_success >= 0, out.success), "first_success and success disagree")


def _check_reached_already(attack: Nearest, trial: Trial) -> None:
    out = attack(trial.model, trial.inputs, (trial.labels + 1) % 3)
    unchanged = torch.equal(out.adversarial, trial.inputs) and not bool(out.distance.any())
    holds(bool(out.success.all()) and unchanged, "an input that reaches the goal is changed")


def _check_radius(attack: Nearest, trial: Trial) -> None:
    free = attack(trial.model, trial.inputs, trial.labels)
    radius = float(free.distance[free.success].quantile(0.6))
    if attack.norm == "l0":
        radius = float(round(radius))
    out = dataclasses.replace(attack, eps=radius)(trial.model, trial.inputs, trial.labels)
    _check_claims(attack, out, trial, Untargeted(trial.labels))
    holds(bool((out.distance[out.success] <= radius).all()), f"with eps {radius} a success further away")
    lost = free.success & (free.distance <= radius) & ~out.success
    holds(not bool(lost.any()), f"with eps {radius} {int(lost.sum())} samples are lost that fall within it without")
    holds(out.cost.forwards < free.cost.forwards, "with eps the search does not stop early")
    wanted = (radius / 2, radius, radius * 1.5)
    curve = attack.curve(trial.model, trial.inputs, trial.labels, eps=wanted)
    for eps, outcome in zip(wanted, curve.outcomes, strict=True):
        holds(bool((outcome.distance[outcome.success] <= eps).all()), f"on the curve, a success beyond {eps}")
    counts = [int(outcome.success.sum()) for outcome in curve.outcomes]
    holds(counts == sorted(counts), f"on the curve, fewer successes further out: {counts}")
    lost = free.success & (free.distance <= wanted[-1]) & ~curve.outcomes[-1].success
    holds(not bool(lost.any()), "on the curve, samples are lost that one run finds")
    holds(all(outcome.cost == Cost() for outcome in curve.outcomes[1:]), "on the curve, work is counted twice")
    late = any(bool((outcome.first_success > 0).any()) for outcome in curve.outcomes[1:])
    holds(not late, "on the curve, a success after forwards that its radius does not have")
