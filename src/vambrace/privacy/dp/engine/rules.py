"""How uses of parameters are recorded: one rule a function. `RULES` is what a tape looks into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vambrace.privacy.dp.engine.convolution import Convolved, Window
from vambrace.privacy.dp.engine.pieces import Direct, Outer, Piece, Rows, wide
from vambrace.privacy.dp.engine.tape import Kept, NoRule, Place, Tape, Use

__all__ = ["LAYERS", "by_sample", "linear", "record", "spread_out", "summed"]


def record(tape: Tape, slot: int, what: str, kept: Kept, make: Callable[[Tensor], Piece], *guarded: Tensor) -> None:
    """Note one use of a parameter, whose piece `make` builds from the gradient that `kept` will hold."""

    def piece() -> Piece | None:
        return None if kept.gradient is None else make(kept.gradient)

    tape.uses.append(Use(slot, what, piece, tuple((each, each._version) for each in guarded)))


def by_sample(tensor: Tensor, where: Place, count: int) -> Tensor:
    """An activation or its gradient with samples first: (n, ...); positions of a fold follow."""
    if where.kind == "fold":
        return tensor.unflatten(0, (count, where.at))
    return tensor.movedim(where.at, 0) if where.at else tensor


def positions(tensor: Tensor, where: Place, count: int) -> Tensor:
    """(n, T, features) of an activation whose last dimension holds features."""
    first = by_sample(tensor, where, count)
    return first.reshape(count, -1, tensor.shape[-1])


def spread_out(tape: Tape, slot: int, inputs: Tensor, what: str) -> tuple[Tensor, Place]:
    """An activation with a dimension for the samples, and where it is: what serves all samples alike is repeated.

    Raises:
        NoRule: where there is no dimension that could be repeated.
    """
    where = tape.locate(slot, inputs, what)
    if where.kind != "none":
        return inputs, where
    if inputs.dim() > 1 and inputs.shape[0] == 1:
        return inputs.expand(tape.count, *inputs.shape[1:]), Place("dim", 0)
    raise NoRule([tape.name(slot)], f"{what} on an input of shape {tuple(inputs.shape)} without samples")


def summed(gradient: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The gradient (n, ...) of an output that a tensor of `shape` was broadcast to, summed to (n, *shape)."""
    gradient = wide(gradient)
    extra = gradient.dim() - 1 - len(shape)
    if extra > 0:
        gradient = gradient.sum(dim=tuple(range(1, 1 + extra)))
    ones = [1 + at for at, size in enumerate(shape) if size == 1 and gradient.shape[1 + at] != 1]
    return gradient.sum(dim=ones, keepdim=True) if ones else gradient


