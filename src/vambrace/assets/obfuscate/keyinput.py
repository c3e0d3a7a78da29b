"""Models that take their key as an input at every run: channels lie in the file in another order and scale.

    locked = lock_by_input("net.onnx", key)
    name, tensor = key_tensor(locked, key)
    session.run(None, {**inputs, name: tensor})

Behind each layer that is locked a Gather puts channels in order and a product with powers of two takes their scale
back, both with numbers cut out of the key tensor, so that no optimiser can fold them into weights. Answers are those of
the original bit for bit: an output channel is computed by itself, and powers of two round nothing while each value that
a scaled layer takes is 0 or at least 2**-38 in magnitude, as in `vambrace.assets.obfuscate.passes.scaling`, and none
that it gives comes within a factor of eight of the upper end of its type's range; smaller values do harm only where a
whole sum is next to nothing. Any other key gives other orders and scales, valid ones, and another model; there is no
check value. Wrong scales make numbers larger from layer to layer, so of layers that stand one behind the other two have
some (`vambrace.assets.obfuscate.growth`), and none in front of an exponential, which would make infinities of them.

**What it costs and hides.** Copies of activations at every run, so layers are chosen by what that costs: first a set
that no path from input to output gets around, then the cheapest. As it is left, on seven networks that were tried: 0 to
7 % more time, 25 to 35 % on two that take 20 microseconds in all; wrong keys within three points of chance in mean over
20 keys on each. Whole filters stand in the file, but for a power of two, so whoever holds the original, or a model that
it was tuned from, finds every one of them again, order and scale included. Where only the layer that gives the answers
can be locked, as in residual networks, so does whoever knows the answers to one row. Where a model can be loaded with a
key instead, `vambrace.assets.obfuscate.locking` hides more and costs nothing.
"""

from __future__ import annotations

import dataclasses
import math
import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.barriers import barrier, given_as_they_are, heaviest, weakest
from vambrace.assets.obfuscate.costs import Costs
from vambrace.assets.obfuscate.edits import modernise
from vambrace.assets.obfuscate.graph import Node
from vambrace.assets.obfuscate.growth import ROOM, growth, raised
from vambrace.assets.obfuscate.key_entry import ENTRY, REACH, Slot, key_entry, write_entry
from vambrace.assets.obfuscate.keyspace import different_keys
from vambrace.assets.obfuscate.layered import FLOATS
from vambrace.assets.obfuscate.locks import lock_of
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.choosing import check_share, check_slowdown
from vambrace.assets.obfuscate.passes.scaling import FLOOR
from vambrace.assets.obfuscate.places import find_places
from vambrace.assets.obfuscate.shapes import likely_sizes
from vambrace.errors import ConfigError
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.places import Place

__all__ = ["key_tensor", "lock_by_input"]

_SPLIT_BY_INPUT = 13
_SHARE = 0.5
_STRONG = 64
"""Bits of an order from which on nobody tries them all."""

_FEWEST_BITS = 40
"""On every path together: each key that is tried takes a run of the model."""

_FIRST = 4
"""Operators that cut up a key."""

_HOMOGENEOUS = ("Abs", "Add", "Identity", "LeakyRelu", "Neg", "Relu", "Sub")


