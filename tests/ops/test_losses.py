"""The loss that attacks ascend: direction and order of cross entropy, also where that is lost to rounding."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vambrace.core.goals import Targeted, Untargeted
from vambrace.errors import ConfigError
from vambrace.ops.losses import log_odds, require_loss, slope, toward_slope, toward_value, value


def spread_of(logits: Tensor) -> Tensor:
    return logits.amax(1) - logits.amin(1)


def apart(logits: Tensor) -> Tensor:
    """Rows of less than one between the highest and the lowest are moved further apart."""
    return logits * (1.001 / spread_of(logits)).clamp(min=1).unsqueeze(1)


@given(st.integers(0, 2**31), st.floats(0.01, 20), st.integers(2, 12))
def test_slope_is_a_positive_multiple_of_the_cross_entropy_gradient(seed: int, scale: float, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = apart(torch.randn(6, classes, generator=generator, dtype=torch.float64) * scale)
    labels = torch.randint(classes, (6,), generator=generator)
    for goal, sign in ((Untargeted(labels), 1.0), (Targeted(labels), -1.0)):
        leaf = logits.clone().requires_grad_()
        loss = sign * F.cross_entropy(leaf, labels, reduction="none")
        (expected,) = torch.autograd.grad(loss.sum(), leaf)
        assert spread_of(logits).min() > 1
        factor = 1 - logits.softmax(1).gather(1, labels.unsqueeze(1))
        torch.testing.assert_close(slope("ce", logits, goal) * factor, expected, rtol=1e-7, atol=1e-12)


@given(st.integers(0, 2**31), st.floats(0.01, 10))
def test_value_orders_points_as_cross_entropy_does(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = apart(torch.randn(40, 5, generator=generator, dtype=torch.float64) * scale)
    labels = torch.zeros(40, dtype=torch.int64)
    loss = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(F.softplus(value("ce", logits, Untargeted(labels))), loss, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(F.softplus(-value("ce", logits, Targeted(labels))), loss, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("size", [1.0, 1e-4])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
@pytest.mark.parametrize("kind", [Untargeted, Targeted])
def test_slope_is_the_derivative_of_value(loss: str, kind: type, size: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = (torch.randn(5, 4, dtype=torch.float64, generator=generator) * size).requires_grad_()
    goal = kind(torch.tensor([0, 1, 2, 3, 0]))
    (expected,) = torch.autograd.grad(value(loss, logits, goal).sum(), logits)
    torch.testing.assert_close(slope(loss, logits, goal), expected)
    assert not slope(loss, logits, goal).requires_grad


@pytest.mark.parametrize("gap", [50.0, 250.0, 1e4, 1e30])
def test_a_model_sure_of_itself_still_has_a_direction(gap: float) -> None:
    """Cross entropy in float32 has none: the tools that follow it call such a model robust."""
    logits = torch.tensor([[gap, 0.0, gap / 2]])
    label = torch.tensor([0])
    leaf = logits.clone().requires_grad_()
    (lost,) = torch.autograd.grad(F.cross_entropy(leaf, label), leaf)
    assert lost[0, 0] == 0, "p - 1 is lost to rounding"
    found = slope("ce", logits, Untargeted(label))
    assert found[0, 0] == -1
    assert found[0, 1:].sum() == 1
    assert found[0, 2] > 0.99


@pytest.mark.parametrize("kind", [Untargeted, Targeted])
def test_flat_logits_have_the_slope_of_logits_apart(kind: type) -> None:
    """Cross entropy itself pulls at all other classes alike there, and passes the near one by."""
    shape = torch.tensor([[3.0, 1.5, -8.0, -9.0, -10.0], [-13.0, 2.0, 1.0, 3.0, 0.0]], dtype=torch.float64)
    goal = kind(torch.tensor([0, 3]))
    expected = slope("ce", shape * (16 / spread_of(shape)).unsqueeze(1), goal)
    for size in (1.0 / 16, 1e-3, 1e-9, 1e-30):
        flat = shape * size
        torch.testing.assert_close(slope("ce", flat, goal), expected, rtol=1e-6, atol=1e-9)
        shifted = flat.float() - 0.3 * size
        torch.testing.assert_close(slope("ce", shifted, goal), expected.float(), rtol=1e-3, atol=1e-4)
    assert expected[0, 1].abs() > 0.99
    for rows in (torch.zeros(1, 5), torch.full((1, 5), 1e30), torch.full((1, 5), 1e-42)):
        even = slope("ce", rows, kind(torch.tensor([0])))
        torch.testing.assert_close(even[:, 1:].abs(), torch.full((1, 4), 0.25))
        assert value("ce", rows, kind(torch.tensor([0]))).isfinite().all()


@pytest.mark.parametrize("size", [1e-8, 1e-4, 0.1])
def test_flat_values_follow_the_margin(size: float) -> None:
    """Up to the same constant as elsewhere they lie between the margin that is missing and that of others all alike."""
    logits = torch.randn(200, 6, generator=torch.Generator().manual_seed(1)) * size
    logits = logits[spread_of(logits) <= 1]
    labels = torch.zeros(len(logits), dtype=torch.int64)
    missing, constant = Untargeted(labels).margin(logits).double(), math.log(5.0)
    over = value("ce", logits, Untargeted(labels)) - constant - missing
    assert (over <= 1e-6 * size).all()
    assert (over >= -constant / 16 * spread_of(logits).double() - 1e-6 * size).all()
    assert over.unique().numel() > 100, "small differences are not lost beside the constant"
    assert torch.equal(toward_value("ce", logits, labels, labels + 2), value("ce", logits, Targeted(labels + 2)))


def test_rows_apart_are_left_as_they_are_bit_for_bit() -> None:
    logits = apart(torch.randn(50, 7, generator=torch.Generator().manual_seed(4)) * 3)
    labels = torch.arange(50) % 7
    away = logits.scatter(1, labels.unsqueeze(1), float("-inf")).softmax(dim=1).scatter(1, labels.unsqueeze(1), -1.0)
    assert torch.equal(slope("ce", logits, Untargeted(labels)), away)
    assert torch.equal(value("ce", logits, Untargeted(labels)), -log_odds(logits, labels).double())
    mixed = torch.cat((logits, 1e-3 * logits))
    assert torch.equal(slope("ce", mixed, Untargeted(labels.repeat(2)))[:50], away), "whatever stands beside them"


def test_log_odds_of_two_classes_is_their_difference() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.0, 5.0]])
    assert log_odds(logits, torch.tensor([0, 0])).tolist() == [3.0, -5.0]


def test_losses_that_do_not_fit_a_goal_are_refused() -> None:
    labels = torch.tensor([0, 1])
    both = Untargeted(labels) & Targeted(labels)
    require_loss("margin", both)
    require_loss("ce", Targeted(labels))
    with pytest.raises(ConfigError, match="E135.*margin"):
        require_loss("ce", both)
    with pytest.raises(ConfigError, match="E135.*dlr.*margin"):
        require_loss("dlr", both)
    with pytest.raises(ConfigError, match="E135"):
        value("dlr", torch.randn(2, 5), both)
    with pytest.raises(ConfigError, match="E135.*leave out targets"):
        require_loss("margin", Targeted(labels), toward=True)

    class Flat(Untargeted):
        def margin(self, logits: torch.Tensor) -> torch.Tensor:
            return (logits.argmax(1) == 1).float()

    with pytest.raises(ConfigError, match="E134"):
        slope("margin", torch.randn(2, 3), Flat(labels))


def ratio_by_sorting(logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    """Equations 6 and 7 as the paper writes them, one sample at a time."""
    found = []
    for row, label in enumerate(labels.tolist()):
        z, high = logits[row], logits[row].sort(descending=True).values
        if targets is None:
            other = max(z[place] for place in range(len(z)) if place != label)
            found.append(-(z[label] - other) / (high[0] - high[2]))
        else:
            found.append(-(z[label] - z[targets[row]]) / (high[0] - (high[2] + high[3]) / 2))
    return torch.stack(found)


@given(st.integers(0, 2**31), st.floats(1e-3, 1e4), st.integers(4, 12))
def test_dlr_is_the_ratio_of_the_paper(seed: int, scale: float, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(6, classes, generator=generator, dtype=torch.float64) * scale).requires_grad_()
    labels = torch.randint(classes, (6,), generator=generator)
    targets = (labels + torch.randint(1, classes, (6,), generator=generator)) % classes
    for found, derivative, expected in (
        (value("dlr", logits, Untargeted(labels)), slope("dlr", logits, Untargeted(labels)), (labels,)),
        (toward_value("dlr", logits, labels, targets), toward_slope("dlr", logits, labels, targets), (labels, targets)),
    ):
        reference = ratio_by_sorting(logits, *expected)
        torch.testing.assert_close(found, reference)
        (slopes,) = torch.autograd.grad(reference.sum(), logits)
        torch.testing.assert_close(derivative, slopes, rtol=1e-9, atol=1e-9 / scale)
    torch.testing.assert_close(
        value("dlr", 7 * logits + 3, Untargeted(labels)), value("dlr", logits, Untargeted(labels))
    )


def test_a_target_names_no_label_so_its_best_rival_stands_for_it() -> None:
    logits, targets = torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 6
    rivals = logits.scatter(1, targets.unsqueeze(1), float("-inf")).argmax(1)
    torch.testing.assert_close(
        value("dlr", logits, Targeted(targets)), toward_value("dlr", logits, rivals, targets), rtol=0, atol=0
    )


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
def test_toward_a_class_the_slope_is_the_derivative_and_the_label_is_what_yields(loss: str) -> None:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(7, 5, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.arange(7) % 5
    targets = (labels + 2) % 5
    found = toward_value(loss, logits, labels, targets)
    (expected,) = torch.autograd.grad(found.sum(), logits)
    derivative = toward_slope(loss, logits, labels, targets)
    torch.testing.assert_close(derivative, expected)
    assert not derivative.requires_grad
    if loss == "margin":
        assert torch.equal(
            found > 0, logits.gather(1, targets[:, None])[:, 0] > logits.gather(1, labels[:, None])[:, 0]
        )


def test_equal_logits_give_a_finite_ratio() -> None:
    """Where all high logits tie the spread is zero; the ratio is zero there and its slope still points away."""
    logits = torch.zeros(1, 5)
    for found in (
        slope("dlr", logits, Untargeted(torch.tensor([2]))),
        toward_slope("dlr", logits, torch.tensor([2]), torch.tensor([3])),
    ):
        assert found.isfinite().all()
        assert found[0, 2] < 0
    assert float(value("dlr", logits, Untargeted(torch.tensor([2])))) == 0


def test_dlr_says_how_many_classes_it_needs() -> None:
    one = torch.tensor([0])
    for least, named in ((3, False), (4, True)):
        goal = Targeted(one) if named else Untargeted(one)
        require_loss("dlr", goal, least)
        slope("dlr", torch.randn(1, least), goal)
        with pytest.raises(ConfigError, match=f'E135.*{least - 1} classes.*at least {least}.*"ce"'):
            require_loss("dlr", goal, least - 1)
        with pytest.raises(ConfigError, match=f"E135.*at least {least}"):
            slope("dlr", torch.randn(1, least - 1), goal)
    with pytest.raises(ConfigError, match="E135.*toward a class.*3 classes.*at least 4"):
        require_loss("dlr", Untargeted(one), 3, toward=True)
    with pytest.raises(ConfigError, match="E135.*at least 4"):
        toward_value("dlr", torch.randn(1, 3), one, one + 1)
    require_loss("ce", Untargeted(one), 2, toward=True)
