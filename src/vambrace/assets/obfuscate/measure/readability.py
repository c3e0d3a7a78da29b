"""How much of an original's structure can be read off another file: names, order of operators, shape of the graph.

Three views, none of which needs the model to run:

- `names`: `vambrace.assets.obfuscate.measure.names`.
- the sequence of operators in an order that the graph alone decides: `edit_similarity` is 1 - distance / the longer
  length (the notion of NeurObfuscator, Li et al., HOST 2021); `kept_in_order` is the longest common subsequence over
  the original's length, which inserted operators do not lower.
- `kernel`: the Weisfeiler-Lehman subtree kernel (Shervashidze et al., JMLR 12, 2011), three rounds, normalised so that
  a graph beside itself is 1; `kernel_detailed` begins with kernel sizes, strides and ranks of weights as well.

A model beside itself scores 1 on all of them. A similarity that stays high is no defect of a measure: weights can be
disguised without touching the graph, and then the graph is what it was.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from vambrace.assets.obfuscate.measure.names import Names, leaked
from vambrace.assets.obfuscate.measure.sequences import common, edits
from vambrace.assets.obfuscate.measure.structure import Graph, labels, order, read_graph

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["JUDGED", "Readability", "SIMILARITIES", "Structure", "compared", "read_structure"]

ROUNDS = 3
SIMILARITIES = ("edit_similarity", "kept_in_order", "kernel", "kernel_detailed")
"""The fields that are 1 for a model beside itself and lower for less alike ones."""
JUDGED = ("edit_similarity", "kernel", "kernel_detailed")
"""Those that are low for unlike graphs whatever their sizes: any long sequence holds a short one in order by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readability:
    """What can be read of an original.

    Attributes:
        names: in words.
        operators: of both, original first.
        edits: distance of the two sequences.
        edit_similarity, kept_in_order, kernel, kernel_detailed: 0 to 1.
    """

    names: Names
    operators: tuple[int, int]
    edits: int
    edit_similarity: float
    kept_in_order: float
    kernel: float
    kernel_detailed: float

    def as_json(self) -> dict[str, object]:
        """As JSON data."""
        found: dict[str, object] = asdict(self)
        return found | {"names": self.names.as_json(), "operators": list(self.operators)}


def read_structure(original: ModelProto, other: ModelProto) -> Readability:
    """What `other` tells about `original`; both are onnx.ModelProto."""
    one, two = Structure.of(original), Structure.of(other)
    return Readability(
        names=leaked(original, other),
        operators=(len(one.operators), len(two.operators)),
        edits=edits(one.operators, two.operators),
        kept_in_order=common(one.operators, two.operators) / len(one.operators) if one.operators else 1.0,
        **compared(one, two),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A graph, ready to be held against others.

    Attributes:
        operators: in an order that the graph alone decides.
        plain, detailed: how often each label of the two kernels stands in it.
    """

    operators: tuple[str, ...]
    plain: Counter[tuple[int, str]]
    detailed: Counter[tuple[int, str]]

    @classmethod
    def of(cls, model: ModelProto) -> Structure:
        """The structure of an onnx.ModelProto."""
        graph = read_graph(model)
        operators = tuple(graph.operators[place] for place in order(graph))
        return cls(operators=operators, plain=_histogram(graph, False), detailed=_histogram(graph, True))


def compared(one: Structure, other: Structure) -> dict[str, float]:
    """The similarities named in `JUDGED`."""
    first, second = one.operators, other.operators
    return {
        "edit_similarity": 1.0 - edits(first, second) / max(len(first), len(second), 1),
        "kernel": _cosine(one.plain, other.plain),
        "kernel_detailed": _cosine(one.detailed, other.detailed),
    }


def _cosine(mine: Counter[tuple[int, str]], theirs: Counter[tuple[int, str]]) -> float:
    """The normalised kernel of two graphs, 0 to 1; 0 where either is empty."""
    product = math.fsum(count * theirs[label] for label, count in mine.items())
    lengths = [math.fsum(count**2 for count in each.values()) for each in (mine, theirs)]
    return min(1.0, product / math.sqrt(lengths[0] * lengths[1])) if all(lengths) else 0.0


def _histogram(graph: Graph, detailed: bool) -> Counter[tuple[int, str]]:
    rounds = labels(graph, ROUNDS, detailed=detailed)
    return Counter((number, label) for number, found in enumerate(rounds) for label in found)
