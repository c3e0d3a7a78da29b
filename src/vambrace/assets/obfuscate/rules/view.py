"""What a rule sees of a net: axes of its inputs, and constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.axes import Axis, stiffen, tie

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.shapes import Sizes

__all__ = ["Rule", "View"]


@dataclasses.dataclass(slots=True)
class View:
    """Axes of the values so far.

    Attributes:
        sizes: shapes and small constants.
        opset: of ONNX's own operators.
        axes: by value.
    """

    sizes: Sizes
    opset: int
    axes: dict[str, list[Axis]] = dataclasses.field(default_factory=dict[str, "list[Axis]"])

    def of(self, node: Node, position: int) -> list[Axis]:
        """Axes of one input; none at all where it is left out."""
        return self.axes[node.inputs[position]] if self.has(node, position) else []

    def has(self, node: Node, position: int) -> bool:
        """Whether an optional input is given."""
        return position < len(node.inputs) and bool(node.inputs[position])

    def constant(self, node: Node, position: int) -> NDArray[Any] | None:
        """The value of an input that depends on sizes alone."""
        return self.sizes.constants.get(node.inputs[position]) if self.has(node, position) else None

    def integers(self, node: Node, position: int, attribute: str) -> list[int] | None:
        """Whole numbers that older operators take as an attribute and newer ones as an input; None if not known."""
        if attribute in node.attributes:
            return [int(one) for one in np.asarray(node.value(attribute)).reshape(-1)]
        array = self.constant(node, position)
        return None if array is None else [int(one) for one in array.reshape(-1)]

    def make_pinned(self, name: str) -> None:
        """State that nothing may be done with the axes of a value, if its sizes are known."""
        if name and name in self.sizes.shapes:
            self.axes[name] = [Axis.leaf(size, pinned=True) for size in self.sizes.shapes[name]]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a value."""
        return self.sizes.shapes.get(name)

    def broadcast(self, many: Sequence[list[Axis]], *, linear: bool) -> list[Axis]:
        """Axes of the elementwise result of several values; axes that meet are tied.

        Args:
            many: axes of each value.
            linear: whether the result is linear in axes that all of the values have; others become rigid.
        """
        rank = max(map(len, many))
        made: list[Axis] = []
        for place in range(rank):
            met = [axes[place - rank + len(axes)] for axes in many if place - rank + len(axes) >= 0]
            wide = [axis for axis in met if axis.size != 1]
            for axis in wide[1:]:
                tie(wide[0], axis)
            if not (linear and len(wide) == len(many)):
                stiffen(*wide)
            made.append(wide[0] if wide else Axis.leaf(1))
        return made


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """How an operator ties axes.

    Attributes:
        apply: from a node and what is known to the axes of each named output, or None where the node does not fit.
        data: how many leading inputs it looks after; axes of the others are pinned. None for all.
    """

    apply: Callable[[Node, View], list[list[Axis]] | None]
    data: int | None = None
