"""Weights of several layers in one long vector, from which each is cut out while the model runs.

Where a weight begins depends on a predicate over the data whose answer is always the same
(`vambrace.assets.obfuscate.opaque`), so no optimiser can cut the vector beforehand. Weights lie in it in any order,
with numbers like theirs in between. Cutting copies them at every run, and a runtime cannot lay them out for its kernels
in advance. That costs time that grows with the weights, and most for convolutions; so only weights of few elements are
taken, and none of convolutions, unless `largest` and `convolutions` say otherwise.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assets.obfuscate.costs import Costs
from vambrace.assets.obfuscate.edits import arranged, drop_weights, modernise, rearrange
from vambrace.assets.obfuscate.graph import Node
from vambrace.assets.obfuscate.layered import FLOATS
from vambrace.assets.obfuscate.opaque import OLDEST, opaque
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile
from vambrace.assets.obfuscate.passes.choosing import affordable, check_share, check_slowdown
from vambrace.core.options import require
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net

__all__ = ["PackWeights"]

_FLOAT, _INT64 = 1, 7
_WHOLE = frozenset({np.dtype(np.int32), np.dtype(np.int64)})
_FILLER = 8
_CUTTING = 4
"""Operators that cut a weight out."""
_VARIANCE = 4
"""Where a batch normalisation reads its variances."""
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_OTHERS = ("Add", "BatchNormalization", "Gemm", "LayerNormalization", "MatMul", "Mul", "PRelu")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PackWeights(Pass):
    """Put weights into vectors and cut them out at run time.

    Attributes:
        share: of the weights of layers that are small enough.
        slowdown: most that it may add to the time of a run, as a share of it, by an estimate from sizes; None for any,
            or what the whole obfuscation says where the share is left to it.
        largest: elements of a weight, at most.
        convolutions: whether weights of convolutions are taken too.
    """

    share: float | None = None
    slowdown: float | None = None
    largest: int = 4096
    convolutions: bool = False

    name: ClassVar[str] = "pack_weights"
    profile: ClassVar[Profile] = "tolerance"

    def __post_init__(self) -> None:
        check_share(self.share)
        check_slowdown(self.slowdown)
        require(
            self.largest >= 1,
            code="E838",
            seen=f"weights of at most {self.largest} elements",
            expected="at least 1",
            fix="leave largest out",
        )

    def apply(self, net: Net, stream: Stream) -> Applied:
        before = arranged(net)
        if net.opset() < OLDEST:
            return Applied(eligible=0, done=0, left={"an operator set that compares no whole numbers": 1})
        layers = (*_OTHERS, *_CONVOLUTIONS) if self.convolutions else _OTHERS
        found = _weights(net, (*_OTHERS, *_CONVOLUTIONS))
        small = [name for name, array in _weights(net, layers).items() if array.size <= self.largest]
        left = {"weights of convolutions, or of more elements than are cheap to copy": len(found) - len(small)}
        source = _source(net)
        if source is None:
            return Applied(eligible=0, done=0, left=left | {"no input with numbers": 1})
        costs = Costs(net, net.infer())
        time = costs.room(self.slowdown)
        taken, short = affordable(
            small,
            self.share,
            stream.child("places"),
            lambda name: costs.added(2 * found[name].size, _CUTTING),
            None if time is None else time - costs.predicate("opaque"),
        )
        packed: list[dict[str, Any]] = []
        for dtype in sorted({found[name].dtype for name in taken}, key=str):
            names = [name for name in taken if found[name].dtype == dtype]
            packed.append(_pack(net, {name: found[name] for name in names}, source, stream.child("pack", str(dtype))))
        return Applied(
            eligible=len(small),
            done=len(taken),
            left={why: count for why, count in left.items() if count} | short,
            record={"packed": packed, "before": before},
        )

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        for pack in reversed(record["packed"]):
            vector = net.graph.initialisers[pack["vector"]]
            for name, (start, shape) in pack["weights"].items():
                net.graph.initialisers[name] = vector[start : start + math.prod(shape)].reshape(shape)
            made = {node.outputs[0]: node for node in net.graph.nodes}
            net.graph.remove(*(made[name] for name in pack["nodes"]))
            for name in pack["constants"]:
                del net.graph.initialisers[name]
        rearrange(net, record["before"])


def _weights(net: Net, layers: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Floating initialisers of two elements or more that such nodes read, and no others.

    Variances are left out: a root is taken of them, so that no lock could move what is in one vector with them. So are
    matrices of no number below zero, such as filterbanks, behind which a root or a logarithm may stand.
    """
    read: dict[str, bool] = {}
    for graph in net.graphs():
        for node in graph.nodes:
            for place, name in enumerate(node.inputs):
                fits = node.is_a(*layers) and not (place == _VARIANCE and node.is_a("BatchNormalization"))
                read[name] = read.get(name, True) and fits and graph is net.graph
    found = {name: array for name, array in net.graph.initialisers.items() if read.get(name)}
    return {
        name: array
        for name, array in found.items()
        if array.dtype in FLOATS and array.size > 1 and (array.ndim < 2 or array.min() < 0)
    }


