"""How checks ask: batches, types, margins, and what is not a number."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vambrace.assess.checks.answers import ask, enter
from vambrace.models import Counted, from_torch


class Fixed(nn.Module):
    """The inputs are the logits."""

    def forward(self, x):
        return x


LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 2.5], [torch.nan, 1.0, 0.0], [1.0, torch.inf, 0.0]])
LABELS = torch.tensor([0, 2, 1, 1])


def test_answers_of_known_logits() -> None:
    answers = ask(from_torch(Fixed(), bounds=None), LOGITS, LABELS, batch_size=3)
    assert answers.finite == [True, True, False, False]
    assert answers.predictions[:2] == [0, 1]
    assert answers.margins[:2] == pytest.approx([-1.0, 0.5])
    expected = nn.functional.cross_entropy(LOGITS[:2].double(), LABELS[:2], reduction="none")
    assert answers.losses[:2] == pytest.approx(expected.tolist())
    assert (answers.cost.forwards, answers.cost.queries) == (4, 0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 100])
def test_rows_are_asked_in_batches(batch_size) -> None:
    counted = Counted(from_torch(Fixed(), bounds=None))
    ask(counted, LOGITS, LABELS, batch_size=batch_size)
    assert counted.forwards == 4
    assert counted.calls == -(-4 // batch_size)


def test_labels_only(world, labels_only) -> None:
    model = labels_only(world.model)
    answers = ask(model, world.inputs, world.labels, batch_size=7)
    assert answers.predictions == world.model.predict(world.inputs).tolist()
    assert answers.losses == []
    assert set(answers.margins) == {-1.0, 1.0}
    assert [margin < 0 for margin in answers.margins] == world.right().tolist()
    assert answers.cost.queries == 60


def test_nothing_to_ask() -> None:
    answers = ask(from_torch(Fixed(), bounds=None), LOGITS[:0], LABELS[:0], batch_size=4)
    assert (answers.finite, answers.losses, answers.cost.forwards) == ([], [], 0)


def test_a_model_in_half_precision_is_asked_in_half_precision() -> None:
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float16))

        def forward(self, x):
            assert x.dtype == torch.float16
            return x * self.scale

    answers = ask(from_torch(Half().eval(), bounds=None), LOGITS[:2], LABELS[:2], batch_size=2)
    assert answers.predictions == [0, 1]


def test_inputs_are_float32_inside_the_bounds(world) -> None:
    world.inputs = world.inputs.double()
    world.inputs[0, 0, 0, 0] = 1 + 1e-7
    chunk = enter(world.context(), world.batch())
    assert chunk.inputs.dtype == torch.float32
    assert float(chunk.inputs.max()) <= 1.0
    assert chunk.record(3, finite=True) == {"id": str(int(world.ids[3])), "label": 3, "finite": True}


def test_a_model_that_writes_into_its_input_does_not_change_the_samples() -> None:
    class Writes(nn.Module):
        def forward(self, x):
            logits = x.clone()
            x.data.zero_()
            return logits

    given = LOGITS[:2].clone()
    answers = ask(from_torch(Writes(), bounds=None), given, LABELS[:2], batch_size=2)
    assert answers.predictions == [0, 1]
    assert torch.equal(given, LOGITS[:2])
