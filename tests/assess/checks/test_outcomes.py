"""Findings that are shares carry which samples were right, in agreement with their value and in order of ids."""

from __future__ import annotations

import pytest

from vambrace import assess, data, models
from vambrace.assess.checks.adversarial import AdversarialCheck
from vambrace.assess.checks.natural import NaturalCheck
from vambrace.assess.plan import RunSpec
from vambrace.attacks import FGSM
from vambrace.core.outcomes import KEY, unpack
from vambrace.perturb import Rotate
from vambrace.testing.digits import train


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    members = data.load("digits:train")
    batch = members.read(range(len(members)))
    model = models.from_torch(train(batch.inputs, batch.labels, epochs=3))
    report = assess.run(
        model,
        data.load("digits:test", limit=60),
        checks=[
            AdversarialCheck(attack=FGSM(eps=0.1), eps=(0.05, 0.1)),
            NaturalCheck(perturbation=Rotate(), severities=(1, 5)),
        ],
        gates="none",
        out=tmp_path_factory.mktemp("runs"),
        options=RunSpec(images=0),
    )
    return report.results


def test_outcomes_agree_with_the_value(results):
    shares = [each for each in results.findings if each.metric.split("@")[0] in {"accuracy", "robust_accuracy"}]
    assert len(shares) == 5
    for finding in shares:
        found = unpack(finding.series[KEY])
        assert found is not None
        assert len(found) == finding.n == 60
        assert sum(found) / 60 == pytest.approx(finding.value)


def test_outcomes_are_in_order_of_ids(results):
    """A sample that a smaller radius breaks is broken at the larger one, and was wrong or right in the clean check."""
    by_name = {each.name: unpack(each.series.get(KEY)) for each in results.findings}
    clean = by_name["clean.accuracy"]
    small, large = (by_name[f"fgsm-linf.robust_accuracy@{eps}"] for eps in ("0.05", "0.1"))
    assert all(c or not s for c, s in zip(clean, small, strict=True))
    assert all(s or not b for s, b in zip(small, large, strict=True))
    assert sum(large) < sum(small) < sum(clean)
