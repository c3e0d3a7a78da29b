"""kill -9 at any instant of private training: the ledger never says less than what ran."""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch

from assess.assess_harness import Counting, Killing, in_fork
from privacy.dp.toy_training import network, training
from vambrace.core import files
from vambrace.privacy import dp
from vambrace.privacy.dp.history import parse
from vambrace.privacy.dp.ledger import Ledger

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
BLOCK = 7


def train(folder: Path, steps: int, pause: float = 0.0, *, choice: int = 0) -> None:
    """Go on from one of the checkpoints, if there is any; note every step when its weights are about to move."""
    module = network()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    noise = dp.AdaptiveGaussian(noise_multiplier=2.0, decay="time", rate=0.01)
    current = [0.0]
    side = os.open(folder / "ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with training(
        module, optimizer=optimizer, clip=dp.Flat(clip_norm=1.0), noise=noise, ledger=folder / "ledger", block=BLOCK
    ) as private:

        def note(*_: object) -> None:
            os.write(side, f"{current[0]}\n".encode())

        optimizer.register_step_pre_hook(note)
        known = sorted(folder.glob("checkpoint-*"))
        if known:
            private.load(known[choice % len(known)])
        for batch in private.batches(steps=steps):
            current[0] = noise.multiplier(private._account.turn)
            private.step(batch)
            time.sleep(pause)
            if private._account.turn % 5 == 0:
                private.save(folder / f"checkpoint-{private._account.turn:05}")


def ran(folder: Path) -> list[float]:
    """The noise multipliers of the steps that ran."""
    place = folder / "ran"
    return [float(line) for line in place.read_text().split()] if place.exists() else []


def check(folder: Path, kills: int) -> None:
    """Every step that ran is charged, with the noise that it had; and less than a block a kill beside."""
    if not (folder / "ledger").exists():
        assert not ran(folder)
        return
    charged = [
        charge.noise_multiplier for charge, steps in parse((folder / "ledger").read_bytes()).spent for _ in range(steps)
    ]
    left = list(charged)
    for multiplier in ran(folder):
        left.remove(multiplier)  # ValueError: a step ran that nobody charged
    assert len(left) <= BLOCK * kills


def kill_within(folder: Path, choice: int, wanted: int, pause: float) -> None:
    """Train in a fork until more than so many steps ran in all, and a little longer; then kill -9."""
    child = os.fork()
    if not child:
        try:
            train(folder, 10_000, choice=choice)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    while len(ran(folder)) <= wanted:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
        time.sleep(0.001)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def kill_often(folder: Path, times: int, seed: int) -> None:
    draw = random.Random(seed)
    spent = 0.0
    for kill in range(times):
        wanted = len(ran(folder)) + draw.randint(0, 15)
        kill_within(folder, draw.randint(0, 9), wanted, draw.random() * 0.02)
        check(folder, kill + 1)
        now = dp.epsilon(parse((folder / "ledger").read_bytes()).spent, delta=1e-3, accountant="zcdp").epsilon
        assert now > spent  # an old checkpoint takes nothing back
        spent = now


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """What trainings import when they are first made, so that forked processes need not."""
    private = training(clip=dp.Flat(clip_norm=1.0), noise=dp.Gaussian(noise_multiplier=1.0))
    private.step(next(private.batches(steps=1)))


def test_three_kills(tmp_path: Path) -> None:
    kill_often(tmp_path, 3, seed=0)


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    kill_often(tmp_path, 20, seed=1)


def durable_calls(folder: Path) -> list[str]:
    """The durable system calls of a training that nothing disturbs."""
    before, files.system = files.system, (counting := Counting())
    try:
        train(folder, 6)
    finally:
        files.system = before
    return counting.calls


def test_a_kill_in_any_durable_call_loses_no_charge(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    calls = durable_calls(tmp_path / "whole")
    assert {"write", "fsync", "replace ledger", "replace checkpoint-00005"} <= set(calls)
    for number in range(1, len(calls) + 1):
        folder = tmp_path / str(number)
        folder.mkdir()

        def work(folder: Path = folder, number: int = number) -> int:
            files.system = Killing(number)
            train(folder, 6)
            return 0

        assert in_fork(work) == -signal.SIGKILL
        check(folder, 1)
        if number % 5 == 0:
            train(folder, 2)
            check(folder, 2)


def test_the_check_itself_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Charging after the step instead of before it is found out by the same kills."""
    late: list[tuple[Any, int]] = []
    own = Ledger.reserve

    def later(self: Ledger, charge: Any, steps: int) -> None:
        for waiting in late:
            own(self, *waiting)
        late[:] = [(charge, steps)]

    monkeypatch.setattr(Ledger, "reserve", later)
    with pytest.raises(ValueError, match="not in list"):
        kill_often(tmp_path, 3, seed=0)
