"""One layer as a chain of two: a matrix and its inverse are put on one side of it, and one of them into its weights.

    before    x -> x R -> (x R) (R^T W)
    after     x -> x (W R) -> (x W R) R^T

R has orthonormal rows and may have more columns than rows, so the network shows a layer that it did not have, and
channels between the two that nobody trained. A runtime does not multiply the two together again. Only where the extra
layer is cheap beside the other.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vambrace.assets.obfuscate.bases import orthogonal
from vambrace.assets.obfuscate.costs import Costs
from vambrace.assets.obfuscate.edits import Edit
from vambrace.assets.obfuscate.layered import Layer, layers_of, of_both_signs
from vambrace.assets.obfuscate.passes.base import Profile
from vambrace.assets.obfuscate.passes.choosing import affordable, check_share, check_slowdown
from vambrace.assets.obfuscate.passes.oneway import OneWay
from vambrace.core.options import Ratio, require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net
    from vambrace.assets.obfuscate.passes.base import Applied

__all__ = ["ChainLayers"]

_WIDER = 1.25


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChainLayers(OneWay):
    """Write some layers as chains of two. It cannot be undone bit for bit.

    Attributes:
        share: of the layers where it is cheap enough.
        slowdown: most that it may add to the time of a run, as a share of it, by an estimate from sizes; None for any,
            or what the whole obfuscation says where the share is left to it.
        cost: products of the extra layer, as a part of those of the layer itself, at most.
    """

    share: float | None = None
    slowdown: float | None = None
    cost: Ratio = 0.25

    name: ClassVar[str] = "chain_layers"
    profile: ClassVar[Profile] = "tolerance"

    def __post_init__(self) -> None:
        check_share(self.share)
        check_slowdown(self.slowdown)
        require(
            self.cost > 0,
            code="E838",
            seen=f"a cost of {self.cost}",
            expected="a part of a layer's products, above 0",
            fix="write 0.25 for extra layers of a quarter of the products",
        )

    def apply(self, net: Net, stream: Stream) -> Applied:
        found, _, left = layers_of(net)
        layers = of_both_signs(found, left)
        eligible = [layer for layer in layers if self._sides(layer)]
        if len(eligible) < len(layers):
            left["layers beside which another one is not cheap"] = len(layers) - len(eligible)
        costs = Costs(net, net.infer())
        taken, short = affordable(
            eligible, self.share, stream.child("places"), partial(self._cost, costs=costs), costs.room(self.slowdown)
        )
        for number, layer in enumerate(taken):
            draw = stream.child("layer", number)
            _chain(net, layer, draw.pick(self._sides(layer)), draw)
        return self.report(len(eligible), len(taken), left | short)

    def _cost(self, layer: Layer, costs: Costs) -> float:
        """Of the extra layer, and of what is no longer fused."""
        moved = max(math.prod(layer.taken_shape), math.prod(layer.given_shape))
        return costs.added(moved, 2) + costs.products(self.cost * layer.products)

    def _sides(self, layer: Layer) -> list[str]:
        window = math.prod(layer.weight.shape[2:])
        ratio = math.prod(layer.taken_shape[2:]) / math.prod(layer.given_shape[2:]) if layer.node.is_a("Conv") else 1.0
        costs = {
            "after": layer.gives / (layer.takes * window),
            "before": layer.takes * ratio / (layer.gives * window),
        }
        return [side for side, cost in sorted(costs.items()) if cost * _WIDER <= self.cost]


def _chain(net: Net, layer: Layer, side: str, draw: Stream) -> None:
    edit = Edit(net, layer.node)
    size, axis = (layer.gives, layer.output_axis) if side == "after" else (layer.takes, layer.input_axis)
    wide = size + int(draw.integers(0, int(size * (_WIDER - 1)) + 1))
    basis = orthogonal(wide, draw)[:size]
    kind = layer.weight.dtype
    turned = np.moveaxis(np.tensordot(layer.weight.astype(np.float64), basis, axes=(axis, 0)), -1, axis).astype(kind)
    source, out = layer.node.inputs[0], layer.node.outputs[0]
    if side == "after":
        middle = layer.write(edit, source, turned, None)
        _thin(edit, layer, middle, basis.T.astype(kind), layer.bias, to=out)
    else:
        middle = _thin(edit, layer, source, basis.astype(kind), None)
        layer.write(edit, middle, turned, layer.bias, to=out)
    edit.done()


def _thin(
    edit: Edit,
    layer: Layer,
    value: str,
    matrix: NDArray[Any],
    bias: NDArray[Any] | None,
    *,
    to: str | None = None,
) -> str:
    """A layer without a window: from each row of a matrix (taken, given) a sum over channels."""
    if layer.node.is_a("Conv"):
        kernel = matrix.T.reshape(matrix.shape[1], matrix.shape[0], *[1] * (layer.weight.ndim - 2))
        names = [edit.constant(kernel), *([] if bias is None else [edit.constant(bias)])]
        return edit.add("Conv", value, *names, to=to)
    if bias is None:
        return edit.add("MatMul", value, edit.constant(matrix), to=to)
    return edit.add("Gemm", value, edit.constant(matrix), edit.constant(bias), to=to)
