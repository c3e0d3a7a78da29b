"""Other libraries behind our signature; run where they are installed, refused in words where not."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
ATTACKS = [
    ("foolbox", "foolbox_attack", "LinfPGD", {"eps": 0.3, "steps": 10}),
    ("torchattacks", "torchattacks_attack", "PGD", {"eps": 0.3, "steps": 10, "alpha": 0.06}),
    ("art", "art_attack", "ProjectedGradientDescentPyTorch", {"eps": 0.3, "eps_step": 0.06, "max_iter": 10}),
]


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers", ROOT / "benchmarks" / "peers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("library", "maker", "name", "options"), ATTACKS, ids=[row[0] for row in ATTACKS])
def test_a_peer_attacks_or_says_what_is_missing(
    peers: ModuleType, library: str, maker: str, name: str, options
) -> None:
    if reason := peers.absent(library):
        assert library in reason
        assert "make peers" in reason
        with pytest.raises(peers.Absent, match=library):
            getattr(peers, maker)(name, **options)
        return
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(3, 16, generator=generator))
    net.train()
    inputs = torch.rand(12, 1, 4, 4, generator=generator)
    labels = net(inputs).argmax(1)
    targets = (labels + 1) % 3
    state = torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
    attack = getattr(peers, maker)(name, **options)
    away, toward = attack(net, inputs, labels), attack(net, inputs, labels, targets, True)
    assert (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())) == state
    assert net.training
    for points in (away, toward):
        assert points.shape == inputs.shape
        assert (points - inputs).abs().max() <= 0.3 + 1e-6
    assert (net(away).argmax(1) != labels).double().mean() > 0.5
    assert (net(toward).argmax(1) == targets).double().mean() > 0.3


def test_a_library_that_nobody_has(peers: ModuleType) -> None:
    assert "no_such_library" in peers.absent("no_such_library")
    assert peers.absent("torch") is None
