"""Along which axis of a weight lie the channels that a layer gives: there is what one of them multiplies by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.operators import OWN, moved_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vambrace.assets.obfuscate.sight import Sight

__all__ = ["giving_axis", "is_slope"]

_AS_IT_IS = frozenset({"Cast", "Identity"})
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})


def giving_axis(name: str, rank: int, sight: Sight) -> int | None:
    """Of a weight, by the first operator that multiplies by it, behind those that turn it round; None if none is known.

    Args:
        name: of the value.
        rank: how many axes it has.
        sight: of the model.
    """
    found: list[int] = [0] if rank == 1 else []

    def step(_: str, node: Any, position: int, axes: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:  # noqa: ANN401
        axis = _axis(node, position, len(axes))
        if axis is not None:
            found.append(axes[axis])
        elif node.op_type == "Transpose" and node.domain in OWN:
            order = next((each.ints for each in node.attribute if each.name == "perm"), range(len(axes))[::-1])
            if sorted(order) == list(range(len(axes))):
                yield 0, tuple(axes[at] for at in order)
        elif node.op_type in _AS_IT_IS and node.domain in OWN:
            yield 0, axes

    sight.flows.walk(name, tuple(range(rank)), step)
    return found[0] if found else None


def is_slope(name: str, dims: Sequence[int], sight: Sight) -> bool:
    """Whether each element multiplies a channel by itself, as those of a batch normalisation that was folded."""
    if sum(size > 1 for size in dims) != 1:
        return False
    uses = [(node, position) for _, node, position in sight.flows.ahead(name, moved_on) if node is not None]
    return any(node.op_type == "Mul" and node.domain in OWN for node, _ in uses)


def _axis(node: Any, position: int, rank: int) -> int | None:  # noqa: ANN401
    """Of what enters a node there."""
    if node.domain not in OWN or rank < 2:
        return None
    ints = {each.name: each.i for each in node.attribute}
    if node.op_type == "Gemm" and position < 2:
        # Rows of what it is, or columns: those of the other operand are summed over.
        return int(bool(ints.get("transA", 0))) if position == 0 else int(not ints.get("transB", 0))
    if node.op_type == "Gather" and position == 0:
        return rank - 1
    if node.op_type == "MatMul":
        return rank - 1 if position else rank - 2
    if node.op_type == "ConvTranspose" and position == 1:
        return int(ints.get("group", 1) == 1)
    if node.op_type in _RECURRENT and position in (1, 2):
        return 1
    if node.op_type == "Einsum" and len(node.input) == 2:
        return _of_einsum(node, position)
    return 0 if node.op_type in {"Conv", "DeformConv"} and position == 1 else None


def _of_einsum(node: Any, position: int) -> int | None:  # noqa: ANN401
    """The last axis that comes out of this operand alone."""
    equation = next((each.s.decode() for each in node.attribute if each.name == "equation"), "").replace(" ", "")
    taken, arrow, given = equation.partition("->")
    operands = taken.split(",")
    if len(operands) != 2 or "." in operands[position]:
        return None
    if not arrow:  # what stands once comes out
        given = "".join(letter for letter in taken if taken.count(letter) == 1)
    own = [
        at for at, letter in enumerate(operands[position]) if letter in given and letter not in operands[1 - position]
    ]
    return own[-1] if own else None
