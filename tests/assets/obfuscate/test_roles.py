"""Weights that are only computed with are locked, wherever they go on their way."""

from __future__ import annotations

import warnings
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_nets import answers, feeds, net
from vambrace.assets.obfuscate.lock_entry import lock_entry
from vambrace.assets.obfuscate.locking import lock, unlock
from vambrace.assets.obfuscate.roles import held_tensors

KEY = bytes(range(32))


def roles(model: onnx.ModelProto) -> dict[str, str | None]:
    return {each.name: each.role for each in held_tensors(model)}


def differs(model: onnx.ModelProto, names: set[str]) -> None:
    """All these tensors are other ones in locked files, which run, and the right key gives the same bits.

    In some of five locks, and answers in most: a tensor of three elements stays as it is in one of 48.
    """
    given = feeds(model)
    right = answers(model, given)
    before = {each.name: numpy_helper.to_array(each.tensor) for each in held_tensors(model)}
    changed: set[str] = set()
    others: list[bool] = []
    for _ in range(5):
        locked = lock(model, KEY)
        after = {each.name: numpy_helper.to_array(each.tensor) for each in held_tensors(locked)}
        changed |= {name for name in before if not np.array_equal(before[name], after[name])}
        for one, two in zip(right, answers(unlock(locked, KEY), given), strict=True):
            assert np.array_equal(one, two)
        for wrong in (locked, unlock(locked, bytes(32))):
            found = answers(wrong, given)[0]
            assert np.isfinite(found).all()
            others.append(not np.allclose(found, right[0], rtol=1e-3))
    assert changed >= names
    assert sum(others) >= 8


COSINE = """(float[n,16] x) => (float[n,5] y) {
    l = ReduceL2 <axes = [1], keepdims = 1> (w)
    u = Div (w, l)
    t = Transpose <perm = [1, 0]> (u)
    y = MatMul (x, t)
}"""
# The same as torch writes a norm by hand: a power, a sum, a root.
BY_HAND = """(float[n,16] x) => (float[n,5] y) {
    two = Constant <value_float = 2.0> ()
    p = Pow (w, two)
    s = ReduceSum <keepdims = 1> (p, one)
    l = Sqrt (s)
    u = Div (w, l)
    t = Transpose <perm = [1, 0]> (u)
    y = MatMul (x, t)
}"""
POOLED = """(int64[n,10] x) => (float[n,4] y) {
    e = Gather (table, x)
    m = ReduceMean <axes = [1], keepdims = 0> (e)
    y = MatMul (m, w)
}"""
SHARED = """(float[n,16] x) => (float[n,16] y, float[16,16] w, float[16] b) {
    a = MatMul (x, w)
    e = Gemm (a, w)
    f = Add (e, b)
    g = ReduceSum <keepdims = 1> (w, one)
    h = Squeeze (g, one)
    y = Mul (f, h)
}"""
NORMED = """(float[n,8,20] x) => (float[n,4,18] y) {
    l = ReduceL2 <axes = [1, 2], keepdims = 1> (v)
    d = Div (v, l)
    k = Mul (d, g)
    y = Conv (x, k, b)
}"""
MAPPED = """(float[n,6] x) => (float[n,4] y) {
    s = Softmax (a)
    t = Tanh (s)
    e = Exp (c)
    m = Mul (t, e)
    p = Pow (m, half)
    z = MatMul (x, p)
    y = Add (z, r)
}"""
QUANTISED = """(float[n,6] x) => (float[n,4] y) {
    q = QuantizeLinear (w, s, z)
    d = DequantizeLinear (q, s, z)
    y = MatMul (x, d)
}"""
CARRIED = """(float[n,4] x) => (float[n,4] y) {
    y, t = Loop (three, , x, w) <
        body = b (int64 i, bool c, float[n,4] s, float[4,4] v) => (bool d, float[n,4] u, float[4,4] z) {
            d = Identity (c)
            u = MatMul (s, v)
            z = Identity (v)
        }>
}"""
CHOSEN = """(float[n,4] x) => (float[n,3] y) {
    zero = Constant <value_float = 0.0> ()
    total = ReduceSum <keepdims = 0> (x)
    yes = Greater (total, zero)
    w = If (yes) <
        then_branch = t () => (float[4,3] a) { a = Identity (one_w) },
        else_branch = e () => (float[4,3] c) { c = Neg (other_w) }>
    y = MatMul (x, w)
}"""


