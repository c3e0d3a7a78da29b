"""Models that take their key as an input at every run: channels lie in the file in another order and scale.

    locked = lock_by_input("net.onnx", key)
    name, tensor = key_tensor(locked, key)
    session.run(None, {**inputs, name: tensor})

Behind each layer that is locked a Gather puts channels in order and a product with powers of two takes their scale
back, both with numbers cut out of the key tensor, so that no optimiser can fold them into weights. Answers are those of
the original bit for bit: an output channel is computed by itself, and powers of two round nothing while no value comes
within a factor of eight of the ends of its type's range. Any other key gives other orders and scales, valid ones, and a
model at chance; there is no check value.

**What it costs and hides.** Copies of activations at every run: for half of the layers 0 to 40 % more time on most
networks that were tried, 85 % on one of small convolutions, whose fused layout each Gather breaks. Whole filters stand
in the file, but for a power of two, so whoever holds the original, or a model that it was tuned from, finds nearly
every one of them again, order and scale included. Where a model can be loaded with a key instead,
`vambrace.assets.obfuscate.locking` hides more and costs nothing.

**Format 1.** The metadata entry `vambrace.key-input` is canonical JSON {"format": 1, "input": name, "places": P,
"salt": S}: S as in `locking`, P a list of [block, channels, scaled] in the order of the key tensor, which is int64 of
one axis. For place i `keyed.Stream(key, "key-input/1", S, i)` draws one permutation of `block` elements for each block
of channels (one for each group of a convolution), then, if scaled is 1, `channels` whole numbers e from 0 to 6. Stored
channel j is channel order[j], times 2**(e[j] - 3). The tensor holds the inverse of the order, then, if scaled, 6 - e in
the model's own order of channels.
"""

from __future__ import annotations

import dataclasses
import math
import secrets
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vambrace.assets.obfuscate.costs import Costs
from vambrace.assets.obfuscate.edits import modernise
from vambrace.assets.obfuscate.graph import Node
from vambrace.assets.obfuscate.keyed import Stream
from vambrace.assets.obfuscate.layered import FLOATS
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.choosing import check_share
from vambrace.assets.obfuscate.places import find_places
from vambrace.assets.obfuscate.shapes import sizes_of
from vambrace.core import canonical
from vambrace.errors import ArtifactRefused, ConfigError
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.places import Place

__all__ = ["key_tensor", "lock_by_input"]

ENTRY = "vambrace.key-input"

_REACH = 3
_HOMOGENEOUS = ("Abs", "Add", "Identity", "LeakyRelu", "Neg", "Relu", "Sub")


