import json
import secrets

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from scipy.optimize import linear_sum_assignment

from exact_nets import SIZE, Builder, images
from onnx_nets import answers, feeds, net, operators, optimised_operators, residual
from vambrace.assets.obfuscate.keyed import Stream
from vambrace.assets.obfuscate.keyinput import key_tensor, lock_by_input
from vambrace.errors import ArtifactRefused, ConfigError

KEY = bytes(range(32))
WRONG = bytes(32)


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
def test_the_right_key_is_exact_and_a_wrong_one_runs(make, scales: bool) -> None:
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
    assert operators(locked).count("Gather") == 5  # three layers and, for two of them, powers of two
    assert optimised_operators(locked, tmp_path).count("Gather") == 5


def test_the_format_is_what_its_text_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key's tensor from the text, and that stored channels are what it says."""
    monkeypatch.setattr(secrets, "token_hex", lambda count: "5a" * count)
    model = grouped()
    locked = lock_by_input(model, KEY, share=1.0)
    entry = json.loads({each.key: each.value for each in locked.metadata_props}["vambrace.key-input"])
    assert entry["places"] == [[4, 8, 1], [8, 8, 0], [9, 9, 1]]
    assert entry["salt"] == "5a" * 32
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    stored = {each.name: numpy_helper.to_array(each) for each in locked.graph.initializer}
    expected: list[int] = []
    for number, ((block, channels, scaled), name) in enumerate(zip(entry["places"], ("w", "v", "u"), strict=True)):
        stream = Stream(KEY, "key-input/1", entry["salt"], number)
        order = [start + int(at) for start in range(0, channels, block) for at in stream.permutation(block)]
        exponents = stream.integers(0, 7, (channels,)).tolist() if scaled else [3] * channels
        for place, origin in enumerate(order):
            assert np.array_equal(stored[name][place], weights[name][origin] * 2.0 ** (exponents[place] - 3))
        expected += [order.index(channel) for channel in range(channels)]
        if scaled:
            expected += [6 - exponents[order.index(channel)] for channel in range(channels)]
    assert key_tensor(locked, KEY)[1].tolist() == expected


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
    for extreme in (1e38, 1e-38):
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
    for change in ({"places": [[1, 10**9, 1]]}, {"format": 2}, {"places": [[0, 8, 1]]}, {"places": []}, {"more": 1}):
        locked.metadata_props[-1].value = json.dumps(entry | change, sort_keys=True, separators=(",", ":"))
        with pytest.raises(ArtifactRefused, match="E841"):
            key_tensor(locked, KEY)
