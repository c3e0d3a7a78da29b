"""Small networks, each with its data: what can be met, and what breaks engines that look at modules or guess shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COUNT = 6


class Net(nn.Module):
    """Parts by name, and a forward pass over them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: object) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.run = forward

    def forward(self, inputs: Tensor) -> Tensor:
        return self.run(self, inputs)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def head(width: int = 8) -> nn.Linear:
    return nn.Linear(width, 4)


def labels(count: int = COUNT) -> Tensor:
    return torch.arange(count) % 4


def numbers(*shape: int) -> Tensor:
    return torch.randn(COUNT, *shape)


def words(length: int = 5) -> Tensor:
    found = torch.randint(0, 10, (COUNT, length))
    found[0] = 3  # one word again and again
    found[1, :2] = 2  # the padding of some
    return found


def images(*layers: nn.Module, size: int = 8, channels: int = 3, dims: int = 2) -> tuple[nn.Module, Tensor]:
    body = nn.Sequential(*layers, nn.Flatten())
    data = numbers(channels, *(size,) * dims)
    width = body(data[:1]).shape[1]
    return nn.Sequential(body, nn.Tanh(), head(width)), data


def _folded(net: Any, x: Tensor) -> Tensor:
    inner = net.g(net.c(x.flatten(0, 1))).flatten(1)
    return net.h(inner).unflatten(0, x.shape[:2]).mean(1)


def _tokens(net: Any, x: Tensor) -> Tensor:
    found = net.norm(net.words(x) + net.places(torch.arange(x.shape[1]))) * net.scale + 0.5
    found = torch.cat([net.token.expand(len(x), -1, -1), found], dim=1)
    found = net.rms(found @ net.matrix + found @ net.matrix.t())
    return net.h(found.mean(1))


def _tied(net: Any, x: Tensor) -> Tensor:
    found = net.mix(torch.tanh(net.mix(net.words(x))))
    return F.linear(found, net.words.weight[:4], net.shift).mean(1)


def _lookalike(net: Any, x: Tensor) -> Tensor:
    """Layers, positions and channels as many as samples."""
    return net.h(net.m(x.transpose(0, 1)).transpose(0, 1).mean(1) + net.shift)


def settled(module: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics of its own."""
    for name, each in module.named_buffers():
        if "running" in name:
            each.uniform_(0.5, 1.5)
    return module.eval()


LAYERS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "mlp": lambda: (nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace=True), nn.Linear(16, 4)), numbers(8)),
    "no bias": lambda: (nn.Sequential(nn.Linear(8, 16, bias=False), nn.Tanh(), nn.Linear(16, 4)), numbers(8)),
    "linear 4d": lambda: (
        Net(lambda net, x: net.h(net.m(x).tanh().mean((1, 2))), m=nn.Linear(8, 8), h=head()),
        numbers(2, 3, 8),
    ),
    "long": lambda: (
        Net(lambda net, x: net.h(net.m(x).tanh().mean(1)), m=nn.Linear(4, 8), h=head()),
        numbers(40, 4),
    ),
    "mean of tokens": lambda: (
        Net(lambda net, x: net.h(net.m(x).tanh()).mean(1), m=nn.Linear(8, 8), h=head()),
        numbers(5, 8),
    ),
    "sum of tokens, tied": lambda: (
        Net(lambda net, x: net.h(net.m(x).tanh() + net.m(x[:, :1])).sum(1), m=nn.Linear(8, 8), h=head()),
        numbers(5, 8),
    ),
    "cnn": lambda: images(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 6, 3, groups=2, dilation=2, padding=1),
        nn.GroupNorm(2, 6),
    ),
    "conv ghost": lambda: images(nn.Conv2d(3, 40, 3), nn.Conv2d(40, 40, 3), nn.Conv2d(40, 30, 2), size=6),
    "conv1d same": lambda: images(
        nn.Conv1d(3, 8, 3, padding="same"), nn.Conv1d(8, 4, 4, padding="same", dilation=2), dims=1, size=10
    ),
    "conv3d": lambda: images(nn.Conv3d(2, 4, 3, padding=(1, 0, 2)), channels=2, size=5, dims=3),
    "circular": lambda: images(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect"),
    ),
    "depthwise": lambda: images(
        nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.Conv2d(6, 4, 1)
    ),
    "transposed": lambda: images(
        nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2),
        size=4,
    ),
    "transposed 1d": lambda: images(nn.ConvTranspose1d(3, 4, 4, stride=3, padding=1), dims=1, size=5),
    "instance norm": lambda: images(nn.Conv1d(3, 8, 3, bias=False), nn.InstanceNorm1d(8, affine=True), dims=1),
    "group norm of vectors": lambda: (nn.Sequential(nn.Linear(8, 8), nn.GroupNorm(2, 8), head()), numbers(8)),
    "batch norm standing still": lambda: images(nn.Conv2d(3, 4, 3), settled(nn.BatchNorm2d(4)), nn.ReLU()),
    "layer norm of images": lambda: images(nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm((4, 8, 8))),
    "tokens": lambda: (
        Net(
            _tokens,
            words=nn.Embedding(10, 6, padding_idx=2),
            places=nn.Embedding(5, 6),
            norm=nn.LayerNorm(6),
            h=head(6),
            token=weight(1, 1, 6),
            scale=weight(6),
            matrix=weight(6, 6),
            rms=nn.RMSNorm(6),
        ),
        words(),
    ),
    "tied": lambda: (Net(_tied, words=nn.Embedding(10, 6), mix=nn.Linear(6, 6), shift=weight(4)), words()),
    "folded": lambda: (
        Net(_folded, c=nn.Conv2d(1, 4, 3), g=nn.GroupNorm(2, 4), h=nn.Linear(36, 4)),
        numbers(4, 1, 5, 5),
    ),
    "reused": lambda: (
        Net(lambda net, x: net.h(net.m(torch.tanh(net.m(torch.tanh(net.m(x)))))), m=nn.Linear(8, 8), h=head()),
        numbers(8),
    ),
    "reused convolution": lambda: (
        Net(lambda net, x: net.h(net.m(torch.tanh(net.m(x))).mean((2, 3))), m=nn.Conv2d(8, 8, 3, padding=1), h=head()),
        numbers(8, 4, 4),
    ),
    "time first": lambda: (
        Net(_lookalike, m=nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), shift=weight(8), h=head()),
        numbers(COUNT, 8),
    ),
    "as many channels as samples": lambda: images(
        nn.Conv2d(COUNT, COUNT, 3), nn.GroupNorm(2, COUNT), channels=COUNT, size=COUNT
    ),
    "encoder": lambda: (
        nn.Sequential(
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2, enable_nested_tensor=False
            ),
            nn.Flatten(),
            nn.Linear(40, 4),
        ),
        numbers(5, 8),
    ),
    "unused": lambda: (Net(lambda net, x: net.h(x), m=nn.Linear(3, 3), h=head()), numbers(8)),
}
"""Layers that torch has."""
