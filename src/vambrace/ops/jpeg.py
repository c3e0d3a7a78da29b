"""The JPEG round trip as integer tensor arithmetic: what a baseline encoder and decoder do to 8-bit images.

Batched, on any device, and bit for bit what libjpeg-turbo gives with its defaults (the accurate integer
transform, 4:2:0 chroma, triangle-filtered upsampling), so equal to a Pillow save and open. Being integer
arithmetic it does not depend on batch size, order or device. Entropy coding loses nothing and is left out.
Not differentiable: rounding has no useful gradient.

    >>> import torch
    >>> flat = torch.full((1, 3, 5, 7), 100, dtype=torch.int32)
    >>> round_trip(flat, quality=50).unique().tolist()
    [100]

Source: ITU-T T.81 (1992), annexes A and K, and JFIF 1.02; the transform is that of C. Loeffler, A. Ligtenberg,
G. Moschytz, "Practical fast 1-D DCT algorithms with 11 multiplications", ICASSP 1989, in 13-bit fixed point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CHROMA_TABLE", "LUMA_TABLE", "quantisation", "round_trip"]

# T.81 tables K.1 and K.2, in row order.
LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)

_HALF = 1 << 15  # one half in the 16-bit fixed point of the colour conversion
_PASS_BITS = 2  # fraction bits kept between the two passes of the transform
_CONST_BITS = 13
# Sums of cosines of the transform times 2**13, named by their value.
_COS_0_298, _COS_0_390, _COS_0_541, _COS_0_765, _COS_0_899, _COS_1_175 = 2446, 3196, 4433, 6270, 7373, 9633
_COS_1_501, _COS_1_847, _COS_1_961, _COS_2_053, _COS_2_562, _COS_3_072 = 12299, 15137, 16069, 16819, 20995, 25172


def round_trip(pixels: Tensor, *, quality: int) -> Tensor:
    """Encode and decode, (n, c, h, w) whole numbers 0..255 to the same; c is 1 (grey) or 3 (RGB).

    Args:
        pixels: an integer tensor; any height and width from 1.
        quality: 1 (worst) to 100, on the scale of the Independent JPEG Group.
    """
    pixels = pixels.to(torch.int32)
    height, width = pixels.shape[-2:]
    luma = quantisation(quality, LUMA_TABLE).to(pixels.device)
    if pixels.shape[1] == 1:
        return _coded(_grown(pixels, 8, 8), luma)[..., :height, :width].clamp(0, 255)
    chroma = quantisation(quality, CHROMA_TABLE).to(pixels.device)
    ycc = _to_ycc(pixels)
    brightness = _coded(_grown(ycc[:, :1], 8, 8), luma)[..., :height, :width].clamp(0, 255)
    small = (height + 1) // 2, (width + 1) // 2
    colour = _coded(_halved(ycc[:, 1:]), chroma)[..., : small[0], : small[1]].clamp(0, 255)
    return _to_rgb(brightness, _doubled(colour)[..., :height, :width])


def quantisation(quality: int, table: tuple[tuple[int, ...], ...]) -> Tensor:
    """The table (8, 8) scaled to a quality, int32 in 1..255."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(table, dtype=torch.int32) * scale + 50) // 100).clamp(1, 255)


# ---- colour and chroma sampling (JFIF 1.02; 16-bit fixed point) ----


def _fixed(value: float) -> int:
    return int(value * 65536 + 0.5)


def _to_ycc(rgb: Tensor) -> Tensor:
    red, green, blue = rgb.unbind(1)
    luma = _fixed(0.299) * red + _fixed(0.587) * green + _fixed(0.114) * blue + _HALF
    centre = (128 << 16) + _HALF - 1
    cb = _fixed(0.5) * blue - _fixed(0.16874) * red - _fixed(0.33126) * green + centre
    cr = _fixed(0.5) * red - _fixed(0.41869) * green - _fixed(0.08131) * blue + centre
    return torch.stack((luma, cb, cr), dim=1) >> 16


def _to_rgb(luma: Tensor, colour: Tensor) -> Tensor:
    cb, cr = colour[:, :1] - 128, colour[:, 1:] - 128
    red = luma + ((_fixed(1.402) * cr + _HALF) >> 16)
    green = luma + ((_HALF - _fixed(0.34414) * cb - _fixed(0.71414) * cr) >> 16)
    blue = luma + ((_fixed(1.772) * cb + _HALF) >> 16)
    return torch.cat((red, green, blue), dim=1).clamp(0, 255)


def _grown(planes: Tensor, rows: int, columns: int) -> Tensor:
    """Repeat the last row and column until the height and width are multiples of `rows` and `columns`."""
    height, width = planes.shape[-2:]
    down = torch.arange(height + -height % rows, device=planes.device).clamp(max=height - 1)
    across = torch.arange(width + -width % columns, device=planes.device).clamp(max=width - 1)
    return planes[..., down, :][..., across]


def _halved(planes: Tensor) -> Tensor:
    """Average 2 x 2 pixels, rounding down and up in turn along a row; grown to whole blocks."""
    even = _grown(planes, 2, 16)
    total = even[..., 0::2, 0::2] + even[..., 0::2, 1::2] + even[..., 1::2, 0::2] + even[..., 1::2, 1::2]
    bias = 1 + torch.arange(total.shape[-1], device=planes.device, dtype=torch.int32) % 2
    # The rows below the image repeat the halved ones, but the columns beside it are halved from repeated pixels.
    return _grown((total + bias) >> 2, 8, 8)


