"""What tests of obfuscated programs share: passes, a small network, what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from vambrace.assets.obfuscate.passes.permutation import Permutation

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.torch_graph import ObfuscatedProgram

__all__ = ["ALL", "EVERYWHERE", "done", "mlp"]

EVERYWHERE = Permutation(share=1.0, slowdown=100.0)
ALL = (EVERYWHERE, "scaling", "signs", "order", "metadata", "names")


def done(obfuscated: ObfuscatedProgram) -> dict[str, int]:
    return {entry.name: entry.done for entry in obfuscated.map.passes}


def mlp(*sizes: int, curve: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for taken, given in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(taken, given), curve()]
    return nn.Sequential(*layers[:-1]).eval()
