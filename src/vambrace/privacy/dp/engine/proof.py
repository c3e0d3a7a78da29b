"""A few samples whose gradients are known the slow way, to hold faster ways against.

What clipping needs is that a sample's gradient is its own. A module is held to that in four ways, none of which trusts
a tolerance alone:

- samples alone give the losses and gradients that they give together;
- the loss of a sample stays the same when the samples beside it are exchanged, a few or many, under the same random
  draws;
- the loss of one sample sends back a gradient of exactly zero to the others, at every recorded use of a parameter;
- buffers, and tensors kept as attributes, end up the same whatever the samples were.

Parameters are moved a little from where they are while this goes on: a layer scaled by zero, as many are at the start
of training, would let nothing through to be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from vambrace.errors import ConfigError
from vambrace.privacy.dp.engine.quiet import Guarded, Start, put_back, quiet

if TYPE_CHECKING:
    from vambrace.privacy.dp.engine.engine import Task

__all__ = ["Proof", "cannot", "checked_losses", "crossed", "mixing", "moved", "short"]

_CLOSE = {torch.float64: (1e-7, 1e-10), torch.float32: (1e-3, 1e-5)}
"""By the type of the losses: the largest relative difference of a parameter's gradient, and a share of the gradient of
all parameters that is rounding."""

_ROUGH = 0.1, 0.02
"""The same where anything was computed in half precision."""

_APART = 10.0
"""How much farther off gradients may be that were computed at another number of samples."""

_NEARLY = 4.0
"""Largest difference of a loss among other neighbours, in units of its rounding and of what it differs by anyway."""

_NEARLY_OF_MANY = 1000.0
"""The same among many, whose number may decide in which order a module adds."""


class Proof:
    """Samples alone and together.

    Attributes:
        rows: the samples.
        finite: whether their gradients are.
        chance: whether the module draws anything but dropout, so that it may do something else another time.

    Args:
        module: what is trained.
        parameters: what is differentiated.
        task_of: numbers of samples to a task on them.
        start: called before each run.
        many: samples in a large batch; 0: none is tried.

    Raises:
        ConfigError: E151, where a sample's loss depends on the samples beside it; E152, where there is nothing to
            compare; E153, for losses of the wrong form.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Sequence[Tensor],
        task_of: Callable[[Sequence[int]], Task],
        start: Start,
        many: int = 0,
    ) -> None:
        self.rows = (0, 1, 2)
        self._module, self._task_of, self._start = module, task_of, start
        self._same_state(parameters)
        self._same_beside_others()
        self._same_beside_many(many)
        with quiet(start.seed) as heard:
            together = [self._losses(self.rows) for _ in range(2)]
            self.chance = heard.drew or start.touched
            if not _equal(*together):
                raise cannot(
                    module,
                    "its losses differ from one call to the next, though all generators start at the same place",
                    fix="draw from the generators of torch, Python or NumPy",
                )
            lone = torch.cat([self._losses([row]) for row in self.rows])
            self._close, self._trace = _ROUGH if heard.half else _CLOSE[lone.dtype]
            off = (lone - together[0]).abs() / (1.0 + lone.abs())
            if bool((off > 2.0 * self._close).any()):
                raise mixing(f"a sample whose loss changes by {float(off.max()):.2g} (relative) beside others")
            try:
                self._alone = [_gradients(self._run([row])[0], parameters) for row in self.rows]
                self._beside = [_gradients(each, parameters) for each in self._run(self.rows)]
            except RuntimeError as error:
                fix = (
                    "checkpoint with use_reentrant=False, or not at all; change nothing in place that a layer was given"
                )
                raise cannot(module, f"autograd: {short(error)}", fix=fix) from error
        self.finite = all(bool(one.isfinite().all()) for each in (*self._alone, *self._beside) for one in each)
        if self.finite and not self._near(self._beside, self._alone, _APART):
            raise mixing("a sample whose gradient changes with the samples beside it")

    def agrees(self, gradients: Sequence[Tensor], *, beside: bool) -> bool:
        """Whether per-sample gradients (3, ...), one tensor a parameter, are those that autograd gives.

        Args:
            gradients: to be held against them.
            beside: they came from the samples together, so they must be those of one loss after the other to within
                rounding. Those of the samples alone went through products of other shapes, and may be rounded before a
                difference is taken.
        """
        given = [[each[row].flatten().double() for each in gradients] for row in self.rows]
        return self._near(given, self._alone, _APART) and (not beside or self._near(given, self._beside, 1.0))

    def _near(self, given: list[list[Tensor]], expected: list[list[Tensor]], ease: float) -> bool:
        for mine, own in zip(given, expected, strict=True):
            whole = _length(torch.cat(own))
            for one, other in zip(mine, own, strict=True):
                if not _length(one - other) <= ease * (self._close * _length(other) + self._trace * whole):
                    return False
        return True

    def _losses(self, rows: Sequence[int]) -> Tensor:
        return self._run(rows).detach()

    def _run(self, rows: Sequence[int]) -> Tensor:
        self._start()
        return checked_losses(self._task_of(rows))

    def _same_beside_others(self) -> None:
        """The first of three samples, with real randomness that is the same each time."""
        with Guarded():
            first, again, *others = (self._losses(rows)[0] for rows in ((0, 1, 2), (0, 1, 2), (0, 3, 4), (0, 0, 5)))
        # Nothing but other neighbours is another, so the numbers are the same to the last bit, or as same as they ever
        # are on a device that adds in any order.
        for other in others:
            _require_same(first, again, other, _NEARLY)

    def _same_beside_many(self, many: int) -> None:
        """The last of a large batch: what shares out places, or looks only across many samples, serves the first."""
        if many <= len(self.rows):
            return
        with Guarded():
            first, again, other = (self._losses((*range(start, start + many - 1), 0))[-1] for start in (1, 1, many))
        _require_same(first, again, other, _NEARLY_OF_MANY)

    def _same_state(self, parameters: Sequence[Tensor]) -> None:
        found: list[dict[str, Tensor]] = []
        values = [(each, each.detach().clone()) for each in parameters]
        for rows in ((0, 1, 2), (3, 4, 5)):
            with Guarded():
                self._losses(rows)
            state = (*self._module.named_buffers(), *self._module.named_parameters(), *_attributes(self._module))
            found.append({name: each.detach().clone() for name, each in state})
            put_back(values)
        for name in found[0].keys() & found[1].keys():
            if not _equal(found[0][name], found[1][name]):
                raise ConfigError(
                    "E151",
                    seen=f"{name}, which the forward pass changes after the samples of the batch",
                    expected="a module that keeps nothing of its samples: what it keeps is released without noise",
                    fix="put the layer that keeps it into eval(), or dp.fix_modules(module)",
                )


