"""The fuzzer of sealed files runs, gets past every check value, and finds nothing in a short time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("fuzz_sealed.py")


@pytest.mark.slow
def test_a_short_run(tmp_path: Path) -> None:
    fuzzer = [sys.executable, str(HARNESS), "-max_total_time=30", "-seed=1", "-print_final_stats=1"]
    # A program starts with the most memory that whoever started it ever had, as the system counts, and the fuzzer stops
    # at a gigabyte: so a shell starts it, and not a process that ran other tests before.
    command = ["sh", "-c", '"$@"; exit $?', "sh", *fuzzer]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.search(r"stat::number_of_executed_units: ([0-9]+)", done.stderr)
    assert found is not None
    assert int(found[1]) > 1000
    assert list(tmp_path.iterdir()) == []  # a crash would leave its input
