"""Names that say nothing: every value, weight, size, function and graph is called by a number in a random order.

Nodes need no names and lose them: those that passes have added never had one, and would be told from the others by it.
Inputs and outputs of the model keep their names unless asked for, since whoever calls the model uses them; what they
say ("image", "logits") stays readable then. Names of operators and their attributes belong to ONNX and stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vambrace.assets.obfuscate.graph import bodies_of, nodes_within
from vambrace.assets.obfuscate.operators import STANDARD
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vambrace.assets.obfuscate.graph import Graph, Node
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net

__all__ = ["Names"]

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

_Kinds = dict[str, dict[str, str]]
"""New names by old ones, for each kind of thing that has names: values, nodes, sizes, graphs, functions and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names(Pass):
    """Rename everything.

    Attributes:
        interface: also the model's inputs and outputs; callers find the new names in the map.
    """

    name: ClassVar[str] = "names"
    profile: ClassVar[Profile] = "exact"
    interface: bool = False

    def apply(self, net: Net, stream: Stream) -> Applied:
        """Rename; the record holds old names by new ones, and those of nodes by the new names of their outputs."""
        called = [(node, node.name) for node in _all_nodes(net) if node.name]
        for node, _ in called:
            node.name = ""
        kept = set[str]() if self.interface else {*net.graph.input_names, *net.graph.output_names}
        found: dict[str, list[str]] = {}
        _rename(net, lambda kind, old: found.setdefault(kind, []).append(old) or old)
        # One numbering for all kinds, so that equal words do not tie a node to a value.
        olds = {kind: [old for old in dict.fromkeys(names) if old not in kept] for kind, names in found.items()}
        total = sum(map(len, olds.values()))
        avoid = {name for name in kept if len(name) <= len(_word(total + len(kept)))}
        words = [word for word in map(_word, range(total + len(kept))) if word not in avoid]
        order = iter(stream.permutation(total).tolist())
        new: _Kinds = {kind: {old: words[next(order)] for old in names} for kind, names in olds.items()}
        _rename(net, lambda kind, old: new[kind].get(old, old))
        back = {kind: {word: old for old, word in names.items()} for kind, names in new.items()}
        back["called"] = {node.first: name for node, name in called}
        total += len(called)
        left = {"inputs and outputs, which callers use": len(kept)} if kept else {}
        return Applied(eligible=total + len(kept), done=total, left=left, record=back)

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        """Give the old names back."""
        known: _Kinds = {kind: dict(names) for kind, names in record.items()}
        # Maps may be older, from when nodes got new names.
        if called := known.pop("called", {}):
            producers = {name: node for node in _all_nodes(net) for name in node.outputs}
            for output, name in called.items():
                producers[output].name = name
        seen: dict[str, set[str]] = {kind: set() for kind in known}

        def old(kind: str, word: str) -> str:
            names = known.get(kind, {})
            if word in names:
                seen[kind].add(word)
            return names.get(word, word)

        _rename(net, old)
        missing = sum(len(names) - len(seen[kind]) for kind, names in known.items() if kind == "values")
        if missing:
            raise LookupError(f"{missing} values of the map are not in the model")


def _word(number: int) -> str:
    text = ""
    while True:
        number, digit = divmod(number, len(_DIGITS))
        text = _DIGITS[digit] + text
        if number == 0:
            return "n" + text


def _rename(net: Net, new: Callable[[str, str], str]) -> None:
    """Pass every name through `new(kind, name)`; missing names stay missing."""
    for graph in net.graphs():
        _rename_graph(graph, new)
    used = {node.domain for node in _all_nodes(net)}
    used |= {node.domain for function in net.functions for node in nodes_within(function.node)}
    # A domain that is imported and used nowhere is no more than a name.
    importing = [net.extra, *net.functions]
    unused = {opset.domain for each in importing for opset in each.opset_import if opset.domain not in used}
    domains = ({function.domain for function in net.functions} | unused) - STANDARD
    functions = {(each.domain, each.name, each.overload) for each in net.functions}
    for node in _all_nodes(net):
        if (node.domain, node.op, node.overload) in functions:
            node.op = new("functions", node.op)
            node.overload = new("overloads", node.overload) if node.overload else ""
            for name in list(node.attributes):
                attribute = node.attributes.pop(name)
                attribute.name = new("attributes", name)
                node.attributes[attribute.name] = attribute
            node.bodies = {new("attributes", name): bodies for name, bodies in node.bodies.items()}
        if node.domain in domains:
            node.domain = new("domains", node.domain)
    for opset in net.extra.opset_import:
        if opset.domain in domains:
            opset.domain = new("domains", opset.domain)
    for function in net.functions:
        _rename_function(function, new, functions, domains)


