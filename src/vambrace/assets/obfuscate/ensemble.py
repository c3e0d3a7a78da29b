"""Imagined networks put together: from values of the real model to outputs of the types that the real one has.

Each network begins with maps, a sequence or a vector, drawn without regard to what the real one begins with: it takes a
value as it comes, where its sizes suit, or one number made of all of it, spread out again. Where values state first
sizes, those that have another one, or none that is known, are taken as the mean of their rows. So the whole is valid
for whatever the model states, though it never runs; first sizes that are all free count as one batch. What the networks
give is added, multiplied or compared, and brought to the shape and type of each output.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from vambrace.assets.obfuscate.imagined import Imagining, TooLarge, Value
from vambrace.assets.obfuscate.imagined_nets import Taste, imagine
from vambrace.assets.obfuscate.imagined_parts import Parts, Style

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

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
_RANKS = (3, 3, 3, 2, 2, 1)
"""Maps, sequences or vectors to begin with, whatever the real network begins with."""
_AS_IT_COMES = 0.7
_PART = 0.4
"""Of the room that is left, what a network may take; stages end from half of it on."""
_OWN_SIZES = 11
"""From this operator set on each branch of an If may give sizes of its own."""
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
        tried, taste, others = 0, Taste.drawn(im), _others(given)
        while len(im.nodes) < self._wanted and im.spent < _FULL * self._room and tried < _TRIES:
            nodes, weights = len(im.nodes), len(im.weights)
            # The first ones bring the weights that others use again.
            share = _PART * (self._room - im.spent)
            im.soft, im.most = im.spent + share / 2, im.spent + share
            if (made := self._network(given, taste, others)) is not None:
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

    def _network(self, given: Sequence[Given], taste: Taste, others: Collection[str]) -> Value | None:
        """One more, or None where it takes too much."""
        im = self._im
        try:
            x = self._entry(im.stream.pick(given), others)
            return imagine(im, x, self._widths, taste if im.chance(_ALIKE) else Taste())
        except TooLarge:
            return None

    def _floating(self, given: Given) -> Value:
        x = Value(given.name, ())
        return x if given.info.kind == _FLOAT else self._im.node("Cast", x, shape=(), to=_FLOAT)

    def _entry(self, given: Given, others: Collection[str]) -> Value:
        im, parts = self._im, self._parts
        x = self._floating(given)
        sizes, rank = _known(given.info), im.stream.pick(_RANKS)
        if sizes is not None and len(sizes) == rank and im.chance(_AS_IT_COMES) and _suit(sizes):
            x = Value(x.name, sizes)
            return parts.mean(x, (0,), keep=True) if given.name in others else x
        count, rows = im.stream.pick(self._widths), im.stream.pick((2, 4))
        x = parts.linear(self._one(x), count * rows ** (rank - 1))
        if rank == 1:
            return x
        return parts.reshaped(x, rows, count) if rank == 2 else parts.reshaped(x, count, rows, rows)

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
        return self._cast(self._loose(self._shaped(x, last, exit), exit), exit.kind)

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

    def _loose(self, x: Value, exit: Exit) -> Value:
        """With free sizes that nobody knows before a run, for operator sets whose Ifs have the sizes of one branch."""
        im = self._im
        if im.opset < _OWN_SIZES:
            for axis, size in enumerate(exit.shape or ()):
                if size == 1 and (axis or exit.batched):
                    x = im.node("Compress", x, im.constant(np.array([True])), shape=(), axis=axis)
        return x

    def _cast(self, x: Value, kind: int) -> str:
        return x.name if kind == _FLOAT else self._im.node("Cast", x, shape=(), to=kind).name


def _others(given: Sequence[Given]) -> frozenset[str]:
    """Values that may have other rows than the first that states how many: what is made of both cannot be joined."""
    firsts = {each.name: each.info.shape[0] for each in given if each.info.shape and _suit(_known(each.info) or ())}
    stated = [first for first in firsts.values() if isinstance(first, int) and first != 1]
    return frozenset(name for name, first in firsts.items() if stated and first not in {1, stated[0]})


def _known(info: Info) -> tuple[int, ...] | None:
    """Sizes without the batch, where all of them are known."""
    sizes = tuple(size for size in (info.shape or ())[1:] if isinstance(size, int) and size > 0)
    return sizes if info.shape and len(sizes) == len(info.shape) - 1 else None


def _suit(sizes: tuple[int, ...]) -> bool:
    """Whether a network may begin with a value of these sizes."""
    channels = sizes[:1] if len(sizes) == 3 else sizes
    return 1 <= len(sizes) <= 3 and max(channels) <= _WIDEST and (len(sizes) < 3 or min(sizes[1:]) >= 2)
