"""Strip what a model says about itself: producer, versions, notes, properties, training data and inferred shapes.

Names and notes of tensors inside attributes go too: exporters write there what a constant was called.

A shape that ONNX's inference cannot find again stays, because runtimes may choose another kernel without it. So does
the name of a free size where it first stands, and nothing else of that shape, if an operator asks for this size further
on: onnxruntime leaves out such operators where names tell that two sizes are one, and makes up no names by itself, as
ONNX's inference does. Without them YuNet ran 32 operators more.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assets.obfuscate.graph import copies
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vambrace.assets.obfuscate.graph import Graph
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Info, Net

__all__ = ["Metadata"]

_MODEL = (
    "producer_name",
    "producer_version",
    "domain",
    "model_version",
    "doc_string",
    "metadata_props",
    "training_info",
    "configuration",
)
_NOTES = ("doc_string", "metadata_props", "denotation")
"""Fields of all kinds of messages that nothing is computed from."""
_LOST = "shapes that inference cannot find again"
_NAMED = "names of sizes that operators ask for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata(Pass):
    """Strip metadata; the record holds it, in the order of graphs and nodes."""

    name: ClassVar[str] = "metadata"
    profile: ClassVar[Profile] = "exact"

    def apply(self, net: Net, stream: Stream) -> Applied:
        """Strip; nothing is drawn."""
        del stream
        record: dict[str, Any] = {"model": _packed(net.extra)}
        found = _clear(net.extra, _MODEL)
        record["graphs"] = [_packed(graph.extra) for graph in net.graphs()]
        record["values"] = [[_packed(each) for each in _values(graph)] for graph in net.graphs()]
        record["nodes"] = [
            [[node.outputs, node.doc, node.metadata] for node in graph.nodes if node.doc or node.metadata]
            for graph in net.graphs()
        ]
        record["attributes"] = [
            [
                [node.outputs, name, [_packed(_texts(each)) for each in _tellers(attribute)]]
                for node in graph.nodes
                for name, attribute in node.attributes.items()
                if any(_texts(each).ByteSize() for each in _tellers(attribute))
            ]
            for graph in net.graphs()
        ]
        record["functions"] = [_packed(function) for function in net.functions]
        record["infos"] = [[_packed(each) for each in graph.infos] for graph in net.graphs()]
        before = net.infer()
        for graph in net.graphs():
            found += len(graph.infos) + sum(_strip(each) for each in [graph.extra, *_values(graph)])
            for each in graph.extra.sparse_initializer:
                each.indices.ClearField("name")
            for node in graph.nodes:
                found += bool(node.doc) + bool(node.metadata)
                node.doc, node.metadata = "", {}
                found += _clear_attributes(node.attributes.values())
        for function in net.functions:
            found += _strip(function)
        stated = {each.name: each for each in net.graph.infos}
        for graph in net.graphs():
            graph.infos = []
        after = net.infer()
        lost = copies(each for name, each in stated.items() if before.get(name) != after.get(name))
        known = {each.name for each in lost}
        asked = _asked(net, before)
        firsts = [stated[name] for name in _first(net, before, asked) if name in stated and name not in known]
        named = copies(each for each in firsts if asked & {size.dim_param for size in each.type.tensor_type.shape.dim})
        for each in named:
            for size in each.type.tensor_type.shape.dim:
                if size.dim_param not in asked:
                    size.Clear()
        net.graph.infos = [*lost, *named]
        for each in net.graph.infos:
            _strip(each)
        why = {_LOST: len(lost), _NAMED: len(named)}
        left = {reason: count for reason, count in why.items() if count}
        return Applied(eligible=found, done=found - sum(why.values()), left=left, record=record)

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        """Put everything back."""
        net.extra.ParseFromString(base64.b64decode(record["model"]))
        graphs = list(net.graphs())
        for place, graph in enumerate(graphs):
            graph.extra.ParseFromString(base64.b64decode(record["graphs"][place]))
            values = _values(graph)
            for each, packed in zip(values, record["values"][place], strict=True):
                each.ParseFromString(base64.b64decode(packed))
            owners = {name: node for node in graph.nodes for name in node.outputs if name}
            for outputs, doc, metadata in record["nodes"][place]:
                owner = owners[next(each for each in outputs if each)]
                owner.doc, owner.metadata = doc, dict(metadata)
            for outputs, name, texts in record["attributes"][place]:
                owner = owners[next(each for each in outputs if each)]
                for each, packed in zip(_tellers(owner.attributes[name]), texts, strict=True):
                    each.MergeFromString(base64.b64decode(packed))
            kind = onnx_package().ValueInfoProto
            graph.infos = [kind.FromString(base64.b64decode(packed)) for packed in record["infos"][place]]
        for function, packed in zip(net.functions, record["functions"], strict=True):
            function.ParseFromString(base64.b64decode(packed))


def _asked(net: Net, infos: Mapping[str, Info]) -> set[str]:
    """Names of the free sizes that operators ask for, but those of inputs, which stand there."""
    constants = net.graph.constants()
    readers = net.index().consumers
    found: set[str] = set()
    for node in net.graph.nodes:
        shape = infos[node.inputs[0]].shape if node.is_a("Shape") and node.inputs[0] in infos else None
        shape = shape[node.value("start", 0) : node.value("end", len(shape))] if shape else None
        picks = [
            constants.get(reader.inputs[1]) if reader.is_a("Gather") and place == 0 else None
            for reader, place in (readers.get(node.outputs[0], []) if shape else [])
        ]
        for at, size in enumerate(shape or ()):
            wanted = any(pick is None or np.any(pick % len(shape or ()) == at) for pick in picks)
            found |= {size} if wanted and isinstance(size, str) else set()
    given = (infos[name].shape or () for name in net.graph.input_names if name in infos)
    return found - {str(size) for shape in given for size in shape}


def _first(net: Net, infos: Mapping[str, Info], asked: set[str]) -> list[str]:
    """Values whose shapes have one of these sizes, while nothing that they are made of has it."""

    def sizes(names: Iterable[str]) -> set[str]:
        shapes = (infos[name].shape or () for name in names if name in infos)
        return {size for shape in shapes for size in shape if isinstance(size, str)} & asked

    return [name for node in net.graph.nodes for name in node.outputs if sizes([name]) - sizes(node.inputs)]


def _values(graph: Graph) -> list[Any]:
    return [*graph.inputs, *graph.outputs]


def _tellers(attribute: Any) -> list[Any]:  # noqa: ANN401  onnx.AttributeProto
    """The messages of an attribute that hold texts: itself and its tensors."""
    tensors = [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]
    sparse = [*attribute.sparse_tensors, *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])]
    return [attribute, *tensors, *(part for each in sparse for part in (each.values, each.indices))]


def _said(message: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Fields of such a message that say something; the name of an attribute is ONNX's own."""
    return (
        ("doc_string",)
        if isinstance(message, onnx_package().AttributeProto)
        else ("name", "doc_string", "metadata_props")
    )


