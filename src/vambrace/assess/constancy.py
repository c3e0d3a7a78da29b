"""Whether a model gives the same answer to the same question: at once, and still at the end of every unit.

Preflight asks some questions twice. A model that changes later (a counter, a cache that fills, weights that move, a
clock) would pass it and be measured as several models under one name. So each process that measures units keeps the
answers to a few samples of its first unit, and asks about them again after every unit. These rows are nobody's cost:
they do not enter the ledger, they draw nothing, and a model that does not change leaves no trace in the results.

Differences are relative to the spread of the logits around their mean, because logits that share a large offset mean
the same as without it; what rounding alone explains is no difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from vambrace.core.access import Access
from vambrace.core.findings import Flag
from vambrace.errors import ModelMisbehaved

if TYPE_CHECKING:
    from vambrace.models.contract import Model

__all__ = ["Constancy", "OTHER_CALL", "SAME_CALL", "contenders", "gap", "put"]

SAME_CALL = 1e-5
"""Equal calls may differ by this share of the spread of the logits."""
OTHER_CALL = 1e-3
"""The same samples in other company, order or mode, where other kernels may round differently."""

_ROUNDING = 8.0  # units in the last place of the largest logit
_ROWS = 8


class Constancy:
    """Watches one model in one process.

    Args:
        model: who is asked.
        batch: rows that it is given at most; an eighth of them or fewer are watched, so that asking stays cheap.
    """

    def __init__(self, model: Model, *, batch: int) -> None:
        self._model = model
        self._rows = max(1, min(_ROWS, batch // 4))
        self._asked: tuple[Tensor, Tensor] | None = None

    def begin(self, inputs: Tensor) -> None:
        """Before a unit: keep the first samples (n, ...) ever seen and what the model says about them."""
        if self._asked is None and len(inputs):
            few = inputs[: self._rows].clone()
            self._asked = few, put(self._model, few, len(few))

    def end(self) -> list[Flag]:
        """After a unit: E420 when the answers to those samples are not what they were, else nothing."""
        if self._asked is None:
            return []
        few, before = self._asked
        if gap(before, put(self._model, few, len(few)), self._model.dtype) <= SAME_CALL:
            return []
        text = "Asked again about samples of its first unit, the model gave other answers: it changed during the run."
        return [Flag(code="E420", level="unreliable", text=text)]


@torch.no_grad()
def put(model: Model, rows: Tensor, width: int) -> Tensor:
    """Rows (n, ...) to what the model says, float64 (n, k), `width` rows a call; copies both ways.

    On models that give labels only, the answer is one-hot over `model.num_classes`.

    Raises:
        ModelMisbehaved: what the model raises; E402, when one that gives labels only does not say how many there are.
    """
    parts: list[Tensor] = []
    for part in torch.split(rows, width):
        handed = part.to(dtype=model.dtype, copy=True)
        if model.access >= Access.SCORES:
            parts.append(model(handed).to(torch.float64, copy=True))
        else:
            parts.append(_one_hot(model.predict(handed), model.num_classes))
    return torch.cat(parts)


def contenders(logits: Tensor) -> Tensor:
    """The columns (m,) of answers (n, k) that come first or second for some sample.

    The others decide nothing, and one that is masked with -1e9 would drown every difference between those that do.
    """
    return cast("Tensor", torch.unique(logits.topk(min(2, logits.shape[1]), dim=1).indices))


def gap(one: Tensor, other: Tensor, dtype: torch.dtype = torch.float32) -> float:
    """Largest difference of answers (n, k), relative to their spread; infinite where one side only is not finite.

    Differences and spread are those of the contenders.

    Args:
        one: float64 (n, k), which also gives the spread.
        other: the same.
        dtype: what the model computes in; its rounding is no difference.
    """
    if one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
        return float("inf")
    whole = one
    columns = cast("Tensor", torch.unique(torch.cat((contenders(one), contenders(other)))))
    one, other = one[:, columns], other[:, columns]
    held = one.isfinite()
    if not bool(held.any()):
        return 0.0
    largest = float(one[held].abs().max())
    spread = _spread(one)
    if spread <= SAME_CALL * largest:  # contenders that tie say nothing about how far apart answers are
        spread = _spread(whole)
    rounding = _ROUNDING * torch.finfo(dtype).eps * largest
    return max(0.0, float((one - other)[held].abs().max()) - rounding) / max(spread, 1e-30)


def _spread(answers: Tensor) -> float:
    """The largest distance of an answer from the mean of its row, over rows that are finite."""
    held = answers.isfinite()
    rows = answers[held.all(dim=1)]
    return (
        float((rows - rows.mean(dim=1, keepdim=True)).abs().max()) if rows.numel() else float(answers[held].abs().max())
    )


def _one_hot(guesses: Tensor, classes: int | None) -> Tensor:
    if classes is None or (len(guesses) and not 0 <= int(guesses.min()) <= int(guesses.max()) < classes):
        raise ModelMisbehaved(
            "E402",
            seen=f"classes up to {int(guesses.max())} from a model with num_classes = {classes}",
            expected="a model that says how many classes it has, and gives one of them",
            fix="state num_classes",
        )
    return torch.nn.functional.one_hot(guesses, classes).double()
