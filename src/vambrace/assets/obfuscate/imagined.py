"""Networks that are imagined: operators one after the other, with shapes and with weights that look like a real net's.

An `Imagining` is to the decoys of `vambrace.assets.obfuscate.passes.phantoms` what a framework is to networks: it
knows how each operator is written in the net's operator set, and finds weights. Elements of a weight are drawn from
those that the real net has in the same role (the second input of Conv, say), as large as the number of inputs asks
for; weights of one shape are used again where room is short. What it makes is valid, and never runs.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.graph import Node, node_proto
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.habits import Habits
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net

__all__ = ["Imagining", "Roles", "TooLarge", "Value", "roles_of"]

Roles = dict[tuple[str, int], "NDArray[np.float32]"]
"""Elements of the real net's weights by operator and input; those of layers have been divided by their size."""

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_MOST = 4096
"""Elements that are kept of a role."""
_TENSOR_BYTES = 24
"""What a weight takes in a file beside its elements."""


class TooLarge(Exception):  # noqa: N818  no error: something else is drawn
    """What is being imagined takes more than it may; it never leaves `vambrace.assets.obfuscate.ensemble`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """A value: its name, and its sizes without the batch."""

    name: str
    shape: tuple[int, ...]


def roles_of(net: Net, stream: Stream) -> Roles:
    """What weights of each role look like in a net; at most 4096 elements of each, float32."""
    found: dict[tuple[str, int], list[NDArray[np.float32]]] = {}
    for graph in net.graphs():
        constants = graph.constants()
        for node in graph.nodes:
            for at, name in enumerate(node.inputs):
                array = constants.get(name)
                if array is None or array.dtype.kind != "f" or array.size < 2:
                    continue
                flat = array.reshape(-1).astype(np.float32)
                flat = flat[np.isfinite(flat)]
                if node.op in _LAYERS and at == 1:
                    size = float(np.sqrt(np.mean(np.square(flat, dtype=np.float64)))) if flat.size else 0.0
                    flat = flat / np.float32(size) if size > 0 else flat[:0]
                found.setdefault((node.op, at), []).append(flat)
    kept: Roles = {}
    for role, arrays in found.items():
        whole = np.concatenate(arrays)
        if whole.size:
            kept[role] = whole[stream.integers(0, whole.size, (min(_MOST, whole.size),))]
    return kept


class Imagining:
    """A graph that grows.

    Attributes:
        stream: of all choices; whoever draws an architecture uses it too.
        nodes: in order.
        weights: by name.
        habits: which attributes the net's nodes state.
        spent: bytes that both take, about.
        most: bytes that they may take, or `TooLarge` is raised.
        soft: bytes from which on networks should come to an end.
    """

    def __init__(self, net: Net, roles: Roles, stream: Stream, *, room: int, habits: Habits) -> None:
        """Start with nothing.

        Args:
            net: whose operator set it is, and which gives names.
            roles: what its weights look like.
            stream: of all choices.
            room: bytes that weights may take.
            habits: which attributes its nodes state.
        """
        self._net, self._roles, self._room = net, roles, room
        self.habits = habits
        self.opset = net.opset()
        self.stream = stream
        self.nodes: list[Node] = []
        self.weights: dict[str, NDArray[Any]] = {}
        self.spent = 0
        self.most = self.soft = math.inf
        self._weighed = 0
        self._like: dict[tuple[tuple[str, int], tuple[int, ...]], list[str]] = {}
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self._made: dict[bytes, Value] = {}
        self._makers: dict[str, Node] = {}

    def draw(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.stream.integers(low, high + 1))

    def chance(self, share: float) -> bool:
        """Whether something happens that does so in a share of all cases."""
        return float(self.stream.uniform()) < share

    def node(self, op: str, *inputs: str | Value, shape: Sequence[int], **attributes: object) -> Value:
        """Any operator of one output; where it is there already, its value."""
        made = Node(op, [one.name if isinstance(one, Value) else one for one in inputs], [])
        made.set(**attributes)
        self.habits.follow(made)
        # Simplifiers compute what is the same once.
        key = node_proto(made, onnx_package()).SerializeToString(deterministic=True)
        if key not in self._made:
            made.outputs = self._net.fresh()
            self._add(made)
            self._made[key] = Value(made.outputs[0], tuple(shape))
        return self._made[key]

    def maker(self, x: Value) -> Node | None:
        """The node that made a value here; None for what was given."""
        return self._makers.get(x.name)

    def split(self, x: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
        """Parts along an axis that counts the batch."""
        outputs = self._net.fresh(len(sizes))
        stated = [] if self.opset < 13 else [self.constant(np.array(sizes, np.int64))]
        made = Node("Split", [x.name, *stated], outputs)
        made.set(axis=axis, split=None if stated else list(sizes))
        self.habits.follow(made)
        self._add(made)
        shapes = [(*x.shape[: axis - 1], size, *x.shape[axis:]) for size in sizes]
        return [Value(name, shape) for name, shape in zip(outputs, shapes, strict=True)]

    def constant(self, array: NDArray[Any]) -> str:
        """A constant, stored once."""
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._constants:
            self._constants[key] = self._store(array)
        return self._constants[key]

    def number(self, value: float) -> str:
        """A floating constant without axes."""
        return self.constant(np.array(value, np.float32))

    def whole(self, *numbers: int) -> str:
        """A vector of whole numbers."""
        return self.constant(np.array(numbers, np.int64))

    def weight(self, op: str, slot: int, shape: tuple[int, ...], *, taken: int = 0) -> str:
        """A weight in a role.

        Args:
            op: the operator.
            slot: which of its inputs.
            shape: of the weight.
            taken: how many numbers one output adds up, for weights of layers.
        """
        role = (op, slot)
        like = self._like.setdefault((role, shape), [])
        size = 4 * math.prod(shape)
        left = self._room - self._weighed
        # The fuller it gets, the more often something that is there serves again.
        if like and (size > left or self.chance(self._weighed / max(1, self._room))):
            return self.stream.pick(like)
        self._check(size)
        like.append(self._store(self._drawn(role, shape, taken)))
        return like[-1]

    def suits(self, op: str, shape: tuple[int, ...]) -> bool:
        """Whether a weight of this shape is there already, or is small beside the room that is left for weights."""
        return ((op, 1), shape) in self._like or 4 * math.prod(shape) <= max(512, (self._room - self._weighed) / 16)

    @property
    def full(self) -> bool:
        """Whether what there is takes as many bytes as it should."""
        return self.spent > self.soft

    @property
    def tight(self) -> bool:
        """Whether most of the room for weights is taken."""
        return self._weighed > 0.7 * self._room

    def back(self, nodes: int, weights: int) -> None:
        """Forget all but the first nodes and weights."""
        for node in self.nodes[nodes:]:
            self.spent -= self._bytes(node)
        del self.nodes[nodes:]
        self._makers = {name: node for node in self.nodes for name in node.outputs}
        self._made = {key: made for key, made in self._made.items() if made.name in self._makers}
        for name in list(self.weights)[weights:]:
            size = self.weights.pop(name).nbytes + _TENSOR_BYTES
            self.spent -= size
            self._weighed -= size
        self._like = {key: [name for name in names if name in self.weights] for key, names in self._like.items()}
        self._like = {key: names for key, names in self._like.items() if names}
        self._constants = {key: name for key, name in self._constants.items() if name in self.weights}

    def sweep(self, kept: Collection[str]) -> None:
        """Drop what leads to none of some values."""
        needed = set(kept)
        nodes: list[Node] = []
        for node in reversed(self.nodes):
            if not needed.isdisjoint(node.outputs):
                nodes.append(node)
                needed.update(node.inputs)
        self.nodes = nodes[::-1]
        self.weights = {name: array for name, array in self.weights.items() if name in needed}

    def _add(self, node: Node) -> None:
        self._check(0)
        self.nodes.append(node)
        self._makers |= dict.fromkeys(node.outputs, node)
        self.spent += self._bytes(node)

    def _check(self, more: int) -> None:
        if self.spent + more > self.most:
            raise TooLarge

    def _bytes(self, node: Node) -> int:
        return node_proto(node, onnx_package()).ByteSize() + 3

    def _store(self, array: NDArray[Any]) -> str:
        (name,) = self._net.fresh()
        self.weights[name] = array
        self.spent += array.nbytes + _TENSOR_BYTES
        self._weighed += array.nbytes + _TENSOR_BYTES
        return name

    def _drawn(self, role: tuple[str, int], shape: tuple[int, ...], taken: int) -> NDArray[np.float32]:
        known = self._known(role)
        count = math.prod(shape)
        array = self._usual(role, count) if known is None else known[self.stream.integers(0, known.size, (count,))]
        if taken:
            array = array * np.float32(math.sqrt((1.0 + float(self.stream.uniform())) / taken))
        return np.ascontiguousarray(array.reshape(shape), np.float32)

    def _known(self, role: tuple[str, int]) -> NDArray[np.float32] | None:
        if role in self._roles:
            return self._roles[role]
        # Weights of all layers are alike, once divided by their sizes, and so are biases.
        others = [key for key in self._roles if key[0] in _LAYERS and key[1] == role[1] and role[0] in _LAYERS]
        return self._roles[others[0]] if others else None

    def _usual(self, role: tuple[str, int], count: int) -> NDArray[np.float32]:
        drawn = self.stream.normal((count,))
        if role == ("BatchNormalization", 4):
            drawn = np.exp(0.5 * drawn)
        elif role[1] == 1 and role[0] not in _LAYERS:
            drawn = np.abs(1.0 + 0.2 * drawn)
        elif role[1] > 1 and role[0] in {"Conv", "ConvTranspose", "Gemm", "BatchNormalization"}:
            drawn = 0.2 * drawn
        return drawn.astype(np.float32)