def lock_by_input(
    source: str | Path | bytes | Any,  # noqa: ANN401  onnx.ModelProto; the package is optional
    key: bytes,
    *,
    share: float | None = None,
    slowdown: float = 0.5,
    scales: bool = True,
    leave_open: bool = False,
    name: str = "key",
) -> Any:  # noqa: ANN401
    """A copy of a model that needs the tensor of a key at every run.

    Args:
        source: path of an .onnx file, its bytes, or an onnx.ModelProto, which is left as it is.
        key: 32 secret bytes.
        share: of the layers that can be locked so, the cheapest ones, whatever that takes; by default half of them, as
            far as `slowdown` allows. Where a few layers lie on every path to an output, those come first.
        slowdown: most that the other layers may add to the time of a run, as a share of it, by an estimate from sizes.
        scales: whether channels are scaled as well as permuted, where what follows lets factors through and raises
            nothing to high powers or exponentials, and as far as a network that deep bears.
        leave_open: lock also where the layers on some path from input to output have fewer than 2**40 orders and scales
            together, so that wrong keys may open it, or are few enough to be tried. Layers without scales behind which
            nothing mixes channels any more do not count: there a wrong key only puts answers in another order.
        name: of the new input.

    Returns:
        onnx.ModelProto with one more input, int64 of one axis.

    Raises:
        ConfigError: E800 for a key of another length; E801 for what is no model; E835 for a share that is none; E840
            for a model that has such a lock already, no layer to lock, or an input of that name; E857 for one that
            would stay open.
        ModelRefused: E230 to E235, for a file that is unsafe or cannot be read.
    """
    check_share(share)
    check_slowdown(slowdown)
    net = Net.load(source)
    if any(each.key == ENTRY for each in net.extra.metadata_props):
        raise _not_lockable("a model that takes a key already", "lock the original")
    if lock_of(net.extra) is not None:
        raise _not_lockable("a model whose weights are locked, which could not be unlocked any more", "unlock it first")
    if name in net.taken():
        raise _not_lockable(f"a model with a value called {name!r}", "choose another name for the input")
    infos = likely_sizes(net)
    places = [place for place in find_places(net)[0] if not place.uneven and place.given in infos]
    ranks = {place: len(infos[place.given].shape or ()) for place in places}
    exponents = raised(net)
    slots = {
        place: _slot(net, place, scales=scales and place.given not in exponents)
        for place, rank in ranks.items()
        if rank
    }
    slots = _chosen(net, slots, Costs(net, infos), share, slowdown)
    if not slots:
        raise _not_lockable(
            "a model without a layer whose channels can be put in order exactly", "lock its weights instead"
        )
    least = weakest(net, _closing_bits(net, slots))
    if least < _FEWEST_BITS and not leave_open:
        raise ConfigError(
            "E857",
            seen=f"a path from input to output on which {2**least:.3g} different keys are possible",
            expected=f"layers on every path that have 2^{_FEWEST_BITS} orders and scales together",
            fix="lock its weights instead (obfuscate.lock), or lock it all the same with leave_open=True",
        )
    salt = secrets.token_hex(32)
    orders, factors = _cut_up(net, slots, name)
    for number, (place, slot) in enumerate(slots.items()):
        _store(net, place, *slot.draw(key, salt, number))
        _restore(net, place, ranks[place], orders.get(place), factors.get(place))
    modernise(net)
    helper, types = onnx_package().helper, onnx_package().TensorProto
    net.graph.inputs.append(
        helper.make_tensor_value_info(name, types.INT64, [sum(slot.length for slot in slots.values())])
    )
    write_entry(net.extra, name, slots.values(), salt)
    return net.model()


def key_tensor(model: Any, key: bytes) -> tuple[str, NDArray[np.int64]]:  # noqa: ANN401  onnx.ModelProto
    """The input's name and what to feed it, from a locked model's metadata; nothing tells whether a key is right.

    Raises:
        ArtifactRefused: E841, for a model without such a lock, or whose entry was changed.
        ConfigError: E800, for a key of another length.
    """
    name, slots, salt = key_entry(model)
    orders: list[NDArray[np.int64]] = []
    scales: list[NDArray[np.int64]] = []
    for number, slot in enumerate(slots):
        order, exponents = slot.draw(key, salt, number)
        inverse = np.argsort(order)
        if slot.ordered:
            orders.append(inverse)
        if slot.scaled:
            scales.append(REACH - exponents[inverse])
    return name, np.concatenate([*orders, *scales])


