"""The membership check: roles, counts, and sets that are not what they are called."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vambrace.assess.checks.clean import CleanCheck
from vambrace.assess.checks.membership import MembershipCheck
from vambrace.core import canonical
from vambrace.core.access import Access
from vambrace.core.findings import Status
from vambrace.core.goals import Untargeted
from vambrace.models import from_torch
from vambrace.privacy.membership import measure

CHECK = MembershipCheck()


def sides(world, members, others) -> dict[str, list]:
    return {
        "members": list(world.measured(CHECK, members, role="members").records),
        "nonmembers": list(world.measured(CHECK, others, role="nonmembers").records),
    }


def found(world, records, **changes):
    return {each.metric: each for each in CHECK.reduce(world.reduction(records, **changes))}


@pytest.fixture
def large(make_world):
    return make_world(n=400, batch_size=128)


def test_numbers_are_those_of_the_losses(large) -> None:
    """Members are the samples with little noise: the model has less loss on them."""
    findings = found(large, sides(large, range(200), range(200, 400)))
    losses = F.cross_entropy(large.model(large.inputs).double(), large.labels, reduction="none").detach().numpy()
    expected = measure(-losses[:200], -losses[200:], rates=(0.1,))
    auc = findings["auc"]
    assert auc.value == pytest.approx(expected.auc)
    assert auc.interval.low > 0.6
    assert (auc.unit, auc.n, auc.higher_is_better, auc.status) == ("auc", 400, False, Status.MEASURED)
    assert findings["tpr@0.1"].value == pytest.approx(expected.tpr[0].value)
    assert findings["tpr@0.1"].interval.low <= findings["tpr@0.1"].value <= findings["tpr@0.1"].interval.high
    assert auc.parameters == {"members": 200, "nonmembers": 200, "score": "minus the loss"}
    assert len(auc.series["fpr"]) == len(auc.series["tpr"]) <= 200
    assert auc.series["fpr"][0] == 1 / 200


class Louder(torch.nn.Module):
    def __init__(self, network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        return 4096 * self.network(x)


def test_logits_that_saturate_the_loss_hide_nobody(large) -> None:
    """Times 4096, most losses are zero in double precision as well; who leaks is told all the same, by the margins."""
    logits = 4096 * large.model(large.inputs).double()
    large.model = from_torch(Louder(large.model.module).eval())
    losses = [record["loss"] for record in large.measured(CleanCheck(), range(400)).records]
    assert losses.count(0) > 40
    margins = -Untargeted(large.labels).margin(logits).detach().numpy()
    expected = measure(margins[:200], margins[200:], rates=()).auc
    tied = measure([-each for each in losses[:200]], [-each for each in losses[200:]], rates=()).auc
    assert abs(tied - expected) > 0.02  # what the rounded losses would say
    auc = found(large, sides(large, range(200), range(200, 400)))["auc"]
    assert auc.value == pytest.approx(expected, abs=1e-3)


def test_too_few_nonmembers_are_named(large) -> None:
    findings = found(large, sides(large, range(200), range(200, 400)))
    for metric, needed in (("tpr@0.01", "1,000"), ("tpr@0.001", "10,000")):
        each = findings[metric]
        assert (each.value, each.interval, each.status) == (None, None, Status.NOT_MEASURED)
        assert f"at least {needed} non-members" in each.reason
        assert "200" in each.reason
        assert each.parameters["fpr"] == float(metric[4:])


def test_alike_sides_are_not_told_apart(large) -> None:
    findings = found(large, sides(large, range(0, 400, 2), range(1, 400, 2)))
    assert findings["auc"].interval.low < 0.5 < findings["auc"].interval.high


def test_records_of_both_roles_in_any_order(large) -> None:
    records = sides(large, range(200), range(200, 400))
    assert canonical.dumps(records["members"])
    expected = CHECK.reduce(large.reduction(records))
    for side in records.values():
        random.Random(1).shuffle(side)
    assert CHECK.reduce(large.reduction(records)) == expected


def test_the_same_sample_on_both_sides_is_noticed(large) -> None:
    findings = found(large, sides(large, range(200), range(199, 400)))
    assert findings["auc"].status is Status.UNRELIABLE
    assert "E462" in [flag.code for flag in findings["auc"].flags]


def test_different_mixes_of_classes_are_a_warning(large) -> None:
    labels = large.labels
    few = [i for i in range(200, 400) if labels[i] in (0, 1)]
    findings = found(large, sides(large, range(200), few))
    assert findings["auc"].status is Status.WARN
    assert [flag.code for flag in findings["auc"].flags] == ["E463"]


def test_chance_differences_of_mix_are_no_warning(large) -> None:
    generator = np.random.default_rng(0)
    for _ in range(8):
        order = generator.permutation(400)
        findings = found(large, sides(large, order[:60], order[60:160]))
        assert findings["auc"].status is Status.MEASURED


def test_samples_without_finite_logits_have_no_score(large, spoil) -> None:
    spoil(large, [3, 300])
    findings = found(large, sides(large, range(200), range(200, 400)))
    assert findings["auc"].status is Status.UNRELIABLE
    assert [flag.code for flag in findings["auc"].flags] == ["E410"]
    spoil(large, range(200))
    findings = found(large, sides(large, range(200), range(200, 400)))
    assert all(each.value is None and each.status is Status.NOT_MEASURED for each in findings.values())


@pytest.mark.parametrize(
    ("records", "planned", "missing", "status"),
    [
        ({"members": range(50), "nonmembers": range(50, 90)}, (50, 50), "budget", Status.NOT_MEASURED),
        ({"members": range(50), "nonmembers": ()}, (50, 50), "error: E406 x", Status.ERROR),
        ({"members": (), "nonmembers": ()}, (0, 0), "", Status.NOT_MEASURED),
        ({"members": range(5), "nonmembers": ()}, (5, 0), "", Status.NOT_MEASURED),
    ],
)
def test_missing_records_give_no_number(large, records, planned, missing, status) -> None:
    given = {role: list(large.measured(CHECK, places, role=role).records) for role, places in records.items()}
    findings = found(large, given, planned=dict(zip(given, planned, strict=True)), missing=missing)
    assert findings.keys() == {"auc", "tpr@0.1", "tpr@0.01", "tpr@0.001"}
    assert all((each.value, each.status, each.series) == (None, status, {}) for each in findings.values())


def test_every_row_is_counted_and_scores_are_needed(large) -> None:
    assert large.measured(CHECK).cost.forwards == 400
    assert CHECK.needs is Access.SCORES
    assert torch.is_tensor(large.inputs)
