"""How uses of parameters are recorded: one rule a function. `LAYERS` is a part of what a tape looks into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vambrace.privacy.dp.engine.convolution import Convolved, Window
from vambrace.privacy.dp.engine.pieces import Direct, Piece, Rows, folded, over_positions, wide
from vambrace.privacy.dp.engine.products import Outer
from vambrace.privacy.dp.engine.tape import Kept, NoRule, Place, Tape, Use

__all__ = ["LAYERS", "by_sample", "linear", "name_of", "positions", "product", "record", "sample_place", "summed"]


def record(tape: Tape, slot: int | None, what: str, kept: Kept, make: Callable[[Tensor], Piece], *read: Tensor) -> None:
    """Note one use of a parameter, whose piece `make` builds from the gradient that `kept` will hold.

    Args:
        tape: the tape.
        slot: of the parameter; None, for one that is not trained, notes nothing.
        what: name of the function.
        kept: of the output.
        make: from the gradient of the output.
        read: tensors that `make` reads, whose values must not change until then.
    """
    if slot is None:
        return

    def piece() -> Piece | None:
        return None if kept.gradient is None else make(kept.gradient)

    tape.uses.append(Use(slot, what, piece, tuple((each, each._version) for each in read)))


def name_of(func: Callable[..., Any]) -> str:
    """For tables and messages."""
    return str(getattr(func, "__name__", func))


def by_sample(tensor: Tensor, where: Place, count: int) -> Tensor:
    """An activation or its gradient with samples first: (n, ...); positions of a fold follow."""
    if where.kind == "fold":
        return folded(tensor, 0, (count, where.at))
    return tensor.movedim(where.at, 0) if where.at else tensor


def positions(tensor: Tensor, where: Place, count: int) -> Tensor:
    """(n, T, features) of an activation whose last dimension holds features."""
    return by_sample(tensor, where, count).reshape(count, -1, tensor.shape[-1])


def sample_place(tape: Tape, slot: int, inputs: Tensor, what: str) -> Place | None:
    """Where the samples of an activation are; None for what has none: parameters, or constants that all samples share.

    Raises:
        NoRule: for an activation without samples that still came from them.
    """
    if tape.slot(inputs) is not None:
        return None
    where = tape.locate(slot, tuple(inputs.shape), what)
    if where.kind != "none":
        return where
    if inputs.requires_grad:
        raise NoRule([tape.name(slot)], f"{what} on an input of shape {tuple(inputs.shape)} without samples")
    return None


def summed(gradient: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The gradient (n, ...) of an output that a tensor of `shape` was broadcast to, summed to (n, *shape)."""
    gradient = wide(gradient)
    extra = gradient.dim() - 1 - len(shape)
    if extra > 0:
        gradient = gradient.sum(dim=tuple(range(1, 1 + extra)))
    ones = [1 + at for at, size in enumerate(shape) if size == 1 and gradient.shape[1 + at] != 1]
    return gradient.sum(dim=ones, keepdim=True) if ones else gradient


