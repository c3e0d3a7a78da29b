"""How large the answers of obfuscated and locked networks are for whoever has a wrong key: about as large as others."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_nets import answers, net
from vambrace.assets.obfuscate.locking import lock, unlock
from vambrace.assets.obfuscate.pipeline import onnx_model

KEY = bytes(range(32))


def he(*shape: int) -> np.ndarray:
    """Weights that keep the size of what a Relu lets through."""
    draw = np.random.default_rng(sum(shape))
    return (draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def chain(layers: int, relu: int) -> onnx.ModelProto:
    """Convolutions of sixteen channels with x * sigmoid(x) behind them, and one Relu: one layer can be scaled."""
    steps = [
        f"a{at} = Conv <pads=[1,1,1,1]> (b{at}, w{at}) "
        + (f"b{at + 1} = Relu (a{at})" if at == relu else f"s{at} = Sigmoid (a{at}) b{at + 1} = Mul (a{at}, s{at})")
        for at in range(layers)
    ]
    return net(
        f"(float[n,16,8,8] x) => (float[n,16,8,8] y) "
        f"{{ b0 = Identity (x) {' '.join(steps)} y = Identity (b{layers}) }}",
        weights={f"w{at}": he(16, 16, 3, 3) for at in range(layers)},
    )


def plain(layers: int) -> onnx.ModelProto:
    return net(
        "(float[n,16,8,8] x) => (float[n,16,8,8] y) { b0 = Identity (x) "
        + " ".join(f"a{at} = Conv <pads=[1,1,1,1]> (b{at}, w{at}) b{at + 1} = Relu (a{at})" for at in range(layers))
        + f" y = Identity (b{layers}) }}",
        weights={f"w{at}": he(16, 16, 3, 3) for at in range(layers)},
    )


def blocks(count: int) -> onnx.ModelProto:
    """Two convolutions with a Relu between them, added to what they take."""
    steps = [
        f"c{at} = Conv <pads=[1,1,1,1]> (b{at}, v{at}) d{at} = Relu (c{at}) "
        f"e{at} = Conv <pads=[1,1,1,1]> (d{at}, w{at}) b{at + 1} = Add (b{at}, e{at})"
        for at in range(count)
    ]
    weights = {f"{name}{at}": he(16, 16, 3, 3) / 2 for at in range(count) for name in "vw"}
    return net(
        f"(float[n,16,8,8] x) => (float[n,16,8,8] y) {{ b0 = Identity (x) {' '.join(steps)} y = Identity (b{count}) }}",
        weights=weights,
    )


def recurrent() -> onnx.ModelProto:
    """A Relu in a loop of forty steps, beside a layer that is scaled: none of its factors may come into the loop."""
    return net(
        """(float[40,n,8] x) => (float[n,10] y) {
            steps, last = RNN <hidden_size = 32, activations = ["Relu"]> (x, w, r)
            a = Squeeze (last, zero)
            b = MatMul (a, v)
            c = Relu (b)
            y = MatMul (c, u)
        }""",
        weights={
            "w": he(1, 32, 8), "r": he(1, 32, 32) * 3, "v": he(32, 32), "u": he(32, 10), "zero": np.array([0])
        },
        opset=17,
    )  # fmt: skip


def dying() -> onnx.ModelProto:
    """Convolutions, each with a batch normalisation behind it, of which two of sixteen channels all but died."""
    live = np.ones(16, np.float32)
    live[[3, 11]] = 1e-3
    steps = [
        f"a{at} = Conv <pads=[1,1,1,1]> (b{at}, w{at}) c{at} = BatchNormalization (a{at}, s, z, z, v{at}) "
        f"b{at + 1} = Relu (c{at})"
        for at in range(12)
    ]
    draw = np.random.default_rng(0)
    return net(
        "(float[n,16,8,8] x) => (float[n,16,8,8] y) "
        f"{{ b0 = Identity (x) {' '.join(steps)} y = Identity (b12) }}",
        weights={
            **{f"w{at}": he(16, 16, 3, 3) * live[:, None, None, None] for at in range(12)},
            **{f"v{at}": (live**2 * draw.uniform(0.9, 1.1, 16)).astype(np.float32) for at in range(12)},
            "s": np.ones(16, np.float32), "z": np.zeros(16, np.float32),
        },
    )  # fmt: skip


def quantised() -> onnx.ModelProto:
    """Unsigned weights whose zero is far from the middle."""
    draw = np.random.default_rng(0)
    steps = [
        f"d{at} = DequantizeLinear (w{at}, s, z) a{at} = MatMul (b{at}, d{at}) b{at + 1} = Relu (a{at})"
        for at in range(12)
    ]
    return net(
        f"(float[n,64] x) => (float[n,64] y) {{ b0 = Identity (x) {' '.join(steps)} y = Identity (b12) }}",
        weights={
            **{f"w{at}": np.clip(np.rint(draw.normal(97, 25, (64, 64))), 0, 255).astype(np.uint8) for at in range(12)},
            "s": np.float32(0.0071), "z": np.uint8(97),
        },
    )  # fmt: skip


@pytest.mark.parametrize("passes", [[], ["scaling"], ["phantoms"], ["scaling", "phantoms", "permutation"]])
@pytest.mark.parametrize(
    "model",
    [chain(40, 20), plain(12), blocks(1), blocks(2), blocks(12), recurrent(), dying(), quantised()],
    ids=["one Relu", "chain", "block", "two blocks", "blocks", "recurrent", "dying", "quantised"],
)
def test_wrong_keys_answer_with_numbers_of_the_usual_size(model: onnx.ModelProto, passes: list[str]) -> None:
    """Of the small weights of all layers in one pool, phantoms alone made 1e18, and scaling infinities."""
    draw = np.random.default_rng(0)
    given: dict[str, Any] = {"x": draw.standard_normal([4 if each.dim_param else each.dim_value for each in
                                                       model.graph.input[0].type.tensor_type.shape.dim])
                             .astype(np.float32)}  # fmt: skip
    expected = np.abs(answers(model, given)[0]).max()
    locked = lock(onnx_model(model, passes=passes, seed=1).model if passes else model, KEY)
    most = 2.0**11 if "scaling" in passes else 2.0**4
    found = [np.abs(answers(unlock(locked, key.to_bytes(32)), given)[0]).max() for key in range(5)]
    assert np.median(found) < most * expected
    assert max(found) < 16 * most * expected
