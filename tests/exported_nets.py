"""A small ResNet and a transformer encoder of ours, trained for a moment on digits of scikit-learn; their exports."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

__all__ = ["Encoder", "ResNet", "digits", "exported", "onnx_of", "trained"]


class Block(nn.Module):
    def __init__(self, taken: int, given: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(taken, given, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(given)
        self.second = nn.Conv2d(given, given, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(given)
        self.relu = nn.ReLU(inplace=True)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or taken != given:
            self.short = nn.Sequential(nn.Conv2d(taken, given, 1, stride, bias=False), nn.BatchNorm2d(given))

    def forward(self, inputs: Tensor) -> Tensor:
        inner = self.relu(self.first_norm(self.first(inputs)))
        return self.relu(self.second_norm(self.second(inner)) + self.short(inputs))


class ResNet(nn.Module):
    """Three stages, as ResNets for CIFAR have; it takes pictures of any size."""

    STEPS = 60

    def __init__(self, width: int = 16, channels: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        widths = (width, width, 2 * width, 4 * width)
        self.stages = nn.Sequential(*(Block(widths[at], widths[at + 1], 1 + (at > 0)) for at in range(3)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4 * width, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.pool(self.stages(self.stem(pictures))).flatten(1))


class Encoder(nn.Module):
    """Rows of a picture as words."""

    STEPS = 150

    def __init__(self, width: int = 32, activation: str = "relu") -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, activation, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(pictures.flatten(0, 1))).mean(1))


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """All 1,797 of them: pictures (n, 1, 8, 8), 0 to 1, and labels."""
    found = load_digits()
    pictures = np.asarray(found.images, dtype=np.float32)[:, None] / 16
    return torch.from_numpy(pictures), torch.from_numpy(found.target)


@functools.cache
def trained(kind: type[ResNet | Encoder]) -> nn.Module:
    """A network of a kind, trained on the first 1,200 digits and in eval mode; always the same."""
    pictures, labels = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = kind()
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(kind.STEPS):
            batch = torch.randint(1200, (64,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(pictures[batch]), labels[batch]).backward()
            optimizer.step()
    return net.eval()


@functools.cache
def exported(kind: type[ResNet | Encoder]) -> torch.export.ExportedProgram:
    """A trained network as a program, for batches of any size."""
    rows = torch.export.Dim("rows", min=1, max=1024)
    return torch.export.export(trained(kind), (digits()[0][:4],), dynamic_shapes=({0: rows},))


@functools.cache
def onnx_of(kind: type[ResNet | Encoder]) -> Any:
    """The onnx.ModelProto of a trained network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(exported(kind), dynamo=True, verbose=False)
    assert made is not None
    return made.model_proto
