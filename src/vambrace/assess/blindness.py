"""Values of the input that the answers depend on and the gradient does not: a part that is detached, rounded, indexed.

Attacks that follow gradients never move such values, so a model that decides by them looks robust. A zero alone shows
nothing: behind a ReLU the slope of an honest network at a pixel may be zero on all samples. So the values whose slope
is exactly zero on every probed sample are drawn at random inside the bounds, all else kept, and the slopes are taken
again there, until those that are left are zero wherever they were tried. What moves an answer without ever having a
slope is cut off from the gradient (E439).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vambrace.assess.constancy import OTHER_CALL, gap, put
from vambrace.assess.probes import bad, warn
from vambrace.core.rng import Streams
from vambrace.errors import ModelMisbehaved
from vambrace.ops.draws import uniform

if TYPE_CHECKING:
    from vambrace.assess.probes import Probe
    from vambrace.core.findings import Flag
    from vambrace.models.contract import Model

__all__ = ["blind_flags", "margin_gradient"]

_POINTS = 64  # random points that slopes are taken at, at least
_ROUNDS = 4  # until which the values without a slope must have settled
_FAMILY = ("adversarial",)


def margin_gradient(logits: Tensor, points: Tensor) -> Tensor:
    """The slope (n, ...) of each margin between the two best classes, from logits (n, k) of points (n, ...)."""
    with torch.enable_grad():
        top = logits.topk(2, dim=1).values
        return torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), points, materialize_grads=True)[0]


def blind_flags(model: Model, probe: Probe, gradient: Tensor, *, most: float) -> list[Flag]:
    """E439, unreliable where much of the input or of the answers is concerned, else a warning.

    Args:
        model: who is asked.
        probe: its answers.
        gradient: (size, ...), `margin_gradient` at the first samples of the probe.
        most: share of the input's values without a slope, or of samples whose class changes with them, up to which
            it is a warning.
    """
    blind = (gradient == 0).all(dim=0)
    few = probe.inputs[: probe.size].repeat(-(-_POINTS // probe.size), *[1] * (gradient.dim() - 1))
    try:
        for step in range(_ROUNDS):
            if not bool(blind.any()):
                return []
            moved = torch.where(blind, _drawn(model, few, step), few)
            left = blind & (_slopes(model, moved, probe.width) == 0).all(dim=0)
            if bool((left == blind).all()):
                return _judged(put(model, few, probe.width), put(model, moved, probe.width), blind, model, most)
            blind = left
    except ModelMisbehaved:
        pass  # inside the bounds, so that units may meet it too, and say so
    return []


def _judged(before: Tensor, after: Tensor, blind: Tensor, model: Model, most: float) -> list[Flag]:
    """What the answers (n, k) say, before and after the blind values were changed."""
    if not bool(after.isfinite().all()) or gap(before, after, model.dtype) <= OTHER_CALL:
        return []
    share = float(blind.double().mean())
    flips = float((before.argmax(dim=1) != after.argmax(dim=1)).double().mean())
    text = (
        f"{int(blind.sum())} of the {blind.numel()} values of an input have no gradient and move the answers all the "
        f"same (changed at random, they change the class of {flips:.0%} of the probed samples): gradient attacks are "
        "blind to them."
    )
    return [(bad if share > most or flips > most else warn)("E439", text, _FAMILY)]


def _slopes(model: Model, points: Tensor, width: int) -> Tensor:
    parts: list[Tensor] = []
    for part in torch.split(points, width):
        asked = part.clone().requires_grad_(True)  # noqa: FBT003
        with torch.enable_grad():
            logits = model(asked.clone())
        parts.append(margin_gradient(logits, asked) if logits.requires_grad else torch.zeros_like(part))
    return torch.cat(parts)


def _drawn(model: Model, like: Tensor, step: int) -> Tensor:
    """Random values (n, ...) inside the bounds; inside the range of the samples where there are none."""
    ids = torch.arange(len(like), device=like.device)
    low, high = (like.amin(), like.amax()) if model.bounds is None else (model.bounds.low, model.bounds.high)
    drawn = uniform(
        Streams(0).child("blindness"), ids, shape=tuple(like.shape[1:]), step=step, low=low, high=high, dtype=like.dtype
    )
    return drawn if model.bounds is None else model.bounds.clip(drawn)
