"""Powers of two: in range, exact, and only where exponents have room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from exact_nets import SIZE, Builder, differences, images, random_net
from onnx_nets import answers, net
from vambrace.assets.obfuscate.locking import lock, unlock
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.scaling import FLOOR, Scaling
from vambrace.assets.obfuscate.pipeline import onnx_model, undo
from vambrace.assets.obfuscate.tracing import trace
from vambrace.errors import ConfigError


def chain(kernels: list[np.ndarray]) -> onnx.ModelProto:
    b = Builder(0)
    x = "image"
    for kernel in kernels:
        x = b.add("Relu", b.add("Conv", x, b.weight(kernel)))
    return b.model({x: (2, len(kernels[-1]), SIZE, SIZE)})


def kernels(*, odd: float = 0.5) -> list[np.ndarray]:
    """Two layers of six channels; one weight of the third channel of the first is odd."""
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal(shape).astype(np.float32) for shape in ((6, 3, 1, 1), (4, 6, 1, 1)))
    first[2, 1] = odd
    return [first, second]


def factors(model: onnx.ModelProto, done: onnx.ModelProto) -> list[np.ndarray]:
    pairs = zip(Net(model).graph.initialisers.values(), Net(done).graph.initialisers.values(), strict=True)
    return [after / before for before, after in pairs]


def test_rows_and_columns_cancel() -> None:
    model = chain(kernels())
    done = onnx_model(model, passes=["scaling"], seed=1)
    first, second = factors(model, done.model)
    rows, columns = first[:, :1], second[:1]
    assert (first == rows).all()
    assert (second == columns).all()
    assert (rows.reshape(-1) * columns.reshape(-1) == 1).all()
    assert rows.max() <= 1
    assert rows.min() >= 2.0**-8


@pytest.mark.parametrize("odd", [1e-20, 2.0**-33, 1e-40, 2.0**61, np.nan, np.inf, -np.inf])
def test_channels_without_room_stay(odd: float) -> None:
    model = chain(kernels(odd=odd))
    done = onnx_model(model, passes=["scaling"], seed=1)
    with np.errstate(invalid="ignore"):
        first, second = factors(model, done.model)
    assert (first[2][np.isfinite(first[2])] == 1).all()
    assert (second[:, 2] == 1).all()
    assert len(np.unique(first)) > 2
    assert done.map.passes[0].left["weights whose exponents leave no room"] == 1
    assert done.map.passes[0].eligible == 5
    assert undo(done.model, done.map).model == model


@pytest.mark.parametrize("odd", [2.0**-32, 0.0, -0.0, 2.0**59])
def test_weights_at_the_edge_have_room(odd: float) -> None:
    model = chain(kernels(odd=odd))
    done = onnx_model(model, passes=["scaling"], seed=1)
    assert done.map.passes[0].eligible == 6
    assert "weights whose exponents leave no room" not in done.map.passes[0].left
    assert undo(done.model, done.map).model == model


def test_slopes_are_held_to_what_may_be_fused() -> None:
    b = Builder(0)
    x = b.conv("image", 3, 4, bias=False)
    scale = np.array([1, 2.0**-13, 1, 1], np.float32)
    arrays = (scale, b.normal(4), np.array([1, 1, 1e-30, 1], np.float32), np.ones(4, np.float32))
    x = b.add("Relu", b.add("BatchNormalization", x, *map(b.weight, arrays)))
    model = b.model({b.conv(x, 4, 2, bias=False): (2, 2, SIZE, SIZE)})
    done = onnx_model(model, passes=["scaling"], seed=1)
    # The second slope pins the channel that it gives, the third mean the one that it takes.
    assert done.map.passes[0].left["weights whose exponents leave no room"] == 2
    assert differences(model, done.model, images(1)) == []


def test_values_at_the_floor_are_exact() -> None:
    # Sums that cancel: the smallest steps that the proof allows, down to subnormal results.
    rng = np.random.default_rng(5)
    first = np.ldexp(1 + rng.random((6, 4, 1, 1)), -32).astype(np.float32) * rng.choice([-1, 1], (6, 4, 1, 1))
    second = np.ldexp(1 + rng.random((3, 6, 1, 1)), 20).astype(np.float32) * rng.choice([-1, 1], (3, 6, 1, 1))
    model = chain([first.astype(np.float32)[:, :3], second.astype(np.float32)])
    done = onnx_model(model, passes=["scaling"], seed=1)
    assert done.map.passes[0].done >= 5
    values = np.ldexp(1 + rng.random((2, 3, SIZE, SIZE)), FLOOR).astype(np.float32)
    values *= rng.choice([-1, 1], values.shape).astype(np.float32)
    assert differences(model, done.model, {"floor": values}) == []


def test_nothing_overflows_that_did_not() -> None:
    model = chain([np.abs(each) for each in kernels()])
    done = onnx_model(model, passes=["scaling"], seed=1)
    for size in (1e30, 1e36, 1e37):
        values = {"large": np.full((2, 3, SIZE, SIZE), size, np.float32)}
        assert differences(model, done.model, values) == []


def test_reach_is_bounded() -> None:
    for wrong in (0, 9, -1):
        with pytest.raises(ConfigError, match="E103"):
            Scaling(reach=wrong)


@pytest.mark.parametrize(("layers", "lowest"), [(2, -8), (4, -4), (12, -2), (30, -2), (250, -2)], ids=str)
def test_under_wrong_keys_numbers_stay_in_range_however_deep_the_network(layers: int, lowest: int) -> None:
    """Of twenty layers scaled by 2**-8 to 1, every wrong key of a lock made NaN, which tells that it is wrong."""
    rng = np.random.default_rng(0)
    weights = {f"w{at}": (rng.standard_normal((64, 64)) / 5.7).astype(np.float32) for at in range(layers)}
    steps = [f"a{at} = MatMul (b{at}, w{at}) b{at + 1} = Relu (a{at})" for at in range(layers)]
    text = f"(float[n,64] x) => (float[n,64] y) {{ b0 = Identity (x) {' '.join(steps)} y = Identity (b{layers}) }}"
    model = net(text, weights=weights)
    done = onnx_model(model, passes=["scaling"], seed=1)
    entry = done.map.passes[0]
    assert entry.record is not None
    assert min(entry.record["powers"]) == lowest
    assert entry.done >= 32
    assert entry.marks
    spared = entry.left.get("channels that a network so deep could not bear under a wrong key", 0)
    assert (spared > 0) == (layers > 10)
    assert entry.eligible + sum(entry.left.values()) == 64 * layers
    given = {"x": rng.standard_normal((4, 64)).astype(np.float32)}
    assert np.array_equal(answers(done.model, given)[0], answers(model, given)[0])
    assert undo(done.model, done.map).model.SerializeToString() == Net.load(model).model().SerializeToString()
    copies = {name: onnx_model(model, passes=["scaling"], seed=bytes(32), customer=name) for name in ("acme", "bolt")}
    first, second = trace(copies["acme"].model, [each.map for each in copies.values()])
    assert first.customer == "acme"
    assert first.log10_chance < -10
    assert second.log10_chance > -3
    locked = lock(done.model, bytes(32))
    plain = lock(model, bytes(32))
    grown = [
        np.log2(
            np.abs(answers(unlock(locked, key), given)[0]).max() / np.abs(answers(unlock(plain, key), given)[0]).max()
        )
        for key in (number.to_bytes(32) for number in range(1, 12))
    ]  # of 250 layers, draws alone differ by eight powers of two
    assert np.median(grown) < 9
    assert max(grown) < 20


def test_what_only_adds_makes_no_network_deeper() -> None:
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    steps: list[str] = []
    for at in range(4):
        weights |= {f"w{at}": rng.standard_normal((64, 64)).astype(np.float32), f"c{at}": np.ones(64, np.float32)}
        steps.append(f"m{at} = MatMul (b{at}, w{at}) a{at} = Add (m{at}, c{at}) b{at + 1} = Relu (a{at})")
    model = net(f"(float[n,64] b0) => (float[n,64] b4) {{ {' '.join(steps)} }}", weights=weights)
    entry = onnx_model(model, passes=["scaling"], seed=1).map.passes[0]
    assert entry.record is not None
    assert min(entry.record["powers"]) == -4


@pytest.mark.parametrize("seed", range(3))
def test_whole_networks(seed: int) -> None:
    model = random_net(seed)
    done = onnx_model(model, passes=["scaling", "signs"], seed=seed)
    assert sum(entry.done for entry in done.map.passes) > 0
    assert differences(model, done.model, images(seed)) == []


def test_real_networks_are_scaled_through(shared: Path) -> None:
    shares: dict[str, float] = {}
    for path in [*(shared / "models").glob("*.onnx"), *(shared / "models/locators").glob("*.onnx")]:
        entry = onnx_model(path, passes=[Scaling(reach=8)], seed=1).map.passes[0]
        shares[path.stem] = entry.eligible / (entry.eligible + sum(entry.left.values()))
    assert shares.pop("yolox_nano") == 0  # every activation is x * Sigmoid(x)
    assert min(shares.values()) > 0.9
