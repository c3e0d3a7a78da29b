import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vambrace.core.access import Access
from vambrace.errors import BudgetSpent, ConfigError
from vambrace.models import Batched, Counted, Model, from_torch
from vambrace.models.ledger import Charge


def model():
    torch.manual_seed(0)
    return from_torch(nn.Linear(4, 3).eval(), identity="linear")


class Scores:
    """A model without gradients."""

    access = Access.SCORES
    bounds = input_shape = num_classes = identity = None
    outputs, device, dtype = "logits", torch.device("cpu"), torch.float32

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.detach()

    def predict(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.argmax(1)


@pytest.mark.parametrize("wrap", [lambda m: Batched(m, 2), Counted, lambda m: Counted(Batched(Counted(m), 2))])
def test_wrappers_are_models(wrap) -> None:
    inner = model()
    outer = wrap(inner)
    assert isinstance(outer, Model)
    assert outer.access is Access.GRADIENTS
    inputs = torch.rand(5, 4)
    # Of two rows at a time a processor may add up otherwise than of five.
    torch.testing.assert_close(outer(inputs), inner(inputs), rtol=1e-6, atol=1e-6)
    assert torch.equal(outer.predict(inputs), inner.predict(inputs))
    for name in ("bounds", "outputs", "input_shape", "num_classes", "device", "dtype", "identity"):
        assert getattr(outer, name) == getattr(inner, name)
    assert outer.fixed_rows is None
    inner.fixed_rows = 4  # as an ONNX model has it
    assert outer.fixed_rows == 4


@given(st.integers(1, 9), st.integers(1, 9))
def test_batched_never_exceeds_its_size(rows: int, size: int) -> None:
    counted = Counted(model())
    seen: list[int] = []
    counted.model.module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    inputs = torch.rand(rows, 4, requires_grad=True)
    logits = Batched(counted, size)(inputs)
    assert max(seen) <= size
    assert sum(seen) == rows == counted.forwards
    assert counted.calls == -(-rows // size)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), inputs)
    assert torch.allclose(gradient, model().module.weight[1].expand(rows, 4))
    assert counted.backwards == rows


def test_the_ledger_is_exact_by_sample() -> None:
    counted = Counted(model())
    inputs = torch.rand(4, 4, requires_grad=True)
    with counted.charged([10, 11, 12, 13]):
        logits = counted(inputs)
    torch.autograd.grad(logits.sum(), inputs)  # after the block: charged to the same samples
    with counted.charged(torch.tensor([11, -1, 13])):
        counted(inputs[:3])
    with counted.charged([11]):
        counted.predict(inputs[:1])
    assert counted.per_sample == {
        10: Charge(1, 1, 0),
        11: Charge(3, 1, 1),
        12: Charge(1, 1, 0),
        13: Charge(2, 1, 0),
    }
    assert (counted.calls, counted.forwards, counted.backwards, counted.queries) == (3, 8, 4, 1)
    assert counted.unattributed == 1


def test_ids_may_change_in_place_before_the_backward_pass() -> None:
    counted, ids = Counted(model()), torch.tensor([1, 2])
    inputs = torch.rand(2, 4, requires_grad=True)
    with counted.charged(ids):
        logits = counted(inputs)
    ids.fill_(9)
    logits.sum().backward()
    assert set(counted.per_sample) == {1, 2}


def test_two_backward_passes_are_two() -> None:
    counted, inputs = Counted(model()), torch.rand(2, 4, requires_grad=True)
    logits = counted(inputs)
    for column in range(2):
        torch.autograd.grad(logits[:, column].sum(), inputs, retain_graph=True)
    assert counted.backwards == 4


def test_a_loss_of_several_terms_is_one_backward_pass() -> None:
    counted, inputs = Counted(model()), torch.rand(2, 4, requires_grad=True)
    logits = counted(inputs)
    loss = logits.logsumexp(1).sum() - logits[:, 0].sum() + logits.pow(2).mean()
    torch.autograd.grad(loss, inputs)
    assert counted.backwards == 2


def test_no_backward_without_gradient() -> None:
    counted = Counted(model())
    with torch.no_grad():
        counted(torch.rand(2, 4, requires_grad=True))
    counted(torch.rand(2, 4))
    assert counted.backwards == 0


def test_blocks_nest_and_end() -> None:
    counted = Counted(model())
    with counted.charged([1]):
        with counted.charged([2]):
            counted(torch.rand(1, 4))
        counted(torch.rand(1, 4))
    counted(torch.rand(3, 4))
    assert counted.per_sample == {1: Charge(1), 2: Charge(1)}
    assert counted.unattributed == 3


def test_another_number_of_ids_counts_nothing() -> None:
    counted = Counted(model())
    with pytest.raises(ConfigError, match="3 rows while 2 sample ids") as caught, counted.charged([1, 2]):
        counted(torch.rand(3, 4))
    assert caught.value.code == "E116"
    assert (counted.forwards, counted.model.rows, counted.per_sample) == (0, 0, {})


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=12), st.integers(0, 20))
def test_the_budget_is_hard(calls: list[tuple[int, bool]], budget: int) -> None:
    """Whatever is asked, the inner model never sees a row over the budget, and nothing is half counted."""
    inner = model()
    counted = Counted(inner, budget=budget)
    for rows, labels in calls:
        before = (inner.rows, counted.forwards, counted.queries, counted.calls)
        ask = counted.predict if labels else counted
        if counted.forwards + rows > budget:
            with pytest.raises(BudgetSpent) as caught:
                ask(torch.rand(rows, 4))
            assert (caught.value.code, caught.value.exit_code) == ("E120", 4)
            assert (inner.rows, counted.forwards, counted.queries, counted.calls) == before
        else:
            ask(torch.rand(rows, 4))
        assert inner.rows == counted.forwards <= budget
        assert counted.remaining == budget - counted.forwards


def test_without_a_budget_there_is_no_end() -> None:
    counted = Counted(model())
    counted(torch.rand(100, 4))
    assert counted.remaining is None


def test_every_call_is_a_query_where_there_are_no_gradients() -> None:
    counted = Counted(Scores())
    with counted.charged([5, 6]):
        counted(torch.rand(2, 4))
        counted.predict(torch.rand(2, 4))
    assert (counted.forwards, counted.queries, counted.access) == (4, 4, Access.SCORES)
    assert counted.per_sample[5] == Charge(2, 0, 2)


def test_rows_count_also_when_the_model_then_raises() -> None:
    counted = Counted(from_torch(nn.Linear(7, 2).eval()), budget=3)
    with pytest.raises(RuntimeError):
        counted(torch.rand(2, 4))
    assert counted.forwards == 2


@pytest.mark.parametrize("make", [lambda: Batched(model(), 0), lambda: Counted(model(), budget=-1)])
def test_sizes_that_cannot_be(make) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.code == "E115"


def test_batched_around_charged_rows_is_explained() -> None:
    counted = Counted(model())
    with pytest.raises(ConfigError, match="put Batched inside Counted"), counted.charged([1, 2, 3]):
        Batched(counted, 2)(torch.rand(3, 4))
