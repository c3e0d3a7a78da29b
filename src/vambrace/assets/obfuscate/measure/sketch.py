"""Small ONNX networks, drawn operator by operator: the clean graphs that an architecture classifier learns from.

A `Sketch` keeps track of shapes (channels, height, width), so that families only say what comes after what. Weights
are uniform within He's bound, from a named stream. `style` holds choices that say nothing about the family, such as
which activation is used or whether batch normalisation was folded, so that no classifier can learn a family by them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.measure.runtime import onnx

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

    from vambrace.core.rng import Streams

__all__ = ["Choices", "Sketch", "Style", "Value"]

OPSET, IR = 17, 9


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the network: its name, and its sizes without the batch."""

    name: str
    shape: tuple[int, ...]


class Choices:
    """Draws in order from one stream: what makes a variant itself.

    Args:
        rng: the stream.
        scale: how many times as wide layers are.
    """

    def __init__(self, rng: Streams, scale: int = 1) -> None:
        self._rng = rng
        self._scale = scale
        self._step = 0

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        self._step += 1
        return low + int(self._rng.integers(high - low + 1, shape=(1,), step=self._step)[0])

    def width(self, low: int, high: int) -> int:
        """Channels or units, both ends included, at this scale."""
        return self.scaled(self.between(low, high))

    def scaled(self, count: int) -> int:
        """Channels or units at this scale."""
        return self._scale * count

    def of(self, *options: Any) -> Any:  # noqa: ANN401  whatever is offered
        """One of the options."""
        return options[self.between(0, len(options) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What is chosen for the whole network.

    Attributes:
        activation: operator type.
        normalised: whether batch normalisation stands beside convolutions, as before folding.
        head: "gemm" or "conv", how scores are made of pooled features.
        pooled: "GlobalAveragePool" or "ReduceMean".
    """

    activation: str
    normalised: bool
    head: str
    pooled: str

    @classmethod
    def drawn(cls, choices: Choices) -> Style:
        """A style."""
        return cls(
            activation=choices.of("Relu", "Relu", "LeakyRelu", "HardSwish", "Elu"),
            normalised=choices.of(True, False),
            head=choices.of("gemm", "gemm", "conv"),
            pooled=choices.of("GlobalAveragePool", "ReduceMean"),
        )


class Sketch:
    """A network under construction.

    Args:
        shape: of one sample.
        style: of the whole network.
        rng: of weights.
    """

    def __init__(self, shape: tuple[int, ...], style: Style, rng: Streams) -> None:
        self.style = style
        self.input = Value("input", shape)
        self._rng = rng
        self._nodes: list[Any] = []
        self._tensors: list[Any] = []

    def node(self, operator: str, inputs: list[str], shape: tuple[int, ...], **attributes: object) -> Value:
        """Any operator of one output, whose sizes without the batch are `shape`."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        kept = {key: value for key, value in attributes.items() if value is not None}
        self._nodes.append(onnx().helper.make_node(operator, inputs, [name], name=f"{name}_node", **kept))
        return Value(name, shape)

    def weight(self, *shape: int, fan_in: int = 0, constant: float | None = None) -> str:
        """A new weight: within He's bound for `fan_in`, or filled with a constant."""
        place = len(self._tensors)
        if constant is None:
            drawn = self._rng.integers(2**32, shape=shape, step=place) / 2.0**31 - 1.0
            array = drawn * math.sqrt(6.0 / max(fan_in, 1))
        else:
            array = np.full(shape, constant)
        return self.tensor(array.astype(np.float32))

    def tensor(self, array: NDArray[Any]) -> str:
        """A constant."""
        name = f"weight_{len(self._tensors)}"
        self._tensors.append(onnx().numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def conv(
        self, x: Value, out: int, kernel: int = 3, *, stride: int = 1, group: int = 1, bare: bool = False
    ) -> Value:
        """A convolution with bias, then batch normalisation and activation as the style has it, or bare."""
        inside = x.shape[0] // group
        pad = kernel // 2
        sizes = tuple((size + 2 * pad - kernel) // stride + 1 for size in x.shape[1:])
        inputs = [x.name, self.weight(out, inside, kernel, kernel, fan_in=inside * kernel**2)]
        inputs.append(self.weight(out, fan_in=600))
        attributes: dict[str, object] = {"kernel_shape": [kernel] * 2, "pads": [pad] * 4, "strides": [stride] * 2}
        made = self.node("Conv", inputs, (out, *sizes), group=group, **attributes)
        return made if bare else self.active(self.normal(made))

    def normal(self, x: Value) -> Value:
        """Batch normalisation, where the style has it."""
        if not self.style.normalised:
            return x
        channels = x.shape[0]
        parts = [self.weight(channels, constant=value) for value in (1.0, 0.0, 0.0, 1.0)]
        return self.node("BatchNormalization", [x.name, *parts], x.shape, epsilon=1e-5)

    def active(self, x: Value, operator: str | None = None) -> Value:
        """An activation: the style's, or a named one."""
        return self.node(operator or self.style.activation, [x.name], x.shape)

    def linear(self, x: Value, out: int) -> Value:
        """A dense layer over vectors."""
        inside = x.shape[0]
        inputs = [x.name, self.weight(out, inside, fan_in=inside), self.weight(out, fan_in=600)]
        return self.node("Gemm", inputs, (out,), transB=1)

    def matmul(self, x: Value, out: int) -> Value:
        """A dense layer over the last axis."""
        inside = x.shape[-1]
        made = self.node("MatMul", [x.name, self.weight(inside, out, fan_in=inside)], (*x.shape[:-1], out))
        return self.node("Add", [made.name, self.weight(out, fan_in=600)], made.shape)

    def pool(self, x: Value, operator: str = "MaxPool", *, kernel: int = 2, stride: int = 2) -> Value:
        """A pooling; a kernel of 3 keeps the size at stride 1."""
        pad = 1 if kernel == 3 else 0
        sizes = tuple((size + 2 * pad - kernel) // stride + 1 for size in x.shape[1:])
        attributes: dict[str, object] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        return self.node(operator, [x.name], (x.shape[0], *sizes), **attributes)

    def add(self, one: Value, other: Value, operator: str = "Add") -> Value:
        """A sum or product of two values of one shape."""
        return self.node(operator, [one.name, other.name], one.shape)

    def concat(self, *values: Value) -> Value:
        """Along channels."""
        total = sum(each.shape[0] for each in values)
        return self.node("Concat", [each.name for each in values], (total, *values[0].shape[1:]), axis=1)

    def upsample(self, x: Value) -> Value:
        """Twice the height and width, by repetition."""
        scales = self.tensor(np.array([1, 1, 2, 2], dtype=np.float32))
        sizes = tuple(2 * size for size in x.shape[1:])
        return self.node("Resize", [x.name, "", scales], (x.shape[0], *sizes), mode="nearest")

    def transposed(self, x: Value, out: int) -> Value:
        """A transposed convolution that doubles height and width."""
        inputs = [x.name, self.weight(x.shape[0], out, 2, 2, fan_in=x.shape[0]), self.weight(out, fan_in=600)]
        sizes = tuple(2 * size for size in x.shape[1:])
        return self.node("ConvTranspose", inputs, (out, *sizes), kernel_shape=[2, 2], strides=[2, 2])

    def layer_norm(self, x: Value) -> Value:
        """Over the last axis."""
        parts = [self.weight(x.shape[-1], constant=value) for value in (1.0, 0.0)]
        return self.node("LayerNormalization", [x.name, *parts], x.shape, axis=-1)

    def reshape(self, x: Value, *shape: int) -> Value:
        """Other sizes, the batch kept."""
        return self.node("Reshape", [x.name, self.tensor(np.array([0, *shape], dtype=np.int64))], shape)

    def transpose(self, x: Value, *order: int) -> Value:
        """Axes after the batch in another order, counted from 1."""
        return self.node("Transpose", [x.name], tuple(x.shape[axis - 1] for axis in order), perm=[0, *order])

    def flat(self, x: Value) -> Value:
        """One vector a sample."""
        return self.node("Flatten", [x.name], (math.prod(x.shape),), axis=1)

    def average(self, x: Value) -> Value:
        """Channels, averaged over height and width, which stay as 1."""
        if self.style.pooled == "ReduceMean":
            return self.node("ReduceMean", [x.name], (x.shape[0], 1, 1), axes=[2, 3], keepdims=1)
        return self.node("GlobalAveragePool", [x.name], (x.shape[0], 1, 1))

    def classes(self, x: Value, count: int) -> Value:
        """Scores from maps, by way of their average."""
        pooled = self.average(x)
        if self.style.head == "conv":
            return self.flat(self.conv(pooled, count, 1, bare=True))
        return self.linear(self.flat(pooled), count)

    def finished(self, output: Value, name: str) -> ModelProto:
        """The model, with `output` as its one output."""
        helper, kind = onnx().helper, onnx().TensorProto.FLOAT
        ends = [
            helper.make_tensor_value_info(value.name, kind, ["batch", *value.shape]) for value in (self.input, output)
        ]
        graph = helper.make_graph(self._nodes, name, ends[:1], ends[1:], self._tensors)
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR, producer_name="sketch")
