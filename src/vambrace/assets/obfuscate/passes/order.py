"""A random order of nodes, among all in which the model can run, and of weights.

Each step takes one of the nodes whose values are all there, each with the same chance. Graphs inside nodes are shuffled
alike. A runtime sorts nodes by itself, so this costs nothing and changes no result; the order in which an exporter
wrote them, which is the order of the code, is gone.

Attributes of a node are sorted by their names: each exporter has an order of its own, as have passes that add nodes, so
it would tell the one's nodes from the others'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vambrace.assets.obfuscate.graph import reads_of
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assets.obfuscate.graph import Graph, Node
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net

__all__ = ["Order"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Pass):
    """Shuffle nodes and weights, and sort attributes; the record holds where each one stood."""

    name: ClassVar[str] = "order"
    profile: ClassVar[Profile] = "exact"

    def apply(self, net: Net, stream: Stream) -> Applied:
        """Shuffle."""
        record: list[dict[str, Any]] = []
        total = 0
        # Graphs are listed before any is shuffled, and undone from the last to the first: nodes hold the inner ones.
        for graph in list(net.graphs()):
            nodes = _shuffled(graph.nodes, stream)
            graph.nodes = [graph.nodes[place] for place in nodes]
            weights = stream.permutation(len(graph.initialisers)).tolist()
            names = list(graph.initialisers)
            graph.initialisers = {names[place]: graph.initialisers[names[place]] for place in weights}
            stood = {str(place): list(node.attributes) for place, node in enumerate(graph.nodes)}
            stood = {place: names for place, names in stood.items() if names != sorted(names)}
            for place, names in stood.items():
                _attributes(graph.nodes[int(place)], sorted(names))
            record.append({"nodes": nodes, "weights": weights, "attributes": stood})
            total += len(nodes) + len(weights)
        return Applied(eligible=total, done=total, record={"graphs": record})

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        """Put nodes and weights back where they stood."""
        _restore(net.graph, iter(record["graphs"]))


def _restore(graph: Graph, entries: Any) -> None:  # noqa: ANN401  an iterator over the record
    entry = next(entries)
    # Maps may be older, from when attributes stayed in their order.
    for place, names in entry.get("attributes", {}).items():
        _attributes(graph.nodes[int(place)], names)
    graph.nodes = _back(graph.nodes, entry["nodes"])
    names = _back(list(graph.initialisers), entry["weights"])
    graph.initialisers = {name: graph.initialisers[name] for name in names}
    # The record lists inner graphs in the order of nodes before they were shuffled, which is this one.
    for node in graph.nodes:
        for body in node.graphs():
            _restore(body, entries)


def _attributes(node: Node, names: list[str]) -> None:
    node.attributes = {name: node.attributes[name] for name in names}


def _back(shuffled: list[Any], places: list[int]) -> list[Any]:
    back: dict[int, Any] = dict(zip(places, shuffled, strict=True))
    return [back[place] for place in range(len(places))]


def _shuffled(nodes: list[Node], stream: Stream) -> list[int]:
    producers = {name: place for place, node in enumerate(nodes) for name in node.outputs if name}
    waits = [{producers[name] for name in reads_of(node) if name in producers} for node in nodes]
    readers: dict[int, list[int]] = {}
    for place, needed in enumerate(waits):
        for other in needed:
            readers.setdefault(other, []).append(place)
    missing = [len(needed) for needed in waits]
    ready = [place for place, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        at = int(stream.integers(0, len(ready)))
        ready[at], ready[-1] = ready[-1], ready[at]
        place = ready.pop()
        order.append(place)
        for reader in readers.get(place, []):
            missing[reader] -= 1
            if missing[reader] == 0:
                ready.append(reader)
    return order
