"""A model's graph as a reader sees it who does not care for names: operators, what feeds what, and shapes of weights.

Functions of the model are inlined, bodies of If, Loop and Scan stand beside the rest (edges lead into and out of
them), and constants count as weights, so that the same network written in another way gives the same graph.

`order` puts operators in an order that depends on the graph alone. Shuffling the nodes of a file changes nothing here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.measure.runtime import onnx

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnx import ModelProto

__all__ = ["Graph", "Weight", "inlined", "labels", "order", "read_graph"]

_COMMUTATIVE = {"Add", "Mul", "Sum", "Max", "Min", "And", "Or", "Xor"}
_LAST = 2**31  # bodies come after every slot
_SHAPES = {"kernel_shape", "strides", "pads", "dilations", "group", "perm", "axis", "axes", "hidden_size"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A constant input of an operator.

    Attributes:
        slot: which input it is.
        name: in the file.
        shape: its sizes.
        floating: whether it holds floats.
    """

    slot: int
    name: str
    shape: tuple[int, ...]
    floating: bool


@dataclass(slots=True, eq=False)
class Graph:
    """Operators and what feeds what.

    Attributes:
        operators: the type of each.
        names: of each node in the file.
        attributes: of each, those that say something about structure, as text.
        weights: of each, its constant inputs.
        edges: (from, to, slot): an output of one is the slot-th input of another; a body's end feeds its If.
        taken: operators that take one of the model's inputs, as (operator, slot).
        ends: operators that give the model's outputs, in their order.
    """

    operators: list[str] = field(default_factory=list[str])
    names: list[str] = field(default_factory=list[str])
    attributes: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    weights: list[tuple[Weight, ...]] = field(default_factory=list[tuple[Weight, ...]])
    edges: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    taken: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    ends: list[int] = field(default_factory=list[int])

    def __len__(self) -> int:
        return len(self.operators)


def inlined(model: ModelProto) -> ModelProto:
    """The model with its functions written out where they are called; the model itself where it has none."""
    return onnx().inliner.inline_local_functions(model) if len(model.functions) else model


def read_graph(model: ModelProto) -> Graph:
    """The graph of an onnx.ModelProto."""
    graph, whole = Graph(), inlined(model).graph
    producers = _add(whole, graph, {}, {}, top=True)
    graph.ends = [producers[each.name] for each in whole.output if each.name in producers]
    return graph


def labels(graph: Graph, rounds: int, *, detailed: bool = False) -> list[list[str]]:
    """Weisfeiler-Lehman labels of every operator after 0 to `rounds` rounds, each a list of len(graph).

    A label is a hash of the label before, those of what feeds the operator and those of what it feeds (Shervashidze
    et al., JMLR 12, 2011, section 3, on a directed graph).

    Args:
        graph: from `read_graph`.
        rounds: of refinement.
        detailed: begin with attributes and ranks of weights beside the operator's type.
    """
    before: list[list[int]] = [[] for _ in range(len(graph))]
    after: list[list[int]] = [[] for _ in range(len(graph))]
    for source, target, _ in graph.edges:
        before[target].append(source)
        after[source].append(target)
    found = [[_begin(graph, place, detailed) for place in range(len(graph))]]
    for _ in range(rounds):
        last = found[-1]
        found.append(
            [
                _hashed(
                    (last[place], "<", *sorted(last[near] for near in before[place]))
                    + (">", *sorted(last[near] for near in after[place]))
                )
                for place in range(len(graph))
            ]
        )
    return found


def order(graph: Graph) -> list[int]:
    """Operators from the model's inputs to its outputs, in an order that no shuffling of the file changes.

    Each stands after what it needs, one branch after the other: backwards from the outputs, slot by slot; sums and
    products, whose slots may be swapped, take their deepest branch first. An operator that is put in somewhere moves
    nothing else. What leads to no output comes last.
    """
    depth, refined = _depths(graph), labels(graph, 4)[-1]
    fed: list[list[tuple[int, int]]] = [[] for _ in range(len(graph))]
    for source, target, slot in graph.edges:
        fed[target].append((slot, source))

    def first(place: int, one: tuple[int, int]) -> tuple[int, str, int]:
        slot, source = one
        if graph.operators[place] in _COMMUTATIVE:
            return -depth[source], refined[source], 0
        return slot if slot >= 0 else _LAST, "", source

    sources = [
        [source for _, source in sorted(each, key=lambda one, place=place: first(place, one))]
        for place, each in enumerate(fed)
    ]
    rest = sorted(range(len(graph)), key=lambda place: (depth[place], graph.operators[place], refined[place]))
    placed: dict[int, None] = {}
    for end in (*graph.ends, *rest):
        _after_sources(end, sources, placed)
    return list(placed)


