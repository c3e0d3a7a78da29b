"""How well an attacker tells the training data from other data by the model's loss."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vambrace.assess.checks.answers import ask, enter
from vambrace.assess.checks.base import Measured
from vambrace.assess.checks.standing import in_order, not_finite, standing
from vambrace.assess.checks.words import between, number, share
from vambrace.core.access import Access
from vambrace.core.findings import Flag
from vambrace.core.options import Options
from vambrace.privacy.membership.threshold import RATES, MembershipResult, measure, roc_points

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vambrace.assess.checks.base import Context, Record, Reduction
    from vambrace.assess.checks.standing import Standing
    from vambrace.core.findings import Finding
    from vambrace.data.batches import Batch

__all__ = ["MembershipCheck"]

_MEMBERS, _NONMEMBERS = "members", "nonmembers"


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipCheck(Options):
    """Ask the model about every member and non-member once and compare their losses.

    Metrics: `auc`, and `tpr@0.1`, `tpr@0.01`, `tpr@0.001`: the share of members found at that false positive rate.
    Records: id, label, finite, hash (the first 16 digits of the sample's own), and where finite the log odds of the
    label, which order samples as minus the loss does, without the ties that rounding makes of small losses.
    """

    kind: ClassVar[str] = "membership"
    version: ClassVar[int] = 1
    roles: ClassVar[tuple[str, ...]] = (_MEMBERS, _NONMEMBERS)

    @property
    def needs(self) -> Access:
        """Scores: the loss is computed from them."""
        return Access.SCORES

    def measure(self, context: Context, batch: Batch) -> Measured:
        """One forward a sample."""
        chunk = enter(context, batch)
        answers = ask(context.model, chunk.inputs, chunk.labels, batch_size=context.batch_size)
        records: list[Record] = []
        for place, finite in enumerate(answers.finite):
            record = chunk.record(place, finite=finite) | {"hash": batch.hashes[place][:16]}
            records.append(record | ({"odds": answers.odds[place]} if finite else {}))
        return Measured(records=records, cost=answers.cost)

    def reduce(self, reduction: Reduction) -> list[Finding]:
        """AUC and true positive rates over all planned members and non-members."""
        members = in_order(reduction.records.get(_MEMBERS, ()))
        others = in_order(reduction.records.get(_NONMEMBERS, ()))
        flags = [
            *not_finite([*members, *others], family=self.kind),
            *_shared(members, others),
            *_mixes(members, others),
        ]
        state = standing(reduction, family=self.kind, roles=self.roles, flags=flags)
        yes, no = [[record["odds"] for record in side if record["finite"]] for side in (members, others)]
        parameters = {"members": len(members), "nonmembers": len(others), "score": "minus the loss"}
        if not (state.complete and yes and no):
            reason = "no sample of one side has finite logits"
            return [_nothing(state, metric, parameters, reason) for metric in ("auc", *map(_tpr_name, RATES))]
        result = measure(yes, no, rng=reduction.rng.child("membership"))
        fpr, tpr = roc_points(yes, no)
        auc = state.finding(
            "auc",
            result.auc,
            sentence=f"Telling members from non-members by their loss succeeds with AUC {result.auc:.2f}"
            f"{between(result.interval)}; guessing has 0.5.",
            n=result.members + result.nonmembers,
            unit="auc",
            interval=result.interval,
            higher_is_better=False,
            parameters=parameters,
            series={"fpr": fpr, "tpr": tpr},
        )
        return [auc, *_rates(state, result, parameters)]


def _rates(state: Standing, result: MembershipResult, parameters: Mapping[str, Any]) -> list[Finding]:
    findings: list[Finding] = []
    for point in result.tpr:
        wrong = number(100 * point.fpr)
        found = share(point.value or 0.0, result.members, "members", point.interval)
        findings.append(
            state.finding(
                _tpr_name(point.fpr),
                point.value,
                sentence=f"When at most {wrong} of 100 non-members are taken for members, the attack finds "
                f"{found}; guessing finds {wrong} of 100.",
                n=result.members + result.nonmembers,
                interval=point.interval,
                higher_is_better=False,
                parameters={**parameters, "fpr": point.fpr},
                unmeasured=""
                if point.value is not None
                else f"this rate needs at least {point.needed:,} non-members, and there are {result.nonmembers:,}",
            )
        )
    return findings


def _nothing(state: Standing, metric: str, parameters: Mapping[str, Any], reason: str) -> Finding:
    return state.finding(
        metric,
        None,
        sentence="",
        n=parameters["members"] + parameters["nonmembers"],
        unit="auc" if metric == "auc" else "share",
        higher_is_better=False,
        parameters={**parameters, **({} if metric == "auc" else {"fpr": float(metric.partition("@")[2])})},
        unmeasured=reason,
    )


def _tpr_name(rate: float) -> str:
    return f"tpr@{rate:.6g}"


def _shared(members: Sequence[Record], others: Sequence[Record]) -> list[Flag]:
    """E462 where samples are on both sides: they pull every number towards guessing."""
    both = len({record["hash"] for record in members} & {record["hash"] for record in others})
    if not both:
        return []
    text = (
        f"{both:,} samples are among the members and among the non-members: the two sets are not what they are called."
    )
    return [Flag(code="E462", level="unreliable", text=text, families=("membership",))]


def _mixes(members: Sequence[Record], others: Sequence[Record]) -> list[Flag]:
    """E463 where the classes are mixed differently: the attack may tell classes apart rather than members."""
    if not members or not others:
        return []
    one, two = Counter(record["label"] for record in members), Counter(record["label"] for record in others)
    apart = 0.5 * sum(abs(one[label] / len(members) - two[label] / len(others)) for label in {*one, *two})
    # What two samples of one distribution differ by on average: half of sum |p - q| with binomial noise in both.
    chance = 0.4 * sum(
        ((one[label] + two[label]) / (len(members) + len(others)) * (1 / len(members) + 1 / len(others))) ** 0.5
        for label in {*one, *two}
    )
    if apart <= max(0.1, 2 * chance):
        return []
    text = (
        f"Members and non-members differ in their mix of classes by {100 * apart:.0f} of 100 samples: "
        "part of what is measured may be the classes, not membership."
    )
    return [Flag(code="E463", level="warn", text=text, families=("membership",))]
