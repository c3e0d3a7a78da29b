"""Networks with weights drawn anew."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_nets import answers, attention, feeds, net, residual
from vambrace.assets.obfuscate.measure.redrawn import Redrawing
from vambrace.core.rng import Streams


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


@pytest.mark.parametrize("make", [residual, attention])
def test_it_runs_and_knows_nothing_of_the_weights(make) -> None:
    model = make()
    before = model.SerializeToString()
    drawing = Redrawing(model)
    assert drawing.whole
    one, same, other = (drawing.draw(Streams(0).child(name)) for name in ("a", "a", "b"))
    assert model.SerializeToString() == before
    assert one.SerializeToString() == same.SerializeToString()
    given = feeds(model)
    for each in (one, other):
        found = answers(each, given)[0]
        assert np.isfinite(found).all()
        assert np.abs(found - answers(model, given)[0]).max() > 0.05
    for name, array in arrays(one).items():
        was = arrays(model)[name]
        assert array.dtype == was.dtype
        if array.dtype == np.float32 and array.size >= 64:
            assert abs(np.corrcoef(array.reshape(-1), was.reshape(-1))[0, 1]) < 0.4
            assert np.std(array) == pytest.approx(np.sqrt(np.square(was).mean()), rel=0.4)
    assert (arrays(one)["v0"] > 0).all() if make is residual else True


def test_whole_numbers_and_masks() -> None:
    """Quantised weights and variances change places; what chooses how a network runs stays."""
    model = net(
        "(float[n,8] x) => (float[n,6] y) { d = DequantizeLinear (w, s) m = MatMul (x, d) y = Add (m, mask) }",
        weights={
            "w": np.arange(48, dtype=np.int8).reshape(8, 6),
            "s": np.float32(0.1),
            "mask": np.array([0, 0, 0, -np.inf, -np.inf, 0], np.float32),
        },
    )
    one = arrays(Redrawing(model).draw(Streams(1)))
    assert sorted(one["w"].reshape(-1)) == list(range(48))
    assert not np.array_equal(one["w"], arrays(model)["w"])
    assert np.array_equal(one["mask"], arrays(model)["mask"])
    assert one["s"] == np.float32(0.1)


def test_zeros_under_a_root_stay() -> None:
    """Elsewhere they might divide; all others change places."""
    held = np.array([0, 1, 2, 3, 4, 5, 0, 7], np.float32)
    model = net("(float[n,8] x) => (float[n,8] y) { r = Sqrt (w) y = Mul (x, r) }", weights={"w": held})
    one = arrays(Redrawing(model).draw(Streams(2)))["w"]
    assert (one == 0).tolist() == (held == 0).tolist()
    assert not np.array_equal(one, held)
    assert sorted(one) == sorted(held)


def test_a_network_with_weights_that_cannot_be_drawn_is_no_measure() -> None:
    """What stays its own shares what it knows."""
    model = net(
        "(float[n,4] x) => (float[n,4] y) { a = MatMul (x, w) y = com.own.Special (a, v) }",
        weights={"w": (4, 4), "v": (40, 40)},
        head='<ir_version: 8, opset_import: ["" : 18, "com.own" : 1]>',
    )
    assert not Redrawing(model).whole
    assert not Redrawing(net("(float[n] x) => (float[n] y) { y = Relu (x) }", weights={})).whole
