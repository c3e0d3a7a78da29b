"""The passes of obfuscation on a program of torch.export, by way of drawings that they take for ONNX nets.

Passes on weights see the program as `vambrace.assets.obfuscate.aten` draws it. Order and names see a skeleton: one node
for each node, with nothing in it but who reads whom. The metadata of a program is not that of an ONNX file, and is
removed here.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx

from vambrace.assets.obfuscate.aten import drawn
from vambrace.assets.obfuscate.graph import Node
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.base import Applied
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from vambrace.assets.obfuscate.aten import Drawing
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.passes.base import Pass
    from vambrace.assets.obfuscate.programs import Flat

__all__ = ["PASSES", "apply_pass", "undo_pass"]

_ON_WEIGHTS = ("rebasis", "baked_permutation", "permutation", "scaling", "signs")
PASSES = frozenset({*_ON_WEIGHTS, "order", "metadata", "names"})
"""Passes that programs can have. The others add operators that are ONNX's own."""


def apply_pass(flat: Flat, one: Pass, stream: Stream, *, spared: Collection[str] = ()) -> Applied:
    """Edit a program in place; run-time permutation leaves values alone that are to be `spared`."""
    if one.name == "metadata":
        found = flat.strip()
        return Applied(eligible=found, done=found)
    if one.name == "order":
        return _shuffle(flat, one, stream)
    if one.name == "names":
        return _scramble(flat, one, stream)
    drawing = drawn(flat, wary=one.name == "permutation", spared=spared)
    before = dict(drawing.net.graph.initialisers)
    made = one.apply(drawing.net, stream)
    _take_over(flat, drawing, before)
    if one.name == "permutation" and made.record is not None:
        # The order in which a drawing stands means nothing to the program.
        made = dataclasses.replace(made, record={"places": made.record["places"]})
    return made


def undo_pass(flat: Flat, one: Pass, record: Mapping[str, Any]) -> None:
    """Lead a program back.

    Raises:
        LookupError, ValueError: where the record is that of another one.
    """
    if one.name == "order":
        known = {node.name: node for node in flat.graph.nodes}
        flat.rearrange([known[name] for name in record["nodes"]], {}, {})
    elif one.name == "names":
        skeleton, nodes = _skeleton(flat)
        one.undo(skeleton, record["names"])
        targets: dict[str, str] = dict(record["targets"])
        flat.rest["arguments"] = record["arguments"]
        flat.rearrange(nodes, _renamed(skeleton, nodes), targets)
    else:
        drawing = drawn(flat, wary=one.name == "permutation")
        before = dict(drawing.net.graph.initialisers)
        if one.name == "permutation":
            record = {**record, "before": _order_without(drawing.net, {each["given"] for each in record["places"]})}
        one.undo(drawing.net, record)
        _take_over(flat, drawing, before)


def _order_without(net: Net, values: set[str]) -> dict[str, list[str]]:
    """The order of a drawing when the gathers that make these values are gone."""
    makers = net.index().producers
    gone = {name for value in values for name in makers[value].inputs}
    return {kind: [name for name in names if name not in gone] for kind, names in net.graph.order().items()}


def _take_over(flat: Flat, drawing: Drawing, before: dict[str, Any]) -> None:
    graph = drawing.net.graph
    drawing.carry_over(flat, before)
    known = {node.name: node for node in flat.graph.nodes}
    makers = {node.outputs[0]: node for node in graph.nodes if node.outputs}
    # A Gather that is new puts the channels of the value before it back in order.
    for node in graph.nodes:
        if node.is_a("Gather") and node.inputs[1] in graph.initialisers and node.inputs[1] not in known:
            values = graph.initialisers[node.inputs[1]]
            if node.outputs[0] in known and node.inputs[0] not in known and values.ndim == 1:
                _insert(flat, node, values)
    for name, node in known.items():
        if node.target == torch.ops.aten.index_select.default and not makers.get(name, _NOTHING).is_a("Gather"):
            _take_out(flat, node)


_NOTHING = Node("", [], [])


def _insert(flat: Flat, gather: Node, values: np.ndarray[Any, Any]) -> None:
    (layer,) = (node for node in flat.graph.nodes if node.name == gather.outputs[0])
    shape = layer.meta["val"].shape
    layer.name = gather.inputs[0]
    index = flat.add_buffer(gather.inputs[1], torch.from_numpy(values))
    arguments = (layer, int(gather.value("axis")) % len(shape), index)
    with flat.graph.inserting_after(layer):
        made = flat.graph.call_function(torch.ops.aten.index_select.default, arguments)
    made.meta = {key: layer.meta[key] for key in ("val", "tensor_meta") if key in layer.meta}
    for user in [each for each in layer.users if each is not made]:
        user.replace_input_with(layer, made)
    made.name = gather.outputs[0]


