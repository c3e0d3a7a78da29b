"""Image kernels on (n, c, h, w): Gaussian blur and rotation, batched, differentiable, on any device.

The grid is one of pixel centres: pixel (i, j) covers the square from (i, j) to (i + 1, j + 1), and the centre of
the image is (h / 2, w / 2). What lies beyond the border is a mirror image about the outer edge of the border
pixels (d c b a | a b c d | d c b a), or as named. JPEG has a file of its own, `ops.jpeg`.

    >>> import torch
    >>> spot = torch.zeros(1, 1, 5, 5)
    >>> spot[0, 0, 2, 2] = 1
    >>> round(float(blur(spot, sigma=1.0).sum()), 6)
    1.0
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Border", "blur", "blur_matrix", "rotate"]

Border = Literal["low", "edge", "mirror"]

_PADDING = {"low": "zeros", "edge": "border", "mirror": "reflection"}


def blur(images: Tensor, *, sigma: float) -> Tensor:
    """Convolve (n, c, h, w) with a Gaussian of `sigma` pixels, mirrored at the border; the mean of an image stays.

    Separable, and each direction is one product with a matrix that has the border folded in: for the sizes
    that networks take this is several times faster than a convolution.
    """
    down = blur_matrix(images.shape[-2], sigma).to(images)
    across = blur_matrix(images.shape[-1], sigma).to(images)
    return down @ (across @ images.mT).mT


def blur_matrix(size: int, sigma: float) -> Tensor:
    """The blur of one line of `size` pixels as a matrix (size, size), float64; rows and columns sum to 1.

    The kernel is sampled at pixel centres, cut at 4 sigma and normalised.
    """
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(offsets.double().square() / (-2 * sigma**2))
    folded = (torch.arange(size).unsqueeze(1) + offsets) % (2 * size)
    source = folded.minimum(2 * size - 1 - folded)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, source, (weights / weights.sum()).expand(size, -1))


def rotate(images: Tensor, degrees: Tensor, *, border: Border = "low") -> Tensor:
    """Turn each image (n, c, h, w) counter-clockwise about its centre; size and scale stay.

    Args:
        images: float32 or float64.
        degrees: (n,), one angle a sample.
        border: what comes in from outside: "low" zeros, "edge" the nearest border pixel, "mirror" a mirror image.

    Returns:
        (n, c, h, w), bilinear between the four nearest pixel centres.
    """
    height, width = images.shape[-2:]
    angle = torch.deg2rad(degrees.to(images.device, torch.float64)).view(-1, 1, 1)
    # Distances of the pixel centres from the centre of the image, in pixels, so that the turn is rigid for any shape.
    y = (torch.arange(height, device=images.device, dtype=torch.float64) - (height - 1) / 2).view(1, -1, 1)
    x = (torch.arange(width, device=images.device, dtype=torch.float64) - (width - 1) / 2).view(1, 1, -1)
    from_x = x * angle.cos() - y * angle.sin()
    from_y = x * angle.sin() + y * angle.cos()
    # With align_corners=False, -1 and 1 are the outer edges of the border pixels.
    grid = torch.stack((from_x * (2 / width), from_y * (2 / height)), dim=-1).to(images.dtype)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=_PADDING[border], align_corners=False)
