"""Which small tensors are locked together."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_nets import net
from vambrace.assets.obfuscate.pools import arrangements, moving, pools, split
from vambrace.assets.obfuscate.roles import held_tensors

DRAW = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Whichever tests ran before."""
    DRAW.bit_generator.state = np.random.default_rng(1).bit_generator.state


def normal(*shape: int, size: float = 1.0) -> np.ndarray:
    """Numbers of which the root of the mean square is exactly that."""
    array = DRAW.standard_normal(shape)
    return (array * size / np.sqrt(np.square(array).mean())).astype(np.float32)


def joined(sizes: dict[str, Any]) -> list[set[str]]:
    """Names of tensors that are locked together, of a sum of products with each of them."""
    lines = [f"p{name} = ReduceSum <keepdims = 0> ({name})" for name in sizes]
    text = f"(float[n] x) => (float[n] y) {{ {' '.join(lines)} y = Sum (x, {', '.join(f'p{n}' for n in sizes)}) }}"
    held = held_tensors(net(text, weights=sizes, opset=17))
    assert {each.role for each in held} == {"signed"}
    return [{held[number].name for number, _ in numbers} for numbers in pools(held, split(held))]


def test_numbers_of_like_size_are_mixed_and_others_are_not() -> None:
    sizes = {"a": normal(8, 8), "b": normal(8, 8, size=1.4), "c": normal(8, 8, size=1.5), "d": normal(8, 8, size=40)}
    assert joined(sizes) == [{"a", "b"}]
    assert joined({name: normal(8, 8) for name in "abcd"}) == [set("abcd")]
    # However many there are: half an octave is counted from the smallest, not from one to the next.
    chain = {name: normal(8, 8, size=1.2**at) for at, name in enumerate("abcdef")}
    assert joined(chain) == [{"a", "b"}, {"c", "d"}, {"e", "f"}]


def test_large_tensors_are_locked_by_themselves() -> None:
    assert joined({"a": normal(64, 64), "b": normal(64, 63), "c": normal(8, 8)}) == [{"b", "c"}]


def test_few_elements_are_mixed_with_the_nearest_by_size() -> None:
    """Ten numbers have 10! orders and 2**10 signs, which are 2**32 in all."""
    assert joined({"a": normal(64, 63, size=0.1), "b": normal(10, size=0.05), "c": normal(64, 63)}) == [{"a", "b"}]
    between = {"a": normal(64, 63, size=0.4), "b": normal(10), "c": normal(64, 63, size=1.7)}
    assert joined(between) == [{"b", "c"}]
    assert joined({"b": normal(10), "c": normal(10, size=3), "d": normal(10, size=9), "e": normal(10, size=20)}) == [
        {"b", "c", "d", "e"}
    ]


def test_a_few_large_numbers_are_not_mixed_with_many_small_ones() -> None:
    """They would make all of them larger, in each layer again; a few small ones become larger by eight at most."""
    assert joined({"a": normal(64, 63, size=0.1), "b": normal(10, size=10)}) == []
    assert joined({"a": normal(64, 63, size=0.1), "b": normal(10, size=0.12)}) == [{"a", "b"}]
    assert joined({"a": normal(64, 63), "b": normal(10, size=0.2)}) == [{"a", "b"}]
    assert joined({"a": normal(64, 63), "b": normal(10, size=0.1)}) == []


def test_zeros_are_mixed_where_they_are_few() -> None:
    """Among as many other numbers at least: they make those smaller."""
    zeros = np.zeros(50, np.float32)
    assert joined({"a": normal(10, 10), "z": zeros, "w": zeros}) == [{"a", "z", "w"}]
    mixed = joined({"a": normal(10, 10), "z": zeros, "w": zeros, "x": zeros})
    assert len(mixed) == 1
    assert len(mixed[0]) == 3
    assert joined({"a": normal(10, 10), "b": normal(30, 30, size=9), "z": zeros}) == [{"b", "z"}]
    assert joined({"z": zeros, "w": zeros}) == []


def parted(array: np.ndarray) -> list[int] | None:
    text = "(float[n,16] x) => (float[n,r] y) { t = Transpose (w) y = MatMul (x, t) }"
    found = split(held_tensors(net(text.replace("r]", f"{len(array)}]"), weights={"w": array})))
    return found[0].parts.tolist() if found else None


