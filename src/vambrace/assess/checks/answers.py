"""What the model says about a chunk of samples: classes, losses, margins, and whether they are numbers at all.

Every check asks through here, so that batches, types and counts are the same everywhere. Samples whose logits are
not finite have no answer: they are neither right nor robust, and the finding that they belong to is unreliable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from vambrace.core.access import Access
from vambrace.core.findings import Cost
from vambrace.core.goals import Untargeted
from vambrace.errors import DataRefused
from vambrace.models.expectation import calls_a_row
from vambrace.privacy.membership.threshold import per_sample_loss, per_sample_odds

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.assess.checks.base import Context
    from vambrace.data.batches import Batch
    from vambrace.models.contract import Model

__all__ = ["Answers", "Chunk", "ask", "enter"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Chunk:
    """The samples of a unit, ready for the model.

    Attributes:
        inputs: float32 (n, ...) on the model's device, inside its bounds: what evidence saves, bit for bit.
        labels: int64 (n,), on the same device.
        ids: int64 (n,), on the same device.
        batch: the samples as they came.
        numbers: the ids as integers.
        truths: the labels as integers.
    """

    inputs: Tensor
    labels: Tensor
    ids: Tensor
    batch: Batch
    numbers: list[int]
    truths: list[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def record(self, place: int, *, finite: bool) -> dict[str, Any]:
        """What every record of a sample begins with."""
        return {"id": str(self.numbers[place]), "label": self.truths[place], "finite": finite}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The model's answers to n samples.

    Attributes:
        finite: whether all logits of the sample are; the rest means nothing where they are not.
        predictions: the class of the largest logit.
        margins: the best other logit minus that of the label, > 0 where the model is wrong; 1 and -1 on models that
            give labels only.
        losses: cross entropy in nats; empty on models that give labels only.
        odds: log odds of the label, which order samples as minus the loss and never tie by rounding; empty likewise.
        cost: what it took.
    """

    finite: list[bool]
    predictions: list[int]
    margins: list[float]
    losses: list[float]
    odds: list[float]
    cost: Cost


def enter(context: Context, batch: Batch) -> Chunk:
    """The samples of a unit in the form that every check works on.

    Raises:
        DataRefused: E351, for values outside the model's bounds by more than rounding, or NaN.
    """
    model = context.model
    inputs = batch.inputs.to(device=model.device, dtype=torch.float32)
    bounds = None if model.bounds is None else model.bounds.to(inputs)
    if bounds is not None and len(inputs):
        outside = ~bounds.contains(inputs, tolerance=1e-6 * bounds.span)
        if bool(outside.any()):
            first = int(outside.nonzero()[0])
            worst = inputs[first]
            raise DataRefused(
                "E351",
                seen=f"{batch.names[first]} spans [{float(worst.min()):.6g}, {float(worst.max()):.6g}]",
                expected="finite values inside the model's bounds",
                fix="state the bounds the data really has, or repair this sample",
            )
        inputs = bounds.clip(inputs)
    return Chunk(
        inputs=inputs,
        labels=batch.labels.to(model.device),
        ids=batch.ids.to(model.device),
        batch=batch,
        numbers=cast("list[int]", batch.ids.tolist()),
        truths=cast("list[int]", batch.labels.tolist()),
    )


def ask(model: Model, inputs: Tensor, labels: Tensor, *, batch_size: int) -> Answers:
    """Inputs (n, ...) and labels (n,) on the model's device to the model's answers, `batch_size` rows at a time."""
    n = len(labels)
    spent = n * calls_a_row(model)
    scored = model.access >= Access.SCORES
    finite, predictions = torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.int64)
    margins, odds = torch.zeros(n), torch.zeros(n if scored else 0, dtype=torch.float64)
    losses = torch.zeros_like(odds)
    with torch.no_grad():
        for start in range(0, n, batch_size):
            part = slice(start, start + batch_size)
            # A copy: a model that writes into what it is given must not change the samples of the next question.
            rows, truths = inputs[part].to(dtype=model.dtype, copy=True), labels[part]
            if not scored:
                predictions[part] = model.predict(rows).cpu()
                margins[part] = torch.where(predictions[part] != truths.cpu(), 1.0, -1.0)
                continue
            logits = model(rows)
            truths = truths.to(logits.device)
            finite[part] = logits.isfinite().all(dim=1).cpu()
            predictions[part] = logits.argmax(dim=1).cpu()
            margins[part] = Untargeted(truths).margin(logits).float().cpu()
            odds[part] = per_sample_odds(logits, truths).cpu()
            losses[part] = per_sample_loss(logits, truths).cpu()
    return Answers(
        finite=cast("list[bool]", finite.tolist()),
        predictions=cast("list[int]", predictions.tolist()),
        margins=cast("list[float]", margins.tolist()),
        losses=cast("list[float]", losses.tolist()),
        odds=cast("list[float]", odds.tolist()),
        cost=Cost(forwards=spent, queries=spent if model.access < Access.GRADIENTS else 0),
    )
