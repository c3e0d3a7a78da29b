"""Flags in order, names of methods, and examples that can be told apart."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from vambrace.assess.checks.examples import allotted, example_name, quota
from vambrace.assess.checks.standing import registered_name, standing
from vambrace.attacks import PGD
from vambrace.core.findings import Flag, Status
from vambrace.core.options import Options
from vambrace.core.registry import ATTACKS, PERTURBATIONS
from vambrace.perturb import GaussianNoise


def test_flags_are_in_one_order_and_said_once(world) -> None:
    bad = Flag(code="E420", level="unreliable", text="Random.")
    good = [Flag(code="E431", level="warn", text="B."), Flag(code="E430", level="warn", text="A.")]
    records = [{"id": "1", "finite": True}]
    one = standing(world.reduction(records, flags=(*good, bad, bad)), family="clean", roles=("eval",), flags=[bad])
    other = standing(world.reduction(records, flags=(bad, *good[::-1])), family="clean", roles=("eval",))
    assert one.flags == other.flags == (bad, good[1], good[0])
    assert (one.status, one.reason) == (Status.UNRELIABLE, "Random.")


def test_more_records_than_planned_is_not_complete(world) -> None:
    records = [{"id": "1", "finite": True}, {"id": "2", "finite": True}]
    assert not standing(world.reduction(records, planned={"eval": 1}), family="clean", roles=("eval",)).complete


def test_methods_are_called_by_their_registered_name() -> None:
    @dataclass(frozen=True)
    class Mine(Options):
        pass

    assert registered_name(ATTACKS, PGD(eps=0.1)) == "pgd"
    assert registered_name(PERTURBATIONS, GaussianNoise()) == "gaussian_noise"
    assert registered_name(ATTACKS, Mine()) == "Mine"


def test_examples_have_names_of_their_own() -> None:
    names = {example_name("pgd", eps, str(sample)) for eps in (0.1, 0.3) for sample in (0, 1, 2, 10**18, 10**18 + 1)}
    assert len(names) == 10
    assert example_name("pgd", 8 / 255, "255") == "pgd-0.0313725-00000000ff"


def test_images_are_shared_between_radii() -> None:
    assert [quota(12, points) for points in (1, 2, 5, 20)] == [12, 6, 3, 1]
    assert quota(0, 3) == 0


@given(st.integers(0, 30), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_never_more_images_than_asked_and_none_wasted(images: int, saved: list[int]) -> None:
    shown = allotted(images, saved)
    most = [min(each, quota(images, len(saved))) for each in saved]
    assert sum(shown) == min(images, sum(most))
    assert all(0 <= some <= there for some, there in zip(shown, most, strict=True))
    room = [some for some, there in zip(shown, most, strict=True) if some < there]
    assert not room or max(shown) - min(room) <= 1, "who has more to show is not passed over"
