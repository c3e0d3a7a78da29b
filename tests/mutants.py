"""Vambrace made wrong on purpose, one way at a time: does the suite notice?

A pytest plugin. `VAMBRACE_MUTANT=noop_attack PYTHONPATH=tests pytest -p mutants tests/...` runs tests against a package
in which one part is swapped for a stand-in that lies; `test_mutants.py` asserts that each turns the suite red. Without
the variable it changes nothing.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

MUTANTS: dict[str, Callable[[], None]] = {}
VARIABLE = "VAMBRACE_MUTANT"


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    name = os.environ.get(VARIABLE)
    if name:
        MUTANTS[name]()


def mutant(function: Callable[[], None]) -> Callable[[], None]:
    MUTANTS[function.__name__] = function
    return function


def swap(module: str, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a function in its module, and wherever else in the package it was imported to already."""
    true = getattr(importlib.import_module(module), name)
    false = make(true)
    for other, loaded in list(sys.modules.items()):
        if other.partition(".")[0] == "vambrace" and getattr(loaded, name, None) is true:
            setattr(loaded, name, false)


def _replace_attacks(success: bool) -> None:
    import torch

    from vambrace.core.findings import Cost
    from vambrace.core.registry import ATTACKS, load, names
    from vambrace.search.outcome import Attacked

    def run(self, problem, **_):
        inputs, n = problem.inputs, problem.goal.size
        nothing = torch.zeros(n, dtype=torch.int64)
        return Attacked(
            adversarial=inputs.clone(),
            success=torch.full((n,), success),
            norm=self.norm,
            distance=torch.zeros(n, dtype=torch.float64),
            margin=torch.full((n,), 1.0 if success else -1.0),
            forwards=nothing,
            backwards=nothing,
            verifications=nothing,
            queries=nothing,
            first_success=nothing if success else nothing - 1,
            finite=torch.ones(n, dtype=torch.bool),
            zero_gradients=nothing,
            cost=Cost(),
        )

    for name in names(ATTACKS):
        load(ATTACKS, name).run = run


@mutant
def constant_success() -> None:
    """Every attack claims success for every sample and hands the inputs back."""
    _replace_attacks(success=True)


@mutant
def noop_attack() -> None:
    """Every attack does nothing and claims nothing: all models are robust."""
    _replace_attacks(success=False)


@mutant
def always_pass_gate() -> None:
    """Every gate passes."""
    from vambrace.core.findings import Status

    def make(judge):
        def pass_all(*arguments, **options):
            return tuple(dataclasses.replace(each, status=Status.PASS) for each in judge(*arguments, **options))

        return pass_all

    swap("vambrace.assess.gates", "judge", make)


@mutant
def claims_believed() -> None:
    """The adversarial check takes every claim of an attack without asking the model again."""
    from vambrace.assess.checks import adversarial

    def proved(self, context, chunk, right, claimed, outcome, eps):
        entry = {"broken": eps, "changed_prediction": -1, "distance": 0.0, "margin": 1.0}
        return {right[row]: dict(entry) for row in claimed}, adversarial.Cost()

    adversarial.AdversarialCheck._proved = proved


@mutant
def verdict_always_zero() -> None:
    """The exit code is 0 whatever happened."""
    swap("vambrace.assess.verdict", "exit_code", lambda true: lambda conditions: 0)


@mutant
def unreliable_ignored() -> None:
    """Flags that void a number are shown and have no effect."""
    from vambrace.core.findings import Status

    def make(standing_of):
        def relaxed(finding):
            status, reason = standing_of(finding)
            return (Status.MEASURED, "") if status is Status.UNRELIABLE else (status, reason)

        return relaxed

    swap("vambrace.assess.gates", "standing_of", make)


@mutant
def preflight_sees_nothing() -> None:
    """Preflight asks its questions and finds every answer in order."""
    swap("vambrace.assess.probes", "behaviour_flags", lambda true: lambda probe: [])


