"""Features of images that no data made: wavelets, and statistics of pen strokes that a program draws.

Tramer and Boneh 2021 (arXiv 2011.11660) showed how far a linear classifier goes under privacy on the scattering
transform (Bruna, Mallat 2013, arXiv 1203.1513; Oyallon, Mallat 2015, 1412.8659), averages of moduli of fixed wavelets,
twice over; they normalised it with statistics that they charged for. Here these come from drawings: curves of random
control points, no digit among them but by chance. So all is a fixed function of each image, and nothing is charged.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Features", "scattering", "strokes"]

ANGLES, PADDED = 8, 32
CURVES, SEGMENTS = 3, 23


@functools.cache
def wavelets() -> tuple[Tensor, Tensor, Tensor]:
    """Spectra of the Morlet wavelets of the fine and the coarse scale, (8 angles, 32, 32) each, and of the window.

    Sizes are those of Kymatio: a Gaussian envelope of 0.8 2^j pixels, waves of 3/4 pi / 2^j, a window of 1.6 pixels.
    """
    places = torch.arange(PADDED, dtype=torch.float64)
    places = torch.where(places < PADDED / 2, places, places - PADDED)

    def gabor(deviation: float, angle: float, wave: float, slant: float) -> Tensor:
        found = torch.zeros(PADDED, PADDED, dtype=torch.complex128)
        for down in range(-2, 3):  # images of the plane's period: the transform wraps around
            for right in range(-2, 3):
                rows, columns = torch.meshgrid(places + down * PADDED, places + right * PADDED, indexing="ij")
                along = columns * math.cos(angle) + rows * math.sin(angle)
                across = rows * math.cos(angle) - columns * math.sin(angle)
                envelope = torch.exp(-(along**2 + (slant * across) ** 2) / (2 * deviation**2))
                found += torch.polar(envelope, wave * along)
        return found * slant / (2 * math.pi * deviation**2)

    def morlet(scale: int, angle: float) -> Tensor:
        deviation, slant = 0.8 * 2**scale, 4 / ANGLES
        wave, envelope = (gabor(deviation, angle, each, slant) for each in (0.75 * math.pi / 2**scale, 0.0))
        return torch.fft.fft2(wave - wave.sum() / envelope.sum() * envelope).real.float()

    fine, coarse = (torch.stack([morlet(scale, k * math.pi / ANGLES) for k in range(ANGLES)]) for scale in (0, 1))
    return fine, coarse, torch.fft.fft2(gabor(1.6, 0.0, 0.0, 1.0)).real.float()


def scattering(images: Tensor) -> Tensor:
    """Images (n, 1, 28, 28) to (n, 81, 7, 7): the mean, 16 first moduli and 64 second ones, around each of 49 places.

    A fixed function of each image: nothing in it was learnt, from these images or others.
    """
    fine, coarse, window = wavelets()
    kept = torch.cat([torch.arange(PADDED // 4), torch.arange(PADDED - PADDED // 4, PADDED)])
    half_window = window[kept][:, kept]
    out = images.new_empty(len(images), 1 + 2 * ANGLES + ANGLES**2, 7, 7)

    def smooth(spectra: Tensor, by: Tensor, every: int) -> Tensor:
        # Of the eight places in a row that are left, the first is in the padding.
        return torch.fft.ifft2(_every(spectra * by, every)).real[..., 1:, 1:]

    for part, given in zip(out.split(100), images.split(100), strict=True):
        spectrum = torch.fft.fft2(F.pad(given, (2, 2, 2, 2)))
        first = torch.fft.fft2(torch.fft.ifft2(spectrum * fine).abs())
        second = torch.fft.fft2(torch.fft.ifft2(_every(spectrum * coarse, 2)).abs())
        deep = torch.fft.fft2(torch.fft.ifft2(_every(first.unsqueeze(2) * coarse, 2)).abs()).flatten(1, 2)
        moduli = [smooth(spectrum, window, 4), smooth(first, window, 4)]
        torch.cat([*moduli, smooth(second, half_window, 2), smooth(deep, half_window, 2)], dim=1, out=part)
    return out


def _every(spectra: Tensor, step: int) -> Tensor:
    """Spectra (..., m, m) of what is left where only every `step`-th row and column is kept."""
    left = spectra.shape[-1] // step
    return spectra.unflatten(-1, (step, left)).unflatten(-3, (step, left)).mean(dim=(-4, -2))


def strokes(count: int, seed: int) -> Tensor:
    """Drawings (count, 1, 28, 28) in 0..1: one to three cubic curves in the middle, most beginning where one ended."""
    chance = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=chance)

    controls = 20 * drawn(count, CURVES, 4, 2) + 3.5
    goes_on = drawn(count, CURVES, 1) < 0.6
    for curve in range(1, CURVES):
        controls[:, curve, 0] = torch.where(goes_on[:, curve], controls[:, curve - 1, 3], controls[:, curve, 0])
    there = (drawn(count, CURVES) < torch.tensor([1.0, 0.6, 0.3])).float()
    width = 1.0 + 0.8 * drawn(count, 1, 1)
    along = torch.linspace(0, 1, SEGMENTS + 1)
    bernstein = torch.stack([math.comb(3, k) * along**k * (1 - along) ** (3 - k) for k in range(4)])
    points = torch.einsum("kt,nckd->nctd", bernstein, controls)
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    paper = torch.zeros(count, 28, 28)
    for curve in range(CURVES):
        for begin, end in zip(points[:, curve].unbind(1), points[:, curve, 1:].unbind(1), strict=False):
            right, down = ((end - begin)[:, axis, None, None] for axis in (0, 1))
            across, below = columns - begin[:, 0, None, None], rows - begin[:, 1, None, None]
            share = ((across * right + below * down) / (right**2 + down**2 + 1e-6)).clamp(0, 1)
            distance = torch.hypot(across - share * right, below - share * down)
            ink = (width + 0.5 - distance).clamp(0, 1)
            paper = torch.maximum(paper, ink * there[:, curve, None, None])
    return paper.unsqueeze(1)


class Features:
    """Images to vectors of length 1: scattering, each channel normalised within the image, centred, partly whitened.

    Args:
        drawings: how many the centre and the directions are taken from.
        kept: dimensions, the directions in which drawings differ most.
        power: directions are divided by their variance to this power; 0.5 would whiten.
        floor: added to variances, over the largest.
    """

    def __init__(self, *, drawings: int = 10_000, kept: int = 1000, power: float = 0.25, floor: float = 0.01) -> None:
        seen = torch.cat([_normalised(strokes(1000, seed)) for seed in range(drawings // 1000)])
        self._centre = seen.mean(dim=0)
        seen -= self._centre
        variances, directions = torch.linalg.eigh(seen.T @ seen / len(seen))
        variances, directions = variances[-kept:].clamp_min(0), directions[:, -kept:]
        self._directions = directions * (variances / variances[-1] + floor) ** -power

    def __call__(self, images: Tensor) -> Tensor:
        """(n, 1, 28, 28) to (n, kept)."""
        parts = [F.normalize((_normalised(part) - self._centre) @ self._directions) for part in images.split(1000)]
        return torch.cat(parts)


def _normalised(images: Tensor) -> Tensor:
    """(n, 81 * 49), of length 1, every channel of an image with mean 0 and variance 1 before that."""
    return F.normalize(F.instance_norm(scattering(images)).flatten(1))
