"""Example inputs of programs of torch.export that their programs do not take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vambrace.assets.obfuscate.torch_graph import exported_program
from vambrace.errors import ConfigError


class Factor(nn.Module):
    """A layer, and a factor by its name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, *, factor: Tensor) -> Tensor:
        return self.layer(x) * factor


def test_example_inputs_that_a_program_does_not_take_are_refused() -> None:
    rows = torch.ones(2, 4)
    named = torch.export.export(Factor(), (rows,), kwargs={"factor": torch.ones(())})
    plain = torch.export.export(nn.Linear(4, 3), (rows,))
    for program, inputs in ((named, (rows,)), (plain, (rows, rows)), (plain, (rows[:, 1:],))):
        with pytest.raises(ConfigError, match="E850"):
            exported_program(program, inputs)
    made = exported_program(named, seed=1)
    assert made.difference is None
    assert torch.equal(made.program.module()(rows, factor=torch.ones(())), Factor()(rows, factor=torch.ones(())))
