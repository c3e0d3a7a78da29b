"""What may be done to a weight such that the model still runs, for whoever has the wrong key as well.

Followed from the weight through operators that move, convert, map, sum up or compare elements to those that use it.
Elements of filters, matrices, biases and tables, and whatever else is only computed with, may change places and signs;
those under a root or a logarithm, divisors, variances and scales of quantisation keep their signs; shapes, indices,
bounds, masks and whatever else decides how a model runs is not touched.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vambrace.assets.obfuscate.flows import Flows
from vambrace.assets.obfuscate.giving import giving_axis, is_slope
from vambrace.assets.obfuscate.graph import graphs_of
from vambrace.assets.obfuscate.needs import Need, makes_mask, needed, sized
from vambrace.assets.obfuscate.operators import (
    BLIND,
    ORDERED,
    OWN,
    SIGNED,
    SUMS,
    VARIANCE,
    counts,
    is_in,
    moved_on,
    outputs,
    passed,
)
from vambrace.assets.obfuscate.repeated import Repeated
from vambrace.assets.obfuscate.sight import Sight, masking, plain
from vambrace.assets.obfuscate.stored import check_stored, in_a_byte
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vambrace.assets.obfuscate.flows import Passes

__all__ = ["Held", "Role", "held_tensors", "stated_tensors", "staying", "untouchable"]

Role = Literal["signed", "apart", "ordered", "kept", "variance"]
"""`signed`: elements may change places and signs. `apart`: so too, and none comes from another tensor. `ordered`:
places only. `kept`: so too, but for zeros and numbers of masks, which stay. `variance`: places only, none negative."""

_NO_SIGNED_ZERO = frozenset({"FLOAT8E4M3FNUZ", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"})
"""Types in which a zero with its sign turned is no number, or which have no signs."""

_TRUTH = "truth values that select"
_WHOLE = "whole numbers that may be sizes or indices"
_MASK = "a mask"
_FIXED = "numbers of which a root, a logarithm or a divisor allows no other order"
_BYTES = "numbers of less than a byte, of which each is beside one that must stay"
_FEW = 1024
"""Whole numbers that are taken for sizes or indices unseen; more of them may be a table of packed weights."""
_SETTINGS = 16
"""Numbers that may say how an operator runs: the region of a `Resize` of eight axes, the most there is."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A tensor that a model holds.

    Attributes:
        name: of the value; empty for an attribute that no value stands for.
        tensor: onnx.TensorProto, the model's own.
        role: what may be done, or None.
        why: if nothing, the reason.
        harmless: if nothing, whether it is no weight: a single number, a mask, or a few that say how operators run.
        often: whether one run may use it several times (`vambrace.assets.obfuscate.repeated`).
        axis: along which channels lie that it gives; None where that is not known.
        slope: whether each element multiplies a channel by itself.
    """

    name: str
    tensor: Any
    role: Role | None
    why: str = ""
    harmless: bool = False
    often: bool = False
    axis: int | None = None
    slope: bool = False


def stated_tensors(model: Any) -> list[tuple[str, str, Any, str]]:  # noqa: ANN401  onnx.ModelProto
    """Every tensor of a model, in an order that depends on the file alone.

    Of each graph its initialisers, then tensors and graphs in the attributes of its nodes, node by node; functions of
    the model's own come last.

    Returns:
        What the names of values begin with there, the value's name, the onnx.TensorProto, and the operator whose
        attribute it is where no value stands for it.

    Raises:
        ModelRefused: E234, for a tensor that does not hold what its sizes say.
    """
    onnx = onnx_package()
    graphs = [("", model.graph), *((Flows.prefix(each), each) for each in model.functions)]
    found = [(prefix, *each) for prefix, graph in graphs for each in _tensors(graph, onnx)]
    for _, _, tensor, _ in found:
        check_stored(tensor)
    return found


def held_tensors(model: Any) -> list[Held]:  # noqa: ANN401  onnx.ModelProto
    """Those of `stated_tensors`, in that order, and what may be done to them.

    Raises:
        ModelRefused: E234, as there.
    """
    found = stated_tensors(model)
    sight = Sight.of(model, ((prefix + name, tensor) for prefix, name, tensor, inside in found if not inside))
    repeated = Repeated(model, sight)
    return [_held(*each, sight, repeated) for each in found]


def staying(array: np.ndarray[Any, Any], together: int = 1) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which elements of a tensor that is `kept` stay where they are: zeros, and numbers of masks.

    Several numbers as large as those of masks are a table of large numbers, and move, but for infinite ones. Where
    elements move `together` in bytes, those beside one that stays do so too, and those of a last byte with a gap.
    """
    large = masking(array)
    if np.unique(array[large & np.isfinite(array)]).size > 1:
        large = ~np.isfinite(array)
    stays = large | (array == 0)
    if together == 1:
        return stays
    gap = -stays.size % together
    whole = np.concatenate([stays.reshape(-1), np.ones(gap, np.bool_)]).reshape(-1, together)
    return np.repeat(whole.any(axis=1), together)[: stays.size].reshape(stays.shape)


