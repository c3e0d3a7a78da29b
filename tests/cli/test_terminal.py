"""What a person at a terminal sees: the bar, time left, budget left, colour only where it is wanted."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("no pseudo-terminals here", allow_module_level=True)

from cli.terminal import in_terminal

NET = """
import time
from torch import nn

class Net(nn.Linear):
    def forward(self, inputs):
        time.sleep(0.02)
        return super().forward(inputs.flatten(1))

def net():
    return Net(64, 10)
"""
RUN = ["assess", "--factory", "nets:net", "--data", "digits", "--limit", "24", "--profile", "smoke", "--threads", "1"]
REWRITTEN = "\r\x1b[2K"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NET)
    return tmp_path


COPIED = ("report   ", "replay   ")  # paths and commands are not broken


def widest(shown: str) -> int:
    plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", shown.replace("\r\n", "\n"))
    lines = [line for part in plain.split("\n") for line in part.split("\r")]
    return max(len(line) for line in lines if not line.startswith(COPIED))


def test_the_bar_tells_time_left_and_budget_left(folder: Path) -> None:
    code, shown = in_terminal([*RUN, "--budget", "10m"], columns=80, folder=folder)
    bars = [part for part in shown.split(REWRITTEN) if part.startswith("units ")]
    assert code in {0, 1, 5}
    assert any(re.search(r"^units +[#-]{20} \d/4  \d+s left  budget (10m00s|9m\d\ds) left", bar) for bar in bars), bars
    assert re.search(r"^units +4/4 in \d+s", bars[-1])
    assert "\x1b[1m" in shown  # bold
    assert "report   runs/" in shown
    assert widest(shown) <= 80


def test_a_narrow_terminal_without_colour(folder: Path) -> None:
    _, shown = in_terminal(RUN, columns=40, folder=folder, NO_COLOR="1")
    assert REWRITTEN in shown
    assert not re.search(r"\x1b\[[0-9;]*m", shown)
    assert widest(shown) <= 40


def test_an_error_is_folded_and_leaves_no_bar(folder: Path) -> None:
    code, shown = in_terminal([*RUN, "--model", "nowhere.pt"], columns=50, folder=folder)
    assert code == 3
    after = shown.rsplit(REWRITTEN, 1)[-1]
    assert after.startswith("\x1b[1mE200\x1b[0m nowhere.pt")
    assert "load " not in after
    assert widest(shown) <= 50
