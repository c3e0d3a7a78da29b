"""Simple obfuscations for tests of the measures: what they hide and what they do not is known exactly."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Layers = list[tuple[NDArray[np.float32], NDArray[np.float32]]]


def weights(seed: int = 0, widths: tuple[int, ...] = (6, 24, 16, 20, 5)) -> Layers:
    """Dense layers: (out, in) and (out,)."""
    rng = np.random.default_rng(seed)
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return [
        ((rng.normal(size=(b, a)) / np.sqrt(a)).astype(np.float32), rng.normal(size=b).astype(np.float32))
        for a, b in pairs
    ]


def dense(layers: Layers, activation: str = "Relu", *, name: str = "fc") -> ModelProto:
    """Gemm layers with an activation between."""
    nodes, tensors, value = list[NodeProto](), list[TensorProto](), "input"
    for number, (weight, bias) in enumerate(layers):
        inner = f"{name}{number}.hidden"
        nodes.append(
            helper.make_node("Gemm", [value, f"{name}{number}.weight", f"{name}{number}.bias"], [inner], transB=1)
        )
        tensors += [
            numpy_helper.from_array(weight, f"{name}{number}.weight"),
            numpy_helper.from_array(bias, f"{name}{number}.bias"),
        ]
        value = inner
        if number < len(layers) - 1:
            value = f"{name}{number}.relu"
            nodes.append(helper.make_node(activation, [inner], [value]))
    nodes[-1].output[0] = "logits"
    return finished(
        nodes, tensors, ("input", [None, layers[0][0].shape[1]]), ("logits", [None, layers[-1][0].shape[0]])
    )


def finished(
    nodes: list[NodeProto],
    tensors: list[TensorProto],
    given: tuple[str, list[int | None]],
    made: tuple[str, list[int | None]],
) -> ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (given, made)]
    graph = helper.make_graph(nodes, "main_graph", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="pytorch")
    onnx.checker.check_model(model)
    return model


def gauged(layers: Layers, seed: int = 1, *, signs: bool = False) -> tuple[Layers, list[NDArray[np.int64]]]:
    """Channels between layers permuted, and scaled by powers of two or turned in sign; and where each came from."""
    rng = np.random.default_rng(seed)
    new, orders = [(weight.copy(), bias.copy()) for weight, bias in layers], list[NDArray[np.int64]]()
    for number in range(len(layers) - 1):
        count = len(new[number][0])
        order = rng.permutation(count)
        scale = (rng.choice([-1.0, 1.0], count) if signs else 2.0 ** rng.integers(-3, 4, count)).astype(np.float32)
        weight, bias = new[number]
        new[number] = (weight[order] * scale[:, None], bias[order] * scale)
        after, rest = new[number + 1]
        new[number + 1] = (after[:, order] / scale[None], rest)
        orders.append(order)
    return new, [*orders, np.arange(len(layers[-1][0]))]


def locked(layers: Layers, seed: int = 2) -> Layers:
    """All elements of every tensor in another place, half of them with another sign."""
    rng = np.random.default_rng(seed)

    def mixed(array: NDArray[np.float32]) -> NDArray[np.float32]:
        flat = array.reshape(-1)[rng.permutation(array.size)]
        return (flat * rng.choice([-1, 1], array.size)).astype(np.float32).reshape(array.shape)

    return [(mixed(weight), mixed(bias)) for weight, bias in layers]


def renamed(model: ModelProto, seed: int = 0) -> ModelProto:
    """Every name random hexadecimal digits; nodes in the order in which they were; no documentation."""
    rng, new = np.random.default_rng(seed), dict[str, str]()
    copy = ModelProto.FromString(model.SerializeToString())

    def name(old: str) -> str:
        return new.setdefault(old, f"x{rng.integers(2**62):016x}") if old else ""

    copy.producer_name = copy.doc_string = ""
    waiting = [copy.graph]
    while waiting:
        graph = waiting.pop()
        graph.name = "x"
        for node in graph.node:
            node.name = name(f"node {id(node)}")
            node.input[:] = [name(each) for each in node.input]
            node.output[:] = [name(each) for each in node.output]
            waiting += [each.g for each in node.attribute if each.HasField("g")]
        if graph is not copy.graph:
            for each in graph.output:
                each.name = name(each.name)
    for each in [*copy.graph.initializer, *copy.graph.input, *copy.graph.output]:
        each.name = name(each.name)
    for each in [*copy.graph.input, *copy.graph.output]:
        for size in each.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = "x"
    copy.graph.ClearField("value_info")
    return copy


def padded(model: ModelProto) -> ModelProto:
    """An Identity, a product by one and a sum with zero after every node: nothing, three times."""
    copy = ModelProto.FromString(model.SerializeToString())
    copy.graph.initializer.extend(
        [numpy_helper.from_array(np.array(value, np.float32), name) for value, name in ((1.0, "one"), (0.0, "zero"))]
    )
    nodes = list[NodeProto]()
    for number, node in enumerate(model.graph.node):
        kept, out = NodeProto.FromString(node.SerializeToString()), node.output[0]
        kept.output[0] = f"a{number}"
        nodes += [
            kept,
            helper.make_node("Identity", [f"a{number}"], [f"b{number}"]),
            helper.make_node("Mul", [f"b{number}", "one"], [f"c{number}"]),
            helper.make_node("Add", [f"c{number}", "zero"], [out]),
        ]
    copy.graph.ClearField("node")
    copy.graph.node.extend(nodes)
    return copy


def decoyed(layers: Layers, *, activation: str = "Relu", seed: int = 3) -> ModelProto:
    """Each Gemm in one side of an If on the data (mean square >= 0), a Gemm of other weights in the other side."""
    model, rng = dense(layers, activation), np.random.default_rng(seed)
    nodes = list[NodeProto]()
    extra = [numpy_helper.from_array(np.array(0.0, np.float32), "nothing")]
    for number, node in enumerate(model.graph.node):
        if node.op_type != "Gemm":
            nodes.append(node)
            continue
        weight, bias = layers[number // 2]
        fakes = [
            numpy_helper.from_array(rng.permuted(array), f"fake{number}.{place}")
            for place, array in enumerate((weight, bias))
        ]
        extra += fakes
        square, mean, test = (f"{part}{number}" for part in ("square", "mean", "test"))
        nodes += [
            helper.make_node("Mul", [node.input[0], node.input[0]], [square]),
            helper.make_node("ReduceMean", [square], [mean], keepdims=0),
            helper.make_node("GreaterOrEqual", [mean, "nothing"], [test]),
        ]
        sides = {}
        for side, inputs in (("then", list(node.input)), ("else", [node.input[0], *(each.name for each in fakes)])):
            end = helper.make_tensor_value_info(f"{side}{number}", TensorProto.FLOAT, [None, len(weight)])
            inner = helper.make_node("Gemm", inputs, [end.name], transB=1)
            sides[f"{side}_branch"] = helper.make_graph([inner], f"{side}{number}_graph", [], [end])
        nodes.append(helper.make_node("If", [test], list(node.output), **sides))
    copy = ModelProto.FromString(model.SerializeToString())
    copy.graph.ClearField("node")
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend(extra)
    onnx.checker.check_model(copy)
    return copy


def split(layers: Layers, seed: int = 4) -> ModelProto:
    """Every Gemm as the sum of two, whose weights add up to its own; every Relu as (x + |x|) / 2."""
    rng, nodes, tensors, value = np.random.default_rng(seed), list[NodeProto](), list[TensorProto](), "input"
    tensors.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    for number, (weight, bias) in enumerate(layers):
        part = rng.normal(size=weight.shape).astype(np.float32)
        zero = np.zeros_like(bias)
        for side, (one, two) in enumerate(((part, bias), (weight - part, zero))):
            tensors += [
                numpy_helper.from_array(one, f"w{number}{side}"),
                numpy_helper.from_array(two, f"b{number}{side}"),
            ]
            nodes.append(
                helper.make_node(
                    "Gemm", [value, f"w{number}{side}", f"b{number}{side}"], [f"g{number}{side}"], transB=1
                )
            )
        value = f"h{number}" if number < len(layers) - 1 else "logits"
        nodes.append(helper.make_node("Add", [f"g{number}0", f"g{number}1"], [value]))
        if number < len(layers) - 1:
            nodes += [
                helper.make_node("Abs", [value], [f"abs{number}"]),
                helper.make_node("Add", [value, f"abs{number}"], [f"twice{number}"]),
                helper.make_node("Mul", [f"twice{number}", "half"], [f"r{number}"]),
            ]
            value = f"r{number}"
    return finished(
        nodes, tensors, ("input", [None, layers[0][0].shape[1]]), ("logits", [None, layers[-1][0].shape[0]])
    )


def gathered(layers: Layers, seed: int = 5) -> ModelProto:
    """Channels permuted in weights and put back by a Gather; weights packed, cut out at an offset made at run time."""
    rng, nodes, tensors, value = np.random.default_rng(seed), list[NodeProto](), list[TensorProto](), "input"
    whole = np.concatenate([weight.reshape(-1) for weight, _ in layers])
    starts = np.cumsum([0, *(weight.size for weight, _ in layers)])
    tensors.append(numpy_helper.from_array(whole, "whole"))
    tensors.append(numpy_helper.from_array(np.array([0], np.int64), "first"))
    nodes.append(helper.make_node("Shape", ["input"], ["shape"], start=0, end=1))
    nodes.append(helper.make_node("Sub", ["shape", "shape"], ["offset"]))  # zero, but only once the input is there
    for number, (weight, bias) in enumerate(layers):
        order = rng.permutation(len(weight)) if number < len(layers) - 1 else np.arange(len(weight))
        whole[starts[number] : starts[number + 1]] = weight[order].reshape(-1)
        constants = {
            f"begin{number}": starts[number : number + 1],
            f"end{number}": starts[number + 1 : number + 2],
            f"sizes{number}": np.array(weight.shape, np.int64),
            f"back{number}": np.argsort(order),
        }
        tensors += [numpy_helper.from_array(array.astype(np.int64), name) for name, array in constants.items()]
        tensors.append(numpy_helper.from_array(bias[order], f"bias{number}"))
        last = number == len(layers) - 1
        nodes += [
            helper.make_node("Add", ["offset", f"begin{number}"], [f"from{number}"]),
            helper.make_node("Slice", ["whole", f"from{number}", f"end{number}", "first"], [f"cut{number}"]),
            helper.make_node("Reshape", [f"cut{number}", f"sizes{number}"], [f"weight{number}"]),
            helper.make_node("Gemm", [value, f"weight{number}", f"bias{number}"], [f"raw{number}"], transB=1),
        ]
        if last:
            nodes[-1].output[0] = "logits"
            continue
        nodes += [
            helper.make_node("Relu", [f"raw{number}"], [f"active{number}"]),
            helper.make_node("Gather", [f"active{number}", f"back{number}"], [f"value{number}"], axis=1),
        ]
        value = f"value{number}"
    tensors[0] = numpy_helper.from_array(whole, "whole")
    return finished(
        nodes, tensors, ("input", [None, layers[0][0].shape[1]]), ("logits", [None, layers[-1][0].shape[0]])
    )


def inputs(count: int = 40, width: int = 6, seed: int = 9) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
