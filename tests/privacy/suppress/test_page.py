"""The page about suppression: its code runs, its tables are the JSON's, and it promises nothing."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "privacy" / "suppression.md"
RESULT = ROOT / "benchmarks" / "results" / "suppression.json"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The benchmark as a module, with its neighbours beside it."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    try:
        spec = importlib.util.spec_from_file_location("bench_suppression", ROOT / "benchmarks" / "bench_suppression.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["bench_suppression"] = module  # where dataclasses look their names up
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.fc1 = nn.Conv2d(1, 4, 3), nn.Linear(144, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.fc1(self.conv1(inputs).relu().flatten(1))


def test_the_code_runs() -> None:
    network = Net()
    samples = [(torch.rand(4, 1, 8, 8), torch.arange(4)) for _ in range(250)]
    known: dict[str, Any] = {
        "torch": torch,
        "network": network,
        "optimizer": torch.optim.AdamW(network.parameters(), lr=1e-3),
        "loader": samples,
        "members": (torch.rand(20, 1, 8, 8), torch.arange(20) % 10),
        "nonmembers": (torch.rand(20, 1, 8, 8), torch.arange(20) % 10),
    }
    parts = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(parts) == 3
    for number, part in enumerate(parts):
        exec(compile(part, f"{PAGE.name}, block {number}", "exec"), known)
    assert known["handle"].counts() == {"conv1.weight": (32, 36), "fc1.weight": (1296, 1440)}
    assert known["handle"].steps == 250
    assert int((network.fc1.weight == 0).sum()) == 1296


def test_the_tables_are_what_the_json_says(bench: ModuleType) -> None:
    text = PAGE.read_text(encoding="utf-8")
    block = bench.block(json.loads(RESULT.read_text()))
    assert text == bench.rewritten(text, block), "run python benchmarks/bench_suppression.py --page"
    assert bench.rewritten(text, block.replace("0.5", "0.4")) != text
    with pytest.raises(SystemExit):
        bench.rewritten("no markers", block)


def test_the_page_says_first_that_nothing_is_guaranteed() -> None:
    first = PAGE.read_text(encoding="utf-8").split("```")[0]
    assert "A heuristic without a guarantee" in first
    assert "differential privacy" in first


@pytest.mark.slow
def test_the_benchmark_measures(bench: ModuleType) -> None:
    """Few epochs, one case: draws are paired, sparsity is what was asked for, members are not others."""
    import argparse

    given = argparse.Namespace(seeds=2, epochs=12)
    found = bench.case("small", bench.mlp, 200, 0.2, given)
    arms = found["arms"]
    assert set(arms) == {bench.PLAIN, bench.EARLY, *bench.ARMS}
    assert arms[bench.PLAIN]["minus_plain"]["auc"]["mean"] == 0
    assert arms["90 %"]["over_seeds"]["zeros"]["mean"] == pytest.approx(0.9, abs=1e-3)
    assert arms["90 %"]["epochs"] == 12
    assert arms[bench.EARLY]["epochs"] == 3
    drawn = bench.draw(0, 200, 0.2)
    assert len(drawn.true) == 1200
    assert 0.1 < float((drawn.true != drawn.recorded).double().mean()) < 0.26
    assert len({tuple(row) for row in drawn.inputs.flatten(1).tolist()}) == 1200