def _rename_graph(graph: Graph, new: Callable[[str, str], str]) -> None:
    def value(name: str) -> str:
        return new("values", name) if name else name

    graph.initialisers = {value(name): array for name, array in graph.initialisers.items()}
    for each in [*graph.inputs, *graph.outputs, *graph.infos]:
        each.name = value(each.name)
        _rename_sizes(each.type, new)
    for each in graph.extra.sparse_initializer:
        each.values.name = value(each.values.name)
    for each in graph.extra.quantization_annotation:
        each.tensor_name = value(each.tensor_name)
        for entry in each.quant_parameter_tensor_names:
            entry.value = value(entry.value)
    if graph.extra.name:
        graph.extra.name = new("graphs", graph.extra.name)
    for node in graph.nodes:
        node.inputs = [value(name) for name in node.inputs]
        node.outputs = [value(name) for name in node.outputs]
        if node.name:
            node.name = new("nodes", node.name)


def _rename_sizes(kind: Any, new: Callable[[str, str], str]) -> None:  # noqa: ANN401  onnx.TypeProto
    """Sizes that are free have names of their own, which tie shapes together and say "batch" or "height"."""
    which = kind.WhichOneof("value")
    if which in {"tensor_type", "sparse_tensor_type"}:
        for size in getattr(kind, which).shape.dim:
            if size.HasField("dim_param") and size.dim_param:
                size.dim_param = new("sizes", size.dim_param)
    elif which in {"sequence_type", "optional_type"}:
        _rename_sizes(getattr(kind, which).elem_type, new)
    elif which == "map_type":
        _rename_sizes(kind.map_type.value_type, new)


def _rename_function(
    function: Any,  # noqa: ANN401  onnx.FunctionProto
    new: Callable[[str, str], str],
    functions: set[tuple[str, str, str]],
    domains: set[str],
) -> None:
    # Values of a function are a world of their own; one naming for all of them is no harm.
    for field in (function.input, function.output):
        field[:] = [new("inner", name) for name in field]
    for node in nodes_within(function.node):
        node.input[:] = [new("inner", name) if name else name for name in node.input]
        node.output[:] = [new("inner", name) if name else name for name in node.output]
        if node.name:
            node.name = new("nodes", node.name)
        if (node.domain, node.op_type, node.overload) in functions:
            node.op_type = new("functions", node.op_type)
            if node.overload:
                node.overload = new("overloads", node.overload)
            for attribute in node.attribute:
                attribute.name = new("attributes", attribute.name)
        if node.domain in domains:
            node.domain = new("domains", node.domain)
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                attribute.ref_attr_name = new("attributes", attribute.ref_attr_name)
        for body in bodies_of(node):
            body.name = new("graphs", body.name) if body.name else body.name
            for each in body.initializer:
                each.name = new("inner", each.name)
            for each in [*body.input, *body.output, *body.value_info]:
                each.name = new("inner", each.name)
                _rename_sizes(each.type, new)
    for each in function.value_info:
        each.name = new("inner", each.name)
        _rename_sizes(each.type, new)
    function.name = new("functions", function.name)
    if function.overload:
        function.overload = new("overloads", function.overload)
    function.attribute[:] = [new("attributes", name) for name in function.attribute]
    for each in function.attribute_proto:
        each.name = new("attributes", each.name)
    if function.domain in domains:
        function.domain = new("domains", function.domain)
    for opset in function.opset_import:
        if opset.domain in domains:
            opset.domain = new("domains", opset.domain)


def _all_nodes(net: Net) -> Iterator[Node]:
    for graph in net.graphs():
        yield from graph.nodes
