"""The parts of an editable ONNX model: nodes and graphs, from onnx's messages and back to them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

__all__ = [
    "Graph",
    "Node",
    "bodies_of",
    "constant_of",
    "copies",
    "graph_from",
    "graph_proto",
    "graphs_of",
    "node_from",
    "node_proto",
    "nodes_within",
    "reads_of",
]

# Weights with more values are left empty for shape inference, which reads only shapes and axes from weights.
_SMALL = 1024


@dataclasses.dataclass(slots=True, eq=False)
class Node:
    """One operator. `inputs` and `outputs` are names of values; an empty name is an optional one left out.

    Attributes:
        op: such as "Conv".
        inputs, outputs: names of values.
        attributes: onnx.AttributeProto by name, but for those that hold graphs.
        bodies: graphs by attribute name; one attribute may hold several.
        name, domain, overload, doc: as in ONNX; a name may be empty.
        metadata: key and value.
    """

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    bodies: dict[str, list[Graph]] = dataclasses.field(default_factory=dict[str, "list[Graph]"])
    name: str = ""
    domain: str = ""
    overload: str = ""
    doc: str = ""
    metadata: dict[str, str] = dataclasses.field(default_factory=dict[str, str])

    def value(self, name: str, otherwise: Any = None) -> Any:  # noqa: ANN401  attributes are of many types
        """The Python value of an attribute (text as str), or `otherwise` where it is not stated."""
        if name not in self.attributes:
            return otherwise
        found = onnx_package().helper.get_attribute_value(self.attributes[name])
        return found.decode() if isinstance(found, bytes) else found

    def set(self, **values: Any) -> None:  # noqa: ANN401
        """State attributes; None takes one away."""
        for name, value in values.items():
            self.attributes.pop(name, None)
            if value is not None:
                self.attributes[name] = onnx_package().helper.make_attribute(name, value)

    def is_a(self, *ops: str) -> bool:
        """Whether it is one of these operators of ONNX itself."""
        return self.domain in {"", "ai.onnx"} and self.op in ops

    @property
    def first(self) -> str:
        """Its first output that is not left out, by which it can be found again."""
        return next(name for name in self.outputs if name)

    def graphs(self) -> Iterator[Graph]:
        """Its bodies."""
        for bodies in self.bodies.values():
            yield from bodies


@dataclasses.dataclass(slots=True, eq=False)
class Graph:
    """Nodes in an order in which they can run.

    Attributes:
        nodes: each after those whose values it reads.
        initialisers: weights by name, in order; read-only arrays, of ml_dtypes where NumPy has no such type. Replace
            an entry rather than write into its array.
        inputs, outputs, infos: onnx.ValueInfoProto; until IR version 3, initialisers stand among the inputs too.
        extra: onnx.GraphProto with what is left: name, doc string, sparse initialisers, annotations, metadata.
    """

    nodes: list[Node]
    initialisers: dict[str, NDArray[Any]]
    inputs: list[Any]
    outputs: list[Any]
    infos: list[Any]
    extra: Any

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, initialisers among them left out."""
        return [each.name for each in self.inputs if each.name not in self.initialisers]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return [each.name for each in self.outputs]

    def constants(self) -> dict[str, NDArray[Any]]:
        """Values of initialisers and of Constant nodes of this graph."""
        made = {node.outputs[0]: constant_of(node) for node in self.nodes if node.is_a("Constant")}
        return {name: array for name, array in made.items() if array is not None} | self.initialisers

    def set_constant(self, name: str, array: NDArray[Any]) -> None:
        """Give another value to an initialiser or to a Constant node of this graph."""
        if name in self.initialisers:
            self.initialisers[name] = array
            return
        (node,) = (node for node in self.nodes if name in node.outputs)
        ((form, old),) = node.attributes.items()
        values = array.reshape(-1).tolist()
        if form == "value":
            node.set(value=_like(old.t, array))
        else:
            node.set(**{form: values if form in {"value_floats", "value_ints"} else values[0]})
        if old.doc_string:
            node.attributes[form].doc_string = old.doc_string

    def order(self) -> dict[str, list[str]]:
        """First outputs of nodes, and names of weights and of values with stated types, in order; for `arrange`."""
        return {
            "nodes": [node.first for node in self.nodes],
            "weights": list(self.initialisers),
            "infos": [each.name for each in self.infos],
        }

    def arrange(self, order: Mapping[str, Any]) -> None:
        """Put nodes and weights in an order that `order` gave; KeyError where they are not the same ones."""
        nodes = {node.first: node for node in self.nodes}
        infos = {each.name: each for each in self.infos}
        self.nodes = [nodes[name] for name in order["nodes"]]
        self.infos = [infos[name] for name in order["infos"]]
        self.initialisers = {name: self.initialisers[name] for name in order["weights"]}

    def insert(self, new: Iterable[Node], *, before: Node | None = None) -> None:
        """Put nodes in front of one of this graph, or at the end."""
        at = len(self.nodes) if before is None else next(i for i, node in enumerate(self.nodes) if node is before)
        self.nodes[at:at] = list(new)

    def remove(self, *nodes: Node) -> None:
        """Take nodes out, whoever reads their values."""
        gone = set(map(id, nodes))
        self.nodes = [node for node in self.nodes if id(node) not in gone]

    def reads(self) -> set[str]:
        """Every name that nodes of this graph and of the graphs inside it read."""
        return {name for node in self.nodes for name in reads_of(node)} | set(self.output_names)

    def everywhere(self) -> Iterator[Graph]:
        """This graph and all graphs inside it, outermost first."""
        yield self
        for node in self.nodes:
            for body in node.graphs():
                yield from body.everywhere()


