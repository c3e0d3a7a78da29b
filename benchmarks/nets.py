"""The networks and images that benchmarks run on: trained by others, read from the shared folder."""

from __future__ import annotations

import functools
import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARED = Path(os.environ.get("VAMBRACE_SHARED") or Path(__file__).parents[2] / "shared")
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)

Untuned = tuple[str, Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]], str, float, dict[str, object]]


def there() -> bool:
    """Whether the shared folder is."""
    return (SHARED / "models").is_dir()


class ConvBN(nn.Module):
    """Four convolutions with batch normalisation, three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        layers, width = [], 1
        for place, wide in enumerate((32, 32, 64, 64)):
            layers += [nn.Conv2d(width, wide, 3), nn.BatchNorm2d(wide), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if place % 2 else []
            width = wide
        self.features = nn.Sequential(*layers)
        self.fc1, self.fc2, self.fc3 = nn.Linear(1024, 200), nn.Linear(200, 200), nn.Linear(200, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (n, 1, 28, 28) to logits."""
        features = self.features(inputs)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(features.view(features.size(0), -1))))))


def cnn_a(name: str = "mnist_cnn_a_fgsm", *, channels: int = 1, flat: int = 1568) -> nn.Module:
    """Two strided convolutions, two linear layers."""
    layers = [nn.Conv2d(channels, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(flat, 100), nn.ReLU(), nn.Linear(100, 10))
    net.load_state_dict(_state(f"{name}.pth"))
    return net.eval().requires_grad_(False)


def conv_bn() -> nn.Module:
    """A network trained without adversarial examples."""
    net = ConvBN()
    state = {name.removeprefix("module."): value for name, value in _state("mnist_convbn_standard.pt").items()}
    net.load_state_dict(state, strict=False)  # old files lack `num_batches_tracked`, which eval mode never reads
    return net.eval().requires_grad_(False)


def mnist(count: int) -> tuple[Tensor, Tensor]:
    """The first MNIST test images in 0..1, and their labels."""

    def raw(name: str, skip: int) -> np.ndarray:
        with gzip.open(SHARED / "data/mnist" / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=skip)

    pixels = raw("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:count]
    labels = raw("t10k-labels-idx1-ubyte.gz", 8)[:count]
    return torch.from_numpy(pixels / np.float32(255)), torch.from_numpy(labels.astype(np.int64))


def cifar() -> tuple[Tensor, Tensor]:
    """The 100 lossless CIFAR-10 test images in 0..1, and their labels."""
    stored = np.load(SHARED / "data/cifar10-jpeg/test-lossless-first100.npz")
    pixels = np.ascontiguousarray(stored["x"].transpose(0, 3, 1, 2)) / np.float32(255)
    return torch.from_numpy(pixels), torch.from_numpy(stored["y"].astype(np.int64))


def normalised(net: nn.Module, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()) -> nn.Module:
    """The network with its normalisation in front, for tools that take inputs in 0..1."""
    if not mean:
        return net

    class Front(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net
            self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
            self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.net((inputs - self.mean) / self.std)

    return Front().eval()


def untuned(count: int) -> Iterator[Untuned]:
    """Networks that no constant was chosen on: title, loader, images, norm, radius, normalisation."""
    certified = functools.partial(cnn_a, "mnist_cnn_a_certified_eps0.1")
    few = min(count, 300)  # nearly all survive, so that every one of them costs the whole budget
    yield "mnist_cnn_a_certified_eps0.1", certified, lambda: mnist(few), "linf", 0.1, {}
    adv = functools.partial(cnn_a, "cifar10_cnn_a_adv", channels=3, flat=2048)
    how = {"mean": CIFAR_MEAN, "std": CIFAR_STD}
    for norm, eps, text in (("linf", 2 / 255, "2/255"), ("linf", 8 / 255, "8/255"), ("l2", 0.5, "0.5")):
        yield f"cifar10_cnn_a_adv {norm} {text}", adv, cifar, norm, eps, how


def _state(name: str) -> dict[str, Tensor]:
    return torch.load(SHARED / "models" / name, map_location="cpu", weights_only=True)
