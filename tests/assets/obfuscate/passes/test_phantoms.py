"""Networks that never run: valid, of every kind, and in nobody's way."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from exact_nets import LEVELS, SIZE, Builder, differences, images, random_net, session
from vambrace.assets.obfuscate import cuts
from vambrace.assets.obfuscate.keyed import Stream, as_key
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.opaque import opaque
from vambrace.assets.obfuscate.passes import phantoms
from vambrace.assets.obfuscate.passes.phantoms import Phantoms
from vambrace.assets.obfuscate.passes.predicates import Predicates
from vambrace.assets.obfuscate.pipeline import onnx_model, undo
from vambrace.assets.obfuscate.tracing import trace
from vambrace.errors import ConfigError

BESIDE = Phantoms(fewest=150, times=0, beside=True)
FREE = Phantoms(slowdown=9.0, fewest=150, times=0)
"""As many Ifs as it makes, whatever they cost."""
QUICK = Phantoms(fewest=200, times=0)
FEW = Phantoms(fewest=40, times=0)


def small(opset: int = 17) -> onnx.ModelProto:
    b = Builder(0)
    x = b.add("Relu", b.conv(b.add("Relu", b.conv("image", 3, 16)), 16, 8))
    return b.model({b.conv(x, 8, 4): (2, 4, SIZE, SIZE)}, opset=opset)


def text(body: str, inputs: str, outputs: str, opset: int = 17) -> onnx.ModelProto:
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    return onnx.parser.parse_model(f"{head} g ({inputs}) => ({outputs}) {{ {body} }}")


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def flipped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every If with its branches exchanged, so that decoys run."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    names = {"then_branch": "else_branch", "else_branch": "then_branch"}
    for graph in graphs(other.graph):
        for node in graph.node:
            if node.op_type == "If":
                for each in node.attribute:
                    each.name = names[each.name]
    return other


def looped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every Loop runs once."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for node in other.graph.node:
        if node.op_type == "Loop":
            assert node.input[0] == ""
            node.input[1] = "runs"
    other.graph.initializer.append(numpy_helper.from_array(np.array(True), "runs"))
    return other


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for graph in graphs(model.graph) for node in graph.node)


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 14, 17, 18, 20, 21, 23])
def test_decoys_are_valid_and_run_if_they_are_made_to(opset: int) -> None:
    for seed in range(2):
        model = small(opset)
        done = onnx_model(model, passes=[FREE], seed=seed)
        assert done.map.passes[0].done >= 1
        assert differences(model, done.model, images(seed), levels=LEVELS[-1:]) == []
        outputs = session(flipped(done.model)).run(None, {"image": images(seed)["plain"]})
        (expected,) = session(model).run(None, {"image": images(seed)["plain"]})
        assert [each.dtype for each in outputs] == [expected.dtype]
        assert outputs[0].shape == expected.shape
        assert not np.array_equal(outputs[0], expected)
        assert undo(done.model, done.map).model == model


def test_parts_of_the_real_network_are_in_several_branches_inside_each_other() -> None:
    model = random_net(9)
    done = onnx_model(model, passes=[FREE], seed=2)
    assert done.map.passes[0].done == 3
    depths = _depths(done.model.graph, 0, {each.name for each in model.graph.initializer})
    # Nothing of it lies outside of all branches.
    assert depths == {1, 2, 3}
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == model


def _depths(graph: onnx.GraphProto, depth: int, weights: set[str]) -> set[int]:
    found = {depth} if weights & {each.name for each in graph.initializer} else set()
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= _depths(attribute.g, depth + 1, weights)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_networks_of_all_kinds_compute_the_same(seed: int) -> None:
    model = random_net(seed + 40)
    done = onnx_model(model, passes=[QUICK], seed=seed)
    assert differences(model, done.model, images(seed)) == []
    assert undo(done.model, done.map).model == model


@pytest.mark.slow
@pytest.mark.parametrize("beside", [False, True])
def test_a_hundred_networks_compute_the_same(beside: bool) -> None:
    for seed in range(500, 600):
        model = random_net(seed)
        done = onnx_model(model, passes=[dataclasses.replace(QUICK, beside=beside)], seed=seed)
        assert differences(model, done.model, images(seed)) == [], seed
        assert undo(done.model, done.map).model == model


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 14, 17, 18, 20, 21, 23])
def test_networks_in_a_loop_are_valid_and_run_if_they_are_made_to(opset: int) -> None:
    """They cost next to nothing, for a Loop that runs no time starts nothing; it does where an If takes too long."""
    for seed in range(2):
        model = small(opset)
        done = onnx_model(model, passes=[BESIDE], seed=seed)
        assert done.map.passes[0].done == 1
        assert done.model.graph.node[-1].op_type == "Loop"
        assert operators(done.model).total() > 150
        onnx.checker.check_model(done.model, full_check=True)
        assert differences(model, done.model, images(seed)) == []
        outputs = session(looped(done.model)).run(None, {"image": images(seed)["plain"]})
        (expected,) = session(model).run(None, {"image": images(seed)["plain"]})
        assert (outputs[0].dtype, outputs[0].shape) == (expected.dtype, expected.shape)
        assert not np.array_equal(outputs[0], expected)
        assert undo(done.model, done.map).model == model


@pytest.mark.parametrize("seed", range(3))
def test_networks_of_all_kinds_compute_the_same_beside_a_loop(seed: int) -> None:
    model = random_net(seed + 40)
    done = onnx_model(model, passes=[dataclasses.replace(QUICK, beside=True), "order", "names"], seed=seed)
    assert "Loop" in operators(done.model)
    assert differences(model, done.model, images(seed)) == []
    assert undo(done.model, done.map).model == model


def test_an_output_that_is_read_on_goes_through_the_loop() -> None:
    """By other nodes, and by graphs inside them; both read what went into it."""
    model = text(
        """a = Relu (image) one = Constant <value_float = 1.0> () m = ReduceMax <keepdims = 0> (a) c = Less (m, one)
        b = If (c) <then_branch = f () => (t) { t = Neg (a) }, else_branch = g () => (e) { e = Exp (a) }>""",
        "float[n, 4] image",
        "float[n, 4] a, float[n, 4] b",
    )
    done = onnx_model(model, passes=[BESIDE], seed=3)
    assert list(done.model.graph.node[-1].output) == ["a", "b"]
    assert differences(model, done.model, images(0, (3, 4))) == []
    assert onnx.printer.to_text(undo(done.model, done.map).model) == onnx.printer.to_text(model)


def test_what_a_loop_has_no_room_for_is_left() -> None:
    for opset, passes in ((17, Phantoms(beside=True, allowed=1.0)), (8, BESIDE)):
        none = onnx_model(small(opset), passes=[passes], seed=1)
        assert none.model == small(opset)
        assert none.map.passes[0].left
    model = text("y = SequenceConstruct (image)", "float[n, 4] image", "seq(float[n, 4]) y")
    none = onnx_model(model, passes=[BESIDE], seed=1)
    assert none.map.passes[0].left == {"a model whose inputs are no numbers, or whose outputs are no tensors": 1}
    assert [node.op_type for node in none.model.graph.node] == ["SequenceConstruct"]


def test_a_loop_copies_what_it_gives() -> None:
    """Of large pictures that takes a third of the time that two operators on them do."""
    model = text("a = Relu (image) b = Neg (a)", "float[1, 3, 512, 512] image", "float[1, 3, 512, 512] b")
    none = onnx_model(model, passes=[BESIDE], seed=1)
    assert none.map.passes[0].left == {"a Loop that would take too long": 1}


def test_the_lighter_form_is_the_last_one() -> None:
    assert Phantoms().lighter() == Phantoms(beside=True)
    assert Phantoms(beside=True).lighter() is None


def test_real_operators_and_their_weights_are_few_among_many() -> None:
    model = random_net(5)
    real = operators(model)
    found = [operators(onnx_model(model, passes=["phantoms"], seed=seed).model) for seed in range(3)]
    assert all(each.total() > 10 * real.total() for each in found)
    made = found[0] + found[1] + found[2]
    for op in ("Conv", "Gemm", "MatMul", "Relu", "Softmax", "LSTM", "Concat", "BatchNormalization"):
        assert made[op] > 3 * real[op], op


@pytest.mark.parametrize("exporter", ["states everything", "states nothing", "says that 0 is a size"])
def test_imagined_nodes_state_what_real_ones_state(exporter: str) -> None:
    """One exporter writes alpha and beta beside every Gemm and another one does not; so real nodes would be told."""
    stated = {
        "Conv": "auto_pad = 'NOTSET', dilations = [1, 1], group = 1, kernel_shape = [1, 1], strides = [1, 1],"
        " pads = [0, 0, 0, 0]",
        "MaxPool": "ceil_mode = 0, dilations = [1, 1], kernel_shape = [1, 1], strides = [1, 1], pads = [0, 0, 0, 0]",
        "Gemm": "alpha = 0.5, beta = 1.0, transA = 0, transB = 0",
        "Flatten": "axis = 1",
        "BatchNormalization": "epsilon = 0.001, momentum = 0.9, training_mode = 0",
        "Softmax": "axis = -1",
        "Reshape": "allowzero = 1",
        "LeakyRelu": "alpha = 0.01",
    }
    if exporter == "states nothing":
        stated = dict.fromkeys(stated, "") | {"MaxPool": "kernel_shape = [1, 1]"}
    if exporter == "says that 0 is a size":
        stated = dict.fromkeys(stated, "") | {"MaxPool": "kernel_shape = [1, 1]", "Reshape": "allowzero = 1"}
    said = {op: f"<{text}>".replace("'", '"') if text else "" for op, text in stated.items()}
    model = text(
        f"""a = Conv {said["Conv"]} (image, kernel) b = BatchNormalization {said["BatchNormalization"]} (a, m, m, m, m)
        c = MaxPool {said["MaxPool"]} (b) d = Flatten {said["Flatten"]} (c) e = Gemm {said["Gemm"]} (d, w)
        f = LeakyRelu {said["LeakyRelu"]} (e) g = Reshape {said["Reshape"]} (f, sizes)
        y = Softmax {said["Softmax"]} (g)""",
        "float[n, 3, 4, 4] image",
        "float[n, 8] y",
    )
    arrays = {"kernel": (2, 3, 1, 1), "m": (2,), "w": (32, 8)}
    for name, sizes in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(np.abs(Builder(0).normal(*sizes)), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 8]), "sizes"))
    onnx.checker.check_model(model, full_check=True)
    real = {node.op_type: {each.name for each in node.attribute} for node in model.graph.node}
    values = {(node.op_type, each.name): each.f for node in model.graph.node for each in node.attribute if each.f}
    # What is not stated means something usual; what means something else has to be stated.
    unusual = {"axis", "dilations", "group", "pads", "strides", "transB", "kernel_shape"}
    met = Counter[str]()
    for seed in range(6):
        done = onnx_model(model, passes=[Phantoms(fewest=1000, times=0)], seed=seed)
        onnx.checker.check_model(done.model, full_check=True)
        for node in (node for graph in graphs(done.model.graph) for node in graph.node if node.op_type in real):
            names = {each.name for each in node.attribute}
            met[node.op_type] += 1
            assert real[node.op_type] <= names <= real[node.op_type] | unusual, node
            assert all(values.get((node.op_type, each.name), each.f) == each.f for each in node.attribute)
    assert all(met[op] > 4 for op in real), met
    values_of_inputs = {"image": np.ones((2, 3, 4, 4), np.float32)}
    assert session(flipped(done.model)).run(None, values_of_inputs)[0].shape == (2, 8)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_layers_of_half_precision_stay_out_of_branches(kind: type[np.floating]) -> None:
    """There, onnxruntime converts weights at every run: other kernels, other bits, twice the time."""
    b = Builder(0)

    def conv(x: str, taken: int, given: int) -> str:
        kernel = b.weight((b.normal(given, taken, 3, 3) / 5).astype(kind))
        return b.add("Relu", b.add("Conv", x, kernel, pads=[1] * 4))

    model = b.model({conv(conv("image", 3, 16), 16, 8): (2, 8, SIZE, SIZE)}, kind=kind)
    passes = [Phantoms(fewest=20, times=0, allowed=1e6), Predicates(share=1.0, growth=9.0, slowdown=1e9)]
    for one in passes:
        done = onnx_model(model, passes=[one], seed=3)
        assert bool(done.map.passes[0].done) is (kind is np.float32)
        for seed in range(10):
            values = {"plain": images(seed)["plain"].astype(kind)}
            assert differences(model, done.model, values, levels=LEVELS[-1:]) == []


def test_keys_give_other_architectures() -> None:
    found = [operators(onnx_model(small(), passes=[QUICK], seed=seed).model) for seed in range(4)]
    for one in range(4):
        for other in range(one):
            apart = sum((found[one] - found[other]).values()) + sum((found[other] - found[one]).values())
            assert apart > 0.3 * found[one].total()


def test_the_true_branch_is_not_always_the_same() -> None:
    sides = [onnx_model(small(), passes=[FEW], seed=seed).map.passes[0].record["ifs"] for seed in range(20)]
    flat = [entry["branch"] for entries in sides for entry in entries]
    assert 0.2 < flat.count("then_branch") / len(flat) < 0.8


def test_nothing_is_folded_and_no_decoy_is_dropped(tmp_path: object) -> None:
    import onnxruntime

    done = onnx_model(small(), passes=[QUICK], seed=1)
    before = operators(done.model)
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.optimized_model_filepath = f"{tmp_path}/optimised.onnx"
        options.log_severity_level = 4
        onnxruntime.InferenceSession(done.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        after = operators(onnx.load(f"{tmp_path}/optimised.onnx"))
        assert after["If"] == before["If"]
        assert after.total() > 0.5 * before.total()


def test_weights_look_like_those_of_the_real_network() -> None:
    """Elements come from layers of the real network, divided by their size: heavy tails stay heavy."""
    b = Builder(0)
    model = b.model({b.conv("image", 3, 16): (2, 16, SIZE, SIZE)})
    kernel = np.sign(b.normal(16, 3, 3, 3)) * np.float32(0.01)
    kernel[0, 0, 0, 0] = 0.5
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(kernel, model.graph.initializer[1].name))
    layers: list[np.ndarray] = []
    for seed in range(4):
        done = onnx_model(model, passes=[QUICK], seed=seed)
        (true,) = (entry["branch"] for entry in done.map.passes[0].record["ifs"])
        (chooser,) = (node for node in done.model.graph.node if node.op_type == "If")
        (fake,) = (each.g for each in chooser.attribute if each.name != true)
        weights = {each.name: numpy_helper.to_array(each) for each in fake.initializer}
        layers += [weights[node.input[1]] for node in fake.node if node.op_type == "Conv"]
    assert layers
    for one in layers:
        ratio = np.abs(one).max() / np.abs(one).min()
        assert np.isclose(ratio, 1, rtol=1e-4) or np.isclose(ratio, 0.5 / 0.01, rtol=1e-4), ratio


def test_a_file_has_a_budget_of_bytes() -> None:
    b = Builder(0)
    x = b.add("Flatten", "image")
    model = b.model({b.add("MatMul", x, b.weight(b.normal(3 * SIZE * SIZE, 1500))): (2, 1500)})
    size = model.ByteSize()
    assert size > 2_000_000
    done = onnx_model(model, passes=[Phantoms(spare=0)], seed=1)
    assert 1.02 * size < done.model.ByteSize() < 1.09 * size
    assert done.map.passes[0].done == 1
    assert onnx_model(model, passes=["phantoms"], seed=1).model.ByteSize() < size + 2**18
    for seed in range(6):
        tight = onnx_model(model, passes=[Phantoms(growth=0.02, spare=0)], seed=seed)
        assert tight.model.ByteSize() < 1.022 * size
        assert tight.map.passes[0].left["imagined operators for which the file has no room"] > 300
    small_one = small()
    assert onnx_model(small_one, passes=["phantoms"], seed=1).model.ByteSize() < small_one.ByteSize() + 2**18


def test_time_is_bounded() -> None:
    none = onnx_model(small(), passes=[Phantoms(slowdown=0.0, allowed=0.0)], seed=1)
    assert none.model == small()
    assert none.map.passes[0].left["an If that would take too long"] == 1
    assert onnx_model(small(), passes=[Phantoms(ifs=0)], seed=1).model == small()


@pytest.mark.parametrize("beside", [False, True])
def test_outputs_of_other_types_and_shapes(beside: bool) -> None:
    model = text(
        """a = Relu (image) i = Cast <to = 7> (a) h = Cast <to = 10> (a) t = Cast <to = 9> (a)
        s = ReduceMax <keepdims = 0> (a) d = Cast <to = 11> (s) n = NonZero (image) z = Reshape (n, all)""",
        "float[n, 4] image",
        "int64[n, 4] i, float16[n, 4] h, bool[n, 4] t, double d, float s, int64[k] z",
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "all"))
    done = onnx_model(model, passes=[dataclasses.replace(FEW, beside=beside)], seed=3)
    assert done.map.passes[0].done == 1
    values = images(0, (3, 4))
    assert differences(model, done.model, values) == []
    outputs = session((looped if beside else flipped)(done.model)).run(None, {"image": values["plain"]})
    expected = session(model).run(None, {"image": values["plain"]})
    assert [(each.dtype, each.ndim) for each in outputs] == [(each.dtype, each.ndim) for each in expected]
    assert onnx.printer.to_text(undo(done.model, done.map).model) == onnx.printer.to_text(model)


@pytest.mark.parametrize("beside", [False, True])
def test_inputs_of_whole_numbers_and_free_sizes(beside: bool) -> None:
    model = text(
        "x = Gather (table, ids) y = ReduceMean <axes = [1], keepdims = 0> (x)", "int64[n, k] ids", "float[n, 8] y"
    )
    model.graph.initializer.append(numpy_helper.from_array(Builder(0).normal(50, 8), "table"))
    done = onnx_model(model, passes=[dataclasses.replace(FEW, beside=beside)], seed=1)
    assert done.map.passes[0].done == 1
    for shape in ((1, 1), (2, 5)):
        ids = np.random.default_rng(0).integers(0, 50, shape)
        for level in LEVELS:
            results = [session(each, level).run(None, {"ids": ids})[0] for each in (model, done.model)]
            assert np.array_equal(*results)
        session((looped if beside else flipped)(done.model)).run(None, {"ids": ids})


def pictures(kind: str, rows: int) -> onnx.ModelProto:
    body = "a = Cast <to = 1> (image) b = Conv <strides = [8, 8]> (a, w) y = Relu (b)"
    model = text(body, f"{kind}[1, 1, {rows}, 64] image", "float[1, 4, 8, 8] y")
    model.graph.initializer.append(numpy_helper.from_array(Builder(0).normal(4, 1, 8, 8), "w"))
    return model


@pytest.mark.parametrize(
    ("allowed", "few", "many"),
    [
        (1.9, [], []),
        (2, ["brief"], []),
        (Phantoms().allowed, ["brief"], ["glance"]),
        (4.9, ["brief"], ["glance"]),
        (5.1, ["opaque"], ["opaque"]),
    ],
)
def test_where_time_is_short_a_short_predicate_decides(allowed: float, few: list[str], many: list[str]) -> None:
    for rows, forms in ((64, few), (65, many)):
        found = cuts.Cuts(Net.load(pictures("float", rows))).chosen(1, 0.0, 1e-6 * allowed, Stream(as_key(1)))
        assert [one.predicate for one in found] == forms


@pytest.mark.parametrize(
    ("kind", "rows", "first"),
    [("float", 64, "Reduce"), ("float", 65, "Slice"), ("uint8", 64, "Cast"), ("uint8", 65, "Slice")],
)
def test_a_short_predicate_over_much_looks_at_a_part(kind: str, rows: int, first: str) -> None:
    """Pictures of whole numbers became floating ones as a whole first, which took longer than all the rest."""
    model = pictures(kind, rows)
    given = np.random.default_rng(0).integers(0, 9, (1, 1, rows, 64)).astype({"float": "f4", "uint8": "u1"}[kind])
    for seed in range(4):
        done = onnx_model(model, passes=[Phantoms(fewest=40, times=0, slowdown=0.0)], seed=seed)
        readers = [node.op_type for node in done.model.graph.node if "image" in node.input]
        assert [name.startswith(first) for name in readers] == [True]
        assert differences(model, done.model, {"plain": given}) == []
        assert onnx.printer.to_text(undo(done.model, done.map).model) == onnx.printer.to_text(model)


@pytest.mark.parametrize(
    ("kind", "sizes", "count"), [("float", "2, 3, 4", 24), ("uint8", "n, 3, 4", 12), ("float", "0, 4", 4)]
)
def test_where_there_is_time_the_predicate_is_a_longer_one(
    kind: str, sizes: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told how many elements there are for certain."""
    asked: list[int] = []

    def told(*given: Any, **named: Any) -> Any:
        asked.append(given[3])
        return opaque(*given, **named)

    monkeypatch.setattr(phantoms, "opaque", told)
    model = text("y = Cast <to = 1> (image)", f"{kind}[{sizes}] image", f"float[{sizes}] y")
    onnx_model(model, passes=[Phantoms(fewest=40, times=0, slowdown=0.0, allowed=5.1)], seed=1)
    assert asked == [count]


