"""A randomised model averaged over calls: the mean probability, the rows it costs, and claims that hold on average."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vambrace.attacks import PGD
from vambrace.core.access import Access, Bounds
from vambrace.errors import ConfigError
from vambrace.models import from_torch
from vambrace.models.contract import Model
from vambrace.models.expectation import Expectation
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel


def noisy(size: float, seed: int = 0):
    """The curved problem behind random noise on its inputs, with a generator of its own."""
    function, bounds, inputs, _ = curved_problem(0.1, 40)
    generator = torch.Generator().manual_seed(seed)

    def model(points: Tensor) -> Tensor:
        return function(points + size * torch.randn(points.shape, generator=generator, dtype=points.dtype)) * 30

    return model, bounds, inputs


def votes(model, points: Tensor, calls: int = 400) -> Tensor:
    """Mean probabilities over many calls."""
    with torch.no_grad():
        return torch.stack([model(points).softmax(1) for _ in range(calls)]).mean(0)


def test_logits_are_the_log_of_the_mean_probability() -> None:
    tables = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5
    calls = iter(tables)
    model = CountingModel(lambda points: next(calls) + 0.0 * points.sum(), dtype=torch.float64)
    found = Expectation(model, samples=4)(torch.zeros(6, 2, dtype=torch.float64))
    torch.testing.assert_close(found, tables.softmax(2).mean(0).log())
    assert isinstance(Expectation(model), Model)


def test_a_model_that_is_not_random_is_itself() -> None:
    function, bounds, inputs, _ = curved_problem(0.1, 10)
    logits = Expectation(CountingModel(function, bounds=bounds, dtype=torch.float64), samples=7)(inputs)
    torch.testing.assert_close(logits, function(inputs).log_softmax(1))


def test_nothing_saturates() -> None:
    """Mean probabilities of a sure model are zeros and ones in float32; their logs must not be."""
    weight = torch.tensor([[1.0, -1.0]]) * 1e4
    model = CountingModel(lambda points: points @ weight)
    points = torch.full((1, 1), 0.5, requires_grad=True)
    logits = Expectation(model, samples=3)(points)
    assert logits.isfinite().all()
    assert float((logits[0, 0] - logits[0, 1]).detach()) == pytest.approx(1e4)
    (gradient,) = torch.autograd.grad(logits[0, 1] - logits[0, 0], points)
    assert gradient.item() == pytest.approx(-2e4, rel=1e-3)


def test_a_row_costs_as_many_rows_as_are_averaged() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 20)
    inner = CountingModel(function, bounds=bounds, dtype=torch.float64)
    outer = CountingModel(Expectation(inner, samples=5), bounds=bounds, dtype=torch.float64)
    out = PGD(eps=0.1, steps=4)(outer, inputs, labels, batch_size=7)
    assert out.success.any()
    assert inner.forward_rows == 5 * outer.forward_rows > 0
    assert inner.backward_rows == 5 * outer.backward_rows > 0
    before = inner.forward_rows
    Expectation(inner, samples=5).predict(inputs)
    assert inner.forward_rows - before == 5 * 20


def test_labels_are_taken_by_vote() -> None:
    given = iter(torch.tensor([[0, 2], [1, 2], [1, 0], [0, 2], [1, 1]]))

    class Labels(CountingModel):
        def predict(self, inputs: Tensor) -> Tensor:
            return next(given)

    model = Expectation(Labels(lambda points: points, access=Access.LABELS), samples=5)
    assert model.access == Access.LABELS
    assert model.predict(torch.zeros(2, 1)).tolist() == [1, 2]


def test_what_is_wrapped_shows() -> None:
    model = from_torch(torch.nn.Linear(4, 2).eval(), identity="net")
    averaged = Expectation(model, samples=3)
    assert averaged.bounds is model.bounds
    assert averaged.identity.detail["expectation"] == 3
    assert averaged.identity != Expectation(model, samples=4).identity
    assert averaged.access == Access.GRADIENTS
    with pytest.raises(ConfigError, match="E115"):
        Expectation(model, samples=0)


def test_claims_hold_on_average() -> None:
    """A success of one draw, confirmed by another draw, is often luck; one of a hundred draws falls short by little."""
    size = 0.4
    model, bounds, inputs = noisy(size)
    labels = votes(model, inputs).argmax(1)
    attack = PGD(eps=0.1, steps=8)
    luck, found = {}, {}
    for samples in (1, 100):
        random, _, _ = noisy(size, seed=samples)
        counted = CountingModel(random, bounds=bounds, dtype=torch.float64)
        out = attack(Expectation(counted, samples=samples), inputs, labels)
        shares = votes(model, out.adversarial)
        own = shares.gather(1, labels[:, None])[:, 0]
        short = own - shares.scatter(1, labels[:, None], 0.0).amax(1)
        luck[samples] = float((short > 0.1)[out.success].double().mean())
        found[samples] = int(((short < 0) & out.success).sum())
    assert luck[100] == 0.0
    assert luck[1] > 0.2
    assert found[100] > found[1], "and more of the model's weak samples are found"


def test_an_average_of_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong on purpose: only the last call counts."""
    monkeypatch.setattr(Expectation, "__call__", lambda self, inputs: self.model(inputs).log_softmax(1))
    with pytest.raises(AssertionError):
        test_claims_hold_on_average()
    with pytest.raises(AssertionError):
        test_a_row_costs_as_many_rows_as_are_averaged()


def test_the_box_is_that_of_the_model() -> None:
    model = CountingModel(lambda points: points, bounds=Bounds(-1.0, 2.0))
    assert Expectation(model).bounds.as_json() == [-1.0, 2.0]
