"""Several processes that train one module together; with one process, everything here does nothing.

Rank 0 draws the batch, adds the noise and keeps the ledger. The others add their share of the clipped sum, also where
it is empty, so that all stay in step. Sums go to rank 0, which adds the noise once, and come back as its very bytes: no
rank ever steps on a sum without noise, and parameters stay equal bit by bit.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vambrace.errors import ConfigError

__all__ = ["from_first", "number", "same", "share", "tell", "to_first", "world"]


def number() -> int:
    """The rank of this process; 0 where there is one."""
    return dist.get_rank() if _together() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _together() else 1


def same(module: nn.Module, samples: int, device: torch.device) -> None:
    """Give every rank the parameters and buffers of rank 0.

    Raises:
        ConfigError: E155, where the ranks see data of different sizes: each needs all of it, since rank 0 draws.
    """
    if not _together():
        return
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world())]
    dist.all_gather(sizes, torch.tensor([samples], device=device))
    found = [int(each) for each in sizes]
    if len(set(found)) > 1:
        raise ConfigError(
            "E155",
            seen=f"data sets of {', '.join(map(str, found))} samples on {len(found)} ranks",
            expected="the whole data set on every rank",
            fix="give every rank the same data set: rank 0 draws, and each takes its part of the batch",
        )
    with torch.no_grad():
        for each in (*module.parameters(), *module.buffers()):
            held = each.detach().contiguous()
            dist.broadcast(held, src=0)
            each.copy_(held)


def share(drawn: Tensor | None, device: torch.device) -> Tensor:
    """This rank's part (k,) int64 on the CPU of the batch that rank 0 drew; the other ranks give None."""
    if not _together():
        assert drawn is not None  # noqa: S101  there is one rank, and it drew
        return drawn
    size = torch.tensor([0 if drawn is None else len(drawn)], device=device)
    dist.broadcast(size, src=0)
    whole = torch.empty(int(size), dtype=torch.int64, device=device) if drawn is None else drawn.to(device)
    dist.broadcast(whole, src=0)
    return whole[number() :: world()].cpu()


def to_first(*sums: Tensor) -> None:
    """Add up tensors over all ranks, in place on rank 0; what the others hold then means nothing."""
    if _together():
        for each in sums:
            dist.reduce(each, dst=0)


def from_first(*tensors: Tensor) -> None:
    """Overwrite tensors with those of rank 0."""
    if _together():
        for each in tensors:
            dist.broadcast(each, src=0)


def tell(words: bytes, device: torch.device) -> bytes:
    """What rank 0 said; what the others say is not heard."""
    if not _together():
        return words
    size = torch.tensor([len(words)], device=device)
    dist.broadcast(size, src=0)
    held = torch.zeros(int(size), dtype=torch.uint8, device=device)
    if number() == 0 and words:
        held.copy_(torch.frombuffer(bytearray(words), dtype=torch.uint8))
    dist.broadcast(held, src=0)
    return held.cpu().numpy().tobytes()


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
