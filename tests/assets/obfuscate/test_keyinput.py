import functools
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from scipy.optimize import linear_sum_assignment

from exact_nets import SIZE, Builder, images
from onnx_nets import answers, feeds, net, operators, optimised_operators, residual, session
from vambrace.assets.obfuscate import keyinput
from vambrace.assets.obfuscate.key_entry import Slot
from vambrace.assets.obfuscate.keyed import Stream
from vambrace.assets.obfuscate.keyinput import key_tensor
from vambrace.assets.obfuscate.locking import lock
from vambrace.errors import ArtifactRefused, ConfigError

KEY = bytes(range(32))
WRONG = bytes(32)
# These networks are so small that one key in a few opens them, and exactness is what is asked of most.
lock_by_input = functools.partial(keyinput.lock_by_input, leave_open=True)


def grouped() -> onnx.ModelProto:
    return net(
        """(float[n,4,6,6] x) => (float[n,9,k,k] y) {
            a = Conv <group=2> (x, w, b)
            c = LeakyRelu <alpha=0.1> (a)
            d = Conv <pads=[1,1,1,1]> (c, v)
            e = Sigmoid (d)
            f = MaxPool <kernel_shape=[2,2]> (e)
            y = Conv (f, u)
        }""",
        weights={"w": (8, 2, 3, 3), "b": (8,), "v": (8, 8, 3, 3), "u": (9, 8, 1, 1)},
    )


def matrices() -> onnx.ModelProto:
    return net(
        """(float[n,t,6] x) => (float[n,t,5] y) {
            a = MatMul (x, w)
            c = Add (a, b)
            d = Relu (c)
            y = MatMul (d, v)
        }""",
        weights={"w": (6, 10), "b": (10,), "v": (10, 5)},
        opset=9,
        ir=4,
    )


