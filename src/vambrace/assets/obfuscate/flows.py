"""Where a value of an ONNX graph goes: through operators that pass it on, into bodies and functions, and out of them.

A value that enters a `Loop`, a `Scan`, a `SequenceMap` or a function of the model's own is followed to the parameter it
becomes, and what a body gives to what the node gives. A name that stands in two bodies is taken for one value: that
only makes for more uses than there are.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

from vambrace.assets.obfuscate.graph import bodies_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Passes = Callable[[str, Any, int], Sequence[int]]
    Step = Callable[[str, Any, int, "_State"], Iterable[tuple[int, "_State"]]]

__all__ = ["Flows"]

_State = TypeVar("_State")
_LOOP_OWN = 2
"""Inputs of a `Loop` in front of what it carries: how often it runs, and whether it starts."""

_ENTERED = frozenset({"Loop", "Scan", "SequenceMap"})
"""Operators that give their inputs to a body."""

_END = "\0"


@dataclasses.dataclass(slots=True, eq=False)
class Flows:
    """Of a whole model; names of values inside of a function begin with `prefix(function)`.

    Attributes:
        readers: value -> nodes that take it, and at which position.
        links: value -> other names of what it holds.
        leaves: values that the model gives.
    """

    readers: dict[str, list[tuple[Any, int]]]
    links: dict[str, list[str]]
    leaves: frozenset[str]

    @classmethod
    def of(cls, model: Any, onnx: Any) -> Flows:  # noqa: ANN401  onnx.ModelProto, and the package
        """Those of an onnx.ModelProto."""
        found = cls({}, {}, frozenset(each.name for each in model.graph.output))
        functions = {(each.domain, each.name, each.overload): each for each in model.functions}
        found._read(model.graph, "", functions, onnx)
        for each in model.functions:
            found._read(each, cls.prefix(each), functions, onnx)
        return found

    @staticmethod
    def prefix(function: Any) -> str:  # noqa: ANN401  onnx.FunctionProto
        """What the names of its values begin with."""
        return f"{function.domain}{_END}{function.name}{_END}{function.overload}{_END}"

    def ahead(self, name: str, passes: Passes) -> Iterator[tuple[str, Any, int]]:
        """All that takes a value, found through nodes that pass it on: the prefix there, the node, the position.

        Where the value is an output, None stands for the node: whoever runs the model takes it.

        Args:
            name: of the value.
            passes: of a prefix, a node and a position, the outputs that what enters there comes out of.
        """
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            value = waiting.pop()
            if value in seen:
                continue
            seen.add(value)
            waiting.extend(self.links.get(value, ()))
            prefix = value[: value.rfind(_END) + 1]
            for node, position in self.readers.get(value, ()):
                yield prefix, node, position
                outputs = [node.output[at] for at in passes(prefix, node, position)]
                waiting.extend(prefix + output for output in outputs if output)
            if value in self.leaves:
                yield prefix, None, 0

    def reached(self, names: Iterable[str], passes: Passes) -> frozenset[str]:
        """These values and all that they come to, through nodes that pass them on; see `ahead`."""
        found: set[str] = set()

        def step(prefix: str, node: Any, position: int, _: None) -> Iterator[tuple[int, None]]:  # noqa: ANN401
            yield from ((at, None) for at in passes(prefix, node, position))

        for name in names:
            self.walk(name, None, step, found)
        return frozenset(found)

    def walk(self, name: str, state: _State, step: Step[_State], names: set[str] | None = None) -> None:
        """Follow a value together with what is known of it on its way.

        Args:
            name: of the value.
            state: what is known of it.
            step: of a prefix, a node, a position and a state, the outputs to go on with and what is known of each.
            names: gets those of all values that are met; what is in it is not followed again.
        """
        seen: set[tuple[str, _State]] = set()
        waiting = [(name, state)]
        while waiting:
            value, state = waiting.pop()
            if (value, state) in seen or (names is not None and value in names):
                continue
            seen.add((value, state))
            if names is not None:
                names.add(value)
            waiting.extend((link, state) for link in self.links.get(value, ()))
            prefix = value[: value.rfind(_END) + 1]
            for node, position in self.readers.get(value, ()):
                for at, new in step(prefix, node, position, state):
                    if at < len(node.output) and node.output[at]:
                        waiting.append((prefix + node.output[at], new))

    def _read(self, graph: Any, prefix: str, functions: dict[tuple[str, str, str], Any], onnx: Any) -> None:  # noqa: ANN401
        for node in graph.node:
            bodies = bodies_of(node)
            function = functions.get((node.domain, node.op_type, node.overload))
            if function is not None:
                inside = Flows.prefix(function)
                self._join(prefix, node.input, inside, function.input)
                self._join(inside, function.output, prefix, node.output)
                continue
            entered = self._enter(node, bodies[0], prefix) if bodies and node.op_type in _ENTERED else 0
            for position, name in enumerate(node.input):
                if name and (not bodies or position < len(node.input) - entered):
                    self.readers.setdefault(prefix + name, []).append((node, position))
            for body in bodies:
                given = [each.name for each in body.output]
                if node.op_type == "If":
                    self._join(prefix, given, prefix, node.output)
                elif node.op_type not in _ENTERED:  # what becomes of it is not known
                    for name in given:
                        self.readers.setdefault(prefix + name, []).append((node, len(node.input)))
                self._read(body, prefix, functions, onnx)

    def _enter(self, node: Any, body: Any, prefix: str) -> int:  # noqa: ANN401
        """Link what a node with a body takes, carries and gives; of its inputs, the last so many are linked."""
        parameters, given = [each.name for each in body.input], [each.name for each in body.output]
        if node.op_type == "SequenceMap":
            states = 0
        elif node.op_type == "Loop":
            self.readers.setdefault(prefix + given[0], []).append((node, 1))  # whether it goes on
            parameters, given = parameters[_LOOP_OWN:], given[1:]
            states = len(parameters)
        else:
            scanned = next((each.i for each in node.attribute if each.name == "num_scan_inputs"), len(parameters))
            states = len(parameters) - scanned
        self._join(prefix, node.input[len(node.input) - len(parameters) :], prefix, parameters)
        self._join(prefix, given[:states], prefix, parameters[:states])
        self._join(prefix, given, prefix, node.output)
        return len(parameters)

    def _join(self, before: str, names: Sequence[str], behind: str, others: Sequence[str]) -> None:
        for name, other in zip(names, others, strict=False):  # the last ones may be left out
            if name and other:
                self.links.setdefault(before + name, []).append(behind + other)
