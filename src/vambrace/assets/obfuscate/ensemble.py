"""Imagined networks put together: from values of the real model to outputs of the types that the real one has.

Each network takes a value as it comes, where its sizes suit, or one number made of all of it, spread out again. So the
whole is valid for inputs of any size, though it never runs. What the networks give is added, multiplied or compared,
and brought to the shape and type of each output.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from vambrace.assets.obfuscate.imagined import Imagining, TooLarge, Value
from vambrace.assets.obfuscate.imagined_nets import Taste, imagine
from vambrace.assets.obfuscate.imagined_parts import Parts, Style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.assets.obfuscate.cuts import Exit
    from vambrace.assets.obfuscate.net import Info

__all__ = ["Ensemble", "Given"]

_FLOAT = 1
_WIDEST = 64
"""Sizes along which weights of a first layer may be as long."""
_LAST = 128
"""Numbers that a last layer may make; more are copies of one."""
_WIDTHS = ((400, (16, 32, 64)), (200, (8, 16, 32)), (100, (4, 8, 16)), (0, (4, 8)))
"""Numbers of channels by the bytes that there are for each node, at least."""
_TRIES = 20
_ALIKE = 0.75
"""Of the networks, those that share a taste: files differ more from each other than if all had all tastes."""
_NODE_BYTES = 75
"""What a node and its part of the weights take at least, about."""
_AS_IT_COMES = 0.35
_PART = 0.4
"""Of the room that is left, what a network may take; stages end from half of it on."""
_FULL = 0.95
"""Part of the room beyond which no network is begun."""


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """A value that networks may take: its name and what is known of it."""

    name: str
    info: Info


class Ensemble:
    """Networks in one graph.

    Args:
        im: the graph.
        room: bytes that nodes and weights may take.
        wanted: how many nodes.
    """

    def __init__(self, im: Imagining, *, room: int, wanted: int) -> None:
        self._im, self._room = im, room
        self._wanted = min(wanted, room // _NODE_BYTES)
        self._parts = Parts(im, Style.drawn(im))
        self._widths = next(widths for least, widths in _WIDTHS if room >= least * self._wanted)

    def drawn(self, given: Sequence[Given], exits: Sequence[Exit]) -> dict[str, int]:
        """Draw networks until there are enough, or no room is left.

        Args:
            given: what they may take.
            exits: what they have to give.

        Returns:
            Kinds of values by name, one for each exit.
        """
        im, found = self._im, list[Value]()
        tried, taste = 0, Taste.drawn(im)
        while len(im.nodes) < self._wanted and im.spent < _FULL * self._room and tried < _TRIES:
            nodes, weights = len(im.nodes), len(im.weights)
            # The first ones bring the weights that others use again.
            share = _PART * (self._room - im.spent)
            im.soft, im.most = im.spent + share / 2, im.spent + share
            if (made := self._network(given, taste)) is not None:
                found.append(made)
                tried = 0
                continue
            # Too large: it is drawn again, and narrower.
            tried += 1
            self._widths = self._widths[: max(1, len(self._widths) - tried % 2)]
            im.back(nodes, weights)
        im.most = math.inf
        found = found or [self._parts.linear(self._one(self._floating(im.stream.pick(given))), self._widths[0])]
        kinds: dict[str, int] = {}
        for exit in exits:
            name = self._made(found, exit)
            # What is drawn twice is one node, and a branch gives each value once.
            while name in kinds:
                name = im.node("Identity", name, shape=()).name
            kinds[name] = exit.kind
        im.sweep(kinds)
        return kinds

    def _network(self, given: Sequence[Given], taste: Taste) -> Value | None:
        """One more, or None where it takes too much."""
        im = self._im
        try:
            x = self._entry(im.stream.pick(given))
            return imagine(im, x, self._widths, taste if im.chance(_ALIKE) else Taste())
        except TooLarge:
            return None

    def _floating(self, given: Given) -> Value:
        x = Value(given.name, ())
        return x if given.info.kind == _FLOAT else self._im.node("Cast", x, shape=(), to=_FLOAT)

    def _entry(self, given: Given) -> Value:
        im, parts = self._im, self._parts
        x = self._floating(given)
        sizes = given.info.shape
        known = [size for size in (sizes or ())[1:] if isinstance(size, int) and size > 0]
        if sizes and len(known) == len(sizes) - 1 and im.chance(_AS_IT_COMES):
            channels = known[:1] if len(known) == 3 else known
            if 1 <= len(known) <= 3 and max(channels) <= _WIDEST and (len(known) < 3 or min(known[1:]) >= 2):
                return Value(x.name, tuple(known))
        one = self._one(x)
        count = im.stream.pick(self._widths)
        rows = im.stream.pick((2, 4))
        # As it comes, a value is mostly maps already.
        way = im.stream.pick((0, 1, 1, 2))
        x = parts.linear(one, count * (1, rows, rows * rows)[way])
        if way == 0:
            return x
        if way == 1:
            return parts.reshaped(x, rows, count)
        return parts.reshaped(x, count, rows, rows)

    def _one(self, x: Value) -> Value:
        """All of a value as a vector of one number."""
        im = self._im
        op = im.stream.pick(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2"))
        return im.node("Reshape", im.node(op, x, shape=(), keepdims=0), im.whole(1, 1), shape=(1,))

    def _made(self, found: Sequence[Value], exit: Exit) -> str:
        """One value of some networks, or of all that nothing has read yet."""
        im, parts = self._im, self._parts
        read = {name for node in im.nodes for name in node.inputs}
        waiting = [each for each in found if each.name not in read] or [im.stream.pick(found)]
        last = exit.shape[-1] if exit.shape and len(exit.shape) > 1 and 0 < exit.shape[-1] <= _LAST else 1
        x = parts.linear(waiting[0], last)
        for other in waiting[1:]:
            x = parts.both(im.stream.pick(("Add", "Add", "Mul", "Max", "Sub")), x, parts.linear(other, last))
        if im.chance(0.3):
            x = parts.softmax(x) if last > 1 else im.node("Sigmoid", x, shape=x.shape)
        return self._cast(self._shaped(x, last, exit), exit.kind)

    def _shaped(self, x: Value, last: int, exit: Exit) -> Value:
        im, parts, shape = self._im, self._parts, exit.shape
        # Before operator set 11 both branches of an If give the same sizes, where sizes are known.
        if shape is None or (exit.batched and len(shape) == 2 and shape[-1] == last):
            return x
        row = (*[1] * (len(shape) - 1), last) if shape and 0 not in shape else ()
        if row:
            x = im.node("Reshape", parts.mean(x, (0,), keep=True), im.whole(*row), shape=())
        else:
            x = im.node("ReduceMax", x, shape=(), keepdims=0)
        return x if row == shape else im.node("Expand", x, im.whole(*shape), shape=())

    def _cast(self, x: Value, kind: int) -> str:
        return x.name if kind == _FLOAT else self._im.node("Cast", x, shape=(), to=kind).name
