"""Signs turned and turned back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from exact_nets import SIZE, Builder, differences, half_images, halved, images, random_net
from vambrace.assets.obfuscate.gauge import find_gauge
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.signs import Signs
from vambrace.assets.obfuscate.pipeline import onnx_model, undo
from vambrace.assets.obfuscate.torch_graph import exported_program


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


TAKERS = {
    # What takes the signs back, and how many of its channels would show the sign of a zero.
    "sum": ("y = Conv (t, all)", 0),
    "sum with an offset": ("y = Conv (t, all, b)", 0),
    "sum with an offset of -0": ("y = Conv (t, all, minus)", 16),
    "sum, and then -0": ("m = Conv (t, all) y = Add (m, below)", 16),
    "sum, and then numbers": ("m = Conv (t, all) y = Add (m, f)", 0),
    "sum, less -0": ("m = Conv (t, all) y = Sub (m, below)", 0),
    "sum, and then 0": ("m = Conv (t, all) y = Add (m, flat)", 0),
    "normalisation": ("y = BatchNormalization (t, c, b, mean, v)", 0),
    "normalisation of no offset": ("y = BatchNormalization (t, c, none, mean, v)", 16),
    "normalisation of some offsets": ("y = BatchNormalization (t, c, some, mean, v)", 8),
    "product": ("y = Mul (t, f)", 16),
    "division": ("y = Div (t, f)", 16),
    "constant, then a product": ("s = Add (t, e) y = Mul (s, f)", 16),
    "product, then a division": ("m = Mul (t, f) y = Reciprocal (m)", 16),
    "product, then a sum": ("m = Mul (t, f) y = Conv (m, all)", 16),
    "sum and product": ("m = Conv (t, all) p = Mul (t, f) y = Add (m, p)", 16),
    "lone terms": ("y = Conv <group = 16> (t, lone)", 16),
    "lone terms with an offset": ("y = Conv <group = 16> (t, lone, b)", 0),
    "terms by two": ("y = Conv <group = 8> (t, pair)", 0),
}


@pytest.mark.parametrize("case", TAKERS)
def test_zeros_keep_their_signs(case: str) -> None:
    """All sums of zeros are +0 whichever way weights are turned, so what reads a turned one sees the other zero."""
    tail, shown = TAKERS[case]
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 6, 1, 1] x) => (float[2, 16, 1, 1] y) {{ a = Conv (x, w) t = Tanh (a) {tail} }}""")
    rng = np.random.default_rng(0)
    sizes = {"w": (16, 6, 1, 1), "all": (16, 16, 1, 1), "lone": (16, 1, 1, 1), "pair": (16, 2, 1, 1), "f": (16, 1, 1)}
    sizes["e"] = sizes["f"]
    held = {name: rng.normal(size=size) for name, size in sizes.items()}
    held |= {name: rng.normal(size=16) for name in ("c", "b", "mean")}
    held |= {"minus": -np.zeros(16), "below": -np.zeros((16, 1, 1)), "flat": np.zeros((16, 1, 1))}
    held |= {"v": np.abs(held["b"]), "none": np.zeros(16), "some": held["b"] * (np.arange(16) < 8)}
    for name, array in held.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    done = onnx_model(model, passes=["signs"], seed=1)
    entry = done.map.passes[0]
    behind = 16 if case == "product, then a sum" else 0
    assert entry.eligible == 16 - shown + behind
    assert entry.left.get("the sign of a zero would show", 0) == shown
    assert (entry.done > 0) == (entry.eligible > 0)
    rows = {"plain": rng.normal(size=(2, 6, 1, 1)), "zero": np.zeros((2, 6, 1, 1)), "-0": -np.zeros((2, 6, 1, 1))}
    assert differences(model, done.model, {name: each.astype(np.float32) for name, each in rows.items()}) == []


def test_channels_that_stay_anyway_are_counted_once() -> None:
    """Inputs have no channels to turn, but a lone product of one makes them ones whose zeros would show."""
    b = Builder(0)
    x = b.add("Tanh", b.conv(b.add("Mul", "image", b.weight(b.normal(3, 1, 1))), 3, 8))
    entry = onnx_model(b.model({b.conv(x, 8, 4): (2, 4, SIZE, SIZE)}), passes=["signs"], seed=1).map.passes[0]
    assert (entry.eligible, dict(entry.left)) == (11, {"read by outputs of the model": 4})


@pytest.mark.parametrize(
    ("first", "last", "size"),
    [
        (nn.Linear(4, 2, bias=False), nn.Linear(2, 1), (3, 4)),
        (nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, padding=1, groups=4), (1, 3, 9, 9)),
    ],
)
def test_programs_whose_sums_start_at_an_offset_of_minus_zero(
    first: nn.Module, last: nn.Linear | nn.Conv2d, size: tuple[int, ...]
) -> None:
    """Pruned weights are such zeros, and torch adds to offsets, not to 0: infinities came out with the other sign."""
    assert last.bias is not None
    nn.init.constant_(last.bias, -0.0)
    nn.init.constant_(last.weight, -1.0)
    net = nn.Sequential(first, nn.Tanh(), last).eval().double()
    rows = torch.zeros(size, dtype=torch.float64)
    for seed in range(4):
        made = exported_program(net, (torch.ones_like(rows),), passes=["signs"], seed=seed)
        before, after = (torch.signbit(each(rows)) for each in (net, made.program.module()))
        assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("taken", "beta", "offset", "eligible"),
    [(1, 1.0, 0.5, True), (1, 0.0, 0.5, False), (2, 1.0, 0.0, True), (2, -1.0, 0.0, False), (2, 0.0, -0.5, False)],
)
def test_an_offset_counts_as_it_is_added(taken: int, beta: float, offset: float, eligible: bool) -> None:
    """A lone term needs one; and 0 times -1 is a zero as -0 is."""
    b = Builder(0)
    x = b.add("Flatten", b.add("GlobalAveragePool", b.conv("image", 3, 4)))
    x = b.add("Tanh", b.add("MatMul", x, b.weight(b.normal(4, taken))))
    y = b.add("Gemm", x, b.weight(b.normal(taken, 5)), b.weight(np.full(5, offset, np.float32)), beta=beta)
    entry = onnx_model(b.model({y: (2, 5)}), passes=["signs"], seed=1).map.passes[0]
    assert entry.eligible - 4 == taken * eligible


@pytest.mark.parametrize(("low", "high", "turned"), [(-1, 1, True), (0, 0, True), (1, -1, False), (-1, 2, False)])
def test_a_clip_is_odd_where_its_bounds_are_opposite(low: float, high: float, turned: bool) -> None:
    """With the lower one above the upper one all numbers become the upper one."""
    b = Builder(0)
    x = b.add("Clip", b.conv("image", 3, 8), b.weight(np.float32(low)), b.weight(np.float32(high)))
    model = b.model({b.conv(x, 8, 4): (2, 4, SIZE, SIZE)})
    done = onnx_model(model, passes=["signs"], seed=1)
    assert (done.map.passes[0].done > 0) == turned
    assert differences(model, done.model, images(0)) == []


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
