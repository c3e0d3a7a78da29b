"""The suite must be able to fail: a package that is wrong in one place turns it red, and an honest one does not.

Each row swaps one lie in (see `mutants.py`) and runs small files of the suite in a process of their own. What makes
them red must be an assertion about the product, not an error of the stand-in. The first three run by default.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mutants import MUTANTS, VARIABLE

TESTS = Path(__file__).parent
ATTACKS = "attacks/test_against_naive.py"
GATES = "assess/test_gates.py"
CLAIMS = "assess/checks/test_adversarial.py"
HOSTILE = "assess/test_hostile_models.py"

DEFAULT = [
    ("constant_success", ATTACKS),
    ("noop_attack", ATTACKS),
    ("always_pass_gate", GATES),
]
SLOW = [
    ("constant_success", CLAIMS),
    ("constant_success", "test_invariance.py"),
    ("noop_attack", CLAIMS),
    ("noop_attack", "test_invariance.py"),
    ("noop_attack", "attacks/test_attacks.py"),
    ("always_pass_gate", HOSTILE),
    ("always_pass_gate", "test_main_job.py"),
    ("radius_not_kept", ATTACKS),
    ("radius_not_kept", "attacks/test_attacks.py"),
    ("claims_believed", CLAIMS),
    ("ledger_loses_verifications", ATTACKS),
    ("ledger_loses_verifications", "test_invariance.py"),
    ("one_draw_for_all", "attacks/test_attacks.py"),
    ("verdict_always_zero", "assess/test_verdict.py"),
    ("verdict_always_zero", HOSTILE),
    ("unreliable_ignored", "assess/test_verdict.py"),
    ("unreliable_ignored", HOSTILE),
    ("preflight_sees_nothing", "assess/test_preflight.py"),
    ("preflight_sees_nothing", HOSTILE),
    ("gradients_not_questioned", HOSTILE),
    ("late_change_unseen", "assess/test_constancy.py"),
    ("late_change_unseen", HOSTILE),
    ("zero_width_intervals", "core/test_intervals.py"),
    ("zero_width_intervals", "test_main_job.py"),
    ("journal_never_synced", "core/test_files.py"),
    ("journal_never_synced", "assess/test_journal.py"),
    ("journal_forgets", "assess/test_journal.py"),
    ("one_unit_key", "assess/test_units.py"),
    ("identity_perturbation", "testing/test_perturbations.py"),
    ("identity_perturbation", "assess/checks/test_natural.py"),
    ("nobody_is_a_member", "privacy/membership/test_threshold.py"),
    ("nobody_is_a_member", "assess/checks/test_membership.py"),
    ("loader_skips_the_scan", "models/test_pickles.py"),
    ("loader_opens_everything", "models/test_executable.py"),
]
FAILED = re.compile(r"^FAILED .*$", re.MULTILINE)


def run(file: str, mutant: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    path = [str(TESTS), *(part for part in sys.path if part)]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider", "-p", "mutants"]
    return subprocess.run(
        [*command, str(TESTS / file)],
        cwd=TESTS.parent,
        env={**kept, "PYTHONPATH": os.pathsep.join(path), "COLUMNS": "300", VARIABLE: mutant},
        capture_output=True,
        text=True,
    )


@functools.cache
def honest(file: str) -> subprocess.CompletedProcess[str]:
    """The same command on the package as it is."""
    return run(file, "")


def rows(pairs: list[tuple[str, str]]) -> list[object]:
    return [pytest.param(*pair, id=f"{pair[0]}-{Path(pair[1]).stem}") for pair in pairs]


def check(mutant: str, file: str) -> None:
    green = honest(file)
    assert green.returncode == 0, green.stdout[-3000:] + green.stderr[-1000:]
    assert " passed" in green.stdout
    red = run(file, mutant)
    assert red.returncode == 1, f"{mutant} survives {file}:\n{red.stdout[-3000:]}{red.stderr[-1000:]}"
    failed = FAILED.findall(red.stdout)
    assert failed, red.stdout[-3000:]
    assert "ERROR " not in red.stdout
    assert re.search(r"AssertionError|assert |Failed: |DID NOT RAISE|Hypothesis found", failed[0]), failed[0]


def test_every_mutant_is_used():
    assert {mutant for mutant, _ in DEFAULT + SLOW} == set(MUTANTS)
    assert [mutant for mutant, _ in DEFAULT] == ["constant_success", "noop_attack", "always_pass_gate"]


@pytest.mark.parametrize(("mutant", "file"), rows(DEFAULT))
def test_named_mutants_turn_the_suite_red(mutant: str, file: str):
    check(mutant, file)


@pytest.mark.slow
@pytest.mark.parametrize(("mutant", "file"), rows(SLOW))
def test_other_mutants_turn_the_suite_red(mutant: str, file: str):
    check(mutant, file)
