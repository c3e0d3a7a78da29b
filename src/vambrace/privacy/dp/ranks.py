"""Several processes that train one module together; with one process, everything here does nothing.

Rank 0 draws the batch, adds the noise and keeps the ledger. The others add their share of the clipped sum, also where
it is empty, so that all stay in step, and noise is added once.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["number", "same", "share", "total"]


def number() -> int:
    """The rank of this process; 0 where there is one."""
    return dist.get_rank() if _together() else 0


def same(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    if _together():
        for each in (*module.parameters(), *module.buffers()):
            dist.broadcast(each.detach(), src=0)


def share(indices: Tensor, device: torch.device) -> Tensor:
    """This rank's part of the batch that rank 0 drew, (k,) int64 on the CPU; what other ranks drew is forgotten."""
    if not _together():
        return indices
    size = torch.tensor([len(indices)], device=device)
    dist.broadcast(size, src=0)
    drawn = indices.to(device) if number() == 0 else torch.empty(int(size), dtype=torch.int64, device=device)
    dist.broadcast(drawn, src=0)
    return drawn[number() :: dist.get_world_size()].cpu()


def total(*sums: Tensor) -> None:
    """Add up tensors over all ranks, in place."""
    if _together():
        for each in sums:
            dist.all_reduce(each)


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