def test_rows_of_other_sizes_are_mixed_among_themselves() -> None:
    """Channels that all but died: an eighth of the median is another part, three quarters are not."""
    rows = np.stack([normal(16) for _ in range(9)])
    assert parted(rows) is None
    for size, part in ((0.75, None), (1.7, None), (1 / 8, 0), (5, 1), (1e-9, 0), (0.0, None)):
        other = rows.copy()
        other[4] *= size
        expected = None if part is None else [0 if at == 4 else 1 for at in range(9)]
        if part == 1:
            expected = [1 if at == 4 else 0 for at in range(9)]
        assert parted(other) == expected, size
    several = rows * np.array([1, 1, 1, 1, 1, 8, 64, 0.1, 1e-12], np.float32)[:, None]
    assert parted(several) == [2, 2, 2, 2, 2, 3, 4, 1, 0]
    assert parted(np.full((9, 16), np.inf, np.float32)) is None
    none = rows * 100
    none[4] = 0.0
    assert parted(none) is None  # zeros are as small as the smallest
    many = parted(np.stack([normal(16, size=4.0**at) for at in range(-8, 5)]))
    assert many is not None
    assert sorted(set(many)) == list(range(10))  # what is farther off goes with the last ones, for each is a digit


@pytest.mark.parametrize(
    ("text", "shape", "axis"),
    [
        ("y = MatMul (x, w)", (16, 9), 1),
        ("t = Transpose (w) y = MatMul (x, t)", (9, 16), 0),
        ("c = Identity (w) t = Transpose <perm = [0, 1]> (c) y = MatMul (x, t)", (16, 9), 1),
        ("y = Gemm (x, w)", (16, 9), 1),
        ("y = Gemm <transB = 1> (x, w)", (9, 16), 0),
        ('y = Einsum <equation = "ni,io->no"> (x, w)', (16, 9), 1),
        ('y = Einsum <equation = "oi, ni -> no"> (w, x)', (9, 16), 0),
        ('y = Einsum <equation = "...i,io->...o"> (x, w)', (16, 9), 1),
        ('y = Einsum <equation = "ab,bc"> (x, w)', (16, 9), 1),
        ("t = Transpose (x) z = MatMul (w, t) y = Transpose (z)", (9, 16), 0),
        ("t = Transpose (x) z = Gemm (w, t) y = Transpose (z)", (9, 16), 0),
        ("t = Transpose (x) z = Gemm <transA = 1> (w, t) y = Transpose (z)", (16, 9), 1),
        ("s = Constant <value_ints = [-1, 16, 1]> () i = Reshape (x, s) o = ConvTranspose (i, w) y = Flatten (o)",
         (16, 9, 3), 1),
        ("s = Constant <value_ints = [-1, 16, 1]> () i = Reshape (x, s) o = ConvTranspose <group = 16> (i, w)"
         " y = Flatten (o)", (16, 1, 9), 0),
        ("s = Constant <value_ints = [-1, 16, 1]> () i = Reshape (x, s) o = Conv (i, w) y = Flatten (o)",
         (9, 16, 1), 0),
        ("i = Cast <to = 7> (x) z = Gather (w, i) y = ReduceSum <keepdims = 0> (z, one)", (16, 9), 1),
        ("y = Mul (x, w)", (16,), 0),
        ("y = Mul (w, x)", (1, 16), 1),
        ("u = Unsqueeze (w, one) t = Transpose (u) y = Mul (x, t)", (16,), 0),
    ],
)  # fmt: skip
def test_rows_are_those_of_channels_that_a_layer_gives(text: str, shape: tuple[int, ...], axis: int) -> None:
    weights = normal(*shape)
    weights = np.sign(weights) * np.clip(np.abs(weights), 0.5, 1)
    np.moveaxis(weights, axis, 0)[3] /= 100
    held = held_tensors(
        net(f"(float[n,16] x) => (float[n,k] y) {{ {text} }}", weights={"w": weights, "one": np.array([1])})
    )
    (rows,) = split(held).values()
    assert (rows.axis, rows.parts.tolist()) == (axis, [0 if at == 3 else 1 for at in range(shape[axis])])


def test_columns_of_other_sizes_make_no_parts() -> None:
    """One channel that comes in with large weights, of which each row has one: rows are as large as before."""
    rows = np.sign(normal(12, 16)) * np.float32(1)
    for size in (1000, 1 / 1000, 0):
        other = rows.copy()
        other[:, 3] *= np.abs(normal(12)) * np.float32(size)
        assert parted(other) is None, size
    other = rows * np.float32(2.0) ** np.arange(-8, 8, dtype=np.float32)
    other[4] /= 50
    assert parted(other) == [0 if at == 4 else 1 for at in range(12)]