@pytest.mark.parametrize("make", [residual, grouped, matrices])
@pytest.mark.parametrize("scales", [True, False])
def test_the_right_key_is_exact_and_a_wrong_one_runs(make, scales: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else one order of five channels in 120 is that in which they were.
    monkeypatch.setattr("vambrace.assets.obfuscate.keyinput.secrets.token_hex", lambda size: "5a" * size)
    model = make()
    locked = lock_by_input(model, KEY, share=1.0, scales=scales)
    onnx.checker.check_model(locked, full_check=True)
    given = feeds(model, rows=4)
    name, tensor = key_tensor(locked, KEY)
    _, wrong = key_tensor(locked, WRONG)
    assert tensor.shape == wrong.shape == (locked.graph.input[-1].type.tensor_type.shape.dim[0].dim_value,)
    for level in ("all", "disabled"):
        expected = answers(model, given, level)[0]
        assert np.array_equal(answers(locked, given | {name: tensor}, level)[0], expected)
        off = answers(locked, given | {name: wrong}, level)[0]
        assert np.abs(off - expected).max() > 0.05
    for each in model.graph.initializer:
        if each.name in {"w", "v"} and len(each.dims) > 1:
            stored = next(one for one in locked.graph.initializer if one.name == each.name)
            assert not np.array_equal(numpy_helper.to_array(stored), numpy_helper.to_array(each))


@pytest.mark.parametrize("last", ["MatMul (d, v)", "Gemm (d, v, o)", "Gemm <transB=1> (d, v, o)"])
def test_layers_of_one_output(last: str) -> None:
    """The axis of inputs was taken for that of outputs: a matrix lost all of its rows but one, and nothing ran it."""
    rows = (1, 10) if "transB" in last else (10, 1)
    model = net(
        f"""(float[n,6] x) => (float[n,1] y) {{
            c = Gemm (x, w, b)
            d = Sigmoid (c)
            y = {last}
        }}""",
        weights={"w": (6, 10), "b": (10,), "v": rows, "o": (1,)},
    )
    locked = lock_by_input(model, KEY, share=1.0)
    onnx.checker.check_model(locked, full_check=True)
    assert [1, 1, 3] in json.loads(locked.metadata_props[0].value)["places"]
    name, tensor = key_tensor(locked, KEY)
    given = feeds(model, rows=4)
    for level in ("all", "disabled"):
        assert np.array_equal(answers(locked, given | {name: tensor}, level)[0], answers(model, given, level)[0])


def test_old_files_are_folded_by_runtimes_as_before() -> None:
    """Weights listed as inputs would be open to callers in the newer version, and normalisations not fused."""
    b = Builder(0)
    x = b.add("Relu", b.batch_norm(b.conv("image", 3, 12), 12))
    model = b.model({b.add("Relu", b.conv(x, 12, 16)): (2, 16, SIZE, SIZE)}, opset=9)
    model.ir_version = 3
    for each in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    locked = lock_by_input(model, KEY, share=1.0)
    assert [each.name for each in locked.graph.input] == ["image", "key"]
    name, tensor = key_tensor(locked, KEY)
    given = images(0)["plain"]
    for level in ("all", "disabled"):
        expected = answers(model, {"image": given}, level)[0]
        assert np.array_equal(answers(locked, {"image": given, name: tensor}, level)[0], expected)


def test_it_survives_onnxruntime(tmp_path) -> None:
    locked = lock_by_input(grouped(), KEY, share=1.0)
    assert operators(locked).count("Gather") == 4  # three layers, and powers of two for two of them
    assert optimised_operators(locked, tmp_path).count("Gather") == 4


def test_the_format_is_what_its_text_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key's tensor from the text, and that stored channels are what it says."""
    monkeypatch.setattr(keyinput.secrets, "token_hex", lambda count: "5a" * count)
    model = grouped()
    locked = lock_by_input(model, KEY, share=1.0)
    entry = json.loads({each.key: each.value for each in locked.metadata_props}["vambrace.key-input"])
    assert entry["places"] == [[4, 8, 3], [8, 8, 0], [9, 9, 3]]
    assert entry["salt"] == "5a" * 32
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    stored = {each.name: numpy_helper.to_array(each) for each in locked.graph.initializer}
    expected: list[int] = []
    scales: list[int] = []
    for number, ((block, channels, reach), name) in enumerate(zip(entry["places"], ("w", "v", "u"), strict=True)):
        stream = Stream(KEY, "key-input/1", entry["salt"], number)
        order = [start + int(at) for start in range(0, channels, block) for at in stream.permutation(block)]
        drawn = stream.integers(0, 2 * reach + 1, (channels,)).tolist() if reach else [0] * channels
        exponents = [each - reach for each in drawn]
        for place, origin in enumerate(order):
            assert np.array_equal(stored[name][place], weights[name][origin] * 2.0 ** exponents[place])
        expected += [order.index(channel) for channel in range(channels)]
        if reach:
            scales += [3 - exponents[order.index(channel)] for channel in range(channels)]
    assert key_tensor(locked, KEY)[1].tolist() == expected + scales


def test_locks_of_format_1_are_read() -> None:
    """A file of the version that wrote them: 1 stands for factors of 2**-3 to 2**3."""
    locked = onnx.load(Path(__file__).parents[2] / "vectors" / "lock" / "key-input-v1.onnx")
    assert places(locked) == [[4, 8, 1], [6, 6, 1]]
    name, tensor = key_tensor(locked, KEY)
    assert name == "key"
    orders = [2, 3, 1, 0, 4, 6, 7, 5, 2, 1, 0, 3, 4, 5]
    assert tensor.tolist() == [*orders, 6, 3, 5, 5, 2, 0, 4, 6, 1, 1, 5, 5, 6, 5]


@pytest.mark.parametrize("layers", [2, 3, 9, 60])
def test_wrong_keys_answer_with_numbers_however_deep_the_network(layers: int) -> None:
    """Of 200 layers scaled by 2**-3 to 2**3, every wrong key made NaN, which tells that it is wrong."""
    rng = np.random.default_rng(0)
    weights = {f"w{at}": (rng.standard_normal((64, 64)) / 5.7).astype(np.float32) for at in range(layers)}
    steps = [f"a{at} = MatMul (b{at}, w{at}) b{at + 1} = Relu (a{at})" for at in range(layers)]
    text = f"(float[n,64] x) => (float[n,64] y) {{ b0 = Identity (x) {' '.join(steps)} y = Identity (b{layers}) }}"
    model = net(text, weights=weights)
    locked = keyinput.lock_by_input(model, KEY, share=1.0)
    assert [each[2] for each in places(locked) if each[2]] == [3, 3]
    assert len(places(locked)) == layers
    given = {"x": rng.standard_normal((4, 64)).astype(np.float32)}
    right, *wrong = (
        answers(locked, {**given, **dict([key_tensor(locked, key)])})[0]
        for key in (KEY, *(bytes([number]) * 32 for number in range(7)))
    )
    assert np.array_equal(right, answers(model, given)[0])
    grown = [np.log2(np.abs(each).max() / np.abs(right).max()) for each in wrong]
    assert np.median(grown) < 10.5
    assert max(grown) < 14


def test_layers_that_close_a_network_keep_their_scales() -> None:
    """Around all blocks leads a path with one layer of 14! orders, fewer than 2**40; those in them have fewer still."""
    steps = [
        f"c{at} = Conv (b{at}, v{at}) d{at} = Relu (c{at}) e{at} = Conv (d{at}, w{at}) b{at + 1} = Add (b{at}, e{at})"
        for at in range(8)
    ]
    model = net(
        "(float[n,14,6,6] x) => (float[n,2] y) "
        f"{{ b0 = Relu (x) {' '.join(steps)} p = GlobalAveragePool (b8) f = Flatten (p) g = MatMul (f, u)"
        " y = MatMul (g, t) }",
        weights={"u": (14, 14), "t": (14, 2)} | {f"{name}{at}": sizes for at in range(8)
                                       for name, sizes in (("v", (6, 14, 1, 1)), ("w", (14, 6, 1, 1)))},
    )  # fmt: skip
    found = places(keyinput.lock_by_input(model, KEY, share=1.0))
    assert found[-2:] == [[14, 14, 3], [2, 2, 0]]
    assert sum(1 for each in found if each[2]) == 2


def test_towers_side_by_side_are_each_closed() -> None:
    """They do not multiply each other's numbers: all six are locked with factors, without which 10! orders are few."""
    towers = [f"a{at} = Conv (x, v{at}) r{at} = Relu (a{at}) b{at} = Conv (r{at}, w{at}) y{at} = Conv (b{at}, u{at})"
              for at in range(6)]  # fmt: skip
    ends = ", ".join(f"float[n,2,6,6] y{at}" for at in range(6))
    model = net(
        f"(float[n,3,6,6] x) => ({ends}) {{ {' '.join(towers)} }}",
        weights={
            f"{name}{at}": sizes
            for at in range(6)
            for name, sizes in (("v", (4, 3, 1, 1)), ("w", (10, 4, 1, 1)), ("u", (2, 10, 1, 1)))
        },
    )
    assert [each for each in places(keyinput.lock_by_input(model, KEY, share=1.0)) if each[0] == 10] == [
        [10, 10, 3]
    ] * 6


def test_layers_with_the_fewest_orders_keep_their_scales() -> None:
    """Of depthwise layers, a channel has no other place: those that have no scales either are left out."""
    steps = [
        f"a{at} = Conv <group=64, pads=[1,1,1,1]> (b{at}, d{at}) b{at + 1} = Conv (a{at}, w{at})" for at in range(12)
    ]
    model = net(
        f"(float[n,64,6,6] x) => (float[n,64,6,6] y) {{ b0 = Identity (x) {' '.join(steps)} y = Identity (b12) }}",
        weights={f"{name}{at}": (64, 1 if name == "d" else 64, size, size) for at in range(12)
                 for name, size in (("d", 3), ("w", 1))},
    )  # fmt: skip
    found = places(lock_by_input(model, KEY, share=1.0))
    assert sorted(found) == [[1, 64, 3]] * 2 + [[64, 64, 0]] * 12


def test_a_reach_that_is_none_is_refused_and_format_1_has_two() -> None:
    locked = lock_by_input(grouped(), KEY, share=1.0)
    entry = json.loads(locked.metadata_props[-1].value)
    for number, reach, length in ((1, 0, 25), (1, 1, 42), (2, 3, 42), (2, 4, None), (2, -1, None)):
        layout = [[4, 8, reach], [8, 8, 0], [9, 9, reach]]
        locked.metadata_props[-1].value = json.dumps(entry | {"format": number, "places": layout})
        locked.graph.input[-1].type.tensor_type.shape.dim[0].dim_value = length or 42
        if length is None:
            with pytest.raises(ArtifactRefused, match="factors"):
                key_tensor(locked, KEY)
        else:
            assert len(key_tensor(locked, KEY)[1]) == length


def test_two_locks_differ_and_the_key_is_not_in_the_file() -> None:
    one, other = (lock_by_input(residual(), KEY, share=1.0) for _ in range(2))
    assert not np.array_equal(key_tensor(one, KEY)[1], key_tensor(other, KEY)[1])
    assert KEY not in one.SerializeToString()
    tensor = key_tensor(one, KEY)[1]
    assert not any(np.array_equal(numpy_helper.to_array(each), tensor) for each in one.graph.initializer)


def test_whole_filters_are_found_again_by_whoever_holds_the_original() -> None:
    """What the module says it does not hide: matching by direction finds every filter."""
    model = net(
        "(float[n,100] x) => (float[n,64] y) { y = MatMul (x, w) }",
        weights={"w": np.random.default_rng(5).standard_normal((100, 64)).astype(np.float32)},
    )
    locked = lock_by_input(model, KEY, share=1.0)
    original, stored = (numpy_helper.to_array(each.graph.initializer[0]) for each in (model, locked))
    alike = np.abs(np.corrcoef(original.T, stored.T)[:64, 64:])
    inverse = key_tensor(locked, KEY)[1][:64]
    assert np.array_equal(linear_sum_assignment(-alike)[1], inverse)


def test_values_near_the_ends_of_the_range_are_not_scaled() -> None:
    for extreme in (1e38, 1e-36, 1e-38):
        weight = np.ones((4, 6), np.float32)
        weight[1, 2] = extreme
        model = net("(float[n,4] x) => (float[n,6] y) { y = MatMul (x, w) }", weights={"w": weight})
        locked = lock_by_input(model, KEY, share=1.0)
        assert json.loads(locked.metadata_props[-1].value)["places"] == [[6, 6, 0]]


def test_a_share_of_layers() -> None:
    places = [
        len(json.loads(lock_by_input(grouped(), KEY, share=share).metadata_props[-1].value)["places"])
        for share in (0.1, 0.5, 1.0)
    ]
    assert places == [1, 2, 3]


def places(locked: onnx.ModelProto) -> list[list[int]]:
    return json.loads(locked.metadata_props[-1].value)["places"]


def shrinking() -> onnx.ModelProto:
    """A picture of any height, halved twice; each layer has its own number of channels."""
    return net(
        """(float[n,3,h,128] x) => (float[n,8] y) {
            a = Conv <pads=[1,1,1,1]> (x, w0)
            b = Relu (a)
            c = Conv <pads=[1,1,1,1]> (b, w1)
            d = Relu (c)
            e = Conv <pads=[1,1,1,1], strides=[2,2]> (d, w2)
            f = Relu (e)
            g = Conv <pads=[1,1,1,1], strides=[2,2]> (f, w3)
            i = Relu (g)
            j = GlobalMaxPool (i)
            k = Flatten (j)
            y = Gemm (k, w4)
        }""",
        weights={"w0": (20, 3, 3, 3), "w1": (21, 20, 3, 3), "w2": (22, 21, 3, 3), "w3": (23, 22, 3, 3), "w4": (23, 8)},
    )


def test_layers_of_small_pictures_come_first_though_their_sizes_are_open() -> None:
    model = shrinking()
    locked = lock_by_input(model, KEY)
    assert places(locked) == [[22, 22, 3], [23, 23, 3], [8, 8, 0]]
    given = feeds(model, free=40)
    name, tensor = key_tensor(locked, KEY)
    assert np.array_equal(answers(locked, given | {name: tensor})[0], answers(model, given)[0])


def test_what_it_may_cost_bounds_how_much_is_locked() -> None:
    model = shrinking()
    counts = [len(places(lock_by_input(model, KEY, slowdown=bound))) for bound in (0.0, 0.02, 9.0)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, 3)
    assert len(places(lock_by_input(model, KEY, share=1.0, slowdown=0.0))) == 5
    with pytest.raises(ConfigError, match="E838"):
        lock_by_input(model, KEY, slowdown=-1.0)


def test_no_path_leads_around_what_is_locked() -> None:
    """The branch of large pictures would be the dearest one to lock."""
    model = net(
        """(float[n,3,64,64] x) => (float[n,20,64,64] y, float[n,21,2,2] z) {
            a = Conv (x, w0)
            y = Sigmoid (a)
            b = MaxPool <kernel_shape=[32,32], strides=[32,32]> (x)
            c = Conv (b, w1)
            d = Relu (c)
            e = Conv (d, w2)
            f = Relu (e)
            z = Conv (f, w2)
        }""",
        weights={"w0": (20, 3, 1, 1), "w1": (21, 3, 1, 1), "w2": (21, 21, 1, 1)},
    )
    assert [20, 20, 0] in places(lock_by_input(model, KEY, slowdown=0.0))


def test_layers_that_no_key_would_change_are_left() -> None:
    """A filter for each channel keeps its channels in place, and what follows it may keep their scale as well."""
    model = net(
        """(float[n,8,6,6] x) => (float[n,9,k,k] y) {
            a = Conv <group=8> (x, w)
            b = Sigmoid (a)
            c = Conv <group=8> (b, v)
            d = Relu (c)
            y = Conv (d, u)
        }""",
        weights={"w": (8, 1, 1, 1), "v": (8, 1, 1, 1), "u": (9, 8, 1, 1)},
    )
    locked = lock_by_input(model, KEY, share=1.0)
    assert places(locked) == [[1, 8, 3], [9, 9, 3]]
    assert operators(locked).count("Gather") == 2  # of the last layer, and powers of two
    name, tensor = key_tensor(locked, KEY)
    assert len(tensor) == 8 + 9 + 9
    given = feeds(model)
    assert np.array_equal(answers(locked, given | {name: tensor})[0], answers(model, given)[0])


def test_layers_of_several_kinds_share_a_key_and_those_in_double_precision_have_none() -> None:
    model = net(
        """(float[n,3,4,4] x) => (float[n,8] y, double[n,7] z) {
            a = Conv (x, w)
            b = Relu (a)
            c = Flatten (b)
            y = Gemm (c, v)
            d = Flatten (x)
            e = Cast <to=11> (d)
            z = MatMul (e, u)
        }""",
        weights={
            "w": (6, 3, 2, 2),
            "v": (54, 8),
            "u": np.random.default_rng(2).standard_normal((48, 7)),
        },
    )
    locked = lock_by_input(model, KEY, share=1.0)
    assert places(locked) == [[6, 6, 3], [8, 8, 3]]
    name, tensor = key_tensor(locked, KEY)
    given = feeds(model)
    for level in ("all", "disabled"):
        for one, other in zip(
            answers(locked, given | {name: tensor}, level), answers(model, given, level), strict=True
        ):
            assert np.array_equal(one, other)


def test_wrong_keys_are_at_chance_on_real_digits(shared: Path) -> None:
    model = onnx.load(shared / "models/mnist_fc_256x2.onnx")
    with gzip.open(shared / "data/mnist/t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16, count=784 * 300).reshape(300, 784, 1)
    with gzip.open(shared / "data/mnist/t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8, count=300)
    locked = lock_by_input(model, KEY)
    given, made = model.graph.input[0].name, session(locked)
    rows = [{given: row[None] / np.float32(255)} for row in pixels]

    def right(key: bytes) -> float:
        name, tensor = key_tensor(locked, key)
        return float(np.mean([made.run(None, row | {name: tensor})[0].argmax() for row in rows] == labels))

    assert right(KEY) > 0.95
    assert abs(np.mean([right(Stream(KEY, number).bytes(32)) for number in range(20)]) - 0.1) <= 0.03


def test_refusals() -> None:
    locked = lock_by_input(residual(), KEY)
    for source, options in (
        (locked, {}),
        (residual(), {"name": "a0"}),
        (residual(), {"share": 0.0}),
        (net("(float[n] x) => (float[n] y) { y = Relu (x) }", weights={}), {}),
    ):
        with pytest.raises(ConfigError, match="E840"):
            lock_by_input(source, KEY, **options)
    with pytest.raises(ConfigError, match="E835"):
        lock_by_input(residual(), KEY, share=2.0)
    with pytest.raises(ConfigError, match="E800"):
        lock_by_input(residual(), b"short")
    with pytest.raises(ArtifactRefused, match="E841"):
        key_tensor(residual(), KEY)
    entry = json.loads(locked.metadata_props[-1].value)
    for change in (
        {"places": [[1, 10**9, 1]]},
        {"format": 3},
        {"format": 1.5},
        {"places": [[8, 8, 4]]},
        {"places": [[8, 8, -1]]},
        {"places": [[0, 8, 1]]},
        {"places": []},
        {"more": 1},
    ):
        locked.metadata_props[-1].value = json.dumps(entry | change, sort_keys=True, separators=(",", ":"))
        with pytest.raises(ArtifactRefused, match="E841"):
            key_tensor(locked, KEY)


@pytest.mark.parametrize("step", ["Add (a, s)", "Sub (s, a)", "Sub (a, s)"])
@pytest.mark.parametrize("size", [(), (1,)])
def test_one_number_added_to_all_channels_takes_no_factor_of_each(step: str, size: tuple[int, ...]) -> None:
    """The channels were scaled and the number was not, so the right key gave another model."""
    model = net(
        f"(float[n,6] x) => (float[n,4] y) {{ a = MatMul (x, w) b = {step} r = Relu (b) y = MatMul (r, v) }}",
        weights={"w": (6, 8), "s": np.full(size, 0.7, np.float32), "v": (8, 4)},
    )
    locked = lock_by_input(model, KEY, share=1.0)
    assert places(locked) == [[8, 8, 0], [4, 4, 3]]
    given = feeds(model)
    name, tensor = key_tensor(locked, KEY)
    assert np.array_equal(answers(locked, given | {name: tensor})[0], answers(model, given)[0])


def test_what_could_not_be_unlocked_any_more_is_not_locked() -> None:
    with pytest.raises(ConfigError, match=r"E840.*locked"):
        lock_by_input(lock(grouped(), KEY), KEY)


@pytest.mark.parametrize(
    "layout",
    [
        [[1, 1, 0]],
        [[2, 2**22, 0]],
        [[3, 8, 1]],
        [[2.5, 8, 1]],
        [[1, 1, 1]] * 3,
        [[1, 2**40, 1]],
        ["abc"],
        [[1, -8, 1], [1, 8, 1]],
    ],
)
def test_an_entry_that_was_changed_is_refused_before_anything_is_drawn(layout: list[Any]) -> None:
    """Sizes in a file are what its author says: of 2**40 channels the memory was gone."""
    locked = lock_by_input(grouped(), KEY)
    entry = locked.metadata_props[-1]
    entry.value = json.dumps(json.loads(entry.value) | {"places": layout}, separators=(",", ":"), sort_keys=True)
    locked.graph.input[-1].type.tensor_type.shape.dim[0].dim_value = sum(
        place[1] for place in layout if isinstance(place, list) and len(layout) == 1
    )
    with pytest.raises(ArtifactRefused, match="E841"):
        key_tensor(locked, KEY)


def test_blocks_of_one_are_drawn_at_once() -> None:
    """An entry of a few bytes may claim 2**24 of them: each had an array of its own, 3 GiB in all."""
    stream = Stream(KEY, "key-input/1", "salt", 4)
    drawn = np.concatenate([at + stream.permutation(1) for at in range(40)])
    exponents = stream.integers(0, 5, (40,)) - 2
    order, powers = Slot(1, 40, 2).draw(KEY, "salt", 4)
    assert np.array_equal(order, drawn)
    assert np.array_equal(powers, exponents)
    begun = time.process_time()
    Slot(1, 2**22, 2).draw(KEY, "salt", 4)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("end", "scaled"),
    [
        ("y = Relu (d)", True),
        ("y = Softmax (d)", True),
        ("y = Exp (d)", False),
        ("e = Neg (d) f = Identity (e) y = Exp (f)", False),
        ("e = Sigmoid (d) y = Exp (e)", True),
        ("e = Tanh (d) f = Add (e, e) y = Cosh (f)", True),
        ("e = Clip (d, one) y = Exp (e)", False),
        ("e = Clip (d, one, eight) y = Exp (e)", True),
        ("e = Mul (d, d) y = Mul (e, e)", False),
        ("e = Mul (d, d) y = Mul (e, two)", True),
        ("e = Sigmoid (d) f = Mul (d, e) g = Sigmoid (f) h = Mul (f, g) i = Mul (h, g) y = Mul (i, g)", True),
        ("e = Pow (d, two) y = Pow (e, two)", False),
        ("y = ReduceProd (d)", False),
        ("y = Pow (d, eight)", False),
        ("y = Pow (d, two)", True),
        ("y = Pow (two, d)", False),
        ("t = Constant <value_int = 1> () g = Cast <to = 9> (t) y = If (g) <then_branch = o () => (p) { p = Exp (d) },"
         " else_branch = q () => (r) { r = Neg (d) }>", False),
    ],
)  # fmt: skip
def test_nothing_is_scaled_in_front_of_an_exponential(end: str, scaled: bool) -> None:
    """Ten of ten wrong keys answered NaN or infinity where the right one did not."""
    model = net(
        f"(float[n,16] x) => (float[n,k] y) {{ a = MatMul (x, v) b = Relu (a) c = MatMul (b, w) d = Relu (c) {end} }}",
        weights={
            "v": (16, 24),
            "w": (24, 20),
            "eight": np.array([8.0], np.float32),
            "two": np.array([2.0], np.float32),
            "one": np.array(1.0, np.float32),
        },
    )
    assert any(each[2] for each in places(lock_by_input(model, KEY, share=1.0))) == scaled


@pytest.mark.parametrize(
    "end",
    [
        "y = Identity (a)",
        "y = Softmax (a)",
        "b = ArgMax <axis = 1> (a) y = Cast <to = 1> (b)",
        "b = Add (a, a) y = Relu (b)",
    ],
)
def test_another_order_of_answers_closes_nothing(end: str) -> None:
    """Every wrong key gave the very numbers, in another order that a few known answers tell."""
    model = net(f"(float[n,16] x) => (float[n,k] y) {{ a = MatMul (x, w) {end} }}", weights={"w": (16, 100)})
    with pytest.raises(ConfigError, match="E857: .* on which 1 different keys|E840"):
        keyinput.lock_by_input(model, KEY, scales=False)
    wide = net(f"(float[n,16] x) => (float[n,k] y) {{ c = MatMul (x, v) a = MatMul (c, w) {end} }}",
               weights={"v": (16, 40), "w": (40, 10)})  # fmt: skip
    assert [40, 40, 0] in places(keyinput.lock_by_input(wide, KEY, scales=False))


def test_a_convolution_of_each_channel_by_itself_mixes_none() -> None:
    """Behind it every channel is as it was given, but for its own filter."""
    for group, refused in ((40, True), (8, False)):
        model = net(
            "(float[n,3,6,6] x) => (float[n,k,6,6] y) {"
            f" a = Conv (x, w) y = Conv <group={group}, pads=[1,1,1,1]> (a, v) }}",
            weights={"w": (40, 3, 1, 1), "v": (40, 40 // group, 3, 3)},
        )
        if refused:
            with pytest.raises(ConfigError, match="E857"):
                keyinput.lock_by_input(model, KEY, scales=False, share=0.5)
        else:
            assert [5, 40, 0] in places(keyinput.lock_by_input(model, KEY, scales=False, share=1.0))


def test_a_key_of_nothing_is_refused() -> None:
    """Places of one order without factors, and an input that states no length."""
    locked = lock_by_input(grouped(), KEY)
    entry = locked.metadata_props[-1]
    locked.graph.input[-1].type.tensor_type.shape.dim[0].ClearField("dim_value")
    for number in (1, 2):
        entry.value = json.dumps({**json.loads(entry.value), "format": number, "places": [[1, 1, 0]]})
        with pytest.raises(ArtifactRefused, match="one order and one scale"):
            key_tensor(locked, KEY)


def test_the_key_of_a_model_whose_weights_lie_in_another_file(tmp_path: Path) -> None:
    """What is read of it is small, so its channels were taken for more than there can be."""
    model = net(
        "(float[n,2] x) => (float[n,2] y) { a = MatMul (x, w) r = Relu (a) y = MatMul (r, v) }",
        weights={"w": (2, 3000), "v": (3000, 2)},
    )
    locked = lock_by_input(model, KEY, share=1.0)
    onnx.save(locked, tmp_path / "net.onnx", save_as_external_data=True, location="net.bin")
    read = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    expected = key_tensor(onnx.load(tmp_path / "net.onnx"), KEY)
    assert np.array_equal(key_tensor(read, KEY)[1], expected[1])


def sentiment(channels: int) -> onnx.ModelProto:
    """Words in a table, and a layer whose channels the key can put in order."""
    return net(
        """(int64[1,t] x) => (float[1,1] y) {
            a = Gather (table, x)
            b = ReduceMean <keepdims=0> (a, one)
            c = MatMul (b, w)
            d = Relu (c)
            e = MatMul (d, v)
            y = Sigmoid (e)
        }""",
        weights={"table": (50, 16), "w": (16, channels), "v": (channels, 1), "one": np.array([1])},
    )


def test_a_lock_that_a_few_keys_open_is_refused() -> None:
    """It was made without a word, and half of all wrong keys opened it bit for bit."""
    with pytest.raises(ConfigError, match="E857: a path from input to output on which 98 different keys"):
        keyinput.lock_by_input(sentiment(2), KEY)
    keyinput.lock_by_input(sentiment(2), KEY, leave_open=True)
    model = sentiment(32)
    locked = keyinput.lock_by_input(model, KEY)
    given = {"x": np.arange(7)[None]}
    wanted = answers(model, given)
    for wrong in range(40):
        name, tensor = key_tensor(locked, bytes([wrong]) * 32)
        assert not np.array_equal(answers(locked, {**given, name: tensor})[0], wanted[0])
    name, tensor = key_tensor(locked, KEY)
    assert np.array_equal(answers(locked, {**given, name: tensor})[0], wanted[0])


def test_an_output_that_is_left_open_is_a_path() -> None:
    model = net(
        "(float[n,16] x) => (float[n,16] y, float[n,40] z) { y = Sigmoid (x) a = MatMul (x, w) z = Relu (a) }",
        weights={"w": (16, 40)},
    )
    around = net(
        "(float[n,40] x) => (float[n,40] y) { a = MatMul (x, w) b = Relu (a) c = MatMul (b, v) y = Add (c, x) }",
        weights={"w": (40, 40), "v": (40, 40)},
    )
    for each in (model, around):
        with pytest.raises(ConfigError, match="E857: .* on which 1 different keys"):
            keyinput.lock_by_input(each, KEY)


@pytest.mark.parametrize(("live", "said"), [(0, "E840"), (1, "448 different keys"), (2, "1.98e\\+05 different keys")])
def test_channels_that_are_alike_or_zero_tell_no_keys_apart(live: int, said: str) -> None:
    """All channels of a pruned layer were counted, and one wrong key in some hundreds, or each, opened it."""
    rng = np.random.default_rng(0)
    w, v = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 64), (64, 1)))
    w[:, live:] = 0
    model = net(
        "(float[n,16] x) => (float[n,1] y) { a = MatMul (x, w) b = Relu (a) c = MatMul (b, v) y = Sigmoid (c) }",
        weights={"w": w, "v": v},
    )
    with pytest.raises(ConfigError, match=said):
        keyinput.lock_by_input(model, KEY)
    w[:] = rng.standard_normal((16, 1)) if live == 1 else rng.standard_normal((16, 64))
    model = net(
        "(float[n,16] x) => (float[n,1] y) { a = MatMul (x, w) b = Relu (a) c = MatMul (b, v) y = Sigmoid (c) }",
        weights={"w": w, "v": v},
    )
    locked = keyinput.lock_by_input(model, KEY)  # alike in pattern, they still have factors
    given = {"x": rng.standard_normal((9, 16)).astype(np.float32)}
    wanted = answers(model, given)[0]
    name, tensor = key_tensor(locked, KEY)
    assert np.array_equal(answers(locked, {**given, name: tensor})[0], wanted)
    for wrong in range(20):
        name, tensor = key_tensor(locked, bytes([wrong]) * 32)
        assert not np.array_equal(answers(locked, {**given, name: tensor})[0], wanted)


@pytest.mark.parametrize("how", ["rows of either zero", "columns of the next layer"])
@pytest.mark.parametrize(("live", "said"), [(0, "E840"), (1, "448 different keys|64 different keys")])
def test_pruned_layers_tell_no_keys_apart(how: str, live: int, said: str) -> None:
    """Pruning multiplies by zeros, which leaves zeros of both signs, and takes rows of the layer behind, too."""
    rng = np.random.default_rng(0)
    w, v = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 64), (64, 1)))
    mask = (np.arange(64) < live).astype(np.float32)
    if how == "rows of either zero":
        w *= mask
        assert np.signbit(w[:, live:]).any()
    else:
        v *= mask[:, None]
    model = net(
        "(float[n,16] x) => (float[n,1] y) { a = MatMul (x, w) b = Relu (a) c = MatMul (b, v) y = Sigmoid (c) }",
        weights={"w": w, "v": v},
    )
    with pytest.raises(ConfigError, match=said):
        keyinput.lock_by_input(model, KEY)


