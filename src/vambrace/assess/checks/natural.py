"""Accuracy under one natural perturbation, severity by severity, and what each costs against the same samples clean.

The clean answer is asked for again here: one forward more a sample makes every difference a paired one, whatever
other checks ran and on how many samples, and lets a unit know which samples flip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from vambrace.assess.checks.answers import Answers, Chunk, ask, enter
from vambrace.assess.checks.base import Measured
from vambrace.assess.checks.examples import allotted, as_evidence, quota, save_worst
from vambrace.assess.checks.standing import in_order, not_finite, registered_name, standing
from vambrace.assess.checks.words import between, listed, number, share
from vambrace.core.access import Access
from vambrace.core.findings import Interval
from vambrace.core.intervals import bonett_price, wilson, wilson_clustered
from vambrace.core.options import Options, require
from vambrace.core.outcomes import KEY, pack
from vambrace.core.registry import PERTURBATIONS, load
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from vambrace.assess.checks.base import Context, Record, Reduction
    from vambrace.assess.checks.standing import Standing
    from vambrace.core.findings import Evidence, Finding
    from vambrace.data.batches import Batch
    from vambrace.perturb.frame import Perturbation

__all__ = ["NaturalCheck"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NaturalCheck(Options):
    """Perturb every sample at every severity and ask the model.

    Metrics: `accuracy@<severity>`, `drop@<severity>` (points of accuracy lost, paired) and `mean_accuracy` over all.
    Records: id, label, finite, clean (the prediction), predictions (one a severity; null where not finite), and where
    examples were saved `saved`: severity to file, name and margin.

    Attributes:
        perturbation: options of a perturbation, such as `Rotate()`.
        severities: distinct whole numbers from 1 to 5, rising.
    """

    perturbation: Options
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)

    kind: ClassVar[str] = "natural"
    version: ClassVar[int] = 1
    roles: ClassVar[tuple[str, ...]] = ("eval",)

    def __post_init__(self) -> None:
        good = all(not isinstance(each, bool) and 1 <= each <= 5 for each in self.severities)
        require(
            bool(self.severities) and good and list(self.severities) == sorted(set(self.severities)),
            seen=f"severities {list(self.severities)}",
            expected="distinct whole numbers from 1 to 5, rising",
            fix="write severities = [1, 2, 3, 4, 5] or leave some out",
            code="E198",
        )

    @property
    def needs(self) -> Access:
        """Labels are enough."""
        return Access.LABELS

    @property
    def name(self) -> str:
        """The perturbation's registered name."""
        return registered_name(PERTURBATIONS, self.perturbation)

    @property
    def words(self) -> str:
        """The perturbation in a sentence."""
        return str(getattr(self.perturbation, "words", self.name.replace("_", " ")))

    def as_json(self) -> dict[str, object]:
        """The options with the perturbation under its registered name; `from_json` is the inverse."""
        return {
            "perturbation": {"name": self.name, **self.perturbation.as_json()},
            "severities": list(self.severities),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NaturalCheck:
        """The check that `as_json` wrote.

        Raises:
            ConfigError: E161 for a perturbation that is not installed, E165 to E167 for options that it does not take.
        """
        from vambrace.core.spec import read

        options = dict(data["perturbation"])
        name = options.pop("name")
        kind = load(PERTURBATIONS, name)
        perturbation: Options = read(kind, options, where="perturbation", called=f"perturbation {name}")
        return cls(perturbation=perturbation, severities=tuple(data["severities"]))

    def measure(self, context: Context, batch: Batch) -> Measured:
        """One forward a sample for the clean answer and one for each severity.

        Raises:
            ConfigError: E199, for a model without bounds; E190 to E196, where the perturbation does not fit the inputs.
        """
        chunk = enter(context, batch)
        clean = ask(context.model, chunk.inputs, chunk.labels, batch_size=context.batch_size)
        cost, finite, columns = clean.cost, clean.finite, list[list[int | None]]()
        saved: list[dict[str, Any]] = [{} for _ in range(len(chunk))]
        for severity in self.severities:
            changed = self._changed(context, chunk, severity)
            answers = ask(context.model, changed, chunk.labels, batch_size=context.batch_size)
            cost, finite = cost + answers.cost, [a and b for a, b in zip(finite, answers.finite, strict=True)]
            columns.append(_known(answers))
            most = quota(context.images, len(self.severities))
            flips = {place: changed[place] for place in _flips(chunk, clean, answers)}
            margins = dict(enumerate(answers.margins))
            for place, entry in save_worst(context, chunk, flips, margins, most=most).items():
                saved[place][str(severity)] = {**entry, "margin": answers.margins[place]}
        records: list[Record] = []
        for place, own in enumerate(_known(clean)):
            record = chunk.record(place, finite=finite[place])
            record |= {"clean": own, "predictions": [column[place] for column in columns]}
            records.append(record | ({"saved": saved[place]} if saved[place] else {}))
        return Measured(records=records, cost=cost)

    def reduce(self, reduction: Reduction) -> list[Finding]:
        """Accuracy, paired drop and mean accuracy over all planned samples."""
        records = in_order(reduction.records.get("eval", ()))
        state = standing(reduction, family=self.kind, roles=self.roles, flags=not_finite(records, family=self.kind))
        before = [record["clean"] == record["label"] for record in records]
        after = [[guess == record["label"] for guess in record["predictions"]] for record in records]
        findings: list[Finding] = []
        for place, severity in enumerate(self.severities):
            right = [row[place] for row in after]
            findings += self._at(state, records, severity, before, right)
        shares = [sum(row) / len(row) for row in after]
        mean = sum(map(sum, after)) / (len(after) * len(self.severities)) if after else 0.0
        interval = wilson_clustered(shares, len(self.severities)) if shares else None
        findings.append(
            state.finding(
                "mean_accuracy",
                mean,
                sentence=f"Over {'severities' if len(self.severities) > 1 else 'severity'} {listed(self.severities)} "
                f"of {self.words} the model is right on "
                f"{share(mean, len(records), 'samples', interval)}.",
                n=len(records),
                interval=interval,
                parameters={"perturbation": self.name, **self.perturbation.as_json()},
            )
        )
        return findings

    def _at(
        self, state: Standing, records: Sequence[Record], severity: int, before: list[bool], right: list[bool]
    ) -> list[Finding]:
        n = len(records)
        part = sum(right) / n if n else 0.0
        interval = wilson(sum(right), n)
        where = {"perturbation": self.name, "severity": severity, **self.perturbation.as_json()}
        lost = sum(was and not still for was, still in zip(before, right, strict=True))
        won = sum(still and not was for was, still in zip(before, right, strict=True))
        drop = 100 * (lost - won) / n if n else 0.0
        paired = bonett_price(lost, won, n)
        points = paired and Interval(low=100 * paired.low, high=100 * paired.high, method=paired.method)
        return [
            state.finding(
                f"accuracy@{severity}",
                part,
                sentence=f"Under {self.words} at severity {severity} the model is right on "
                f"{share(part, n, 'samples', interval)}.",
                n=n,
                interval=interval,
                parameters=where,
                series={KEY: pack(right)},
                evidence=self._evidence(state.reduction, records, severity),
            ),
            state.finding(
                f"drop@{severity}",
                drop,
                sentence=f"{self.words[0].upper()}{self.words[1:]} at severity {severity} {_effect(drop, points)}.",
                n=n,
                unit="points",
                interval=points,
                higher_is_better=False,
                parameters=where,
            ),
        ]

    def _changed(self, context: Context, chunk: Chunk, severity: int) -> Tensor:
        bounds = context.model.bounds
        if bounds is None:
            raise ConfigError(
                "E199",
                seen="a model without bounds",
                expected="the box of valid inputs, which natural perturbations are scaled to",
                fix="state it with --bounds LOW,HIGH, or leave natural checks out",
            )
        perturb = cast("Perturbation", self.perturbation)
        parts = [
            perturb(
                chunk.inputs[start : start + context.batch_size],
                severity=severity,
                rng=context.rng,
                ids=chunk.ids[start : start + context.batch_size],
                bounds=bounds,
            )
            for start in range(0, len(chunk.labels), context.batch_size)
        ]
        return torch.cat(parts) if parts else chunk.inputs

    def _evidence(self, reduction: Reduction, records: Sequence[Record], severity: int) -> list[Evidence]:
        key, place = str(severity), self.severities.index(severity)
        shown = [record for record in records if key in record.get("saved", {})]
        shown.sort(key=lambda record: (-record["saved"][key]["margin"], int(record["id"])))
        saved = [each for record in records for each in record.get("saved", {})]
        most = allotted(reduction.images, [saved.count(str(each)) for each in self.severities])[place]
        return [
            as_evidence(
                reduction,
                record,
                record["saved"][key],
                kind="perturbed",
                point=severity,
                prediction=record["predictions"][place],
                clean_prediction=record["clean"],
                facts={
                    "perturbation": self.name,
                    "severity": severity,
                    "margin": record["saved"][key]["margin"],
                },
            )
            for record in shown[:most]
        ]


def _known(answers: Answers) -> list[int | None]:
    """Predictions, None where the logits are not finite."""
    pairs = zip(answers.predictions, answers.finite, strict=True)
    return [guess if finite else None for guess, finite in pairs]


def _flips(chunk: Chunk, clean: Answers, answers: Answers) -> list[int]:
    """Places of the samples that the model was right about and no longer is."""
    before, after = _known(clean), _known(answers)
    return [
        place
        for place, truth in enumerate(chunk.truths)
        if before[place] == truth and after[place] is not None and after[place] != truth
    ]


def _effect(drop: float, points: Interval | None) -> str:
    """What happens to accuracy on the same samples, in words; brackets have the sign of the verb."""
    if drop < 0:
        gain = points and Interval(low=-points.high, high=-points.low, method=points.method)
        return f"raises accuracy on the same samples by {number(-drop)} points{between(gain)}"
    return f"lowers accuracy on the same samples by {number(drop)} points{between(points)}"
