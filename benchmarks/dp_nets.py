"""What benchmarks of private training run on: the networks that are timed, Opacus' of its MNIST example, and MNIST."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import nets
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vambrace.data.idx import read_idx


class Token(nn.Module):
    """Two linear layers at every token, then the mean over tokens, of outputs or of what is positive in them."""

    def __init__(self, *, rectified: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(256, 512), nn.Linear(512, 256)
        self._rectified = rectified

    def forward(self, inputs: Tensor) -> Tensor:
        """Tokens (n, T, 256) to logits (n, 256)."""
        outputs = self.second(F.relu(self.first(inputs)))
        return (F.relu(outputs) if self._rectified else outputs).mean(dim=1)


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
    "token_rectified": Case(
        "token MLP with a ReLU before the mean over tokens",
        functools.partial(Token, rectified=True),
        (32, 64, 256),
        256,
        3,
        1.35,
        1.45,
        1.6,
    ),
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
