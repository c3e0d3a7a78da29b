"""What every attack promises, of whatever kind: one check a promise, for the conformance kits to put together.

Each raises an `AssertionError` that says which promise is broken, and how. They know an attack only as something that
is called on a model, and try it on a problem that the kit chooses.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch

from vambrace.core.access import Access
from vambrace.core.rng import Streams
from vambrace.testing.counting import CountingModel

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.access import Bounds
    from vambrace.core.goals import Goal
    from vambrace.models.contract import Model
    from vambrace.search.outcome import Attacked

__all__ = [
    "Caller",
    "Trial",
    "check_company",
    "check_empty",
    "check_form",
    "check_holes",
    "check_ledger",
    "check_not_finite",
    "check_surroundings",
    "counting",
    "holds",
]

Function = Callable[["Tensor"], "Tensor"]

_COLUMNS = ("success", "distance", "forwards", "backwards", "verifications", "queries", "first_success", "finite")


class Caller(Protocol):
    """An attack as far as these checks know it."""

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
        """Search around every input."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A problem to try an attack on.

    Attributes:
        network: inputs (n, ...) in float64 to logits (n, k).
        bounds: the model's box.
        inputs: (n, ...), at least five of them.
        labels: int64 (n,).
    """

    network: Function
    bounds: Bounds
    inputs: Tensor
    labels: Tensor

    @property
    def model(self) -> CountingModel:
        """The network, freshly counted."""
        return counting(self.network, self.bounds)


def counting(function: Function, bounds: Bounds) -> CountingModel:
    """A float64 model that gives gradients and counts."""
    return CountingModel(function, access=Access.GRADIENTS, bounds=bounds, dtype=torch.float64)


def check_form(out: Attacked, inputs: Tensor) -> None:
    """Every column has its shape and dtype, and points look like the inputs."""
    count = len(inputs)
    holds(out.adversarial.shape == inputs.shape, f"adversarial of shape {tuple(out.adversarial.shape)}")
    holds(out.adversarial.dtype == inputs.dtype, f"adversarial of dtype {out.adversarial.dtype}")
    holds(out.adversarial.device == inputs.device, f"adversarial on {out.adversarial.device}")
    holds(not out.adversarial.requires_grad, "adversarial requires a gradient")
    kinds = {"success": torch.bool, "finite": torch.bool, "distance": torch.float64, "margin": torch.float32}
    for name in (*_COLUMNS, "margin", "zero_gradients"):
        column = cast("Tensor", getattr(out, name))
        wanted = kinds.get(name, torch.int64)
        holds(column.shape == (count,) and column.dtype == wanted, f"{name} is not {wanted} of shape ({count},)")


def check_ledger(attack: Caller, trial: Trial) -> None:
    """At batch 1, 7 and 64 all rows that the model saw are accounted for, and samples add up to totals."""
    for batch in (1, 7, 64):
        model = trial.model
        out = attack(model, trial.inputs, trial.labels, batch_size=batch)
        cost, where = out.cost, f"at batch {batch}"
        forward = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
        backward = cost.backwards + cost.idle_backwards + cost.padding_backwards
        holds(
            forward == model.forward_rows,
            f"{where} {model.forward_rows} rows went forward, {forward} are accounted for",
        )
        holds(
            backward == model.backward_rows,
            f"{where} {model.backward_rows} rows went back, {backward} are accounted for",
        )
        holds(min(dataclasses.astuple(cost)) >= 0, f"{where} a negative cost: {cost}")
        for name in ("forwards", "backwards", "verifications", "queries"):
            total = int(cast("Tensor", getattr(out, name)).sum())
            holds(
                total == getattr(cost, name), f"{where} {name} of samples add up to {total}, not {getattr(cost, name)}"
            )
        holds(max(model.calls) <= max(batch, 1), f"{where} the model was asked about {max(model.calls)} rows at once")


def check_company(attack: Caller, trial: Trial) -> None:
    """Outcomes are equal called again, at any batch size, in another order and in parts."""
    inputs, labels = trial.inputs, trial.labels
    rng, ids = Streams(3).child("kit"), torch.arange(len(inputs)) * 1_000_003 + 11
    whole = attack(trial.model, inputs, labels, rng=rng, ids=ids)
    again = attack(trial.model, inputs, labels, rng=rng, ids=ids)
    _same(whole, again, torch.arange(len(inputs)), "called again")
    for batch in (1, 7, 64):
        other = attack(trial.model, inputs, labels, rng=rng, ids=ids, batch_size=batch)
        _same(whole, other, torch.arange(len(inputs)), f"at batch {batch}")
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(1))
    mixed = attack(trial.model, inputs[order], labels[order], rng=rng, ids=ids[order], batch_size=7)
    _same(whole, mixed, order, "in another order")
    for first in range(0, len(inputs), 9):
        part = torch.arange(first, min(first + 9, len(inputs)))
        alone = attack(trial.model, inputs[part], labels[part], rng=rng, ids=ids[part])
        _same(whole, alone, part, "in parts")


def check_surroundings(attack: Caller, trial: Trial) -> None:
    """Inputs, parameters and global random states are left alone; inference mode changes nothing."""
    inputs, labels = trial.inputs, trial.labels
    parameter = torch.ones(1, dtype=torch.float64, requires_grad=True)

    def trainable(points: Tensor) -> Tensor:
        return trial.network(points) * parameter

    kept, before = inputs.clone(), _global_states()
    attack(counting(trainable, trial.bounds), inputs, labels)
    holds(_global_states() == before, "a global random state is read or moved")
    holds(torch.equal(inputs, kept) and not inputs.requires_grad, "the inputs are changed")
    holds(parameter.grad is None, "a parameter has got a gradient")
    with torch.inference_mode():
        inside = attack(trial.model, inputs, labels)
    _same(attack(trial.model, inputs, labels), inside, torch.arange(len(inputs)), "in inference mode")


def check_not_finite(attack: Caller, trial: Trial, *, reach: float) -> None:
    """Logits that are not finite within `reach` of a sample, in linf, make it neither a success nor measured."""
    marked = trial.inputs[4].clone()

    def broken(points: Tensor) -> Tensor:
        near = ((points - marked).abs().flatten(1) <= reach).all(dim=1, keepdim=True)
        return torch.where(near, float("nan"), trial.network(points))

    out = attack(counting(broken, trial.bounds), trial.inputs, trial.labels)
    holds(not bool(out.finite[4]) and not bool(out.success[4]), "NaN logits count as measured")
    holds(bool(out.adversarial.isfinite().all()), "a point that is not finite")


def check_holes(attack: Caller, trial: Trial) -> None:
    """A model that gives NaN here and there stops no search: who met it is unmeasured, and every row is in the ledger.

    With small batches too, so that the questions of a sample come in several requests.
    """

    def holed(points: Tensor) -> Tensor:
        place = (points.flatten(1).sum(dim=1, keepdim=True) * 1e4).frac().abs()
        return torch.where(place < 0.02, float("nan"), trial.network(points))

    for batch in (None, 3):
        model = counting(holed, trial.bounds)
        out = attack(model, trial.inputs, trial.labels, batch_size=batch)
        cost, asked = out.cost, model.forward_rows
        told = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
        holds(told == asked, f"where some logits are NaN, {asked} rows went forward, {told} are accounted for")
        holds(not bool((out.success & ~out.finite).any()), "a sample that met NaN logits counts as broken")
        holds(bool(out.adversarial.isfinite().all()), "where some logits are NaN, a point is not finite")


def check_empty(attack: Caller, trial: Trial) -> None:
    """An empty batch gives an empty outcome, and the model is not asked."""
    model = trial.model
    out = attack(model, trial.inputs[:0], trial.labels[:0])
    check_form(out, trial.inputs[:0])
    holds(model.forward_rows == 0, "an empty batch asks the model")


def holds(condition: bool, message: str) -> None:
    """Raise an `AssertionError` with the message unless the condition is true."""
    if not condition:
        raise AssertionError(message)


def _same(whole: Attacked, other: Attacked, index: Tensor, how: str) -> None:
    for name in _COLUMNS:
        expected, found = cast("Tensor", getattr(whole, name))[index], cast("Tensor", getattr(other, name))
        equal = torch.allclose(expected, found, rtol=1e-6) if name == "distance" else torch.equal(expected, found)
        holds(equal, f"{how}, {name} is another one")
    close = torch.allclose(whole.adversarial[index], other.adversarial, rtol=0, atol=1e-6)
    holds(close, f"{how}, the adversarial points are other ones")


def _global_states() -> tuple[object, ...]:
    state = cast("tuple[object, ...]", np.random.get_state())  # noqa: NPY002  it is the global one that is watched
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), str(state)
