"""What a change is likely to cost: sizes that calls choose are no small ones."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from vambrace.assets.obfuscate.costs import Costs
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.phantoms import Phantoms
from vambrace.assets.obfuscate.pipeline import onnx_model
from vambrace.assets.obfuscate.places import find_places


def pictures(sizes: str) -> onnx.ModelProto:
    """Cheap work on large pictures."""
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[{sizes}] x) => (float[{sizes}] y) {{
            a = Relu (x)  b = Sigmoid (a)  y = Tanh (b)
        }}"""
    )


def costs(model: onnx.ModelProto) -> Costs:
    net = Net.load(model)
    return Costs(net, net.infer())


def test_free_sizes_are_likely_ones_and_stated_ones_are_kept() -> None:
    assert costs(pictures("1, 3, 640, 480")).elements("b") == 3 * 640 * 480
    assert costs(pictures("N, 3, 8, 8")).elements("b") == 3 * 8 * 8
    for free in ("1, 3, H, W", "N, 3, H, W"):
        assert costs(pictures(free)).elements("b") >= 3 * 64 * 64
        assert costs(pictures(free)).total == pytest.approx(costs(pictures("1, 3, 128, 128")).total)


def test_channels_in_the_last_axis_are_put_in_order_one_by_one() -> None:
    """What a lock that takes its key as an input reckons with; it holds no times of its own."""
    found = {}
    for sizes, layer, weights in (("1, 64, 32", "MatMul", (32, 32)), ("1, 32, 8, 8", "Conv", (32, 32, 1, 1))):
        model = onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            net (float[{sizes}] x) => (float[{sizes}] z) {{ y = {layer} (x, w)  z = Relu (y) }}"""
        )
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(weights, np.float32), "w"))
        net = Net.load(model)
        (place,), times = find_places(net)[0], Costs(net, net.infer())
        assert times.elements(place.given) == 2048
        found[layer] = [times.restored(place, ordered=ordered, scaled=True) for ordered in (False, True)]
        assert times.call > times.total
    assert found["MatMul"][0] == found["Conv"][0] < found["Conv"][1] < found["MatMul"][1]


def test_no_predicate_adds_up_a_picture_whose_size_calls_choose() -> None:
    """It looks at a part of it."""
    for sizes, first in (("8, 8", "Reduce"), ("H, W", "Slice")):
        done = onnx_model(pictures(f"N, 3, {sizes}"), passes=[Phantoms(slowdown=0.0)], seed=0)
        assert done.map.passes[0].done == 1
        assert [node.op_type.startswith(first) for node in done.model.graph.node if "x" in node.input] == [True]
