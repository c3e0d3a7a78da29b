"""Accuracy that is left when an attack may change every sample within a radius, and proof for what it breaks.

A sample counts as robust at a radius when the model is right about it unchanged and the attack found nothing there.
Samples that are wrong already are not attacked and are not robust. Radii are attacked in ascending order, each on what
the smaller ones left: a break within a smaller radius is a break within a larger one.

An attack's claims are not taken on trust. Every claimed example is asked about again in a forward of our own, from the
float32 values that evidence saves, and its distance and bounds are measured; a claim that does not hold makes the
finding unreliable (E461). What nobody can check here is an attack that finds less than it could: robust accuracy is
an upper bound, and the conformance kit (`vambrace.testing`) is what catches attacks that do nothing.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import torch

from vambrace.assess.checks.answers import Chunk, ask, enter
from vambrace.assess.checks.base import Measured
from vambrace.assess.checks.breaks import (
    beaten,
    blind,
    curve_of,
    is_broken,
    is_correct,
    is_robust,
    mismatches,
    turns_at,
    turns_of,
)
from vambrace.assess.checks.examples import allotted, as_evidence, quota, save_worst
from vambrace.assess.checks.standing import in_order, not_finite, registered_name, standing
from vambrace.assess.checks.words import radius, share
from vambrace.attacks.fixed import FixedRadius
from vambrace.core.access import Access
from vambrace.core.findings import Cost, Flag
from vambrace.core.intervals import wilson
from vambrace.core.options import Options, Ratio, require
from vambrace.core.outcomes import KEY, pack
from vambrace.core.registry import ATTACKS, load
from vambrace.ops.norms import distances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from vambrace.assess.checks.base import Context, Record, Reduction
    from vambrace.assess.checks.standing import Standing
    from vambrace.core.findings import Evidence, Finding
    from vambrace.core.options import Norm
    from vambrace.core.rng import Streams
    from vambrace.data.batches import Batch
    from vambrace.models.contract import Model
    from vambrace.search.outcome import Attacked

__all__ = ["AdversarialCheck", "Attack"]

TINY = 1e-3
"""A linf radius below this share of the range of the inputs was most likely meant for inputs of another range."""


class Attack(Protocol):
    """What the check asks of an attack: options with `norm` and `eps`, called on correctly classified samples."""

    @property
    def norm(self) -> Norm:
        """What `eps` is measured in."""
        ...

    @property
    def eps(self) -> float:
        """The radius."""
        ...

    def __call__(
        self, model: Model, inputs: Tensor, goal: Tensor, *, rng: Streams, ids: Tensor, batch_size: int
    ) -> Attacked:
        """Search within `eps` of every input for one that the model does not give the label `goal`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialCheck(Options):
    """Attack every sample that the model gets right, at each radius.

    Metrics a radius: `robust_accuracy@<eps>` over all samples, and `success@<eps>` over those that were attacked.
    Records: id, label, finite; where finite also prediction; where broken also broken (the smallest radius that did),
    changed_prediction, distance, margin; mismatch where a claim did not hold; saved (file, name) for saved examples;
    blind where nothing was found and at one radius the input gradient was exactly zero at half of the steps or more.
    The first record of a unit also holds turns: what each attack of an ensemble did at each radius.

    Attributes:
        attack: options of an attack, such as `PGD(norm="linf", eps=8/255)`; its own `eps` gives way to the radii below.
        eps: radii in the units of the inputs, distinct and positive; kept in ascending order.
    """

    attack: Options
    eps: tuple[Ratio, ...]

    kind: ClassVar[str] = "adversarial"
    version: ClassVar[int] = 1
    roles: ClassVar[tuple[str, ...]] = ("eval",)

    def __post_init__(self) -> None:
        radii = tuple(sorted(self.eps))
        require(
            bool(radii)
            and all(math.isfinite(each) and each > 0 for each in radii)
            and len({f"{each:.6g}" for each in radii}) == len(radii),
            seen=f"radii {list(self.eps)}",
            expected="one or more positive numbers in the units of the inputs, distinct in six digits",
            fix='write eps = ["2/255", "8/255"]; accuracy at radius 0 is what the clean check measures',
            code="E197",
        )
        require(
            hasattr(self.attack, "eps") and hasattr(self.attack, "norm") and callable(self.attack),
            seen=f"the attack {type(self.attack).__name__}",
            expected="an attack with a norm and a radius",
            fix="use one of those that `vambrace list` shows",
            code="E197",
        )
        # One form for one meaning: equal checks are equal values and share their units.
        object.__setattr__(self, "eps", radii)
        object.__setattr__(self, "attack", _with_radius(self.attack, radii[-1]))

    @property
    def needs(self) -> Access:
        """What the attack needs."""
        return Access(getattr(self.attack, "needs", Access.GRADIENTS))

    @property
    def joint(self) -> bool:
        """Whether the attack looks at all samples at once, so that they are one unit."""
        return bool(getattr(self.attack, "joint", False))

    @property
    def name(self) -> str:
        """The attack's registered name."""
        return registered_name(ATTACKS, self.attack)

    @property
    def norm(self) -> Norm:
        """What the radii are measured in."""
        return cast("Attack", self.attack).norm

    def as_json(self) -> dict[str, object]:
        """The options with the attack under its registered name; `from_json` is the inverse."""
        return {"attack": {"name": self.name, **self.attack.as_json()}, "eps": list(self.eps)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AdversarialCheck:
        """The check that `as_json` wrote.

        Raises:
            ConfigError: E161 for an attack that is not installed, E165 to E167 for options that it does not take.
        """
        from vambrace.core.spec import read

        options = dict(data["attack"])
        name = options.pop("name")
        attack: Options = read(load(ATTACKS, name), options, where="attack", called=f"attack {name}")
        return cls(attack=attack, eps=tuple(data["eps"]))

    def measure(self, context: Context, batch: Batch) -> Measured:
        """One forward a sample, then the attack on those that are right, radius by radius, then proof of its claims."""
        chunk = enter(context, batch)
        clean = ask(context.model, chunk.inputs, chunk.labels, batch_size=context.batch_size)
        cost = clean.cost
        found: dict[int, dict[str, Any]] = {}
        sightless: set[int] = set()
        turns: list[dict[str, Any]] = []
        answers = zip(clean.finite, clean.predictions, chunk.truths, strict=True)
        right = [place for place, (finite, guess, truth) in enumerate(answers) if finite and guess == truth]
        for eps, outcome in zip(self.eps, self._outcomes(context, chunk, right), strict=False):
            claimed = [row for row in _where(outcome.success) if right[row] not in found]
            proved, spent = self._proved(context, chunk, right, claimed, outcome, eps)
            lost = [right[row] for row in _where(~outcome.finite & ~outcome.success) if right[row] not in found]
            found |= proved | {place: {"finite": False} for place in lost}
            sightless |= {right[row] for row in _where(outcome.blind)}
            cost = cost + outcome.cost + spent
            turns += turns_of(outcome, eps)
        records: list[Record] = []
        for place, finite in enumerate(clean.finite):
            record = chunk.record(place, finite=finite)
            record |= {"prediction": clean.predictions[place]} if finite else {}
            record |= {"blind": True} if place in sightless and place not in found else {}
            records.append(record | found.get(place, {}))
        if turns:
            records[0] = {**records[0], "turns": turns}
        return Measured(records=records, cost=cost, flags=self._doubts(context))

    def reduce(self, reduction: Reduction) -> list[Finding]:
        """Robust accuracy and success at every radius over all planned samples."""
        records = in_order(reduction.records.get("eval", ()))
        flags = [
            *not_finite(records, family=self.kind),
            *mismatches(records),
            *blind(records),
            *beaten(records, self.eps),
        ]
        state = standing(reduction, family=self.kind, roles=self.roles, flags=flags)
        curve = curve_of(records, self.eps)
        return [
            finding
            for eps in self.eps
            for finding in self._at(state, records, eps, curve if eps == self.eps[-1] else {})
        ]

    def _doubts(self, context: Context) -> list[Flag]:
        """What about the radii or the steps says that a failed attack proves nothing."""
        flags: list[Flag] = []
        bounds = context.model.bounds
        if self.norm == "linf" and bounds is not None and self.eps[-1] < TINY * bounds.span:
            text = (
                f"The largest radius, {self.eps[-1]:.3g}, is under a thousandth of the inputs' range of "
                f"{bounds.span:.4g}: was it meant for inputs between 0 and 1?"
            )
            flags.append(Flag(code="E465", level="unreliable", text=text, families=(self.kind,)))
        size, steps = getattr(self.attack, "step_size", None), int(getattr(self.attack, "steps", 0))
        # Only steps within a ball are lengths in its norm.
        if isinstance(self.attack, FixedRadius) and size is not None and steps * size < self.eps[0]:
            text = f"{steps} steps of {size:.3g} do not reach the edge of the smallest radius, {radius(self.eps[0])}."
            flags.append(Flag(code="E466", level="unreliable", text=text, families=(self.kind,)))
        return flags

    def _at(self, state: Standing, records: Sequence[Record], eps: float, series: Mapping[str, Any]) -> list[Finding]:
        n, attacked = len(records), [record for record in records if is_correct(record)]
        kept, broken = (
            sum(is_robust(record, eps) for record in records),
            sum(is_broken(record, eps) for record in attacked),
        )
        part, rate = kept / n if n else 0.0, broken / len(attacked) if attacked else 0.0
        robust, success = wilson(kept, n), wilson(broken, len(attacked))
        options = {name: value for name, value in self.attack.as_json().items() if name != "eps"}
        where = {"attack": self.name, **options, "norm": self.norm, "eps": eps}
        sight = "white-box" if self.needs >= Access.GRADIENTS else "black-box"
        return [
            state.finding(
                f"robust_accuracy@{eps:.6g}",
                part,
                sentence=f"Under the {self.norm} {radius(eps)} {sight} attack {self.name} "
                f"{share(part, n, 'samples stay right', robust)}.",
                n=n,
                interval=robust,
                parameters=where,
                series={**series, **_turns(records, eps), KEY: pack([is_robust(record, eps) for record in records])},
                evidence=self._evidence(state.reduction, records, eps),
            ),
            state.finding(
                f"success@{eps:.6g}",
                rate,
                sentence=f"Within {self.norm} {radius(eps)} the attack {self.name} breaks "
                f"{share(rate, len(attacked), 'samples that were right', success)}.",
                n=len(attacked),
                interval=success,
                higher_is_better=False,
                parameters=where,
                unmeasured="" if attacked else "no sample was right before the attack",
            ),
        ]

    def _outcomes(self, context: Context, chunk: Chunk, right: Sequence[int]) -> Sequence[Attacked]:
        """The attack on the samples at places `right`, by radius; one call for all where the attack knows curves."""
        if not right:
            return ()
        places = torch.tensor(right, device=chunk.labels.device)
        given = context.model, chunk.inputs[places], chunk.labels[places]
        how: Any = {"rng": context.rng, "ids": chunk.ids[places], "batch_size": context.batch_size}
        if hasattr(self.attack, "curve"):
            return cast("Any", self.attack).curve(*given, eps=self.eps, **how).outcomes
        return [cast("Attack", _with_radius(self.attack, eps))(*given, **how) for eps in self.eps]

    def _proved(
        self,
        context: Context,
        chunk: Chunk,
        right: Sequence[int],
        claimed: Sequence[int],
        outcome: Attacked,
        eps: float,
    ) -> tuple[dict[int, dict[str, Any]], Cost]:
        """What holds of the claimed examples, by place in the chunk, the worst of them saved; and what it took."""
        if not claimed:
            return {}, Cost()
        places = [right[row] for row in claimed]
        # Evidence is saved in float32: what is asked about is what is saved.
        changed = outcome.adversarial.detach().to(chunk.inputs)[list(claimed)]
        answers = ask(context.model, changed, chunk.labels[places], batch_size=context.batch_size)
        inside = distances(changed, chunk.inputs[places], self.norm) <= eps
        if context.model.bounds is not None:
            inside &= context.model.bounds.to(changed).contains(changed)
        allowed = set(_where(inside & changed.flatten(1).isfinite().all(dim=1)))
        lengths = cast("list[float]", distances(changed, chunk.inputs[places], self.norm).tolist())
        entries: dict[int, dict[str, Any]] = {}
        for row, place in enumerate(places):
            wrong = answers.finite[row] and answers.predictions[row] != chunk.truths[place]
            entries[place] = {"mismatch": True}
            if wrong and row in allowed:
                entries[place] = {"broken": eps, "changed_prediction": answers.predictions[row]}
                entries[place] |= {"distance": lengths[row], "margin": answers.margins[row]}
        proved = {place: row for row, place in enumerate(places) if "broken" in entries[place]}
        saved = save_worst(
            context,
            chunk,
            {place: changed[row] for place, row in proved.items()},
            {place: answers.margins[row] for place, row in proved.items()},
            most=quota(context.images, len(self.eps)),
        )
        for place, entry in saved.items():
            entries[place]["saved"] = entry
        return entries, Cost(verifications=answers.cost.forwards, queries=answers.cost.queries)

    def _evidence(self, reduction: Reduction, records: Sequence[Record], eps: float) -> list[Evidence]:
        shown = [record for record in records if "saved" in record and record["broken"] == eps]
        shown.sort(key=lambda record: (-record["margin"], int(record["id"])))
        saved = [record["broken"] for record in records if "saved" in record]
        most = allotted(reduction.images, [saved.count(each) for each in self.eps])[self.eps.index(eps)]
        return [
            as_evidence(
                reduction,
                record,
                record["saved"],
                kind="adversarial",
                point=eps,
                prediction=record["changed_prediction"],
                clean_prediction=record["prediction"],
                facts={
                    "attack": self.name,
                    "norm": self.norm,
                    "eps": eps,
                    "distance": record["distance"],
                    "margin": record["margin"],
                },
            )
            for record in shown[:most]
        ]


def _with_radius(attack: Options, eps: float) -> Options:
    return cast("Options", dataclasses.replace(cast("Any", attack), eps=eps))


def _where(mask: Tensor) -> list[int]:
    return cast("list[int]", mask.nonzero().flatten().tolist())


def _turns(records: Sequence[Record], eps: float) -> dict[str, Any]:
    turns = turns_at(records, eps)
    return {"attacks": turns} if turns else {}
