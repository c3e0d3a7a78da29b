"""What preflight asks about input gradients: whether there are any, and whether they belong to the answers.

code   level        what it says
E405   unreliable   gradients promised, none given (detached graph, or an exception)
E423   unreliable   the model answers otherwise when gradients are recorded
E433   unreliable   input gradients that are exactly zero
E434   unreliable   input gradients that are NaN or infinite
E435   unreliable   a step along the gradient does not move the answer as the gradient says
E439   both         values of the input that move the answers and have no gradient (`assess.blindness`)

White-box attacks follow these gradients and judge by these answers. Where they are wrong, the attacks find nothing, and
a model that nobody could attack would be called robust (Athalye, Carlini, Wagner, ICML 2018, arXiv:1802.00420).

E435 takes a step forth and back along each sample's gradient of the margin between its two best classes, of two
lengths: one that should move the margin by a hundredth of the spread of the logits, and one of a twentieth of the span
of the inputs, at which a rounding with a straight-through gradient answers too. A gradient that belongs to the answers
is right about the direction nearly always; one that does not, half of the time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vambrace.assess.blindness import blind_flags, margin_gradient
from vambrace.assess.constancy import OTHER_CALL, contenders, gap, put
from vambrace.assess.probes import Probe, bad
from vambrace.core.intervals import wilson
from vambrace.errors import ModelMisbehaved
from vambrace.ops.norms import lengths

if TYPE_CHECKING:
    from vambrace.core.findings import Flag
    from vambrace.models.contract import Model

__all__ = ["gradient_flags"]

ZERO = 0.1
"""Share of samples without a gradient that is flagged when exceeded; for E439 of values, and of classes that change."""
AGREE = 0.9
"""Share of samples whose gradient points the right way that a model must be able to have."""

_FAMILY = ("adversarial",)
_SMALL, _LARGE = 0.01, 0.05


def gradient_flags(model: Model, probe: Probe) -> tuple[list[Flag], float | None]:
    """Flags about input gradients, and the seconds of one forward and backward row; None where there are none.

    Raises:
        ModelMisbehaved: for answers of an unusable form.
    """
    few = probe.inputs[: probe.size]
    began = time.perf_counter()
    gradients: list[Tensor] = []
    answers: list[Tensor] = []
    for part in torch.split(few, probe.width):
        points = part.clone().requires_grad_(True)  # noqa: FBT003
        try:
            with torch.enable_grad():
                logits = model(points.clone())
        except ModelMisbehaved as error:
            if error.code != "E406":
                raise
            return [bad("E405", f"with gradients recorded, the model raises: {error.seen}.", _FAMILY)], None
        if not logits.requires_grad:
            text = "the logits do not depend on the input for autograd (detach(), no_grad() or NumPy inside forward())."
            return [bad("E405", text, _FAMILY)], None
        answers.append(logits.detach().to(torch.float64, copy=True))
        gradients.append(margin_gradient(logits, points))
    seconds = (time.perf_counter() - began) / len(few)
    gradient = torch.cat(gradients)
    flags: list[Flag] = []
    moved = gap(probe.first, torch.cat(answers), model.dtype)
    if moved > OTHER_CALL:
        text = f"with gradients recorded, the same samples get logits that differ by {moved:.2g} of their spread."
        flags.append(bad("E423", text, _FAMILY))
    rows = gradient.flatten(1)
    if bool((~rows.isfinite()).any()):
        flags.append(bad("E434", "input gradients are NaN or infinite.", _FAMILY))
    dead = float((rows == 0).all(dim=1).double().mean())
    if dead > ZERO:
        text = f"{dead:.0%} of the probed samples have an input gradient of exactly zero: gradient attacks are blind."
        flags.append(bad("E433", text, _FAMILY))
    if not flags:
        flags += _direction_flags(model, probe, gradient)
    if not flags:
        flags += blind_flags(model, probe, gradient, most=ZERO)
    return flags, seconds


def _direction_flags(model: Model, probe: Probe, gradient: Tensor) -> list[Flag]:
    few = probe.inputs[: probe.size]
    rivals = probe.first[:, contenders(probe.first)]
    spread = rivals.amax(dim=1) - rivals.amin(dim=1)
    rows = gradient.flatten(1).double()
    steep = lengths(rows, "l2").clamp(min=1e-300)
    unit = rows / steep[:, None]
    reach = 1.0 if model.bounds is None else model.bounds.span
    large = torch.full_like(steep, _LARGE * reach * rows.shape[1] ** 0.5)
    agreed = 1.0
    for step in ((_SMALL * spread / steep).minimum(large), large):
        try:
            right, counted = _agreement(model, probe, unit * step[:, None], few)
        except ModelMisbehaved:
            return []  # inside the bounds, so that units will meet it too, and say so
        interval = wilson(right, counted)
        if interval is None or interval.high >= AGREE:
            return []
        agreed = min(agreed, right / counted)
    text = (
        f"a step along its own gradient moves the margin the right way for only {agreed:.0%} of the probed samples: "
        "the gradients do not belong to the answers."
    )
    return [bad("E435", text, _FAMILY)]


def _agreement(model: Model, probe: Probe, step: Tensor, few: Tensor) -> tuple[int, int]:
    """How many samples' margins are larger at +step than at -step, of how many that can tell."""
    ends: list[Tensor] = []
    places: list[Tensor] = []
    for sign in (1.0, -1.0):
        moved = few + (sign * step).reshape(few.shape).to(few.dtype)
        moved = moved if model.bounds is None else model.bounds.clip(moved)
        top = probe.first.topk(2, dim=1).indices
        held = put(model, moved, probe.width).gather(1, top)
        ends.append(held[:, 0] - held[:, 1])
        places.append(moved.flatten(1))
    change = ends[0] - ends[1]
    told = change.isfinite() & (places[0] != places[1]).any(dim=1)
    return int((change[told] > 0).sum()), int(told.sum())