@pytest.mark.parametrize(
    ("body", "weights", "kept", "opset"),
    [
        (COSINE, {"w": (5, 16)}, set(), 17),
        (BY_HAND, {"w": (5, 16), "one": np.array([1])}, {"one", "two"}, 17),
        (POOLED, {"table": (200, 32), "w": (32, 4)}, set(), 17),
        (SHARED, {"w": (16, 16), "b": (16,), "one": np.array([1])}, {"one"}, 17),
        (NORMED, {"v": (4, 8, 3), "g": (4, 1, 1), "b": (4,)}, set(), 17),
        (MAPPED, {"a": (6, 4), "c": (6, 4), "half": np.float32(0.5), "r": (4,)}, {"half"}, 17),
        (QUANTISED, {"w": (6, 4), "s": np.float32(0.02), "z": np.int8(0)}, {"s", "z"}, 17),
        (CARRIED, {"w": (4, 4), "three": np.array(3)}, {"three"}, 17),
        (CHOSEN, {"one_w": (4, 3), "other_w": (4, 3)}, {"zero"}, 17),
    ],
    ids=["cosine", "by hand", "pooled", "shared", "weight norm", "mapped", "quantised", "carried", "chosen"],
)
def test_what_is_only_computed_with_is_locked(body: str, weights: Any, kept: set[str], opset: int) -> None:
    model = net(body, weights=weights, opset=opset)
    found = {name: role for name, role in roles(model).items() if name not in kept}
    assert set(found) == set(weights) - kept
    assert None not in found.values()
    differs(model, set(found))


def test_a_square_under_a_root_lets_signs_turn_and_other_powers_do_not() -> None:
    weights = {"w": np.random.default_rng(0).random((5, 16)).astype(np.float32), "one": np.array([1])}
    assert roles(net(BY_HAND, weights=weights, opset=17))["w"] == "apart"
    assert roles(net(BY_HAND.replace("2.0", "2.5"), weights=weights, opset=17))["w"] == "kept"
    given = net(BY_HAND.replace("(float[n,16] x)", "(float[n,16] x, float two)").replace(
        "    two = Constant <value_float = 2.0> ()\n", ""), weights=weights, opset=17)  # fmt: skip
    assert roles(given)["w"] == "kept"


def test_what_decides_how_a_model_runs_is_left_wherever_it_comes_from() -> None:
    """Floating numbers that become sizes or indices: with others, the model would not run at all."""
    model = net(
        """(float[n,4] x) => (float[n,2] y, float[k,m] z) {
            f = Floor (places)
            at = Cast <to = 7> (f)
            y = Gather <axis = 1> (x, at)
            r = Mul (x, x)
            s = Round (sizes)
            i = Cast <to = 7> (s)
            z = Resize (r, , , i)
        }""",
        weights={"places": np.array([3.2, 1.1], np.float32), "sizes": np.array([6.0, 8.0], np.float32)},
        opset=17,
    )
    assert roles(model) == {"places": None, "sizes": None}


