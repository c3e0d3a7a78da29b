"""The graphs of a model, each by itself: what an attacker sees who looks at one branch after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.measure.runtime import clone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import ModelProto

__all__ = ["each_alone"]


def each_alone(model: ModelProto) -> list[ModelProto]:
    """The main graph and every graph inside it as models without inner graphs, outer ones first.

    Weights of outer graphs, which inner ones may read, are there as well. The models serve for reading and may not run.
    """
    empty = clone(model)
    empty.graph.ClearField("node")
    empty.graph.ClearField("initializer")
    return list(_alone(model.graph, empty, []))


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