def _source(net: Net) -> tuple[str, np.dtype[Any], int] | None:
    """An input with numbers, their type, and how many there are for certain."""
    infos = net.infer()
    helper = onnx_package().helper
    for name in net.graph.input_names:
        if name not in infos:
            continue
        dtype: np.dtype[Any] = helper.tensor_dtype_to_np_dtype(infos[name].kind)
        if dtype in FLOATS or dtype in _WHOLE:
            shape = infos[name].shape or ()
            count = math.prod(size if isinstance(size, int) else 1 for size in shape)
            return name, dtype, max(1, count)
    return None


def _pack(
    net: Net, weights: dict[str, NDArray[Any]], source: tuple[str, np.dtype[Any], int], draw: Stream
) -> dict[str, Any]:
    graph = net.graph
    known = set(graph.initialisers)
    names = list(weights)
    names = [names[int(at)] for at in draw.permutation(len(names))]
    pieces: list[NDArray[Any]] = []
    starts: dict[str, int] = {}
    at = 0
    for name in names:
        array = weights[name].reshape(-1)
        # Between weights: some of their own elements, so that nothing shows where one ends.
        filler = array[draw.integers(0, array.size, (int(draw.integers(1, _FILLER)),))]
        pieces += [filler, array]
        starts[name] = at + filler.size
        at += filler.size + array.size
    pieces.append(pieces[-1][draw.integers(0, pieces[-1].size, (_FILLER,))])
    (vector,) = net.fresh()
    graph.initialisers[vector] = np.concatenate(pieces)
    nodes: list[Node] = []
    value, dtype, count = source
    if dtype in _WHOLE:
        value, dtype = net.fresh()[0], np.dtype(np.float32)
        nodes.append(Node("Cast", [source[0]], [value]))
        nodes[-1].set(to=_FLOAT)
    predicate, answer, truth = opaque(net, value, dtype, count, draw)
    (number,) = net.fresh()
    nodes += predicate
    nodes.append(Node("Cast", [answer], [number]))
    nodes[-1].set(to=_INT64)
    for name in names:
        nodes += _cut(net, vector, number, truth, starts[name], weights[name], name, draw)
    graph.insert(nodes, before=graph.nodes[0])
    drop_weights(net, names)
    modernise(net)
    return {
        "vector": vector,
        "weights": {name: [starts[name], list(weights[name].shape)] for name in names},
        "nodes": [node.outputs[0] for node in nodes],
        "constants": [name for name in graph.initialisers if name not in known],
    }


def _cut(
    net: Net, vector: str, number: str, truth: bool, start: int, array: NDArray[Any], name: str, draw: Stream
) -> list[Node]:
    """vector[begin : begin + size], where begin = factor * number + rest and number is always 0 or always 1."""
    factor = int(draw.integers(1, start + 2))
    rest = start - factor * int(truth)

    def constant(value: NDArray[np.int64] | list[int]) -> str:
        (made,) = net.fresh()
        net.graph.initialisers[made] = np.asarray(value, np.int64)
        return made

    product, begin, end, flat = net.fresh(4)
    nodes = [Node("Mul", [number, constant([factor])], [product])]
    if net.opset() < 10:
        # Before operator set 10, Slice takes no computed limits.
        places = constant(np.arange(array.size).reshape(array.shape) + rest)
        return [*nodes, Node("Add", [product, places], [begin]), Node("Gather", [vector, begin], [name])]
    return [
        *nodes,
        Node("Add", [product, constant([rest])], [begin]),
        Node("Add", [begin, constant([array.size])], [end]),
        Node("Slice", [vector, begin, end], [flat]),
        Node("Reshape", [flat, constant(list(array.shape))], [name]),
    ]
