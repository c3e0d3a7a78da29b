"""Small trainings, and what they are held against: one sample at a time, by autograd alone."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from vambrace.privacy import dp
from vambrace.privacy.dp.private import Private

N, FEATURES, CLASSES = 64, 6, 3
NOISELESS = dp.Gaussian(noise_multiplier=0.0)
ENDLESS = dp.Flat(clip_norm=float("inf"))
LR = 0.5


def samples(count: int = N, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Inputs (n, 6) of very different lengths, and labels (n,)."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, FEATURES, generator=draw, dtype=dtype) * torch.logspace(-1, 1, count)[:, None]
    return inputs.to(dtype), torch.randint(CLASSES, (count,), generator=draw)


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, CLASSES)).to(dtype)


def sgd(module: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([each for each in module.parameters() if each.requires_grad], **{"lr": LR, **options})


def training(module: nn.Module | None = None, data: object = None, **options: Any) -> Private:
    """A private training without noise and clipping, but for what is asked for."""
    module = network() if module is None else module
    optimizer = options.pop("optimizer", None) or sgd(module)
    given: dict[str, Any] = {"clip": ENDLESS, "noise": NOISELESS, "expected_batch_size": 16, "delta": 1e-3}
    given["accountant"] = "zcdp"  # takes no time; "pld" is the default of make_private
    if "per_sample_loss" not in options:
        given["loss"] = "cross_entropy"
    return dp.make_private(module, optimizer, samples() if data is None else data, **{**given, **options})


def gradients(module: nn.Module, data: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
    """Per-sample gradients (n, elements) of the cross entropy, one sample at a time."""
    trained = [each for each in module.parameters() if each.requires_grad]
    found: list[Tensor] = []
    for row in rows:
        loss = F.cross_entropy(module(data[0][row : row + 1]), data[1][row : row + 1])
        found.append(torch.cat([each.flatten() for each in torch.autograd.grad(loss, trained)]))
    return torch.stack(found) if found else flat(module).new_zeros(0, len(flat(module)))


def cut(gradient: Tensor, bound: float) -> Tensor:
    """Rows (n, elements), none longer than the bound."""
    norms = gradient.norm(dim=1, keepdim=True)
    return gradient * (bound / norms).clamp(max=1.0)


def flat(module: nn.Module) -> Tensor:
    """All trainable parameters in one vector, copied."""
    return torch.cat([each.detach().flatten() for each in module.parameters() if each.requires_grad]).clone()


def moved_by(private: Private, step: Callable[[], object]) -> Tensor:
    """How far plain SGD moved the parameters in a step, as the sum that it was given."""
    before = flat(private.module)
    step()
    lr = private.optimizer.param_groups[0]["lr"]
    return (before - flat(private.module)) / lr * private.settings.expected_batch_size


def together(work: Callable[[int], Any], folder: Path, world: int = 2) -> list[Any]:
    """What `work(rank)` gives in forked processes that talk over gloo."""
    children: list[int] = []
    for rank in range(world):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            warnings.simplefilter("ignore")  # of the process group, at its end
            dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
            torch.save(work(rank), folder / f"out{rank}")
            dist.barrier()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * world
    return [torch.load(folder / f"out{rank}", weights_only=False) for rank in range(world)]
