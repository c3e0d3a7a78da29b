"""What a plan does not look at is said, and nothing that it does."""

from __future__ import annotations

import pytest

from vambrace.assess.checks.adversarial import AdversarialCheck
from vambrace.assess.checks.clean import CleanCheck
from vambrace.assess.checks.membership import MembershipCheck
from vambrace.assess.checks.natural import NaturalCheck
from vambrace.assess.plan import PlannedCheck
from vambrace.assess.uncovered import uncovered
from vambrace.attacks import FGSM, PGD, Adaptive
from vambrace.core.access import Access
from vambrace.perturb import Rotate


class Asking(FGSM):
    """An attack that needs scores only."""

    needs = Access.SCORES


class Ensemble(FGSM):
    """An attack of several stages."""

    def stages(self, classes: int) -> tuple[tuple[str, FGSM], ...]:
        return ("a", FGSM(eps=0.1)), ("b", Asking(eps=0.1))


class Spending(FGSM):
    """An attack that decides itself how often it begins."""

    budget = 350


def attacks(*made: FGSM | PGD | Adaptive) -> list[PlannedCheck]:
    return [PlannedCheck(id=f"a{at}", check=AdversarialCheck(attack=each, eps=(0.1,))) for at, each in enumerate(made)]


OTHERS = [
    PlannedCheck(id="clean", check=CleanCheck()),
    PlannedCheck(id="turn", check=NaturalCheck(perturbation=Rotate())),
    PlannedCheck(id="membership", check=MembershipCheck()),
]
FULL = Access.GRADIENTS


def names(checks: list[PlannedCheck], *, access: Access = FULL, named: bool = True) -> list[str]:
    return [left.name for left in uncovered(checks, access=access, named=named)]


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        (OTHERS[:1], ["attacks", "everyday changes", "privacy"]),
        (OTHERS, ["attacks"]),
        ([*OTHERS, *attacks(PGD(eps=0.1))], ["black-box attacks", "attacks in l2, l1, l0", "more starts"]),
        (
            [*OTHERS, *attacks(PGD(eps=0.1, restarts=3), PGD(norm="l2", eps=1.0))],
            ["black-box attacks", "attacks in l1, l0"],
        ),
        ([*OTHERS, *attacks(PGD(eps=0.1, restarts=2), Asking(eps=0.1))], ["attacks in l2, l1, l0"]),
        ([*OTHERS, *attacks(Ensemble(eps=0.1))], ["attacks in l2, l1, l0"]),
        ([*OTHERS, *attacks(Spending(eps=0.1))], ["black-box attacks", "attacks in l2, l1, l0"]),
        ([*OTHERS, *attacks(Adaptive(eps=0.1))], ["attacks in l2, l1, l0"]),
    ],
)
def test_what_a_plan_of_its_own_leaves_open(checks: list[PlannedCheck], expected: list[str]) -> None:
    assert names(checks) == expected


def test_a_profile_says_the_rest_itself() -> None:
    assert names(OTHERS[:1], named=False) == []
    assert names([*OTHERS, *attacks(PGD(eps=0.1))], named=False) == ["black-box attacks"]
    assert names([*OTHERS, *attacks(Asking(eps=0.1))], access=Access.SCORES, named=False) == []
