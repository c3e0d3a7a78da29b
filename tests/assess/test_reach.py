"""A radius larger than the data's own range is said, and one just within it is not."""

from __future__ import annotations

import pytest

from vambrace import assess, data, models
from vambrace.assess.checks.adversarial import AdversarialCheck
from vambrace.assess.checks.clean import CleanCheck
from vambrace.assess.plan import PlannedCheck, RunSpec
from vambrace.assess.reach import reach_flags
from vambrace.attacks import FGSM, PGD
from vambrace.core.contract import InputContract
from vambrace.core.findings import Status


def planned(eps, *, norm="linf", name="pgd"):
    return PlannedCheck(id=name, check=AdversarialCheck(attack=PGD(norm=norm, eps=eps), eps=(0.01, eps)))


@pytest.mark.parametrize(("norm", "across"), [("linf", 0.5), ("l2", 4.0), ("l1", 32.0)])
@pytest.mark.parametrize(("factor", "flagged"), [(0.99, False), (1.01, True)])
def test_just_within_and_just_beyond_the_spread(norm, across, factor, flagged):
    """64 values between 0.25 and 0.75."""
    flags = reach_flags([planned(factor * across, norm=norm)], spread=0.5, values=64)
    assert [(flag.code, flag.level, flag.families) for flag in flags] == (
        [("E469", "warn", ("adversarial",))] if flagged else []
    )


def test_one_remark_names_the_worst():
    checks = [
        PlannedCheck(id="clean", check=CleanCheck()),
        planned(4.0, name="a"),
        planned(8.0, name="b"),
        planned(0.3),
    ]
    (flag,) = reach_flags(checks, spread=1.0, values=64)
    assert "The radius linf 8 of b (and in 1 more) is larger than the data is wide" in flag.text
    assert "--bounds" in flag.text
    (flag,) = reach_flags(checks[:2], spread=0.0, values=64)
    assert "of a is larger" in flag.text


@pytest.mark.parametrize("high", [1.0, 255.0])
def test_values_of_one_range_under_bounds_of_another(net, few, tmp_path, high):
    """Digits in 0..1 under bounds of 0,255: whatever is measured, the verdict says it."""
    batch = few.read(range(len(few)))
    given = data.from_arrays(batch.inputs, batch.labels, contract=InputContract(bounds=(0.0, high)))
    eps = 8 / 255 * high
    report = assess.run(
        models.from_torch(net, bounds=(0.0, high)),
        given,
        profile="smoke",
        checks=[AdversarialCheck(attack=FGSM(eps=eps), eps=(eps,))],
        options=RunSpec(threads=1, images=0),
        out=tmp_path,
    )
    beyond = high == 255.0
    flagged = {each.family for each in report.results.findings for flag in each.flags if flag.code == "E469"}
    assert flagged == ({"preflight", "adversarial"} if beyond else set())
    assert any("E469" in sentence for sentence in report.results.verdict.sentences) is beyond
    robust = next(each for each in report.results.findings if each.metric.startswith("robust"))
    assert robust.status is (Status.WARN if beyond else Status.MEASURED)
    assert report.results.findings[0].value == 1.0


@pytest.fixture(scope="module")
def few():
    return data.load("digits:test", limit=60)
