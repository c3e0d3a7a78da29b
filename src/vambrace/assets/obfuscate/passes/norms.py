"""Batch normalisation folded into the layer before it, and put where there was none.

Folding leaves no trace of where training had normalised. A normalisation that is put between an activation and the
layer behind it stays: a runtime folds one only into a layer before it. Its numbers are like those of training, and the
weights of the layer take them back.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assets.obfuscate.costs import Costs
from vambrace.assets.obfuscate.edits import Edit
from vambrace.assets.obfuscate.layered import FLOATS, Layer, layers_of, of_both_signs
from vambrace.assets.obfuscate.passes.base import Profile
from vambrace.assets.obfuscate.passes.choosing import affordable, check_share, check_slowdown, chosen
from vambrace.assets.obfuscate.passes.oneway import OneWay
from vambrace.core.options import Ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Index, Net
    from vambrace.assets.obfuscate.passes.base import Applied

__all__ = ["FoldNorms", "InsertNorms"]

_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoldNorms(OneWay):
    """Multiply batch normalisations into the layers before them. It cannot be undone bit for bit.

    Attributes:
        share: of the normalisations. It makes the network faster, so all by default.
    """

    share: Ratio = 1.0

    name: ClassVar[str] = "fold_norms"
    profile: ClassVar[Profile] = "tolerance"

    def __post_init__(self) -> None:
        check_share(self.share)

    def apply(self, net: Net, stream: Stream) -> Applied:
        index = net.index()
        norms = [node for node in net.graph.nodes if node.is_a("BatchNormalization")]
        eligible = [pair for node in norms if (pair := _pair(net, index, node)) is not None]
        left = {"normalisations that do not follow a layer of their own": len(norms) - len(eligible)}
        taken = chosen(eligible, self.share, stream.child("places"))
        for layer, norm in taken:
            _fold(net, layer, norm)
        return self.report(len(eligible), len(taken), left)


def _pair(net: Net, index: Index, norm: Node) -> tuple[Node, Node] | None:
    weights = net.graph.initialisers
    layer = index.producers.get(norm.inputs[0])
    if layer is None or index.only_consumer(norm.inputs[0]) is None or any(norm.outputs[1:]):
        return None
    if not layer.is_a("Conv", "ConvTranspose", "Gemm"):
        return None
    if layer.is_a("ConvTranspose") and int(layer.value("group", 1)) != 1:
        return None
    if layer.is_a("Gemm") and (float(layer.value("alpha", 1.0)), float(layer.value("beta", 1.0))) != (1.0, 1.0):
        return None
    constants = [weights.get(name) for name in (*layer.inputs[1:], *norm.inputs[1:]) if name]
    if any(array is None or array.dtype not in FLOATS for array in constants):
        return None
    return layer, norm


def _fold(net: Net, layer: Node, norm: Node) -> None:
    """Ioffe and Szegedy 2015, algorithm 2: y = scale (x - mean) / sqrt(var + epsilon) + shift."""
    weights = net.graph.initialisers
    weight = weights[layer.inputs[1]]
    scale, shift, mean, variance = (weights[name].astype(np.float64) for name in norm.inputs[1:5])
    factor = scale / np.sqrt(variance + float(norm.value("epsilon", _EPSILON)))
    axis = 0 if layer.is_a("Conv") or layer.value("transB", 0) else 1
    spread = [1] * weight.ndim
    spread[axis] = -1
    bias = weights[layer.inputs[2]].astype(np.float64) if len(layer.inputs) > 2 and layer.inputs[2] else 0.0
    edit = Edit(net, layer, norm)
    new_weight = edit.constant((weight * factor.reshape(spread)).astype(weight.dtype))
    new_bias = edit.constant(np.asarray((bias - mean) * factor + shift, weight.dtype))
    edit.like(layer, layer.inputs[0], new_weight, new_bias, to=norm.outputs[0])
    edit.done()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InsertNorms(OneWay):
    """Normalise the inputs of some layers, and let their weights take it back. It cannot be undone bit for bit.

    Attributes:
        share: of the layers.
        slowdown: most that it may add to the time of a run, as a share of it, by an estimate from sizes; None for any,
            or what the whole obfuscation says where the share is left to it.
    """

    share: float | None = None
    slowdown: float | None = None

    name: ClassVar[str] = "insert_norms"
    profile: ClassVar[Profile] = "tolerance"

    def __post_init__(self) -> None:
        check_share(self.share)
        check_slowdown(self.slowdown)

    def apply(self, net: Net, stream: Stream) -> Applied:
        found, _, left = layers_of(net)
        layers, index = of_both_signs(found, left), net.index()
        eligible = [layer for layer in layers if _behind_activation(layer, index)]
        if len(eligible) < len(layers):
            left["layers behind another layer, or behind the input"] = len(layers) - len(eligible)
        costs = Costs(net, net.infer())
        taken, short = affordable(
            eligible, self.share, stream.child("places"), partial(_cost, costs=costs), costs.room(self.slowdown)
        )
        for number, layer in enumerate(taken):
            _insert(net, layer, stream.child("layer", number))
        return self.report(len(eligible), len(taken), left | short)


def _cost(layer: Layer, costs: Costs) -> float:
    return costs.added(math.prod(layer.taken_shape), 3)


def _behind_activation(layer: Layer, index: Index) -> bool:
    """Whether a runtime would leave a normalisation before this layer where it is."""
    before = index.producers.get(layer.node.inputs[0])
    plain = layer.node.is_a("Conv") or len(layer.taken_shape) == 2
    return plain and before is not None and not before.is_a("Conv", "ConvTranspose", "Gemm", "MatMul")


def _insert(net: Net, layer: Layer, draw: Stream) -> None:
    """Before the layer s (x - m) / r + b; its weights become W r / s, and its bias takes the constant part back."""
    kind, count = layer.weight.dtype, layer.takes
    scale = np.exp2(draw.uniform((count,)) * 2 - 1)
    mean, shift = 0.1 * draw.normal((count,)), 0.1 * draw.normal((count,))
    variance = np.exp2(draw.uniform((count,)) * 4 - 2)
    stated = layer.node.value("auto_pad", "NOTSET") in {"NOTSET", "VALID"}
    if layer.node.is_a("Conv") and (not stated or any(layer.node.value("pads") or [0])):
        # Zeros around the edge must stay zeros.
        shift = scale * mean / np.sqrt(variance + _EPSILON)
    scale, shift, mean, variance = (array.astype(kind) for array in (scale, shift, mean, variance))
    wide = [array.astype(np.float64) for array in (scale, shift, mean, variance)]
    factor = wide[0] / np.sqrt(wide[3] + _EPSILON)
    offset = wide[1] - factor * wide[2]
    spread = [1] * layer.weight.ndim
    spread[layer.input_axis] = -1
    weight = layer.weight.astype(np.float64) / factor.reshape(spread)
    others = tuple(axis for axis in range(weight.ndim) if axis != layer.output_axis)
    taken_back = (weight * offset.reshape(spread)).sum(axis=others)
    bias: NDArray[Any] = (np.zeros(layer.gives) if layer.bias is None else layer.bias.astype(np.float64)) - taken_back
    edit = Edit(net, layer.node)
    names = [edit.constant(array) for array in (scale, shift, mean, variance)]
    value = edit.add("BatchNormalization", layer.node.inputs[0], *names, epsilon=_EPSILON)
    out = layer.node.outputs[0]
    if layer.node.is_a("MatMul"):
        edit.add("Gemm", value, edit.constant(weight.astype(kind)), edit.constant(bias.astype(kind)), to=out)
    else:
        layer.write(edit, value, weight.astype(kind), bias.astype(kind), to=out)
    edit.done()
