"""Normalisation within samples: layers whose scale and shift are applied feature by feature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vambrace.privacy.dp.engine.pieces import Direct, wide
from vambrace.privacy.dp.engine.rules import by_sample, name_of, record, sample_place, summed
from vambrace.privacy.dp.engine.tape import Kept, NoRule, Tape

__all__ = ["NORMS"]


def _affine(
    tape: Tape,
    func: Callable[..., Tensor],
    inputs: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    run: Callable[[Tensor, Tensor | None, Tensor | None], Tensor],
    shape: Callable[[Tensor], Tensor],
    *,
    last: bool = False,
) -> Tensor:
    """Any of them.

    Args:
        tape: the tape.
        func: what was called.
        inputs: what is normalised.
        weight: scale.
        bias: shift.
        run: the function of input, scale and shift.
        shape: sums gradients (n, ...) to (n, *shape of the parameters).
        last: parameters belong to the last dimensions, not to the second.
    """
    slots = tape.slot(weight), tape.slot(bias)
    first = next((slot for slot in slots if slot is not None), None)
    what = name_of(func)
    where = None if first is None else sample_place(tape, first, inputs, what)
    if first is None or where is None:
        return tape.otherwise(tape, run, inputs, weight, bias)
    if where.kind == "dim" and where.at and not last:
        raise NoRule([tape.name(first)], f"{what} with samples along dimension {where.at}")
    given, count, names = inputs.detach(), tape.count, [tape.name(first)]
    version, trained = given._version, [slot for slot in slots if slot is not None]

    def digest(gradient: Tensor) -> Tensor:
        # At once: what a norm is given and gives back is as large as an activation, its parameters are not.
        if given._version != version:
            raise NoRule(names, f"{what}, whose input was changed in place after that")
        gradient, found = wide(gradient), list[Tensor]()
        if slots[0] is not None:
            found.append(gradient * wide(run(given, None, None)))
        if slots[1] is not None:
            found.append(gradient)
        return torch.stack([shape(by_sample(each, where, count)) for each in found])

    kept = Kept(digest=digest)
    plain = [None if each is None else each.detach() for each in (weight, bias)]
    out = tape.watch(kept, lambda: run(inputs, *plain), inputs)
    for number, slot in enumerate(trained):
        record(tape, slot, what, kept, lambda digested, number=number: Direct(digested[number]))
    return out


def _layer_norm(
    tape: Tape,
    func: Callable[..., Tensor],
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    size = tuple(normalized_shape)

    def run(given: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        return F.layer_norm(given, size, scale, shift, eps)

    return _affine(tape, func, input, weight, bias, run, lambda gradient: summed(gradient, size), last=True)


def _rms_norm(
    tape: Tape,
    func: Callable[..., Tensor],
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    size = tuple(normalized_shape)

    def run(given: Tensor, scale: Tensor | None, _: Tensor | None) -> Tensor:
        return F.rms_norm(given, size, scale, eps)

    return _affine(tape, func, input, weight, None, run, lambda gradient: summed(gradient, size), last=True)


def _group_norm(
    tape: Tape,
    func: Callable[..., Tensor],
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    def run(given: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        return F.group_norm(given, num_groups, scale, shift, eps)

    return _affine(tape, func, input, weight, bias, run, _channels(tape, input))


def _instance_norm(
    tape: Tape,
    func: Callable[..., Tensor],
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    # Statistics that are kept over samples are refused before this.
    def run(given: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        return func(given, running_mean, running_var, scale, shift, use_input_stats, momentum, eps)

    return _affine(tape, func, input, weight, bias, run, _channels(tape, input))


def _batch_norm(
    tape: Tape,
    func: Callable[..., Tensor],
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    # By statistics that stay as they are; those of the batch are refused before this.
    def run(given: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        return func(given, running_mean, running_var, scale, shift, training, momentum, eps)

    return _affine(tape, func, input, weight, bias, run, _channels(tape, input))


def _channels(tape: Tape, inputs: Tensor) -> Callable[[Tensor], Tensor]:
    """Sums (n, c, ...) or a fold of it, (n, k, c, ...), to (n, c)."""
    if inputs.dim() < 2:
        raise NoRule(["parameters"], f"a norm of an input of shape {tuple(inputs.shape)}")
    channels, dims = inputs.shape[1], inputs.dim()

    def shape(gradient: Tensor) -> Tensor:
        merged = gradient.reshape(-1, channels, *gradient.shape[gradient.dim() - dims + 2 :])
        sums = merged.flatten(2).sum(dim=2) if dims > 2 else merged
        return sums.view(tape.count, -1, channels).sum(dim=1)

    return shape


NORMS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.instance_norm: _instance_norm,
    F.batch_norm: _batch_norm,
}
