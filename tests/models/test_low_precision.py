"""A model searched in half the bits: steps in them, claims and clean predictions in full."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vambrace.attacks import APGD, PGD, Adaptive, Square
from vambrace.core.access import Access
from vambrace.errors import ConfigError
from vambrace.models import LowPrecision, from_torch
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel

EPS = 0.02


class Net(nn.Module):
    """Two layers that note in which type the first one answered, and for how many rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(48, 64), nn.Linear(64, 5)
        self.rows: dict[torch.dtype, int] = {}

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.one(images.flatten(1))
        self.rows[hidden.dtype] = self.rows.get(hidden.dtype, 0) + len(images)
        return self.two(hidden.relu()) * 3 + 3.0  # an offset that eats some of the bits of bfloat16


def problem(count: int = 200) -> tuple[Net, Tensor, Tensor]:
    net = Net().eval()
    inputs = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = net(inputs).argmax(1)
    net.rows.clear()
    return net, inputs, labels


@pytest.mark.parametrize("compute", [torch.bfloat16, torch.float16])
def test_logits_are_less_exact_and_single_again(compute: torch.dtype) -> None:
    net, inputs, _ = problem()
    model = from_torch(net, bounds=(0, 1))
    low = LowPrecision(model, compute)
    given = low(inputs)
    assert given.dtype == torch.float32
    assert set(net.rows) == {compute}
    assert not torch.equal(given, model(inputs))
    torch.testing.assert_close(given, model(inputs), rtol=0, atol=0.5)
    assert torch.equal(low.predict(inputs), model.predict(inputs))


@pytest.mark.parametrize("attack", [PGD(eps=EPS, steps=10), APGD(eps=EPS, steps=10), Adaptive(eps=EPS, budget=60)])
def test_steps_are_cheap_and_every_claim_is_one_of_the_model_itself(attack) -> None:
    net, inputs, labels = problem()
    out = attack(LowPrecision(from_torch(net, bounds=(0, 1))), inputs, labels)
    cost = out.cost
    full = net.rows[torch.float32]
    clean = len(inputs) if isinstance(attack, Adaptive) else 0
    checks = cost.verifications + clean
    assert checks <= full <= checks + cost.padding_forwards
    asked = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
    assert net.rows[torch.bfloat16] == asked - full
    with torch.no_grad():
        assert (net(out.adversarial).argmax(1) != labels)[out.success].all()
    exact = attack(from_torch(net, bounds=(0, 1)), inputs, labels)
    assert int(out.success.sum()) >= 0.85 * int(exact.success.sum()) > 0
    assert not out.success.all()


class Coarse(LowPrecision):
    """Less exact by far: every second class is rated too high."""

    def __call__(self, inputs: Tensor) -> Tensor:
        logits = self.model(inputs)
        return logits + 0.2 * (torch.arange(logits.shape[1]) % 2)


def test_without_the_exact_model_claims_would_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    net, inputs, labels = problem()
    model, attack = Coarse(from_torch(net, bounds=(0, 1))), PGD(eps=EPS, steps=10)

    def hold() -> Tensor:
        out = attack(model, inputs, labels)
        assert out.success.any()
        with torch.no_grad():
            return (net(out.adversarial).argmax(1) != labels)[out.success]

    assert hold().all()
    monkeypatch.setattr(LowPrecision, "exact", property(lambda self: self))
    assert not hold().all()


def test_black_box_claims_are_exact_too() -> None:
    net, inputs, labels = problem()
    out = Square(eps=EPS, queries=60)(LowPrecision(from_torch(net, bounds=(0, 1))), inputs, labels)
    with torch.no_grad():
        assert (net(out.adversarial).argmax(1) != labels)[out.success].all()
    assert out.success.any()


def test_points_made_on_a_cheap_surrogate_are_judged_in_full() -> None:
    net, inputs, labels = problem()
    model = LowPrecision(from_torch(net, bounds=(0, 1)))
    out = PGD(eps=EPS, steps=10)(model, inputs, labels, surrogates=[model])
    with torch.no_grad():
        assert torch.equal(net(out.adversarial).argmax(1) != labels, out.success)
    assert out.success.any()


def test_what_it_cannot_lower_is_refused() -> None:
    net, _, _ = problem()
    with pytest.raises(ConfigError, match=r"E115.*float64"):
        LowPrecision(from_torch(net), torch.float64)
    function, bounds, _, _ = curved_problem(0.1, 4)
    scores = CountingModel(function, bounds=bounds, access=Access.SCORES)
    with pytest.raises(ConfigError, match=r"E115.*SCORES"):
        LowPrecision(scores)


def test_results_are_not_mistaken_for_those_of_the_exact_model() -> None:
    net, _, _ = problem()
    model = from_torch(net, identity="net")
    assert LowPrecision(model).identity.detail["search_dtype"] == "torch.bfloat16"
    assert LowPrecision(model).identity != model.identity
    assert LowPrecision(from_torch(net)).identity is None
