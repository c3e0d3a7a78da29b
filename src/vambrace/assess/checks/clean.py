"""Accuracy and loss on unchanged samples: the number that every other one is read against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assess.checks.answers import ask, enter
from vambrace.assess.checks.base import Measured
from vambrace.assess.checks.standing import in_order, not_finite, standing
from vambrace.assess.checks.words import between, number, share
from vambrace.core.access import Access
from vambrace.core.intervals import bootstrap, wilson
from vambrace.core.options import Options
from vambrace.core.outcomes import KEY, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.assess.checks.base import Context, Record, Reduction
    from vambrace.core.findings import Finding, Flag
    from vambrace.data.batches import Batch

__all__ = ["CleanCheck"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanCheck(Options):
    """Ask the model about every sample once.

    Metrics: `accuracy`, with a series by class, and `loss` (mean cross entropy in nats, on models that give scores).
    Records: id, label, finite; where finite also prediction, correct and, with scores, loss.
    """

    kind: ClassVar[str] = "clean"
    version: ClassVar[int] = 1
    roles: ClassVar[tuple[str, ...]] = ("eval",)

    @property
    def needs(self) -> Access:
        """Labels are enough; without scores there is no loss."""
        return Access.LABELS

    def measure(self, context: Context, batch: Batch) -> Measured:
        """One forward a sample."""
        chunk = enter(context, batch)
        answers = ask(context.model, chunk.inputs, chunk.labels, batch_size=context.batch_size)
        records: list[Record] = []
        for place, finite in enumerate(answers.finite):
            record = chunk.record(place, finite=finite)
            if finite:
                prediction = answers.predictions[place]
                record |= {"prediction": prediction, "correct": prediction == chunk.truths[place]}
                record |= {"loss": answers.losses[place]} if answers.losses else {}
            records.append(record)
        return Measured(records=records, cost=answers.cost)

    def reduce(self, reduction: Reduction) -> list[Finding]:
        """Accuracy and loss over all planned samples."""
        records = in_order(reduction.records.get("eval", ()))
        state = standing(reduction, family=self.kind, roles=self.roles, flags=not_finite(records, family=self.kind))
        n = len(records)
        right = sum(bool(record.get("correct")) for record in records)
        part = right / n if n else 0.0
        interval = wilson(right, n)
        accuracy = state.finding(
            "accuracy",
            part,
            sentence=f"The model is right on {share(part, n, 'samples', interval)}.",
            n=n,
            interval=interval,
            parameters={},
            series=_by_class(records) | {KEY: pack([bool(record.get("correct")) for record in records])},
        )
        losses = [record["loss"] for record in records if "loss" in record]
        if records and state.complete and not losses and all(record["finite"] for record in records):
            return [accuracy]  # the model gives labels only
        mean = math.fsum(losses) / len(losses) if losses else None
        spread = bootstrap(np.array(losses), lambda rows: rows.mean(axis=1), rng=reduction.rng.child("loss"))
        loss = state.finding(
            "loss",
            mean,
            sentence=f"The mean loss is {number(mean or 0.0)} nats{between(spread)}.",
            n=len(losses),
            unit="nats",
            interval=spread,
            higher_is_better=False,
            parameters={},
            unmeasured=_no_loss(losses, reduction.flags),
        )
        return [accuracy, loss]


def _no_loss(losses: Sequence[float], flags: Sequence[Flag]) -> str:
    """Why the mean loss would mean nothing; "" where it means something."""
    if any(flag.code == "E430" for flag in flags):
        return "what the model calls logits look like probabilities, and their cross entropy is no loss"
    return "" if losses else "no sample has finite logits"


def _by_class(records: Sequence[Record]) -> dict[str, Any]:
    """Accuracy of each class that has samples, in label order."""
    classes = sorted({record["label"] for record in records})
    found: dict[str, list[Any]] = {"class": classes, "accuracy": [], "n": [], "low": [], "high": []}
    for label in classes:
        own = [bool(record.get("correct")) for record in records if record["label"] == label]
        interval = wilson(sum(own), len(own))
        found["accuracy"].append(sum(own) / len(own))
        found["n"].append(len(own))
        found["low"].append(interval.low if interval else None)
        found["high"].append(interval.high if interval else None)
    return found
