"""Steps are charged before they run, as what they are, once; whatever fails, forks, resumes or is left early."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assess.assess_harness import Failing, in_fork
from privacy.dp.toy_training import N, flat, network, samples, training
from vambrace.core import files
from vambrace.errors import ConfigError, ResourceError
from vambrace.privacy import dp
from vambrace.privacy.dp.account import Account
from vambrace.privacy.dp.accounting import epsilon
from vambrace.privacy.dp.charges import Charge, Spent
from vambrace.privacy.dp.history import Terms, parse
from vambrace.privacy.dp.ledger import Ledger
from vambrace.privacy.dp.sampling import Sampler
from vambrace.privacy.dp.settings import Settings

CPU = torch.device("cpu")
TERMS = Terms(dataset_size=N, delta=1e-4, unit="sample", relation="add_or_remove_one", sampler="poisson")
GAUSSIAN: dict[str, Any] = {"clip": dp.Flat(clip_norm=1.0), "noise": dp.Gaussian(noise_multiplier=1.0)}


def asked(**changes: Any) -> Settings:
    given: dict[str, Any] = {
        "size": N, "sampling": dp.Poisson(), "expected_batch_size": 16, "delta": 1e-4, "accountant": "zcdp",
        "max_epsilon": None, "physical_batch_size": None, "autocast": None, "block": 8, "debug": False,
        "diagnostics": False, **GAUSSIAN,
    }  # fmt: skip
    return Settings(**{**given, **changes})


def opened(path: Path | None, **changes: Any) -> Account:
    ledger = None if path is None else Ledger.open(path) if path.exists() else Ledger.create(path, TERMS)
    return Account(asked(**changes), ledger, CPU)


def at(spent: Spent) -> float:
    return epsilon(spent, delta=1e-4, accountant="zcdp").epsilon


# ---- blocks -----------------------------------------------------------------------------------------------------


def test_a_plan_that_is_carried_out_costs_what_it_says_and_few_writes(tmp_path: Path) -> None:
    account = opened(tmp_path / "ledger")
    for left in range(20, 0, -1):
        account.take(left)
        assert account.spent.steps >= account.turn
    assert account.spent.steps == 20
    assert [block.steps for block in account.ledger.history.blocks] == [8, 8, 4]


def test_an_early_end_costs_the_rest_of_a_block_which_the_next_loop_uses_up(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    account = opened(path)
    for _ in range(3):
        account.take(100)
    assert account.spent.steps == 8
    for _ in range(5):
        account.take(100)
    assert account.spent.steps == 8
    account.take(100)
    account.close()
    again = opened(path)
    assert again.turn == again.spent.steps == 16
    again.take(1)
    assert again.spent.steps == 17


def test_a_block_holds_equal_steps_only(tmp_path: Path) -> None:
    noise = dp.AdaptiveGaussian(noise_multiplier=4.0, decay="step", rate=0.02)
    account = opened(tmp_path / "ledger", noise=noise)
    for left in range(30, 0, -1):
        turn = account.take(left)
        charged = [charge for charge, steps in account.spent for _ in range(steps)]
        assert charged[turn].noise_multiplier == noise.multiplier(turn)
    assert len({charge for charge, _ in account.spent}) > 3
    account.close()
    again = opened(tmp_path / "ledger", noise=noise)
    assert again.take(1) == 30
    assert again.spent.runs[-1][0].noise_multiplier == noise.multiplier(30) < 4.0


def test_nothing_runs_that_the_ledger_could_not_charge(tmp_path: Path) -> None:
    private = training(ledger=tmp_path / "ledger", **GAUSSIAN)
    before, batch = flat(private.module), next(private.batches(steps=2))
    own, files.system = files.system, Failing(1, errno.ENOSPC)
    try:
        with pytest.raises(ResourceError, match="E601"):
            private.step(batch)
    finally:
        files.system = own
    assert torch.equal(flat(private.module), before)
    assert private.spent.steps == 0
    private.step(batch)
    assert not torch.equal(flat(private.module), before)
    assert private.spent.steps == 2


def test_each_step_is_on_disk_before_its_sum_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger"
    private = training(ledger=path, block=3, **GAUSSIAN)
    ran: list[int] = []
    own = type(private)._step

    def step(self: Any, *rest: Any) -> None:
        ran.append(1)
        assert parse(path.read_bytes()).steps >= len(ran)
        own(self, *rest)

    monkeypatch.setattr(type(private), "_step", step)
    for batch in private.batches(steps=10):
        private.step(batch)
    private.step_unsampled(*samples())
    assert len(ran) == 11 == private.spent.steps


# ---- whatever happens -------------------------------------------------------------------------------------------

MOVES = st.lists(
    st.sampled_from(["take", "take", "take", "unsampled", "reopen", "plan 1", "plan 5"]), min_size=1, max_size=40
)


@settings(max_examples=40)
@given(
    moves=MOVES,
    block=st.integers(1, 9),
    max_epsilon=st.none() | st.floats(2.0, 30.0),
    rate=st.sampled_from([0.0, 0.01, 0.05, 0.5]),
    on_disk=st.booleans(),
    sampling=st.sampled_from([dp.Poisson(), dp.Everything()]),
)
def test_what_ran_is_charged_as_it_ran_and_the_budget_holds(
    tmp_path_factory: pytest.TempPathFactory,
    moves: list[str],
    block: int,
    max_epsilon: float | None,
    rate: float,
    on_disk: bool,
    sampling: Sampler,
) -> None:
    path = tmp_path_factory.mktemp("account") / "ledger" if on_disk else None
    noise = dp.AdaptiveGaussian(noise_multiplier=3.0, decay="time", rate=rate)
    options = {"noise": noise, "block": block, "max_epsilon": max_epsilon, "sampling": sampling}
    account, ran, planned, refused = opened(path, **options), [], 3, set()
    for move in moves:
        try:
            if move == "take":
                ran.append(account._settings.charge(account.take(planned)))
            elif move == "unsampled":
                ran.append(account._settings.charge(account.take_unsampled(), dp.Everything()))
            elif move == "reopen" and path is not None:
                account.close()
                account = opened(path, **options)
                assert account.place == 0
            else:
                planned = int(move[-1]) if move[-1].isdigit() else planned
        except ConfigError as error:
            refused.add(error.code)
    assert refused <= {"E156"}
    charged = account.spent.merged()
    for charge, steps in Spent(ran).merged():
        assert steps <= dict(charged.runs).get(charge, 0)
    assert account.spent.steps - len(ran) <= block * (1 + moves.count("reopen"))
    assert max_epsilon is None or at(account.spent) <= max_epsilon
    assert at(Spent(ran)) <= at(account.spent)
    account.close()


def test_a_step_in_between_takes_no_turn_that_a_block_was_charged_for(tmp_path: Path) -> None:
    noise = dp.AdaptiveGaussian(noise_multiplier=3.0, decay="time", rate=0.01)
    account = opened(tmp_path / "ledger", noise=noise, block=8, sampling=dp.Everything())
    ran = [account._settings.charge(account.take(9 - step)) for step in range(2)]
    assert account.spent.steps > len(ran)  # of the second level, a block is charged
    ran += [account._settings.charge(account.take_unsampled(), dp.Everything()) for _ in range(3)]
    ran += [account._settings.charge(account.take(7 - step)) for step in range(7)]
    assert len({charge.noise_multiplier for charge in ran}) > 1
    assert account.spent.merged() == Spent(ran).merged()
    account.close()


def test_a_first_step_beyond_the_budget_is_refused_but_a_spent_one_only_stops(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="E156"):
        opened(None, max_epsilon=0.01)
    account = opened(tmp_path / "ledger", block=1)
    for _ in range(5):
        account.take(1)
    account.close()
    again = opened(tmp_path / "ledger", max_epsilon=0.01)
    assert again.exhausted
    with pytest.raises(ConfigError, match="E156"):
        again.take(1)
    assert again.spent.steps == 5


def test_steps_that_cannot_be_added_up_are_refused_before_they_run(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    account = opened(path)
    account.take(1)
    account.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"E144.*fixed_size"):
        opened(path, sampling=dp.FixedSize())
    assert path.read_bytes() == before


# ---- shuffled epochs --------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from([5, 16, 20, 64])), min_size=1, max_size=5), st.integers(1, 9)
)
def test_every_epoch_that_a_process_began_is_charged_whole(
    tmp_path_factory: pytest.TempPathFactory, processes: list[tuple[int, int]], block: int
) -> None:
    """Processes that break off anywhere, with batches of any size: epsilon is at least that of all begun epochs."""
    path, begun = tmp_path_factory.mktemp("shuffled") / "ledger", 0
    for steps, expected in processes:
        account = opened(path, sampling=dp.Shuffled(), expected_batch_size=expected, block=block)
        assert account.place == 0
        for _ in range(steps):
            account.take(1 + steps % 4)
        account.take_unsampled()
        begun += math.ceil(steps / math.ceil(N / expected))
        account.close()
    full = Charge(mechanism="gaussian", noise_multiplier=1.0, sampling="full", sample_rate=1.0)
    final = opened(path, sampling=dp.Shuffled())
    assert at(final.spent) >= at(Spent([(full, begun + len(processes))])) * (1 - 1e-12)
    final.close()


def test_a_resumed_training_begins_a_new_epoch(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    options = {"sampling": dp.Shuffled(), "expected_batch_size": 20, "block": 1, "accountant": "rdp", **GAUSSIAN}
    with training(ledger=path, **options) as first:
        for batch in first.batches(steps=2):
            first.step(batch)
    with training(ledger=path, **options) as second:
        assert second.spent.steps == 4  # the rest of the broken epoch
        seen: list[int] = []
        for batch in second.batches(epochs=1):
            seen += batch.indices.tolist()
            second.step(batch)
        assert sorted(seen) == list(range(N))
        two = Charge(mechanism="gaussian", noise_multiplier=1.0, sampling="full", sample_rate=1.0)
        assert second.epsilon().epsilon == pytest.approx(
            epsilon(Spent([(two, 2)]), delta=1e-3, accountant="rdp").epsilon
        )


# ---- processes --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
def test_a_fork_cannot_run_the_steps_that_its_parent_reserved(tmp_path: Path) -> None:
    private = training(ledger=tmp_path / "ledger", block=64, **GAUSSIAN)
    batches = private.batches(steps=20)
    private.step(next(batches))
    assert private.spent.steps == 20
    batch = next(batches)

    def child() -> int:
        with pytest.raises(ConfigError, match=r"E585.*forked"):
            private.step(batch)
        return 7

    assert in_fork(child) == 7
    private.step(batch)
    in_memory = training(**GAUSSIAN)
    in_memory.step(next(in_memory.batches(steps=1)))

    def goes_on() -> int:
        in_memory.step(next(in_memory.batches(steps=1)))
        return 10 + in_memory.spent.steps

    assert in_fork(goes_on) == 12
    assert in_memory.spent.steps == 1


# ---- checkpoints ------------------------------------------------------------------------------------------------


def run(private: Any, steps: int) -> None:
    for batch in private.batches(steps=steps):
        private.step(batch)


def test_an_old_checkpoint_gains_nothing(tmp_path: Path) -> None:
    path, place = tmp_path / "ledger", tmp_path / "old"
    module = network()
    clip = dp.AdaptiveQuantile(clip_norm=0.3, count_noise=2.0)
    options = {"clip": clip, "noise": dp.Gaussian(noise_multiplier=1.0), "ledger": path, "block": 1}
    first = training(module, optimizer=torch.optim.Adam(module.parameters(), lr=0.01), **options)
    run(first, 3)
    first.save(place)
    weights, bound = flat(module), first.clip_norm
    run(first, 4)
    first.close()
    other = network(seed=1)
    second = training(other, optimizer=torch.optim.Adam(other.parameters(), lr=0.01), **options)
    second.load(place)
    assert torch.equal(flat(other), weights)
    assert second.clip_norm == bound != 0.3
    assert second.spent.steps == 7
    assert int(second.optimizer.state_dict()["state"][0]["step"]) == 3
    run(second, 1)
    assert second.spent.steps == 8
    assert [steps for _, steps in second.spent] == [8]


def test_a_checkpoint_needs_its_ledger_and_all_of_it(tmp_path: Path) -> None:
    path, place = tmp_path / "ledger", tmp_path / "last"
    with training(ledger=path, **GAUSSIAN) as private:
        older = path.read_bytes()
        run(private, 3)
        private.save(place)
    with training(ledger=tmp_path / "another", **GAUSSIAN) as foreign:
        run(foreign, 3)
        with pytest.raises(ConfigError, match=r"E585.*not the ledger"):
            foreign.load(place)
    path.write_bytes(older)
    with training(ledger=path, **GAUSSIAN) as behind, pytest.raises(ConfigError, match=r"E585.*older"):
        behind.load(place)
    path.unlink()
    with training(ledger=path, **GAUSSIAN) as begun_anew, pytest.raises(ConfigError, match="E585"):
        begun_anew.load(place)
    in_memory = training(**GAUSSIAN)
    for call in (in_memory.save, in_memory.load):
        with pytest.raises(ConfigError, match="E157"):
            call(place)


def test_a_bound_that_was_asked_for_is_not_taken_from_a_checkpoint(tmp_path: Path) -> None:
    path, place = tmp_path / "ledger", tmp_path / "last"
    with training(ledger=path, **GAUSSIAN) as private:
        run(private, 1)
        private.save(place)
    with training(ledger=path, clip=dp.Flat(clip_norm=0.25), noise=GAUSSIAN["noise"]) as private:
        private.load(place)
        assert private.clip_norm == 0.25