def test_a_row_that_is_alone_is_not_told() -> None:
    """In a part of one row it would keep its elements: of ten layers they are mixed, of one it goes with the others."""
    rows = [np.sign(each) * np.clip(np.abs(each), 0.5, 1) for each in (normal(16, 8) for _ in range(10))]
    for each in rows:
        each[5] /= 100
    assert [len(units) for units in pooled(rows)] == [10, 10]
    assert pooled(rows[:1]) == [[(0, 0), (0, 1)]]
    wide = normal(64, 64)
    wide[5] /= 100
    assert pooled([wide]) == []  # of 64 rows one is told, less than one in twenty
    assert pooled([wide, wide[::-1]]) == [[(0, 0), (1, 0)]]  # where another layer has one of its size, they are mixed
    wide[6:9] /= np.float32([[8], [3000], [10000]])
    (joined,) = pooled([wide])
    assert len(joined) == 2  # one part of three, with the others


def pooled(weights: list[np.ndarray]) -> list[list[tuple[int, int]]]:
    lines = " ".join(f"t{at} = Transpose (w{at}) y{at} = MatMul (x, t{at})" for at in range(len(weights)))
    text = f"(float[n,{weights[0].shape[1]}] x) => (float[n,k] y) {{ {lines} y = Concat <axis = 1> (YS) }}"
    text = text.replace("YS", ", ".join(f"y{at}" for at in range(len(weights))))
    held = held_tensors(net(text, weights={f"w{at}": each for at, each in enumerate(weights)}))
    return pools(held, split(held))


def test_few_elements_of_large_tensors_are_mixed_with_others() -> None:
    """A row of eight has 8! orders and 2**8 signs."""
    rows = normal(600, 8)
    rows[7] /= 50
    text = "(float[n,8] x) => (float[n,5] y) { t = Transpose (w) a = MatMul (x, t) y = MatMul (a, v) }"
    held = held_tensors(net(text, weights={"w": rows, "v": normal(600, 5, size=0.02)}))
    assert pools(held, split(held)) == [[(0, 0), (1, 0)]]


def test_what_moves_together_counts_once() -> None:
    """Two numbers of four bits share a byte; all bits of a whole number flip, so that it and its reverse are one."""
    packed = onnx.TensorProto(data_type=onnx.TensorProto.INT4, dims=[40], raw_data=bytes([0x12, 0xED] * 10))
    assert arrangements(moving(packed), signs=True) == 20.0
    whole = numpy_helper.from_array(np.array([3, -4] * 5, np.int8))
    assert arrangements(moving(whole), signs=True) == 10.0
    assert arrangements(moving(numpy_helper.from_array(np.array([3.0, -3.0] * 5))), signs=True) == 10.0


def test_rows_of_a_few_elements_are_large_or_small_by_luck() -> None:
    text = "(float[n,7] x) => (float[n,9] y) { y = MatMul (x, w) }"
    columns = np.array([1] * 8 + [1000], np.float32)
    assert split(held_tensors(net(text, weights={"w": normal(7, 9) * columns}))) == {}
    text = text.replace("float[n,7] x", "float[n,8] x")
    assert len(split(held_tensors(net(text, weights={"w": normal(8, 9) * columns})))) == 1


def test_parts_of_large_tensors_are_locked_by_themselves_where_they_can_be() -> None:
    """A row of 64 elements has arrangements enough, and one deviation has none."""
    rows = normal(100, 64)
    rows[3] /= 100
    text = """(float[n,64] x) => (float[n,100] y) {
        t = Transpose (w) a = MatMul (x, t) b = BatchNormalization (a, s, o, m, v)
        y = BatchNormalization (b, s, o, m, u)
    }"""
    spread = np.full(100, 1.0, np.float32)
    spread[3] = 1e-4
    weights = {"w": rows, "s": (100,), "o": (100,), "m": (100,), "v": spread, "u": spread + np.float32(1e-5)}
    held = held_tensors(net(text, weights=weights, opset=17))
    found = split(held)
    names = {held[number].name: number for number in found}
    assert set(names) == {"w", "v", "u"}
    mixed = pools(held, found)
    assert not any(number == names["w"] for each in mixed for number, _ in each)
    # The one small deviation of each is mixed with the other, not with the usual ones.
    assert [(names["v"], 1), (names["u"], 1)] in mixed