def _doubled(planes: Tensor) -> Tensor:
    """Twice the height and width: each new pixel is 9/16, 3/16, 3/16 and 1/16 of its four nearest."""
    if planes.shape[-1] <= 2:  # too narrow for the filter: the decoder repeats pixels instead
        return planes.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
    above = torch.cat((planes[..., :1, :], planes[..., :-1, :]), dim=-2)
    below = torch.cat((planes[..., 1:, :], planes[..., -1:, :]), dim=-2)
    rows = torch.stack((3 * planes + above, 3 * planes + below), dim=-2).flatten(-3, -2)
    left = torch.cat((rows[..., :1], rows[..., :-1]), dim=-1)
    right = torch.cat((rows[..., 1:], rows[..., -1:]), dim=-1)
    return torch.stack(((3 * rows + left + 8) >> 4, (3 * rows + right + 7) >> 4), dim=-1).flatten(-2)


# ---- blocks: transform, quantise, and back ----


def _coded(planes: Tensor, table: Tensor) -> Tensor:
    """Planes (n, c, 8a, 8b) through the transform at this quantisation and back; not yet clamped to 0..255."""
    n, c, height, width = planes.shape
    blocks = planes.view(n, c, height // 8, 8, width // 8, 8)
    # The places within a block come first, so that every step below runs over contiguous memory.
    samples = blocks.permute(3, 5, 0, 1, 2, 4).contiguous() - 128
    table = table.view(8, 8, 1, 1, 1, 1)
    divisor = table * 8  # the forward transform is scaled by 8
    coefficients = _forward(samples)
    levels = (coefficients.abs() + divisor // 2) // divisor * coefficients.sign()
    decoded = _inverse(levels * table) + 128
    return decoded.permute(2, 3, 4, 0, 5, 1).reshape(n, c, height, width)


def _rounded(value: Tensor, bits: int) -> Tensor:
    return (value + (1 << (bits - 1))) >> bits


def _forward(samples: Tensor) -> Tensor:
    """Samples (8, 8, ...) in -128..127 to coefficients, 8 times those of an orthonormal transform."""
    rows = torch.stack(_forward_pass(samples.unbind(1), first=True), dim=1)
    return torch.stack(_forward_pass(rows.unbind(0), first=False), dim=0)


def _inverse(coefficients: Tensor) -> Tensor:
    """Coefficients (8, 8, ...) of an orthonormal transform to samples around 0."""
    columns = torch.stack(_inverse_pass(coefficients.unbind(0), _CONST_BITS - _PASS_BITS), dim=0)
    return torch.stack(_inverse_pass(columns.unbind(1), _CONST_BITS + _PASS_BITS + 3), dim=1)


def _forward_pass(x: tuple[Tensor, ...], *, first: bool) -> list[Tensor]:
    """One dimension of the forward transform over eight values; the first pass keeps `_PASS_BITS` more bits."""
    bits = _CONST_BITS - _PASS_BITS if first else _CONST_BITS + _PASS_BITS
    outer, inner = x[0] + x[7] + x[3] + x[4], x[1] + x[6] + x[2] + x[5]
    outer_lean, inner_lean = x[0] + x[7] - x[3] - x[4], x[1] + x[6] - x[2] - x[5]
    mean, middle = outer + inner, outer - inner
    turn = (inner_lean + outer_lean) * _COS_0_541
    seventh, fifth, third, first_odd = _odd(x[3] - x[4], x[2] - x[5], x[1] - x[6], x[0] - x[7])
    return [
        mean << _PASS_BITS if first else _rounded(mean, _PASS_BITS),
        _rounded(first_odd, bits),
        _rounded(turn + outer_lean * _COS_0_765, bits),
        _rounded(third, bits),
        middle << _PASS_BITS if first else _rounded(middle, _PASS_BITS),
        _rounded(fifth, bits),
        _rounded(turn - inner_lean * _COS_1_847, bits),
        _rounded(seventh, bits),
    ]


def _inverse_pass(y: tuple[Tensor, ...], bits: int) -> list[Tensor]:
    """One dimension of the inverse transform over eight coefficients; drops `bits` bits at the end."""
    turn = (y[2] + y[6]) * _COS_0_541
    second, sixth = turn + y[2] * _COS_0_765, turn - y[6] * _COS_1_847
    total, difference = (y[0] + y[4]) << _CONST_BITS, (y[0] - y[4]) << _CONST_BITS
    even = (total + second, difference + sixth, difference - sixth, total - second)
    odd = _odd(y[7], y[5], y[3], y[1])[::-1]
    upper = [_rounded(a + b, bits) for a, b in zip(even, odd, strict=True)]
    lower = [_rounded(a - b, bits) for a, b in zip(even, odd, strict=True)]
    return upper + lower[::-1]


def _odd(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The odd half of the transform, the same in both directions: four rotations sharing their products."""
    shared = (a + c + b + d) * _COS_1_175
    outer, inner = (a + d) * -_COS_0_899, (b + c) * -_COS_2_562
    left, right = (a + c) * -_COS_1_961 + shared, (b + d) * -_COS_0_390 + shared
    return (
        a * _COS_0_298 + outer + left,
        b * _COS_2_053 + inner + right,
        c * _COS_3_072 + inner + left,
        d * _COS_1_501 + outer + right,
    )
