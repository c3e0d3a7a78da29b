"""What every fixed-radius attack must hold to, as one function that plug-ins run on theirs.

    from vambrace.testing.attacks import check_attack
    def test_mine():
        check_attack(Mine(eps=0.1))

An `AssertionError` says which promise is broken, and how. The attack is run on two problems that are built around its
own radius: a linear model, where for every sample it is known how far the decision is, and a small curved one with
inputs at the edges of the box.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch

from vambrace.core.access import Access, Bounds
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.rng import Streams
from vambrace.ops.norms import distances
from vambrace.testing.counting import CountingModel

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.core.options import Norm
    from vambrace.models.contract import Model
    from vambrace.search.outcome import Attacked

__all__ = ["Attack", "Function", "check_attack", "curved_problem", "linear_problem"]

Function = Callable[["Tensor"], "Tensor"]

_COLUMNS = ("success", "distance", "forwards", "backwards", "verifications", "queries", "first_success", "finite")


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
    _check_ledger(attack)
    _check_company(attack)
    _check_surroundings(attack)
    _check_not_finite(attack)
    _check_empty(attack)


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
    out = attack(_counting(network, bounds), inputs, labels)
    _check_form(out, inputs)
    _check_claims(attack, out, network, bounds, inputs, Untargeted(labels))
    missed = (radii <= strength) & ~out.success
    _holds(not bool(missed.any()), f"a linear decision {radii[missed].tolist()} radii away is not found")
    _holds(not bool((out.success & (radii > 1.0)).any()), "a success beyond the radius")


def _check_targets(attack: Attack) -> None:
    network, bounds, inputs, labels = curved_problem(attack.eps)
    for shift in (1, 2):
        goal = Targeted((labels + shift) % 3)
        out = attack(_counting(network, bounds), inputs, goal)
        _check_claims(attack, out, network, bounds, inputs, goal)
        # On its way to a target a search must bring it nearer: an attack that flees the label alone does not.
        before, after = (goal.margin(network(points)) for points in (inputs, out.adversarial))
        _holds(bool((after >= before).double().mean() > 0.9), "a targeted goal does not come nearer")


def _check_form(out: Attacked, inputs: Tensor) -> None:
    count = len(inputs)
    _holds(out.adversarial.shape == inputs.shape, f"adversarial of shape {tuple(out.adversarial.shape)}")
    _holds(out.adversarial.dtype == inputs.dtype, f"adversarial of dtype {out.adversarial.dtype}")
    _holds(out.adversarial.device == inputs.device, f"adversarial on {out.adversarial.device}")
    _holds(not out.adversarial.requires_grad, "adversarial requires a gradient")
    kinds = {"success": torch.bool, "finite": torch.bool, "distance": torch.float64, "margin": torch.float32}
    for name in (*_COLUMNS, "margin", "zero_gradients"):
        column = cast("Tensor", getattr(out, name))
        wanted = kinds.get(name, torch.int64)
        _holds(column.shape == (count,) and column.dtype == wanted, f"{name} is not {wanted} of shape ({count},)")


def _check_claims(attack: Attack, out: Attacked, network: Function, bounds: Bounds, inputs: Tensor, goal: Goal) -> None:
    points = out.adversarial
    with torch.no_grad():
        reached = goal.margin(network(points)) > 0
    _holds(not bool((out.success & ~reached).any()), "a success that does not reach the goal")
    size = distances(points, inputs, attack.norm)
    _holds(bool((size <= attack.eps).all()), f"a point {float(size.max())} away, further than eps {attack.eps}")
    _holds(torch.allclose(size, out.distance, rtol=1e-9, atol=0), "distance is not what the points show")
    _holds(bool(bounds.contains(points).all()), "a point outside the bounds")
    _holds(torch.equal(out.first_success >= 0, out.success), "first_success and success disagree")


def _check_ledger(attack: Attack) -> None:
    network, bounds, inputs, labels = curved_problem(attack.eps)
    for batch in (1, 7, 64):
        model = _counting(network, bounds)
        out = attack(model, inputs, labels, batch_size=batch)
        cost, where = out.cost, f"at batch {batch}"
        forward = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
        backward = cost.backwards + cost.idle_backwards + cost.padding_backwards
        _holds(
            forward == model.forward_rows,
            f"{where} {model.forward_rows} rows went forward, {forward} are accounted for",
        )
        _holds(
            backward == model.backward_rows,
            f"{where} {model.backward_rows} rows went back, {backward} are accounted for",
        )
        _holds(min(dataclasses.astuple(cost)) >= 0, f"{where} a negative cost: {cost}")
        for name in ("forwards", "backwards", "verifications", "queries"):
            total = int(cast("Tensor", getattr(out, name)).sum())
            _holds(
                total == getattr(cost, name), f"{where} {name} of samples add up to {total}, not {getattr(cost, name)}"
            )
        _holds(max(model.calls) <= max(batch, 1), f"{where} the model was asked about {max(model.calls)} rows at once")


def _check_company(attack: Attack) -> None:
    network, bounds, inputs, labels = curved_problem(attack.eps)
    rng, ids = Streams(3).child("kit"), torch.arange(len(inputs)) * 1_000_003 + 11
    whole = attack(_counting(network, bounds), inputs, labels, rng=rng, ids=ids)
    again = attack(_counting(network, bounds), inputs, labels, rng=rng, ids=ids)
    _same(whole, again, torch.arange(len(inputs)), "called again")
    for batch in (1, 7, 64):
        other = attack(_counting(network, bounds), inputs, labels, rng=rng, ids=ids, batch_size=batch)
        _same(whole, other, torch.arange(len(inputs)), f"at batch {batch}")
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(1))
    mixed = attack(_counting(network, bounds), inputs[order], labels[order], rng=rng, ids=ids[order], batch_size=7)
    _same(whole, mixed, order, "in another order")
    for first in range(0, len(inputs), 9):
        part = torch.arange(first, min(first + 9, len(inputs)))
        alone = attack(_counting(network, bounds), inputs[part], labels[part], rng=rng, ids=ids[part])
        _same(whole, alone, part, "in parts")


def _same(whole: Attacked, other: Attacked, index: Tensor, how: str) -> None:
    for name in _COLUMNS:
        expected, found = cast("Tensor", getattr(whole, name))[index], cast("Tensor", getattr(other, name))
        equal = torch.allclose(expected, found, rtol=1e-6) if name == "distance" else torch.equal(expected, found)
        _holds(equal, f"{how}, {name} is another one")
    close = torch.allclose(whole.adversarial[index], other.adversarial, rtol=0, atol=1e-6)
    _holds(close, f"{how}, the adversarial points are other ones")


def _check_surroundings(attack: Attack) -> None:
    network, bounds, inputs, labels = curved_problem(attack.eps)
    parameter = torch.ones(1, dtype=torch.float64, requires_grad=True)

    def trainable(points: Tensor) -> Tensor:
        return network(points) * parameter

    kept, before = inputs.clone(), _global_states()
    attack(_counting(trainable, bounds), inputs, labels)
    _holds(_global_states() == before, "a global random state is read or moved")
    _holds(torch.equal(inputs, kept) and not inputs.requires_grad, "the inputs are changed")
    _holds(parameter.grad is None, "a parameter has got a gradient")
    with torch.inference_mode():
        inside = attack(_counting(network, bounds), inputs, labels)
    _same(attack(_counting(network, bounds), inputs, labels), inside, torch.arange(len(inputs)), "in inference mode")


def _check_not_finite(attack: Attack) -> None:
    network, bounds, inputs, labels = curved_problem(attack.eps)
    marked = inputs[4].clone()

    def broken(points: Tensor) -> Tensor:
        near = ((points - marked).abs().flatten(1) <= 2.0 * attack.eps).all(dim=1, keepdim=True)
        return torch.where(near, float("nan"), network(points))

    out = attack(_counting(broken, bounds), inputs, labels)
    _holds(not bool(out.finite[4]) and not bool(out.success[4]), "NaN logits count as measured")
    _holds(bool(out.adversarial.isfinite().all()), "a point that is not finite")


def _check_empty(attack: Attack) -> None:
    network, bounds, inputs, labels = curved_problem(attack.eps)
    model = _counting(network, bounds)
    out = attack(model, inputs[:0], labels[:0])
    _check_form(out, inputs[:0])
    _holds(model.forward_rows == 0, "an empty batch asks the model")


def _counting(function: Function, bounds: Bounds) -> CountingModel:
    return CountingModel(function, access=Access.GRADIENTS, bounds=bounds, dtype=torch.float64)


def _global_states() -> tuple[object, ...]:
    state = cast("tuple[object, ...]", np.random.get_state())  # noqa: NPY002  it is the global one that is watched
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), str(state)


def _holds(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
