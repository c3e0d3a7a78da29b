"""A graph as a vector, for classifiers: what it is made of, and how, at three depths of looking.

| part | what it counts |
|---|---|
| Weisfeiler-Lehman labels | surroundings of operators up to two steps, plain and with attributes, hashed to buckets |
| operators | each type, hashed, as a share of all |
| edges | pairs of types that follow each other, hashed, as a share |
| weights | kernel sizes, ranks, widths and their ratios, depthwise convolutions |
| size | operators, depth, weights, inputs taken |

Counts of labels enter by their square root, so that forty blocks do not drown what stands once. Shuffling or renaming a
file changes no component.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from vambrace.assets.obfuscate.measure.structure import labels, read_graph

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from numpy.typing import NDArray
    from onnx import ModelProto

    from vambrace.assets.obfuscate.measure.structure import Graph

__all__ = ["features"]

_BUCKETS = 512
_KERNELS = (1, 2, 3, 4, 5, 7)
_WIDTHS = 10  # powers of two


def features(model: ModelProto) -> NDArray[np.float64]:
    """The vector of a model; every model has one of the same length."""
    graph = read_graph(model)
    parts = [
        _hashed((f"{number}{label}" for number, found in enumerate(labels(graph, 2)) for label in found), root=True),
        _hashed(
            (f"d{number}{label}" for number, found in enumerate(labels(graph, 2, detailed=True)) for label in found),
            root=True,
        ),
        _hashed(graph.operators),
        _hashed(f"{graph.operators[source]}>{graph.operators[target]}" for source, target, _ in graph.edges),
        _of_weights(graph),
        _of_size(graph),
    ]
    return np.concatenate(parts)


def _hashed(items: Iterable[Hashable], *, root: bool = False) -> NDArray[np.float64]:
    """Counts in buckets, of length 1."""
    found = np.zeros(_BUCKETS)
    for item, count in Counter(items).items():
        digest = hashlib.blake2b(str(item).encode(), digest_size=8).digest()
        found[int.from_bytes(digest, "little") % _BUCKETS] += math.sqrt(count) if root else count
    length = float(np.linalg.norm(found))
    return found / length if length else found


def _of_weights(graph: Graph) -> NDArray[np.float64]:
    kernels, ranks, widths = np.zeros(len(_KERNELS) + 1), np.zeros(5), np.zeros(_WIDTHS)
    wider, depthwise, layers = 0, 0, 0
    for place, weights in enumerate(graph.weights):
        for each in weights:
            ranks[min(len(each.shape), 4)] += each.floating
            if not each.floating or len(each.shape) < 2:
                continue
            layers += 1
            widths[min(max(each.shape[0], 1).bit_length() - 1, _WIDTHS - 1)] += 1
            wider += each.shape[0] > each.shape[1]
            depthwise += graph.operators[place] == "Conv" and each.shape[1] == 1 and each.shape[0] > 1
            if len(each.shape) == 4:
                kernels[_KERNELS.index(each.shape[2]) if each.shape[2] in _KERNELS else -1] += 1
    counted = np.concatenate([kernels, ranks, widths, [wider, depthwise]])
    return counted / max(layers, 1)


def _of_size(graph: Graph) -> NDArray[np.float64]:
    total = sum(math.prod(each.shape) for weights in graph.weights for each in weights)
    weights = sum(len(each) for each in graph.weights)
    fed = Counter(target for _, target, _ in graph.edges)
    merging = sum(count > 1 for count in fed.values()) / max(len(graph), 1)
    return np.array([math.log1p(len(graph)), math.log1p(weights), math.log1p(total) / 4, merging, len(graph.taken)]) / 4
