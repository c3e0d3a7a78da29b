"""`vambrace gate` on a finished run is never kinder than the run was."""

from __future__ import annotations

import pytest

from vambrace import assess, data, models
from vambrace.assess.plan import GateSpec, PlannedCheck, RunSpec
from vambrace.assess.reporting import rejudge
from vambrace.core import registry
from vambrace.testing.digits import train


@pytest.fixture(scope="module")
def nets():
    part = data.load("digits:train")
    batch = part.read(range(len(part)))
    return train(batch.inputs, batch.labels, epochs=4), train(batch.inputs, batch.labels, epochs=1, step_size=2e-4)


def run(net, out, *, baseline=None, budget=None, limit=None, name):
    attack = registry.load("vambrace.attacks", "fgsm")(eps=0.1)
    check = registry.load("vambrace.checks", "adversarial")(attack=attack, eps=(0.1,))
    return assess.run(
        models.from_torch(net),
        data.load("digits:test", limit=120),
        checks=[PlannedCheck(id="fgsm", check=check, required=False, named=True, limit=limit)],
        gates=[GateSpec(metric="clean.accuracy", min=0.01)],
        options=RunSpec(images=0, budget=budget, batch=8, chunk=8),
        out=out,
        name=name,
        baseline=baseline,
    )


def test_a_run_that_the_budget_cut_short_stays_incomplete(nets, tmp_path):
    report = run(nets[0], tmp_path, budget=1e-6, name="short")
    assert report.exit_code == 4
    assert rejudge(report.path).verdict == report.results.verdict


def test_a_run_that_fell_below_its_baseline_stays_failed(nets, tmp_path):
    good = run(nets[0], tmp_path, name="good")
    bad = run(nets[1], tmp_path, name="bad", baseline=good.path)
    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert rejudge(bad.path).verdict == bad.results.verdict
    assert rejudge(good.path).verdict == good.results.verdict


def test_a_smaller_part_is_compared_with_the_same_part(nets, tmp_path):
    """A limit of the check leaves the hash of the data as it is; what falls on the common samples has fallen."""
    good = run(nets[0], tmp_path, name="good")
    bad = run(nets[1], tmp_path, name="bad", baseline=good.path, limit=20)
    (fall,) = [gate for gate in bad.results.gates if "robust" in gate.finding]
    assert (bad.exit_code, fall.status) == (1, "fail")
    assert "on the 20 samples that both runs measured" in fall.sentence
    same = run(nets[0], tmp_path, name="same", baseline=good.path, limit=20)
    (held,) = [gate for gate in same.results.gates if "robust" in gate.finding]
    assert (same.exit_code, held.status, held.observed) == (0, "pass", 0.0)
    for report in (bad, same):
        assert rejudge(report.path).verdict == report.results.verdict
