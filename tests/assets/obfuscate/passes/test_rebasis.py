import numpy as np
import onnx
import pytest

from onnx_nets import answers, apart, attention, feeds, net, residual
from vambrace.assets.obfuscate.keyed import Stream
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.rebasis import Rebasis

KEY = bytes(range(32))


def rebased(model: onnx.ModelProto, **options: object) -> tuple[Net, object]:
    edited = Net.load(model)
    return edited, Rebasis(**options).apply(edited, Stream(KEY))


def test_queries_keys_and_values_are_mixed_within_heads() -> None:
    model = attention()
    edited, applied = rebased(model)
    assert (applied.eligible, applied.done, applied.record) == (2, 2, None)
    given = feeds(model, rows=16)
    assert apart(answers(model, given), answers(edited.model(), given)) < 2e-6
    before, after = Net.load(model).graph.initialisers, edited.graph.initialisers
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"wq", "bq", "wk", "bk", "wv", "bv", "wo"}
    # Heads stay apart: what head 0 computes from the input spans the same space as before.
    for name in ("wq", "wk", "wv"):
        joined = np.concatenate([before[name][:, :6], after[name][:, :6]], axis=1)
        assert np.linalg.matrix_rank(joined.astype(np.float64), tol=1e-5) == 6


def test_weights_of_no_use_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix as large as their longest axis squared was made for them, and the way back was lost for nothing."""
    model = net(
        "(float[n,4] x) => (float[n,4] y) { y = Relu (x) }",
        weights={"left": (200_000, 2), "over": (30, 8)},
    )
    edited, applied = rebased(model)
    assert (applied.eligible, applied.done) == (0, 0)
    assert "weights that nothing reads, and more than 4096 channels" in applied.left
    assert edited.model() == Net.load(model).model()
    monkeypatch.setattr("vambrace.assets.obfuscate.passes.rebasis._MOST", 5)
    assert rebased(attention())[1].done == 0


def test_channels_become_mixtures() -> None:
    model = attention()
    edited, _ = rebased(model)
    old, new = Net.load(model).graph.initialisers["wv"], edited.graph.initialisers["wv"]
    cosines = np.abs(old.T @ new) / np.outer(np.linalg.norm(old, axis=0), np.linalg.norm(new, axis=0))
    assert cosines.max() < 0.995


def test_linear_layers_and_linear_bottlenecks() -> None:
    model = net(
        """(float[n,3,6,6] x) => (float[n,4] y) {
            a = Conv <pads=[1,1,1,1]> (x, w0, b0)
            e0 = Conv (a, w1)
            e1 = Relu (e0)
            e2 = Conv (e1, w2, b2)
            r = Add (e2, a)
            p0 = AveragePool <kernel_shape=[2,2], strides=[2,2]> (r)
            c = Conv <pads=[1,1,1,1]> (p0, w3)
            f = Flatten (c)
            g = MatMul (f, w4)
            y = Gemm (g, w5, b5)
        }""",
        weights={
            "w0": (8, 3, 3, 3), "b0": (8,), "w1": (16, 8, 1, 1), "w2": (8, 16, 1, 1), "b2": (8,), "w3": (5, 8, 3, 3),
            "w4": (45, 300), "w5": (300, 4), "b5": (4,),
        },
    )  # fmt: skip
    edited, applied = rebased(model)
    assert applied.done == 3  # the residual stream, what Flatten takes apart, and 300 channels in two blocks
    given = feeds(model, rows=16)
    assert apart(answers(model, given), answers(edited.model(), given)) < 5e-6


def test_what_is_not_linear_is_left_and_said() -> None:
    edited, applied = rebased(residual())
    assert applied.eligible == applied.done == 0
    assert applied.left == {"channels that pass through something that is not linear": 3}
    half = net(
        "(float16[n,4] x) => (float16[n,2] y) { h = MatMul (x, a)\n y = MatMul (h, b) }",
        weights={"a": np.ones((4, 3), np.float16), "b": np.ones((3, 2), np.float16)},
    )
    _, applied = rebased(half)
    assert applied.left == {"weights that are not float32 or float64, or are infinite": 1}


def test_a_constant_that_all_channels_share_is_not_linear() -> None:
    model = net(
        "(float[n,4] x) => (float[n,2] y) { h = MatMul (x, a)\n s = Add (h, c)\n m = Mul (s, c)\n y = MatMul (m, b) }",
        weights={"a": (4, 6), "b": (6, 2), "c": np.float32(2)},
    )
    assert rebased(model)[1].eligible == 0
    scaled = net(
        "(float[n,4] x) => (float[n,2] y) { h = MatMul (x, a)\n m = Div (h, c)\n y = MatMul (m, b) }",
        weights={"a": (4, 6), "b": (6, 2), "c": np.float32(2)},
    )
    edited, applied = rebased(scaled)
    assert applied.done == 1
    assert apart(answers(scaled), answers(edited.model())) < 2e-6


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan, 3e38])
def test_infinite_elements_are_not_mixed(value: float) -> None:
    """All channels got a part of it, and answers that were numbers were none."""
    model = net("(float[n,6] x) => (float[n,4] y) { a = Gemm (x, w0, b0) y = Gemm (a, w1, b1) }",
                weights={"w0": (6, 8), "b0": (8,), "w1": (8, 4), "b1": (4,)})  # fmt: skip
    assert rebased(model)[1].done == 1
    bias = next(each for each in model.graph.initializer if each.name == "b0")
    array = onnx.numpy_helper.to_array(bias).copy()
    array[3] = value
    bias.CopyFrom(onnx.numpy_helper.from_array(array, "b0"))
    assert rebased(model)[1].done == 0
