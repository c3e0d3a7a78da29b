"""Signs turned and turned back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from exact_nets import SIZE, Builder, differences, half_images, halved, images, random_net, session
from vambrace.assets.obfuscate.gauge import find_gauge
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.signs import Signs
from vambrace.assets.obfuscate.pipeline import onnx_model, undo


def test_about_half_of_all_channels_turn_and_come_back() -> None:
    b = Builder(0)
    x = b.add("Tanh", b.conv("image", 3, 64))
    model = b.model({b.conv(x, 64, 4): (2, 4, SIZE, SIZE)})
    done = onnx_model(model, passes=["signs"], seed=1)
    entry = done.map.passes[0]
    assert entry.eligible == 64
    assert 16 < entry.done < 48
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == model


def test_convolutions_turn_against_their_normalisation() -> None:
    b = Builder(0)
    x = b.add("Relu", b.batch_norm(b.conv("image", 3, 32, bias=False), 32))
    model = b.model({b.conv(x, 32, 4): (2, 4, SIZE, SIZE)})
    done = onnx_model(model, passes=["signs"], seed=1)
    assert done.map.passes[0].eligible == 32
    before, after = (list(Net(each).graph.initialisers.values()) for each in (model, done.model))
    ratios = [(a / b).reshape(len(b), -1)[:, 0] for a, b in zip(after, before, strict=True)]
    kernel, scale, bias, mean, variance = ratios[:5]
    assert (scale == kernel).all()
    assert (mean == kernel).all()
    assert (bias == 1).all()
    assert (variance == 1).all()
    assert (kernel == -1).any()
    assert differences(model, done.model, images(0)) == []


def test_a_zero_may_change_its_sign_and_nothing_else() -> None:
    # All sums are exactly zero: +0 whichever way the weights are turned, so what reads it sees the other zero.
    b = Builder(0)
    first = np.zeros((1, 3, 1, 1), np.float32)
    x = b.add("Tanh", b.add("Conv", "image", b.weight(np.repeat(first, 8, 0))))
    model = b.model({b.add("Conv", x, b.weight(-np.ones((1, 8, 1, 1), np.float32))): (2, 1, SIZE, SIZE)})
    done = onnx_model(model, passes=["signs"], seed=1)
    values = {"image": np.ones((2, 3, SIZE, SIZE), np.float32)}
    one, other = (session(each).run(None, values)[0] for each in (model, done.model))
    assert np.array_equal(one, other)
    assert (one == 0).all()


@pytest.mark.parametrize(
    "seed", [*range(500, 506), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(506, 580))]
)
def test_networks_of_half_precision_turn_at_every_level(seed: int) -> None:
    """Runtimes round to half precision here and there, as the graph has it; signs change neither of the two."""
    model = halved(random_net(seed))
    done = onnx_model(model, passes=["signs"], seed=seed)
    assert differences(model, done.model, half_images(seed)) == []
    assert undo(done.model, done.map).model == model


def test_layers_of_half_precision_turn_about_half_of_their_channels() -> None:
    b = Builder(0)
    x = b.add("Tanh", b.batch_norm(b.conv("image", 3, 64), 64))
    y = b.add("Flatten", b.add("GlobalAveragePool", b.conv(x, 64, 40)))
    y = b.add("Erf", b.add("Gemm", y, b.weight(b.normal(40, 30)), b.weight(b.normal(30))))
    model = halved(b.model({b.add("MatMul", y, b.weight(b.normal(30, 5))): (2, 5)}))
    done = onnx_model(model, passes=["signs"], seed=1)
    entry = done.map.passes[0]
    assert entry.eligible == 64 + 64 + 40 + 30
    assert entry.eligible / 4 < entry.done < entry.eligible * 3 / 4
    assert differences(model, done.model, half_images(0)) == []


def test_maps_from_when_half_precision_had_no_signs_lead_back() -> None:
    """Classes were numbered without layers of half precision then."""
    b = Builder(0)
    half = b.add("Cast", b.add("Tanh", b.conv("image", 3, 8)), to=onnx.TensorProto.FLOAT16)
    kernel = b.weight(b.normal(16, 8, 1, 1).astype(np.float16))
    half = b.add("Conv", half, kernel)
    x = b.add("Tanh", b.conv(b.add("Cast", half, to=onnx.TensorProto.FLOAT), 16, 12))
    model = b.model({b.conv(x, 12, 4): (2, 4, SIZE, SIZE)})
    net = Net.load(model)
    gauge = find_gauge(net, lambda node: node.is_a("Tanh"), positive=False)
    turned = np.where(np.isin(np.arange(gauge.count), gauge.free), -1.0, 1.0)
    gauge.apply(net, turned)
    assert net.model() != model
    Signs().undo(net, {"turned": np.flatnonzero(turned < 0).tolist()})
    assert net.model() == model
