"""Whether what a program of torch.export hides stays hidden, and what it answers stays, when torch.compile works on it.

    found = try_compile(program, obfuscated.program, [(inputs,)])
    found.difference, found.kept, found.similarity

Three things are looked at, each beside the original under the same compiler:

- answers, of both programs compiled by the usual backend (Inductor);
- words: names of weights, modules, classes, arguments and source files of the original that stand in the graph that the
  compiler captures (Dynamo's, with all that its nodes say of where they come from);
- operators, in the graph that the backend gets (functional, decomposed, common parts merged): how alike the two
  sequences are. Passes for programs hide weights and names and leave operators, so expect this to be near 1.

What cannot be measured, as answers where there is no C++ compiler, says why.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import warnings
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from vambrace.assets.obfuscate.measure.names import words
from vambrace.assets.obfuscate.measure.sequences import edits
from vambrace.assets.obfuscate.program_answers import compare_programs
from vambrace.core.reason import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch.export import ExportedProgram

    from vambrace.assets.obfuscate.measure.difference import Difference

__all__ = ["Compiled", "try_compile"]

_LOG = logging.getLogger(__name__)
# What Dynamo calls parts of any module, and files that torch makes up for code of its own.
_OF_DYNAMO = frozenset({"self", "modules", "parameters", "buffers"})
_FILE = re.compile(r'File "([^"<>]+)"')


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What torch.compile brings back of an original, and whether answers stay.

    Attributes:
        why: what was not measured, and why; empty where all was.
        difference: of the answers, both compiled; None where not measured.
        words: of the original.
        kept: those of them that stand in the captured graph, sorted; None where not measured.
        operators: in the graphs that the backend gets, the original's first; None where not measured.
        similarity: of these sequences, 1 less their edit distance over the longer one; None where not measured.
    """

    why: tuple[str, ...]
    difference: Difference | None
    words: int
    kept: tuple[str, ...] | None
    operators: tuple[int, int] | None
    similarity: float | None

    def as_json(self) -> dict[str, object]:
        """As JSON data."""
        return {
            "tool": "torch.compile",
            "why": list(self.why),
            "difference": None if self.difference is None else dataclasses.asdict(self.difference),
            "words": self.words,
            "kept": None if self.kept is None else list(self.kept),
            "operators": None if self.operators is None else list(self.operators),
            "similarity": self.similarity,
        }


def try_compile(
    original: ExportedProgram, obfuscated: ExportedProgram, calls: Sequence[tuple[Any, ...]], *, freezing: bool = False
) -> Compiled:
    """Compile both programs and hold them against each other.

    Args:
        original: a program.
        obfuscated: what was made of it.
        calls: positional arguments of each call, at least one; the first one is what graphs are captured with.
        freezing: let the backend fold weights.
    """
    missed: list[str] = []

    def tried(what: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401  what `work` makes
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return work()
        except Exception as error:  # a compiler may fail in its own way on any program
            _LOG.info("torch.compile failed", exc_info=True)
            missed.append(f"{what}: {reason(error, 160)}")
            return None

    named = _words(_texts_of_program(original))
    text = tried("words", lambda: _words(_texts(_captured(obfuscated, calls[0], lowered=False))))
    lowered = tried(
        "operators", lambda: [_operators(_captured(each, calls[0], lowered=True)) for each in (original, obfuscated)]
    )
    return Compiled(
        difference=tried(
            "answers", lambda: compare_programs(original, obfuscated, calls, compiled=True, freezing=freezing)
        ),
        words=len(named),
        kept=None if text is None else tuple(sorted(named & text)),
        operators=None if lowered is None else (len(lowered[0]), len(lowered[1])),
        similarity=None if lowered is None else _alike(*lowered),
        why=tuple(missed),
    )


def _captured(program: ExportedProgram, call: tuple[Any, ...], *, lowered: bool) -> list[fx.GraphModule]:
    """The graphs that a compiler captures of a call; `lowered` as a backend gets them."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._inductor.decomposition import select_decomp_table

    found: list[fx.GraphModule] = []

    def seen(graph: fx.GraphModule, _: Any) -> Any:  # noqa: ANN401  example inputs; a callable
        found.append(graph)
        return graph.forward

    behind: Any = aot_autograd(fw_compiler=seen, decompositions=select_decomp_table()) if lowered else seen
    run = torch.compile(program.module(), backend=behind)
    with torch.no_grad():
        run(*pytree.tree_map_only(torch.Tensor, torch.clone, call))
    return found


def _operators(graphs: Sequence[fx.GraphModule]) -> list[str]:
    return [str(node.target) for graph in graphs for node in graph.graph.nodes if node.op == "call_function"]


def _alike(one: Sequence[str], other: Sequence[str]) -> float:
    longest = max(len(one), len(other))
    return 1.0 - edits(one, other) / longest if longest else 1.0


def _words(texts: Iterator[str]) -> set[str]:
    return {word for text in texts for word in words(text)}


def _texts_of_program(program: ExportedProgram) -> Iterator[str]:
    """What a program's author has named."""
    yield from program.state_dict
    yield from program.constants
    yield from (node.name for node in program.graph.nodes if node.op == "placeholder")
    yield from _origins(program.graph)


def _texts(graphs: Sequence[fx.GraphModule]) -> Iterator[str]:
    """What captured graphs say but for their operators, which belong to the standard."""
    for graph in graphs:
        named = (node.name for node in graph.graph.nodes if node.op in {"placeholder", "get_attr"})
        for text in named:
            yield from (word for word in words(text) if word not in _OF_DYNAMO)
        for node in graph.graph.nodes:
            yield from _earlier(node.meta.get("from_node", ()) if node.op != "output" else ())
        yield from _origins(graph.graph)


def _earlier(sources: Iterable[Any]) -> Iterator[str]:
    """Names of the nodes that one was made from, and of those before them."""
    for each in sources:
        yield each.name
        yield from _earlier(each.from_node)


def _origins(graph: fx.Graph) -> Iterator[str]:
    """Modules, classes and files that nodes say they come from."""
    for node in graph.nodes:
        for path, kind in node.meta.get("nn_module_stack", {}).values():
            name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
            yield path
            if not name.startswith("torch."):
                yield name
        for file in _FILE.findall(node.meta.get("stack_trace") or ""):
            if "torch" not in PurePath(file).parts:
                yield PurePath(file).stem
