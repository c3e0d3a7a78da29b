"""Which attributes a net's exporter states, and with which values, so that imagined nodes have the same ones.

One exporter writes alpha and beta beside every Gemm and another one leaves them out; nodes that do otherwise would be
told from the real ones at a glance. What is stated here changes nothing of what a node computes, but for numbers on
which no size depends.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Net

__all__ = ["Habits"]

_FREE = frozenset({"allowzero", "count_include_pad", "linear_before_reset"})
"""Whole numbers that may be whatever they are in the net; others keep what they mean when they are not stated."""
_WINDOWED = ("Conv", "ConvTranspose", "AveragePool", "MaxPool")
_PLAIN = {"strides": 1, "dilations": 1, "pads": 0}
"""What is meant where a windowed operator does not state these, for each axis."""
_USUAL = frozenset({"kernel_shape", "pads"})


class Habits:
    """Of one net.

    Args:
        net: whose they are.
    """

    def __init__(self, net: Net) -> None:
        self._opset = net.opset()
        self._defaults: dict[str, dict[str, Any]] = {}
        nodes: dict[str, list[Node]] = {}
        for graph in net.graphs():
            for node in graph.nodes:
                if node.is_a(node.op):
                    nodes.setdefault(node.op, []).append(node)
        self._stated = {op: _values(found) for op, found in nodes.items()}

    def value(self, op: str, name: str) -> Any:  # noqa: ANN401  attributes are of many types
        """What the nodes of an operator usually state, or None."""
        return self._stated.get(op, {}).get(name)

    def follow(self, node: Node) -> None:
        """State what others of its operator state, and leave out what they do, as far as nothing depends on it."""
        stated, defaults = self._stated.get(node.op), self._of(node)
        if node.op in _WINDOWED and stated is None:
            stated = dict.fromkeys(sorted(set(self._stated.get("Conv", _USUAL)) - {"group"}))
        if stated is None:
            return
        for name in list(node.attributes):
            spared = name == "kernel_shape" and node.op.startswith("Conv")
            if name not in stated and (spared or (name in defaults and node.value(name) == defaults[name])):
                node.set(**{name: None})
        for name, value in stated.items():
            if isinstance(value, float) or (name in _FREE and value is not None):
                node.set(**{name: value})
            elif name not in node.attributes and name in defaults:
                node.set(**{name: defaults[name]})

    def _of(self, node: Node) -> dict[str, Any]:
        """What attributes mean that are not stated."""
        onnx = onnx_package()
        if node.op not in self._defaults:
            found = onnx.defs.get_schema(node.op, self._opset, "").attributes
            self._defaults[node.op] = {
                name: _text(onnx.helper.get_attribute_value(each.default_value))
                for name, each in found.items()
                if each.default_value.type != onnx.AttributeProto.UNDEFINED
            }
        if node.op not in _WINDOWED:
            return self._defaults[node.op]
        axes = len(node.value("kernel_shape", ()))
        windows = {name: [each] * (axes * (2 if name == "pads" else 1)) for name, each in _PLAIN.items()}
        known = onnx.defs.get_schema(node.op, self._opset, "").attributes
        return self._defaults[node.op] | {name: each for name, each in windows.items() if axes and name in known}


def _values(nodes: list[Node]) -> dict[str, Any]:
    """Attributes that more than half of some nodes state, with the most common value."""
    counted = Counter(name for node in nodes for name in node.attributes)
    found: dict[str, Any] = {}
    for name in sorted(name for name, count in counted.items() if 2 * count > len(nodes)):
        values = [node.value(name) for node in nodes if name in node.attributes]
        simple = [each for each in values if isinstance(each, int | float | str)]
        found[name] = Counter(simple).most_common(1)[0][0] if simple else None
    return found


def _text(value: Any) -> Any:  # noqa: ANN401
    return value.decode() if isinstance(value, bytes) else value
