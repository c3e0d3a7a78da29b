import dataclasses
import math
from typing import ClassVar

import pytest

from vambrace.assets.obfuscate.passes.base import Pass
from vambrace.assets.obfuscate.passes.channels import BakedPermutation
from vambrace.assets.obfuscate.passes.disguises import Disguises
from vambrace.assets.obfuscate.passes.fission import SplitLayers
from vambrace.assets.obfuscate.passes.fusion import FuseLinear
from vambrace.assets.obfuscate.passes.order import Order
from vambrace.assets.obfuscate.passes.phantoms import Phantoms
from vambrace.assets.obfuscate.planning import Moved, fit, plan
from vambrace.errors import ConfigError

COSTS = {"baked_permutation": 0.0, "disguises": 0.4, "split_layers": 0.2, "order": 0.0}
WANTED = (BakedPermutation(), SplitLayers(share=0.4), Disguises(share=0.4), Order())


def measured(passes) -> float:
    """Costs add up, in proportion to shares of 0.4."""
    return 1.0 + sum(COSTS[one.name] * getattr(one, "share", 0.0) / 0.4 for one in passes)


def costing(beside: float = 9.0, **more: float):
    """The same with other costs, and those of `phantoms` in their lighter form."""
    costs = {**COSTS, **more}
    return lambda passes: (
        1.0
        + sum(
            beside if getattr(one, "beside", False) else costs[one.name] * (getattr(one, "share", 0.4) or 0.4) / 0.4
            for one in passes
        )
    )


def test_all_are_kept_where_they_fit() -> None:
    calls = []
    found = plan(WANTED, 1.7, lambda passes: calls.append(list(passes)) or measured(passes))
    assert (found.kept, found.dropped, found.fits, found.alone) == (WANTED, (), True, {})
    assert len(calls) == 1


def test_the_most_costly_gives_way_first() -> None:
    found = plan(WANTED, 1.41, measured)
    assert found.kept == (WANTED[0], WANTED[1], Disguises(share=0.2), WANTED[3])
    assert found.alone == pytest.approx({"split_layers": 1.2, "disguises": 1.4})
    assert found.ratio == pytest.approx(1.4)


def test_then_it_goes() -> None:
    found = plan(WANTED, 1.001, measured)
    assert found.kept == (WANTED[0], WANTED[3])
    assert found.dropped == ("disguises", "split_layers")
    assert found.fits


def test_what_is_too_slow_by_itself_goes_before_the_rest() -> None:
    """It is dearest, and without it all others fit."""
    found = plan((*WANTED, Phantoms()), 1.65, costing(phantoms=0.7))
    assert found.kept == WANTED
    assert found.dropped == ("phantoms",)
    assert found.ratio == pytest.approx(1.6)


def test_what_has_a_lighter_form_takes_it_before_it_goes() -> None:
    wanted = (Order(), SplitLayers(share=0.4), Phantoms())
    found = plan(wanted, 1.05, costing(phantoms=0.06, beside=0.02, split_layers=0.02))
    assert found.kept == (Order(), SplitLayers(share=0.4), Phantoms(beside=True))
    assert (found.dropped, found.ratio) == ((), pytest.approx(1.04))
    # By itself it would fit: what hides less goes first.
    found = plan(wanted, 1.05, costing(phantoms=0.04, beside=0.02, split_layers=0.04))
    assert found.kept == (Order(), SplitLayers(share=0.1), Phantoms())
    found = plan(wanted, 1.05, costing(phantoms=0.06, beside=0.055, split_layers=0.02))
    assert found.kept == (Order(), SplitLayers(share=0.4))
    assert found.dropped == ("phantoms",)


def test_what_hides_most_goes_last() -> None:
    found = plan((*WANTED, Phantoms()), 1.54, costing(phantoms=0.5))
    assert found.kept == (WANTED[0], WANTED[3], Phantoms())
    assert found.dropped == ("disguises", "split_layers")


