"""Records every use of a trainable parameter in one forward pass, so that one backward pass gives all clipped sums.

The tape looks at functions, not at modules: it sees `F.linear` whoever calls it, so modules keep their types,
parameters may be shared, and a packed attention, which never calls the forward of its output projection, hides nothing.
A recorded function gets its parameters detached: autograd computes no weight gradients, only what flows on to
activations, and a hook keeps the gradient of the output. So no path through autograd may lead to a parameter; if one
does, a use went unseen. What the tape has no rule for is refused by name, never passed over.

Where the samples are in an activation is not guessed from one shape: `place` reads it off two traces with different
numbers of samples, and every later use is held against that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vambrace.privacy.dp.engine.crossing import CROSSING, refuse_crossing
from vambrace.privacy.dp.engine.reorder import may_reorder

if TYPE_CHECKING:
    from vambrace.privacy.dp.engine.pieces import Piece

__all__ = ["Derived", "Kept", "NoRule", "Place", "Places", "Tape", "Use", "place", "tensors_in"]


class NoRule(Exception):  # noqa: N818  it is caught by the engine, which then knows another way
    """A parameter is used in a way that the tape has no rule for."""

    def __init__(self, names: Iterable[str], what: str) -> None:
        self.names, self.what = tuple(names), what
        super().__init__(f"{', '.join(self.names)} in {what}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the samples of a batch are in an activation.

    Attributes:
        kind: "dim": along dimension `at`; "fold": along the first one, `at` neighbours for each sample; "none":
            nowhere, the same values serve all samples.
        at: see `kind`.
    """

    kind: str
    at: int = 0


Places = Mapping[tuple[int, ...], Sequence[Place]]
"""Parameters that something is derived from (itself, for a parameter) to where the samples are at each of its uses."""


def place(shape: tuple[int, ...], other: tuple[int, ...], count: int, other_count: int) -> Place | None:
    """Where samples are, from the shapes of one activation for two numbers of samples; None where that cannot be told.

    >>> place((3, 7, 16), (5, 7, 16), 3, 5)
    Place(kind='dim', at=0)
    >>> place((12, 16), (20, 16), 3, 5)
    Place(kind='fold', at=4)
    """
    if len(shape) != len(other):
        return None
    differ = [at for at, (one, two) in enumerate(zip(shape, other, strict=True)) if one != two]
    if not differ:
        return Place("none")
    at = differ[0]
    if len(differ) > 1:
        return None
    if (shape[at], other[at]) == (count, other_count):
        return Place("dim", at)
    each = shape[at] // count
    folded = at == 0 and (shape[at], other[at]) == (each * count, each * other_count)
    return Place("fold", each) if folded else None


@dataclass(slots=True)
class Kept:
    """The gradient of an output, once the backward pass has been there; None where it never was.

    Attributes:
        gradient: it, or what `digest` made of it.
        digest: makes something smaller of it at once, so that a backward pass holds fewer gradients than it meets.
    """

    gradient: Tensor | None = None
    digest: Callable[[Tensor], Tensor] | None = None

    def hook(self, gradient: Tensor) -> None:
        """For `register_hook`: keeps, changes nothing."""
        if self.gradient is not None:
            raise NoRule(["parameters"], "a forward pass that differentiates itself")
        self.gradient = gradient if self.digest is None else self.digest(gradient)
        self.digest = None  # with what it read


@dataclass(slots=True)
class Use:
    """One use of one parameter, or of something derived from parameters.

    Attributes:
        slot: which parameter; negative for the number of a derived tensor, less one.
        what: name of the function, for tables and messages.
        piece: called after the backward pass; None where no gradient arrived.
        read: tensors whose values `piece` reads, with their versions at the time of recording.
    """

    slot: int
    what: str
    piece: Callable[[], Piece | None]
    read: tuple[tuple[Tensor, int], ...] = ()


