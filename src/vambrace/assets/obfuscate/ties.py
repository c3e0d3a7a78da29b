"""Which axes of the weights of a net must keep one order together, found by walking through its operators once.

Each operator has a rule (`vambrace.assets.obfuscate.rules`) that ties axes of its inputs and says what its outputs'
axes are, such that the same change of the inputs changes the outputs in the same way. From the inputs of the net, whose
order stays, it follows by induction that its outputs stay too. What has no rule, or does not fit its rule, is pinned:
left alone, and counted.

Where calls choose sizes, what is cut by them is cut elsewhere at the next call: the rows that `table[:length]` leaves
are not free to change. So the walk is done with several sets of numbers for free sizes, and what all find counts.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from vambrace.assets.obfuscate.axes import Axis, order_of, pin
from vambrace.assets.obfuscate.rules import rule_of
from vambrace.assets.obfuscate.rules.view import View
from vambrace.assets.obfuscate.shapes import other_sizes, sizes_of

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Net
    from vambrace.assets.obfuscate.shapes import Sizes

__all__ = ["Group", "Ties", "ties_of"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Channels that can be changed together.

    Attributes:
        leaf: the axis, of at least two elements.
        places: (initialiser, position of the axis); each is or holds the leaf.
        rigid: only their order may change.
    """

    leaf: Axis
    places: tuple[tuple[str, int], ...]
    rigid: bool


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Ties:
    """What was found.

    Attributes:
        axes: of each value of the main graph whose sizes are known.
        groups: in order of the initialisers.
        left: operators without a rule, or that did not fit it, and how many.
    """

    axes: dict[str, list[Axis]]
    groups: tuple[Group, ...]
    left: dict[str, int]


def ties_of(net: Net) -> Ties:
    """Tie the axes of the main graph; bodies of If, Loop and Scan pin what they read."""
    sizes = sizes_of(net)
    ties = _tied(net, sizes)
    kept = ties.groups
    for others in other_sizes(net, sizes):
        found = _tied(net, others)
        rigid = {_form(found, group): group.rigid for group in found.groups}
        kept = tuple(
            dataclasses.replace(group, rigid=group.rigid or rigid[form])
            for group in kept
            if (form := _form(ties, group)) in rigid
        )
    gone = len(ties.groups) - len(kept)
    return Ties(ties.axes, kept, ties.left | ({"channels cut where calls choose": gone} if gone else {}))


def _form(ties: Ties, group: Group) -> tuple[object, ...]:
    """The same for two groups only where any order of the leaf makes the same order of every axis."""
    every = np.arange(group.leaf.size)
    # A cycle and one exchange make all orders.
    orders = (np.roll(every, 1), np.concatenate([every[1::-1], every[2:]]))
    made = [
        (name, position, order_of(ties.axes[name][position], {group.leaf: order}))
        for name, position in group.places
        for order in orders
    ]
    return tuple((name, position, None if order is None else order.tobytes()) for name, position, order in made)


def _tied(net: Net, sizes: Sizes) -> Ties:
    graph = net.graph
    view = View(sizes=sizes, opset=net.opset())
    for name, array in graph.initialisers.items():
        view.axes[name] = [Axis.leaf(size) for size in array.shape]
    for name in graph.input_names:
        view.make_pinned(name)
    left: collections.Counter[str] = collections.Counter()
    for node in graph.nodes:
        if not _ruled(node, view):
            left[f"{node.op}: no rule for it here"] += 1
            pin(*(axis for name in node.inputs for axis in view.axes.get(name, ())))
            for name in node.outputs:
                view.make_pinned(name)
        for body in node.graphs():
            pin(*(axis for name in body.reads() for axis in view.axes.get(name, ())))
    pin(*(axis for name in graph.output_names for axis in view.axes.get(name, ())))
    places: dict[Axis, list[tuple[str, int]]] = {}
    for name in graph.initialisers:
        for position, axis in enumerate(view.axes[name]):
            for leaf in dict.fromkeys(axis.leaves()):
                if leaf.size > 1 and not leaf.pinned:
                    places.setdefault(leaf, []).append((name, position))
    groups = tuple(Group(leaf, tuple(found), leaf.rigid) for leaf, found in places.items())
    return Ties(view.axes, groups, dict(left))


def _ruled(node: Node, view: View) -> bool:
    """Whether the operator had a rule and fits it; its outputs' axes are then known."""
    rule = rule_of(node)
    if rule is None or node.bodies:
        return False
    if any(name and name not in view.axes for name in node.inputs):
        return False
    made = rule.apply(node, view)
    named = [name for name in node.outputs if name]
    if made is None or len(made) != len(named):
        return False
    for name, axes in zip(named, made, strict=True):
        if view.sizes.shapes.get(name) != tuple(axis.size for axis in axes):
            return False
    for name in node.inputs[rule.data :] if rule.data is not None else ():
        pin(*view.axes.get(name, ()))
    view.axes.update(zip(named, made, strict=True))
    return True
