"""Several models as one: the mean of their logits, each asked once, and only models that go together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vambrace.core.access import Access, Bounds
from vambrace.errors import ConfigError
from vambrace.models import from_torch
from vambrace.models.contract import Model
from vambrace.models.ensemble import Ensemble
from vambrace.testing.counting import CountingModel


def linear(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    net = nn.Linear(4, 3, bias=False).eval()
    with torch.no_grad():
        net.weight.copy_(torch.randn(3, 4, generator=generator))
    return net


def test_logits_are_the_mean_and_every_model_is_asked_once() -> None:
    members = [CountingModel(linear(seed)) for seed in range(3)]
    ensemble, inputs = Ensemble(members), torch.rand(5, 4, requires_grad=True)
    logits = ensemble(inputs)
    expected = torch.stack([linear(seed)(inputs) for seed in range(3)]).mean(0)
    torch.testing.assert_close(logits, expected)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), inputs)
    torch.testing.assert_close(
        gradient, torch.stack([linear(seed).weight[1] for seed in range(3)]).mean(0).expand(5, 4)
    )
    assert torch.equal(ensemble.predict(inputs), expected.argmax(1))
    assert [(each.forward_rows, each.backward_rows) for each in members] == [(10, 5)] * 3
    assert isinstance(ensemble, Model)


def test_access_is_the_least_of_all() -> None:
    def one(access: Access) -> CountingModel:
        return CountingModel(linear(0), access=access)

    assert Ensemble([one(Access.INTERNALS)]).access == Access.GRADIENTS
    assert Ensemble([one(Access.GRADIENTS), one(Access.SCORES)]).access == Access.SCORES
    with pytest.raises(ConfigError, match="E121.*labels"):
        Ensemble([one(Access.GRADIENTS), one(Access.LABELS)])


def test_what_one_knows_all_know() -> None:
    narrow = CountingModel(lambda points: points[:, :3].double(), num_classes=3, dtype=torch.float64)
    ensemble = Ensemble([CountingModel(linear(0)), narrow])
    assert ensemble.num_classes == 3
    assert ensemble.dtype == torch.float64
    assert ensemble(torch.rand(2, 4)).dtype == torch.float64
    assert ensemble.input_shape is None
    assert ensemble.identity is None
    named = Ensemble([from_torch(linear(0), identity="one"), from_torch(linear(1), identity="two")])
    assert named.identity.name == "one + two"
    assert named.identity.detail["members"][0]["weights"] != named.identity.detail["members"][1]["weights"]


def test_models_that_do_not_go_together_are_refused() -> None:
    first = from_torch(linear(0), bounds=(0, 1), input_shape=(4,), num_classes=3)
    others = [
        from_torch(linear(1), bounds=(0, 255)),
        from_torch(linear(1), bounds=None),
        CountingModel(linear(1), bounds=Bounds(torch.zeros(4), torch.tensor([1.0, 1.0, 1.0, 2.0]))),
        from_torch(linear(1), input_shape=(5,)),
        from_torch(linear(1), num_classes=4),
        CountingModel(linear(1), device="meta"),
    ]
    for other in others:
        with pytest.raises(ConfigError, match="E121"):
            Ensemble([first, other])
    with pytest.raises(ConfigError, match="E121"):
        Ensemble([])


def test_classes_that_nobody_declared_must_be_equal_too() -> None:
    def wide(points: Tensor) -> Tensor:
        return torch.cat((points, points), dim=1)

    with pytest.raises(ConfigError, match="E121.*classes: 3 and 8"):
        Ensemble([CountingModel(linear(0)), CountingModel(wide)])(torch.rand(2, 4))