@dataclasses.dataclass(frozen=True, slots=True)
class _Slot:
    """A place in the key tensor: channels in blocks, and whether they are scaled."""

    block: int
    channels: int
    scaled: bool

    @property
    def length(self) -> int:
        return self.channels * (1 + self.scaled)

    def draw(self, key: bytes, salt: str, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Order and exponents (0 to 6, 3 where nothing is scaled) of the stored channels."""
        stream = Stream(key, "key-input/1", salt, number)
        starts = range(0, self.channels, self.block)
        order = np.concatenate([start + stream.permutation(self.block) for start in starts])
        middle = np.full(self.channels, _REACH, np.int64)
        return order, stream.integers(0, 2 * _REACH + 1, (self.channels,)) if self.scaled else middle


def lock_by_input(
    source: str | Path | bytes | Any,  # noqa: ANN401  onnx.ModelProto; the package is optional
    key: bytes,
    *,
    share: float = 0.5,
    scales: bool = True,
    name: str = "key",
) -> Any:  # noqa: ANN401
    """A copy of a model that needs the tensor of a key at every run.

    Args:
        source: path of an .onnx file, its bytes, or an onnx.ModelProto, which is left as it is.
        key: 32 secret bytes.
        share: of the layers that can be locked so; those come first behind which the least is copied.
        scales: whether channels are scaled as well as permuted, where what follows lets factors through.
        name: of the new input.

    Returns:
        onnx.ModelProto with one more input, int64 of one axis.

    Raises:
        ConfigError: E800 for a key of another length; E801 for what is no model; E835 for a share that is none; E840
            for a model that has such a lock already, no layer to lock, or an input of that name.
        ModelRefused: E230 to E235, for a file that is unsafe or cannot be read.
    """
    check_share(share)
    net = Net.load(source)
    if any(each.key == ENTRY for each in net.extra.metadata_props):
        raise _not_lockable("a model that takes a key already", "lock the original")
    if name in net.taken():
        raise _not_lockable(f"a model with a value called {name!r}", "choose another name for the input")
    shapes = sizes_of(net).shapes
    ranks = {place: len(shapes[place.given]) for place in find_places(net)[0] if place.given in shapes}
    places = [place for place in ranks if place.weights.gives > 1]
    salt = secrets.token_hex(32)
    costs = Costs(net, net.infer())
    cheap = sorted(places, key=costs.gather)[: math.ceil(share * len(places) - 1e-9)]
    taken = [place for place in places if place in cheap]
    slots = [_slot(net, place, scales=scales) for place in taken]
    if not slots:
        raise _not_lockable(
            "a model without a layer whose channels can be put in order exactly", "lock its weights instead"
        )
    start = 0
    before: list[Node] = []
    powers: dict[np.dtype[Any], str] = {}
    for number, (place, slot) in enumerate(zip(taken, slots, strict=True)):
        order, exponents = slot.draw(key, salt, number)
        _store(net, place, order, exponents)
        before += _restore(net, place, ranks[place], slot, name, start, powers)
        start += slot.length
    net.graph.insert(before, before=net.graph.nodes[0])
    modernise(net)
    helper, types = onnx_package().helper, onnx_package().TensorProto
    net.graph.inputs.append(helper.make_tensor_value_info(name, types.INT64, [start]))
    layout = [[slot.block, slot.channels, int(slot.scaled)] for slot in slots]
    entry = {"format": 1, "input": name, "places": layout, "salt": salt}
    net.extra.metadata_props.add(key=ENTRY, value=canonical.dumps(entry).decode())
    return net.model()


def key_tensor(model: Any, key: bytes) -> tuple[str, NDArray[np.int64]]:  # noqa: ANN401  onnx.ModelProto
    """The input's name and what to feed it, from a locked model's metadata; nothing tells whether a key is right.

    Raises:
        ArtifactRefused: E841, for a model without such a lock, or whose entry was changed.
        ConfigError: E800, for a key of another length.
    """
    name, slots, salt = _entry(model)
    parts: list[NDArray[np.int64]] = []
    for number, slot in enumerate(slots):
        order, exponents = slot.draw(key, salt, number)
        inverse = np.argsort(order)
        parts.append(inverse)
        if slot.scaled:
            parts.append(2 * _REACH - exponents[inverse])
    return name, np.concatenate(parts)


def _slot(net: Net, place: Place, *, scales: bool) -> _Slot:
    groups = int(place.nodes[0].value("group", 1))
    scaled = scales and all(node is place.nodes[0] or node.is_a(*_HOMOGENEOUS) for node in place.nodes)
    constants = net.graph.constants()
    for part in place.parts:
        array = constants[part.name]
        magnitudes = np.abs(array[array != 0].astype(np.float64)) if array.dtype in FLOATS else np.zeros(0)
        limits = np.finfo(array.dtype) if array.dtype in FLOATS else None
        reach = 2.0**_REACH
        if limits is None or (
            magnitudes.size and not limits.tiny * reach <= magnitudes.min() <= magnitudes.max() <= limits.max / reach
        ):
            scaled = False
    return _Slot(place.weights.gives // groups, place.weights.gives, scaled)


def _store(net: Net, place: Place, order: NDArray[np.int64], exponents: NDArray[np.int64]) -> None:
    """Put the channels of all weights of a place into an order, and scale them."""
    constants = net.graph.constants()
    for part in place.parts:
        assert part.gives is not None
        axis = int(np.argmax(part.gives.shape))
        array = constants[part.name].take(order, axis)
        # `gives` numbers channels along their axis, so it also picks the exponent of each stored one.
        factors = np.exp2(exponents[part.gives] - _REACH).astype(array.dtype)
        net.graph.set_constant(part.name, np.ascontiguousarray(array * factors))


def _restore(
    net: Net, place: Place, rank: int, slot: _Slot, key: str, start: int, powers: dict[np.dtype[Any], str]
) -> list[Node]:
    """Nodes behind a place that undo `_store`; returns those that cut up the key, to stand before all others."""
    graph = net.graph
    dtype = net.graph.constants()[place.parts[0].name].dtype
    value, index = net.fresh(2)
    cuts = [_cut(net, key, start, start + slot.channels, index)]
    place.nodes[-1].outputs[0] = value
    target = net.fresh()[0] if slot.scaled else place.given
    behind = [Node("Gather", [value, index], [target])]
    behind[0].set(axis=rank + place.weights.axis)
    if slot.scaled:
        if dtype not in powers:
            (powers[dtype],) = net.fresh()
            graph.initialisers[powers[dtype]] = np.exp2(np.arange(-_REACH, _REACH + 1)).astype(dtype)
        exponents, factors, shaped, shape = net.fresh(4)
        graph.initialisers[shape] = np.array([slot.channels, *[1] * (-place.weights.axis - 1)], np.int64)
        cuts += [
            _cut(net, key, start + slot.channels, start + 2 * slot.channels, exponents),
            Node("Gather", [powers[dtype], exponents], [factors]),
            Node("Reshape", [factors, shape], [shaped]),
        ]
        behind.append(Node("Mul", [target, shaped], [place.given]))
    at = next(at for at, node in enumerate(graph.nodes) if node is place.nodes[-1])
    graph.nodes[at + 1 : at + 1] = behind
    return cuts


def _cut(net: Net, key: str, start: int, end: int, to: str) -> Node:
    if net.opset() < 10:
        node = Node("Slice", [key], [to])
        node.set(starts=[start], ends=[end], axes=[0])
        return node
    names = net.fresh(2)
    for constant, number in zip(names, (start, end), strict=True):
        net.graph.initialisers[constant] = np.array([number], np.int64)
    return Node("Slice", [key, *names], [to])


def _entry(model: Any) -> tuple[str, list[_Slot], str]:  # noqa: ANN401
    entries = [each.value for each in model.metadata_props if each.key == ENTRY]
    try:
        loaded: object = canonical.loads(entries[0].encode()) if len(entries) == 1 else None
        entry = cast("dict[str, Any]", loaded if isinstance(loaded, dict) else {})
        if set(entry) != {"format", "input", "places", "salt"} or entry["format"] != 1:
            raise ValueError("no such entry of format 1")
        slots = [_Slot(int(block), int(channels), bool(scaled)) for block, channels, scaled in entry["places"]]
        if not slots or any(not 1 <= slot.block <= slot.channels <= _most(model) for slot in slots):
            raise ValueError("places that no layer has")
        return str(entry["input"]), slots, str(entry["salt"])
    except (ValueError, TypeError, RecursionError) as error:
        raise ArtifactRefused(
            "E841",
            seen=f"a model whose key input cannot be read ({' '.join(str(error).split())[:120]})",
            expected="an ONNX model as vambrace locked it, with a key as an input",
            fix="give the file as it was written, with its metadata",
        ) from error


def _most(model: Any) -> int:  # noqa: ANN401
    """The length of the longest input of one axis: no place can have more channels."""
    shapes = [value.type.tensor_type.shape.dim for value in model.graph.input]
    return max((int(shape[0].dim_value) for shape in shapes if len(shape) == 1), default=0)


def _not_lockable(seen: str, fix: str) -> ConfigError:
    return ConfigError(
        "E840",
        seen=seen,
        expected="an ONNX model that does not take a key yet, with layers of several channels",
        fix=fix,
    )
