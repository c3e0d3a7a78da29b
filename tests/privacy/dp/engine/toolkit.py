"""Clipped sums the slow way, one sample at a time by plain autograd, beside the engine's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vambrace.privacy.dp.clipping import Clipping, Flat
from vambrace.privacy.dp.engine.engine import Added, Engine, Task

Loss = Callable[[Tensor, Tensor], Tensor]

CLOSE = {torch.float64: 1e-10, torch.float32: 1e-5}


def entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels, reduction="none")


def some(net: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss = entropy) -> Callable[[Sequence[int]], Task]:
    """Numbers of samples to the engine's task on them."""

    def task_of(rows: Sequence[int]) -> Task:
        index = torch.tensor([row % len(inputs) for row in rows], dtype=torch.long)
        own, wanted = inputs[index], labels[index]

        def single(values: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
            outputs = torch.func.functional_call(net, values, (one.unsqueeze(0),))
            return loss(outputs, label.unsqueeze(0)).sum()

        return Task(lambda: loss(net(own), wanted), len(index), (own, wanted), single)

    return task_of


def prepared(net: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss = entropy, **options: str) -> Engine:
    engine = Engine(net, **options)
    engine.prepare(some(net, inputs, labels, loss))
    return engine


def added(
    engine: Engine, task: Task, clip: Clipping, mask: Tensor | None = None, dtype: torch.dtype | None = None
) -> tuple[list[Tensor], Added]:
    """The clipped sum of a task, a tensor a parameter."""
    groups = clip.groups(engine.names)
    bounds = clip.norms(len(groups))
    views = [torch.zeros_like(each, dtype=dtype or each.dtype) for each in engine.parameters]
    found = engine.add(task, lambda norms: clip.factors(norms, bounds), views, groups, mask)
    return views, found


def one_by_one(net: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss = entropy) -> list[list[Tensor]]:
    """Gradients of every sample, by plain autograd on a batch of one."""
    trained = [each for each in net.parameters() if each.requires_grad]
    found = []
    for row in range(len(inputs)):
        own = loss(net(inputs[row : row + 1]), labels[row : row + 1]).sum()
        found.append(list(torch.autograd.grad(own, trained, allow_unused=True, materialize_grads=True)))
    return found


def slow(gradients: list[list[Tensor]], names: Sequence[str], clip: Clipping) -> tuple[list[Tensor], Tensor]:
    """The clipped sum of gradients, and their norms (g, n) before."""
    groups = clip.groups(names)
    bounds = clip.norms(len(groups))
    order = 1 if clip.order == "l1" else 2
    norms = torch.stack(
        [
            torch.stack([torch.cat([own[slot].flatten() for slot in group]).norm(p=order) for own in gradients])
            for group in groups
        ]
    )
    factors = clip.factors(norms, bounds)
    sums = [torch.zeros_like(each) for each in gradients[0]]
    for row, group in zip(factors, groups, strict=True):
        for slot in group:
            for factor, own in zip(row, gradients, strict=True):
                sums[slot] += factor * own[slot]
    return sums, norms


def middle(gradients: list[list[Tensor]]) -> float:
    """A clip norm that cuts some samples and leaves others."""
    norms = [float(torch.cat([each.flatten() for each in own]).norm()) for own in gradients]
    return max(1e-3, sorted(norms)[len(norms) // 2] * 1.01)


def length(tensors: Sequence[Tensor]) -> float:
    return float(torch.cat([each.double().flatten() for each in tensors]).norm())


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor], close: float) -> None:
    """Each parameter on its own, except where it is next to nothing beside the others."""
    whole = length(expected)
    for one, other in zip(found, expected, strict=True):
        off = length([one.double() - other.double()])
        assert off <= close * max(length([other]), 0.01 * whole), f"off by {off:.2g} of {length([other]):.2g}"


def assert_equal(
    net: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    loss: Loss = entropy,
    clip: Clipping | None = None,
    dtypes: Sequence[torch.dtype] = (torch.float64, torch.float32),
    fallback: str = "",
) -> Engine:
    """The engine's clipped sums and norms are those of one sample at a time, computed in float64."""
    exact = copy.deepcopy(net).double()
    gradients = one_by_one(exact, inputs.double() if inputs.is_floating_point() else inputs, labels, loss)
    clip = clip or Flat(clip_norm=middle(gradients))
    names = [name for name, each in net.named_parameters() if each.requires_grad]
    expected, norms = slow(gradients, names, clip)
    for dtype in dtypes:
        given = copy.deepcopy(net).to(dtype)
        data = inputs.to(dtype) if inputs.is_floating_point() else inputs
        engine = prepared(given, data, labels, loss, order=clip.order)
        assert engine.fallback == fallback, engine.table[0].why
        sums, found = added(engine, some(given, data, labels, loss)(range(len(data))), clip)
        assert bool(found.counted.all())
        close = CLOSE[dtype]
        torch.testing.assert_close(found.norms.double(), norms, rtol=close, atol=0.1 * close * float(norms.max()))
        assert_same(sums, expected, CLOSE[dtype])
    return engine
