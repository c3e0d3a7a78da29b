"""Layers behind an If: one branch has the layer, the other a decoy, and arithmetic on the data decides, always alike.

The predicate has the same answer for every input, infinities and NaN among them, and depends on the data, so that
nothing folds it; which branch is the true one is drawn for each. The decoy has the same operators and weights that look
as trained as the layer's own. What runs is the layer alone, and a few operators on single numbers.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assets.obfuscate.costs import Costs
from vambrace.assets.obfuscate.decoys import decoy, similar_order, sizes_of
from vambrace.assets.obfuscate.edits import arranged, modernise, rearrange
from vambrace.assets.obfuscate.enclosing import branch_of, enclose, release
from vambrace.assets.obfuscate.graph import Node
from vambrace.assets.obfuscate.opaque import OLDEST, opaque
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile, require_share
from vambrace.assets.obfuscate.places import Place, find_places
from vambrace.assets.obfuscate.tracing import arrangement_mark
from vambrace.core.options import Ratio
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Graph
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Info, Net

__all__ = ["Predicates"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Predicates(Pass):
    """Put some layers behind an If.

    Attributes:
        share: of the eligible layers, 0 to 1.
        growth: most bytes that decoys may add, as a share of all weights.
        slowdown: most that branches may add to the time of a run, as a share of it, by an estimate from sizes.
    """

    name: ClassVar[str] = "predicates"
    profile: ClassVar[Profile] = "exact"
    share: float | None = None
    growth: Ratio = 0.1
    slowdown: Ratio = 0.02

    def __post_init__(self) -> None:
        require_share(self.share, growth=self.growth, slowdown=self.slowdown)

    def apply(self, net: Net, stream: Stream) -> Applied:
        """Wrap; the record says which branch is which, and what was moved into it."""
        if net.opset() < OLDEST:
            return Applied(eligible=0, done=0, left={f"operator sets before {OLDEST}": 1}, record={"places": []})
        found, left = find_places(net)
        producers = net.index().producers
        eligible = [place for place in found if not _fused_before(producers.get(place.taken), place)]
        if len(eligible) < len(found):
            left["a layer that runtimes fuse with what stands before it"] = len(found) - len(eligible)
        before, infos = arranged(net), net.infer()
        costs = Costs(net, infos)
        time = self.slowdown * costs.total
        room = self.growth * sum(array.nbytes for array in net.graph.initialisers.values())
        wanted = math.ceil((self.share or 0.0) * len(eligible) - 1e-9)
        entries: list[dict[str, Any]] = []
        marks: list[Mapping[str, Any]] = []
        for place in [eligible[int(number)] for number in stream.permutation(len(eligible))]:
            cost = costs.branch(place)
            if len(entries) == wanted or cost > time:
                continue
            decoys, mark = _decoys(net, place, stream)
            size = sum(array.nbytes for array in decoys.values())
            same = all(np.array_equal(net.graph.constants()[name], array) for name, array in decoys.items())
            if size <= room and not same:
                room, time = room - size, time - cost
                marks += mark
                modernise(net)
                entries.append(_wrap(net, place, decoys, infos, stream))
        if len(entries) < wanted:
            left["branches that would take too long, decoys too large or equal to the layer"] = wanted - len(entries)
        return Applied(
            eligible=len(eligible),
            done=len(entries),
            left=left,
            record={"places": entries, "before": before},
            marks=tuple(marks),
        )

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        """Take the layers out of their branches."""
        for entry in record["places"]:
            _unwrap(net, entry)
        if record["places"]:
            rearrange(net, record["before"])


def _fused_before(before: Node | None, place: Place) -> bool:
    """Whether runtimes look for the node that stands before a layer, so that it must stay beside it."""
    wary = {"Cast", "DequantizeLinear", "Pad"}
    if not place.nodes[0].is_a("Conv"):
        wary |= {"Div", "Mul", "Transpose"}
    return before is not None and before.op in wary


def _decoys(net: Net, place: Place, stream: Stream) -> tuple[dict[str, NDArray[Any]], list[Mapping[str, Any]]]:
    """Decoys of the weights of a place, by the names of the true ones, and the mark that they leave."""
    constants = net.graph.constants()
    first = place.weights.parts[0]
    assert first.gives is not None
    whole = constants[first.name]
    # One output channel alone lies where there is one: before what a filter takes, and behind what a matrix does.
    axis = int(np.argmax(first.gives.shape)) if first.gives.size > 1 else int(np.argmin(whole.shape))
    sizes = sizes_of(whole / net.factors.get(first.name, np.ones(())), axis)
    groups = int(place.nodes[0].value("group", 1))
    orders: list[NDArray[np.int64]] = []
    blocks: list[int] = []
    for start, part in enumerate(np.split(sizes, groups)):
        order, alike = similar_order(part, stream)
        orders.append(order + start * len(part))
        blocks += alike
    order = np.concatenate(orders)
    made: dict[str, NDArray[Any]] = {}
    for part in place.parts:
        array = constants[part.name]
        factor: NDArray[np.float64] = np.broadcast_to(net.factors.get(part.name, np.ones(())), array.shape)
        assert part.gives is not None
        if array.size == part.gives.size:
            made[part.name] = decoy(array.reshape(-1), factor.reshape(-1), order, None).reshape(array.shape)
        elif axis == 1:
            made[part.name] = np.ascontiguousarray(decoy(array.T, factor.T, order, stream).T)
        else:
            made[part.name] = decoy(array, factor, order, stream)
    # Rows that are equal would make fewer arrangements than there are orders.
    differ = len(np.unique(made[first.name], axis=axis)) == len(order)
    return made, [arrangement_mark(made[first.name], blocks)] if differ else []


def _wrap(
    net: Net, place: Place, decoys: Mapping[str, NDArray[Any]], infos: Mapping[str, Info], stream: Stream
) -> dict[str, Any]:
    graph = net.graph
    constants = graph.constants()
    dtype = constants[place.weights.parts[0].name].dtype
    sizes = infos[place.taken].shape if place.taken in infos else None
    count = math.prod(size if isinstance(size, int) else 1 for size in sizes or ())
    before, answer, truth = opaque(net, place.taken, dtype, max(1, count), stream)
    kind = int(onnx_package().helper.np_dtype_to_tensor_dtype(dtype))
    fake = _fake(net, place, constants | dict(decoys), kind)
    added = [name for name in graph.initialisers if name not in constants]
    at = next(at for at, node in enumerate(graph.nodes) if node is place.nodes[-1])
    graph.nodes[at + 1 : at + 1] = [*before, chooser := Node("If", [answer], [place.given])]
    enclosed = enclose(net, place.nodes, {place.given: kind})
    true = enclosed.branch
    chooser.bodies = {"then_branch": [true if truth else fake], "else_branch": [fake if truth else true]}
    return {
        "given": place.given,
        "branch": "then_branch" if truth else "else_branch",
        "nodes": [node.outputs[0] for node in before],
        "weights": added,
        **enclosed.record(),
    }


def _unwrap(net: Net, entry: Mapping[str, Any]) -> None:
    graph = net.graph
    producers = net.index().producers
    chooser = producers[entry["given"]]
    (branch,) = chooser.bodies[entry["branch"]]
    release(net, chooser, branch, entry)
    graph.remove(*(producers[name] for name in entry["nodes"]))
    for name in entry["weights"]:
        del graph.initialisers[name]
    graph.inputs = [each for each in graph.inputs if each.name not in entry["weights"]]


def _fake(net: Net, place: Place, values: Mapping[str, NDArray[Any]], kind: int) -> Graph:
    """The branch with the decoy; weights that callers may override stay outside, as those of the layer do."""
    onnx = onnx_package()
    given = {each.name for each in net.graph.inputs}
    made = [name for node in place.nodes for name in node.outputs if name]
    constants = [name for name in dict.fromkeys(name for node in place.nodes for name in node.inputs) if name in values]
    fresh = dict(zip([*made, *constants], net.fresh(len(made) + len(constants)), strict=True))
    weights: dict[str, NDArray[Any]] = {}
    for name in constants:
        if name not in given:
            weights[fresh[name]] = values[name]
            continue
        net.graph.initialisers[fresh[name]] = values[name]
        own = onnx.helper.np_dtype_to_tensor_dtype(values[name].dtype)
        net.graph.inputs.append(onnx.helper.make_tensor_value_info(fresh[name], own, values[name].shape))
    nodes = [
        dataclasses.replace(
            node,
            inputs=[fresh.get(name, name) for name in node.inputs],
            outputs=[fresh.get(name, name) for name in node.outputs],
        )
        for node in place.nodes
    ]
    return branch_of(net, nodes, {fresh[place.given]: kind}, weights)
