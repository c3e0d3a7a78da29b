import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vambrace.errors import ModelMisbehaved
from vambrace.models.outputs import checked_logits


@pytest.mark.parametrize(
    ("given_output", "code", "said"),
    [
        ((torch.rand(3, 2), torch.rand(3)), "E401", "a tuple of 2"),
        ([torch.rand(3, 2)], "E401", "a list of 1"),
        ({"logits": torch.rand(3, 2)}, "E401", "a dict with keys logits"),
        (None, "E401", "None"),
        (1.0, "E401", "a float"),
        (torch.rand(3), "E402", "yes/no"),
        (torch.rand(3, 2, 1), "E402", "flatten"),
        (torch.tensor(1.0), "E402", "column a class"),
        (torch.rand(3, 1), "E402", "yes/no"),
        (torch.rand(3, 0), "E402", "yes/no"),
        (torch.rand(3, 2).to_sparse(), "E401", "a sparse_coo tensor"),
        (torch.rand(2, 2), "E403", "2 rows for 3 samples"),
        (torch.ones(3, 2, dtype=torch.int64), "E404", "int64"),
        (torch.ones(3, 2, dtype=torch.bool), "E404", "bool"),
        (torch.ones(3, 2, dtype=torch.complex64), "E404", "complex64"),
    ],
)
def test_wrong_forms(given_output: object, code: str, said: str) -> None:
    with pytest.raises(ModelMisbehaved, match=said) as caught:
        checked_logits(given_output, 3, "logits")
    assert caught.value.code == code


def test_another_width_than_declared() -> None:
    with pytest.raises(ModelMisbehaved, match="the 4 classes") as caught:
        checked_logits(torch.rand(3, 2), 3, "logits", 4)
    assert caught.value.code == "E402"


def test_logits_pass_untouched() -> None:
    logits = torch.randn(3, 2, dtype=torch.float64)
    assert checked_logits(logits, 3, "logits", 2) is logits


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_no_form(value: float) -> None:
    assert checked_logits(torch.full((1, 2), value), 1, "logits").shape == (1, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_widened(dtype: torch.dtype) -> None:
    assert checked_logits(torch.ones(1, 2, dtype=dtype), 1, "logits").dtype == torch.float32


@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=6))
def test_probabilities_lead_back_to_the_same_order_and_gaps(scores: list[float]) -> None:
    logits = torch.tensor([scores], dtype=torch.float64)
    found = checked_logits(logits.softmax(1), 1, "probabilities")
    assert torch.allclose(found - found[:, :1], logits - logits[:, :1], atol=1e-9)


def test_a_probability_of_zero_is_finite_and_smallest() -> None:
    found = checked_logits(torch.tensor([[0.0, 1.0]]), 1, "probabilities")
    assert found.isfinite().all()
    assert found[0, 0] < -80
    assert found[0, 1] == 0


def test_the_gradient_through_the_log_is_the_true_one() -> None:
    scores = torch.tensor([[3.0, -40.0]], requires_grad=True)
    (found,) = torch.autograd.grad(checked_logits(scores.softmax(1), 1, "probabilities")[0, 1], scores)
    assert torch.allclose(found, torch.tensor([[-1.0, 1.0]]), atol=1e-6)