def _held(
    prefix: str,
    name: str,
    tensor: Any,  # noqa: ANN401
    inside: str,
    sight: Sight,
    repeated: Repeated,
) -> Held:
    value = prefix + name
    why, harmless = untouchable(tensor)
    if why:
        return Held(name, tensor, None, why, harmless)
    role, why, harmless = (None, f"an attribute of {inside}", False) if inside else _role(value, tensor, sight)
    counted = _counted(value, tensor, sight)
    if counted and role and _computed(value, sight):
        role = "ordered"
    elif counted:
        many = counted == _WHOLE and math.prod(tensor.dims) > _FEW
        role, why = None, counted
        harmless = not many or any(counts(*use) for use in _uses(value, sight, _through))
    if role is None:
        return Held(name, tensor, None, why, harmless)
    axis, slope = giving_axis(value, len(tensor.dims), sight), is_slope(value, tensor.dims, sight)
    return Held(name, tensor, role, often=value in repeated, axis=axis, slope=slope)


def _tensors(graph: Any, onnx: Any) -> Iterator[tuple[str, Any, str]]:  # noqa: ANN401
    """Names, tensors, and the operator whose attribute it is, where no value stands for it."""
    for tensor in getattr(graph, "initializer", ()):
        yield tensor.name, tensor, ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                is_value = node.op_type == "Constant" and node.domain in OWN and len(node.output) > 0
                yield (node.output[0], attribute.t, "") if is_value else ("", attribute.t, node.op_type)
            for tensor in attribute.tensors:
                yield "", tensor, node.op_type
            for body in graphs_of(attribute):
                yield from _tensors(body, onnx)


def untouchable(tensor: Any) -> tuple[str, bool]:  # noqa: ANN401
    """Why nothing may be done to a tensor, whoever reads it, and whether it is no weight."""
    if math.prod(tensor.dims) < 2:
        return "a single number", True
    kinds = onnx_package().TensorProto
    if tensor.data_type == kinds.STRING:
        return "text", True
    if tensor.data_type in {kinds.COMPLEX64, kinds.COMPLEX128}:
        return "complex numbers", False
    if kinds.DataType.Name(tensor.data_type).startswith("FLOAT6"):
        return "numbers of six bits", False
    return "", False


def _counted(value: str, tensor: Any, sight: Sight) -> str:  # noqa: ANN401
    """What a tensor is by its type, where that is none of weights; empty for all others."""
    kinds = onnx_package().TensorProto
    if tensor.data_type == kinds.BOOL:
        return _TRUTH
    if tensor.data_type in {kinds.INT64, kinds.UINT64, kinds.UINT32}:
        return _WHOLE
    narrow = tensor.data_type in {kinds.INT32, kinds.INT16, kinds.UINT16}
    dequantised = all(
        (node.op_type, position) == ("QLinearConv", 8) or node.op_type == "DequantizeLinear"
        for node, position in sight.flows.readers.get(value, ())
    )
    return _WHOLE if narrow and not dequantised else ""


