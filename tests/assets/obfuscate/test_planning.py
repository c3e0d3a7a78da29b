import math

import pytest

from vambrace.assets.obfuscate.passes.channels import BakedPermutation
from vambrace.assets.obfuscate.passes.disguises import Disguises
from vambrace.assets.obfuscate.passes.fission import SplitLayers
from vambrace.assets.obfuscate.passes.order import Order
from vambrace.assets.obfuscate.planning import plan
from vambrace.errors import ConfigError

COSTS = {"baked_permutation": 0.0, "disguises": 0.4, "split_layers": 0.2, "order": 0.0}
WANTED = (BakedPermutation(), SplitLayers(share=0.4), Disguises(share=0.4), Order())


def measured(passes) -> float:
    """Costs add up, in proportion to shares of 0.4."""
    return 1.0 + sum(COSTS[one.name] * getattr(one, "share", 0.0) / 0.4 for one in passes)


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


def test_a_budget_that_nothing_fits_into() -> None:
    found = plan(WANTED, 0.9, measured)
    assert found.kept == (WANTED[0], WANTED[3])  # what costs nothing is not given up for a noisy measurement
    assert not found.fits
    for budget in (0.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="E839"):
            plan(WANTED, budget, measured)
