"""The graphs of a model, each by itself: what an attacker sees who looks at one branch after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.measure.runtime import clone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnx import ModelProto

__all__ = ["each_alone", "most_real"]

_FEWEST = 6
"""Operators below which a graph is a predicate, or a layer and its decoy."""


def each_alone(model: ModelProto) -> list[ModelProto]:
    """The main graph and every graph inside it as models without inner graphs, outer ones first.

    Weights of outer graphs, which inner ones may read, are there as well. The models serve for reading and may not run.
    """
    empty = clone(model)
    empty.graph.ClearField("node")
    empty.graph.ClearField("initializer")
    return list(_alone(model.graph, empty, []))


def most_real(models: Sequence[ModelProto]) -> int:
    """Which of the graphs a reader would take for the real one without running anything.

    What is imagined has to be large to hide something, and may weigh little: so it is the one with most bytes of
    weights for each operator, among those that are more than a few operators.
    """

    def weight(place: int) -> float:
        graph = models[place].graph
        bytes_of = sum(each.ByteSize() for each in graph.initializer)
        return bytes_of / len(graph.node) if len(graph.node) >= _FEWEST else -1.0

    return max(range(len(models)), key=weight)


def _alone(graph: Any, empty: ModelProto, outer: list[Any]) -> Iterator[ModelProto]:  # noqa: ANN401  an onnx.GraphProto
    known = [*outer, *graph.initializer, *(node for node in graph.node if node.op_type == "Constant")]
    made, inside = clone(empty), list[Any]()
    made.graph.initializer.extend(each for each in known if hasattr(each, "dims"))
    made.graph.node.extend(each for each in outer if not hasattr(each, "dims"))
    for node in graph.node:
        kept = made.graph.node.add()
        kept.CopyFrom(node)
        kept.ClearField("attribute")
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            inside += inner
            if not inner:
                kept.attribute.append(attribute)
    yield made
    for each in inside:
        yield from _alone(each, empty, known)
