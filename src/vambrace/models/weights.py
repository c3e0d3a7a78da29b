"""What weights a network has, as one hash: the part of a unit key that changes when the network does.

>>> from torch import nn
>>> a, b = nn.Linear(2, 1), nn.Linear(2, 1)
>>> weights_sha256(a) == weights_sha256(a), weights_sha256(a) == weights_sha256(b)
(True, False)
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn
    from typing_extensions import Buffer

__all__ = ["weights_sha256"]


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over all parameters and buffers in name order: name, dtype, shape and bytes of each.

    Buffers that are not saved with the network count too: they change its answers. A module that lives in
    two places counts at both names. Device, memory layout and `requires_grad` do not count.
    """
    digest = hashlib.sha256(b"vambrace/weights/1\n")
    found = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    for name in sorted(found):
        tensor = found[name]
        head = f"{len(name.encode())}:{name} {tensor.dtype} {tuple(tensor.shape)}\n"
        digest.update(head.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Buffer:
    if tensor.numel() == 0:
        return b""
    if tensor.layout != torch.strided or tensor.is_quantized:
        tensor = tensor.dequantize() if tensor.is_quantized else tensor.to_dense()
    plain = tensor.detach().resolve_conj().resolve_neg().to("cpu").contiguous()
    return cast("Buffer", plain.flatten().view(torch.uint8).numpy())
