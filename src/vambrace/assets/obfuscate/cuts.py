"""Where a network can be cut in two, so that all that comes after goes into a branch of an If.

A cut is made behind a value from which on a runtime computes the same in a branch (`vambrace.assets.obfuscate.places`),
and whatever else the nodes behind it read must be such a value too, an input of the model, or no floating number. The
cut before everything moves the whole network and needs no such value.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from vambrace.assets.obfuscate.costs import Costs
from vambrace.assets.obfuscate.enclosing import HALVES, halved
from vambrace.assets.obfuscate.graph import reads_of
from vambrace.assets.obfuscate.places import find_places

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.costs import Predicate
    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Info, Net

__all__ = ["Cut", "Cuts", "Exit", "FLOATING", "WHOLE"]

FLOATING = frozenset({1, 10, 11})
"""float, float16 and double, as onnx.TensorProto.DataType."""
WHOLE = frozenset({2, 3, 4, 5, 6, 7, 9, 12, 13})
"""Whole numbers and bool."""
_NO_NUMBERS = "a model whose inputs are no numbers, or whose outputs are no tensors"
_FEW = 4096
"""Elements that a brief predicate may add up."""


@dataclasses.dataclass(frozen=True, slots=True)
class Exit:
    """An output that leaves a branch.

    Attributes:
        name: of the value.
        kind: onnx.TensorProto.DataType.
        shape: 1 for sizes that are free, or None where not even their number is known.
        batched: whether the first size is free, so that a branch may give any.
    """

    name: str
    kind: int
    shape: tuple[int, ...] | None
    batched: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """Where a network is cut.

    Attributes:
        value: the predicate reads it, and what is imagined.
        whole: whether everything goes into the branch, and not only what depends on the value.
        predicate: which one of `vambrace.assets.obfuscate.opaque`.
    """

    value: str
    whole: bool
    predicate: Predicate


class Cuts:
    """The cuts of a net.

    Attributes:
        infos: of its values, before anything was cut.
        eligible: cuts that there could be.
        left: why there could not be others.
    """

    def __init__(self, net: Net) -> None:
        self.infos: dict[str, Info] = net.infer()
        self.eligible = 0
        self.left: dict[str, int] = {}
        self._net = net
        self._costs = Costs(net, self.infos)
        self._safe = {place.given for place in find_places(net)[0]}
        # Asked for again and again by all the cuts that there could be, before anything is cut.
        self._reads = {id(node): (*node.inputs, *sorted(reads_of(node))) for node in net.graph.nodes}
        made = {name for node in net.graph.nodes for name in node.outputs} | set(net.graph.input_names)
        self._values = made - set(net.graph.constants())

    def chosen(self, most: int, slowdown: float, allowed: float, stream: Stream) -> list[Cut]:
        """Cuts that fit into the time together, the one with the fewest nodes behind it first.

        The one before everything comes before others, so that nothing real lies outside of all branches.

        Args:
            most: how many.
            slowdown: their time as a share of a run, at most.
            allowed: seconds that they may take in any case.
            stream: chooses among those that fit.
        """
        if any(halved(array) for graph in self._net.graphs() for array in graph.constants().values()):
            self.left[HALVES] = 1
            return []
        time = max(slowdown * self._costs.total, allowed)
        taken: list[tuple[int, Cut]] = []
        whole, cost = self._all(time)
        if whole is not None and most:
            time -= cost
            taken.append((len(self.everything()), whole))
        found = [(value, self.behind(value)) for value in sorted(self._safe)]
        crossed = {value: self._crossed(nodes) for value, nodes in found}
        fit = [(value, nodes) for value, nodes in found if self._fits(nodes, crossed[value])]
        self.eligible += len(fit)
        if len(fit) < len(found):
            self.left["values beside which others lead on"] = len(found) - len(fit)
        # Cheap ones first, as far as chance has it.
        chances = 1.0 + stream.uniform((len(fit),))
        ranked = sorted(
            (float(self._copied(crossed[value]) * chance), value)
            for (value, _), chance in zip(fit, chances, strict=True)
        )
        behind = dict(fit)
        for _, value in ranked:
            cut, cost = self._cut(value, crossed[value], time)
            if cut is not None and len(taken) < most:
                time -= cost
                taken.append((len(behind[value]), cut))
        return [cut for _, cut in sorted(taken, key=lambda one: one[0])]

    def beside(self, slowdown: float, allowed: float) -> Cut | None:
        """Where networks may stand beside this one, which stays as it is; bounds of time as for `chosen`.

        The predicate reads an output, where that has fewer elements than the input.
        """
        exits = self.exits(self.everything())
        read = self.read_first()
        if read is None or not exits or any(each is None for each in exits):
            self.left[_NO_NUMBERS] = 1
            return None
        self.eligible = 1
        given = [each.name for each in exits if each is not None and each.kind in FLOATING]
        read = min([read, *given], key=self._costs.elements)
        room = max(slowdown * self._costs.total, allowed) - self._costs.carried(each.name for each in exits if each)
        cut, _ = self._cut(read, [], room)
        if cut is None:
            self.left["a Loop that would take too long"] = 1
            return None
        return dataclasses.replace(cut, whole=True)

    def behind(self, value: str) -> list[Node]:
        """All nodes that depend on a value, in order."""
        made = {value}
        found: list[Node] = []
        for node in self._net.graph.nodes:
            if not made.isdisjoint(reads_of(node)):
                found.append(node)
                made.update(node.outputs)
        return found

    def everything(self) -> list[Node]:
        """All nodes but constants."""
        return [node for node in self._net.graph.nodes if not node.is_a("Constant")]

    def _fits(self, nodes: list[Node], read: list[str]) -> bool:
        """Whether a runtime computes the same where these go into a branch, and an If can give what they give."""
        inputs = set(self._net.graph.input_names)
        exits = self.exits(nodes)
        return (
            all(name in self._safe or name in inputs or not self._floating(name) for name in read)
            and bool(exits)
            and all(each is not None for each in exits)
        )

    def exits(self, nodes: list[Node]) -> list[Exit | None]:
        """Outputs of the model that nodes make; None for one that is no tensor of numbers."""
        made = {name for node in nodes for name in node.outputs}
        return [self._exit(each) for each in self._net.graph.outputs if each.name in made]

    def _exit(self, output: object) -> Exit | None:
        name = str(getattr(output, "name", ""))
        info = self.infos.get(name)
        if info is None or info.kind not in FLOATING | WHOLE:
            return None
        sizes = info.shape
        shape = None if sizes is None else tuple(size if isinstance(size, int) else 1 for size in sizes)
        return Exit(name, info.kind, shape, bool(sizes) and not isinstance(sizes[0], int))

    def _all(self, time: float) -> tuple[Cut | None, float]:
        """The cut before everything, and what it takes of a time; None where it cannot be made."""
        nodes = self.everything()
        read = self._crossed(nodes)
        value = self.read_first()
        if value is None or not self._fits(nodes, read):
            self.left[_NO_NUMBERS] = 1
            return None, 0.0
        self.eligible = 1
        cut, cost = self._cut(value, read, time)
        if cut is None:
            self.left["an If that would take too long"] = 1
            return None, 0.0
        return dataclasses.replace(cut, whole=True), cost

    def read_first(self) -> str | None:
        """The input that a predicate before everything reads: of floating numbers and few elements, if there is one."""
        inputs = [name for name in self._net.graph.input_names if self._kind(name) in FLOATING | WHOLE]
        return min(
            inputs, key=lambda name: (self._kind(name) not in FLOATING, self._costs.elements(name)), default=None
        )

    def _cut(self, value: str, read: list[str], time: float) -> tuple[Cut | None, float]:
        """A cut that fits into a time, and what it takes of it."""
        forms: list[Predicate] = ["opaque"]
        if self._costs.elements(value) <= _FEW:
            forms.append("brief")
        elif self.infos[value].shape:  # to look at a part, its axes have to be known
            forms.append("glance")
        for predicate in forms:
            cost = self._copied(read) + self._costs.predicate(predicate)
            if cost <= time:
                return Cut(value, whole=False, predicate=predicate), cost
        return None, 0.0

    def _copied(self, read: list[str]) -> float:
        """Time that it takes to copy what nodes read, inputs aside."""
        inputs = set(self._net.graph.input_names)
        return self._costs.copies(name for name in read if name not in inputs and self._floating(name))

    def _crossed(self, nodes: list[Node]) -> list[str]:
        """As `vambrace.assets.obfuscate.enclosing.crossing`, before anything is cut."""
        made = {name for node in nodes for name in node.outputs}
        read = dict.fromkeys(name for node in nodes for name in self._reads[id(node)])
        return [name for name in read if name in self._values and name not in made]

    def _kind(self, name: str) -> int:
        return self.infos[name].kind if name in self.infos else 0

    def _floating(self, name: str) -> bool:
        """Also where nothing is known."""
        return self._kind(name) in FLOATING | {0, 16}
