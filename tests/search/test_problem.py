"""What a caller can get wrong is said before the model is asked, with its fix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vambrace.attacks import FGSM, PGD
from vambrace.core.access import Access, Bounds
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.rng import Streams
from vambrace.errors import AccessError, ConfigError
from vambrace.search.problem import batch_rows, pose
from vambrace.testing.counting import CountingModel

ATTACK = PGD(eps=0.1, steps=3)
WEIGHT = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))


def linear(points: Tensor) -> Tensor:
    return points.flatten(1) @ WEIGHT.to(points)


def model(**options) -> CountingModel:
    return CountingModel(linear, **options)


def inputs(n: int = 6) -> Tensor:
    return torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def refused(code: str, *words: str, target: CountingModel | None = None, attack=ATTACK, **call) -> None:
    target = target or model(num_classes=3)
    given = {"inputs": inputs(), "goal": torch.zeros(6, dtype=torch.int64), **call}
    with pytest.raises(ConfigError, match=code) as caught:
        attack(target, given.pop("inputs"), given.pop("goal"), **given)
    for word in words:
        assert word in str(caught.value)
    assert target.forward_rows == 0, "refused before the model is asked"


def test_inputs_of_the_wrong_form() -> None:
    refused("E131", "uint8", "255", inputs=(inputs() * 255).to(torch.uint8))
    refused("E131", "int64", inputs=torch.ones(6, 3, 2, 2, dtype=torch.int64))
    refused("E131", "(6,)", "inputs[None]", inputs=torch.rand(6))
    refused("E131", inputs=torch.rand(6, 0, 2))


def test_inputs_outside_the_bounds() -> None:
    refused("E132", "6 of 6", "clip", inputs=inputs() + 2)
    refused("E132", "1 of 6", inputs=torch.cat((inputs(5), inputs(1) - 1e-7 - inputs(1).amin())))
    for value in (float("nan"), float("inf"), -float("inf")):
        spoiled = inputs()
        spoiled[2, 0, 0, 0] = value
        refused("E132", "1 of 6", inputs=spoiled)
        refused("E132", "finite", inputs=spoiled, target=model(bounds=None))
    clipped = Bounds(0.0, 1.0).clip(inputs() + 0.3)
    assert ATTACK(model(), clipped, torch.zeros(6).long()).success.shape == (6,)


def test_ends_of_bounds_are_read_in_the_dtype_of_the_inputs() -> None:
    """float32(0.3) is above 0.3: data at the very end of its range is not refused for that."""
    bounds = Bounds(-0.7, 0.3)
    given = torch.full((4, 3, 2, 2), 0.3)
    assert given.double().max() > 0.3
    out = ATTACK(model(bounds=bounds), given, torch.zeros(4).long())
    assert (out.adversarial.double() <= 0.3).all()
    assert (out.distance <= 0.1).all()


def test_labels_that_are_no_classes() -> None:
    refused("E108", "float32", goal=torch.zeros(6))
    refused("E108", "(6, 3)", "argmax", goal=torch.eye(6, 3).long())
    refused("E108", "bool", goal=torch.zeros(6).bool())
    refused("E133", "from 0 to 3", "0 to 2", goal=torch.tensor([0, 1, 2, 3, 0, 0]))
    refused("E133", "from -1", goal=torch.tensor([0, 1, 2, -1, 0, 0]), target=model())
    refused("E133", "from 7", goal=Targeted(torch.full((6,), 7)))
    refused("E134", "meta", "torch.device('meta')", goal=torch.zeros(6, dtype=torch.int64, device="meta"))


def test_labels_beyond_logits_that_are_only_known_from_the_first_answer() -> None:
    for n in (6, 40):  # the larger batch is asked about one sample first
        with pytest.raises(ConfigError, match="E133.*to 9.*0 to 2"):
            ATTACK(model(), inputs(n), torch.full((n,), 9))


def test_goals_of_another_size() -> None:
    refused("E134", "5 samples and 6 inputs", goal=torch.zeros(5, dtype=torch.int64))
    labels = torch.zeros(6, dtype=torch.int64)
    refused("E135", "margin", goal=Untargeted(labels) & Targeted(labels))


def test_ids() -> None:
    refused("E136", "(5,)", ids=torch.arange(5))
    refused("E136", "int32", ids=torch.arange(6).int())
    refused("E136", "2 ids", ids=torch.tensor([1, 2, 2, 3, 3, 4]))


def test_start_points() -> None:
    refused("E137", "(5, 3, 2, 2)", start=inputs(5))
    refused("E137", "float64", start=inputs().double())
    refused("E137", "finite", start=inputs() / 0)


def test_what_is_no_dense_tensor() -> None:
    refused("E131", "list", "torch.as_tensor(inputs)", inputs=inputs().tolist())
    refused("E131", "ndarray", inputs=inputs().numpy())
    refused("E131", "meta", "torch.device('meta')", inputs=inputs().to("meta"))
    refused("E136", "meta", ids=torch.arange(6).to("meta"))
    refused("E131", "sparse", "to_dense", inputs=inputs().to_sparse())
    refused("E136", "list", "torch.as_tensor(ids)", ids=list(range(6)))
    refused("E137", "list", "torch.as_tensor(start)", start=inputs().tolist())


def test_batch_size() -> None:
    refused("E138", batch_size=0)
    refused("E138", batch_size=-3)
    refused("E138", "whole number", batch_size=2.5)
    assert batch_rows(None, torch.device("cpu")) == 128
    assert batch_rows(7, torch.device("cpu")) == 7
    assert type(batch_rows(np.int64(7), torch.device("cpu"))) is int  # type: ignore[arg-type]


def test_a_radius_in_grey_levels() -> None:
    refused("E139", "8/255", attack=PGD(eps=8.0))
    refused("E139", "3.4641", attack=FGSM(eps=3.5, norm="l2"))
    labels = torch.zeros(6, dtype=torch.int64)
    assert PGD(eps=1.0, steps=2)(model(), inputs(), labels).success.any()
    assert PGD(eps=8.0, steps=2)(model(bounds=Bounds(0.0, 255.0)), inputs(), labels).success.shape == (6,)
    assert PGD(eps=8.0, steps=2)(model(bounds=None), inputs(), labels).success.any()


def test_access_is_checked_before_anything_else() -> None:
    target = model(access=Access.SCORES)
    with pytest.raises(AccessError, match="E110.*pgd.*SCORES.*GRADIENTS"):
        ATTACK(target, inputs(), torch.zeros(6).long())
    assert target.forward_rows == 0


def test_forms_that_are_fine() -> None:
    labels = linear(inputs()).argmax(1)
    expected = ATTACK(model(), inputs(), labels)
    strided = torch.rand(6, 2, 2, 3).mul_(0).permute(0, 3, 1, 2)
    strided.copy_(inputs())
    assert not strided.is_contiguous()
    for given in (strided, inputs().contiguous(memory_format=torch.channels_last), inputs().requires_grad_()):
        found = ATTACK(model(), given, labels)
        assert torch.equal(expected.adversarial, found.adversarial)
        assert found.adversarial.dtype == torch.float32
    one = ATTACK(model(), inputs(1), labels[:1])
    assert torch.equal(one.adversarial[0], expected.adversarial[0])


def test_a_problem_holds_checked_values() -> None:
    problem = pose(model(), inputs(), torch.zeros(6, dtype=torch.int64), rng=3, ids=None, start=None, batch_size=None)
    assert isinstance(problem.goal, Untargeted)
    assert problem.goal.labels.dtype == torch.int64
    assert problem.rng == Streams(3)
    assert problem.ids.tolist() == list(range(6))


def test_goals_of_ones_own_are_kept() -> None:
    class Mine(Untargeted):
        pass

    goal = Mine(torch.zeros(6, dtype=torch.int64))
    problem = pose(model(), inputs(), goal, rng=0, ids=None, start=None, batch_size=None)
    assert type(problem.goal) is Mine
