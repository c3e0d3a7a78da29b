"""Which tensors one run of a model may use several times: in loops, in functions, or by several operators."""

from __future__ import annotations

import contextlib
import math
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.flows import Flows
from vambrace.assets.obfuscate.graph import bodies_of
from vambrace.assets.obfuscate.operators import BLIND, OWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vambrace.assets.obfuscate.sight import Sight

__all__ = ["Repeated"]

_STEPS = frozenset({"GRU", "LSTM", "Loop", "RNN", "Scan", "SequenceMap"})


class Repeated:
    """Of a whole model."""

    def __init__(self, model: Any, sight: Sight) -> None:  # noqa: ANN401  onnx.ModelProto
        """Find what runs in loops, and what is called."""
        self._sight = sight
        self._looped: set[str] = set()
        self._functions = {(each.domain, each.name, each.overload): Flows.prefix(each) for each in model.functions}
        self._calls: dict[str, list[tuple[str, bool]]] = {}
        """Of functions, by their prefix: that of who calls them, and whether in a loop."""
        for prefix, graph in [("", model.graph), *((Flows.prefix(each), each) for each in model.functions)]:
            self._read(graph.node, prefix, inside=False)
        self._runs = self._counted()

    def __contains__(self, name: str) -> bool:
        """Whether it may be so with a value of constants alone, or what is computed from it and constants."""
        users: set[str] = set()
        often = [self._run(name[: name.rfind("\0") + 1]) > 1]

        def step(prefix: str, node: Any, position: int, _: None) -> Iterator[tuple[int, None]]:  # noqa: ANN401
            outputs = [prefix + each for each in node.output if each]
            computed = node.domain in OWN and node.op_type not in BLIND | _STEPS
            if computed and self._sight.data.isdisjoint(self._sight.others(prefix, node, position)):
                yield from ((at, None) for at in range(len(node.output)))
            elif node.op_type not in BLIND:
                users.update(outputs[:1])
                looped = not self._looped.isdisjoint(outputs)
                often.append(node.op_type in _STEPS or looped or self._run(prefix) > 1)

        self._sight.flows.walk(name, None, step)
        return len(users) > 1 or any(often)

    def _read(self, nodes: Any, prefix: str, *, inside: bool) -> None:  # noqa: ANN401
        for node in nodes:
            if inside:
                self._looped.update(prefix + name for name in node.output)
            function = self._functions.get((node.domain, node.op_type, node.overload))
            if function is not None:
                self._calls.setdefault(function, []).append((prefix, inside))
            for body in bodies_of(node):
                self._read(body.node, prefix, inside=inside or node.op_type in _STEPS)

    def _run(self, prefix: str) -> float:
        """How often the function runs of which names begin so, as far as is known; the graph itself runs once."""
        return self._runs.get(prefix, math.inf)

    def _counted(self) -> dict[str, float]:
        """Of what is called, before what it calls; nothing of functions where one calls itself."""
        runs = {"": 1.0}
        order = TopologicalSorter({name: {by for by, _ in calls} for name, calls in self._calls.items()})
        with contextlib.suppress(CycleError):
            for prefix in order.static_order():
                found = (math.inf if looped and runs[by] else runs[by] for by, looped in self._calls.get(prefix, []))
                runs[prefix] = sum(found) if prefix else 1.0
        return runs
