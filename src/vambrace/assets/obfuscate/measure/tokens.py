"""Families of networks over vectors and sequences: dense, mixer, transformer and recurrent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vambrace.assets.obfuscate.measure.sketch import Choices, Sketch, Value

__all__ = ["shape"]


def shape(family: str, choices: Choices) -> tuple[int, ...]:
    """The shape of one sample for a family of this file."""
    if family == "mlp":
        return (choices.width(12, 48),)
    if family in {"transformer", "mixer"} and choices.of(True, False):
        return (3, 16, 16)
    return (choices.between(8, 16), choices.width(8, 16))


def _mlp(net: Sketch, pick: Choices) -> Value:
    """Dense layers."""
    x = net.input
    for _ in range(pick.between(2, 6)):
        x = net.active(net.linear(x, pick.width(12, 40)))
    return net.linear(x, pick.between(2, 12))


def _tokens(net: Sketch, pick: Choices, width: int) -> Value:
    """Patches of a picture, or vectors as they come, brought to one width."""
    x = net.input
    if len(x.shape) == 3:
        x = net.conv(x, width, 4, stride=4, bare=True)
        return net.transpose(net.reshape(x, width, x.shape[1] * x.shape[2]), 2, 1)
    return net.matmul(x, width)


def _transformer(net: Sketch, pick: Choices) -> Value:
    """Encoder blocks of attention and a small dense net (Vaswani et al., NeurIPS 2017)."""
    heads = pick.of(1, 2, 4)
    width, first = heads * pick.width(4, 6), pick.of(True, False)
    x = _tokens(net, pick, width)
    x = net.node("Add", [x.name, net.weight(*x.shape, fan_in=600)], x.shape)
    for _ in range(pick.between(1, 4)):
        inner = _attention(net, net.layer_norm(x) if first else x, heads)
        x = net.add(x, inner)
        x = x if first else net.layer_norm(x)
        inner = net.matmul(net.layer_norm(x) if first else x, pick.of(2, 4) * width)
        inner = net.matmul(_gelu(net, inner) if pick.of(True, False) else net.active(inner, "Relu"), width)
        x = net.add(x, inner)
        x = x if first else net.layer_norm(x)
    return _scores(net, x, pick)


def _attention(net: Sketch, x: Value, heads: int) -> Value:
    tokens, width = x.shape
    each = width // heads
    query, key, value = (
        net.transpose(net.reshape(net.matmul(x, width), tokens, heads, each), 2, 1, 3) for _ in range(3)
    )
    flipped = net.transpose(key, 1, 3, 2)
    scores = net.node("MatMul", [query.name, flipped.name], (heads, tokens, tokens))
    scale = net.tensor(np.array(1 / math.sqrt(each), dtype=np.float32))
    scores = net.node("Mul", [scores.name, scale], scores.shape)
    shares = net.node("Softmax", [scores.name], scores.shape, axis=-1)
    mixed = net.node("MatMul", [shares.name, value.name], (heads, tokens, each))
    return net.matmul(net.reshape(net.transpose(mixed, 2, 1, 3), tokens, width), width)


def _gelu(net: Sketch, x: Value) -> Value:
    root, one, half = (net.tensor(np.array(number, dtype=np.float32)) for number in (math.sqrt(2), 1.0, 0.5))
    inner = net.node("Erf", [net.node("Div", [x.name, root], x.shape).name], x.shape)
    return net.node("Mul", [net.add(x, net.node("Add", [inner.name, one], x.shape), "Mul").name, half], x.shape)


def _mixer(net: Sketch, pick: Choices) -> Value:
    """Dense layers along tokens and along channels, in turn (Tolstikhin et al., NeurIPS 2021)."""
    width = pick.width(8, 20)
    x = _tokens(net, pick, width)
    for _ in range(pick.between(1, 4)):
        inner = net.transpose(net.layer_norm(x), 2, 1)
        inner = net.matmul(_between(net, pick, net.matmul(inner, pick.width(8, 24))), x.shape[0])
        x = net.add(x, net.transpose(inner, 2, 1))
        inner = net.matmul(net.layer_norm(x), pick.width(12, 32))
        x = net.add(x, net.matmul(_between(net, pick, inner), width))
    return _scores(net, x, pick)


def _between(net: Sketch, pick: Choices, x: Value) -> Value:
    return _gelu(net, x) if pick.of(True, False) else net.active(x, "Relu")


def _scores(net: Sketch, x: Value, pick: Choices) -> Value:
    x = net.layer_norm(x)
    pooled = net.node("ReduceMean", [x.name], (x.shape[-1],), axes=[1], keepdims=0)
    return net.linear(pooled, pick.between(2, 12))


def _recurrent(net: Sketch, pick: Choices) -> Value:
    """LSTM or GRU layers over a sequence."""
    operator, gates = pick.of(("LSTM", 4), ("GRU", 3))
    length, x = net.input.shape[0], net.input
    for _ in range(pick.between(1, 3)):
        hidden, inside = pick.width(8, 16), x.shape[1]
        # Recurrent operators take (length, batch, features) and give (length, directions, batch, hidden).
        turned = net.node("Transpose", [x.name], x.shape, perm=[1, 0, 2])
        weights = [net.weight(1, gates * hidden, size, fan_in=6 * size) for size in (inside, hidden)]
        inputs = [turned.name, *weights, net.weight(1, 2 * gates * hidden, fan_in=600)]
        made = net.node(operator, inputs, (length, hidden), hidden_size=hidden)
        made = net.node("Squeeze", [made.name, net.tensor(np.array([1], dtype=np.int64))], made.shape)
        x = net.node("Transpose", [made.name], (length, hidden), perm=[1, 0, 2])
    last = net.tensor(np.array(length - 1, dtype=np.int64))
    return net.linear(net.node("Gather", [x.name, last], (x.shape[1],), axis=1), pick.between(2, 12))


FAMILIES: Mapping[str, Callable[[Sketch, Choices], Value]] = {
    "mlp": _mlp,
    "transformer": _transformer,
    "mixer": _mixer,
    "recurrent": _recurrent,
}
"""Name -> drawing."""