def test_what_has_room_after_all_is_given_back() -> None:
    """Beside what costs nothing the one that hides most is too slow after all, and others went for it."""
    wanted = (Order(), SplitLayers(share=0.4), Disguises(share=0.4), Phantoms())
    calls: list[list[str]] = []

    def measure(passes) -> float:
        names = [one.name for one in passes]
        calls.append(names)
        beside = 0.3 if {"order", "phantoms"} <= set(names) else 0.0
        return costing(phantoms=0.04, disguises=0.03, split_layers=0.08)(passes) + beside

    found = plan(wanted, 1.05, measure)
    assert [(one.name, getattr(one, "share", None)) for one in found.kept] == [
        ("order", None),
        ("split_layers", 0.1),
        ("disguises", 0.1),
    ]
    assert found.dropped == ("phantoms",)
    assert found.ratio == pytest.approx(1.0275)
    assert all(names == sorted(names, key=[one.name for one in wanted].index) for names in calls)


def test_what_is_too_slow_by_itself_stays_beside_what_makes_it_faster() -> None:
    wanted = (FuseLinear(), SplitLayers(share=0.4), Phantoms())
    found = plan(wanted, 1.05, costing(fuse_linear=-0.08, split_layers=0.6, phantoms=0.06))
    assert found.kept == (FuseLinear(), SplitLayers(share=0.1), Phantoms())
    assert found.dropped == ()
    assert found.ratio == pytest.approx(1.01)
    assert found.alone == {"split_layers": pytest.approx(1.6), "phantoms": pytest.approx(1.06)}


@pytest.mark.parametrize(
    ("budget", "costs", "back"),
    [
        # What hides most, though it takes longest.
        (1.05, {"fuse_linear": -0.1, "split_layers": 0.22, "phantoms": 0.25}, (Phantoms(),)),
        # The faster one, of two that hide as much.
        (1.05, {"fuse_linear": -0.012, "disguises": 0.3, "split_layers": 0.22}, (SplitLayers(share=0.1),)),
        # What fills the budget.
        (1.25, {"fuse_linear": -0.1, "split_layers": 4.0, "phantoms": 0.5}, (Phantoms(),)),
    ],
)
def test_not_all_that_went_has_room_after_all(budget: float, costs: dict[str, float], back: tuple[Pass, ...]) -> None:
    wanted = [FuseLinear(), Disguises(share=0.4), SplitLayers(share=0.4), Phantoms()]
    found = plan([one for one in wanted if one.name in costs], budget, costing(**costs))
    assert found.kept == (FuseLinear(), *back)
    assert found.fits


def test_what_fits_by_itself_at_fewer_places_is_done_less_and_no_more() -> None:
    found = plan((SplitLayers(share=0.4),), 1.05, costing(split_layers=0.08))
    assert (found.kept, found.dropped) == ((SplitLayers(share=0.2),), ())


def test_what_is_too_slow_even_at_few_places_goes_before_others_are_touched() -> None:
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Hiding(SplitLayers):
        worth: ClassVar[int] = 1

    found = plan((Hiding(share=0.4), Disguises(share=0.4)), 1.05, costing(split_layers=0.3, disguises=0.04))
    assert found.kept == (Disguises(share=0.4),)


def test_many_steps_are_taken_before_all_are_measured_again() -> None:
    """By themselves passes seem to cost more than beside others, as noise adds to each alone."""
    together: list[list[float]] = []

    def measure(passes) -> float:
        shares = [one.share for one in passes if one.name in {"split_layers", "disguises"}]
        if len(shares) == 2:
            together.append(shares)
        return 1.0 + sum(shares) / 0.4 * (0.03 if len(shares) == 2 else 0.04)

    found = plan(WANTED, 1.04, measure)
    assert together == [[0.4, 0.4], [0.2, 0.2]]
    assert found.kept == (WANTED[0], SplitLayers(share=0.2), Disguises(share=0.2), WANTED[3])
    assert found.ratio == pytest.approx(1.03)
    assert found.dropped == ()


def test_where_a_guess_is_too_low_there_is_another_measurement() -> None:
    """Half the places of the dearest take as long as all of them."""
    together: list[list[float]] = []

    def measure(passes) -> float:
        shares = {one.name: one.share for one in passes if one.name in {"split_layers", "disguises"}}
        if len(shares) == 2:
            together.append(list(shares.values()))
        return 1.0 + 0.03 * ("disguises" in shares) + 0.05 * shares.get("split_layers", 0.0)

    found = plan(WANTED, 1.045, measure)
    assert together == [[0.4, 0.4], [0.4, 0.2], [0.2, 0.2]]
    assert found.kept == (WANTED[0], SplitLayers(share=0.2), Disguises(share=0.2), WANTED[3])


