"""Rewrites that undo what an observed model does not need: branches, constants, copies, and activations in disguise.

Each takes a draft and what its values were, changes the draft, and says how often it did. They believe what they saw,
as an attacker would, and not what could be proved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.measure.draft import renamed
from vambrace.assets.obfuscate.measure.runtime import onnx

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.measure.draft import Draft
    from vambrace.assets.obfuscate.measure.observing import Observed, Values

__all__ = ["Recogniser", "drop_copies", "fold_constants", "settle_branches"]

_MOST_BYTES = 2**27  # of one value that becomes a constant
_HOPS = 6  # between a value and what a disguised activation was made from

_BY_ELEMENT = """
Abs Add Cast Clip Div Equal Exp Greater GreaterOrEqual Identity LeakyRelu Less LessOrEqual Log Max Min Mul Neg Not Pow
Reciprocal Relu Sigmoid Sign Softplus Sqrt Sub Tanh Where
"""
_ELEMENTWISE = frozenset(_BY_ELEMENT.split())

_ACTIVATIONS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "Softplus": lambda x: np.logaddexp(x, 0),
    "HardSigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "Neg": np.negative,
    "Abs": np.abs,
}


_CHOOSING = {"If": 0, "Loop": 1, "Where": 0}
"""Which input decides."""


def settle_branches(draft: Draft, observed: Observed) -> int:
    """If and Where nodes whose condition never changed become the side that was taken; a Loop that never ran goes."""
    settled = 0
    for node in list(draft.nodes):
        if node.op_type not in _CHOOSING:
            continue
        decides = node.input[_CHOOSING[node.op_type]]
        condition = draft.weights.get(decides)
        if condition is None and decides and observed.constant(decides):
            condition = observed.last[decides]
        if condition is None or not (np.all(condition) or not np.any(condition)):
            continue
        taken = bool(np.all(condition))
        if node.op_type == "If":
            _inline(draft, node, taken)
        elif node.op_type == "Loop":
            carried = node.input[2:]
            if taken or len(carried) != len(node.output):
                continue
            draft.splice(node, *map(_identity, carried, node.output))
        elif _shape(draft, observed, node.input[1 if taken else 2]) == _shape(draft, observed, node.output[0]):
            draft.splice(node, _identity(node.input[1 if taken else 2], node.output[0]))
        else:
            continue
        settled += 1
    return settled


def fold_constants(draft: Draft, observed: Observed) -> int:
    """Values that never changed become constants, whatever computed them."""
    if observed.runs < 2:
        return 0
    folded = 0
    for node in draft.nodes:
        names = [name for name in node.output if name]
        if set(names) & set(draft.outputs) or not names or not all(observed.constant(name) for name in names):
            continue
        if any(observed.last[name].nbytes > _MOST_BYTES for name in names):
            continue
        for name in names:
            draft.replace(name, draft.keep(observed.last[name]))
        folded += 1
    draft.sweep()
    return folded


def drop_copies(draft: Draft, observed: Observed) -> int:
    """Of values that were equal in every run, only the first is computed: chains of nothing, and work done twice."""
    first = {observed.digests[name]: name for name in draft.inputs if name in observed.digests}
    dropped = 0
    for node in list(draft.nodes):
        for name in node.output:
            digest = observed.digests.get(name)
            if digest is None or (observed.constant(name) and observed.runs > 1):
                continue
            earlier = first.setdefault(digest, name)
            if earlier == name:
                continue
            if name not in draft.outputs:
                draft.replace(name, earlier)
                dropped += 1
            elif len(node.output) == 1 and node.op_type != "Identity":
                draft.splice(node, _identity(earlier, name))
                dropped += 1
    _drop_identities(draft)
    draft.sweep()
    return dropped


class Recogniser:
    """Finds values that are a plain activation of another value a few elementwise steps before, however computed.

    Args:
        draft: the model.
        observed: shapes of its values.

    Call `watch` with the values of each run, then `rewrite`.
    """

    def __init__(self, draft: Draft, observed: Observed) -> None:
        self._draft = draft
        self._candidates = _candidates(draft, observed)

    def watch(self, values: Values) -> None:
        """Keep the candidates that hold in this run."""
        self._candidates = [
            (output, source, name)
            for output, source, name in self._candidates
            if _close(values[output], values[source], _ACTIVATIONS[name])
        ]

    def rewrite(self) -> int:
        """Put the activation in the place of what computed it; the longest way replaced first."""
        producers = self._draft.producers()
        done: set[str] = set()
        for output, source, name in self._candidates:
            node = producers[output]
            if output not in done and node.op_type != name:
                self._draft.splice(node, onnx().helper.make_node(name, [source], [output]))
                done.add(output)
        self._draft.sweep()
        return len(done)


def _candidates(draft: Draft, observed: Observed) -> list[tuple[str, str, str]]:
    """(output, source, activation): floating values of one shape with at least two elementwise nodes between them."""
    producers = draft.producers()
    found: list[tuple[str, str, str]] = []
    for node in draft.nodes:
        output = node.output[0]
        value = observed.last.get(output)
        if node.op_type not in _ELEMENTWISE or value is None or value.dtype.kind != "f":
            continue
        reached: dict[str, int] = {}
        edge = [output]
        for hop in range(1, _HOPS + 1):
            nearer = [producers[name] for name in edge if name in producers]
            edge = [n for each in nearer if each.op_type in _ELEMENTWISE for n in each.input if n and n not in reached]
            reached |= dict.fromkeys((name for name in edge if name not in reached), hop)
        for source, hop in sorted(reached.items(), key=lambda each: -each[1]):
            other = observed.last.get(source)
            same = other is not None and other.shape == value.shape and other.dtype == value.dtype
            if hop >= 2 and same and source not in draft.weights:
                found += [(output, source, name) for name in _ACTIVATIONS]
    return found


def _close(value: NDArray[Any], source: NDArray[Any], function: Callable[[NDArray[Any]], NDArray[Any]]) -> bool:
    flat, other = value.reshape(-1), source.reshape(-1)
    with np.errstate(all="ignore"):
        head = slice(0, 256)
        if not np.allclose(flat[head], function(other[head]), rtol=1e-4, atol=1e-6, equal_nan=True):
            return False
        return bool(np.allclose(flat, function(other), rtol=1e-4, atol=1e-6, equal_nan=True))


def _inline(draft: Draft, node: Any, taken: bool) -> None:  # noqa: ANN401  an onnx.NodeProto
    """Put the nodes of the taken body in the place of an If."""
    name = "then_branch" if taken else "else_branch"
    body = next(each.g for each in node.attribute if each.name == name)
    to_array = onnx().numpy_helper.to_array
    inside = [onnx().NodeProto.FromString(each.SerializeToString()) for each in body.node]
    fresh = {tensor.name: draft.keep(to_array(tensor)) for tensor in body.initializer}
    fresh |= {output: draft.name() for each in inside for output in each.output if output}
    for each in inside:
        for slot, output in enumerate(each.output):
            each.output[slot] = fresh.get(output, output)
        for old, new in fresh.items():
            renamed(each, old, new)
    ends = [
        _identity(fresh.get(given.name, given.name), end) for given, end in zip(body.output, node.output, strict=True)
    ]
    draft.splice(node, *inside, *ends)


def _drop_identities(draft: Draft) -> None:
    """Nodes that copy a value: what takes the copy takes the value, and an output is given by what computes it."""
    for node in [each for each in draft.nodes if each.op_type == "Identity"]:
        source, copy = node.input[0], node.output[0]
        if copy not in draft.outputs:
            draft.replace(copy, source)
            continue
        producer = draft.producers().get(source)
        if producer is None or source in draft.outputs:
            continue
        producer.output[list(producer.output).index(source)] = copy
        draft.replace(source, copy)
        draft.nodes = [each for each in draft.nodes if each is not node]


def _identity(source: str | None, copy: str) -> Any:  # noqa: ANN401  an onnx.NodeProto
    return onnx().helper.make_node("Identity", [source], [copy])


def _shape(draft: Draft, observed: Observed, name: str) -> tuple[int, ...] | None:
    value = draft.weights.get(name)
    value = observed.last.get(name) if value is None else value
    return None if value is None else value.shape