def test_weights_that_functions_use() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[n,4] x) => (float[n,3] y) { y = own.layer (x, w) }
        <domain: "own", opset_import: ["" : 17]>
        layer (a, k) => (c) {
            b = Constant <value: tensor = float[3] {1, 2, 3}> ()
            l = ReduceL2 <axes = [0], keepdims = 1> (k)
            d = Div (k, l)
            m = MatMul (a, d)
            c = Add (m, b)
        }"""
    )
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    assert roles(model) == {"w": "apart", "b": "signed"}
    differs(model, {"w", "b"})


def test_quantised_weights_of_two_bytes() -> None:
    draw = np.random.default_rng(0).integers(-999, 999, (6, 4)).astype(np.int16)
    model = net(
        "(float[n,6] x) => (float[n,4] y) { d = DequantizeLinear (w, s) y = MatMul (x, d) }",
        weights={"w": draw, "s": np.float32(1e-3)},
        opset=21,
        ir=10,
    )
    assert lock_entry(lock(model, KEY)).roles == "s-"
    differs(model, {"w"})


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21, 23])
def test_old_and_new_operators(opset: int) -> None:
    """A norm and a mean by hand, at each form of their operators."""
    axes = opset >= 18
    nodes = [
        helper.make_node("ReduceL2", ["w", "at"] if axes else ["w"], ["l"], **({} if axes else {"axes": [1]})),
        helper.make_node("Div", ["w", "l"], ["u"]),
        helper.make_node("Transpose", ["u"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    weight = np.random.default_rng(opset).standard_normal((5, 16)).astype(np.float32)
    tensors = [numpy_helper.from_array(weight, "w"), *([numpy_helper.from_array(np.array([1]), "at")] if axes else [])]
    values = [helper.make_tensor_value_info("x", 1, ["n", 16]), helper.make_tensor_value_info("y", 1, ["n", 5])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
    assert roles(model)["w"] == "apart"
    differs(model, {"w"})


def test_a_trained_cosine_classifier_is_at_chance_without_its_key() -> None:
    """As torch exports it, nothing folded: 96 % right, and so it was for a locked file that had all of it in clear."""
    torch = pytest.importorskip("torch")
    draw = torch.Generator().manual_seed(0)
    middle = torch.randn(5, 16, generator=draw)
    labels = torch.randint(0, 5, (1000,), generator=draw)
    inputs = middle[labels] + torch.randn(1000, 16, generator=draw)

    class Cosine(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(middle.clone())

        def forward(self, x: Any) -> Any:
            return x @ (self.w / self.w.norm(dim=1, keepdim=True)).T

    import io

    raw = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Cosine().eval(), (inputs[:1],), raw, input_names=["x"], output_names=["y"], opset_version=17,
            dynamic_axes={"x": {0: "n"}}, dynamo=False, do_constant_folding=False,
        )  # fmt: skip
    model = onnx.load_from_string(raw.getvalue())

    def right(each: onnx.ModelProto) -> float:
        return float((answers(each, {"x": inputs.numpy()})[0].argmax(1) == labels.numpy()).mean())

    locked = lock(model, KEY)
    assert right(unlock(locked, KEY)) == right(model) > 0.9
    wrong = [right(unlock(locked, number.to_bytes(32))) for number in range(20)]
    assert abs(np.mean(wrong) - 0.2) < 0.15  # of 20 networks of 80 numbers each; open, it is 0.7 above


def test_an_attribute_that_refers_to_a_parameter_has_no_value() -> None:
    constant = helper.make_node("Constant", [], ["c"])
    constant.attribute.append(onnx.AttributeProto(name="value", ref_attr_name="val", type=onnx.AttributeProto.TENSOR))
    body = [constant, helper.make_node("Add", ["a", "c"], ["o"])]
    function = helper.make_function("my", "F", ["a"], ["o"], body, [helper.make_opsetid("", 17)], attributes=["val"])
    one = numpy_helper.from_array(np.array(1.0, np.float32))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("F", ["m"], ["y"], domain="my", val=one)]
    weights = [numpy_helper.from_array(np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32), "w")]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size]) for name, size in (("x", 6), ("y", 5))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], weights),
        functions=[function],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("my", 1)],
        ir_version=9,
    )
    onnx.checker.check_model(model, full_check=True)
    assert unlock(lock(model, bytes(32)), bytes(32)).SerializeToString(deterministic=True) == model.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("kind", [np.uint32, np.int32, np.int64])
def test_a_table_of_whole_numbers_is_a_weight_unless_something_is_indexed_by_it(kind: type) -> None:
    """Packed weights would stay in clear; positions in a window, as some transformers have them, are no secret."""
    table = np.random.default_rng(0).integers(0, 40, (40, 50)).astype(kind)
    packed = [
        helper.make_node("BitwiseAnd", ["table", "mask"], ["low"]),
        helper.make_node("Cast", ["low"], ["t"], to=onnx.TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    places = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Gather", ["m", "table"], ["y"], axis=1)]
    weights = [numpy_helper.from_array(np.ones((40, 40), np.float32), "w"), numpy_helper.from_array(table, "table")]
    weights.append(numpy_helper.from_array(np.array(15, kind), "mask"))
    given = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 40])]
    answer = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    for nodes, harmless in ((packed, False), (places, True)):
        found = held_tensors(helper.make_model(helper.make_graph(nodes, "g", given, answer, weights)))
        (held,) = (each for each in found if each.name == "table")
        assert (held.role, held.harmless) == (None, harmless)


def test_zero_points_of_whole_number_layers_are_put_in_order() -> None:
    kinds = {"x": onnx.TensorProto.UINT8, "y": onnx.TensorProto.INT32}
    ends = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    weights = [
        numpy_helper.from_array(np.random.default_rng(0).integers(-9, 9, (6, 5)).astype(np.int8), "w"),
        numpy_helper.from_array(np.array(0, np.uint8), "zero"),
        numpy_helper.from_array(np.zeros(5, np.int8), "zeros"),
    ]
    nodes = [helper.make_node("MatMulInteger", ["x", "w", "zero", "zeros"], ["y"])]
    found = roles(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)))
    assert found["zeros"] == "ordered"


@pytest.mark.parametrize(
    "chain",
    [
        "s = Mul (k, two) y = Resize (c, none, s)",
        "d = Shape (c) f = Cast<to=1> (d) g = Mul (f, k) h = Cast<to=7> (g) y = Resize (c, none, none2, h)",
        "d = Shape (c) f = Cast<to=1> (d) g = Mul (f, k) h = Cast<to=7> (g) y = ConstantOfShape (h)",
    ],
)
def test_factors_of_sizes_are_left_so_that_any_key_runs(chain: str) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[n,3,8,8] x) => (float[a,b,d,e] y) { c = Conv (x, w) '
        + chain.replace("none2", "").replace("none", "")
        + " }"
    )
    values = {
        "w": np.random.default_rng(0).normal(size=(4, 3, 3, 3)),
        "k": np.array([1, 1, 2, 2]),
        "two": np.array([1, 1, 1.5, 1.5]),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name)
        for name, value in values.items()
        if f"{name}" in chain + "w"
    )
    found = roles(model)
    assert found["w"] == "signed"
    assert found["k"] is None
    feed = {"x": np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)}
    locked = lock(model, bytes(32))
    shapes = {each.shape for key in (0, 1, 2, 3) for each in answers(unlock(locked, bytes([key]) * 32), feed)}
    assert len(shapes) == 1


NUMBERS = """(float[n,8] x) => (float[n,4] y) {
    a = Cast <to = 1> (w)
    b = MatMul (x, a)
    r = Relu (b)
    c = Cast <to = 1> (v)
    y = MatMul (r, c)
}"""


@pytest.mark.parametrize("kind", [np.bool_, np.int32, np.int64, np.uint32])
def test_whole_numbers_and_truth_values_that_become_floating_are_weights(kind: type) -> None:
    """Layers of two values were left in clear, and nobody was told: a locked file did what the original does."""
    draw = np.random.default_rng(0).integers(0, 2, 192).astype(kind)
    model = net(NUMBERS, weights={"w": draw[:128].reshape(8, 16), "v": draw[128:].reshape(16, 4)})
    assert roles(model) == {"w": "ordered", "v": "ordered"}
    differs(model, {"w", "v"})


def test_whole_numbers_that_come_back_as_indices_stay() -> None:
    """With others, the model would not run."""
    model = net(
        """(float[n,8] x) => (float[n,40] y) {
            f = Cast <to = 1> (places)
            h = Mul (f, half)
            i = Cast <to = 7> (h)
            m = MatMul (x, w)
            y = Gather <axis = 1> (m, i)
        }""",
        weights={"places": np.arange(0, 80, 2), "half": np.float32(0.5), "w": (8, 40)},
    )
    assert roles(model) == {"places": None, "half": None, "w": "signed"}
    answers(unlock(lock(model, KEY), bytes(32)), feeds(model))


def test_what_no_operator_uses_is_locked_as_well() -> None:
    """A quantised model may still hold what it was made from, and the indices of a sort are all that some need."""
    model = net(
        """(float[n,8] x) => (float[n,4] y) {
            best, at = TopK (order, four)
            m = MatMul (x, w)
            y = Gather <axis = 1> (m, at)
        }""",
        weights={"w": (8, 16), "w_before": (16, 32), "order": (16,), "four": np.array([4]), "codes": np.arange(2000)},
    )
    kinds = {"w": "signed", "w_before": "signed", "order": "signed", "four": None, "codes": "ordered"}
    assert roles(model) == kinds
    differs(model, set(kinds) - {"four"})


def test_weights_inside_of_a_map_over_a_sequence() -> None:
    """What a body gives is used behind the node."""
    body = onnx.parser.parse_graph("b (float[4] s) => (float[4,3] o) { o = Identity (w) }")
    draw = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    body.initializer.append(numpy_helper.from_array(draw, "w"))
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["s"], axis=0, keepdims=0),
        helper.make_node("SequenceMap", ["s"], ["t"], body=body),
        helper.make_node("Constant", [], ["first"], value_int=0),
        helper.make_node("SequenceAt", ["t", "first"], ["v"]),
        helper.make_node("Sqrt", ["v"], ["r"]),
        helper.make_node("MatMul", ["x", "r"], ["y"]),
    ]
    values = [helper.make_tensor_value_info("x", 1, ["n", 4]), helper.make_tensor_value_info("y", 1, ["n", 3])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    assert roles(model) == {"w": "kept"}
    differs(model, {"w"})


@pytest.mark.parametrize("kind", ["float8_e4m3fnuz", "float8_e5m2fnuz"])
def test_zeros_of_types_that_have_one_keep_their_sign(kind: str) -> None:
    """The other zero is no number there, and one of them in a layer makes all answers none."""
    draw = np.random.default_rng(0).standard_normal((8, 16)) * (np.arange(16) % 3 > 0)
    weights = {"w": draw.astype(getattr(ml_dtypes, kind)), "v": draw.reshape(16, 8).astype(getattr(ml_dtypes, kind))}
    model = net(NUMBERS.replace("float[n,4] y", "float[n,8] y"), weights=weights, opset=21, ir=10)
    assert roles(model) == {"w": "ordered", "v": "ordered"}
    differs(model, {"w", "v"})


@pytest.mark.parametrize("first", [0, 1])
def test_functions_of_one_name_are_told_apart(first: int) -> None:
    """A weight was followed into the last of them, where it had the size's place."""
    opsets = [helper.make_opsetid("", 17)]
    functions = [
        helper.make_function(
            "own", "F", ["a", "b"], ["r"], [helper.make_node("MatMul", ["a", "b"], ["r"])], opsets, overload="product"
        ),
        helper.make_function(
            "own", "F", ["p", "q"], ["r"], [helper.make_node("Expand", ["p", "q"], ["r"])], opsets, overload="size"
        ),
    ]
    nodes = [
        helper.make_node("F", ["x", "w"], ["a"], domain="own", overload="product"),
        helper.make_node("F", ["a", "sizes"], ["y"], domain="own", overload="size"),
    ]
    values = [helper.make_tensor_value_info("x", 1, [1, 8]), helper.make_tensor_value_info("y", 1, [3, 4])]
    weight = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([3, 4]), "sizes")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    model = helper.make_model(
        graph,
        ir_version=10,
        opset_imports=[*opsets, helper.make_opsetid("own", 1)],
        functions=[functions[first], functions[1 - first]],
    )
    assert roles(model) == {"w": "signed", "sizes": None}
    differs(model, {"w"})


@pytest.mark.parametrize("step", ["n = Div (c, s)", "e = Identity (s) i = Reciprocal (e) n = Mul (c, i)"])
def test_a_divisor_gets_no_zero_from_other_tensors(step: str) -> None:
    """As models hold the mean and the deviation of their inputs: with zeros of a bias, NaN told of a wrong key."""
    model = net(
        f"""(float[n,3] x) => (float[n,4] y) {{
            c = Sub (x, m)
            {step}
            h = MatMul (n, w)
            b = Add (h, zeros)
            r = Relu (b)
            y = MatMul (r, v)
        }}""",
        weights={
            "m": np.array([0.4, 0.5, 0.6], np.float32),
            "s": np.array([0.20, 0.22, 0.23], np.float32),
            "w": (3, 16),
            "zeros": np.zeros(16, np.float32),
            "v": (16, 4),
        },
    )
    assert roles(model) == {"m": "signed", "s": "kept", "w": "signed", "zeros": "signed", "v": "signed"}
    locked = lock(model, KEY)
    for key in range(30):
        assert np.isfinite(answers(unlock(locked, key.to_bytes(32)), feeds(model))[0]).all()