@pytest.mark.parametrize("end", ["y = ArgMax <axis = 1, keepdims = 0> (d)", "y = Softmax (d)"])
def test_a_network_that_says_the_same_to_all_noise_is_not_refused(end: str) -> None:
    """Far from what it knows a label is constant, whichever key."""
    rng = np.random.default_rng(0)
    weights = {
        "far": np.array([2016, 1013, 288, 50, 45], np.float32),
        "spread": np.array([4, 7, 8, 20, 10], np.float32),
        "w": rng.standard_normal((5, 64)).astype(np.float32),
        "v": rng.standard_normal((64, 2)).astype(np.float32),
    }
    kind = "int64[n] y" if "ArgMax" in end else "float[n,2] y"
    model = net(
        f"""(float[n,5] x) => ({kind}) {{
            m = Sub (x, far) s = Div (m, spread) a = MatMul (s, w) c = Relu (a) d = MatMul (c, v) {end}
        }}""",
        weights=weights,
    )
    for _ in range(3):
        keyinput.lock_by_input(model, KEY)


def test_an_operator_without_results_is_told() -> None:
    model = net("(float[n,8] x) => (float[n,8] y) { y = MatMul (x, w) }", weights={"w": (8, 8)})
    model.graph.node.append(onnx.helper.make_node("MatMul", ["x", "w"], []))
    with pytest.raises(ConfigError, match="E801"):
        lock_by_input(model, KEY)


def test_an_adapter_of_rank_zero_is_no_error() -> None:
    model = net(
        """(float[n,16] x) => (float[n,8] y) {
            a = MatMul (x, w) b = Relu (a) c = MatMul (b, none) d = MatMul (c, gone) e = MatMul (b, v) y = Add (d, e)
        }""",
        weights={
            "w": (16, 64),
            "v": (64, 8),
            "none": np.zeros((64, 0), np.float32),
            "gone": np.zeros((0, 8), np.float32),
        },
    )
    keyinput.lock_by_input(model, KEY)
