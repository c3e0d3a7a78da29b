"""What a change is likely to cost in time, from sizes alone, so that passes take cheap places and leave dear ones.

A rough model of one processor core: so many products a second, so many bytes, so long to start an operator. It ranks
places well and predicts times badly; the overhead gate measures them. Sizes that calls choose are taken to be likely
ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from vambrace.assets.obfuscate.shapes import likely_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.net import Info, Net
    from vambrace.assets.obfuscate.places import Place

__all__ = ["Costs", "Predicate"]

Predicate = Literal["brief", "glance", "opaque"]

_PRODUCTS = 80e9
_FUSED_BYTES = 60e9
_COPIED_BYTES = 4e9
_CARRIED_BYTES = 30e9
_SMALL_PRODUCTS = 30e9
_ALONE_BYTES = 8e9
_START = 0.5e-6
_ADDED = 1e-6
_MOVING = 0.8e-6
_BRANCH = 20e-6
_PREDICATES: Mapping[Predicate, float] = {"brief": 2e-6, "glance": 3e-6, "opaque": 5e-6}
_CALL = 10e-6
_SINGLE = 2.5e-9
_IN_BLOCKS = 0.5e-9
_FREE_SIZE = 16
"""What a size is taken to be that nothing tells; the first one, the batch, is taken to be 1."""


class Costs:
    """Times of a net, in seconds.

    Attributes:
        total: of one run.
    """

    def __init__(self, net: Net, infos: Mapping[str, Info]) -> None:
        self._infos = likely_sizes(net) if _open(net, infos) else infos
        self._constants: Mapping[str, NDArray[Any]] = net.graph.constants()
        self.total = 0.0
        for node in net.graph.nodes:
            moved = sum(self._size(name) for name in (*node.inputs, *node.outputs) if name not in self._constants)
            self.total += _START + 4 * moved / _FUSED_BYTES
            weights = self._constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
            if weights is not None and node.is_a("Conv", "ConvTranspose", "Gemm", "MatMul"):
                outputs = self._size(node.outputs[0])
                rows = weights.shape[-1 if node.is_a("MatMul") else 0]
                if node.is_a("Gemm") and not node.value("transB", 0):
                    rows = weights.shape[1]
                self.total += outputs * weights.size / max(1, rows) / _PRODUCTS

    def room(self, slowdown: float | None) -> float | None:
        """Seconds that a share of a run is; None for no bound."""
        return None if slowdown is None else slowdown * self.total

    @property
    def call(self) -> float:
        """Of one run and of the call around it, which small nets feel."""
        return _CALL + self.total

    def gather(self, place: Place) -> float:
        """Of a Gather behind a place at worst: its copy, and one before and behind it, where layouts end there."""
        return 2 * _START + 3 * 2 * 4 * self._size(place.given) / _COPIED_BYTES

    def restored(self, place: Place, *, ordered: bool, scaled: bool) -> float:
        """Of a Gather, or a product, or both behind a place, as was found of onnxruntime.

        Elements are copied in blocks, but singly where a Gather puts the last axis in order.
        """
        copied = _SINGLE if ordered and place.weights.axis == -1 else _IN_BLOCKS
        return self.moving(ordered + scaled) + self._size(place.given) * copied

    def moving(self, operators: float) -> float:
        """Of operators that cut, pick or scale a few numbers, such as those of a key."""
        return operators * _MOVING

    def branch(self, place: Place) -> float:
        """Of an If around a place: the predicate, and copies outside and inside, since layouts end at it."""
        return _BRANCH + self.copies((place.taken, place.given))

    def copies(self, values: Iterable[str]) -> float:
        """Of copies outside and inside of a branch, since layouts end at it."""
        return 2 * 2 * 4 * sum(self._size(name) for name in values) / _COPIED_BYTES

    def carried(self, values: Iterable[str]) -> float:
        """Of a Loop that never runs and gives values as they came: it copies each of them."""
        return 2 * 4 * sum(self._size(name) for name in values) / _CARRIED_BYTES

    def predicate(self, kind: Predicate) -> float:
        """Of an If and its predicate, one of `vambrace.assets.obfuscate.opaque`."""
        return _PREDICATES[kind]

    def added(self, elements: float, operators: float) -> float:
        """Of operators that are done element by element and fused with nothing: each reads and writes so many."""
        return operators * (_ADDED + 2 * 4 * elements / _ALONE_BYTES)

    def products(self, count: float) -> float:
        """Of more products in a small layer, or in one that was cut into small ones."""
        return count / _SMALL_PRODUCTS

    def elements(self, value: str) -> int:
        """How many a value has, free sizes filled in."""
        return self._size(value)

    def _size(self, name: str) -> int:
        """Elements of a value, free sizes filled in."""
        shape = self._infos[name].shape if name in self._infos else None
        sizes = [
            size if isinstance(size, int) else (_FREE_SIZE if place else 1) for place, size in enumerate(shape or ())
        ]
        return math.prod(sizes)


def _open(net: Net, infos: Mapping[str, Info]) -> bool:
    """Whether calls choose a size of an input beside the batch, or its rank."""
    shapes = [infos[name].shape for name in net.graph.input_names if name in infos]
    return any(shape is None or not all(isinstance(size, int) for size in shape[1:]) for shape in shapes)