@pytest.mark.parametrize("alone", [0.01, 0.0])
def test_what_costs_more_together_than_alone_is_not_thrown_away(alone: float) -> None:
    """Where steps seemed to save nothing, all of them were taken at once."""

    def measure(passes) -> float:
        shares = {one.name: one.share for one in passes if one.name in {"split_layers", "disguises"}}
        if len(shares) == 2:
            return 1.1 if shares["disguises"] > 0.2 else 1.045
        return 1.0 + alone * len(shares)

    found = plan((*WANTED, Phantoms()), 1.05, measure)
    kept = {one.name: getattr(one, "share", None) for one in found.kept}
    assert kept["disguises"] == (0.2 if alone else 0.4)
    assert ("split_layers" in kept) is bool(alone)
    assert "phantoms" in kept
    assert found.fits


def test_a_budget_that_nothing_fits_into() -> None:
    found = plan(WANTED, 0.9, measured)
    assert found.kept == (WANTED[0], WANTED[3])  # what costs nothing is not given up for a noisy measurement
    assert not found.fits
    for budget in (0.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="E839"):
            plan(WANTED, budget, measured)


ROUNDING = (BakedPermutation(), SplitLayers(share=0.4), Disguises(share=0.4), Order())


def moving(**far: float):
    """Differences add up, in units of the bound; each call is kept."""
    calls = []

    def moved(passes) -> Moved:
        calls.append([one.name for one in passes])
        total = sum(far.get(one.name, 0.0) for one in passes)
        return Moved(relative=total, decisions=0, holds=total <= 1)

    return moved, calls


def by_itself(moved, few=None):
    """A pass alone, wherever it stands; `few` for what some of the inputs show."""
    return lambda one, _, whole: (moved if whole or few is None else few)([one])


def fitted(**far: float):
    moved, calls = moving(**far)
    found = fit(ROUNDING, moved, by_itself(moved), list)
    return found, [each.name for each in found.left_out], calls


def test_where_answers_hold_nothing_is_measured_alone() -> None:
    found, left_out, calls = fitted(baked_permutation=0.3, split_layers=0.3, disguises=0.3)
    assert found.moved is not None
    assert (found.kept, left_out, found.moved.relative) == (ROUNDING, [], pytest.approx(0.9))
    assert len(calls) == 1


def test_the_worst_goes_until_the_sum_holds() -> None:
    found, left_out, _ = fitted(baked_permutation=0.5, split_layers=0.7, disguises=0.4)
    assert left_out == ["split_layers"]
    assert found.kept == (ROUNDING[0], *ROUNDING[2:])
    assert found.moved is not None
    assert found.moved.holds


def test_those_that_break_the_bound_alone_go_together_before() -> None:
    found, left_out, calls = fitted(baked_permutation=3.0, split_layers=5.0, disguises=0.4)
    assert left_out == ["split_layers", "baked_permutation"]
    assert [each.place for each in found.left_out] == [1, 0]
    assert found.kept == ROUNDING[2:]
    assert len(calls) == 1 + 3 + 1
    assert ["order"] not in calls


def test_exact_passes_stay_whatever_is_measured() -> None:
    found = fit(
        ROUNDING,
        lambda _: Moved(relative=9.0, decisions=0, holds=False),
        lambda *_: Moved(relative=0.0, decisions=0, holds=True),
        list,
    )
    assert found.kept == ROUNDING[3:]
    assert found.moved is not None
    assert not found.moved.holds
    moved, calls = moving()
    assert fit(ROUNDING[3:], moved, by_itself(moved), list).kept == ROUNDING[3:]
    assert calls == []


def test_a_decision_counts_as_much_as_a_difference() -> None:
    def moved(passes) -> Moved:
        turned = 2 * any(one.name == "disguises" for one in passes)
        return Moved(relative=1e-7, decisions=turned, holds=not turned)

    found = fit(ROUNDING, moved, by_itself(moved), list)
    assert [each.name for each in found.left_out] == ["disguises"]
    assert str(found.left_out[0].moved) == "1e-07 of a sample's largest and 2 decisions"
    assert str(Moved(relative=math.inf, decisions=0, holds=False)) == "more than a number says"
    whole = Moved(relative=math.inf, decisions=0, holds=False, apart=1.0)
    assert str(whole) == "up to 1 in whole numbers or zeros"