def constant_of(node: Node) -> NDArray[Any] | None:
    """The value of a Constant node, or None for a sparse one and for text."""
    for name, attribute in node.attributes.items():
        if name == "value":
            return cast("NDArray[Any]", onnx_package().numpy_helper.to_array(attribute.t))
        if name in {"value_float", "value_floats"}:
            return np.asarray(node.value(name), dtype=np.float32)
        if name in {"value_int", "value_ints"}:
            return np.asarray(node.value(name), dtype=np.int64)
    return None


def _like(old: Any, array: NDArray[Any]) -> Any:  # noqa: ANN401  onnx.TensorProto
    """A tensor of other values with the texts of an old one, which holds its values in the same kind of field."""
    onnx = onnx_package()
    made = onnx.numpy_helper.from_array(array)
    if not old.HasField("raw_data"):
        made = onnx.helper.make_tensor("", made.data_type, array.shape, array.reshape(-1))
    for field in ("name", "doc_string"):
        made.ClearField(field)
        if old.HasField(field):
            setattr(made, field, getattr(old, field))
    made.metadata_props.extend(old.metadata_props)
    return made


def reads_of(node: Node) -> set[str]:
    """Names that a node reads, the graphs inside it included, names of their own among them."""
    return {name for name in node.inputs if name}.union(*(body.reads() for body in node.graphs()))


def bodies_of(node: Any) -> list[Any]:  # noqa: ANN401
    """The onnx.GraphProto messages in the attributes of an onnx.NodeProto."""
    return [body for attribute in node.attribute for body in graphs_of(attribute)]


def graphs_of(attribute: Any) -> list[Any]:  # noqa: ANN401
    """Those in one onnx.AttributeProto."""
    return [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def nodes_within(nodes: Any) -> Iterator[Any]:  # noqa: ANN401
    """The onnx.NodeProto messages of a function, those of graphs inside them included."""
    for node in nodes:
        yield node
        for body in bodies_of(node):
            yield from nodes_within(body.node)


def graph_from(graph: Any, onnx: Any) -> Graph:  # noqa: ANN401
    """An onnx.GraphProto taken apart; `onnx` is the package."""
    extra = onnx.GraphProto()
    for field in ("name", "doc_string"):
        if graph.HasField(field):
            setattr(extra, field, getattr(graph, field))
    for field in ("sparse_initializer", "quantization_annotation", "metadata_props"):
        getattr(extra, field).extend(getattr(graph, field))
    return Graph(
        nodes=[node_from(node, onnx) for node in graph.node],
        initialisers={each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer},
        inputs=copies(graph.input),
        outputs=copies(graph.output),
        infos=copies(graph.value_info),
        extra=extra,
    )


def node_from(node: Any, onnx: Any) -> Node:  # noqa: ANN401
    """An onnx.NodeProto taken apart."""
    made = Node(
        op=node.op_type,
        inputs=list(node.input),
        outputs=list(node.output),
        name=node.name,
        domain=node.domain,
        overload=node.overload,
        doc=node.doc_string,
        metadata={each.key: each.value for each in node.metadata_props},
    )
    for attribute in node.attribute:
        if attribute.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}:
            bodies = list(attribute.graphs) or [attribute.g]
            made.bodies[attribute.name] = [graph_from(body, onnx) for body in bodies]
        else:
            (made.attributes[attribute.name],) = copies([attribute])
    return made


def graph_proto(graph: Graph, onnx: Any, *, small: bool) -> Any:  # noqa: ANN401
    """The onnx.GraphProto of a graph; `small` leaves weights of many values empty."""
    made = onnx.GraphProto()
    made.CopyFrom(graph.extra)
    for name, array in graph.initialisers.items():
        if small and array.size > _SMALL:
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            made.initializer.add(name=name, data_type=kind, dims=array.shape)
        else:
            made.initializer.append(onnx.numpy_helper.from_array(array, name))
    made.node.extend(node_proto(node, onnx, small=small) for node in graph.nodes)
    made.input.extend(graph.inputs)
    made.output.extend(graph.outputs)
    made.value_info.extend(graph.infos)
    return made


def node_proto(node: Node, onnx: Any, *, small: bool = False) -> Any:  # noqa: ANN401
    """The onnx.NodeProto of a node; `small` as for graphs."""
    made = onnx.NodeProto(op_type=node.op, input=node.inputs, output=node.outputs)
    # A field that is set to nothing is not the same message as one that is not set.
    texts = {"name": node.name, "domain": node.domain, "overload": node.overload, "doc_string": node.doc}
    for field, text in texts.items():
        if text:
            setattr(made, field, text)
    made.attribute.extend(node.attributes.values())
    for name, bodies in node.bodies.items():
        protos = [graph_proto(body, onnx, small=small) for body in bodies]
        made.attribute.append(onnx.helper.make_attribute(name, protos[0] if len(protos) == 1 else protos))
    for key, value in node.metadata.items():
        made.metadata_props.add(key=key, value=value)
    return made


def copies(messages: Iterable[Any]) -> list[Any]:
    """Copies of protobuf messages."""
    made: list[Any] = []
    for message in messages:
        copy = type(message)()
        copy.CopyFrom(message)
        made.append(copy)
    return made
