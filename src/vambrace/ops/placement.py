"""Images moved about on their canvas: shown smaller at another place, and gradients averaged over shifts.

Both are products with matrices, one from each side, so that they run batched with a size and a place of its own for
every sample, and their gradients add up in a fixed order on every device (those of `grid_sample` do not on CUDA).

    >>> import torch
    >>> images = torch.ones(1, 1, 4, 4)
    >>> one = torch.tensor([0])
    >>> place(images, height=one + 2, width=one + 3, top=one + 1, left=one)[0, 0].tolist()[1:3]
    [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

__all__ = ["place", "smooth"]


def place(images: Tensor, *, height: Tensor, width: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Each image resized to `height` by `width` and put on a canvas of its old size that is zero elsewhere.

    Resizing is bilinear between pixel centres without smoothing first, as `interpolate(align_corners=False)`.

    Args:
        images: (n, c, h, w); differentiable.
        height: int64 (n,), 1 to h; an image of full height and width comes back unchanged, bit for bit.
        width: int64 (n,), 1 to w.
        top: int64 (n,), 0 to h - height.
        left: int64 (n,), 0 to w - width.

    Returns:
        (n, c, h, w).
    """
    down = _resampling(images.shape[-2], height, top).to(images.dtype).unsqueeze(1)
    across = _resampling(images.shape[-1], width, left).to(images.dtype).unsqueeze(1)
    return down @ images @ across.mT


def smooth(images: Tensor, size: int) -> Tensor:
    """Convolve (n, c, h, w) with a square Gaussian kernel of odd `size` that sums to 1; what lies outside is zero.

    The kernel ends three standard deviations from its middle. `size` 1 changes nothing.
    """
    device, dtype = images.device, images.dtype
    down = _kernel_matrix(images.shape[-2], size, dtype, device)
    across = _kernel_matrix(images.shape[-1], size, dtype, device)
    return down @ images @ across.mT


def _resampling(size: int, inner: Tensor, offset: Tensor) -> Tensor:
    """Matrices float64 (n, size, size) that show a line of `size` pixels on `inner` of them, from `offset` on."""
    pixels = torch.arange(size, dtype=torch.float64, device=inner.device)
    shown = pixels - offset.unsqueeze(1)
    source = ((shown + 0.5) * (size / inner.double()).unsqueeze(1) - 0.5).clamp(0, size - 1)
    weights = (1 - (source.unsqueeze(2) - pixels).abs()).clamp_(min=0)
    inside = (shown >= 0) & (shown < inner.unsqueeze(1))
    return weights * inside.unsqueeze(2)


@functools.lru_cache(maxsize=16)
def _kernel_matrix(length: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    reach = size // 2
    apart = torch.arange(length, dtype=torch.float64)
    apart = apart.unsqueeze(1) - apart
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    spread = max(reach, 1) / 3
    total = torch.exp(-0.5 * (offsets / spread).square()).sum().item()
    weights = torch.exp(-0.5 * (apart / spread).square()) / total
    return torch.where(apart.abs() <= reach, weights, 0.0).to(device, dtype)