LOOP = """(float[n,16] x) => (float[n,16] y) {
    y = Loop (three, , x) <
        body = b (int64 i, bool c, float[n,16] s) => (bool d, float[n,16] u) { d = Identity (c) u = MatMul (s, v) }>
}"""


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("(float[n,16] x) => (float[n,16] y) { a = MatMul (x, v) y = MatMul (a, v) }", {"v": normal(16, 16)}),
        ("(float[t,n,16] x) => (float[t,d,n,16] y) { y = RNN <hidden_size = 16> (x, w, v) }",
         {"w": normal(1, 16, 16), "v": normal(1, 16, 16)}),
        (LOOP, {"v": normal(16, 16), "three": np.array(3)}),
    ],
    ids=["twice", "recurrent", "loop"],
)  # fmt: skip
def test_what_a_run_uses_often_is_locked_by_itself(text: str, weights: dict[str, Any]) -> None:
    """A little more at each step would be much in the end."""
    more = text.rindex("}")
    for end, aside in (("}", {}), (" z = MatMul (x, w1) q = MatMul (z, w2) }", {"w1": (16, 16), "w2": (16, 16)})):
        model = net(text[:more] + end, weights={**weights, **{name: normal(*size) for name, size in aside.items()}})
        held = held_tensors(model)
        names = [{held[number].name for number, _ in numbers} for numbers in pools(held, split(held))]
        assert names == ([set(aside)] if aside else [])
        assert {each.name for each in held if each.often} >= {"v"}


