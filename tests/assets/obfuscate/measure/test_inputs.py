"""Rows for a network: read, refused, filled up, and the ones that we make."""

from __future__ import annotations

import numpy as np
import pytest

import disguises
import onnx_nets
from vambrace.assets.obfuscate.measure.inputs import (
    edge_rows,
    extreme_rows,
    infinite_rows,
    nan_rows,
    random_rows,
    read_rows,
)
from vambrace.assets.obfuscate.measure.runtime import Network
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(disguises.dense(disguises.weights()))


def test_arrays_lists_and_names_are_the_same(network: Network) -> None:
    inputs = disguises.inputs(5)
    for given in (inputs, [inputs], {"input": inputs}):
        rows = read_rows(given, network)
        assert len(rows) == 5
        assert np.array_equal(rows.arrays[0], inputs)


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((0, 6), np.float32),
        np.zeros((3, 7), np.float32),
        np.zeros((3, 6), np.int64),
        {"other": np.zeros((3, 6), np.float32)},
        [np.zeros((3, 6), np.float32)] * 2,
        np.full((3, 6), np.nan, np.float32),
    ],
)
def test_other_inputs_are_refused(network: Network, given: object) -> None:
    with pytest.raises(ConfigError, match="E820"):
        read_rows(given, network)  # type: ignore[arg-type]


def test_a_short_call_is_filled_up_and_counted(network: Network) -> None:
    rows = read_rows(disguises.inputs(5), network, batch=4)
    calls = list(rows.calls())
    assert [count for count, _ in calls] == [4, 1]
    assert all(arrays[0].shape == (4, 6) for _, arrays in calls)


def test_a_row_may_be_a_whole_call(network: Network) -> None:
    rows = read_rows(np.zeros((3, 2, 6), np.float32), network)
    assert rows.whole
    assert [arrays[0].shape for _, arrays in rows.calls()] == [(2, 6)] * 3


def test_models_that_state_no_rank_take_rows_of_any() -> None:
    model = disguises.dense(disguises.weights())
    model.graph.input[0].type.tensor_type.ClearField("shape")
    rows = read_rows(disguises.inputs(5), Network(model), batch=2)
    assert (rows.whole, rows.batch) == (False, 2)
    assert [arrays[0].shape for _, arrays in rows.calls()] == [(2, 6)] * 3


def test_random_rows_stay_in_range_and_come_again(network: Network) -> None:
    real = read_rows(disguises.inputs(50), network)
    one, two = (random_rows(real, 200, Streams(3)).arrays[0] for _ in range(2))
    assert np.array_equal(one, two)
    assert one.min() >= real.arrays[0].min()
    assert one.max() <= real.arrays[0].max()
    assert one.std() > 0.5
    assert not np.array_equal(one, random_rows(real, 200, Streams(4)).arrays[0])


def test_rows_that_trip_up(network: Network) -> None:
    real = read_rows(disguises.inputs(50), network)
    edge, broken, extreme = (make(real) for make in (edge_rows, nan_rows, extreme_rows))
    infinite = infinite_rows(real)
    assert edge is not None
    assert broken is not None
    assert infinite is not None
    assert extreme is not None
    assert edge.arrays[0][0].tolist() == [0.0] * 6
    assert len({*edge.arrays[0][1]}) == 1
    assert np.isnan(broken.arrays[0]).sum(axis=1).tolist() == [1, 6]
    assert not np.isnan(infinite.arrays[0]).any()
    assert (infinite.arrays[0] == [[np.inf], [-np.inf]]).sum(axis=1).tolist() == [1, 1]
    assert np.abs(extreme.arrays[0][0]).max() > 1e29
    assert 0 < np.abs(extreme.arrays[0][1]).max() < 1e-38


def test_inputs_of_length_zero_have_no_middle() -> None:
    """An empty past of a decoder ended in an IndexError, after all passes were done."""
    model = onnx_nets.net(
        "(float[n,4] x, float[n,p,4] past) => (float[n,q,4] y) {"
        " a = Unsqueeze (x, one) b = Concat <axis = 1> (past, a) y = Relu (b) }",
        weights={"one": np.array([1])},
    )
    given = {"x": np.ones((12, 4), np.float32), "past": np.ones((12, 0, 4), np.float32)}
    real = read_rows(given, Network(model))
    for make in (edge_rows, nan_rows, infinite_rows, extreme_rows):
        assert make(real) is not None
