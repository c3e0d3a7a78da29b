"""What checks say they cost, on models that are averaged over calls: rows of the model itself."""

from __future__ import annotations

import pytest

from vambrace.assess.checks.adversarial import AdversarialCheck
from vambrace.assess.checks.clean import CleanCheck
from vambrace.assess.checks.membership import MembershipCheck
from vambrace.assess.checks.natural import NaturalCheck
from vambrace.attacks import FMN, PGD, Square, Standard
from vambrace.attacks import standard as module
from vambrace.core.access import Access, Bounds
from vambrace.models import Expectation
from vambrace.perturb import Contrast
from vambrace.testing.counting import CountingModel

CHECKS = [
    (CleanCheck(), "eval"),
    (NaturalCheck(perturbation=Contrast()), "eval"),
    (MembershipCheck(), "members"),
    (AdversarialCheck(attack=PGD(eps=0.1, steps=5), eps=(0.01, 0.1)), "eval"),
    (AdversarialCheck(attack=FMN(norm="linf", steps=8), eps=(0.01, 0.1)), "eval"),
    (AdversarialCheck(attack=Square(eps=0.1, queries=20), eps=(0.1,)), "eval"),
    (AdversarialCheck(attack=Standard(eps=0.05, version="rand"), eps=(0.05,)), "eval"),
]


@pytest.mark.parametrize("access", [Access.SCORES, Access.GRADIENTS])
@pytest.mark.parametrize(
    ("check", "role"), CHECKS, ids=["clean", "natural", "membership", "pgd", "fmn", "square", "rand"]
)
def test_the_cost_of_a_check_is_what_arrived_at_the_model(
    world, check, role: str, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    if getattr(check, "needs", Access.LABELS) > access:
        pytest.skip("the attack needs gradients")
    monkeypatch.setattr(module, "_STEPS", 3)
    inner = CountingModel(world.model, bounds=Bounds(0.0, 1.0), num_classes=5, access=access)
    world.model = Expectation(inner, samples=4)
    cost = world.measured(check, role=role).cost
    assert inner.forward_rows >= 4 * world.n
    assert cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards == inner.forward_rows
    assert cost.backwards + cost.idle_backwards + cost.padding_backwards == inner.backward_rows
    assert cost.queries == (inner.forward_rows if access < Access.GRADIENTS else 0)
