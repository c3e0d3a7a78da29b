import numpy as np
import onnx
import pytest

from onnx_nets import answers, apart, attention, feeds, net, residual
from vambrace.assets.obfuscate.keyed import Stream
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.channels import BakedPermutation
from vambrace.assets.obfuscate.pipeline import onnx_model
from vambrace.errors import ConfigError

KEY = bytes(range(32))


def permuted(model: onnx.ModelProto, **options: object) -> tuple[Net, object]:
    edited = Net.load(model)
    return edited, BakedPermutation(**options).apply(edited, Stream(KEY))


@pytest.mark.parametrize("make", [residual, attention])
def test_answers_stay_and_weights_move(make) -> None:
    model = make()
    edited, applied = permuted(model)
    given = feeds(model, rows=16)
    assert apart(answers(model, given), answers(edited.model(), given)) < 2e-6
    assert applied.done == applied.eligible
    assert not applied.left
    moved = [
        name
        for name, array in Net.load(model).graph.initialisers.items()
        if not np.array_equal(array, edited.graph.initialisers[name])
    ]
    kept = {"y", "scale", "zero", "one", "two", "last", "b3", "by"}
    kept |= {"ls", "lb", "bo", "wy"} if make is attention else set()  # along the residual sums of the input
    assert set(moved) == {each.name for each in model.graph.initializer} - kept
    for name in moved:
        assert np.array_equal(
            np.sort(Net.load(model).graph.initialisers[name], axis=None),
            np.sort(edited.graph.initialisers[name], axis=None),
        )


def test_layers_that_share_channels_move_together() -> None:
    """8 channels with a residual sum, 6 beside them, 20 hidden; heads, two widths inside of them, 48 hidden."""
    _, applied = permuted(residual())
    assert applied.eligible == 3
    _, applied = permuted(attention())
    assert applied.eligible == 4


def test_undone_bit_for_bit() -> None:
    model = residual()
    edited, applied = permuted(model)
    BakedPermutation().undo(edited, applied.record)
    for name, array in Net.load(model).graph.initialisers.items():
        assert np.array_equal(array, edited.graph.initialisers[name])


def test_another_key_another_order_and_a_share_of_places() -> None:
    model = residual()
    one, other = Net.load(model), Net.load(model)
    BakedPermutation().apply(one, Stream(KEY))
    BakedPermutation().apply(other, Stream(KEY[::-1]))
    assert not np.array_equal(one.graph.initialisers["w2"], other.graph.initialisers["w2"])
    _, applied = permuted(model, share=0.3)
    assert (applied.eligible, applied.done) == (3, 1)
    with pytest.raises(ConfigError, match="E835"):
        BakedPermutation(share=1.5)