def test_what_goes_for_the_sum_alone_says_so() -> None:
    found, left_out, _ = fitted(baked_permutation=0.5, split_layers=0.7, disguises=4.0)
    assert left_out == ["disguises", "split_layers"]
    assert [str(each.moved) for each in found.left_out] == [
        "4 of a sample's largest",
        "0.7 of a sample's largest and too far together with others",
    ]
    assert found.places == (0, 3)


def test_what_breaks_the_bound_by_itself_on_all_inputs_does_not() -> None:
    """Alone it is measured on few."""
    moved, _ = moving(baked_permutation=0.5, split_layers=0.7, disguises=4.0)
    few, _ = moving(baked_permutation=0.5, split_layers=0.7, disguises=0.9)
    found = fit(ROUNDING, moved, by_itself(moved, few), list)
    assert [(each.name, each.moved.summed) for each in found.left_out] == [("disguises", False), ("split_layers", True)]
    one = fit(ROUNDING[2:], moved, by_itself(moved, few), list)
    assert [str(each.moved) for each in one.left_out] == ["4 of a sample's largest"]


def test_what_was_done_nowhere_is_not_blamed() -> None:
    """It stands first, and without it all others draw other choices, which may hold by luck."""

    def moved(passes) -> Moved:
        far = 30.0 if [one.name for one in passes][:2] == ["baked_permutation", "split_layers"] else 0.0
        return Moved(relative=far, decisions=0, holds=not far)

    alone = []

    def one_alone(one, place, _) -> Moved:
        alone.append((one.name, place))
        return Moved(relative=0.0, decisions=0, holds=True)

    found = fit(ROUNDING, moved, one_alone, lambda tried: [place for place in tried if place in (1, 3)])
    assert alone == [("split_layers", 1)]
    assert [str(each.moved) for each in found.left_out] == ["30 of a sample's largest"]
    assert [each.name for each in found.left_out] == ["split_layers"]
    assert found.places == (0, 2, 3)


def test_a_pass_that_finds_places_once_others_are_gone_is_looked_at_then() -> None:
    moved, _ = moving(baked_permutation=3.0, split_layers=0.0, disguises=5.0)
    found = fit(ROUNDING, moved, by_itself(moved), lambda tried: [at for at in tried if at == 0 or 0 not in tried])
    assert [(each.name, each.moved.summed) for each in found.left_out] == [
        ("disguises", False),
        ("baked_permutation", False),
    ]
    assert [one.name for one in found.kept] == ["split_layers", "order"]


def test_alone_a_pass_is_measured_where_it_stands() -> None:
    """Its choices depend on that."""
    asked = []

    def moved(passes) -> Moved:
        names = [one.name for one in passes]
        return Moved(relative=2.0, decisions=0, holds="split_layers" not in names and "disguises" not in names)

    def one_alone(one, place, whole) -> Moved:
        asked.append((one.name, place, whole))
        bad = (one.name, place) in {("split_layers", 1), ("disguises", 1)}
        return Moved(relative=2.0 if bad else 0.5, decisions=0, holds=not bad)

    found = fit(ROUNDING, moved, one_alone, list)
    assert asked == [
        ("baked_permutation", 0, False),
        ("split_layers", 1, False),
        ("disguises", 2, False),
        ("disguises", 1, False),
    ]
    assert [(each.name, each.moved.summed) for each in found.left_out] == [
        ("split_layers", False),
        ("disguises", False),
    ]


def test_what_rounds_nowhere_is_not_measured() -> None:
    moved, _ = moving()
    assert fit(ROUNDING[3:], moved, by_itself(moved), list).moved is None
    found = fit(ROUNDING, lambda _: None, by_itself(moved), list)
    assert (found.kept, found.places, found.left_out, found.moved) == (ROUNDING, (0, 1, 2, 3), (), None)


def test_a_plan_says_which_were_kept() -> None:
    twice = (Disguises(share=0.4), *WANTED)
    found = plan(twice, 1.5, measured)
    assert [one.name for one in found.kept] == [twice[at].name for at in found.places]
    assert plan(WANTED, 1.001, measured).places == (0, 3)
