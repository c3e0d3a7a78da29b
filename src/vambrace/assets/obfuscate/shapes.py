"""Sizes of every value of a net, with sizes that are free set to numbers that tell them apart.

ONNX's own inference stops where a shape is computed by arithmetic that it does not follow. Here small constants are
computed with onnx's reference implementation and inference starts again, until nothing new is found. Nothing of the
net itself runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.demands import demanded
from vambrace.assets.obfuscate.graph import graph_proto
from vambrace.assets.obfuscate.net import Info
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.net import Net

__all__ = ["Sizes", "likely_sizes", "other_sizes", "sizes_of"]

# Free sizes are tried as small primes, which no product of channels is taken for, and as multiples of 32 for networks
# that halve a picture several times and join the halves.
_TRIED: tuple[tuple[int, ...], ...] = ((3, 5, 7, 11, 13, 17, 19), (32, 64, 96, 160, 224, 352, 416))
# What is rounded to steps, or held to a limit, is alike at some numbers: at the smallest and at large ones it is not.
_FURTHER: tuple[tuple[int, ...], ...] = (*_TRIED, (1,), (640, 1920, 3200, 4480, 7040, 8320))
# One row, and otherwise what can be halved several times.
_LIKELY = (1, 128)
_MOST = 1024
_WINDOWS = frozenset({"AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool"})
_CHANCE = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """What is known of the values of the main graph.

    Attributes:
        shapes: of each value whose sizes are all known. Where the file leaves a size free, it is a number that was
            tried, and nothing may be built on it.
        kinds: onnx.TensorProto.DataType of each value.
        constants: values of at most 1024 elements that depend on no input but for its sizes, and so, where those are
            free, on what was tried.
    """

    shapes: dict[str, tuple[int, ...]]
    kinds: dict[str, int]
    constants: dict[str, NDArray[Any]]


def sizes_of(net: Net) -> Sizes:
    """Shapes, kinds and small constants of the values of the main graph."""
    return _best(net, _TRIED)


def other_sizes(net: Net, known: Sizes) -> Iterator[Sizes]:
    """The same with other numbers for free sizes; what differs rests on what calls choose. None without free sizes.

    Args:
        net: what is looked at; not changed.
        known: what `sizes_of` found. Numbers with which less is found are left out: the net would not run with them.
    """
    if all(size.HasField("dim_value") for value in net.graph.inputs for size in value.type.tensor_type.shape.dim):
        return
    yield _best(net, tuple(sizes[1:] + sizes[:1] for sizes in _TRIED))
    for sizes in _FURTHER:
        if known.shapes.keys() <= (found := _best(net, (sizes,))).shapes.keys():
            yield found


def _best(net: Net, tried: tuple[tuple[int, ...], ...]) -> Sizes:
    """What is found with the first of some sets of numbers with which most is."""
    onnx = onnx_package()
    names = {name for node in net.graph.nodes for name in node.outputs if name}
    best: Sizes | None = None
    for sizes in tried:
        drawn = itertools.cycle(sizes)
        proto = _closed(net, onnx, lambda axis, drawn=drawn: next(drawn))
        found = _settled(proto, net, onnx)
        if best is None or len(names & found.shapes.keys()) > len(names & best.shapes.keys()):
            best = found
        if names <= best.shapes.keys():
            break
    assert best is not None
    return best


def likely_sizes(net: Net) -> dict[str, Info]:
    """Types and shapes to estimate costs from: as inferred, with likely numbers for sizes that calls may choose.

    A network whose inputs leave their sizes open has layers of very different ones all the same.
    """
    onnx = onnx_package()
    found = _settled(_closed(net, onnx, lambda axis: _LIKELY[axis > 0]), net, onnx)
    known = {name: Info(found.kinds[name], shape) for name, shape in found.shapes.items() if name in found.kinds}
    return net.infer() | known


def _closed(net: Net, onnx: Any, size_of: Callable[[int], int]) -> Any:  # noqa: ANN401
    """The model without large weights, and a number for every free size of its inputs: what weights ask for, or any."""
    proto = onnx.ModelProto()
    proto.CopyFrom(net.extra)
    proto.functions.extend(net.functions)
    proto.graph.CopyFrom(graph_proto(net.graph, onnx, small=True))
    # What the file states of inner values and outputs is in terms of the free sizes.
    proto.graph.ClearField("value_info")
    for value in proto.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    asked = demanded(net)
    free = [
        (size, (value.name, axis))
        for value in proto.graph.input
        for axis, size in enumerate(value.type.tensor_type.shape.dim)
        if not size.HasField("dim_value")
    ]
    named = {size.dim_param: asked[place] for size, place in free if size.dim_param and place in asked}
    for size, (value, axis) in free:
        number = asked.get((value, axis)) or named.get(size.dim_param) or size_of(axis)
        if size.dim_param:
            named[size.dim_param] = number
        size.dim_value = number
    return proto


def _settled(proto: Any, net: Net, onnx: Any) -> Sizes:  # noqa: ANN401
    constants = {name: array for name, array in net.graph.initialisers.items() if array.size <= _MOST}
    while True:
        shapes, kinds = _inferred(proto, net, onnx)
        new = _computed(proto, shapes, constants, onnx)
        if not new:
            break
        constants |= new
        kept = [node for node in proto.graph.node if not all(name in constants for name in node.output)]
        proto.graph.ClearField("node")
        proto.graph.node.extend(kept)
        proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in new.items())
    shapes |= {name: tuple(array.shape) for name, array in constants.items()}
    kinds |= {name: int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype)) for name, array in constants.items()}
    return Sizes(shapes, kinds, constants)


def _inferred(proto: Any, net: Net, onnx: Any) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:  # noqa: ANN401
    with contextlib.suppress(Exception):  # an operator that it cannot infer; what the file states is still of use
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    windows = {name for node in proto.graph.node if node.op_type in _WINDOWS for name in node.output}
    shapes: dict[str, tuple[int, ...]] = {}
    kinds: dict[str, int] = {}
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]:
        if not value.type.HasField("tensor_type"):
            continue
        tensor = value.type.tensor_type
        kinds[value.name] = int(tensor.elem_type)
        sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim]
        # Inference slides windows over what is smaller than they are, too, and finds nothing, or less.
        if tensor.HasField("shape") and min(sizes, default=0) >= (value.name in windows):
            shapes[value.name] = tuple(map(int, sizes))
    for name, array in net.graph.initialisers.items():
        shapes[name] = tuple(array.shape)
        kinds[name] = int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
    return shapes, kinds


def _computed(
    proto: Any,  # noqa: ANN401
    shapes: dict[str, tuple[int, ...]],
    constants: dict[str, NDArray[Any]],
    onnx: Any,  # noqa: ANN401
) -> dict[str, NDArray[Any]]:
    """Small values that can be computed now and could not before."""
    new: dict[str, NDArray[Any]] = {}
    for node in proto.graph.node:
        if node.domain not in {"", "ai.onnx"} or node.op_type in _CHANCE or not node.output:
            continue
        if any(each.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS} for each in node.attribute):
            continue
        names = [name for name in node.input if name]
        if node.op_type == "Shape" and names[0] in shapes:
            shape = np.asarray(shapes[names[0]], dtype=np.int64)
            limits = {each.name: each.i for each in node.attribute}
            new[node.output[0]] = shape[limits.get("start", 0) : limits.get("end", len(shape))]
            continue
        known = constants | new
        if not all(name in known for name in names):
            continue
        if any(int(np.prod(shapes[name], dtype=np.float64)) > _MOST for name in node.output if name in shapes):
            continue
        arrays = _run(node, proto, {name: known[name] for name in names}, onnx)
        new |= {name: array for name, array in zip(node.output, arrays, strict=False) if name and array.size <= _MOST}
    return new


def _run(node: Any, proto: Any, feeds: dict[str, NDArray[Any]], onnx: Any) -> list[NDArray[Any]]:  # noqa: ANN401
    helper = onnx.helper
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "one", inputs, outputs)
    model = helper.make_model(graph, opset_imports=proto.opset_import)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from onnx.reference import ReferenceEvaluator  # onnx_package() has shown that it is there

            return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, feeds)]
    except Exception:  # noqa: BLE001  what cannot be computed here stays unknown
        return []
