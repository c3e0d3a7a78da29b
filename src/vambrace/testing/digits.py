"""A small convolutional network for the embedded digits, and how to train it: the demo's model.

Training is honest: it sees the training part only, every number about the network comes from the other
part, and the same seed gives the same weights on one machine and torch version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from vambrace.core.progress import Progress

from vambrace.core.progress import silent

__all__ = ["network", "train"]


def network(width: int = 16) -> nn.Module:
    """Two convolutions and two linear layers for inputs (n, 1, 8, 8) in [0, 1]; logits (n, 10). Weights are not set."""
    layer = cast("Callable[..., nn.Module]", nn.utils.skip_init)
    return nn.Sequential(
        layer(nn.Conv2d, 1, width, 3, padding=1),
        nn.ReLU(),
        layer(nn.Conv2d, width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        layer(nn.Linear, 2 * width * 16, 64),
        nn.ReLU(),
        layer(nn.Linear, 64, 10),
    )


def train(
    inputs: Tensor,
    labels: Tensor,
    *,
    width: int = 16,
    epochs: int = 12,
    batch_size: int = 64,
    step_size: float = 2e-3,
    seed: int = 0,
    progress: Progress = silent,
) -> nn.Module:
    """Fit `network` by Adam on cross entropy.

    Args:
        inputs: (n, 1, 8, 8) in [0, 1].
        labels: int64 (n,).
        width: channels of the first convolution.
        epochs: passes over the data.
        batch_size: samples a step.
        step_size: Adam's learning rate at the start; it falls to zero along a cosine.
        seed: of initial weights and order.
        progress: told once an epoch.

    Returns:
        The network in eval mode.
    """
    generator = torch.Generator().manual_seed(seed)
    module = network(width)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_uniform_(parameter, nonlinearity="relu", generator=generator)
        else:
            nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam(module.parameters(), lr=step_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    module.train()
    progress.start("train", epochs)
    for _ in range(epochs):
        for part in torch.split(torch.randperm(len(labels), generator=generator).to(inputs.device), batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[part]), labels[part]).backward()
            optimizer.step()
        schedule.step()
        progress.advance("train")
    progress.finish("train")
    return module.eval()