# Between a convolution to 8 channels and one from `c` channels: what is written there, c, and groups that can move.
BETWEEN = {
    "curves": ("a = Sigmoid (h)\n b = Mul (h, a)\n z = Clip (b, low, high)", 8, 1),
    "slope of each channel": ("z = PRelu (h, slope)", 8, 1),
    "two halves, one used twice": (
        "a, b = Split <axis=1> (h, three_five)\n a2 = Tanh (a)\n z = Concat <axis=1> (b, a2, a)", 11, 2,
    ),
    "slices": (
        "a = Slice (h, n0, n3, n1)\n b = Slice (h, n2, n8, n1)\n b2 = Relu (b)\n z = Concat <axis=1> (a, b2)", 9, 2,
    ),
    "every other channel": ("z = Slice (h, n0, n8, n1, n2)", 4, 0),
    "channels reversed": ("z = Slice (h, m1, m9, n1, m1)", 8, 0),
    "shuffled groups": (
        "a = Reshape (h, cut)\n b = Transpose <perm=[0,2,1,3,4]> (a)\n z0 = Relu (b)\n z = Reshape (z0, joined)", 8, 2,
    ),
    "groups of two": ("a = Relu (h)\n z = Conv <group=4, kernel_shape=[1,1]> (a, wg, bg)", 12, 3),
    "depthwise with two each": ("a = Relu (h)\n z = Conv <group=8, kernel_shape=[1,1]> (a, wm)", 16, 2),
    "pixels from channels": (
        "a = DepthToSpace <blocksize=2> (h)\n b = Relu (a)\n z = SpaceToDepth <blocksize=2> (b)", 8, 1,
    ),
    "pixels, columns first": ('z = DepthToSpace <blocksize=2, mode="CRD"> (h)', 2, 1),
    "gate of each channel": (
        "a = GlobalAveragePool (h)\n b = Conv (a, wa)\n c = Relu (b)\n d = Conv (c, wb)\n e = Sigmoid (d)"
        "\n z = Mul (h, e)", 8, 2,
    ),
    "norm over channels": (
        "a = Transpose <perm=[0,2,3,1]> (h)\n b = LayerNormalization <axis=-1> (a, slope0, slope0)"
        "\n z = Transpose <perm=[0,3,1,2]> (b)", 8, 1,
    ),
    "instance norm": ("z = InstanceNormalization (h, slope0, slope0)", 8, 1),
    "group norm": (
        "a = Reshape (h, grouped)\n b = InstanceNormalization (a, four1, four0)\n c = Reshape (b, shape8)"
        "\n z = Mul (c, slope)", 8, 2,
    ),
    "neighbours": ("z = LRN <size=3> (h)", 8, 0),
    "softmax over channels": ("z = Softmax <axis=1> (h)", 8, 1),
    "padded with channels": ("z = Pad (h, pads, half)", 10, 0),
    "padded in place": ("a = Pad (h, space, half)\n z = MaxPool <kernel_shape=[3,3]> (a)", 8, 1),
    "resized": ('z = Resize <mode="nearest"> (h, , scales)', 8, 1),
    "squeezed and expanded": (
        "a = ReduceMax <keepdims=0> (h, n2)\n b = Unsqueeze (a, n2)\n z = Expand (b, wide)", 8, 1,
    ),
    "repeated": ("z = Tile (h, twice)", 16, 2),
    "places of extremes": ("a = ArgMax <axis=1> (h)\n b = Cast <to=1> (a)\n z = Add (h, b)", 8, 0),
    "running sums": ("z = CumSum (h, axis)", 8, 0),
    "largest three": ("z, i = TopK <axis=1> (h, n3)", 3, 0),
    "rows chosen": ("z = Gather <axis=1> (h, rows)", 3, 1),
    "products by letters": ('a = Einsum <equation="nchw,dc->ndhw"> (h, we)\n z = Relu (a)', 7, 2),
    "upside down": ("a = ConvTranspose <kernel_shape=[1,1]> (h, wt, bt)\n z = Relu (a)", 7, 2),
    "captured by a branch": (
        "z = If (yes) <then_branch = t () => (float[n,8,4,4] o) { o = Neg (h) },"
        " else_branch = e () => (float[n,8,4,4] p) { p = Abs (h) }>", 8, 0,
    ),
    "whole numbers": ("a = QuantizeLinear (h, step, nought)\n z = DequantizeLinear (a, step, nought)", 8, 1),
}  # fmt: skip
CONSTANTS = {
    "low": np.float32(-1), "high": np.float32(1), "slope": (8, 1, 1), "slope0": (8,), "three_five": np.array([3, 5]),
    "n0": np.array([0]), "n1": np.array([1]), "n2": np.array([2]), "n3": np.array([3]), "n8": np.array([8]),
    "m1": np.array([-1]), "m9": np.array([-9]), "cut": np.array([0, 4, 2, 4, 4]), "joined": np.array([0, 8, 4, 4]),
    "wg": (12, 2, 1, 1), "bg": (12,), "wm": (16, 1, 1, 1), "wa": (4, 8, 1, 1), "wb": (8, 4, 1, 1),
    "grouped": np.array([0, 4, -1]), "four1": (4,), "four0": (4,), "shape8": np.array([0, 8, 4, 4]),
    "pads": np.array([0, 1, 0, 0, 0, 1, 0, 0]), "half": np.float32(0.5), "space": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "scales": np.array([1, 1, 2, 2], np.float32), "wide": np.array([1, 8, 4, 4]), "twice": np.array([1, 2, 1, 1]),
    "axis": np.array(1), "rows": np.array([6, 0, 3]), "we": (7, 8), "wt": (8, 7, 1, 1), "bt": (7,),
    "yes": np.array(True), "step": np.float32(0.05), "nought": np.int8(3),
}  # fmt: skip


@pytest.mark.parametrize("which", BETWEEN)
def test_answers_stay_whatever_is_between(which: str) -> None:
    """Rules must be right, which answers show, and must not give up, which the number of groups shows."""
    between, channels, groups = BETWEEN[which]
    ending = "k = Conv (z, v)\n y = ReduceMean <keepdims=0> (k, hw)"
    body = f"(float[n,3,4,4] x) => (float[n,2] y) {{ h = Conv (x, w, bias)\n {between}\n {ending} }}"
    used = {
        name: value
        for name, value in CONSTANTS.items()
        if f" {name})" in between or f" {name}," in between or f"({name})" in between
    }
    model = net(
        body, weights={"w": (8, 3, 1, 1), "bias": (8,), "v": (2, channels, 1, 1), "hw": np.array([2, 3]), **used}
    )
    edited, applied = permuted(model)
    assert applied.done == groups
    given = feeds(model)
    before, after = answers(model, given), answers(edited.model(), given)
    assert apart(before, after) < 5e-6


