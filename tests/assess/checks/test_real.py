"""The checks on a published network and real digits, where both are at hand."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vambrace.assess.checks.adversarial import AdversarialCheck
from vambrace.assess.checks.clean import CleanCheck
from vambrace.assess.checks.membership import MembershipCheck
from vambrace.assess.checks.natural import NaturalCheck
from vambrace.attacks import PGD
from vambrace.models import from_torch
from vambrace.perturb import Contrast, Jpeg


def digits(folder: Path, kind: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    with gzip.open(folder / f"data/mnist/{kind}-images-idx3-ubyte.gz") as stream:
        images = np.frombuffer(stream.read(16 + n * 784), np.uint8, offset=16).reshape(n, 1, 28, 28)
    with gzip.open(folder / f"data/mnist/{kind}-labels-idx1-ubyte.gz") as stream:
        labels = np.frombuffer(stream.read(8 + n), np.uint8, offset=8)
    return torch.from_numpy(images / np.float32(255)), torch.from_numpy(labels.astype(np.int64))


@pytest.fixture
def mnist(shared: Path, make_world):
    network = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
    network.load_state_dict(torch.load(shared / "models/mnist_cnn_a_fgsm.pth", map_location="cpu", weights_only=True))
    world = make_world(n=1000, batch_size=250, model=from_torch(network.eval()))
    world.inputs, world.labels = digits(shared, "t10k", 1000)
    return world


def test_clean_accuracy_is_the_published_one(mnist) -> None:
    findings = mnist.findings(CleanCheck())
    assert findings["accuracy"].value == 0.983
    assert findings["accuracy"].interval.low == pytest.approx(0.973, abs=0.001)
    assert len(findings["accuracy"].series["class"]) == 10


def test_flat_contrast_ruins_the_network_and_compression_does_not(mnist) -> None:
    contrast = mnist.findings(NaturalCheck(perturbation=Contrast(), severities=(1, 3, 5)))
    drops = [contrast[f"drop@{severity}"].value for severity in (1, 3, 5)]
    assert drops == sorted(drops)
    assert contrast["drop@5"].interval.low > 75
    jpeg = mnist.findings(NaturalCheck(perturbation=Jpeg(), severities=(5,)))
    assert jpeg["drop@5"].interval.high < 2


def test_pgd_leaves_what_is_known_to_be_left(mnist) -> None:
    """PGD-20 leaves 88.8 of 100 on 500 images."""
    check = AdversarialCheck(attack=PGD(eps=0.3, steps=10), eps=(0.3,))
    robust = mnist.findings(check, range(60))["robust_accuracy@0.3"]
    assert 0.75 <= robust.value <= 0.95
    assert robust.interval.low < 0.888 < robust.interval.high


def test_a_network_that_generalises_gives_few_members_away(mnist, shared) -> None:
    others = list(mnist.measured(MembershipCheck(), role="nonmembers").records)
    mnist.inputs, mnist.labels = digits(shared, "train", 1000)
    members = list(mnist.measured(MembershipCheck(), role="members").records)
    reduction = mnist.reduction({"members": members, "nonmembers": others})
    findings = {each.metric: each for each in MembershipCheck().reduce(reduction)}
    assert "E462" in [flag.code for flag in findings["auc"].flags]  # the world's hashes are of positions
    assert 0.45 < findings["auc"].interval.low < findings["auc"].interval.high < 0.6
    assert findings["tpr@0.01"].value < 0.05
