"""The loss-threshold membership attack: who has a small loss was probably trained on.

The attacker sees the scores of one sample and its true label, and says "member" when the loss is below a threshold.
It is the simplest attack (Yeom, Giacomelli, Fredrikson, Jha, CSF 2018, arXiv:1709.01604, the threshold adversary)
and a lower bound on what leaks: that it finds nothing does not show that nothing leaks, since it treats easy and
hard samples alike (Carlini et al., S&P 2022, arXiv:2112.03570). What counts for privacy is how many members it finds
while hardly ever being wrong, so beside the area under the curve stands the true positive rate at small false
positive rates.

    >>> import numpy as np
    >>> scores = np.linspace(0, 1, 200)
    >>> result = measure(scores + 0.5, scores)
    >>> round(result.auc, 3), round(result.tpr[0].value, 3), result.tpr[1].needed
    (0.874, 0.6, 1000)

Members and non-members must come from the same distribution, or the attack tells the two sources apart instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from vambrace.core.access import Access, require_access
from vambrace.core.ranking import auc, delong_auc, roc_tpr, tpr_at_fpr
from vambrace.core.rng import Streams, as_streams
from vambrace.ops.losses import log_odds

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from vambrace.core.findings import Interval
    from vambrace.models.contract import Model

__all__ = [
    "MembershipResult",
    "RATES",
    "TprPoint",
    "loss_scores",
    "measure",
    "per_sample_loss",
    "per_sample_odds",
    "roc_points",
]

RATES = (0.1, 0.01, 0.001)
"""False positive rates at which the true positive rate is measured."""

_NEEDED = 10  # false positives that a rate must allow, before a threshold at that rate means anything


@dataclass(frozen=True, slots=True, kw_only=True)
class TprPoint:
    """The share of members found at one false positive rate.

    Attributes:
        fpr: at most this share of the observed non-members is taken for a member.
        value: share of members found; None where there are too few non-members.
        interval: 95 %, None with the value.
        needed: non-members needed to measure at this rate: 10 / fpr.
    """

    fpr: float
    value: float | None
    interval: Interval | None
    needed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipResult:
    """How well a score tells members from non-members.

    Attributes:
        auc: chance that a member scores higher than a non-member, ties counting one half; 0.5 is guessing.
        interval: 95 % of `auc`.
        tpr: one point a rate, in the order asked for.
        members, nonmembers: how many there were.
    """

    auc: float
    interval: Interval
    tpr: tuple[TprPoint, ...]
    members: int
    nonmembers: int


def loss_scores(model: Model, inputs: Tensor, labels: Tensor, *, batch_size: int = 256) -> Tensor:
    """The log odds of every sample's label, which order samples as minus their loss: higher means more like a member.

    Args:
        model: gives SCORES.
        inputs: (n, ...), inside the model's bounds.
        labels: int64 (n,).
        batch_size: rows of one model call.

    Returns:
        float64 (n,) on the labels' device; NaN where the model's logits are not finite.

    Raises:
        AccessError: E110, when the model gives labels only.
    """
    require_access(model, Access.SCORES, method="the loss-threshold attack")
    scores = torch.empty(len(labels), dtype=torch.float64, device=labels.device)
    with torch.no_grad():
        for start in range(0, len(labels), batch_size):
            part = slice(start, start + batch_size)
            logits = model(inputs[part])
            scores[part] = per_sample_odds(logits, labels[part].to(logits.device))
    return scores


def per_sample_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Log odds (n,) of the label in float64 from logits (n, k), k >= 2; NaN where a sample's logits are not all finite.

    The loss is log(1 + exp(-odds)) and falls as they rise, so a threshold on one is a threshold on the other. But
    losses below 1e-308 are all zero, tied, and the attack on a model with large logits weaker than it is; odds never
    are.
    """
    return torch.where(logits.isfinite().all(dim=1), log_odds(logits.double(), labels), torch.nan)


def per_sample_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy (n,) in float64 from logits (n, k), k >= 2; NaN for a sample whose logits are not all finite.

    Computed from the log odds, so that samples the model is sure of keep different losses (1e-30 and 1e-40, say)
    where a softmax would make them all zero.
    """
    return -F.logsigmoid(per_sample_odds(logits, labels))


def measure(
    members: ArrayLike, nonmembers: ArrayLike, *, rng: Streams | int = 0, rates: tuple[float, ...] = RATES
) -> MembershipResult:
    """How well scores tell members from non-members, with intervals.

    Thresholds are conservative: at rate f at most floor(f * n) of the n observed non-members score above the
    threshold, and a member must score strictly above it. So a constant score finds nobody, and ties never help.

    Args:
        members: scores (m,), higher is more like a member; infinite ones are ranked.
        nonmembers: scores (n,).
        rng: for the intervals of the true positive rates.
        rates: false positive rates, each in (0, 1).

    Raises:
        ConfigError: E106, where a side is empty or a score is NaN.
    """
    yes, no = np.asarray(members, dtype=np.float64), np.asarray(nonmembers, dtype=np.float64)
    stream = as_streams(rng)
    points: list[TprPoint] = []
    for rate in rates:
        needed = round(_NEEDED / rate)
        enough = no.size >= needed
        points.append(
            TprPoint(
                fpr=rate,
                value=roc_tpr(yes, no, rate) if enough else None,
                interval=tpr_at_fpr(yes, no, rate, rng=stream.child(f"{rate:.6g}")) if enough else None,
                needed=needed,
            )
        )
    return MembershipResult(
        auc=auc(yes, no),
        interval=delong_auc(yes, no),
        tpr=tuple(points),
        members=yes.size,
        nonmembers=no.size,
    )


def roc_points(members: ArrayLike, nonmembers: ArrayLike, *, most: int = 200) -> tuple[list[float], list[float]]:
    """The ROC curve as false and true positive rates, ascending, for a picture with logarithmic axes.

    At most `most` points, evenly spaced in the logarithm of the false positive rate from 1 / n, the smallest that n
    non-members can resolve, to 1. Between points the curve is at most one step off.
    """
    yes = np.sort(np.asarray(members, dtype=np.float64))
    no = np.sort(np.asarray(nonmembers, dtype=np.float64))[::-1]
    allowed = np.unique(np.geomspace(1, no.size, num=most).round().astype(np.int64))
    # With k allowed, the threshold is the (k + 1)-th highest non-member; with all allowed there is none.
    thresholds = np.append(no, -np.inf)[allowed]
    above = yes.size - np.searchsorted(yes, thresholds, side="right")
    above[allowed == no.size] = yes.size
    return (allowed / no.size).tolist(), (above / yes.size).tolist()
