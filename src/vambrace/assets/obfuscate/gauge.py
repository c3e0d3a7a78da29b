"""Factors that cancel: which channels of a net can be multiplied by what, such that nothing else notices.

A layer with weights (a convolution, a matrix product, a batch normalisation, a product with one constant a channel)
can give each output channel times f when whoever reads it divides by f again, and everything between passes a factor
on. So each channel of each value between layers gets a number, its class; where values meet (a sum, a concatenation),
the classes of their channels become one; where something reads a value that passes no factor on, or that is not known
here, its classes are pinned to the factor 1 (class 0). What is left is free, each class by itself.

Which operators pass a factor on depends on the factors: positive ones pass through Relu, signs through Tanh. For
positive ones this is the scale symmetry of Neyshabur, Salakhutdinov, Srebro, "Path-SGD", NIPS 2015, section 2.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.graph import reads_of
from vambrace.assets.obfuscate.layers import Part, Weights, layer_weights
from vambrace.assets.obfuscate.routing import Held, route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Info, Net

__all__ = ["Gauge", "Layer", "find_gauge"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A node that takes up factors.

    Attributes:
        node: the node.
        takes: classes of its input channels; zeros where they are pinned.
        gives: classes of its output channels.
        parts: its weights.
        shifts: whether it only adds a constant, so that it gives the classes that it takes.
    """

    node: Node
    takes: NDArray[np.int64]
    gives: NDArray[np.int64]
    parts: tuple[Part, ...]
    shifts: bool = False

    def factor(self, part: Part, factors: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a weight is multiplied with, of a shape that fits it; `factors` are by class."""
        made = np.ones(())
        for index, power, classes in (
            (part.gives, part.gives_power, self.gives),
            (part.takes, part.takes_power, self.takes),
        ):
            if index is not None:
                # Division, not a negative power: exact for powers of two.
                made = made * factors[classes[index]] if power > 0 else made / factors[classes[index]]
        return made


@dataclasses.dataclass(slots=True, eq=False)
class Gauge:
    """The free classes of a net.

    Attributes:
        layers: in the order of nodes.
        count: class numbers there are, class 0 and unused ones among them.
        free: classes that are not pinned, ascending.
        channels: output channels of layers, those that are pinned among them.
        pins: why channels are pinned, and how many.
    """

    layers: list[Layer]
    count: int
    free: NDArray[np.int64]
    channels: int
    pins: dict[str, int]

    def apply(self, net: Net, factors: NDArray[np.float64]) -> None:
        """Multiply the weights; `factors` (count,) by class, signed powers of two, 1 for classes that stay."""
        constants = net.graph.constants()
        for layer in self.layers:
            for part in layer.parts:
                factor = layer.factor(part, factors)
                if np.any(factor != 1):
                    array = constants[part.name]
                    net.factors[part.name] = net.factors.get(part.name, 1.0) * factor
                    net.graph.set_constant(part.name, np.ascontiguousarray(array * factor.astype(array.dtype)))


def find_gauge(net: Net, passes_on: Callable[[Node], bool], *, positive: bool, halves: bool = False) -> Gauge:
    """The classes of the main graph.

    Args:
        net: what is looked at; not changed.
        passes_on: whether an operator of one activation has f(c x) = c f(x) for the factors in question, whatever its
            constants.
        positive: whether factors are positive, so that maxima pass them on.
        halves: whether layers of half precision take them up, which have no room for other factors than signs.
    """
    walk = _Walk(net, passes_on, positive=positive, halves=halves)
    for node in net.graph.nodes:
        walk.visit(node)
    for name in net.graph.output_names:
        walk.pin(name, "outputs of the model")
    return walk.gauge()


class _Walk:
    def __init__(self, net: Net, passes_on: Callable[[Node], bool], *, positive: bool, halves: bool) -> None:
        self.constants: Mapping[str, NDArray[Any]] = net.graph.constants()
        self.infos: Mapping[str, Info] = net.infer()
        self.held: dict[str, Held] = {}
        self.positive = positive
        self.passes_on = passes_on
        self._halves = halves
        self._parents = [0]
        self._why: dict[int, str] = {}
        self._layers: list[Layer] = []
        self._shared = 0
        self._uses: dict[str, int] = {}
        for graph in net.graphs():
            for name in [*graph.output_names, *(name for node in graph.nodes for name in node.inputs)]:
                self._uses[name] = self._uses.get(name, 0) + 1

    def visit(self, node: Node) -> None:
        weights = layer_weights(node, self.constants, self.infos, halves=self._halves)
        if weights is not None and all(self._uses[part.name] == 1 for part in weights.parts):
            self._add(node, weights)
        elif not node.is_a("Shape", "Size") and not route(node, self):
            self._shared += 0 if weights is None else weights.gives
            for name in sorted(reads_of(node)):
                self.pin(name, f"{node.op} with shared weights" if weights else node.op)

    def pin(self, name: str, why: str) -> None:
        if name in self.held:
            for one in np.unique(self.held[name].classes).tolist():
                if self._find(one) != 0:
                    self._why[one] = why
                    self._join(one, 0)

    def merge(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        for first, second in zip(one.tolist(), other.tolist(), strict=True):
            self._join(first, second)

    def shift(self, node: Node, name: str, held: Held) -> None:
        if self._uses[name] > 1:
            self.pin(next(each for each in node.inputs if each in self.held), "constants that several nodes share")
            return
        channels = np.arange(len(held.classes)).reshape(self.constants[name].shape)
        part = Part(name=name, gives=channels, adds=True)
        self._layers.append(Layer(node, held.classes, held.classes, (part,), shifts=True))

    def gauge(self) -> Gauge:
        numbers = np.array([self._find(one) for one in range(len(self._parents))], dtype=np.int64)
        pins = {"weights that several nodes share": self._shared} if self._shared else {}
        layers: list[Layer] = []
        for layer in self._layers:
            gives = numbers[layer.gives]
            layers.append(dataclasses.replace(layer, takes=numbers[layer.takes], gives=gives))
            pinned = np.zeros(0, np.int64) if layer.shifts else layer.gives[gives == 0]
            for one in map(int, pinned):
                why = f"read by {self._why[one]}" if one in self._why else "they meet channels that stay"
                pins[why] = pins.get(why, 0) + 1
        free = np.unique(np.concatenate([np.zeros(1, np.int64), *(layer.gives for layer in layers)]))[1:]
        channels = sum(len(layer.gives) for layer in layers if not layer.shifts) + self._shared
        return Gauge(layers, len(self._parents), free, channels, pins)

    def _add(self, node: Node, weights: Weights) -> None:
        source = node.inputs[weights.source]
        held = self.held.get(source)
        takes = np.zeros(weights.takes, np.int64)
        if held is not None and held.axis == weights.axis and len(held.classes) == weights.takes:
            takes = held.classes
        else:
            self.pin(source, f"{node.op} along another axis")
        gives = np.arange(len(self._parents), len(self._parents) + weights.gives, dtype=np.int64)
        self._parents.extend(gives.tolist())
        self.held[node.outputs[0]] = Held(weights.axis, gives)
        self._layers.append(Layer(node, takes, gives, weights.parts))

    def _find(self, one: int) -> int:
        while self._parents[one] != one:
            self._parents[one] = self._parents[self._parents[one]]
            one = self._parents[one]
        return one

    def _join(self, one: int, other: int) -> None:
        low, high = sorted((self._find(one), self._find(other)))
        self._parents[high] = low
