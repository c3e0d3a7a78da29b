"""One layer taken apart into several that compute the same together.

    outputs   some output channels from one layer and the others from another one, joined by Concat
    inputs    each from its own part of the input channels, then added
    kernel    the upper rows of a filter from one convolution and the lower ones from another, then added
    through   a layer, what is done to each of its channels, and the layer behind, in two branches that meet at the end

None of them is undone by onnxruntime, which joins neither branches nor sums of convolutions. There are as many products
as before, in more and smaller pieces; sums run in another order.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vambrace.assets.obfuscate.branches import Branches, find_branches
from vambrace.assets.obfuscate.costs import Costs
from vambrace.assets.obfuscate.edits import Edit, Recipe, arranged, rearrange, revert
from vambrace.assets.obfuscate.layered import Layer, layer_of, layers_of
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile
from vambrace.assets.obfuscate.passes.choosing import affordable, check_share, check_slowdown
from vambrace.core.options import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net
    from vambrace.assets.obfuscate.shapes import Sizes

__all__ = ["SplitLayers"]

Way = Literal["inputs", "kernel", "outputs", "through"]
_WAYS: tuple[Way, ...] = ("outputs", "inputs", "kernel", "through")
# Runtimes compute channels in blocks of these sizes, so cuts are made between blocks.
_BLOCKS = (16, 8, 4)
_END = 2**31 - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SplitLayers(Pass):
    """Take some layers apart.

    Attributes:
        share: of the layers.
        slowdown: most that it may add to the time of a run, as a share of it, by an estimate from sizes; None for any,
            or what the whole obfuscation says where the share is left to it.
        ways: those to choose from for each layer, as above.
    """

    share: float | None = None
    slowdown: float | None = None
    ways: tuple[Way, ...] = _WAYS

    name: ClassVar[str] = "split_layers"
    profile: ClassVar[Profile] = "tolerance"

    def __post_init__(self) -> None:
        check_share(self.share)
        check_slowdown(self.slowdown)
        require(
            bool(self.ways) and set(self.ways) <= set(_WAYS),
            code="E838",
            seen=f"ways {', '.join(map(repr, self.ways)) or 'none'}",
            expected=f"one or more of {', '.join(_WAYS)}",
            fix="leave ways out to use all of them",
        )

    def apply(self, net: Net, stream: Stream) -> Applied:
        before = arranged(net)
        layers, sizes, left = layers_of(net)
        eligible = [layer for layer in layers if self._possible(net, layer, sizes)]
        if len(eligible) < len(layers):
            left["layers of one channel, or whose rows cannot be cut"] = len(layers) - len(eligible)
        costs = Costs(net, net.infer())
        taken, short = affordable(
            eligible, self.share, stream.child("places"), partial(_cost, costs=costs), costs.room(self.slowdown)
        )
        edits: list[dict[str, Any]] = []
        for number, layer in enumerate(taken):
            if not any(node is layer.node for node in net.graph.nodes):
                continue  # it has become a part of the branches of the layer before it
            draw = stream.child("layer", number)
            possible = self._possible(net, layer, sizes)
            edits.append(_split(net, layer, possible[draw.pick(sorted(possible))], draw))
        record = {"edits": edits, "before": before}
        return Applied(eligible=len(eligible), done=len(edits), left=left | short, record=record)

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        for edit in reversed(record["edits"]):
            revert(net, edit)
        rearrange(net, record["before"])

    def _possible(self, net: Net, layer: Layer, sizes: Sizes) -> dict[Way, Branches | Way]:
        found: dict[Way, Branches | Way] = {}
        if "outputs" in self.ways and layer.gives > 1:
            found["outputs"] = "outputs"
        if "inputs" in self.ways and layer.takes > 1:
            found["inputs"] = "inputs"
        if "kernel" in self.ways and _row_cuts(layer):
            found["kernel"] = "kernel"
        if "through" in self.ways and layer.gives > 1:
            branches = find_branches(net, layer, lambda node: layer_of(net, node, sizes))
            if branches is not None:
                found["through"] = branches
        return found


def _cost(layer: Layer, costs: Costs) -> float:
    """Of pieces that are read and joined, and are less well filled than the whole; of the dearest way."""
    moved = max(math.prod(layer.taken_shape), math.prod(layer.given_shape))
    return costs.added(moved, 4) + costs.products(layer.products / 2)


def _split(net: Net, layer: Layer, way: Branches | Way, draw: Stream) -> dict[str, Any]:
    if isinstance(way, Branches):
        return way.split(net, _cut(layer.gives, draw))
    edit = Edit(net, layer.node)
    out = layer.node.outputs[0]
    axis = layer.output_axis
    if way == "outputs":
        at = _cut(layer.gives, draw)
        values = [
            layer.write(edit, layer.node.inputs[0], *layer.outputs(start, stop))
            for start, stop in ((0, at), (at, layer.gives))
        ]
        edit.add("Concat", *values, to=out, axis=layer.channels)
    elif way == "inputs":
        at, axis = _cut(layer.takes, draw), layer.input_axis
        first, second = edit.split(layer.node.inputs[0], [at, layer.takes - at], layer.sources)
        with_bias = layer.write(edit, first, layer.inputs(0, at), layer.bias)
        edit.add("Add", with_bias, layer.write(edit, second, layer.inputs(at, layer.takes), None), to=out)
    else:
        axis = 2
        _split_rows(edit, layer, draw.pick(_row_cuts(layer)), out)
    made = [node.inputs for node in edit.nodes if node.is_a(layer.node.op)]
    name = layer.node.inputs[1]
    edit.recipes[name] = Recipe(parts=[names[1] for names in made], axis=axis, shape=layer.weight.shape)
    if layer.bias is not None:
        biases = [names[2] for names in (made if way == "outputs" else made[:1])]
        name = layer.node.inputs[2]
        edit.recipes[name] = Recipe(parts=biases, axis=0, shape=edit.weight(name).shape)
    return edit.done()


def _cut(size: int, draw: Stream) -> int:
    """Where to cut: in the middle third, between blocks where there are enough of them."""
    block = next((block for block in _BLOCKS if size % block == 0 and size >= 2 * block), 1)
    count = size // block
    low, high = max(1, count // 3), max(1, count // 3) + max(1, count - 2 * max(1, count // 3))
    return block * min(count - 1, int(draw.integers(low, high + 1)))


def _row_cuts(layer: Layer) -> list[int]:
    """Rows before which a kernel can be cut; none where it has no rows, or does not state how they are padded.

    No more of the input may be cut off than there is of the smallest one, or the other side's padding would grow.
    """
    if not layer.node.is_a("Conv") or layer.weight.ndim < 3:
        return []
    if layer.node.value("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        return []
    height, (pads, step) = layer.weight.shape[2], _padding(layer)
    above, below = pads[0], pads[len(pads) // 2]
    smallest = max(1, (height - 1) * step + 1 - above - below)
    return [at for at in range(1, height) if max(at * step - above, (height - at) * step - below) <= smallest]


def _padding(layer: Layer) -> tuple[list[int], int]:
    """Padding before all axes and behind them, and from one row of the kernel to the next."""
    pads = [int(pad) for pad in layer.node.value("pads") or [0] * 2 * (layer.weight.ndim - 2)]
    return pads, int((layer.node.value("dilations") or [1])[0])


def _split_rows(edit: Edit, layer: Layer, at: int, out: str) -> None:
    """Rows u of the kernel read row i * stride + u * dilation - padding: a part is padded, or cut, by what is left."""
    node, height, spatial = layer.node, layer.weight.shape[2], layer.weight.ndim - 2
    pads, step = _padding(layer)
    values: list[str] = []
    for start, stop in ((0, at), (at, height)):
        value = node.inputs[0]
        above, below = pads[0] - start * step, pads[spatial] - (height - stop) * step
        if below < 0:
            value = edit.slice(value, 0, below, 2)
        if above < 0:
            value = edit.slice(value, -above, _END, 2)
        kept = [max(0, above), *pads[1:spatial], max(0, below), *pads[spatial + 1 :]]
        kernel = layer.weight[:, :, start:stop]
        bias = layer.bias if start == 0 else None
        shape = list(kernel.shape[2:])
        values.append(layer.write(edit, value, kernel, bias, pads=kept, kernel_shape=shape, auto_pad=None))
    edit.add("Add", *values, to=out)
