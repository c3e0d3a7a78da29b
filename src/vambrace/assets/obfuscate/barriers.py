"""Places that nothing gets past: a set of layers on every path from the inputs of a net to its outputs, cheapest first.

What lies on no such path can be left open without opening the model; what lies on all of them closes it alone. The set
is a minimum cut of the graph with the places' costs as capacities (Ford and Fulkerson 1956), by scipy's maximum flow.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from vambrace.assets.obfuscate.graph import reads_of
from vambrace.assets.obfuscate.operators import OWN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Net
    from vambrace.assets.obfuscate.places import Place

__all__ = ["barrier", "given_as_they_are", "heaviest", "weakest"]

_MIXING = ("Attention", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gemm", "LSTM", "MatMul",
           "MatMulInteger", "QLinearConv", "QLinearMatMul", "RNN")  # fmt: skip

# Capacities are int32, and their sum must be as well.
_ENDLESS = 2**30
_FINEST = 2**20


def barrier(net: Net, costs: Mapping[Place, float]) -> list[Place]:
    """The places, of those that have a cost, that lie on every path together and cost the least.

    Values of which only the shape is read are no path.

    Args:
        net: whose main graph is looked at.
        costs: above 0, by place.

    Returns:
        Places in the order of `costs`; none where some path has no place.
    """
    nodes = [node for node in net.graph.nodes if not node.is_a("Shape", "Size")]
    numbers = {id(node): number for number, node in enumerate(nodes)}
    unit = max(costs.values(), default=1.0) / _FINEST * max(1, len(costs))
    # Node i is an edge from vertex 2 i to 2 i + 1, of the capacity of the place that ends with it.
    source, sink = 2 * len(nodes), 2 * len(nodes) + 1
    limits = {(2 * number, 2 * number + 1): _ENDLESS for number in range(len(nodes))}
    for place, cost in costs.items():
        number = numbers[id(place.nodes[-1])]
        limits[2 * number, 2 * number + 1] = max(1, int(cost / unit))
    made = {name: number for number, node in enumerate(nodes) for name in node.outputs}
    given = set(net.graph.input_names)
    for number, node in enumerate(nodes):
        reads = reads_of(node)
        limits |= {(2 * made[name] + 1, 2 * number): _ENDLESS for name in reads if name in made}
        if reads & given:
            limits[source, 2 * number] = _ENDLESS
    limits |= {(2 * made[name] + 1, sink): _ENDLESS for name in net.graph.output_names if name in made}
    return _cut(limits, source, sink, {2 * numbers[id(place.nodes[-1])]: place for place in costs})


def given_as_they_are(net: Net) -> set[str]:
    """Values whose channels reach an output without a layer that mixes them: their order is told by that of answers."""
    found = set(net.graph.output_names)
    constants = net.graph.constants()
    for node in reversed(net.graph.nodes):
        if not found.isdisjoint(node.outputs) and not node.is_a("Shape", "Size") and not _mixes(node, constants):
            found |= reads_of(node)
    return found


def _mixes(node: Node, constants: Mapping[str, NDArray[Any]]) -> bool:
    """Operators of other domains do as well, as far as is known; a convolution of each channel by itself does not."""
    if node.domain not in OWN or any(_mixes(each, constants) for body in node.graphs() for each in body.nodes):
        return True
    kernel = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    alone = node.is_a("Conv", "ConvTranspose") and kernel is not None and kernel.ndim > 1 and kernel.shape[1] == 1
    return node.is_a(*_MIXING) and not (alone and int(node.value("group", 1)) > 1)


def weakest(net: Net, bits: Mapping[Place, float]) -> float:
    """What the places on a path from an input to an output hold together, on the path that holds least.

    Args:
        net: whose main graph is looked at, its nodes in order.
        bits: by place; other nodes hold none.

    Returns:
        Infinite where no output depends on an input.
    """
    found = _along(net, bits, min)
    return min((found[name] for name in net.graph.output_names if name in found), default=math.inf)


def heaviest(net: Net, weights: Mapping[Place, float]) -> float:
    """The same of the path that holds most, wherever it ends; 0 where there is none."""
    return max(_along(net, weights, max).values(), default=0.0)


def _along(net: Net, held: Mapping[Place, float], choose: Callable[[list[float]], float]) -> dict[str, float]:
    """What the places up to each value hold together, on the path that is chosen."""
    own = {id(place.nodes[-1]): one for place, one in held.items()}
    found = dict.fromkeys(net.graph.input_names, 0.0)
    for node in net.graph.nodes:
        before = [found[name] for name in reads_of(node) if name in found]
        if before and not node.is_a("Shape", "Size"):
            found |= dict.fromkeys(node.outputs, choose(before) + own.get(id(node), 0.0))
    return found


def _cut(limits: Mapping[tuple[int, int], int], source: int, sink: int, places: Mapping[int, Place]) -> list[Place]:
    # One edge in front of all bounds the flow, which must be an int32 too.
    edges = dict(limits) | {(sink + 1, source): _ENDLESS}
    rows, columns = np.array(list(edges)).T
    capacities: Any = sparse.csr_array(
        (np.array(list(edges.values()), np.int32), (rows, columns)), shape=(sink + 2, sink + 2)
    )
    csgraph: Any = sparse.csgraph  # without types
    flow = csgraph.maximum_flow(capacities, sink + 1, sink)
    if flow.flow_value >= _ENDLESS:
        return []
    left: Any = sparse.csr_array(capacities - flow.flow)
    left.eliminate_zeros()
    reached = set[int](csgraph.breadth_first_order(left, sink + 1, return_predecessors=False).tolist())
    return [place for vertex, place in places.items() if vertex in reached and vertex + 1 not in reached]
