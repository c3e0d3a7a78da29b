"""Bare parameters: scales, shifts and tokens that meet activations, and what is made of parameters alone.

A parameter that is broadcast against a batch is spread to the shape of the result first; autograd then leaves the
gradient of every sample's copy, which is summed to the parameter's shape. A function of parameters and of no activation
gives a `Derived` tensor, which stands for them until it meets a sample; the way back is the function's own derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

from vambrace.privacy.dp.engine.exact import unwarned
from vambrace.privacy.dp.engine.pieces import Direct, Piece
from vambrace.privacy.dp.engine.rules import by_sample, name_of, record, summed
from vambrace.privacy.dp.engine.tape import Kept, NoRule, Place, Tape, tensors_in

__all__ = ["OPERATORS", "derive", "spread"]


def derive(tape: Tape, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Run a function of parameters (or of what stands for them) and constants; its tensors stand for them from now on.

    Raises:
        NoRule: where an activation goes in as well.
    """
    tensors = tensors_in((*args, *kwargs.values()))
    tracked = {id(each): each for each in tensors if tape.slot(each) is not None}
    slots = tuple(slot for slot in map(tape.slot, tracked.values()) if slot is not None)
    if any(each.requires_grad for each in tensors if id(each) not in tracked):
        raise NoRule([tape.name(slot) for slot in slots], name_of(func))
    leaves = {key: each.detach().requires_grad_() for key, each in tracked.items()}

    def swapped(value: object) -> object:
        if isinstance(value, list):
            return [swapped(each) for each in cast("list[object]", value)]
        if isinstance(value, tuple):
            return tuple(swapped(each) for each in cast("tuple[object, ...]", value))
        return leaves.get(id(value), value)

    found: object = func(*map(swapped, args), **{name: swapped(value) for name, value in kwargs.items()})

    def stand_in(out: object) -> object:
        if not isinstance(out, Tensor) or not out.requires_grad:
            return out
        for key, leaf in leaves.items():
            if out is leaf:
                return tracked[key]

        def back(gradients: Tensor) -> list[Piece]:
            given = tuple(leaves.values())
            with unwarned():
                found = torch.autograd.grad(
                    out,
                    given,
                    gradients.to(out.dtype),
                    is_grads_batched=True,
                    retain_graph=True,
                    materialize_grads=True,
                )
            return [Direct(each) for each in found]

        return tape.derive(slots, name_of(func), out, back)

    if isinstance(found, tuple | list):
        parts = [stand_in(each) for each in cast("Iterable[object]", found)]
        return tuple(parts) if isinstance(found, tuple) else parts
    return stand_in(found)


def _transpose(tape: Tape, func: Callable[..., Tensor], matrix: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    slot, dims = tape.slot(matrix), (*args, *kwargs.values())
    swaps_two = not dims or sorted(each % 2 for each in dims if isinstance(each, int)) == [0, 1]
    if slot is None or slot < 0 or matrix.dim() != 2 or not swaps_two:
        return derive(tape, func, matrix, *args, **kwargs)
    return tape.derive((slot,), "t", matrix.t(), lambda gradients: [Direct(gradients.mT)], transposed=True)


def _pointwise(tape: Tape, func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    """An operation that broadcasts all its tensors, element by element."""
    tensors = tensors_in((*args, *kwargs.values()))
    parameters = {id(each): each for each in tensors if tape.slot(each) is not None}
    others = [each for each in tensors if id(each) not in parameters]
    if not others:
        return derive(tape, func, *args, **kwargs)
    slots = [slot for slot in map(tape.slot, parameters.values()) if slot is not None]
    if _changes_parameter(tape, func, args) or "out" in kwargs:
        raise NoRule([tape.name(slot) for slot in slots], name_of(func))
    shape = cast("tuple[int, ...]", torch.broadcast_shapes(*(each.shape for each in tensors)))
    wheres = [tape.locate(slot, shape, "an expression") for slot in slots]
    if wheres[0].kind == "none":
        if not any(each.requires_grad for each in others):
            return derive(tape, func, *args, **kwargs)
        raise NoRule([tape.name(slot) for slot in slots], "an expression with something that has no samples")
    spreads = {
        key: spread(tape, slot, each, where, each.detach().expand(shape))
        for (key, each), slot, where in zip(parameters.items(), slots, wheres, strict=True)
    }
    named = {name: spreads.get(id(value), value) for name, value in kwargs.items()}
    return func(*(spreads.get(id(value), value) for value in args), **named)


def _expand(tape: Tape, func: Callable[..., Tensor], parameter: Tensor, *sizes: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
    slot = tape.slot(parameter)
    if slot is None:
        raise NoRule(["a parameter"], name_of(func))
    out = func(parameter.detach(), *sizes, **kwargs)
    where = tape.locate(slot, tuple(out.shape), "expand")
    if where.kind == "none":
        return derive(tape, func, parameter, *sizes, **kwargs)
    if func in _REPEATS and out.numel() != parameter.numel() * tape.count:
        raise NoRule([tape.name(slot)], "a repetition over more than the samples")
    return spread(tape, slot, parameter, where, out)


def spread(tape: Tape, slot: int, parameter: Tensor, where: Place, out: Tensor) -> Tensor:
    """A parameter as an activation of its own, `out`, whose gradient is kept."""
    kept, count, size = Kept(), tape.count, tuple(parameter.shape)

    def piece(gradient: Tensor) -> Piece:
        first = by_sample(gradient, where, count)
        # The dimension of the samples stays, of size one, so that the others still line up with the parameter's.
        return Direct(summed(first.unsqueeze(1 + where.at) if where.kind == "dim" else first, size))

    record(tape, slot, "an expression", kept, piece)
    return tape.watch(kept, lambda: out)


def _changes_parameter(tape: Tape, func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    name = name_of(func)
    in_place = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
    return in_place and tape.slot(args[0]) is not None


_REPEATS = frozenset((Tensor.repeat, Tensor.tile, torch.tile))
_NAMES = ("add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide")
_FREE = ("where", "lerp", "addcmul", "addcdiv", "maximum", "minimum", "pow", "fmod", "remainder", "atan2", "hypot")

OPERATORS: dict[Callable[..., Any], Callable[..., Any]] = {
    **{getattr(torch, name): _pointwise for name in (*_NAMES, *_FREE)},
    **{getattr(Tensor, name): _pointwise for name in (*_NAMES, *(f"{name}_" for name in _NAMES), *_FREE)},
    **{
        getattr(Tensor, f"__{side}{name}__"): _pointwise
        for side, names in (
            ("", ("add", "sub", "mul", "truediv", "pow")),
            ("r", ("add", "sub", "mul", "truediv", "pow")),
            ("i", ("add", "sub", "mul", "truediv")),
        )
        for name in names
    },
    Tensor.expand: _expand,
    Tensor.expand_as: _expand,
    Tensor.broadcast_to: _expand,
    torch.broadcast_to: _expand,
    **dict.fromkeys(_REPEATS, _expand),
    Tensor.t: _transpose,
    torch.t: _transpose,
    Tensor.transpose: _transpose,
    torch.transpose: _transpose,
    Tensor.T.__get__: _transpose,  # pyright: ignore[reportAttributeAccessIssue]
    Tensor.mT.__get__: _transpose,  # pyright: ignore[reportAttributeAccessIssue]
}