def _take_out(flat: Flat, node: fx.Node) -> None:
    layer, _, index = node.args
    assert isinstance(layer, fx.Node)
    assert isinstance(index, fx.Node)
    node.replace_all_uses_with(layer)
    name = node.name
    flat.graph.erase_node(node)
    flat.drop_buffer(index)
    layer.name = name


def _shuffle(flat: Flat, one: Pass, stream: Stream) -> Applied:
    before = [node.name for node in flat.graph.nodes if node.op != "output"]
    skeleton, nodes = _skeleton(flat)
    made = one.apply(skeleton, stream)
    flat.rearrange(_listed(flat, skeleton, nodes), {}, {})
    return Applied(eligible=made.eligible, done=made.done, left=made.left, record={"nodes": before})


def _scramble(flat: Flat, one: Pass, stream: Stream) -> Applied:
    """New names; weights, and graphs inside, are then called as the nodes that stand for them."""
    skeleton, nodes = _skeleton(flat)
    made = one.apply(skeleton, stream)
    names = _renamed(skeleton, nodes)
    targets = {target: names[node.name] for node, target in flat.weights()}
    for node in nodes:
        if node.op == "get_attr":
            targets.setdefault(str(node.target), names[node.name])
    unread = [name for name in (*flat.state, *flat.modules) if name not in targets]
    targets |= {name: f"u{number}" for number, name in enumerate(unread)}
    arguments = flat.rest["arguments"]
    flat.rest["arguments"] = None
    flat.rearrange(nodes, names, targets)
    for module in flat.modules.values():
        _number(module)
    back = {new: old for old, new in targets.items()}
    record = {"names": made.record, "targets": back, "arguments": arguments}
    return Applied(eligible=made.eligible + len(targets), done=made.done + len(targets), record=record)


def _number(module: fx.GraphModule) -> None:
    """Number the nodes of a graph inside, which nothing outside calls by name; this is not undone."""
    for inner in module.modules():
        if isinstance(inner, fx.GraphModule):
            for place, node in enumerate(inner.graph.nodes):
                node._rename(f"i{place}")  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
                if node.op == "placeholder":
                    node.target = node.name
            inner.recompile()


def _skeleton(flat: Flat) -> tuple[Net, list[fx.Node]]:
    """A net with a node for each node, a weight for each weight; and the nodes of the program in the same order."""
    onnx = onnx_package()
    net = Net(onnx.ModelProto(ir_version=10), "the program", foreign=True)
    graph = net.graph
    held = {node for node, _ in flat.weights()}
    nodes = [node for node in flat.graph.nodes if node.op != "output"]
    last: str | None = None
    for node in nodes:
        if node in held:
            graph.initialisers[node.name] = np.zeros(1, np.float32)
        elif node.op == "placeholder":
            graph.inputs.append(onnx.helper.make_tensor_value_info(node.name, 1, None))
        else:
            reads = [each.name for each in node.all_input_nodes]
            if _acts(node):
                # What draws numbers, checks or writes does so one after the other.
                reads += [last] if last is not None else []
                last = node.name
            graph.nodes.append(Node("Identity", reads, [node.name]))
    # Weights stand among the placeholders, and come first here.
    inputs = [node for node in nodes if node.op == "placeholder" and node not in held]
    weights = [node for node in nodes if node in held]
    return net, [*weights, *inputs, *(node for node in nodes if node.op != "placeholder")]


def _acts(node: fx.Node) -> bool:
    return node.is_impure() or not isinstance(node.target, torch._ops.OpOverload)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def _renamed(skeleton: Net, nodes: list[fx.Node]) -> dict[str, str]:
    """New names of the program's nodes by old ones."""
    graph = skeleton.graph
    names = [*graph.initialisers, *(each.name for each in graph.inputs), *(node.outputs[0] for node in graph.nodes)]
    return {node.name: name for node, name in zip(nodes, names, strict=True)}


def _listed(flat: Flat, skeleton: Net, nodes: list[fx.Node]) -> list[fx.Node]:
    """The program's nodes in the order of the skeleton."""
    known = {node.name: node for node in nodes}
    inputs = [node.name for node in flat.placeholders() if node.name not in skeleton.graph.initialisers]
    made = [node.outputs[0] for node in skeleton.graph.nodes]
    return [known[name] for name in (*skeleton.graph.initialisers, *inputs, *made)]
