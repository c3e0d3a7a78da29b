"""Bare parameters: scales, shifts and tokens that meet activations, and what is made of parameters alone.

A parameter that is broadcast against a batch is spread to the shape of the result first; autograd then leaves the
gradient of every sample's copy, which is summed to the parameter's shape. A function of parameters and of no activation
gives a `Derived` tensor, which stands for them until it meets a sample; the way back is the function's own derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vambrace.privacy.dp.engine.pieces import Direct, Piece
from vambrace.privacy.dp.engine.rules import by_sample, record, summed
from vambrace.privacy.dp.engine.tape import Kept, NoRule, Place, Tape, tensors_in

__all__ = ["OPERATORS", "derive"]


def derive(tape: Tape, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Run a function of parameters (or of what stands for them) and constants; its tensors stand for them from now on.

    Raises:
        NoRule: where an activation goes in as well.
    """
    tensors = tensors_in((*args, *kwargs.values()))
    tracked = {id(each): each for each in tensors if tape.slot(each) is not None}
    slots = tuple(slot for slot in map(tape.slot, tracked.values()) if slot is not None)
    if any(each.requires_grad for each in tensors if id(each) not in tracked):
        raise NoRule([tape.name(slot) for slot in slots], str(getattr(func, "__name__", func)))
    leaves = {key: each.detach().requires_grad_() for key, each in tracked.items()}

    def swapped(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list | tuple):
            return type(value)(map(swapped, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        return leaves.get(id(value), value)

    found = func(*map(swapped, args), **{name: swapped(value) for name, value in kwargs.items()})

    def stand_in(out: object) -> object:
        if not isinstance(out, Tensor) or not out.requires_grad:
            return out
        for key, leaf in leaves.items():
            if out is leaf:
                return tracked[key]

        def back(gradients: Tensor) -> list[Piece]:
            given = tuple(leaves.values())
            found = torch.autograd.grad(out, given, gradients.to(out.dtype), is_grads_batched=True, retain_graph=True)
            return [Direct(each) for each in found]

        return tape.derive(slots, out.detach(), back)

    return type(found)(map(stand_in, found)) if isinstance(found, tuple | list) else stand_in(found)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _transpose(tape: Tape, func: Callable[..., Tensor], matrix: Tensor, *args: Any) -> Tensor:  # noqa: ANN401
    slot = tape.slot(matrix)
    if (
        slot is None
        or slot < 0
        or matrix.dim() != 2
        or (args and sorted(each % 2 for each in args if isinstance(each, int)) != [0, 1])
    ):
        return derive(tape, func, matrix, *args)
    return tape.derive((slot,), matrix.detach().t(), lambda gradients: [Direct(gradients.mT)], transposed=True)


def _pointwise(tape: Tape, func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    tensors = [each for each in args if isinstance(each, Tensor)]
    slots = [slot for slot in map(tape.slot, tensors) if slot is not None]
    if len(tensors) == 1:
        return derive(tape, func, *args, **kwargs)
    if len(slots) != 1 or len(tensors) != 2 or _changes_parameter(tape, func, args):
        raise NoRule([tape.name(slot) for slot in slots], str(getattr(func, "__name__", func)))
    slot = slots[0]
    one, other = tensors
    shape = torch.broadcast_shapes(one.shape, other.shape)
    parameter, activation = (one, other) if tape.slot(one) is not None else (other, one)
    where = tape.locate(slot, activation.expand(shape), "an expression")
    if where.kind == "none":
        if not activation.requires_grad:
            return derive(tape, func, *args, **kwargs)
        raise NoRule([tape.name(slot)], "an expression with something that has no samples")
    spread = _spread(tape, slot, parameter, where, lambda: parameter.detach().expand(shape))
    return func(*(spread if each is parameter else each for each in args), **kwargs)


def _expand(tape: Tape, func: Callable[..., Tensor], parameter: Tensor, *sizes: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    slot = tape.slot(parameter)
    if slot is None:
        raise NoRule(["a parameter"], str(getattr(func, "__name__", func)))
    out = func(parameter.detach(), *sizes, **kwargs)
    where = tape.locate(slot, out, "expand")
    if where.kind != "dim" or out.numel() != parameter.numel() * tape.count:
        if where.kind == "none":
            return derive(tape, func, parameter, *sizes, **kwargs)
        raise NoRule([tape.name(slot)], "an expansion over more than the samples")
    return _spread(tape, slot, parameter, where, lambda: out)


def _spread(tape: Tape, slot: int, parameter: Tensor, where: Place, make: Callable[[], Tensor]) -> Tensor:
    """A parameter as an activation of its own, whose gradient is kept."""
    kept, count, size = Kept(), tape.count, tuple(parameter.shape)

    def piece(gradient: Tensor) -> Piece:
        first = by_sample(gradient, where, count)
        # The dimension of the samples stays, of size one, so that the others still line up with the parameter's.
        return Direct(summed(first.unsqueeze(1 + where.at) if where.kind == "dim" else first, size))

    out = tape.watch(kept, make)
    record(tape, slot, "an expression", kept, piece)
    return out


def _changes_parameter(tape: Tape, func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    name = str(getattr(func, "__name__", ""))
    in_place = name.endswith("_") and not name.endswith("__") or name.startswith("__i")
    return in_place and tape.slot(args[0]) is not None


_NAMES = ("add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide")

OPERATORS: dict[Callable[..., Any], Callable[..., Any]] = {
    **{getattr(torch, name): _pointwise for name in _NAMES},
    **{getattr(Tensor, name): _pointwise for name in (*_NAMES, *(f"{name}_" for name in _NAMES))},
    **{
        getattr(Tensor, f"__{side}{name}__"): _pointwise
        for side, names in (
            ("", ("add", "sub", "mul", "truediv")),
            ("r", ("add", "sub", "mul", "truediv")),
            ("i", ("add", "sub", "mul", "truediv")),
        )
        for name in names
    },
    Tensor.expand: _expand,
    Tensor.repeat: _expand,
    Tensor.t: _transpose,
    torch.t: _transpose,
    Tensor.transpose: _transpose,
    torch.transpose: _transpose,
    Tensor.T.__get__: _transpose,  # pyright: ignore[reportFunctionMemberAccess]
    Tensor.mT.__get__: _transpose,  # pyright: ignore[reportFunctionMemberAccess]
}