def _chosen(
    net: Net, slots: Mapping[Place, Slot], costs: Costs, share: float | None, slowdown: float
) -> dict[Place, Slot]:
    """The places to lock, in order: what no path gets around, then the cheapest."""
    bits = {place: _bits(net, place, slot) for place, slot in slots.items()}
    slots = {place: slot for place, slot in slots.items() if bits[place] > 0}
    each = {place: costs.restored(place, ordered=slot.ordered, scaled=slot.scaled) for place, slot in slots.items()}
    wanted = math.ceil((_SHARE if share is None else share) * len(slots) - 1e-9)
    room = slowdown * costs.call - costs.moving(_FIRST) if share is None else math.inf
    bits = _closing_bits(net, slots)
    given = given_as_they_are(net)
    # First those behind which another layer mixes what a key puts in order.
    every = {place: cost for place, cost in each.items() if bits[place]}
    inner = {place: cost for place, cost in every.items() if place.given not in given}
    strong = [{place: cost for place, cost in some.items() if bits[place] >= _STRONG} for some in (inner, every)]
    closing: list[Place] = []
    for some in (*strong, inner, every, each) if wanted else ():
        closing = closing or barrier(net, some)
    taken = list(closing)
    room -= sum(each[place] for place in taken)
    for place in sorted(each, key=each.__getitem__):
        if place not in taken and len(taken) < wanted and (each[place] <= room or not taken):
            room -= each[place]
            taken.append(place)
    return _in_range(net, {place: slot for place, slot in slots.items() if place in taken}, (closing, list(inner)))


def _bits(net: Net, place: Place, slot: Slot) -> float:
    return different_keys(net, place, slot.block, reach=slot.reach)


def _closing_bits(net: Net, slots: Mapping[Place, Slot]) -> dict[Place, float]:
    """As many as close a path: none where only the order of answers is another, for a few known ones tell which."""
    given = given_as_they_are(net)
    return {
        place: _bits(net, place, slot) if slot.scaled or place.given not in given else 0.0
        for place, slot in slots.items()
    }


def _in_range(net: Net, slots: Mapping[Place, Slot], first: Sequence[Sequence[Place]]) -> dict[Place, Slot]:
    """With factors as near to 1, and at as few places, as a network that deep bears under a wrong key.

    What counts is the path on which most stand one behind the other. First come the places of `first` (those that close
    the model, those that count on its paths), then those of the fewest orders: these have the most, the others what
    room is left. Places of one order that have no factors either are left out.
    """
    scaled = [place for place, slot in slots.items() if slot.scaled]
    orders = {place: different_keys(net, place, slots[place].block, reach=0) for place in scaled}
    scaled.sort(key=lambda place: (*(place not in some for some in first), orders[place]))
    reaches: dict[Place, int] = {}
    for near in range(REACH, 0, -1):
        for place in scaled:
            more = {**reaches, place: max(near, reaches.get(place, 0))}
            if heaviest(net, {one: growth(2 * reach) for one, reach in more.items()}) <= ROOM:
                reaches = more
    found = {place: dataclasses.replace(slot, reach=reaches.get(place, 0)) for place, slot in slots.items()}
    return {place: slot for place, slot in found.items() if slot.length}


