"""Two matrices with nothing between them as one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vambrace.assets.obfuscate.edits import Edit
from vambrace.assets.obfuscate.layered import Layer, layer_of
from vambrace.assets.obfuscate.passes.base import Profile
from vambrace.assets.obfuscate.passes.choosing import check_share
from vambrace.assets.obfuscate.passes.oneway import OneWay
from vambrace.assets.obfuscate.shapes import sizes_of
from vambrace.core.options import Ratio

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net
    from vambrace.assets.obfuscate.passes.base import Applied
    from vambrace.assets.obfuscate.shapes import Sizes

__all__ = ["FuseLinear"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FuseLinear(OneWay):
    """Multiply matrices of layers that follow each other, where the product has no more elements than the two.

    It cannot be undone bit for bit.

    Attributes:
        share: of such pairs, each with this probability. It makes the network faster, so all by default.
    """

    share: Ratio = 1.0

    name: ClassVar[str] = "fuse_linear"
    profile: ClassVar[Profile] = "tolerance"

    def __post_init__(self) -> None:
        check_share(self.share)

    def apply(self, net: Net, stream: Stream) -> Applied:
        spared: set[str] = set()
        eligible = done = 0
        sizes = sizes_of(net)
        while (pair := _next_pair(net, sizes, spared)) is not None:
            eligible += 1
            if float(stream.uniform()) >= self.share:
                spared.add(pair[1].node.outputs[0])
                continue
            _fuse(net, *pair)
            done += 1
        return self.report(eligible, done, {})


def _next_pair(net: Net, sizes: Sizes, spared: set[str]) -> tuple[Layer, Layer] | None:
    index = net.index()
    for node in net.graph.nodes:
        before = index.producers.get(node.inputs[0]) if node.is_a("Gemm", "MatMul") else None
        if before is None or not before.is_a("Gemm", "MatMul") or index.only_consumer(node.inputs[0]) is None:
            continue
        first, second = layer_of(net, before, sizes), layer_of(net, node, sizes)
        if isinstance(first, str) or isinstance(second, str) or node.outputs[0] in spared:
            continue
        cheaper = first.takes * second.gives <= first.weight.size + second.weight.size
        # A product of more than matrices cannot become Gemm, which is what takes a bias.
        if cheaper and (first.bias is None or len(first.taken_shape) == 2):
            return first, second
    return None


def _fuse(net: Net, first: Layer, second: Layer) -> None:
    left, right = (
        (layer.weight if layer.input_axis == 0 else layer.weight.T).astype(np.float64) for layer in (first, second)
    )
    kind = second.weight.dtype
    edit = Edit(net, first.node, second.node)
    matrix = edit.constant((left @ right).astype(kind))
    source, out = first.node.inputs[0], second.node.outputs[0]
    if first.bias is None and second.bias is None:
        edit.add("MatMul", source, matrix, to=out)
    else:
        bias = np.zeros(second.gives) if second.bias is None else second.bias.astype(np.float64)
        if first.bias is not None:
            bias = bias + first.bias.astype(np.float64) @ right
        edit.add("Gemm", source, matrix, edit.constant(bias.astype(kind)), to=out)
    edit.done()
