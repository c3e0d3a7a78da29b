"""Charges as values, and runs of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.errors import ConfigError
from vambrace.privacy.dp.charges import Charge, Spent

ONE = Charge(mechanism="gaussian", noise_multiplier=1.0, sampling="poisson", sample_rate=0.01)
TWO = Charge(mechanism="laplace", noise_multiplier=2.0, sampling="full", sample_rate=1.0)
SIZED = Charge(
    mechanism="gaussian",
    noise_multiplier=1.0,
    sampling="fixed_size",
    sample_rate=0.1,
    dataset_size=100,
    batch_size=10,
    count_noise_multiplier=20.0,
)


@given(st.lists(st.tuples(st.sampled_from([ONE, TWO, SIZED]), st.integers(0, 5)), max_size=8))
def test_runs_keep_every_step_and_survive_json(runs: list[tuple[Charge, int]]) -> None:
    spent = Spent(runs)
    assert [each for each, steps in spent for _ in range(steps)] == [each for each, steps in runs for _ in range(steps)]
    assert all(one != other for (one, _), (other, _) in zip(spent.runs, spent.runs[1:], strict=False))
    assert Spent.from_json(json.loads(json.dumps(spent.as_json()))) == spent
    assert dict(spent.merged().runs) == {each: sum(n for one, n in runs if one == each) for each, n in spent.runs}
    assert (spent + spent).steps == 2 * spent.steps


@pytest.mark.parametrize(
    "fields",
    [
        {"noise_multiplier": -1.0},
        {"noise_multiplier": float("nan")},
        {"noise_multiplier": 0.0},
        {"mechanism": "none"},
        {"sample_rate": 0.0},
        {"sample_rate": 1.5},
        {"sampling": "full"},
        {"sampling": "fixed_size"},
        {"dataset_size": 10},
        {"count_noise_multiplier": float("inf")},
    ],
)
def test_what_no_step_can_cost_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        Charge(**{**ONE.as_json(), **fields})
    assert caught.value.code == "E144"
