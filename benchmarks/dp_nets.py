"""What benchmarks of private training run on: the networks that are timed, MNIST, and features that no data made.

The convolutional network is that of Opacus' MNIST example. The features are the scattering transform (Bruna, Mallat
2013, arXiv 1203.1513; Oyallon, Mallat 2015, 1412.8659): averages of moduli of fixed wavelets, twice over. Tramer and
Boneh 2021 (arXiv 2011.11660) showed how far a linear classifier on them goes under privacy.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import nets
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vambrace.data.idx import read_idx


class Token(nn.Module):
    """Two linear layers at every token, then the mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(256, 512), nn.Linear(512, 256)

    def forward(self, inputs: Tensor) -> Tensor:
        """Tokens (n, T, 256) to logits (n, 256)."""
        return self.second(F.relu(self.first(inputs))).mean(dim=1)


class Encoder(nn.Module):
    """Four transformer layers of torch's own, the mean over tokens, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(256, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        """Tokens (n, T, 256) to logits (n, 10)."""
        return self.head(self.layers(inputs).mean(dim=1))


class Recurrent(nn.Module):
    """An LSTM, and a linear layer on its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        """Tokens (n, T, 64) to logits (n, 10)."""
        return self.head(self.lstm(inputs)[0][:, -1])


def mlp() -> nn.Module:
    """784-512-512-10."""
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def opacus_cnn(activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    """26,010 parameters: two convolutions, two linear layers."""
    convolutions = [nn.Conv2d(1, 16, 8, 2, padding=3), activation(), nn.MaxPool2d(2, 1)]
    convolutions += [nn.Conv2d(16, 32, 4, 2), activation(), nn.MaxPool2d(2, 1), nn.Flatten()]
    return nn.Sequential(*convolutions, nn.Linear(512, 32), activation(), nn.Linear(32, 10))


def lenet() -> nn.Module:
    """Two convolutions of 5x5, a linear layer of 3136x1024, and one of 1024x10."""
    convolutions = [nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    convolutions += [nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*convolutions, nn.Linear(3136, 1024), nn.ReLU(), nn.Linear(1024, 10))


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, the shape of its batch, how often a turn steps, and the bars of its times over SGD's."""

    title: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    steps: int
    engine_bar: float | None
    private_bar: float | None
    ghost_bar: float


CASES = {
    "mlp": Case("MLP 784-512-512-10, batch 256", mlp, (256, 784), 10, 5, 1.25, 1.6, 1.6),
    "cnn": Case("Opacus' MNIST CNN, batch 128", opacus_cnn, (128, 1, 28, 28), 10, 5, 1.7, 1.75, 1.3),
    "lenet": Case("LeNet with 3136x1024, batch 256", lenet, (256, 1, 28, 28), 10, 1, 1.7, 1.75, 1.3),
    "token": Case("token MLP 256-512-256, 64 tokens, batch 32", Token, (32, 64, 256), 256, 3, 1.35, 1.45, 1.6),
    "encoder": Case(
        "transformer encoder of 4 layers, 64 tokens, batch 32", Encoder, (32, 64, 256), 10, 1, 1.35, 1.45, 1.3
    ),
    "lstm": Case("LSTM 64-128, 64 tokens, batch 32", Recurrent, (32, 64, 64), 10, 2, None, None, 1.0),
}


def batch(case: Case, seed: int, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Random inputs and labels: `count` samples, or a batch."""
    chance = torch.Generator().manual_seed(seed)
    samples = case.shape[0] if count is None else count
    inputs = torch.randn(samples, *case.shape[1:], generator=chance)
    return inputs, torch.randint(case.classes, (samples,), generator=chance)


def mnist(part: str) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 28, 28) in 0..1 and labels of "train" (60,000) or "t10k" (10,000)."""
    home = nets.SHARED / "data" / "mnist"
    pixels, labels = (read_idx(home / f"{part}-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    return torch.tensor(pixels).unsqueeze(1) / 255.0, torch.tensor(labels).long()


ANGLES, PADDED = 8, 32


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