def _computed(value: str, sight: Sight) -> bool:
    """Whether whole numbers or truth values become floating ones or nothing, and none of them sizes or indices."""
    if not _uses(value, sight, _through):
        return True
    kinds = onnx_package().TensorProto
    floating = {kinds.FLOAT, kinds.DOUBLE, kinds.FLOAT16, kinds.BFLOAT16}
    cast = any(
        node is not None and any(each.name == "to" and each.i in floating for each in node.attribute)
        for _, node, _ in sight.flows.ahead(value, _through)
    )
    return cast and not any(counts(*use[1:]) for use in sight.flows.ahead(value, _summed))


def _role(name: str, tensor: Any, sight: Sight) -> tuple[Role | None, str, bool]:  # noqa: ANN401
    few = math.prod(tensor.dims) <= _SETTINGS
    size = sized(name, sight)
    if size is not None:
        array = sight.array(name)
        chosen = size[1] and array is not None and np.unique(array).size <= 2
        return None, _why(size[0]), few or chosen
    if makes_mask(name, sight):
        return None, _MASK, True
    uses, elsewhere = _uses(name, sight, _through), _uses(name, sight, moved_on)
    blocked = [use for use in uses if use[0] is not None and not is_in(*use, ORDERED) and not is_in(*use, SIGNED)]
    if blocked:
        return None, _why(blocked[0][0]), False
    role = _order(name, tensor, uses, elsewhere, sight)
    if role is None:
        return None, _FIXED, few
    array = sight.array(name)
    if role == "kept" and array is not None:
        moving = array[~staying(array)]
        if moving.size < array.size and np.unique(moving).size < 2:
            return None, _MASK, True
        if staying(array, in_a_byte(tensor)).all():
            return None, _BYTES, few
    return role, "", False


def _order(
    name: str,
    tensor: Any,  # noqa: ANN401
    uses: list[tuple[Any, int]],
    elsewhere: list[tuple[Any, int]],
    sight: Sight,
) -> Role | None:
    """What operators let a floating tensor lose; None where it must keep the places of its elements."""
    array, need = sight.array(name), needed(name, sight)
    if need == Need.PLACES:
        return None
    positive = array is not None and bool(np.all(plain(array) > 0))
    if positive and elsewhere and all(is_in(*use, VARIANCE) for use in elsewhere):
        return "variance"
    large = array is not None and bool(masking(array).any())
    if need == Need.SIGNS or large:
        return "kept"
    kind: str = onnx_package().TensorProto.DataType.Name(tensor.data_type)
    # Of unsigned numbers, what a flip makes lies as far from the zero point as that lies from the middle.
    if kind in _NO_SIGNED_ZERO or kind.startswith("UINT") or any(is_in(*use, ORDERED) for use in uses):
        return "ordered"
    return "apart" if need == Need.TENSOR else "signed"


def _why(node: Any) -> str:  # noqa: ANN401
    if node.domain in OWN:
        return f"an input of {node.op_type} that may decide how it runs"
    return f"an input of {node.domain}.{node.op_type}, of which nothing is known"


def _through(_: str, node: Any, position: int) -> tuple[int, ...]:  # noqa: ANN401
    """Outputs that are computed from what enters there alone, or select by it."""
    return outputs(node) if passed(node, position) else ()


def _summed(prefix: str, node: Any, position: int) -> tuple[int, ...]:  # noqa: ANN401
    """Outputs that are computed from what enters there, also together with others."""
    return (0,) if node.domain in OWN and node.op_type in SUMS else _through(prefix, node, position)


def _uses(name: str, sight: Sight, passes: Passes) -> list[tuple[Any, int]]:
    """Nodes that use the elements of a value, None for whoever runs the model, behind those that pass them on."""
    return [
        (node, position)
        for prefix, node, position in sight.flows.ahead(name, passes)
        if node is None or not passes(prefix, node, position) and node.op_type not in BLIND
    ]