def _texts(message: Any) -> Any:  # noqa: ANN401
    """A message of the same kind with these fields alone."""
    made = type(message)()
    for field in _said(message):
        if field == "metadata_props":
            made.metadata_props.extend(message.metadata_props)
        elif message.HasField(field):
            setattr(made, field, getattr(message, field))
    return made


def _clear_attributes(attributes: Iterable[Any]) -> int:
    return sum(_clear(each, _said(each)) for attribute in attributes for each in _tellers(attribute))


def _strip(message: Any) -> int:  # noqa: ANN401  a protobuf message
    """Clear what a message and those inside it say to people, and shapes that graphs inside it state; counts it."""
    found = 0
    for field, value in message.ListFields():
        if field.name in _NOTES or field.name == "value_info":
            found += 1
            message.ClearField(field.name)
        elif field.message_type is not None:
            found += sum(_strip(each) for each in ([value] if hasattr(value, "DESCRIPTOR") else list(value)))
    if isinstance(message, onnx_package().AttributeProto):
        found += _clear_attributes([message])
    return found


def _clear(message: Any, fields: tuple[str, ...]) -> int:  # noqa: ANN401  a protobuf message
    """Clear fields, and count those that said something."""
    # Older releases of onnx do not have all of them.
    known = [field for field in fields if field in message.DESCRIPTOR.fields_by_name]
    found = sum(bool(getattr(message, field)) for field in known)
    for field in known:
        message.ClearField(field)
    return found


def _packed(message: Any) -> str:  # noqa: ANN401
    return base64.b64encode(message.SerializeToString(deterministic=True)).decode()