def _slot(net: Net, place: Place, *, scales: bool) -> Slot:
    groups = int(place.nodes[0].value("group", 1))
    scaled = scales and all(node is place.nodes[0] or node.is_a(*_HOMOGENEOUS) for node in place.nodes)
    constants = net.graph.constants()
    changed = {part.name for part in place.parts}
    if any(
        node.is_a("Add", "Sub") and any(name in constants and name not in changed for name in node.inputs)
        for node in place.nodes
    ):  # one number for all channels, which cannot take the factor of each
        scaled = False
    for part in place.parts:
        array = constants[part.name]
        if array.dtype not in FLOATS:
            scaled = False
            continue
        magnitudes = np.abs(array[array != 0].astype(np.float64))
        limits, reach = np.finfo(array.dtype), 2.0**REACH
        # The last bit of a product with the smallest value that is taken must not get lost, either.
        least = limits.tiny if part.adds else float(limits.smallest_subnormal) * 2.0 ** (2 * limits.nmant - FLOOR)
        if magnitudes.size and not least * reach <= magnitudes.min() <= magnitudes.max() <= limits.max / reach:
            scaled = False
    return Slot(place.weights.gives // groups, place.weights.gives, REACH if scaled else 0)


def _store(net: Net, place: Place, order: NDArray[np.int64], exponents: NDArray[np.int64]) -> None:
    """Put the channels of all weights of a place into an order, and scale them."""
    constants = net.graph.constants()
    for part in place.parts:
        assert part.gives is not None
        array = constants[part.name]
        if part.gives.size > 1:  # of one channel alone, nothing tells the axis, and there is no other order
            array = array.take(order, int(np.argmax(part.gives.shape)))
        # `gives` numbers channels along their axis, so it also picks the exponent of each stored one.
        factors = np.exp2(exponents[part.gives]).astype(array.dtype)
        net.graph.set_constant(part.name, np.ascontiguousarray(array * factors))


def _cut_up(net: Net, slots: Mapping[Place, Slot], key: str) -> tuple[dict[Place, str], dict[Place, str]]:
    """Nodes in front of all others that cut up the key: names of orders and of factors.

    As few as it takes, since each costs its start at every run: one cuts, one looks factors up, one cuts those.
    """
    before: list[Node] = []
    ordered = [place for place, slot in slots.items() if slot.ordered]
    scaled = {place: slot.channels for place, slot in slots.items() if slot.scaled}
    sizes = [slots[place].channels for place in ordered]
    parts = _split(net, before, key, [*sizes, sum(scaled.values())] if scaled else sizes)
    factors: dict[Place, str] = {}
    if scaled:
        most = max(-place.weights.axis - 1 for place in scaled)
        powers, looked = net.fresh(2)
        net.graph.initialisers[powers] = np.exp2(np.arange(-REACH, REACH + 1)).astype(np.float32)
        exponents = _shaped(net, before, parts[-1], sum(scaled.values()), most) if most else parts[-1]
        before.append(Node("Gather", [powers, exponents], [looked]))
        constants = net.graph.constants()
        cut = _split(net, before, looked, list(scaled.values()))
        for (place, channels), part in zip(scaled.items(), cut, strict=True):
            behind = -place.weights.axis - 1
            shaped = part if behind == most else _shaped(net, before, part, channels, behind)
            factors[place] = _cast(net, before, shaped, constants[place.parts[0].name].dtype)
    net.graph.insert(before, before=net.graph.nodes[0])
    return dict(zip(ordered, parts, strict=False)), factors


def _restore(net: Net, place: Place, rank: int, order: str | None, factors: str | None) -> None:
    """Nodes behind a place that undo `_store`."""
    behind: list[Node] = []
    if order is not None:
        behind.append(Node("Gather", [order], []))
        behind[0].set(axis=rank + place.weights.axis)
    if factors is not None:
        behind.append(Node("Mul", [factors], []))
    values = [*net.fresh(len(behind)), place.given]
    place.nodes[-1].outputs[0] = values[0]
    for node, taken, given in zip(behind, values, values[1:], strict=False):
        node.inputs.insert(0, taken)
        node.outputs.append(given)
    at = next(at for at, node in enumerate(net.graph.nodes) if node is place.nodes[-1])
    net.graph.nodes[at + 1 : at + 1] = behind


def _split(net: Net, nodes: list[Node], value: str, sizes: list[int]) -> list[str]:
    """Consecutive parts of a value along its first axis."""
    if len(sizes) == 1:
        return [value]
    node = Node("Split", [value], net.fresh(len(sizes)))
    node.set(axis=0, split=sizes if net.opset() < _SPLIT_BY_INPUT else None)
    if net.opset() >= _SPLIT_BY_INPUT:
        (stated,) = net.fresh()
        net.graph.initialisers[stated] = np.array(sizes, np.int64)
        node.inputs.append(stated)
    nodes.append(node)
    return node.outputs


def _shaped(net: Net, nodes: list[Node], value: str, size: int, behind: int) -> str:
    """A value of so many elements with so many axes of size 1 behind its first."""
    shape, shaped = net.fresh(2)
    net.graph.initialisers[shape] = np.array([size, *[1] * behind], np.int64)
    nodes.append(Node("Reshape", [value, shape], [shaped]))
    return shaped


def _cast(net: Net, nodes: list[Node], value: str, dtype: np.dtype[Any]) -> str:
    if dtype == np.float32:
        return value
    (cast_value,) = net.fresh()
    nodes.append(Node("Cast", [value], [cast_value]))
    nodes[-1].set(to=int(onnx_package().helper.np_dtype_to_tensor_dtype(dtype)))
    return cast_value


def _not_lockable(seen: str, fix: str) -> ConfigError:
    return ConfigError(
        "E840",
        seen=seen,
        expected="an ONNX model that does not take a key yet, with layers of several channels",
        fix=fix,
    )