@dataclass(slots=True)
class Derived:
    """A tensor computed from parameters alone, without any sample in it: a slice, a normalised weight, a position.

    Attributes:
        slots: of the parameters (or, negative, of other derived tensors).
        what: name of the function.
        tensor: the values; held so that its identity stays its own.
        back: per-sample gradients (n, *shape of tensor) to one piece for each of `slots`.
        transposed: there is one parameter, a matrix, and this is its transpose.
    """

    slots: tuple[int, ...]
    what: str
    tensor: Tensor
    back: Callable[[Tensor], Sequence[Piece]]
    transposed: bool = False


class _Root(torch.autograd.Function):
    """Runs a function none of whose inputs needs a gradient, so that its output has one for the tape to keep."""

    @staticmethod
    def forward(ctx: Any, probe: Tensor, kept: Kept, function: Callable[[], Tensor]) -> Tensor:  # noqa: ANN401
        ctx.kept = kept
        return function()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:  # noqa: ANN401
        ctx.kept.hook(gradients[0])
        return None, None, None


@dataclass
class Tape(TorchFunctionMode):
    """A context in which uses of parameters are recorded.

    Attributes:
        count: physical samples in the batch, n.
        slots: id of a trainable parameter to its number.
        names: of the parameters, by number.
        places: where the samples are at every use; None while that is being found out.
        rules: function to how its use of parameters is recorded.
        otherwise: what records any other function whose result needs a gradient.
        uses: what was recorded.
        derived: tensors that stand for parameters.
        shapes: of the activation, by parameters and use.
        guesses: where a trace took the samples to be, by parameters and use.
    """

    count: int
    slots: Mapping[int, int]
    names: tuple[str, ...]
    places: Places | None
    rules: Mapping[Callable[..., Any], Callable[..., Any]]
    otherwise: Callable[..., Any]
    uses: list[Use] = field(default_factory=list[Use])
    derived: list[Derived] = field(default_factory=list[Derived])
    shapes: dict[tuple[int, ...], list[tuple[int, ...]]] = field(
        default_factory=dict[tuple[int, ...], list[tuple[int, ...]]]
    )
    guesses: dict[tuple[int, ...], list[Place]] = field(default_factory=dict[tuple[int, ...], list[Place]])

    def __post_init__(self) -> None:
        super().__init__()
        self.probe = torch.zeros((), requires_grad=True)
        self._ids: dict[int, int] = dict(self.slots)
        self._closed = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if func in CROSSING:
            refuse_crossing(func, args, kwargs)
        if self.places is None and may_reorder(func, args, kwargs, self.count):
            name = str(getattr(func, "__name__", func))
            raise NoRule(["parameters"], f"a forward pass that may change the order of samples ({name})")
        held = self._holds(args) or self._holds(kwargs.values())
        if not held or func is torch.autograd.grad or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if self._closed:
            names = self.names_in((*args, *kwargs.values()))
            raise NoRule(names, "a forward pass that runs again in the backward pass (checkpointing)")
        rule = self.rules.get(func)
        if rule is not None:
            return rule(self, func, *args, **kwargs)
        out = func(*args, **kwargs)
        depends = any(each.requires_grad for each in tensors_in((out,)))
        return self.otherwise(self, func, *args, **kwargs) if depends else out

    def slot(self, value: object) -> int | None:
        """The number of the parameter or derived tensor that `value` is, or None."""
        return self._ids.get(id(value))

    def origins(self, slot: int) -> tuple[int, ...]:
        """The parameters that a slot is, or is derived from."""
        if slot >= 0:
            return (slot,)
        return tuple(origin for parent in self.derived[-slot - 1].slots for origin in self.origins(parent))

    def name(self, slot: int) -> str:
        """Of the parameters that a slot is, or is derived from."""
        return ", ".join(self.names[each] for each in dict.fromkeys(self.origins(slot)))

    def derive(
        self,
        slots: tuple[int, ...],
        what: str,
        tensor: Tensor,
        back: Callable[[Tensor], Sequence[Piece]],
        *,
        transposed: bool = False,
    ) -> Tensor:
        """Let something stand for parameters from now on; it needs a gradient, so autograd tells if a use is missed."""
        tensor = tensor.detach().requires_grad_()
        self.derived.append(Derived(slots, what, tensor, back, transposed))
        self._ids[id(tensor)] = -len(self.derived)
        return tensor

    def locate(self, slot: int, shape: tuple[int, ...], what: str) -> Place:
        """Where the samples are in an activation of this shape that meets the parameter `slot`.

        Raises:
            NoRule: where they are not where the traces saw them.
        """
        key = self.origins(slot)
        seen = self.shapes.setdefault(key, [])
        seen.append(shape)
        if self.places is None:
            guess = _guess(shape, self.count)
            self.guesses.setdefault(key, []).append(guess)
            return guess
        traced = self.places.get(key, ())
        if len(seen) > len(traced) and not _alike(traced):
            raise NoRule([self.name(slot)], f"{what}: more uses than when the module was traced")
        found = traced[min(len(seen), len(traced)) - 1]
        size = self.count * (found.at if found.kind == "fold" else 1)
        at = found.at if found.kind == "dim" else 0
        if found.kind != "none" and (at >= len(shape) or shape[at] != size):
            raise NoRule([self.name(slot)], f"{what}: an input of shape {shape} for {self.count} samples")
        return found

    def watch(self, kept: Kept, function: Callable[[], Tensor], *givers: Tensor | None) -> Tensor:
        """Run `function`, whose activations are `givers`, and keep the gradient of its output."""
        if any(giver is not None and giver.requires_grad for giver in givers):
            out = function()
            out.register_hook(kept.hook)
            return out
        return cast("Tensor", _Root.apply(self.probe, kept, function))

    def backward(self, total: Tensor, parameters: Sequence[Tensor]) -> None:
        """Run the backward pass of `total`, from which the tape keeps what it needs.

        Raises:
            NoRule: where a parameter was used unseen, where the forward pass took another course than it was traced
                on, and where something that is needed was changed in place.
        """
        self._closed = True
        for key, traced in (self.places or {}).items():
            if len(traced) > 1 and len(self.shapes.get(key, ())) != len(traced) and not _alike(traced):
                raise NoRule([self.names[each] for each in key], "a forward pass that is not the one that was traced")
        if total.requires_grad:
            ends = (*parameters, *(each.tensor for each in self.derived))
            with self:
                given = torch.autograd.grad(total, (self.probe, *ends), allow_unused=True)
            found = cast("tuple[Tensor | None, ...]", given)[1:]
            missed = [self.slot(end) for end, gradient in zip(ends, found, strict=True) if gradient is not None]
            if missed:
                names = dict.fromkeys(self.name(slot) for slot in missed if slot is not None)
                raise NoRule(names, "a function that torch does not show (compiled code or an autograd.Function)")
        for use in self.uses:
            if any(tensor._version != version for tensor, version in use.read):
                raise NoRule([self.name(use.slot)], f"{use.what}, whose input was changed in place after that")

    def _holds(self, values: Iterable[object]) -> bool:
        ids = self._ids
        return any(
            id(each) in ids or (type(each) in _NESTED and any(id(one) in ids for one in tensors_in((each,))))
            for each in values
        )

    def names_in(self, used: Iterable[object]) -> list[str]:
        """Of the parameters among values."""
        return sorted({self.name(self._ids[id(each)]) for each in tensors_in(used) if id(each) in self._ids})


_NESTED = frozenset((list, tuple, dict))


def _alike(traced: Sequence[Place]) -> bool:
    """Whether all uses met samples in the same place; then a loop over positions may be longer than it was traced."""
    return bool(traced) and all(each == traced[0] for each in traced)


def _guess(shape: tuple[int, ...], count: int) -> Place:
    """What one shape suggests; a trace whose guesses are wrong is made again with another number of samples."""
    if shape and shape[0] and shape[0] % count == 0:
        return Place("dim") if shape[0] == count else Place("fold", shape[0] // count)
    return Place("dim", shape.index(count)) if count in shape else Place("none")


def tensors_in(values: Iterable[object]) -> list[Tensor]:
    """The tensors among values, and among the elements of lists, tuples and dictionaries there."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(tensors_in(cast("Iterable[object]", value)))
        elif isinstance(value, dict):
            found.extend(tensors_in(cast("dict[object, object]", value).values()))
    return found
