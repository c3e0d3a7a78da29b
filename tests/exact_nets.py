"""Networks of many kinds, drawn at random, and whether two of them compute the same at every level of onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

LEVELS = tuple(
    getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{name}")
    for name in ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")
)
SIZE = 12


class Builder:
    """Nodes and weights one after the other; weights are drawn."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._names = 0

    def name(self) -> str:
        self._names += 1
        return f"layer.{self._names}"

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def weight(self, array: Any) -> str:
        name = self.name()
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        output = self.name()
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"{op}_{output}", **attributes))
        return output

    def conv(self, x: str, taken: int, given: int, size: int = 3, group: int = 1, *, bias: bool = True) -> str:
        kernel = self.normal(given, taken // group, size, size) / np.float32(np.sqrt(taken / group) * size)
        more = [self.weight(self.normal(given))] if bias else []
        return self.add("Conv", x, self.weight(kernel), *more, group=group, pads=[size // 2] * 4)

    def batch_norm(self, x: str, channels: int) -> str:
        arrays = [self.normal(channels) for _ in range(3)] + [np.abs(self.normal(channels)) + np.float32(0.1)]
        return self.add("BatchNormalization", x, *map(self.weight, arrays))

    def model(
        self,
        outputs: dict[str, tuple[Any, ...]],
        shape: tuple[Any, ...] = (2, 3, SIZE, SIZE),
        opset: int = 17,
        kind: Any = np.float32,
    ) -> onnx.ModelProto:
        number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        graph = helper.make_graph(
            self.nodes,
            "main_graph",
            [helper.make_tensor_value_info("image", number, shape)],
            [helper.make_tensor_value_info(name, number, sizes) for name, sizes in outputs.items()],
            self.weights,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, producer_name="trainer"
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def _activation(b: Builder, x: str, channels: int) -> str:
    kind = int(b.rng.integers(9))
    if kind == 0:
        return b.add("Mul", x, b.add("Sigmoid", x))
    if kind == 1:
        return b.add("PRelu", x, b.weight(np.abs(b.normal(channels, 1, 1))))
    if kind in {2, 3}:
        low, high = ((0, 6), (-1, 1))[kind - 2]
        return b.add("Clip", x, b.weight(np.float32(low)), b.weight(np.float32(high)))
    return b.add(("Relu", "LeakyRelu", "Tanh", "HardSwish", "Identity")[kind - 4], x)


def random_net(seed: int) -> onnx.ModelProto:
    """Three to eight parts, each of one of ten kinds, and two fully connected layers."""
    b = Builder(seed)
    channels = int(b.rng.choice([8, 12, 16]))
    x = _activation(b, b.conv("image", 3, channels), channels)
    for _ in range(int(b.rng.integers(3, 9))):
        kind = int(b.rng.integers(10))
        if kind <= 2:
            given = int(b.rng.choice([8, 10, 16, 24, 32]))
            y = b.conv(x, channels, given, int(b.rng.choice([1, 3])), bias=bool(b.rng.integers(2)))
            y = b.batch_norm(y, given) if b.rng.integers(2) else y
            y = b.add("Mul", y, b.weight(b.normal(1, given, 1, 1))) if b.rng.integers(4) == 0 else y
            y = b.add("Add", y, b.weight(b.normal(1, given, 1, 1))) if b.rng.integers(4) == 0 else y
            x, channels = _activation(b, y, given), given
        elif kind == 3:
            x = b.add("MaxPool", x, kernel_shape=[2, 2])
        elif kind == 4:
            x = b.add("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=int(b.rng.integers(2)))
        elif kind == 5:
            y = b.conv(_activation(b, b.conv(x, channels, channels), channels), channels, channels)
            y = b.batch_norm(y, channels) if b.rng.integers(2) else y
            x = _activation(b, b.add("Add", *((x, y) if b.rng.integers(2) else (y, x))), channels)
        elif kind == 6:
            x = b.add("Concat", *(_activation(b, b.conv(x, channels, 8), 8) for _ in range(2)), axis=1)
            channels = 16
        elif kind == 7:
            group = channels if b.rng.integers(2) else 2
            y = b.batch_norm(b.conv(x, channels, channels, 3, group), channels)
            x = _activation(b, y, channels)
        elif kind == 8:
            gate = b.add("Relu", b.conv(b.add("GlobalAveragePool", x), channels, 8, 1))
            x = b.add("Mul", x, b.add("Sigmoid", b.conv(gate, 8, channels, 1)))
        else:
            x = _activation(b, b.batch_norm(x, channels), channels)
    pooled = b.add("Flatten", b.add("GlobalAveragePool", x))
    y = b.add("Gemm", pooled, b.weight(b.normal(31, channels) / np.float32(4)), b.weight(b.normal(31)), transB=1)
    y = b.add(("Relu", "Tanh", "Erf")[int(b.rng.integers(3))], y)
    y = b.add("Add", b.add("MatMul", y, b.weight(b.normal(31, 10))), b.weight(b.normal(10)))
    outputs: dict[str, tuple[Any, ...]] = {y: (2, 10)}
    if b.rng.integers(3) == 0:
        outputs[pooled] = (2, channels)
    return b.model(outputs)


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in half precision: weights, inputs and outputs."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for each in half.graph.initializer:
        if each.data_type == onnx.TensorProto.FLOAT:
            each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each).astype(np.float16), each.name))
    for each in (*half.graph.input, *half.graph.output):
        each.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return half


def half_images(seed: int, shape: tuple[int, ...] = (2, 3, SIZE, SIZE)) -> dict[str, np.ndarray]:
    """Inputs in half precision: near both ends of its range, too, and of the smallest numbers that it has."""
    whole = images(seed, shape)
    whole |= {"large": whole["plain"] * np.float32(300), "tiny": whole["plain"] * np.float32(2.0**-22)}
    return {what: values.astype(np.float16) for what, values in whole.items()}


def images(seed: int, shape: tuple[int, ...] = (2, 3, SIZE, SIZE)) -> dict[str, np.ndarray]:
    """Inputs that a network of the world may meet, and some that it had better not."""
    plain = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    one_nan, infinite = plain.copy(), plain.copy()
    one_nan.flat[0] = np.nan
    infinite.flat[5], infinite.flat[-1] = np.inf, -np.inf
    return {
        "plain": plain,
        "one NaN": one_nan,
        "all NaN": np.full_like(plain, np.nan),
        "infinite": infinite,
        "zero": np.zeros_like(plain),
        "large": plain * np.float32(1e25),
        "small": plain * np.float32(1e-6),
    }


def session(model: onnx.ModelProto | str, level: Any = LEVELS[-1], threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    source = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def differences(
    one: onnx.ModelProto,
    other: onnx.ModelProto,
    inputs: dict[Any, np.ndarray],
    *,
    levels: tuple[Any, ...] = LEVELS,
    threads: int = 1,
) -> list[str]:
    """Where two models differ: level and input; none where no bit does, but for those of NaN at the same places."""
    found: list[str] = []
    for level in levels:
        first, second = session(one, level, threads), session(other, level, threads)
        for what, values in inputs.items():
            feeds = [{each.get_inputs()[0].name: values} for each in (first, second)]
            pairs = zip(first.run(None, feeds[0]), second.run(None, feeds[1]), strict=True)
            if not all(_bits(a) == _bits(b) for a, b in pairs):
                found.append(f"{level.name}: {what}")
    return found


def _bits(array: np.ndarray) -> tuple[object, ...]:
    plain = np.where(np.isnan(array), np.nan, array) if array.dtype.kind == "f" else array
    return array.dtype, array.shape, plain.tobytes()
