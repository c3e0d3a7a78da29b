"""Outputs of an ONNX model that depend on its weights: those of which a lock has something to hide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.graph import bodies_of
from vambrace.assets.obfuscate.openness import open_tensors
from vambrace.assets.obfuscate.roles import held_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["weighted_outputs"]


def weighted_outputs(model: Any) -> list[str]:  # noqa: ANN401  onnx.ModelProto
    """Their names in the model's order; what operators of other domains or functions compute counts as well."""
    names = {each.name for each in held_tensors(model) if each.role or not each.harmless}
    names |= {each.name for each in open_tensors(model)}
    known = {each.name for each in model.graph.initializer if each.name in names}
    known |= {each.values.name for each in model.graph.sparse_initializer}
    for node in model.graph.node:
        if node.domain not in {"", "ai.onnx"} or any(name in names or name in known for name in _touched(node)):
            known.update(node.output)
    return [each.name for each in model.graph.output if each.name in known]


def _touched(node: Any) -> Iterator[str]:  # noqa: ANN401
    """Names that a node takes or holds, those in its bodies included."""
    yield from node.input
    if node.op_type == "Constant":
        yield from node.output
    for body in bodies_of(node):
        yield from (each.name for each in body.initializer)
        yield from (each.name for each in body.output)
        for inner in body.node:
            yield from _touched(inner)