@mutant
def gradients_not_questioned() -> None:
    """Preflight takes every gradient for right."""
    swap("vambrace.assess.slopes", "gradient_flags", lambda true: lambda model, probe: ([], 1e-6))


@mutant
def late_change_unseen() -> None:
    """Nobody asks the model again at the end of a unit."""
    from vambrace.assess.constancy import Constancy

    Constancy.end = lambda self: []


@mutant
def zero_width_intervals() -> None:
    """Every share is known exactly."""
    from vambrace.core.findings import Interval

    def exact(successes, n, *, confidence=0.95):
        return Interval(low=successes / n, high=successes / n, method="wilson") if n else None

    swap("vambrace.core.intervals", "wilson", lambda true: exact)


@mutant
def journal_never_synced() -> None:
    """Records are written and not forced to the disk."""
    from vambrace.core import files

    class Lazy:
        def __init__(self, system):
            self._system = system

        def __getattr__(self, name):
            return getattr(self._system, name)

        def fsync(self, fd):
            pass

    true = files.Appender.append

    def append(self, data):
        system = files.system
        files.system = Lazy(system)
        try:
            true(self, data)
        finally:
            files.system = system

    files.Appender.append = append


@mutant
def journal_forgets() -> None:
    """A resumed run takes an empty journal for whole."""

    def make(parse):
        return lambda data, run: dataclasses.replace(parse(data, run), units=())

    swap("vambrace.assess.journal", "parse", make)


@mutant
def one_unit_key() -> None:
    """All units of a check have one key: the first result is taken for all."""
    swap("vambrace.assess.facts", "samples_digest", lambda true: lambda ids, hashes: "0" * 64)


@mutant
def identity_perturbation() -> None:
    """Perturbations hand the inputs back: nothing ever costs accuracy."""
    from vambrace.core.registry import PERTURBATIONS, load, names

    for name in names(PERTURBATIONS):
        load(PERTURBATIONS, name).__call__ = lambda self, inputs, **_: inputs.clone()


@mutant
def nobody_is_a_member() -> None:
    """Every attack on privacy guesses."""
    swap("vambrace.core.ranking", "auc", lambda true: lambda members, nonmembers: 0.5)


@mutant
def loader_skips_the_scan() -> None:
    """No pickle is looked at before it is opened."""

    def make(scan_pickle):
        def blind(stream):
            return dataclasses.replace(scan_pickle(stream), names=())

        return blind

    swap("vambrace.models.pickles", "scan_pickle", make)


@mutant
def loader_opens_everything() -> None:
    """Programs are not found in pickles, and PyTorch does not refuse them either."""
    import torch

    def make(scan_pickle):
        def blind(stream):
            scan = scan_pickle(stream)
            return dataclasses.replace(scan, names=tuple(name for name in scan.names if name not in scan.dangerous))

        return blind

    swap("vambrace.models.pickles", "scan_pickle", make)
    true = torch.load
    torch.load = lambda *arguments, **options: true(*arguments, **{**options, "weights_only": False})


@mutant
def ledger_loses_verifications() -> None:
    """Confirming forwards are not written down."""
    from vambrace.search.tally import Tally

    true = Tally.outcome

    def outcome(self, *arguments, **options):
        self.verifications.zero_()
        return true(self, *arguments, **options)

    Tally.outcome = outcome


@mutant
def one_draw_for_all() -> None:
    """Random draws do not depend on the sample."""
    import torch

    def make(uniform):
        return lambda stream, ids, **options: uniform(stream, torch.zeros_like(ids), **options)

    swap("vambrace.ops.draws", "uniform", make)


@mutant
def radius_not_kept() -> None:
    """Attacks search in a ball a quarter wider than they were told."""
    from vambrace.core.registry import ATTACKS, load, names

    for name in names(ATTACKS):
        kind = load(ATTACKS, name)

        def wide(self, *arguments, true=kind.run, **options):
            wider = self.eps if self.eps is None else 1.25 * self.eps
            return true(dataclasses.replace(self, eps=wider), *arguments, **options)

        kind.run = wide
