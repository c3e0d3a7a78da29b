"""What torch.compile brings back of a program, and that it says what was not measured."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from vambrace.assets.obfuscate.compiled import try_compile
from vambrace.assets.obfuscate.torch_graph import exported_program

if TYPE_CHECKING:
    from torch.export import ExportedProgram

CALLS = [(torch.linspace(-1, 1, 24).reshape(3, 8),)]
compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


class Telling(nn.Module):
    """With names that tell."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tower = nn.Linear(8, 12)
        self.verdict = nn.Linear(12, 5)

    def forward(self, evidence: torch.Tensor) -> torch.Tensor:
        return self.verdict(torch.relu(self.tower(evidence)))


@pytest.fixture(scope="module")
def program() -> ExportedProgram:
    return torch.export.export(Telling().eval(), CALLS[0])


@compiler
@pytest.mark.slow
def test_answers_stay(program: ExportedProgram) -> None:
    obfuscated = exported_program(program, CALLS[0], seed=1)
    found = try_compile(program, obfuscated.program, CALLS)
    assert found.why == ()
    assert found.difference is not None
    assert found.difference.max_row < 1e-6


def test_no_word_comes_back(program: ExportedProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    blind(monkeypatch)
    found = try_compile(program, exported_program(program, CALLS[0], seed=1).program, CALLS)
    assert found.kept == ()
    assert found.similarity is not None
    assert found.similarity > 0.5  # operators stay
    assert found.as_json()["operators"] == list(found.operators or ())


def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr("vambrace.assets.obfuscate.compiled.compare_programs", broken)


def test_words_are_found_without_a_compiler_which_is_said(
    program: ExportedProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind(monkeypatch)
    found = try_compile(program, program, CALLS)
    assert found.difference is None
    assert found.why == ("answers: no compiler here",)
    assert found.kept is not None
    assert {"tower", "verdict", "evidence", "telling", "compiled"} <= set(found.kept)
    assert len(found.kept) <= found.words
    assert found.similarity == 1.0


def test_other_operators_and_other_answers_are_seen(program: ExportedProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    other = torch.export.export(nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Sigmoid()).eval(), CALLS[0])
    blind(monkeypatch)
    found = try_compile(program, other, CALLS)
    assert found.similarity is not None
    assert found.similarity < 0.8


@compiler
@pytest.mark.slow
def test_wrong_answers_are_seen(program: ExportedProgram) -> None:
    other = torch.export.export(nn.Sequential(nn.Linear(8, 5), nn.Tanh()).eval(), CALLS[0])
    found = try_compile(program, other, CALLS)
    assert found.difference is not None
    assert found.difference.max_row > 0.1


def test_what_cannot_be_captured_is_said(program: ExportedProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no Dynamo")

    blind(monkeypatch)
    monkeypatch.setattr(torch, "compile", broken)
    found = try_compile(program, program, CALLS)
    assert [each.split(":")[0] for each in found.why] == ["words", "operators", "answers"]
    assert (found.kept, found.operators, found.similarity) == (None, None, None)
