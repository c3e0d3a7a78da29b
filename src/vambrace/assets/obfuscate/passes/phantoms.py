"""Whole networks that never run, beside the real one, so that what can be read of a graph is mostly of theirs.

What comes after some value goes into a branch of an If; the other branch holds networks of randomly drawn
architectures (`vambrace.assets.obfuscate.imagined_nets`) that take the same values and give outputs of the same types.
Arithmetic on the data decides, always alike (`vambrace.assets.obfuscate.opaque`). There are several such Ifs, one
inside the other, as far as the time allows, so that parts of the real network lie at different depths, in either
branch. Imagined operators are up to forty times as many as real ones; what bounds them is the size of the file.

An If starts the graph of a branch at each run, which small networks feel. Where that is too much for a budget, imagined
networks stand in the body of a Loop that runs no time, and what the real one gives goes through it unchanged: that
costs next to nothing, and leaves the real network in the main graph.

What runs is the real network and a few operators on single numbers for each If. An attacker who runs the model sees
which branches are taken, and one who knows this software sees which networks are imagined: they are many in one branch,
and have few bytes of weights for each operator.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from vambrace.assets.obfuscate.cuts import FLOATING, WHOLE, Cuts
from vambrace.assets.obfuscate.edits import arranged, modernise, rearrange
from vambrace.assets.obfuscate.enclosing import branch_of, crossing, enclose, release, renamed
from vambrace.assets.obfuscate.ensemble import Ensemble, Given
from vambrace.assets.obfuscate.graph import Graph, Node, graph_proto
from vambrace.assets.obfuscate.habits import Habits
from vambrace.assets.obfuscate.imagined import Imagining, roles_of
from vambrace.assets.obfuscate.opaque import OLDEST, brief, glance, opaque
from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile
from vambrace.core.options import Ratio, require
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assets.obfuscate.cuts import Cut, Exit
    from vambrace.assets.obfuscate.imagined import Roles
    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net

__all__ = ["Phantoms"]

_NODE_BYTES = 110
"""What an imagined operator and its share of the weights may take where the file is small."""
_WEIGHTS = 0.4
"""Of the room, what weights may take."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Phantoms(Pass):
    """Hide the network among networks that never run.

    Attributes:
        times: how many imagined operators there are for each real one.
        fewest: how many there are at least, where the file has room for them.
        growth: how much larger than it came the file may be with them, as a share.
        spare: bytes that it may be larger in any case, so that small ones are hidden too.
        ifs: how many Ifs there are at most.
        slowdown: most that they may add to the time of a run, as a share of it, by an estimate from sizes.
        allowed: microseconds that they may add in any case, by the same estimate: one If with a short predicate.
        beside: whether they stand in a Loop beside the real network, which takes less time than an If around it.
    """

    name: ClassVar[str] = "phantoms"
    profile: ClassVar[Profile] = "exact"
    worth: ClassVar[int] = 1
    times: Ratio = 40.0
    fewest: int = 3000
    growth: Ratio = 0.08
    spare: int = 250_000
    ifs: int = 3
    slowdown: Ratio = 0.005
    allowed: Ratio = 3.0
    beside: bool = False

    def __post_init__(self) -> None:
        for name in ("times", "fewest", "growth", "spare", "ifs", "slowdown", "allowed"):
            value = getattr(self, name)
            require(value >= 0, seen=f"{name} {value}", expected="a number from 0", fix=f"leave {name} out")

    def apply(self, net: Net, stream: Stream) -> Applied:
        """Enclose, innermost first; the record says which branch is which, and what was moved into it."""
        if net.opset() < OLDEST:
            return Applied(eligible=0, done=0, left={f"operator sets before {OLDEST}": 1}, record={"ifs": []})
        before = arranged(net)
        cuts = Cuts(net)
        chosen = self._chosen(cuts, stream)
        real = sum(not node.is_a("Constant") for graph in net.graphs() for node in graph.nodes)
        size = graph_proto(net.graph, onnx_package(), small=False).ByteSize()
        wanted = max(self.fewest, self.times * real)
        taken = size - net.size
        room = max(self.growth * net.size - taken, min(self.spare - taken, _NODE_BYTES * wanted), 0)
        if chosen:
            modernise(net)
        work = _Work(net, cuts, roles_of(net, stream.child("roles")), Habits(net))
        entries: list[dict[str, Any]] = []
        for number, cut in enumerate(chosen):
            share = 1 / (len(chosen) - number)
            close = work.set_beside if self.beside else work.close
            entry, drawn, spent = close(cut, int(share * wanted), int(share * room), stream.child("cut", number))
            entries.append(entry)
            room, wanted = room - spent, wanted - drawn
        missing = int(wanted) if entries and wanted >= 1 else 0
        short = {"imagined operators for which the file has no room": missing} if missing else {}
        record = {"ifs": entries, "before": before}
        return Applied(eligible=cuts.eligible, done=len(entries), left=cuts.left | short, record=record)

    def lighter(self) -> Pass | None:
        """With a Loop in place of Ifs."""
        return None if self.beside else dataclasses.replace(self, beside=True)

    def _chosen(self, cuts: Cuts, stream: Stream) -> list[Cut]:
        if self.beside:
            cut = cuts.beside(self.slowdown, 1e-6 * self.allowed)
            return [cut] if cut is not None else []
        return cuts.chosen(self.ifs, self.slowdown, 1e-6 * self.allowed, stream.child("cuts"))

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        """Take the real parts out of their branches, outermost first, or away what stands beside them."""
        for entry in reversed(record["ifs"]):
            producers = net.index().producers
            chooser = producers[entry["given"]]
            if "real" in entry:
                names = dict(zip(entry["real"], chooser.outputs, strict=True))
                net.graph.remove(chooser)
                renamed(net.graph.nodes, names)
            else:
                (branch,) = chooser.bodies[entry["branch"]]
                release(net, chooser, branch, entry)
            net.graph.remove(*(producers[name] for name in entry["nodes"]))
            for name in entry["weights"]:
                del net.graph.initialisers[name]
        if record["ifs"]:
            rearrange(net, record["before"])


