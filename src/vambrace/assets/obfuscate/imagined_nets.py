"""Architectures drawn at random: stages of blocks, each block a small expression of parts, repeated as networks do.

A block is drawn as a plan: parts in a chain, around which stand shortcuts, concatenations, gates or parallel branches,
up to two deep. A stage builds one plan several times. Between stages maps get smaller or larger, or become sequences,
sequences become vectors, and encoders may be followed by decoders that take their stages up again. So plain, residual,
dense, depthwise, gated, mixing, attending, recurrent and branching networks come up, and many that nobody has named.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from vambrace.assets.obfuscate.imagined_parts import Parts, Style

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.imagined import Imagining, Value

__all__ = ["Plan", "Taste", "imagine"]

_MAPS = ("conv", "conv", "conv", "conv", "depthwise", "pointwise", "grouped", "pool", "squeeze", "shuffle", "spatial")
_STEPS = ("dense", "dense", "wide", "attention", "attention", "mix", "along", "recurrent", "glu")
_VECTORS = ("dense", "dense", "wide", "glu")
_AROUND = ("chain", "chain", "shortcut", "shortcut", "dense", "parallel", "gate")
_SMALLEST = 4
"""Height below which maps do not get smaller."""
_LONGEST = 64
"""Steps of a sequence, which weights of mixers are as long as."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A block, before it meets the sizes of a value.

    Attributes:
        kind: "part", or how the plans inside are put together.
        name: of a part, or of the operator that joins branches.
        inside: plans.
        width: of a part, relative to the block's.
        size: of a kernel, or how many heads, groups or times a part has.
    """

    kind: str
    name: str = ""
    inside: tuple[Plan, ...] = ()
    width: float = 1.0
    size: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Taste:
    """What some networks have in common: the names of the parts that they choose from, and how they are put together.

    Attributes:
        maps: parts of maps.
        steps: parts of sequences.
        around: kinds of plans.
    """

    maps: tuple[str, ...] = _MAPS
    steps: tuple[str, ...] = _STEPS
    around: tuple[str, ...] = _AROUND

    @classmethod
    def drawn(cls, im: Imagining) -> Taste:
        """A narrow one: a few of everything."""

        def few(names: tuple[str, ...], count: int) -> tuple[str, ...]:
            return tuple(im.stream.pick(names) for _ in range(count))

        return cls(maps=few(_MAPS, 3), steps=few(_STEPS, 2), around=few(_AROUND, 2))


def imagine(im: Imagining, x: Value, widths: tuple[int, ...], taste: Taste) -> Value:
    """A network from a value to a vector; `widths` are numbers of channels to choose from, multiples of 4."""
    return _Architect(im, widths, taste).network(x)


class _Architect:
    def __init__(self, im: Imagining, widths: tuple[int, ...], taste: Taste) -> None:
        self.im, self.widths, self.taste = im, widths, taste
        self.parts = Parts(im, Style.drawn(im))

    def network(self, x: Value) -> Value:
        if len(x.shape) == 3:
            x = self._maps(x)
        if len(x.shape) == 2:
            x = self._steps(x)
        return self._vector(x)

    def _maps(self, x: Value) -> Value:
        im, parts = self.im, self.parts
        x = self._layer(x, self._width(), im.stream.pick((3, 3, 5, 7)), stride=im.draw(1, 2))
        if im.chance(0.25):
            return self._decoded(x)
        for stage in range(im.draw(1, 4)):
            if stage and x.shape[1] > _SMALLEST:
                x = self._smaller(x)
            x = self._stage(x, self._width())
        if x.shape[1] * x.shape[2] <= _LONGEST and im.chance(0.3):
            return parts.turned(parts.reshaped(x, x.shape[0], x.shape[1] * x.shape[2]), 2, 1)
        if 4 * x.shape[1] * x.shape[2] <= _LONGEST and im.chance(0.4):
            return parts.flat(self._layer(x, 4, 1))
        return parts.flat(parts.averaged(x))

    def _decoded(self, x: Value) -> Value:
        """Down and up again, with what stood before at each size."""
        im, parts = self.im, self.parts
        before: list[Value] = []
        joins = im.stream.pick(("Concat", "Add", ""))
        transposed, plan = im.chance(0.5), self._plan(self.taste.maps, 1)
        for _ in range(im.draw(1, 3)):
            if min(x.shape[1:]) < 2 or any(size % 2 for size in x.shape[1:]):
                break
            before.append(x)
            x = self._built(plan, self._smaller(x), self._width())
        for other in reversed(before):
            x = parts.raised(x, other.shape[0]) if transposed else self._layer(parts.repeated(x), other.shape[0], 1)
            if joins and x.shape[1:] == other.shape[1:]:
                x = parts.joined((x, other)) if joins == "Concat" else parts.both("Add", x, other)
            x = self._built(plan, x, self._width())
        return parts.flat(parts.averaged(x))

    def _steps(self, x: Value) -> Value:
        im, parts = self.im, self.parts
        x = parts.linear(x, self._width())
        if im.suits("Add", x.shape) and im.chance(0.5):
            x = im.node("Add", x, im.weight("Add", 1, x.shape), shape=x.shape)
        for _ in range(im.draw(1, 2)):
            x = self._stage(x, x.shape[-1] if im.chance(0.7) else self._width())
        way = im.draw(0, 2)
        if way == 0:
            return parts.mean(x, (1,), keep=False)
        if way == 1:
            place = im.constant(np.array(im.draw(0, x.shape[0] - 1), np.int64))
            return im.node("Gather", x, place, shape=x.shape[1:], axis=1)
        return parts.flat(parts.linear(x, 2)) if 2 * x.shape[0] <= _LONGEST else parts.mean(x, (1,), keep=False)

    def _vector(self, x: Value) -> Value:
        for _ in range(self.im.draw(1, 3)):
            x = self._stage(x, self._width()) if self.im.chance(0.3) else self._layer(x, self._width(), 1)
        return x

    def _stage(self, x: Value, width: int) -> Value:
        kinds = {3: self.taste.maps, 2: self.taste.steps, 1: _VECTORS}[len(x.shape)]
        plan = self._plan(kinds, 2)
        for _ in range(self.im.draw(1, 5)):
            x = self._built(plan, x, width)
            if self.im.full:
                break
        return x

    def _plan(self, kinds: tuple[str, ...], depth: int) -> Plan:
        """Parts, and what stands around them."""
        im = self.im
        count = im.draw(1, 3)
        if depth and im.chance(0.3):
            inside = tuple(self._plan(kinds, depth - 1) for _ in range(count))
        else:
            inside = tuple(self._part(kinds) for _ in range(count))
        kind = im.stream.pick(self.taste.around)
        if kind == "parallel" and kinds is not self.taste.maps:
            kind = "shortcut"
        name = im.stream.pick(("Concat", "Concat", "Add", "Mul", "Max")) if kind == "parallel" else ""
        return Plan(kind, name, inside, size=im.draw(0, 2))

    def _part(self, kinds: tuple[str, ...]) -> Plan:
        im = self.im
        width = im.stream.pick((0.5, 1.0, 1.0, 1.0, 2.0))
        return Plan("part", im.stream.pick(kinds), (), width, im.stream.pick((1, 3, 3, 5, 2)))

    def _built(self, plan: Plan, x: Value, width: int) -> Value:
        parts = self.parts
        if plan.kind == "part":
            wanted = width if self.im.tight else max(4, 4 * round(width * plan.width / 4))
            return {3: self._of_maps, 2: self._of_steps, 1: self._of_vectors}[len(x.shape)](plan, x, wanted)
        if plan.kind == "parallel":
            made = [self._built(each, x, width) for each in plan.inside]
            if len(made) == 1:
                made.append(self._like(x, made[0].shape))
            # Without a limit, widths would grow with every block.
            if plan.name == "Concat" and sum(each.shape[0] for each in made) <= 4 * max(self.widths):
                return parts.joined(made)
            first, *others = made
            for other in others:
                first = parts.both(plan.name if plan.name != "Concat" else "Add", first, self._like(other, first.shape))
            return first
        inner = x
        for each in plan.inside:
            inner = self._built(each, inner, width)
        if plan.kind == "shortcut":
            made = parts.both("Add", inner, self._like(x, inner.shape))
            return made if plan.size == 0 else (parts.active, parts.normal)[plan.size - 1](made)
        if plan.kind == "gate":
            gate = self.im.node("Sigmoid", self._like(inner, x.shape), shape=x.shape)
            return parts.both("Mul", x, gate)
        if plan.kind == "dense" and inner.shape[1:] == x.shape[1:] and len(x.shape) != 2:
            joined = parts.joined((x, inner))
            return joined if joined.shape[0] <= 2 * self._width() else self._like(joined, (width, *x.shape[1:]))
        return inner

    def _of_maps(self, plan: Plan, x: Value, width: int) -> Value:
        im, parts, name = self.im, self.parts, plan.name
        size = plan.size if plan.size % 2 else 3
        if name == "pool":
            return parts.pool(x, im.stream.pick(("MaxPool", "AveragePool")), 3, 1)
        if name == "depthwise":
            return self._layer(x, x.shape[0], max(3, size), group=x.shape[0])
        if name == "pointwise":
            return self._layer(x, width, 1)
        if name == "grouped" and x.shape[0] % 2 == 0:
            return self._layer(x, width, 3, group=2)
        if name == "squeeze":
            inner = parts.active(parts.conv(parts.averaged(x), 4, 1), "Relu")
            gate = parts.active(parts.conv(inner, x.shape[0], 1), im.stream.pick(("Sigmoid", "HardSigmoid")))
            return im.node("Mul", x, gate, shape=x.shape)
        maker = im.maker(x)
        # One shuffle after the other is a shuffle, too.
        if name == "shuffle" and x.shape[0] % 2 == 0 and not (maker and maker.op == "Reshape"):
            channels, *sizes = x.shape
            turned = parts.turned(parts.reshaped(x, 2, channels // 2, *sizes), 2, 1, 3, 4)
            return parts.reshaped(turned, *x.shape)
        if name == "spatial":
            inner = parts.joined((parts.mean(x, (1,), keep=True), parts.conv(x, 1, 1)))
            gate = im.node("Sigmoid", parts.conv(inner, 1, size), shape=(1, *x.shape[1:]))
            return im.node("Mul", x, gate, shape=x.shape)
        return self._layer(x, width, size, dilation=2 if plan.width == 2.0 and size == 3 else 1)

    def _of_steps(self, plan: Plan, x: Value, width: int) -> Value:
        im, parts, name = self.im, self.parts, plan.name
        steps, taken = x.shape
        if name == "attention":
            return self._attention(x, 2 if plan.size == 2 else 1)
        if name == "mix":
            inner = parts.active(parts.linear(parts.turned(self._normal(x), 2, 1), width))
            return parts.turned(parts.linear(inner, steps), 2, 1)
        if name == "along":
            made = parts.conv(parts.turned(x, 2, 1), width, 3)
            return parts.turned(parts.active(made), 2, 1)
        if name == "recurrent":
            return self._recurrent(x, im.stream.pick(("LSTM", "GRU", "RNN")), min(width, taken))
        return self._of_vectors(plan, x, width)

    def _of_vectors(self, plan: Plan, x: Value, width: int) -> Value:
        im, parts, taken = self.im, self.parts, x.shape[-1]
        if plan.name == "wide":
            return parts.linear(parts.active(parts.linear(self._normal(x), 2 * width)), taken)
        if plan.name == "glu":
            halves = im.split(parts.linear(x, 2 * width), len(x.shape), (width, width))
            return parts.both("Mul", halves[0], parts.both("Sigmoid", halves[1]))
        return self._layer(x, width, 1)

    def _attention(self, x: Value, heads: int) -> Value:
        im, parts = self.im, self.parts
        steps, width = x.shape
        each = max(2, width // heads)
        normed = self._normal(x)
        query, key, value = (parts.linear(normed, heads * each) for _ in range(3))
        if heads > 1:
            query, key, value = (
                parts.turned(parts.reshaped(one, steps, heads, each), 2, 1, 3) for one in (query, key, value)
            )
        turned = parts.turned(key, *range(1, len(key.shape) - 1), len(key.shape), len(key.shape) - 1)
        scores = im.node("MatMul", query, turned, shape=(*key.shape[:-2], steps, steps))
        op, factor = im.stream.pick((("Mul", 1 / math.sqrt(each)), ("Div", math.sqrt(each))))
        shares = parts.softmax(im.node(op, scores, im.number(factor), shape=scores.shape))
        mixed = im.node("MatMul", shares, value, shape=value.shape)
        if heads > 1:
            mixed = parts.reshaped(parts.turned(mixed, 2, 1, 3), steps, heads * each)
        return parts.linear(mixed, width)

    def _recurrent(self, x: Value, op: str, hidden: int) -> Value:
        im, parts = self.im, self.parts
        steps, taken = x.shape
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
        turned = parts.transposed(x, [1, 0, 2], x.shape)
        weights = [
            im.weight(op, slot, (1, gates * hidden, size), taken=size) for slot, size in ((1, taken), (2, hidden))
        ]
        bias = im.weight(op, 3, (1, 2 * gates * hidden))
        made = im.node(op, turned, *weights, bias, shape=(steps, hidden), hidden_size=hidden)
        if im.opset < 13:
            made = im.node("Squeeze", made, shape=made.shape, axes=[1])
        else:
            made = im.node("Squeeze", made, im.whole(1), shape=made.shape)
        return parts.transposed(made, [1, 0, 2], (steps, hidden))

    def _layer(self, x: Value, width: int, size: int, *, stride: int = 1, group: int = 1, dilation: int = 1) -> Value:
        """A convolution or a dense layer, with normalisation and activation where the style has them."""
        parts = self.parts
        if self.parts.style.first:
            x = parts.active(self._normal(x))
        if len(x.shape) == 3:
            x = parts.conv(x, width, size, stride=stride, group=group, dilation=dilation)
        else:
            x = parts.linear(x, width)
        return x if self.parts.style.first else parts.active(self._normal(x))

    def _normal(self, x: Value) -> Value:
        # Maps are normalised as their style has it; sequences in some places, and vectors seldom.
        return self.parts.normal(x) if self.im.chance((0.1, 0.5, 1.0)[len(x.shape) - 1]) else x

    def _smaller(self, x: Value) -> Value:
        way = self.im.draw(0, 2)
        if way == 0:
            return self._layer(x, self._width(), 3, stride=2)
        return self.parts.pool(x, ("MaxPool", "AveragePool")[way - 1], 2, 2)

    def _like(self, x: Value, shape: tuple[int, ...]) -> Value:
        """Brought to another number of channels, or width, where it is not that already."""
        if x.shape == tuple(shape):
            return x
        if len(x.shape) == 3:
            return self.parts.normal(self.parts.conv(x, shape[0], 1))
        if len(x.shape) == 2 and x.shape[0] != shape[0]:
            x = self.parts.turned(self.parts.linear(self.parts.turned(x, 2, 1), shape[0]), 2, 1)
        return self.parts.linear(x, shape[-1]) if x.shape[-1] != shape[-1] else x

    def _width(self) -> int:
        return self.widths[0] if self.im.tight else self.im.stream.pick(self.widths)
