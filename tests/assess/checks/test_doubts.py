"""Radii and steps that prove nothing are said to prove nothing."""

from __future__ import annotations

import pytest

from vambrace import assess, data, models
from vambrace.assess.checks.adversarial import AdversarialCheck
from vambrace.assess.plan import GateSpec, RunSpec
from vambrace.attacks import PGD
from vambrace.core.contract import InputContract
from vambrace.core.findings import Status
from vambrace.errors import ConfigError
from vambrace.testing.digits import train


@pytest.fixture(scope="module")
def net():
    part = data.load("digits:train")
    batch = part.read(range(len(part)))
    return train(batch.inputs, batch.labels, epochs=3)


def assessed(net, tmp_path, *, attack, eps, high=1.0):
    batch = data.load("digits:test", limit=40).read(range(40))
    scaled = data.from_arrays(batch.inputs * high, batch.labels, contract=InputContract(bounds=(0.0, high)))
    model = models.from_torch(net, bounds=(0.0, high), mean=0.0, std=high)
    return assess.run(
        model,
        scaled,
        checks=[AdversarialCheck(attack=attack, eps=eps)],
        gates=[GateSpec(metric="*.robust_accuracy@*", min=0.01)],
        out=tmp_path,
        options=RunSpec(images=0),
    )


@pytest.mark.parametrize(("factor", "flagged"), [(0.9e-3, True), (1.1e-3, False)])
def test_a_radius_in_the_wrong_units(net, tmp_path, factor, flagged):
    eps = factor * 255.0
    report = assessed(net, tmp_path, attack=PGD(eps=eps, steps=3), eps=(eps,), high=255.0)
    finding = next(each for each in report.results.findings if each.metric.startswith("robust"))
    assert ("E465" in {flag.code for flag in finding.flags}) is flagged
    assert (finding.status is Status.UNRELIABLE) is flagged
    assert report.exit_code == (5 if flagged else 0)


@pytest.mark.parametrize(("size", "flagged"), [(0.009, True), (0.0101, False)])
def test_steps_that_cannot_cross_the_radius(net, tmp_path, size, flagged):
    report = assessed(net, tmp_path, attack=PGD(eps=0.1, steps=10, step_size=size), eps=(0.1,))
    finding = next(each for each in report.results.findings if each.metric.startswith("robust"))
    assert ("E466" in {flag.code for flag in finding.flags}) is flagged
    assert report.exit_code == (5 if flagged else 0)


def test_radii_that_would_share_a_name_are_refused():
    with pytest.raises(ConfigError, match="E197"):
        AdversarialCheck(attack=PGD(eps=0.1), eps=(0.05, 0.05000001))
