"""The loss-threshold attack against scikit-learn, on networks that learnt too much, and on ones that learnt nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score, roc_curve
from torch import nn

from vambrace.core.access import Access
from vambrace.errors import AccessError, ConfigError
from vambrace.models import from_torch
from vambrace.privacy.membership import loss_scores, measure, roc_points
from vambrace.privacy.membership.threshold import per_sample_loss

# Few distinct values, so that ties are common.
scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40)


def both(members, nonmembers):
    truth = np.r_[np.ones(len(members)), np.zeros(len(nonmembers))]
    return truth, np.r_[members, nonmembers]


@given(scores, scores)
def test_auc_equals_scikit_learn(members, nonmembers) -> None:
    expected = roc_auc_score(*both(members, nonmembers))
    assert measure(members, nonmembers, rates=()).auc == pytest.approx(expected, abs=1e-12)


@given(scores, st.lists(st.integers(-3, 3).map(float), min_size=20, max_size=40), st.sampled_from([0.5, 0.9]))
def test_tpr_is_the_best_of_the_observed_curve_without_ties(members, nonmembers, rate) -> None:
    """The realised false positive rate is never above the one asked for, and no stricter rule finds more."""
    point = measure(members, nonmembers, rates=(rate,)).tpr[0]
    fpr, tpr, _ = roc_curve(*both(members, nonmembers), drop_intermediate=False)
    reachable = tpr[fpr <= rate + 1e-12].max()
    assert point.value <= reachable + 1e-12
    if len(set(nonmembers)) == len(nonmembers):
        assert point.value == pytest.approx(reachable)


def test_tpr_equals_scikit_learn_without_ties() -> None:
    rng = np.random.default_rng(0)
    members, nonmembers = rng.normal(0.7, 1, 900), rng.normal(0, 1, 1500)
    fpr, tpr, _ = roc_curve(*both(members, nonmembers), drop_intermediate=False)
    result = measure(members, nonmembers)
    for point in result.tpr[:2]:
        assert point.value == pytest.approx(tpr[fpr <= point.fpr].max(), abs=1e-12)
        assert point.interval.low <= point.value <= point.interval.high
    assert result.interval.low < result.auc < result.interval.high


def test_a_constant_score_finds_nobody() -> None:
    result = measure(np.ones(500), np.ones(2000))
    assert result.auc == 0.5
    assert [point.value for point in result.tpr] == [0.0, 0.0, None]


def test_too_few_nonmembers_name_the_number_needed() -> None:
    result = measure(np.arange(50.0), np.arange(100.0))
    assert [(point.fpr, point.value is not None, point.needed) for point in result.tpr] == [
        (0.1, True, 100),
        (0.01, False, 1000),
        (0.001, False, 10000),
    ]
    assert [point.interval is not None for point in result.tpr] == [True, False, False]
    assert measure(np.arange(50.0), np.arange(99.0)).tpr[0].value is None


@pytest.mark.parametrize(("members", "nonmembers"), [([], [1.0]), ([1.0], []), ([math.nan], [1.0])])
def test_nothing_to_measure_is_refused(members, nonmembers) -> None:
    with pytest.raises(ConfigError) as caught:
        measure(members, nonmembers)
    assert caught.value.code == "E106"


@given(scores, scores)
def test_curve_points_are_those_of_scikit_learn(members, nonmembers) -> None:
    fpr, tpr = roc_points(members, nonmembers)
    assert fpr == sorted(set(fpr))
    assert tpr == sorted(tpr)
    assert (fpr[-1], tpr[-1]) == (1.0, 1.0)
    assert fpr[0] == pytest.approx(1 / len(nonmembers))
    known, best, _ = roc_curve(*both(members, nonmembers), drop_intermediate=False)
    for rate, share in zip(fpr, tpr, strict=True):
        assert share <= best[known <= rate + 1e-12].max() + 1e-12


def test_curve_has_at_most_200_points_and_its_ends() -> None:
    rng = np.random.default_rng(1)
    fpr, tpr = roc_points(rng.normal(1, 1, 3000), rng.normal(0, 1, 10_000))
    assert 100 < len(fpr) <= 200
    assert fpr[0] == 1e-4
    assert np.trapezoid([0, *tpr], [0, *fpr]) == pytest.approx(0.76, abs=0.02)


def test_loss_equals_scikit_learn_and_does_not_saturate() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    expected = [
        log_loss([label], probability[None], labels=range(4))
        for label, probability in zip(labels.tolist(), logits.double().softmax(1).numpy(), strict=True)
    ]
    torch.testing.assert_close(per_sample_loss(logits, labels), torch.tensor(expected), check_dtype=False)
    sure = per_sample_loss(torch.tensor([[60.0, 0.0], [90.0, 0.0], [900.0, 0.0]]), torch.zeros(3, dtype=torch.int64))
    assert sure.tolist() == pytest.approx([math.exp(-60), math.exp(-90), 0.0], rel=1e-6)
    assert float(sure[0]) > float(sure[1]) > 0


def test_samples_without_finite_logits_have_no_score() -> None:
    logits = torch.tensor([[1.0, 2.0], [torch.nan, 2.0], [torch.inf, 2.0], [-torch.inf, 2.0]])
    assert per_sample_loss(logits, torch.tensor([0, 1, 0, 1])).isnan().tolist() == [False, True, True, True]


class Table(nn.Module):
    """Remembers nothing: a fixed random linear map."""

    def __init__(self, features: int, classes: int, hidden: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        if hidden:
            self.net = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        else:
            self.net = nn.Linear(features, classes)

    def forward(self, x):
        return self.net(x)


def coin_flip_data(n: int, features: int = 20):
    """Labels that nothing predicts: whoever is right about them remembers them."""
    generator = torch.Generator().manual_seed(3)
    return torch.rand(n, features, generator=generator), torch.randint(0, 2, (n,), generator=generator)


def scored(module: nn.Module, n: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = coin_flip_data(2 * n)
    model = from_torch(module.eval())
    return loss_scores(model, inputs[:n], labels[:n]), loss_scores(model, inputs[n:], labels[n:])


def test_an_overfitted_network_is_found_out() -> None:
    inputs, labels = coin_flip_data(800)
    module = Table(20, 2, hidden=200)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(250):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(inputs[:400]), labels[:400]).backward()
        optimiser.step()
    result = measure(*scored(module))
    assert result.auc > 0.8
    assert result.interval.low > 0.75
    assert result.tpr[0].interval.low > 0.1


def test_a_network_that_was_never_trained_gives_nothing_away() -> None:
    """The negative control."""
    result = measure(*scored(Table(20, 2, hidden=200)))
    assert result.interval.low <= 0.5 <= result.interval.high
    assert result.tpr[0].interval.low <= 0.1 <= result.tpr[0].interval.high


def test_scores_do_not_depend_on_the_batch() -> None:
    inputs, labels = coin_flip_data(50)
    model = from_torch(Table(20, 2).eval())
    whole = loss_scores(model, inputs, labels)
    torch.testing.assert_close(loss_scores(model, inputs, labels, batch_size=7), whole, atol=1e-6, rtol=0)
    assert loss_scores(model, inputs[:0], labels[:0]).shape == (0,)


def test_labels_alone_are_not_enough() -> None:
    class Labels:
        access = Access.LABELS

    with pytest.raises(AccessError) as caught:
        loss_scores(Labels(), torch.rand(1, 2), torch.zeros(1, dtype=torch.int64))  # type: ignore[arg-type]
    assert caught.value.code == "E110"