def linear(
    tape: Tape, func: Callable[..., Tensor], input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """`F.linear` with any leading dimensions, of parameters that may or may not be trained."""
    slots = tape.slot(weight), tape.slot(bias)
    first = next((slot for slot in slots if slot is not None), None)
    if first is None:
        return func(input, weight, bias)
    where = sample_place(tape, first, input, "linear")
    if where is None:
        return tape.otherwise(tape, func, input, weight, bias)
    if weight.dim() != 2:
        raise NoRule([tape.name(first)], "a linear layer whose weight is no matrix")
    return product(tape, "linear", func, input, weight, bias, where)


def product(
    tape: Tape,
    what: str,
    func: Callable[..., Tensor],
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    where: Place,
    *,
    transposed: bool = False,
) -> Tensor:
    """Run and record `func(inputs, weight, bias)`, a product over the last dimension of inputs."""
    kept, count, given = Kept(), tape.count, inputs.detach()
    plain = weight.detach(), None if bias is None else bias.detach()
    out = tape.watch(kept, lambda: func(inputs, *plain), inputs)
    slot = tape.slot(weight)
    if slot is not None and slot < 0 and tape.derived[-slot - 1].transposed:
        slot, transposed = tape.derived[-slot - 1].slots[0], not transposed

    def outer(gradient: Tensor) -> Piece:
        return Outer(positions(given, where, count), positions(gradient, where, count), transposed=transposed)

    record(tape, slot, what, kept, outer, given)
    record(
        tape,
        tape.slot(bias),
        what,
        kept,
        lambda gradient: Direct(over_positions(positions(gradient, where, count))),
    )
    return out


def _matmul(tape: Tape, func: Callable[..., Tensor], input: Tensor, other: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
    slot = tape.slot(other)
    if slot is None:
        return _left(tape, func, input, other, **options)
    where = sample_place(tape, slot, input, "matmul")
    if where is None:
        return tape.otherwise(tape, func, input, other, **options)
    if other.dim() != 2 or options:
        raise NoRule([tape.name(slot)], "a product of more than two dimensions")

    def run(given: Tensor, matrix: Tensor, _: Tensor | None) -> Tensor:
        return func(given, matrix)

    return product(tape, "matmul", run, input, other, None, where, transposed=True)


def _left(tape: Tape, func: Callable[..., Tensor], matrix: Tensor, other: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
    """`matrix @ activation`, with samples (n, d, L)."""
    slot = tape.slot(matrix)
    assert slot is not None
    where = sample_place(tape, slot, other, "matmul")
    if where is None:
        return tape.otherwise(tape, func, matrix, other, **options)
    if matrix.dim() != 2 or other.dim() != 3 or options or where != Place("dim", 0):
        raise NoRule([tape.name(slot)], "a product with the parameter on the left")
    return product(tape, "matmul", F.linear, other.mT, matrix, None, where).mT


def _addmm(
    tape: Tape, func: Callable[..., Tensor], bias: Tensor, input: Tensor, weight: Tensor, **options: Any
) -> Tensor:  # noqa: ANN401
    slot = next(each for each in map(tape.slot, (weight, bias, input)) if each is not None)
    if options or tape.slot(input) is not None or bias.dim() != 1:
        raise NoRule([tape.name(slot)], "addmm that is no linear layer")
    where = sample_place(tape, slot, input, "addmm")
    if where is None:
        return tape.otherwise(tape, func, bias, input, weight)

    def run(given: Tensor, matrix: Tensor, shift: Tensor | None) -> Tensor:
        return func(shift, given, matrix)

    return product(tape, "addmm", run, input, weight, bias, where, transposed=True)


def _convolution(
    tape: Tape,
    func: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    options = stride, padding, dilation, groups
    where = _images(tape, input, weight, bias, "convolution")
    if where is None:
        return tape.otherwise(tape, func, input, weight, bias, *options)
    kept, count, given = Kept(), tape.count, input.detach()
    shape = tuple(weight.shape)
    window = _window(shape[2:], stride, padding, dilation, groups)
    plain = weight.detach(), None if bias is None else bias.detach()
    out = tape.watch(kept, lambda: func(input, *plain, *options), input)
    record(
        tape,
        tape.slot(weight),
        "convolution",
        kept,
        lambda gradient: Convolved(given, gradient, shape, window, count),
        given,
    )
    record(tape, tape.slot(bias), "convolution", kept, lambda gradient: _channel_sums(gradient, count))
    return out


def _transposed_convolution(
    tape: Tape,
    func: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    output_padding: int | tuple[int, ...] = 0,
    groups: int = 1,
    dilation: int | tuple[int, ...] = 1,
) -> Tensor:
    options = stride, padding, output_padding, groups, dilation
    where = _images(tape, input, weight, bias, "transposed convolution")
    if where is None:
        return tape.otherwise(tape, func, input, weight, bias, *options)
    kept, count, given = Kept(), tape.count, input.detach()
    shape = tuple(weight.shape)
    window = _window(shape[2:], stride, padding, dilation, groups)
    plain = weight.detach(), None if bias is None else bias.detach()
    out = tape.watch(kept, lambda: func(input, *plain, *options), input)
    # Its weight takes the gradient of its output to its input, as a convolution with the same window would.
    record(
        tape,
        tape.slot(weight),
        "transposed convolution",
        kept,
        lambda gradient: Convolved(gradient, given, shape, window, count),
        given,
    )
    record(tape, tape.slot(bias), "transposed convolution", kept, lambda gradient: _channel_sums(gradient, count))
    return out


def _images(tape: Tape, inputs: Tensor, weight: Tensor, bias: Tensor | None, what: str) -> Place | None:
    """Where the samples of images (n, c, *spatial) are; None where there are none."""
    slot = next(each for each in map(tape.slot, (weight, bias, inputs)) if each is not None)
    where = sample_place(tape, slot, inputs, what)
    if where is not None and (inputs.dim() != weight.dim() or (where.kind == "dim" and where.at)):
        raise NoRule([tape.name(slot)], f"a {what} of an input of shape {tuple(inputs.shape)}")
    return where


def _channel_sums(gradient: Tensor, count: int) -> Piece:
    return Direct(wide(gradient).flatten(2).sum(dim=2).view(count, -1, gradient.shape[1]).sum(dim=1))


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
    assert slot is not None  # the index is never a parameter
    padding = None if padding_idx is None else padding_idx % weight.shape[0]
    where, count, shape = tape.locate(slot, tuple(index.shape), "embedding"), tape.count, tuple(weight.shape)
    taken = index.detach()
    if where.kind == "none":
        # Positions that all samples share: what is looked up stands for the table until it meets a sample.
        flat = taken.flatten()

        def back(gradients: Tensor) -> list[Piece]:
            return [Rows(flat.expand(count, -1), gradients.reshape(count, -1, shape[1]), shape, padding)]

        return tape.derive((slot,), "embedding", func(index, weight.detach()), back)

    def rows(gradient: Tensor) -> Piece:
        chosen = by_sample(taken, where, count).reshape(count, -1)
        return Rows(chosen, by_sample(gradient, where, count).reshape(count, -1, shape[1]), shape, padding)

    kept = Kept()
    out = tape.watch(kept, lambda: func(index, weight.detach(), padding_idx))
    record(tape, slot, "embedding", kept, rows, taken)
    return out


LAYERS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.linear: linear,
    torch.matmul: _matmul,
    Tensor.matmul: _matmul,
    Tensor.__matmul__: _matmul,
    torch.mm: _matmul,
    Tensor.mm: _matmul,
    torch.addmm: _addmm,
    torch.conv1d: _convolution,
    torch.conv2d: _convolution,
    torch.conv3d: _convolution,
    torch.conv_transpose1d: _transposed_convolution,
    torch.conv_transpose2d: _transposed_convolution,
    torch.conv_transpose3d: _transposed_convolution,
    F.embedding: _embedding,
}