def test_sizes_that_an_exporter_baked_in_need_not_fit_those_that_are_assumed() -> None:
    """Where a file leaves sizes open and states others behind them, a Reshape may seem to change how many there are."""
    model = net(
        """(float[n,t,8] x) => (float[7,6,4] y) {
            a = MatMul (x, w0)
            b = Reshape (a, sizes)
            c = Relu (b)
            y = MatMul (c, w1)
        }""",
        weights={"w0": (8, 12), "sizes": np.array([7, 6, 4]), "w1": (4, 4)},
    )
    edited, _ = permuted(model)
    given = {"x": np.random.default_rng(0).standard_normal((7, 2, 8)).astype(np.float32)}
    assert apart(answers(model, given), answers(edited.model(), given)) < 2e-6


TABLE = """(int64[n,l] t) => (float[n,l,4] y) {
 e = Gather (words, t)
 size = Shape (t)
 length = Gather (size, one)
 rows = Slice (places, start, length, axis)
 x = Add (e, rows)
 h = MatMul (x, w)
 r = Relu (h)
 y = MatMul (r, w2)
}"""


@pytest.mark.parametrize("passes", [["baked_permutation"], ["rebasis"]])
def test_rows_of_a_table_that_is_cut_where_calls_choose_stay(passes: list[str]) -> None:
    """Positions behind those of one length are used at another one, and so are no channels that nothing reads."""
    weights = {"words": (8, 6), "places": (30, 6), "w": (6, 12), "w2": (12, 4)}
    numbers = {"one": np.array([1]), "start": np.array([0]), "axis": np.array([0])}
    model = net(TABLE, weights=weights | numbers)
    done = onnx_model(model, profile="tolerance", passes=passes, seed=1)
    entry = done.map.passes[0]
    assert entry.left["channels cut where calls choose"] == 1
    assert entry.done
    for length in (1, 2, 4, 9, 30):
        given = feeds(model, free=length)
        assert apart(answers(model, given), answers(done.model, given)) < 2e-6


# What the length becomes before the table is cut there, or one behind that.
LENGTHS = {
    "in steps": "a = Add (length, seven)\n cut = Div (a, eight)",
    "to a limit": "cut = Min (length, two)",
    "from a limit": "cut = Max (length, sixteen)",
    "odd or even": "cut = Mod (length, two)",
}


@pytest.mark.parametrize("how", LENGTHS)
def test_rows_of_a_table_that_is_cut_at_a_number_made_of_a_size_stay(how: str) -> None:
    model = net(
        """(float[n,l,6] x) => (float[n,l,4] y) {
 size = Shape (x)
 length = Gather (size, one)
 HOW
 before = Slice (places, zero, cut, zero)
 behind = Slice (places, cut, last, zero)
 a1 = ReduceSum (before, zero)
 b1 = ReduceSum (behind, zero)
 c1 = Mul (a1, b1)
 d1 = Add (x, c1)
 h = MatMul (d1, w)
 r = Relu (h)
 y = MatMul (r, w2)
}""".replace("HOW", LENGTHS[how]),
        weights={"places": (30, 6), "w": (6, 12), "w2": (12, 4)}
        | {"zero": np.array([0]), "one": np.array([1]), "last": np.array([99]), "two": np.array([2])}
        | {"seven": np.array([7]), "eight": np.array([8]), "sixteen": np.array([16])},
    )
    done = onnx_model(model, profile="tolerance", passes=["baked_permutation"], seed=1)
    for length in (1, 2, 9, 20, 30):
        given = feeds(model, free=length)
        assert apart(answers(model, given), answers(done.model, given)) < 2e-6
    assert done.map.passes[0].done == 1


def test_filters_that_are_larger_than_what_is_tried() -> None:
    """Inference finds less than nothing behind them then, which no rule can take for a size."""
    text = """(float[n,3,l] x) => (float[n,k] y) {
 a = Conv (x, w)
 b = Relu (a)
 c = Conv (b, v)
 y = Reshape (c, flat)
}"""
    model = net(text, weights={"w": (8, 3, 9), "v": (4, 8, 1), "flat": np.array([0, -1])})
    edited, applied = permuted(model)
    assert applied.done == 1
    for length in (9, 12, 40):
        given = feeds(model, free=length)
        assert apart(answers(model, given), answers(edited.model(), given)) < 2e-6


def test_rows_of_a_table_that_is_cut_where_the_file_says_may_move() -> None:
    fixed = TABLE.replace("l]", "5]").replace("l,4", "5,4")
    weights = {"words": (8, 6), "places": (30, 6), "w": (6, 12), "w2": (12, 4)}
    model = net(fixed, weights=weights | {"one": np.array([1]), "start": np.array([0]), "axis": np.array([0])})
    _, applied = permuted(model)
    assert not applied.left
    given = feeds(model)
    assert apart(answers(model, given), answers(permuted(model)[0].model(), given)) < 2e-6
