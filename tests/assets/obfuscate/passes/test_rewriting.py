"""Passes that replace nodes: answers stay, they survive onnxruntime, and what can be undone comes back bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from exact_nets import Builder
from onnx_nets import answers, apart, attention, feeds, net, operators, optimised_operators, residual
from vambrace.assets.obfuscate.keyed import Stream
from vambrace.assets.obfuscate.locking import lock, unlock
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.base import Applied, Pass
from vambrace.assets.obfuscate.passes.chains import ChainLayers
from vambrace.assets.obfuscate.passes.disguises import Disguises
from vambrace.assets.obfuscate.passes.fission import SplitLayers
from vambrace.assets.obfuscate.passes.fusion import FuseLinear
from vambrace.assets.obfuscate.passes.norms import FoldNorms, InsertNorms
from vambrace.assets.obfuscate.passes.packing import PackWeights
from vambrace.assets.obfuscate.pipeline import SLOWDOWN, onnx_model, undo
from vambrace.errors import ConfigError

KEY = bytes(range(32))
ALL: list[Pass] = [
    *(SplitLayers(share=1.0, ways=(way,)) for way in ("outputs", "inputs", "kernel", "through")),
    SplitLayers(share=1.0),
    ChainLayers(share=1.0, cost=4.0),
    Disguises(share=1.0),
    FoldNorms(),
    FuseLinear(),
    InsertNorms(share=1.0),
    PackWeights(share=1.0, convolutions=True, largest=10**6),
]


def done(one: Pass, model: onnx.ModelProto, key: bytes = KEY) -> tuple[onnx.ModelProto, Applied, Net]:
    edited = Net.load(model)
    applied = one.apply(edited, Stream(key))
    return edited.model(), applied, edited


def title(one: object) -> str:
    return (
        one.name + "-".join(getattr(one, "ways", ())) if isinstance(one, Pass) else getattr(one, "__name__", str(one))
    )


def old(opset: int = 9) -> onnx.ModelProto:
    """In an operator set with attributes for what are inputs now, IR version 3, and weights among the inputs."""
    return net(
        """(float[n,4,6,6] x, float[8,4,3,3] w, float[8] b, float[5,72] v, float[5] c) => (float[n,5] y) {
            a = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w, b)
            r = Relu (a)
            s = LeakyRelu <alpha=0.2> (r)
            f = Flatten (s)
            g = Gemm <transB=1> (f, v, c)
            y = Softmax <axis=1> (g)
        }""",
        weights={"w": (8, 4, 3, 3), "b": (8,), "v": (5, 72), "c": (5,)},
        opset=opset,
        ir=3,
    )


def spelled() -> onnx.ModelProto:
    """All operators that have other forms."""
    return net(
        """(float[n,6,4,4] x) => (float[n,3] y) {
            a = HardSwish (x)
            b = Sigmoid (a)
            c = Tanh (x)
            d = Add (b, c)
            e = LeakyRelu <alpha=-0.5> (d)
            f = Sub (e, x)
            g = GlobalAveragePool (f)
            h = Flatten (g)
            i = Gelu (h)
            j = Gemm (i, w)
            y = Softmax (j)
        }""",
        weights={"w": (6, 3)},
        opset=20,
        ir=9,
    )


def free_rows(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inputs and outputs of any number of rows."""
    weights = {each.name for each in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in weights:
            value.type.tensor_type.shape.dim[0].dim_param = "n"
    return model


@pytest.mark.parametrize("one", ALL, ids=title)
@pytest.mark.parametrize("make", [residual, attention, old, spelled])
def test_answers_stay(make, one: Pass) -> None:
    model = make()
    given = feeds(model, rows=8)
    before = answers(model, given)
    for number in range(3):
        changed, applied, edited = done(one, model, Stream(KEY, number).bytes(32))
        onnx.checker.check_model(changed, full_check=True)
        assert apart(before, answers(changed, given)) < 5e-6
        assert apart(before, answers(changed, given, "disabled")) < 5e-6
        assert (applied.done > 0) == (changed.SerializeToString() != Net.load(model).model().SerializeToString())
        if applied.record is not None:
            one.undo(edited, applied.record)
            assert edited.model().SerializeToString() == Net.load(model).model().SerializeToString()


@pytest.mark.parametrize(
    ("one", "make", "places"),
    [
        (SplitLayers(share=1.0, ways=("outputs",)), residual, 5),
        (SplitLayers(share=1.0, ways=("inputs",)), residual, 5),
        (SplitLayers(share=1.0, ways=("kernel",)), residual, 2),
        (SplitLayers(share=1.0, ways=("through",)), residual, 1),
        (SplitLayers(share=1.0, ways=("through",)), attention, 1),
        (SplitLayers(share=1.0), attention, 6),
        (ChainLayers(share=1.0, cost=0.6), residual, 4),
        (Disguises(share=1.0), residual, 7),
        (Disguises(share=1.0), spelled, 11),
        (Disguises(share=1.0), old, 5),
        (FoldNorms(), residual, 2),
        (InsertNorms(share=1.0), residual, 4),
        (PackWeights(share=1.0), attention, 15),
        (PackWeights(share=1.0, convolutions=True), residual, 16),
    ],
    ids=title,
)
def test_places_that_are_found(one: Pass, make, places: int) -> None:
    _, applied, _ = done(one, make())
    assert applied.done == places
    assert applied.done <= applied.eligible


def test_old_weights_are_gone() -> None:
    """What was split or packed must not stand in the file beside its parts."""
    model = residual()
    sizes = {tuple(each.dims) for each in model.graph.initializer if len(each.dims) > 1}
    for one in (SplitLayers(share=1.0, ways=("outputs",)), PackWeights(share=1.0, convolutions=True)):
        changed, _, _ = done(one, model)
        left = {tuple(each.dims) for each in changed.graph.initializer}
        assert not left & (sizes - {(8, 1, 3, 3)})  # the convolution in groups is not split
        bytes_before = sum(len(each.raw_data) for each in model.graph.initializer)
        assert sum(len(each.raw_data) for each in changed.graph.initializer) < 2 * bytes_before


@pytest.mark.parametrize(("pads", "rows"), [((2, 2), 5), ((2, 0), 3), ((0, 2), 3), ((1, 1), 3), ((0, 0), 3)])
def test_kernels_are_cut_where_the_smallest_picture_has_rows_enough(pads: tuple[int, int], rows: int) -> None:
    """Where more rows were cut off than there were, the answer had more rows than it should."""
    above, below = pads
    model = net(
        f"(float[n,3,h,4] x) => (float[n,4,k,4] y) {{ a = Relu (x)\n y = Conv <pads=[{above},0,{below},0]> (a, w) }}",
        weights={"w": (4, 3, rows, 1)},
    )
    for seed in range(4):
        changed = onnx_model(model, profile="tolerance", passes=[SplitLayers(share=1.0, ways=("kernel",))], seed=seed)
        assert changed.map.passes[0].done == 1
        for height in range(rows - above - below, 6):
            if height > 0:
                given = feeds(model, free=height)
                assert apart(answers(model, given), answers(changed.model, given)) < 2e-6


# Two layers of as many channels, of which each layer, or what is between them, takes another axis for the channels.
ACROSS = {
    "a matrix, then a filter": "(float[n,8,8] x) => (float[n,5,8] y) { a = MatMul (x, w)\n y = Conv (a, w5) }",
    "a filter, then a matrix": "(float[n,8,8] x) => (float[n,8,5] y) { a = Conv (x, w1)\n y = MatMul (a, w2) }",
    "pooled across": (
        "(float[n,6,8] x) => (float[n,6,5] y) {"
        " a = MatMul (x, w)\n b = MaxPool <kernel_shape=[3], pads=[1,1]> (a)\n y = MatMul (b, w2) }"
    ),
    "normalised across": (
        "(float[n,8,8] x) => (float[n,8,5] y) {"
        " a = MatMul (x, w)\n b = BatchNormalization (a, s, s, s, s)\n y = MatMul (b, w2) }"
    ),
}


@pytest.mark.parametrize("which", ACROSS)
def test_layers_whose_channels_lie_along_different_axes_are_not_branches(which: str) -> None:
    weights = {"w": (8, 8), "w1": (8, 8, 1), "w2": (8, 5), "w5": (5, 8, 1), "s": np.full(8, 0.5, np.float32)}
    model = net(ACROSS[which], weights=weights)
    changed, applied, _ = done(SplitLayers(share=1.0, ways=("through",)), model)
    given = feeds(model)
    assert apart(answers(model, given), answers(changed, given)) < 2e-6
    assert applied.done == 0


@pytest.mark.parametrize(
    ("one", "left"),
    [
        (ChainLayers(share=1.0, cost=4.0), {"layers of no weight below zero": 1}),
        (InsertNorms(share=1.0), {"layers of no weight below zero": 1}),
        (PackWeights(share=1.0), None),
    ],
    ids=title,
)
def test_filterbanks_stay_for_what_takes_their_sums(one: Pass, left: dict[str, int] | None) -> None:
    """Roots and logarithms take what they give, which under a wrong key would be no number."""
    body = "a = Relu (x) m = MatMul (a, bank) e = Add (m, small) l = Log (e) r = Tanh (l) y = MatMul (r, w)"
    bank = np.maximum(1 - np.abs(np.subtract.outer(np.arange(8), np.arange(8))) / 4, 0).astype(np.float32)
    model = net(
        f"(float[n,8] x) => (float[n,8] y) {{ {body} }}",
        weights={"bank": bank, "small": np.float32(1e-6), "w": (8, 8)},
    )
    changed, applied, edited = done(one, model)
    assert applied.done == 1  # the other matrix
    assert (edited.graph.initialisers["bank"] == bank).all()
    assert left is None or applied.left == left
    assert apart(answers(model, feeds(model)), answers(changed, feeds(model))) < 2e-6


@pytest.mark.parametrize("way", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_normalisations_before_convolutions_that_pad_by_themselves(way: str) -> None:
    """The zeros around the edge are no less there where the file does not count them."""
    model = net(
        f'(float[n,3,6,6] x) => (float[n,4,h,w] y) {{ a = Relu (x)\n y = Conv <auto_pad="{way}"> (a, w, b) }}',
        weights={"w": (4, 3, 3, 3), "b": (4,)},
    )
    changed, applied, _ = done(InsertNorms(share=1.0), model)
    assert applied.done == 1
    given = feeds(model)
    assert apart(answers(model, given), answers(changed, given)) < 2e-6


@pytest.mark.parametrize(
    ("one", "make", "more"),
    [
        (SplitLayers(share=1.0, ways=("outputs",)), residual, {"Conv": 3, "Gemm": 3, "Concat": 5}),
        (SplitLayers(share=1.0, ways=("inputs",)), residual, {"Conv": 3, "Gemm": 2, "Split": 5}),
        (SplitLayers(share=1.0, ways=("kernel",)), residual, {"Conv": 2}),
        (ChainLayers(share=1.0, cost=0.6), residual, {"Conv": 2}),
        (InsertNorms(share=1.0), residual, {"BatchNormalization": 2, "Conv": 2}),
        (PackWeights(share=1.0), attention, {"Slice": 15}),
        (Disguises(share=1.0, operators=("Softmax", "Gemm")), attention, {"Softmax": -1, "Gemm": -1, "Conv": 1}),
    ],
    ids=title,
)
def test_they_survive_onnxruntime(one: Pass, make, more: dict[str, int], tmp_path: Path) -> None:
    before = optimised_operators(make(), tmp_path)
    after = optimised_operators(done(one, make())[0], tmp_path)
    for op, count in more.items():
        found = after.count(op) - before.count(op)
        assert found <= count if count < 0 else found >= count, (op, found)


def test_every_form_of_every_operator() -> None:
    """Each form alone, on values that include zeros of both signs, and on infinities and NaN."""
    from vambrace.assets.obfuscate.forms import FORMS

    values = np.array([[-50.0, -1.5, -1e-3, -0.0, 0.0, 1e-3, 1.5, 50.0, 80.0, -80.0]], np.float32)
    seen = set()
    for op in FORMS:
        pair = op in {"Add", "Sub"}
        taken = "(x, z)" if pair else "(x, w, b)" if op == "Gemm" else "(x)"
        rank = "float[n,10,1,1]" if op == "GlobalAveragePool" else "float[n,10]"
        body = f"({rank} x{', float[n,10] z' if pair else ''}) => (float[n,m] y) {{ y = {op} {taken} }}"
        body = body.replace("float[n,m]", "float[n,10,1,1]") if op == "GlobalAveragePool" else body
        model = net(body, weights={"w": (10, 3), "b": (3,)} if op == "Gemm" else {}, opset=20, ir=9)
        given = {"x": values.reshape(1, 10, 1, 1) if op == "GlobalAveragePool" else values}
        if pair:
            given["z"] = values[:, ::-1].copy()
        for number in range(30):
            changed, applied, _ = done(Disguises(share=1.0), model, Stream(KEY, op, number).bytes(32))
            assert applied.done == 1
            seen.add((op, tuple(operators(changed))))
            for level in ("all", "disabled"):
                assert np.allclose(
                    answers(changed, given, level)[0], answers(model, given, level)[0], rtol=2e-6, atol=1e-7
                )
            if op in {"Relu", "LeakyRelu", "Tanh", "Sigmoid"}:
                largest = float(np.finfo(np.float32).max)
                odd = {
                    "x": np.array(
                        [[np.nan, np.inf, -np.inf, largest, -largest, 0.0, 1e30, -1e30, 1e-40, 1.0]], np.float32
                    )
                }
                for level in ("all", "disabled"):
                    assert np.allclose(
                        answers(changed, odd, level)[0], answers(model, odd, level)[0], rtol=2e-6, equal_nan=True
                    )
    assert len(seen) == sum(len(forms) for forms in FORMS.values())


@pytest.mark.parametrize("opset", [*range(7, 23)])
@pytest.mark.parametrize("kind", ["float", "double"])
def test_every_form_runs_where_the_operator_runs(kind: str, opset: int) -> None:
    """onnxruntime lacks some operators of double precision in older operator sets."""
    from vambrace.assets.obfuscate.forms import FORMS

    ran = set()
    for op in FORMS.keys() - {"Gemm"}:  # whose forms hold for single precision alone
        places, pair = ",1,1" if op == "GlobalAveragePool" else "", op in {"Add", "Sub"}
        taken = "(x, z)" if pair else "(x)"
        body = (
            f"({kind}[n,10{places}] x{f', {kind}[n,10] z' if pair else ''}) => ({kind}[n,10{places}] y)"
            f" {{ y = {op} {taken} }}"
        )
        values = np.linspace(-3, 3, 20).astype("f" if kind == "float" else "d").reshape(2, 10, *[1] * places.count(","))
        given = dict.fromkeys(("x", "z")[: 1 + pair], values)
        try:
            model = net(body, weights={}, opset=opset, ir=8)
            before = answers(model, given)
        except Exception:  # noqa: BLE001, S112  the operator is not there; the errors share no base class
            continue
        ran.add(op)
        for number in range(8):
            changed, applied, _ = done(Disguises(share=1.0), model, Stream(KEY, op, number).bytes(32))
            assert applied.done == (applied.eligible > 0)
            assert np.allclose(answers(changed, given)[0], before[0], rtol=2e-6, atol=1e-6)
    assert ran >= {"Add", "Relu", "Sigmoid", "Softmax", "Sub", "Tanh"}


@pytest.mark.parametrize("one", ALL, ids=title)
@pytest.mark.parametrize("make", [residual, attention, old, spelled])
def test_batches_of_no_row_and_of_one_run(make, one: Pass) -> None:
    model = free_rows(make())
    given = feeds(model, rows=4)
    for number in range(3):
        changed, _, _ = done(one, model, Stream(KEY, number).bytes(32))
        for rows in (0, 1, 4):
            some = {name: array[:rows] for name, array in given.items()}
            for level in ("all", "disabled"):
                before, after = answers(model, some, level), answers(changed, some, level)
                assert [each.shape for each in before] == [each.shape for each in after]
                assert rows == 0 or apart(before, after) < 5e-6


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("place", ["h", "4"])
def test_flatten_of_sizes_that_calls_choose(place: str, rows: int) -> None:
    model = net(f"(float[n,2,{place}] x) => (float[n,k] y) {{ y = Flatten (x) }}", weights={})
    changed, applied, _ = done(Disguises(share=1.0), model)
    assert applied.done == (place == "4")
    given = {"x": np.ones((rows, 2, 4), np.float32)}
    assert answers(changed, given)[0].shape == (rows, 8)


@pytest.mark.parametrize("seed", range(3))
def test_sizes_of_zero_and_double_precision_run(seed: int) -> None:
    """onnxruntime convolves no double precision, so no matrix is written as a convolution there."""
    b = Builder(seed)
    first, second, nothing = (b.weight(b.normal(*size).astype(np.float64)) for size in ((6, 16), (16, 4), (0, 4)))
    x = b.add("Relu", b.add("Gemm", "image", first))
    none = b.add("MatMul", b.add("Slice", x, *(b.weight(np.array([n])) for n in (0, 0, 1))), nothing)
    model = b.model({b.add("Add", b.add("Gemm", x, second), none): ("n", 4)}, ("n", 6), kind=np.float64)
    changed = onnx_model(model, profile="tolerance", ratio="large", seed=seed).model
    given = {"image": b.normal(5, 6).astype(np.float64)}
    assert np.allclose(answers(changed, given)[0], answers(model, given)[0], rtol=1e-9, atol=1e-9)


def test_two_branches_keep_normalisations_pools_and_flatten() -> None:
    model = net(
        """(float[n,3,8,8] x) => (float[n,4] y) {
            a = Conv <pads=[1,1,1,1]> (x, w)
            b = BatchNormalization (a, s, t, m, v)
            c = Relu (b)
            d = MaxPool <kernel_shape=[2,2], strides=[2,2]> (c)
            f = Flatten (d)
            y = Gemm (f, g, h)
        }""",
        weights={
            "w": (10, 3, 3, 3), "s": (10,), "t": (10,), "m": (10,), "v": np.full(10, 2, np.float32), "g": (160, 4),
            "h": (4,),
        },
    )  # fmt: skip
    changed, applied, _ = done(SplitLayers(share=1.0, ways=("through",)), model)
    assert applied.done == 1
    assert operators(changed).count("BatchNormalization") == operators(changed).count("Flatten") == 2
    assert apart(answers(model), answers(changed)) < 2e-6


def test_rows_of_kernels_with_strides_dilations_and_uneven_padding() -> None:
    for attributes in (
        "strides=[2,1], pads=[2,1,1,2]",
        "dilations=[2,1], pads=[2,0,2,0]",
        "strides=[3,2], dilations=[2,2], pads=[4,4,4,4]",
        "pads=[0,0,3,0]",
        'auto_pad="VALID"',
    ):
        model = net(
            f"(float[n,2,h,w] x) => (float[n,3,p,q] y) {{ y = Conv <{attributes}> (x, k, b) }}",
            weights={"k": (3, 2, 4, 3), "b": (3,)},
        )
        for number in range(6):
            changed, applied, _ = done(SplitLayers(share=1.0, ways=("kernel",)), model, Stream(KEY, number).bytes(32))
            assert applied.done == 1
            for free in (11, 14):  # sizes that the file leaves free
                given = feeds(model, free=free)
                assert np.allclose(answers(model, given)[0], answers(changed, given)[0], atol=2e-6)


def test_fused_matrices() -> None:
    model = net(
        """(float[n,9] x) => (float[n,4] y) {
            a = MatMul (x, w0)
            b = Gemm <transB=1> (a, w1, b1)
            c = Gemm (b, w2, b2)
            d = Relu (c)
            e = MatMul (d, w3)
            y = MatMul (e, w4)
        }""",
        weights={
            "w0": (9, 12), "w1": (7, 12), "b1": (7,), "w2": (7, 8), "b2": (8,), "w3": (8, 1), "w4": (1, 4),
        },
    )  # fmt: skip
    changed, applied, _ = done(FuseLinear(), model)
    assert applied.done == 2  # and not the last two, whose product has more elements than they have
    assert operators(changed) == ["Gemm", "Relu", "MatMul", "MatMul"]
    assert apart(answers(model), answers(changed)) < 2e-6
    none, applied, _ = done(FuseLinear(share=0.0), model)
    assert (applied.eligible, applied.done, len(none.graph.node)) == (2, 0, 6)


def test_normalisations_are_folded_into_transposed_convolutions_and_matrices() -> None:
    norm = {"s": (6,), "t": (6,), "m": (6,), "v": np.linspace(0.5, 2, 6).astype(np.float32)}
    model = net(
        """(float[n,4,5,5] x) => (float[n,6,k,k] y) {
            a = ConvTranspose <strides=[2,2]> (x, w, b)
            y = BatchNormalization <epsilon=0.01> (a, s, t, m, v)
        }""",
        weights={"w": (4, 6, 3, 3), "b": (6,), **norm},
    )
    changed, applied, _ = done(FoldNorms(), model)
    assert operators(changed) == ["ConvTranspose"]
    assert np.allclose(answers(model)[0], answers(changed)[0], atol=1e-5)
    model = net(
        """(float[n,4] x) => (float[n,6] y) {
            a = Gemm (x, w, b)
            y = BatchNormalization (a, s, t, m, v)
        }""",
        weights={"w": (4, 6), "b": (6,), **norm},
    )
    changed, applied, _ = done(FoldNorms(), model)
    assert operators(changed) == ["Gemm"]
    assert np.allclose(answers(model)[0], answers(changed)[0], atol=1e-5)


def test_weights_that_others_read_as_well_are_not_packed() -> None:
    model = net(
        """(float[n,4] x) => (float[n,4] y) {
            a = MatMul (x, w)
            b = Pow (w, two)
            y = MatMul (a, b)
        }""",
        weights={"w": (4, 4), "two": np.float32(2)},
    )
    assert done(PackWeights(share=1.0), model)[1].eligible == 0


def test_what_was_packed_can_be_locked() -> None:
    """With variances in it the vector could not: a root is taken of them, and so all of it would stay in clear."""
    body = """(float[n,6] x) => (float[n,4] y) {
        h = MatMul (x, w)  r = Relu (h)  b = BatchNormalization (r, scale, shift, mean, spread)  y = MatMul (b, v)
    }"""
    weights = {"w": (6, 12), "v": (12, 4), "scale": (12,), "shift": (12,), "mean": (12,)}
    model = net(body, weights=weights | {"spread": np.linspace(0.5, 2, 12).astype(np.float32)})
    for passes in ([PackWeights(share=1.0)], [InsertNorms(share=1.0), PackWeights(share=1.0)]):
        packed = onnx_model(model, profile="tolerance", passes=passes, seed=1).model
        locked = lock(packed, KEY)
        assert unlock(locked, KEY) == packed
        assert all(np.isfinite(answers(unlock(locked, bytes([key] * 32)))[0]).all() for key in range(20))


def test_tokens_are_a_source_for_predicates() -> None:
    model = net(
        "(int64[n,t] x) => (float[n,t,3] y) { e = Gather (table, x)\n a = MatMul (e, w)\n y = Add (a, b) }",
        weights={"table": (8, 4), "w": (4, 3), "b": (3,)},
    )
    changed, applied, _ = done(PackWeights(share=1.0), model)
    assert applied.done == 2
    given = feeds(model)
    assert np.array_equal(answers(model, given)[0], answers(changed, given)[0])


def test_the_way_back_is_whole_where_nothing_was_rounded() -> None:
    """mnist-like: nothing to fold, fuse or mix. What did round is named, and the rest is still led back."""
    model = old()
    wanted = ["fold_norms", "fuse_linear", "rebasis", "baked_permutation", "split_layers", "disguises", "pack_weights"]
    made = onnx_model(model, profile="tolerance", passes=wanted, ratio="large", seed=1)
    back = undo(made.model, made.map)
    assert back.kept == ()
    assert back.model.SerializeToString() == Net.load(model).model().SerializeToString()
    made = onnx_model(
        model, profile="tolerance", passes=[*wanted[:3], ChainLayers(share=1.0), *wanted[3:]], ratio="large", seed=1
    )
    back = undo(made.model, made.map)
    assert back.kept == ("chain_layers",)
    assert apart(answers(model), answers(back.model)) < 5e-6


def test_what_takes_time_is_bounded_unless_a_share_is_stated() -> None:
    """By an estimate from sizes; cheap places are taken where dear ones no longer fit."""
    b = Builder(0)
    x = b.add("Relu", b.conv("image", 3, 16))
    for _ in range(6):
        x = b.add("Relu", b.conv(x, 16, 16))
    x = b.add("Relu", b.conv(b.add("GlobalAveragePool", x), 16, 16, 1))
    model = b.model({x: (1, 16, 1, 1)}, shape=(1, 3, 96, 96))
    kinds = (SplitLayers, Disguises, InsertNorms, ChainLayers)
    for kind in kinds:
        one = kind(share=1.0, **({"cost": 4.0} if kind is ChainLayers else {}))
        everywhere = done(one, model)[1]
        assert everywhere.done > 4
        assert "what would take too long" not in everywhere.left
        some = done(dataclasses.replace(one, slowdown=0.01), model)[1]
        assert 0 < some.done < everywhere.done
        assert some.left["what would take too long"] == some.eligible - some.done
        assert done(dataclasses.replace(one, slowdown=0.0), model)[1].done == 0
        assert done(dataclasses.replace(one, slowdown=1e9), model)[1].done == everywhere.done
    given = feeds(model)
    made = onnx_model(model, profile="tolerance", seed=3)
    options = {entry.name: entry.options for entry in made.map.passes}
    assert all(options[kind.name]["slowdown"] == SLOWDOWN for kind in kinds)
    assert apart(answers(model, given), answers(made.model, given)) < 1e-5


def test_weights_are_packed_where_cutting_them_is_cheap() -> None:
    model = net(
        """(float[n,t,64] x) => (float[n,t,64] y) {
            a = MatMul (x, w)
            c = Add (a, b)
            d = MatMul (c, v)
            y = Add (d, b)
        }""",
        weights={"w": (64, 64), "v": (64, 64), "b": (64,)},
    )
    assert done(PackWeights(share=1.0), model)[1].done == 3
    assert done(PackWeights(share=1.0, slowdown=1e-6), model)[1].done == 0
    assert done(PackWeights(share=1.0, slowdown=1e9), model)[1].done == 3


def test_options_are_checked() -> None:
    for kind in (SplitLayers, ChainLayers, InsertNorms, Disguises, PackWeights):
        with pytest.raises(ConfigError, match="E838"):
            kind(slowdown=-0.1)
    for wrong in (
        lambda: SplitLayers(share=2.0),
        lambda: ChainLayers(share=-0.1),
        lambda: Disguises(share=1.5),
        lambda: PackWeights(share=9.0),
    ):
        with pytest.raises(ConfigError, match="E835"):
            wrong()
    for wrong in (
        lambda: SplitLayers(ways=()),
        lambda: SplitLayers(ways=("sideways",)),
        lambda: ChainLayers(cost=0.0),
        lambda: Disguises(operators=("Conv",)),
        lambda: PackWeights(largest=0),
    ):
        with pytest.raises(ConfigError, match="E838"):
            wrong()