def linear(
    tape: Tape, func: Callable[..., Tensor], inputs: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """`F.linear` with any leading dimensions."""
    slots = tape.slot(weight), tape.slot(bias)
    first = next(slot for slot in slots if slot is not None)
    if weight.dim() != 2 or tape.slot(inputs) is not None:
        raise NoRule([tape.name(first)], "a product of parameters")
    inputs, where = spread_out(tape, first, inputs, "linear")
    kept, count = Kept(), tape.count
    plain_bias = None if bias is None else bias.detach()
    out = tape.watch(kept, lambda: func(inputs, weight.detach(), plain_bias), inputs)
    given = inputs.detach()
    if slots[0] is not None:
        record(
            tape,
            slots[0],
            "linear",
            kept,
            lambda gradient: Outer(positions(given, where, count), positions(gradient, where, count)),
            given,
        )
    if slots[1] is not None:
        record(
            tape,
            slots[1],
            "linear",
            kept,
            lambda gradient: Direct(wide(positions(gradient, where, count)).sum(dim=1)),
        )
    return out


def _matmul(tape: Tape, func: Callable[..., Tensor], inputs: Tensor, other: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
    slot = tape.slot(other)
    if slot is None or other.dim() != 2 or options or tape.slot(inputs) is not None:
        name = tape.name(next(each for each in (slot, tape.slot(inputs)) if each is not None))
        raise NoRule([name], "a product with the parameter on the left, or of more than two dimensions")
    source = tape.derived[-slot - 1] if slot < 0 else None
    flipped = source is not None and source.transposed
    target = source.slots[0] if source is not None and flipped else slot
    inputs, where = spread_out(tape, target, inputs, "matmul")
    kept, count, given = Kept(), tape.count, inputs.detach()
    out = tape.watch(kept, lambda: func(inputs, other.detach()), inputs)
    record(
        tape,
        target,
        "matmul",
        kept,
        lambda gradient: Outer(
            positions(given, where, count), positions(gradient, where, count), transposed=not flipped
        ),
        given,
    )
    return out


def _convolution(
    tape: Tape,
    func: Callable[..., Tensor],
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    slots = tape.slot(weight), tape.slot(bias)
    first = next(slot for slot in slots if slot is not None)
    inputs, where = spread_out(tape, first, inputs, "convolution")
    if inputs.dim() != weight.dim() or (where.kind == "dim" and where.at):
        raise NoRule([tape.name(first)], f"a convolution of an input of shape {tuple(inputs.shape)}")
    kept, count, shape = Kept(), tape.count, tuple(weight.shape)
    window = _window(shape[2:], stride, padding, dilation, groups)
    plain_bias = None if bias is None else bias.detach()
    out = tape.watch(kept, lambda: func(inputs, weight.detach(), plain_bias, stride, padding, dilation, groups), inputs)
    given = inputs.detach()
    if slots[0] is not None:
        record(
            tape,
            slots[0],
            "convolution",
            kept,
            lambda gradient: Convolved(given, gradient, shape, window, count),
            given,
        )
    if slots[1] is not None:
        record(
            tape,
            slots[1],
            "convolution",
            kept,
            lambda gradient: Direct(wide(gradient).flatten(2).sum(dim=2).view(count, -1, shape[0]).sum(dim=1)),
        )
    return out


def _window(
    kernel: tuple[int, ...],
    stride: int | tuple[int, ...],
    padding: int | str | tuple[int, ...],
    dilation: int | tuple[int, ...],
    groups: int,
) -> Window:
    dims = len(kernel)

    def each(value: int | tuple[int, ...]) -> tuple[int, ...]:
        values = (value,) if isinstance(value, int) else tuple(value)
        return values * dims if len(values) == 1 else values

    gaps = each(dilation)
    if padding == "same":
        total = [gap * (size - 1) for gap, size in zip(gaps, kernel, strict=True)]
        sides = tuple((whole // 2, whole - whole // 2) for whole in total)
    else:
        sides = tuple((side, side) for side in each(0 if isinstance(padding, str) else padding))
    return Window(kernel, each(stride), sides, gaps, groups)


def _embedding(
    tape: Tape,
    func: Callable[..., Tensor],
    index: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    slot = tape.slot(weight)
    assert slot is not None  # noqa: S101  the index is never a parameter
    if max_norm is not None or scale_grad_by_freq:
        raise NoRule([tape.name(slot)], "an embedding with max_norm or scale_grad_by_freq, which look across samples")
    padding = None if padding_idx is None else padding_idx % weight.shape[0]
    where, count, shape = tape.locate(slot, index, "embedding"), tape.count, tuple(weight.shape)
    if where.kind == "none" and index.dim() and index.shape[0] == 1:
        index, where = index.expand(count, *index.shape[1:]), Place("dim", 0)
    taken = index.detach()

    def rows(gradient: Tensor) -> Piece:
        chosen = by_sample(taken, where, count).reshape(count, -1)
        return Rows(chosen, by_sample(gradient, where, count).reshape(count, -1, shape[1]), shape, padding)

    if where.kind == "none":
        # Positions that all samples share: what is looked up stands for the table until it meets a sample.
        flat = taken.flatten()

        def back(gradients: Tensor) -> list[Piece]:
            return [Rows(flat.expand(count, -1), gradients.reshape(count, -1, shape[1]), shape, padding)]

        return tape.derive((slot,), func(index, weight.detach()), back)
    kept = Kept()
    out = tape.watch(kept, lambda: func(index, weight.detach(), padding_idx))
    record(tape, slot, "embedding", kept, rows, taken)
    return out


def _affine(
    tape: Tape,
    func: Callable[..., Tensor],
    inputs: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    plain: Callable[[Tensor], Tensor],
    run: Callable[[Tensor, Tensor | None, Tensor | None], Tensor],
    shape: Callable[[Tensor], Tensor],
) -> Tensor:
    """Any normalisation within samples: `plain` is it without scale and shift, `shape` sums (n, ...) to parameters."""
    slots = tape.slot(weight), tape.slot(bias)
    first = next(slot for slot in slots if slot is not None)
    inputs, where = spread_out(tape, first, inputs, _title(func))
    kept, given, count = Kept(), inputs.detach(), tape.count
    detached = [None if each is None else each.detach() for each in (weight, bias)]
    out = tape.watch(kept, lambda: run(inputs, detached[0], detached[1]), inputs)
    if slots[0] is not None:
        record(
            tape,
            slots[0],
            _title(func),
            kept,
            lambda gradient: Direct(shape(by_sample(wide(gradient) * wide(plain(given)), where, count))),
            given,
        )
    if slots[1] is not None:
        record(
            tape,
            slots[1],
            _title(func),
            kept,
            lambda gradient: Direct(shape(by_sample(wide(gradient), where, count))),
        )
    return out


def _layer_norm(
    tape: Tape,
    func: Callable[..., Tensor],
    inputs: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    size = tuple(normalized_shape)
    return _affine(
        tape,
        func,
        inputs,
        weight,
        bias,
        lambda given: F.layer_norm(given, size, eps=eps),
        lambda given, scale, shift: F.layer_norm(given, size, scale, shift, eps),
        lambda gradient: summed(gradient, size),
    )


def _rms_norm(
    tape: Tape,
    func: Callable[..., Tensor],
    inputs: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    size = tuple(normalized_shape)
    return _affine(
        tape,
        func,
        inputs,
        weight,
        None,
        lambda given: F.rms_norm(given, size, eps=eps),
        lambda given, scale, _: F.rms_norm(given, size, scale, eps),
        lambda gradient: summed(gradient, size),
    )


def _group_norm(
    tape: Tape,
    func: Callable[..., Tensor],
    inputs: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return _affine(
        tape,
        func,
        inputs,
        weight,
        bias,
        lambda given: F.group_norm(given, num_groups, eps=eps),
        lambda given, scale, shift: F.group_norm(given, num_groups, scale, shift, eps),
        _channels(tape, inputs),
    )


def _instance_norm(
    tape: Tape,
    func: Callable[..., Tensor],
    inputs: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if running_mean is not None or not use_input_stats:
        slot = next(each for each in (tape.slot(weight), tape.slot(bias)) if each is not None)
        raise NoRule([tape.name(slot)], "an instance norm that keeps statistics over samples")
    return _affine(
        tape,
        func,
        inputs,
        weight,
        bias,
        lambda given: F.instance_norm(given, eps=eps),
        lambda given, scale, shift: F.instance_norm(given, weight=scale, bias=shift, eps=eps),
        _channels(tape, inputs),
    )


def _channels(tape: Tape, inputs: Tensor) -> Callable[[Tensor], Tensor]:
    """Sums (n, c, ...) or a fold of it, (n, k, c, ...), to (n, c)."""
    channels, dims = inputs.shape[1], inputs.dim()

    def shape(gradient: Tensor) -> Tensor:
        merged = gradient.reshape(-1, channels, *gradient.shape[gradient.dim() - dims + 2 :])
        return merged.flatten(2).sum(dim=2).view(tape.count, -1, channels).sum(dim=1)

    return shape


def _title(func: Callable[..., Any]) -> str:
    return str(getattr(func, "__name__", func))


LAYERS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.linear: linear,
    torch.matmul: _matmul,
    Tensor.matmul: _matmul,
    Tensor.__matmul__: _matmul,
    torch.mm: _matmul,
    Tensor.mm: _matmul,
    torch.conv1d: _convolution,
    torch.conv2d: _convolution,
    torch.conv3d: _convolution,
    F.embedding: _embedding,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.instance_norm: _instance_norm,
}
