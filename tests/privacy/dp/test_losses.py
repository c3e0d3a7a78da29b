"""Losses of a name give one number a sample, from that sample alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privacy.dp.toy_training import FEATURES, N, samples, training
from vambrace.errors import ConfigError
from vambrace.privacy.dp.losses import named


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABELS = torch.tensor([0, 2, 1, 2])


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8, torch.int8])
def test_cross_entropy_takes_whole_numbers_of_any_type(kind: torch.dtype) -> None:
    outputs = draw(4, 3)
    wanted = torch.stack([F.cross_entropy(outputs[row], LABELS[row]) for row in range(4)])
    assert torch.allclose(named("cross_entropy")(outputs, LABELS.to(kind)), wanted)


def test_cross_entropy_over_positions_is_their_mean_and_leaves_out_what_is_ignored() -> None:
    outputs, labels = draw(4, 3, 5), torch.arange(20).reshape(4, 5) % 3
    labels[1, 2:] = -100
    labels[2] = -100
    found = named("cross_entropy")(outputs, labels)
    assert found.shape == (4,)
    for row in (0, 1, 3):
        assert torch.allclose(found[row], F.cross_entropy(outputs[row].T, labels[row]))
    assert float(found[2]) == 0


def test_cross_entropy_takes_probabilities() -> None:
    outputs = draw(4, 3)
    shares = draw(4, 3).softmax(dim=1)
    assert torch.allclose(named("cross_entropy")(outputs, shares), -(shares * outputs.log_softmax(dim=1)).sum(dim=1))
    dense, parts = draw(4, 3, 5), draw(4, 3, 5).softmax(dim=1)
    found = named("cross_entropy")(dense, parts)
    assert torch.allclose(found, -(parts * dense.log_softmax(dim=1)).sum(dim=1).mean(dim=1))


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3), (4, 2, 3)])
def test_mse_and_binary_are_means_over_all_but_samples(shape: tuple[int, ...]) -> None:
    outputs, labels = draw(*shape), (draw(*shape) > 0).long()
    square = named("mse")(outputs, labels)
    binary = named("binary_cross_entropy_with_logits")(outputs, labels)
    assert square.shape == binary.shape == (4,)
    for row in range(4):
        assert torch.allclose(square[row], F.mse_loss(outputs[row], labels[row].double()))
        assert torch.allclose(binary[row], F.binary_cross_entropy_with_logits(outputs[row], labels[row].double()))


@pytest.mark.parametrize("name", ["mse", "binary_cross_entropy_with_logits"])
def test_labels_of_another_shape_are_refused_and_not_broadcast(name: Any) -> None:
    """(n, 1) against (n,) is (n, n): every loss would see every label, and equal labels would hide it."""
    with pytest.raises(ConfigError, match=r"E153.*squeeze"):
        named(name)(draw(4, 1), draw(4))
    same_labels = (samples()[0], torch.zeros(N, dtype=torch.float64))
    with pytest.raises(ConfigError, match="E153"):
        training(nn.Linear(FEATURES, 1).double(), same_labels, loss=name)


def test_losses_of_the_caller_pass_unchanged() -> None:
    def own(outputs: Tensor, labels: Tensor) -> Tensor:
        return outputs[:, 0] * labels

    assert named(own) is own
    each = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1)
    assert named(each) is each


@pytest.mark.parametrize("loss", ["ce", "", None, nn.MSELoss(), nn.CrossEntropyLoss(reduction="sum")])
def test_other_names_and_reductions_are_refused(loss: Any) -> None:
    with pytest.raises(ConfigError, match="E150"):
        named(loss)