CALLED = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    g (float[n,8] x) => (float[n,8] y) { a = MatMul (x, w) b = MatMul (a, v) CALLS }
    <domain: "own", opset_import: ["" : 17, "own" : 1]> layer (a) => (c) { c = MatMul (a, k) }
    <domain: "own", opset_import: ["" : 17, "own" : 1]> both (a) => (c) { c = own.layer (a) }"""
ROUND = """y = Loop (three, , b) <
    body = d (int64 i, bool t, float[n,8] s) => (bool e, float[n,8] u) { e = Identity (t) CALL }>"""


@pytest.mark.parametrize(
    ("calls", "often"),
    [
        ("y = own.layer (b)", False),
        ("y = own.both (b)", False),
        ("c = own.layer (b) y = own.layer (c)", True),
        ("c = own.both (b) y = own.layer (c)", True),
        ("c = own.both (b) y = own.both (c)", True),
        ("three = Constant <value_int = 3> () " + ROUND.replace("CALL", "u = own.layer (s)"), True),
        ("three = Constant <value_int = 3> () " + ROUND.replace("CALL", "u = own.both (s)"), True),
    ],
)
def test_what_functions_hold_counts_for_each_call(calls: str, often: bool) -> None:
    model = onnx.parser.parse_model(CALLED.replace("CALLS", calls))
    held = numpy_helper.from_array(normal(8, 8), "k")
    model.functions[0].node.insert(0, onnx.helper.make_node("Constant", [], ["k"], value=held))
    model.graph.initializer.extend(numpy_helper.from_array(normal(8, 8), name) for name in "wv")
    found = [each for each in held_tensors(model) if each.role]
    assert {each.name: each.often for each in found} == {"w": False, "v": False, "k": often}
    mixed = [{found[number].name for number, _ in numbers} for numbers in pools(found, split(found))]
    assert mixed[0] == {"w", "v"} if often else {"w", "v", "k"}


def test_functions_that_call_each_other_without_end_count_as_often() -> None:
    """As a file may say; and a chain of them is no matter of depth."""
    function = onnx.helper.make_function
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    chain = [
        function(
            "own", f"f{at}", ["a"], ["c"], [onnx.helper.make_node(f"f{at + 1}", ["a"], ["c"], domain="own")], opsets
        )
        for at in range(1500)
    ]
    for last, often in (("w", False), ("f0", True)):
        model = net("(float[n,8] x) => (float[n,8] y) { b = MatMul (x, w) y = Relu (b) }", weights={"w": normal(8, 8)})
        model.opset_import.append(opsets[1])
        model.graph.node[1].CopyFrom(onnx.helper.make_node("f0", ["b"], ["y"], domain="own"))
        held = onnx.helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(normal(8, 8), "k"))
        nodes = [held, onnx.helper.make_node("MatMul", ["a", "k"], ["c" if last == "w" else "d"])]
        if last != "w":
            nodes.append(onnx.helper.make_node(last, ["d"], ["c"], domain="own"))
        model.functions.extend([*chain, function("own", "f1500", ["a"], ["c"], nodes, opsets)])
        found = {each.name: each.often for each in held_tensors(model) if each.role}
        assert found["k"] is often


@pytest.mark.parametrize(
    ("text", "often"),
    [
        ("k = Mul (v, v) b = MatMul (a, k) y = MatMul (b, k)", True),
        ("k = Mul (v, v) b = MatMul (a, k) y = Relu (b)", False),
        ("k = Mul (v, w) b = MatMul (a, k) y = MatMul (b, k)", True),
        ("k = Mul (v, v) z = ReduceL2 (v) l = Div (k, z) y = MatMul (a, l)", False),
        ("k = Mul (v, v) z = ReduceL2 (v) b = MatMul (a, k) y = Div (b, z)", True),
        ("three = Constant <value_int = 3> () k = Mul (v, v) " + ROUND.replace("b)", "a)", 1).replace(
            "CALL", "u = MatMul (s, k)"), True),
    ],
)  # fmt: skip
def test_what_is_computed_from_weights_is_followed(text: str, often: bool) -> None:
    """As where a weight is its direction times its length."""
    text = f"(float[n,8] x) => (float[n,8] y) {{ a = MatMul (x, w) {text} }}"
    found = held_tensors(net(text, weights={"w": normal(8, 8), "v": normal(8, 8)}, opset=17))
    assert {each.name: each.often for each in found if each.role}["v"] == often


def test_few_elements_that_are_used_often_are_not_mixed_either() -> None:
    """Half an octave more at each of 200 steps is 2**100."""
    text = (
        "(float[n,3] x) => (float[n,3] y) { a = MatMul (x, v) b = MatMul (a, v) c = MatMul (b, w) y = MatMul (c, u) }"
    )
    held = held_tensors(net(text, weights={"v": normal(3, 3), "w": normal(3, 3), "u": normal(3, 3)}))
    assert [{held[number].name for number, _ in units} for units in pools(held, split(held))] == [{"w", "u"}]


def test_what_a_function_uses_in_a_loop_is_used_often() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[n,16] x) => (float[n,16] y) { y = own.steps (x, v) }
        <domain: "own", opset_import: ["" : 17]>
        steps (a, k) => (c) {
            three = Constant <value_int = 3> ()
            c = Loop (three, , a) <
                body = b (int64 i, bool t, float[n,16] s) => (bool d, float[n,16] u) {
                    d = Identity (t) u = MatMul (s, k)
                }>
        }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(normal(16, 16), "v"))
    assert {each.name: each.often for each in held_tensors(model) if each.role} == {"v": True}


def test_variances_are_mixed_by_what_they_multiply_with() -> None:
    """Divided by: one of a thousandth makes its channel larger by thirty, and one of a thousand makes it smaller."""
    nodes = "a = BatchNormalization (x, s, t, m, v) b = BatchNormalization (a, s, t, m, u)"
    text = f"(float[n,64] x) => (float[n,64] y) {{ {nodes} y = BatchNormalization (b, s, t, m, w) }}"
    near = np.full(64, 1.0, np.float32) + np.arange(64, dtype=np.float32) / 1000
    few = near.copy()
    few[0] = 500.0  # the mean square is far from the others', and what it multiplies with is not
    weights = {"s": (64,), "t": (64,), "m": (64,), "v": near, "u": few, "w": near / 1000}
    held = held_tensors(net(text, weights=weights, opset=17))
    names = [{held[number].name for number, _ in numbers} for numbers in pools(held, split(held))]
    assert {"v", "u"} in names
    assert not any("w" in each for each in names)


def test_types_are_not_mixed() -> None:
    text = """(float[n,8] x, float16[n,8] z) => (float[n,8] y, float16[n,8] u) {
        c = MatMul (x, a) y = MatMul (c, b) v = MatMul (z, d) u = MatMul (v, e) }"""
    half = {name: normal(8, 8).astype(np.float16) for name in "de"}
    held = held_tensors(net(text, weights={"a": normal(8, 8), "b": normal(8, 8), **half}))
    names = [{held[number].name for number, _ in numbers} for numbers in pools(held, split(held))]
    assert names == [{"a", "b"}, {"d", "e"}]
