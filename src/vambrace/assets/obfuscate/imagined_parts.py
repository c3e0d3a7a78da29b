"""Parts of imagined networks, from a convolution to a normalisation, in the styles of many hands.

A `Style` is drawn for each network: which activation it has and whether that is one operator or several, how it
normalises, whether its layers have biases. Values are maps (channels, height, width), sequences (steps, width) or
vectors (width,), the batch aside.

Everything is written as simplifiers leave it: what was turned twice is turned once, a product with a bias is one
operator, normalisation is folded into the layer before it. What a tool that everybody has takes out again would hide
nothing.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from vambrace.assets.obfuscate.imagined import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.assets.obfuscate.imagined import Imagining

__all__ = ["Parts", "Style"]

_ACTIVATIONS = (
    *("Relu", "Relu", "Relu", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSigmoid"),
    *("PRelu", "clip", "silu", "hardswish", "gelu", "mish"),
)
_FOLDING = ("Conv", "ConvTranspose")
"""Layers into which simplifiers fold what multiplies and shifts channels behind them."""
_WHOLE_NORM, _WHOLE_GELU = 17, 20
"""Operator sets from which on these are one operator; runtimes make one of them where they are spelt out."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What stays the same in one network.

    Attributes:
        activation: operator, or the name of a form of several.
        norm: of maps.
        biased: whether convolutions have a bias.
        first: whether normalisation and activation stand before a layer.
    """

    activation: str
    norm: Literal["batch", "instance", "scale", "none"]
    biased: bool
    first: bool

    @classmethod
    def drawn(cls, im: Imagining) -> Style:
        """A style."""
        return cls(
            activation=im.stream.pick(_ACTIVATIONS),
            norm=im.stream.pick(("batch", "batch", "none", "none", "instance", "scale")),
            biased=im.chance(0.6),
            first=im.chance(0.3),
        )


class Parts:
    """Parts in one style, added to one graph."""

    def __init__(self, im: Imagining, style: Style) -> None:
        """Args: the graph, and the style."""
        self.im, self.style = im, style

    def active(self, x: Value, kind: str | None = None) -> Value:
        """An activation."""
        im, shape = self.im, x.shape
        kind = kind or self.style.activation
        if kind == "PRelu":
            slopes = im.weight("PRelu", 1, (shape[0], *[1] * (len(shape) - 1)) if len(shape) == 3 else shape[-1:])
            return im.node("PRelu", x, slopes, shape=shape)
        if kind == "clip":
            if im.opset < 11:
                return im.node("Clip", x, shape=shape, min=0.0, max=6.0)
            return im.node("Clip", x, im.number(0.0), im.number(6.0), shape=shape)
        if kind in {"silu", "hardswish"}:
            # As one operator, HardSwish is a function, which runtimes write out.
            gate = im.node("HardSigmoid" if kind == "hardswish" else "Sigmoid", x, shape=shape)
            return im.node("Mul", x, gate, shape=shape)
        if kind == "gelu" and im.opset >= _WHOLE_GELU:
            return im.node("Gelu", x, shape=shape)
        if kind in {"gelu", "mish"}:
            inner = im.node("Tanh", im.node("Softplus", x, shape=shape), shape=shape)
            return im.node("Mul", x, inner, shape=shape)
        return im.node(kind, x, shape=shape)

    def normal(self, x: Value) -> Value:
        """A normalisation of what it is; maps may go without, and what folds into a layer counts as folded."""
        im, shape = self.im, x.shape
        if len(shape) != 3:
            return self._layer_norm(x)
        if self.style.norm != "instance" and (maker := im.maker(x)) and maker.op in _FOLDING:
            return x
        if self.style.norm == "batch":
            parts = [im.weight("BatchNormalization", slot, shape[:1]) for slot in range(1, 5)]
            return im.node("BatchNormalization", x, *parts, shape=shape, epsilon=1e-5)
        if self.style.norm == "instance":
            parts = [im.weight("InstanceNormalization", slot, shape[:1]) for slot in (1, 2)]
            return im.node("InstanceNormalization", x, *parts, shape=shape, epsilon=1e-5)
        if self.style.norm == "scale":
            x = im.node("Mul", x, im.weight("Mul", 1, (shape[0], 1, 1)), shape=shape)
            return im.node("Add", x, im.weight("Add", 1, (shape[0], 1, 1)), shape=shape)
        return x

    def conv(
        self, x: Value, out: int, size: int, *, stride: int = 1, group: int = 1, dilation: int = 1, bias: bool = True
    ) -> Value:
        """A convolution of maps, or along the steps of a sequence, whose width is then the channel.

        Where there is no room for a kernel of this size, it is smaller.
        """
        axes, taken = len(x.shape) - 1, x.shape[0] // group
        while size > 1 and not self.im.suits("Conv", (out, taken, *[size] * axes)):
            size -= 2
        pad = dilation * (size // 2)
        sizes = tuple((each + 2 * pad - dilation * (size - 1) - 1) // stride + 1 for each in x.shape[1:])
        weight = self.im.weight("Conv", 1, (out, taken, *[size] * axes), taken=taken * size**axes)
        more = [self.im.weight("Conv", 2, (out,))] if bias and self.style.biased else []
        return self.im.node(
            "Conv",
            x,
            weight,
            *more,
            shape=(out, *sizes),
            kernel_shape=[size] * axes,
            strides=[stride] * axes,
            pads=[pad] * (2 * axes),
            dilations=[dilation] * axes,
            group=group,
        )

    def raised(self, x: Value, out: int) -> Value:
        """A transposed convolution that doubles height and width."""
        weight = self.im.weight("ConvTranspose", 1, (x.shape[0], out, 2, 2), taken=x.shape[0])
        sizes = tuple(2 * each for each in x.shape[1:])
        return self.im.node("ConvTranspose", x, weight, shape=(out, *sizes), kernel_shape=[2, 2], strides=[2, 2])

    def repeated(self, x: Value) -> Value:
        """Height and width doubled by repetition."""
        im, shape = self.im, (x.shape[0], *(2 * each for each in x.shape[1:]))
        scales = im.constant(np.array([1, 1, 2, 2], np.float32))
        if im.opset < 10:
            return im.node("Upsample", x, scales, shape=shape, mode="nearest")
        if im.opset < 11:
            return im.node("Resize", x, scales, shape=shape, mode="nearest")
        # Operator sets 11 and 12 want a region, though this mode takes none.
        region = im.constant(np.zeros(0, np.float32)) if im.opset < 13 else ""
        return im.node("Resize", x, region, scales, shape=shape, mode="nearest")

    def pool(self, x: Value, op: str, size: int, stride: int) -> Value:
        """MaxPool or AveragePool; a size of 3 keeps what stride 1 leaves."""
        pad = size // 2 if size % 2 else 0
        shape = (x.shape[0], *((each + 2 * pad - size) // stride + 1 for each in x.shape[1:]))
        stated: dict[str, object] = {"strides": [stride] * 2} if stride > 1 else {}
        stated |= {"pads": [pad] * 4} if pad else {}
        return self.im.node(op, x, shape=shape, kernel_shape=[size] * 2, **stated)

    def linear(self, x: Value, out: int) -> Value:
        """A dense layer along the last axis; with a bias where one operator has both."""
        im, taken = self.im, x.shape[-1]
        if len(x.shape) == 1:
            weight = im.weight("Gemm", 1, (out, taken), taken=taken)
            return im.node("Gemm", x, weight, im.weight("Gemm", 2, (out,)), shape=(out,), transB=1)
        weight = im.weight("MatMul", 1, (taken, out), taken=taken)
        return im.node("MatMul", x, weight, shape=(*x.shape[:-1], out))

    def mean(self, x: Value, axes: Sequence[int], *, keep: bool) -> Value:
        """The mean along axes that count the batch."""
        im = self.im
        sizes = [1 if place + 1 in axes else size for place, size in enumerate(x.shape)]
        shape = sizes if keep else [size for place, size in enumerate(x.shape) if place + 1 not in axes]
        if im.opset < 18:
            return im.node("ReduceMean", x, shape=shape, axes=list(axes), keepdims=int(keep))
        return im.node("ReduceMean", x, im.whole(*axes), shape=shape, keepdims=int(keep))

    def reshaped(self, x: Value, *shape: int) -> Value:
        """Other sizes, the batch kept; where the net's own nodes say that 0 is a size, -1 alone keeps it."""
        im, source = self.im, x.name
        batch = -1 if im.habits.value("Reshape", "allowzero") else im.stream.pick((0, -1))
        if (maker := im.maker(x)) and maker.op in {"Reshape", "Flatten"}:
            batch, source = -1, maker.inputs[0]
        return im.node("Reshape", source, im.whole(batch, *shape), shape=shape)

    def turned(self, x: Value, *order: int) -> Value:
        """Axes after the batch in another order, counted from 1."""
        return self.transposed(x, [0, *order], tuple(x.shape[axis - 1] for axis in order))

    def transposed(self, x: Value, perm: list[int], shape: tuple[int, ...]) -> Value:
        """Axes in another order, the batch among them; two such steps are one, and none where they cancel."""
        source = x.name
        if (maker := self.im.maker(x)) and maker.op == "Transpose":
            perm, source = [maker.value("perm")[axis] for axis in perm], maker.inputs[0]
        if perm == sorted(perm):
            return Value(source, shape)
        return self.im.node("Transpose", source, shape=shape, perm=perm)

    def flat(self, x: Value) -> Value:
        """A vector of all numbers."""
        return self.im.node("Flatten", x, shape=(math.prod(x.shape),))

    def averaged(self, x: Value) -> Value:
        """Channels of maps, averaged; height and width stay as 1."""
        op = self.im.stream.pick(("GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool", ""))
        if not op:
            return self.mean(x, (2, 3), keep=True)
        return self.im.node(op, x, shape=(x.shape[0], 1, 1))

    def softmax(self, x: Value) -> Value:
        """Along the last axis."""
        return self.im.node("Softmax", x, shape=x.shape, axis=len(x.shape) if self.im.opset < 13 else -1)

    def both(self, op: str, *values: Value) -> Value:
        """An operator on values of one shape."""
        return self.im.node(op, *values, shape=values[0].shape)

    def joined(self, values: Sequence[Value], axis: int = 1) -> Value:
        """Side by side along an axis that counts the batch."""
        shape = list(values[0].shape)
        shape[axis - 1] = sum(each.shape[axis - 1] for each in values)
        names: list[str] = []
        for each in values:
            maker = self.im.maker(each)
            within = maker is not None and maker.op == "Concat" and maker.value("axis") == axis
            names += maker.inputs if maker is not None and within else [each.name]
        return self.im.node("Concat", *names, shape=shape, axis=axis)

    def _layer_norm(self, x: Value) -> Value:
        """One operator, or a division by the norm where old operator sets would have to spell it out."""
        im, width = self.im, x.shape[-1:]
        if im.opset >= _WHOLE_NORM:
            weights = [im.weight("LayerNormalization", slot, width) for slot in (1, 2)]
            return im.node("LayerNormalization", x, *weights, shape=x.shape, axis=-1)
        length = im.node("ReduceL2", x, shape=(*x.shape[:-1], 1), axes=[len(x.shape)], keepdims=1)
        scale = im.weight("LayerNormalization", 1, width)
        return im.node("Mul", im.node("Div", x, length, shape=x.shape), scale, shape=x.shape)