def _attributes(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Floating tensors that a module and its parts keep as plain attributes."""
    parts = cast("Iterable[tuple[str, nn.Module]]", module.named_modules())
    return [
        (f"{name}.{key}".lstrip("."), value)
        for name, part in parts
        for key, value in cast("dict[str, object]", vars(part)).items()
        if isinstance(value, Tensor) and value.is_floating_point()
    ]


def checked_losses(task: Task) -> Tensor:
    """The losses of a task, held to their form.

    Raises:
        ConfigError: E153, for anything but one number a sample.
    """
    losses = cast("object", task.losses())
    if isinstance(losses, Tensor) and losses.shape == (task.count,) and losses.is_floating_point():
        return losses
    shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
    raise ConfigError(
        "E153",
        seen=f"a loss of shape {shape} for {task.count} samples",
        expected=f"one floating loss a sample, shape ({task.count},)",
        fix='do not reduce over samples: reduction="none", then the mean over all dimensions but the first',
    )


def crossed(gradients: Sequence[Tensor]) -> bool:
    """Whether the loss of the first sample alone left a gradient with another; per-sample gradients (n, ...)."""
    return any(bool((each[1:] != 0).any()) for each in gradients)


def short(error: BaseException) -> str:
    """The first line of an error, cut."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return text if len(text) <= 120 else text[:117] + "..."


@contextmanager
def moved(parameters: Sequence[Tensor], share: float) -> Generator[None]:
    """A context in which every parameter is off by about `share` of its spread, and after which it is as it was."""
    values = [(each, each.detach().clone()) for each in parameters]
    generator = torch.Generator().manual_seed(1)
    try:
        with torch.no_grad():
            for each in parameters:
                spread = float(each.float().std(correction=0)) or 1.0
                each.add_(torch.randn(each.shape, generator=generator).to(each), alpha=share * spread)
        yield
    finally:
        put_back(values)


def _require_same(first: Tensor, again: Tensor, other: Tensor, nearly: float) -> None:
    """Raise E151 unless a loss is the same beside others, to as much as it is the same when nothing is another."""
    least = nearly * (torch.finfo(first.dtype).eps * (1.0 + first.abs())) + _NEARLY * (first - again).abs()
    if bool((other - first).abs() > least):
        off = float((other - first).abs() / (1.0 + first.abs()))
        raise mixing(f"a sample whose loss changes by {off:.2g} (relative) with the samples beside it")


def _length(vector: Tensor) -> float:
    return math.sqrt(float(vector.square().sum()))


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Flat float64 gradients, zeros for parameters that were not used."""
    if not loss.requires_grad:
        return [each.detach().new_zeros(each.numel()).double() for each in parameters]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [(each.to_dense() if each.is_sparse else each).flatten().double() for each in found]


def cannot(module: nn.Module, seen: str, *, fix: str) -> ConfigError:
    """A module without one gradient a sample."""
    return ConfigError(
        "E152",
        seen=f"{type(module).__name__}: {seen}",
        expected="a module that gives one gradient a sample",
        fix=fix,
    )


def mixing(seen: str) -> ConfigError:
    """Samples that influence one another."""
    return ConfigError(
        "E151",
        seen=seen,
        expected="losses that depend on their own sample alone, or clipping bounds nothing",
        fix="replace what looks across the batch (batch statistics, contrastive or ranking losses, padding to the "
        "longest sample without a mask); for BatchNorm: dp.fix_modules(module)",
    )
