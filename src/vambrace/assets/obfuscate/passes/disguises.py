"""Operators written as others that compute the same: an activation by its definition, a matrix as a convolution."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from vambrace.assets.obfuscate.costs import Costs
from vambrace.assets.obfuscate.edits import Edit, arranged, rearrange, revert
from vambrace.assets.obfuscate.forms import FORMS, Known, fits
from vambrace.assets.obfuscate.layered import FLOATS
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile
from vambrace.assets.obfuscate.passes.choosing import affordable, check_share, check_slowdown
from vambrace.assets.obfuscate.shapes import sizes_of
from vambrace.core.options import require
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assets.obfuscate.forms import Form
    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Info, Net
    from vambrace.assets.obfuscate.shapes import Sizes

__all__ = ["Disguises"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Disguises(Pass):
    """Write some operators in other forms (`vambrace.assets.obfuscate.forms`).

    Attributes:
        share: of the operators that have another form.
        slowdown: most that it may add to the time of a run, as a share of it, by an estimate from sizes; None for any,
            or what the whole obfuscation says where the share is left to it.
        operators: those to write in other forms; empty for all that have one.
    """

    share: float | None = None
    slowdown: float | None = None
    operators: tuple[str, ...] = ()

    name: ClassVar[str] = "disguises"
    profile: ClassVar[Profile] = "tolerance"

    def __post_init__(self) -> None:
        check_share(self.share)
        check_slowdown(self.slowdown)
        require(
            set(self.operators) <= set(FORMS),
            code="E838",
            seen=f"operators {', '.join(self.operators)}",
            expected=f"some of {', '.join(FORMS)}",
            fix="leave operators out for all of them",
        )

    def apply(self, net: Net, stream: Stream) -> Applied:
        before = arranged(net)
        sizes, infos = sizes_of(net), net.infer()
        costs = Costs(net, infos)
        wanted = set(self.operators) or set(FORMS)
        candidates = [node for node in net.graph.nodes if node.is_a(*FORMS) and node.op in wanted]
        pairs = [
            (node, known) for node in candidates if (known := _known(net, node, sizes, infos)) and fits(node, known)
        ]
        left = {"operators of other types, shapes or attributes": len(candidates) - len(pairs)}
        taken, short = affordable(
            pairs,
            self.share,
            stream.child("places"),
            partial(_cost, sizes=sizes, costs=costs),
            costs.room(self.slowdown),
        )
        edits: list[dict[str, Any]] = []
        for number, (node, known) in enumerate(taken):
            draw = stream.child("form", number)
            edits.append(_rewrite(net, node, known, draw.pick(fits(node, known))))
        return Applied(
            eligible=len(pairs),
            done=len(taken),
            left=(left if len(candidates) > len(pairs) else {}) | short,
            record={"edits": edits, "before": before},
        )

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        for edit in reversed(record["edits"]):
            revert(net, edit)
        rearrange(net, record["before"])


def _known(net: Net, node: Node, sizes: Sizes, infos: Mapping[str, Info]) -> Known | None:
    shape, kind = sizes.shapes.get(node.inputs[0]), sizes.kinds.get(node.inputs[0])
    if shape is None or kind is None:
        return None
    dtype = onnx_package().helper.tensor_dtype_to_np_dtype(kind)
    weights = net.graph.initialisers
    held = {at: weights[name] for at, name in enumerate(node.inputs) if name in weights}
    if dtype not in FLOATS:
        return None
    # `sizes` has numbers that were tried where calls may choose, so what a row holds is asked of the model alone.
    info = infos.get(node.inputs[0])
    stated = [size for size in ((info and info.shape) or (None, None))[1:] if isinstance(size, int)]
    features = math.prod(stated) if len(stated) == len(shape) - 1 else None
    return Known(dtype=dtype, rank=len(shape), features=features, weights=held, opset=net.opset())


def _cost(place: tuple[Node, Known], sizes: Sizes, costs: Costs) -> float:
    """Of the dearest form."""
    node, known = place
    elements = max(math.prod(sizes.shapes.get(name) or (1,)) for name in (node.inputs[0], node.outputs[0]))
    kernel = known.weights.get(1)
    products = 0 if kernel is None or not node.is_a("Gemm") else kernel.size
    return max(costs.added(elements, form.operators) for form in fits(node, known)) + costs.products(products)


def _rewrite(net: Net, node: Node, known: Known, form: Form) -> dict[str, Any]:
    edit = Edit(net, node)
    form.write(edit, node, known)
    return edit.done()