def _after_sources(end: int, sources: list[list[int]], placed: dict[int, None]) -> None:
    """Put what `end` needs and then `end` itself behind what is placed, without recursion."""
    waiting: list[tuple[int, int]] = [(end, 0)]
    while waiting:
        place, done = waiting.pop()
        if place in placed:
            continue
        if done < len(sources[place]):
            waiting += [(place, done + 1), (sources[place][done], 0)]
        else:
            placed[place] = None


def _add(
    graph: Any,  # noqa: ANN401  an onnx.GraphProto
    found: Graph,
    producers: dict[str, int],
    constants: dict[str, Weight],
    *,
    top: bool,
) -> dict[str, int]:
    """Read one graph into `found`; names of outer graphs are visible. Returns the producers of its names."""
    producers, constants = dict(producers), dict(constants)
    for tensor in graph.initializer:
        constants[tensor.name] = _weight(tensor)
    given = {each.name for each in graph.input if each.name not in constants} if top else set[str]()
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = _constant(node)
            continue
        place = len(found)
        found.operators.append(node.op_type)
        found.names.append(node.name)
        found.attributes.append(tuple(sorted(_shown(each) for each in node.attribute if each.name in _SHAPES)))
        weights = [(slot, constants[name]) for slot, name in enumerate(node.input) if name in constants]
        found.weights.append(
            tuple(Weight(slot=slot, name=each.name, shape=each.shape, floating=each.floating) for slot, each in weights)
        )
        for slot, name in enumerate(node.input):
            if name in producers:
                found.edges.append((producers[name], place, slot))
            elif name in given:
                found.taken.append((place, slot))
        for body in _bodies(node):
            inside = _add(body, found, producers, constants, top=False)
            found.edges += [(inside[each.name], place, -1) for each in body.output if each.name in inside]
        producers.update({name: place for name in node.output if name})
    return producers


def _bodies(node: Any) -> Iterable[Any]:  # noqa: ANN401  an onnx.NodeProto and its onnx.GraphProto
    for attribute in sorted(node.attribute, key=lambda each: str(each.name)):
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _weight(tensor: Any) -> Weight:  # noqa: ANN401  an onnx.TensorProto
    floating = tensor.data_type in {1, 10, 11, 16}
    return Weight(slot=-1, name=tensor.name, shape=tuple(int(size) for size in tensor.dims), floating=floating)


def _constant(node: Any) -> Weight:  # noqa: ANN401  an onnx.NodeProto
    for attribute in node.attribute:
        if attribute.name == "value":
            read = _weight(attribute.t)
            return Weight(slot=-1, name=node.output[0], shape=read.shape, floating=read.floating)
    return Weight(slot=-1, name=node.output[0], shape=(), floating=False)


def _shown(attribute: Any) -> str:  # noqa: ANN401  an onnx.AttributeProto
    values: Sequence[int] = attribute.ints or [attribute.i]
    return f"{attribute.name}={','.join(str(value) for value in values)}"


def _begin(graph: Graph, place: int, detailed: bool) -> str:
    if not detailed:
        return graph.operators[place]
    ranks = tuple(f"{each.slot}:{len(each.shape)}" for each in graph.weights[place] if each.floating)
    return _hashed((graph.operators[place], *graph.attributes[place], *ranks))


def _hashed(parts: tuple[str, ...]) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def _depths(graph: Graph) -> list[int]:
    """The longest way from an operator that nothing feeds, in steps; operators on a cycle do not exist."""
    waiting = Counter(target for _, target, _ in graph.edges)
    after: list[list[int]] = [[] for _ in range(len(graph))]
    for source, target, _ in graph.edges:
        after[source].append(target)
    depth = [0] * len(graph)
    ready = [place for place in range(len(graph)) if not waiting[place]]
    while ready:
        place = ready.pop()
        for target in after[place]:
            depth[target] = max(depth[target], depth[place] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return depth