@dataclasses.dataclass(frozen=True, slots=True)
class _Work:
    net: Net
    cuts: Cuts
    roles: Roles
    habits: Habits

    def close(self, cut: Cut, wanted: int, room: int, stream: Stream) -> tuple[dict[str, Any], int, int]:
        """Put what is behind a cut into an If.

        Returns:
            The entry of the record, and how many operators were imagined, and the bytes that they take.
        """
        net, graph = self.net, self.net.graph
        nodes = self.cuts.everything() if cut.whole else self.cuts.behind(cut.value)
        exits = cast("list[Exit]", self.cuts.exits(nodes))
        known = set(graph.initialisers)
        before, answer, truth = self._predicate(cut, stream.child("predicate"))
        added = [name for name in graph.initialisers if name not in known]
        fake, drawn = self._fake(cut.value, nodes, exits, wanted, room, stream.child("networks"))
        enclosed = enclose(net, nodes, {each.name: each.kind for each in exits})
        bodies = {"then_branch": [enclosed.branch], "else_branch": [fake]}
        if not truth:
            bodies = {"then_branch": [fake], "else_branch": [enclosed.branch]}
        # Nothing reads what comes out of it, so it stands at the end.
        graph.nodes += [*before, Node("If", [answer], [each.name for each in exits], bodies=bodies)]
        entry = {
            "given": exits[0].name,
            "branch": "then_branch" if truth else "else_branch",
            "nodes": [node.outputs[0] for node in before],
            "weights": added,
            **enclosed.record(),
        }
        return entry, drawn, graph_proto(fake, onnx_package(), small=False).ByteSize()

    def set_beside(self, cut: Cut, wanted: int, room: int, stream: Stream) -> tuple[dict[str, Any], int, int]:
        """Give what the network gives through a Loop that never runs; returns the same as `close`."""
        net, graph = self.net, self.net.graph
        nodes = self.cuts.everything()
        exits = cast("list[Exit]", self.cuts.exits(nodes))
        known = set(graph.initialisers)
        before, answer, truth = self._predicate(cut, stream.child("predicate"))
        if truth:
            (other,) = net.fresh()
            before, answer = [*before, Node("Not", [answer], [other])], other
        added = [name for name in graph.initialisers if name not in known]
        taken = cast("str", self.cuts.read_first())
        fake, drawn = self._fake(taken, nodes, exits, wanted, room, stream.child("networks"))
        names = dict(zip([each.name for each in exits], net.fresh(len(exits)), strict=True))
        renamed([*graph.nodes, *before], names)
        _as_body(net, fake, [each.kind for each in exits])
        loop = Node("Loop", ["", answer, *names.values()], list(names), bodies={"body": [fake]})
        graph.nodes += [*before, loop]
        entry = {
            "given": exits[0].name,
            "real": list(names.values()),
            "nodes": [node.outputs[0] for node in before],
            "weights": added,
        }
        return entry, drawn, graph_proto(fake, onnx_package(), small=False).ByteSize()

    def _predicate(self, cut: Cut, stream: Stream) -> tuple[list[Node], str, bool]:
        info = self.cuts.infos[cut.value]
        whole = info.kind in WHOLE
        dtype = np.dtype(np.float32) if whole else onnx_package().helper.tensor_dtype_to_np_dtype(info.kind)
        sizes = [size if isinstance(size, int) else None for size in info.shape or ()]
        if cut.predicate == "glance":
            return glance(self.net, cut.value, dtype, sizes, stream, whole=whole)
        count = math.prod(size or 1 for size in sizes)
        make = brief if cut.predicate == "brief" else opaque
        return make(self.net, cut.value, dtype, count, stream, whole=whole)

    def _fake(
        self, value: str, nodes: list[Node], exits: list[Exit], wanted: int, room: int, stream: Stream
    ) -> tuple[Graph, int]:
        im = Imagining(self.net, self.roles, stream, room=int(_WEIGHTS * room), habits=self.habits)
        infos = self.cuts.infos
        names = [value, *(name for name in crossing(self.net, nodes) if name != value)]
        given = [Given(name, infos[name]) for name in names if name in infos and infos[name].kind in FLOATING]
        made = Ensemble(im, room=room, wanted=wanted).drawn(given or [Given(value, infos[value])], exits)
        return branch_of(self.net, im.nodes, made, im.weights), len(im.nodes)


def _as_body(net: Net, graph: Graph, kinds: list[int]) -> None:
    """Make of a branch the body of a Loop, which carries values of these kinds and would run once."""
    onnx = onnx_package()
    info, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    count, more, less, *carried = net.fresh(3 + len(kinds))
    graph.inputs = [
        info(count, types.INT64, []),
        info(more, types.BOOL, []),
        *(info(name, kind, None) for name, kind in zip(carried, kinds, strict=True)),
    ]
    graph.nodes.append(Node("Not", [more], [less]))
    graph.outputs = [info(less, types.BOOL, []), *graph.outputs]
