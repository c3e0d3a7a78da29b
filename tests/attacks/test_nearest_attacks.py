"""The minimum-norm attacks keep what every attack promises that looks for the nearest point."""

from __future__ import annotations

import pickle

import pytest

from vambrace.attacks import DDN, FAB, FMN
from vambrace.core.registry import ATTACKS, load
from vambrace.core.spec import read
from vambrace.errors import ConfigError
from vambrace.testing.nearest import check_nearest

EVERY = [
    DDN(steps=60),
    FMN(norm="l0", steps=40),
    FMN(norm="l1", steps=60),
    FMN(norm="l2", steps=40),
    FMN(norm="linf", steps=40),
    FAB(norm="linf", steps=20),
    FAB(norm="l2", steps=20, restarts=2),
    FAB(norm="l1", steps=20),
]


@pytest.mark.parametrize("attack", EVERY, ids=lambda each: f"{each.name}-{each.norm}")
def test_conforms(attack) -> None:
    check_nearest(attack)
