"""Predicates whose answer is always the same and that no optimiser can fold: arithmetic on numbers read from the data.

Some neighbours in an activation are added up and turned into a whole number of at most four digits; a theorem about
whole numbers (n (n + 1) is even; squares leave only some remainders) then decides. It holds for every whole number, so
also for whatever an infinity or a NaN becomes in the conversion. Others compare real numbers where a < b is never so,
which is false for NaN as well.

Collberg, Thomborson, Low, "Manufacturing cheap, resilient, and stealthy opaque constructs", POPL 1998. They withstand
the folding of constants, not a reader who knows the theorems.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.graph import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net

__all__ = ["brief", "glance", "opaque"]

OLDEST = 9
"""The operator set from which on runtimes compare whole numbers."""
BOUND = 4096
_WINDOW = 24
_FLOAT = 1
_INT64 = 7
_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)


def opaque(
    net: Net, value: str, dtype: np.dtype[Any], count: int, stream: Stream, *, whole: bool = False
) -> tuple[list[Node], str, bool]:
    """Nodes that compute a predicate from a value; their constants are added to the main graph.

    Args:
        net: to which the constants are added; the nodes are not inserted yet.
        value: what is read; of any shape.
        dtype: of the value, floating; float32 for one of whole numbers.
        count: elements that it has for certain; 1 where that is not known.
        stream: chooses the predicate and its numbers.
        whole: whether the value is of whole numbers, which are read as float32.

    Returns:
        Nodes in order, the name of a boolean scalar, and what it always is.
    """
    writer = _Writer(net, value, dtype, count, stream, whole=whole)
    answer, truth = stream.pick(_FORMS)(writer)
    if int(stream.integers(0, 2)):
        answer, truth = writer.add("Not", answer), not truth
    return writer.nodes, answer, truth


def brief(
    net: Net, value: str, dtype: np.dtype[Any], count: int, stream: Stream, *, whole: bool = False
) -> tuple[list[Node], str, bool]:
    """As `opaque`, in two or three operators over all elements: a norm is not below 0, nor equal to less.

    It costs less to run where elements are few, and is easier to see through.
    """
    writer = _Writer(net, value, dtype, count, stream, whole=whole)
    return _normed(writer, writer.floating(value))


def glance(
    net: Net, value: str, dtype: np.dtype[Any], sizes: Sequence[int | None], stream: Stream, *, whole: bool = False
) -> tuple[list[Node], str, bool]:
    """As `brief`, over a few neighbours, with one operator more: it costs the same however many elements there are.

    `sizes` are those of the value's axes, of which there is at least one; None where a size is not known.
    """
    writer = _Writer(net, value, dtype, 1, stream, whole=whole)
    starts = [writer.draw(0, size or 1) for size in sizes[:-1]]
    starts.append(writer.draw(0, max(1, (sizes[-1] or 1) - _WINDOW)))
    ends = [start + 1 for start in starts[:-1]] + [starts[-1] + writer.draw(2, _WINDOW)]
    return _normed(writer, writer.floating(writer.cut(value, starts, ends)))


def _normed(writer: _Writer, value: str) -> tuple[list[Node], str, bool]:
    norm = writer.add(writer.stream.pick(("ReduceL1", "ReduceL2", "ReduceSumSquare")), value, keepdims=0)
    below = -0.001 - float(writer.stream.uniform())
    # Floating numbers have been compared for equality since operator set 11.
    kind = writer.draw(0, 2 if writer.opset < 11 else 3)
    answer = writer.add("Greater", below, norm) if kind == 0 else writer.add(("Less", "Equal")[kind - 1], norm, below)
    truth = False
    if int(writer.stream.integers(0, 2)):
        answer, truth = writer.add("Not", answer), True
    return writer.nodes, answer, truth


class _Writer:
    def __init__(self, net: Net, value: str, dtype: np.dtype[Any], count: int, stream: Stream, *, whole: bool) -> None:
        self._net, self._value, self._dtype, self._count, self._whole = net, value, dtype, count, whole
        self.stream = stream
        self.nodes: list[Node] = []

    def add(self, op: str, *inputs: str | NDArray[Any] | int | float, **attributes: object) -> str:
        """A node; numbers become constants, whole ones int64 and others of the value's type."""
        names = [one if isinstance(one, str) else self._constant(one) for one in inputs]
        (output,) = self._net.fresh()
        node = Node(op, names, [output])
        node.set(**attributes)
        self.nodes.append(node)
        return output

    def draw(self, low: int, high: int) -> int:
        """A whole number, low <= x < high."""
        return int(self.stream.integers(low, high))

    @property
    def opset(self) -> int:
        """The operator set."""
        return self._net.opset()

    def cut(self, value: str, starts: list[int], ends: list[int]) -> str:
        """A part along the first axes."""
        if self.opset < 10:
            return self.add("Slice", value, starts=starts, ends=ends, axes=list(range(len(starts))))
        return self.add("Slice", value, np.array(starts, np.int64), np.array(ends, np.int64))

    def floating(self, value: str) -> str:
        """What was read, as numbers that are not whole."""
        return self.add("Cast", value, to=_FLOAT) if self._whole else value

    def real(self) -> str:
        """The sum of a few neighbours or of their squares, a floating scalar."""
        flat = self.add("Reshape", self._value, np.array([-1], np.int64))
        start = self.draw(0, max(1, self._count - _WINDOW))
        window = self.cut(flat, [start], [start + self.draw(2, _WINDOW)])
        return self.add(self.stream.pick(("ReduceSum", "ReduceSumSquare")), self.floating(window), keepdims=0)

    def whole(self) -> str:
        """A whole number made from the data, -BOUND < n < BOUND."""
        scaled = self.add("Mul", self.real(), 50.0 + 150.0 * float(self.stream.uniform()))
        return self.rest(self.add("Cast", scaled, to=_INT64), self.draw(BOUND // 2, BOUND))

    def rest(self, number: str, divisor: int) -> str:
        """What a division leaves, with the sign of the number; Mod is not in old operator sets."""
        return self.add("Sub", number, self.add("Mul", self.add("Div", number, divisor), divisor))

    def _constant(self, number: NDArray[Any] | int | float) -> str:
        (name,) = self._net.fresh()
        dtype = np.dtype(np.int64) if isinstance(number, int) else self._dtype
        array = number if isinstance(number, np.ndarray) else np.array(number, dtype)
        self._net.graph.initialisers[name] = array
        return name


_Answer = tuple[str, bool]


def _neighbours(w: _Writer) -> _Answer:
    """The product of two neighbours is even."""
    shift = w.draw(0, BOUND)
    number = w.whole()
    rest = w.rest(w.add("Mul", w.add("Add", number, shift), w.add("Add", number, shift + 1)), 2)
    wanted = w.draw(0, 2)
    return w.add("Equal", rest, wanted), wanted == 0


def _residue(w: _Writer) -> _Answer:
    """A square leaves only (p + 1) / 2 of the remainders by a prime p."""
    prime = w.stream.pick(_PRIMES)
    shifted = w.add("Add", w.whole(), w.draw(-BOUND, BOUND))
    rest = w.rest(w.add("Mul", shifted, shifted), prime)
    return w.add("Equal", rest, w.stream.pick(_not_squares(prime))), False


def _no_square(w: _Writer) -> _Answer:
    """No square is p y^2 + r where no square leaves r by p."""
    prime = w.stream.pick(_PRIMES)
    first, second = w.whole(), w.whole()
    right = w.add("Mul", w.add("Mul", second, second), prime)
    right = w.add("Add", right, w.stream.pick(_not_squares(prime)))
    return w.add("Equal", w.add("Mul", first, first), right), False


def _fermat(w: _Writer) -> _Answer:
    """A prime p divides n^p - n; here 3."""
    number = w.add("Add", w.whole(), w.draw(-BOUND, BOUND))
    cube = w.add("Mul", w.add("Mul", number, number), number)
    wanted = w.draw(0, 3)
    return w.add("Equal", w.rest(w.add("Sub", cube, number), 3), wanted), wanted == 0


def _parabola(w: _Writer) -> _Answer:
    """n^2 + b n + c is above 0 where b^2 < 4 c."""
    slope = w.draw(-64, 64)
    offset = slope * slope // 4 + w.draw(1, 64)
    number = w.whole()
    height = w.add("Add", w.add("Mul", number, w.add("Add", number, slope)), offset)
    above = w.draw(0, 2) == 1
    return w.add("Greater" if above else "Less", height, 0), above


def _squared(w: _Writer) -> _Answer:
    """A square is not below a negative number."""
    real = w.real()
    return w.add("Less", w.add("Mul", real, real), -float(w.stream.uniform()) - 0.001), False


def _bounded(w: _Writer) -> _Answer:
    """Sigmoid and Tanh are not above 1."""
    bounded = w.add(w.stream.pick(("Sigmoid", "Tanh")), w.real())
    return w.add("Greater", bounded, 1.01 + float(w.stream.uniform())), False


_FORMS: tuple[Callable[[_Writer], _Answer], ...] = (
    _bounded,
    _fermat,
    _neighbours,
    _no_square,
    _parabola,
    _residue,
    _squared,
)


def _not_squares(prime: int) -> list[int]:
    return sorted(set(range(prime)) - {number * number % prime for number in range(prime)})