def test_what_has_axes_that_are_not_known_is_not_looked_at_in_part() -> None:
    """An IndexError came out, where such a value was estimated to be large."""
    body = """s = Shape (x) n = NonZero (ones) k = Reshape (n, flat) t = Gather (s, k) r = Reshape (x, t)
        a = MatMul (r, w) b = Relu (a) y = MatMul (b, v)"""
    model = text(body, "float[n, m, 64] x", "float[] y")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    held = {"ones": np.ones(3, np.int64), "flat": np.array([-1])} | dict.fromkeys("vw", Builder(0).normal(64, 64))
    for name, array in held.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    net = Net.load(model)
    found: set[tuple[str, str]] = set()
    for allowed in range(40, 46):
        chosen = cuts.Cuts(net).chosen(3, 0.0, 1e-6 * allowed, Stream(as_key(1)))
        found |= {(one.value, one.predicate) for one in chosen}
        passes = [Phantoms(fewest=40, times=0, slowdown=0.0, allowed=allowed)]
        assert onnx_model(model, passes=passes, seed=1).map.passes[0].done == len(chosen)
    assert found == {("x", "opaque"), ("b", "opaque")}


ROWS = "h = MatMul (image, a) r = Relu (h) y = MatMul (r, b)"
SIZED = {
    "rows": (ROWS, "float[8, 300] image", "float[8, 10] y", {"a": (300, 16), "b": (16, 10)}),
    "one row": (ROWS, "float[1, 300] image", "float[1, 10] y", {"a": (300, 16), "b": (16, 10)}),
    "tokens": (f"image = Gather (t, ids) {ROWS}", "int64[90] ids", "float[90, 2] y", {
        "t": (9, 20), "a": (20, 16), "b": (16, 2),
    }),
    "boxes": (
        "c = Conv (image, a) r = Relu (c) y = Reshape (r, s) z = ReduceMax <axes = [1], keepdims = 0> (y)",
        "float[1, 3, 12, 12] image",
        "float[100, 4] y, float[100] z",
        {"a": (4, 3, 3, 3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("opset", [9, 10, 12])
@pytest.mark.parametrize("case", SIZED)
def test_branches_give_the_sizes_that_an_output_states(case: str, opset: int) -> None:
    """Before operator set 11 no runtime took the model where the imagined branch gave another number of rows."""
    body, inputs, outputs, weights = SIZED[case]
    model = text(body, inputs, outputs, opset)
    held = {name: Builder(1).normal(*shape) for name, shape in weights.items()} | {"s": np.array([100, 4])}
    for name, array in held.items():
        if name in weights or case == "boxes":
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    (image,) = model.graph.input
    sizes = [size.dim_value for size in image.type.tensor_type.shape.dim]
    rng = np.random.default_rng(0)
    given = rng.integers(0, 9, sizes) if case == "tokens" else rng.normal(size=sizes).astype(np.float32)
    for seed in range(4):
        made = onnx_model(model, passes=[FEW], seed=seed).model
        assert made.graph.node[-1].op_type == "If"
        assert differences(model, made, {"plain": given}) == []
        session(flipped(made)).run(None, {image.name: given})


@pytest.mark.parametrize("opset", [9, 12, 13, 18, 23])
@pytest.mark.parametrize(
    "rows",
    [("2", "5"), ("5", "2"), ("1", "5"), ("3", "3"), ("n", "5"), ("5", "n"), ("n", "1"), ("n", "n")]
    + [("2", "5", "3"), ("n", "5", "2"), ("2", "n", "m"), ("1", "2", "5"), ("5", "1", "n"), ("2", "5", "2")],
)
def test_inputs_with_first_sizes_of_their_own(rows: tuple[str, ...], opset: int) -> None:
    """Networks of one with 2 rows and of one with 5 were joined, and no runtime took the file."""
    numbers = {"n": 4, "m": 6}
    body = " ".join(f"h{i} = MatMul (x{i}, w{i}) r{i} = Relu (h{i}) y{i} = MatMul (r{i}, v)" for i in range(len(rows)))
    inputs = ", ".join(f"float[{size}, {16 + i}] x{i}" for i, size in enumerate(rows))
    outputs = ", ".join(f"float[{size}, 4] y{i}" for i, size in enumerate(rows))
    model = text(body, inputs, outputs, opset)
    for name, shape in {"v": (8, 4), **{f"w{i}": (16 + i, 8) for i in range(len(rows))}}.items():
        model.graph.initializer.append(numpy_helper.from_array(Builder(2).normal(*shape), name))
    sizes = [numbers[size] if size in numbers else int(size) for size in rows]
    given = {f"x{i}": Builder(3).normal(size, 16 + i) for i, size in enumerate(sizes)}
    for seed in range(3):
        made = onnx_model(model, passes=[QUICK], seed=seed)
        assert made.map.passes[0].done
        results = [session(each).run(None, given) for each in (model, made.model)]
        assert all(np.array_equal(*pair) for pair in zip(*results, strict=True))
        session(flipped(made.model)).run(None, given)
        assert onnx.printer.to_text(undo(made.model, made.map).model) == onnx.printer.to_text(model)


def test_parts_of_one_input_that_have_other_rows() -> None:
    """What crosses a cut has rows of its own, even if there is one input."""
    model = text(
        """a = Slice (x, zero, two, zero) h = MatMul (a, w) j = Relu (h) c = MatMul (j, v)
        y = Concat <axis = 0> (c, x)""",
        "float[7, 16] x",
        "float[9, 16] y",
    )
    held = {name: np.array([at]) for name, at in (("zero", 0), ("two", 2))}
    for name, array in {**held, "w": Builder(4).normal(16, 16), "v": Builder(5).normal(16, 16)}.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    given = {"x": Builder(3).normal(7, 16)}
    for seed in range(6):
        made = onnx_model(model, passes=[FREE], seed=seed).model
        assert np.array_equal(session(model).run(None, given)[0], session(made).run(None, given)[0])
        session(flipped(made)).run(None, given)


@pytest.mark.parametrize("opset", [9, 10, 11])
@pytest.mark.parametrize("sizes", ["n, 3, 4", "n, 200", "n, k, 4", "n, 1, 4", "n, 4", "1, k, 4"])
def test_free_sizes_stay_free(sizes: str, opset: int) -> None:
    """Before operator set 11 an If in an If had the sizes of what was imagined: one row, and more were refused."""
    *others, last = sizes.split(", ")
    model = text(
        "h = MatMul (x, w) r = Relu (h) y = MatMul (r, v)",
        f"float[{', '.join(others)}, 16] x",
        f"float[{sizes}] y",
        opset,
    )
    for name, array in {"w": Builder(2).normal(16, 8), "v": Builder(3).normal(8, int(last))}.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    given = {"x": Builder(4).normal(*({"n": 4, "k": 2}.get(size) or int(size) for size in others), 16)}
    for seed in range(3):
        made = onnx_model(model, passes=[FREE], seed=seed).model
        assert operators(made)["If"] > 1
        for level in LEVELS:
            assert np.array_equal(*(session(each, level).run(None, given)[0] for each in (model, made)))
        session(flipped(made)).run(None, given)


def test_models_that_it_cannot_hide_are_left_alone() -> None:
    strings = text("y = Identity (words)", "string[n] words", "string[n] y")
    sequences = text("y = SequenceConstruct (image)", "float[2] image", "seq(float[2]) y")
    for model in (strings, sequences):
        entry = onnx_model(model, passes=[FEW], seed=1).map.passes[0]
        assert (entry.done, entry.left) == (
            0,
            {"a model whose inputs are no numbers, or whose outputs are no tensors": 1},
        )
    old = onnx_model(small(8), passes=[FEW], seed=1)
    assert old.model == small(8)
    assert old.map.passes[0].left == {"operator sets before 9": 1}


def test_constants_that_others_read_and_branches_of_the_model_s_own() -> None:
    model = text(
        """low = Constant <value = float {0.25}> () a = Max (image, low) s = ReduceSum <keepdims = 0> (a)
        go = Greater (s, low) y = If (go) <then_branch = t () => (float[2, 4] p) { p = Mul (a, low) },
        else_branch = e () => (float[2, 4] q) { q = Neg (a) }> z = Add (y, low)""",
        "float[2, 4] image",
        "float[2, 4] y, float[2, 4] z",
    )
    done = onnx_model(model, passes=[FEW], seed=1)
    assert done.map.passes[0].done == 1
    assert differences(model, done.model, images(0, (2, 4))) == []
    assert onnx.printer.to_text(undo(done.model, done.map).model) == onnx.printer.to_text(model)


@pytest.mark.parametrize("others", ["", "z = MatMul (image, w)"])
def test_weights_that_only_inner_graphs_read_stay_as_near_to_them(others: str) -> None:
    """Runtimes lay them out in advance for the graph around, not for the one around that, and sums change."""
    model = text(
        f"""zero = Constant <value = float {{0.0}}> () s = ReduceSum <keepdims = 0> (image) go = Greater (s, zero)
        y = If (go) <then_branch = t () => (float[1, 16] p) {{ p = MatMul (image, w) }},
        else_branch = e () => (float[1, 16] q) {{ r = MatMul (image, w) q = Neg (r) }}> {others}""",
        "float[1, 16] image",
        "float[1, 16] y" + (", float[1, 16] z" if others else ""),
    )
    model.graph.initializer.append(numpy_helper.from_array(Builder(0).normal(16, 16), "w"))
    done = onnx_model(model, passes=[FEW], seed=1)
    assert done.map.passes[0].done == 1
    for seed in range(4):
        assert differences(model, done.model, images(seed, (1, 16))) == []
    assert onnx.printer.to_text(undo(done.model, done.map).model) == onnx.printer.to_text(model)


def test_weights_among_the_inputs_and_stated_shapes_come_back() -> None:
    model = onnx.shape_inference.infer_shapes(small())
    assert model.graph.value_info
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    model.ir_version = 3
    done = onnx_model(model, passes=[QUICK, "order", "names"], seed=1)
    assert done.map.passes[0].done >= 1
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == model


def test_a_leaked_copy_is_still_traced() -> None:
    model, key = random_net(11), bytes(32)
    copies = {name: onnx_model(model, seed=key, customer=name) for name in ("acme", "bolt", "core")}
    for name, copy in copies.items():
        best = trace(copy.model, [each.map for each in copies.values()])[0]
        assert best.customer == name
        assert best.log10_chance < -6


def test_numbers_are_bounded() -> None:
    for wrong in ("times", "fewest", "growth", "spare", "ifs", "slowdown", "allowed"):
        with pytest.raises(ConfigError, match="E103"):
            Phantoms(**{wrong: -1})


@pytest.mark.slow
def test_cuts_are_made_where_they_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind any value, layers would be kept from what they are fused with, and numbers would change."""
    begin = cuts.Cuts.__init__

    def careless(self: cuts.Cuts, net: Net) -> None:
        begin(self, net)
        self._safe = {name for node in net.graph.nodes for name in node.outputs if name}

    monkeypatch.setattr(cuts.Cuts, "__init__", careless)
    monkeypatch.setattr(cuts.Cuts, "_copied", lambda *_: 0.0)
    changed = 0
    for seed in range(1000, 1020):
        model = random_net(seed)
        done = onnx_model(model, passes=[FREE], seed=seed)
        changed += bool(differences(model, done.model, {"plain": images(seed)["plain"]}))
    assert changed >= 5


def test_nothing_grows_without_end() -> None:
    """Widths multiply in blocks of branches; what takes too much is drawn again, and there is always something."""
    model = small()
    for seed in range(12):
        for room in (0, 600, 6000):
            none = Phantoms(growth=0.0, spare=room, slowdown=9.0)
            done = onnx_model(model, passes=[none], seed=seed)
            assert done.map.passes[0].done >= 1
            assert done.model.ByteSize() < model.ByteSize() + room + 2500 * done.map.passes[0].done
            assert operators(done.model)["If"] == done.map.passes[0].done


def test_each_output_is_a_value_of_its_own() -> None:
    """Two outputs for which the same networks are drawn were one value, and no runtime took the file."""
    b = Builder(0)
    x = b.conv("image", 3, 4)
    outputs = {b.add(op, x): (2, 4, SIZE, SIZE) for op in ("Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Exp", "Floor")}
    model = b.model(outputs | {b.add("ReduceMax", x, keepdims=0): () for _ in range(7)}, opset=17)
    for seed in range(6):
        done = onnx_model(model, passes=[QUICK], seed=seed)
        assert done.map.passes[0].done
        assert differences(model, done.model, images(seed)) == []
