"""How much work a check is, and how many samples make a unit of it.

A run can stop between units only, so a unit must not take long. How long it takes may not be asked of a clock: the
chunk is part of the plan, and equal plans must be cut in the same way on a busy and on an idle machine. So work is
counted, in operations: what a row costs the model (`row_operations`) times the rows that a sample may need at most.

    >>> from vambrace.assess.checks.clean import CleanCheck
    >>> rows = rows_a_sample(CleanCheck(), classes=10)
    >>> rows, chunk_for(rows, operations=5e6, batch=256, device="cpu")
    (1.0, 1024)
    >>> chunk_for(189.0, operations=5e6, batch=256, device="cpu")
    128
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode

from vambrace.core.access import Access

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.assess.checks.base import Check
    from vambrace.models.contract import Model

__all__ = ["CHUNK_BATCHES", "chunk_for", "row_operations", "rows_a_sample"]

CHUNK_BATCHES = 4
"""Physical batches in a unit of a cheap check: enough for a search to refill freed slots. No unit has more."""

_BACKWARD = 2  # forwards that one backward costs
_UNIT = {"cpu": 2.4e11, "cuda": 2.4e13}  # operations in a unit: some ten seconds on two cores, or on one accelerator
_CALL = 1.6e8  # operations that a call should hold, so that its own cost does not matter
_FEWEST = 8  # rows a call that even the dearest model gets
_LEAST = 5e6  # operations that a row costs in any case, with all that is done around the model
_UNSEEN = 1e4  # operations for each input value, where the model's own cannot be counted


def rows_a_sample(check: Check, *, classes: int) -> float:
    """How many forwards, or what costs as much, a sample needs at most.

    Args:
        check: of the plan.
        classes: width of the logits.
    """
    attack = getattr(check, "attack", None)
    if attack is None:
        return 1.0 + len(getattr(check, "severities", ()))
    return 1.0 + len(getattr(check, "eps", (0,))) * _rows(attack, classes)


def chunk_for(rows: float, *, operations: float, batch: int, device: str) -> int:
    """Samples in a unit: a power of two times eight, or as many as four physical batches hold.

    Args:
        rows: see `rows_a_sample`.
        operations: see `row_operations`.
        batch: the physical batch, which a unit exceeds four times at most.
        device: of the model; on an accelerator a unit is never less than a physical batch.
    """
    most = CHUNK_BATCHES * batch
    kind = "cpu" if device.startswith("cpu") else "cuda"
    fit = _UNIT[kind] / (rows * operations)
    least = batch if kind == "cuda" else min(batch, max(_FEWEST, math.ceil(_CALL / operations)))
    if fit >= most:
        return most
    return min(most, max(least, 1 << max(0, math.floor(math.log2(max(fit, 1.0))))))


@torch.no_grad()
def row_operations(model: Model, inputs: Tensor) -> float:
    """What a forward of one row costs, in floating-point operations; counted on the first of `inputs` (n, ...).

    A rule by the size of the input stands in where the model runs outside of PyTorch, or hides what it does.
    """
    counted = FlopCounterMode(display=False)
    with counted:
        row = inputs[:1].to(dtype=model.dtype, copy=True)
        _ = model(row) if model.access >= Access.SCORES else model.predict(row)
    found = float(counted.get_total_flops())
    return max(found or _UNSEEN * inputs[:1].numel(), _LEAST)


def _rows(attack: object, classes: int) -> float:
    """Forwards, or what costs as much, that an attack may need for one sample at one radius; from its options alone."""
    stages = getattr(attack, "stages", None)
    if callable(stages):
        return sum(_rows(each, classes) for _, each in cast("Any", stages(classes)))
    # What an attack may spend beside its budget, where gradients are masked, is left out: units would get too small for
    # a search that moves its budget between the samples of one.
    gradients = getattr(attack, "needs", Access.GRADIENTS) >= Access.GRADIENTS
    each = 1 + _BACKWARD if gradients else 1
    for name in ("queries", "budget"):
        if _count(attack, name):
            return each * _count(attack, name)
    tries = max(1, _count(attack, "restarts")) * max(1, _count(attack, "targets"))
    views = max(1, _count(attack, "scales")) * (1 + _count(attack, "neighbours"))
    return each * (max(1, _count(attack, "steps")) + 1) * tries * views


def _count(attack: object, name: str) -> int:
    value = getattr(attack, name, None)
    return value if type(value) is int else 0
