"""Several processes: one batch, one noise, one ledger, and parameters that stay equal bit by bit."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from scipy import stats
from torch import Tensor

from privacy.dp.toy_training import N, cut, flat, gradients, moved_by, network, samples, together, training
from vambrace.errors import ConfigError
from vambrace.privacy import dp
from vambrace.privacy.dp import ranks

pytestmark = pytest.mark.skipif(not dist.is_available() or not hasattr(os, "fork"), reason="needs forks and gloo")
GAUSSIAN = {"clip": dp.Flat(clip_norm=0.5), "noise": dp.Gaussian(noise_multiplier=2.0)}


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """What trainings import when they are first made, so that forked processes need not."""
    private = training(**GAUSSIAN)
    private.step(next(private.batches(steps=1)))


def test_two_ranks_sum_what_one_would(tmp_path: Path) -> None:
    def work(rank: int) -> Any:
        data, found = samples(), []
        private = training(
            network(seed=rank), clip=dp.Flat(clip_norm=0.7), expected_batch_size=2, physical_batch_size=2
        )
        for batch in private.batches(steps=30):
            before = network()
            before.load_state_dict(private.module.state_dict())
            moved = moved_by(private, lambda batch=batch: private.step(batch))
            found.append((batch.indices.tolist(), moved, gradients(before, data, batch.indices.tolist())))
        return found, flat(private.module), flat(network())

    (first, one, start), (second, other, _) = together(work, tmp_path)
    assert torch.equal(one, other)
    assert not torch.equal(one, start)
    sizes = set()
    for (left, moved, own), (right, same, others) in zip(first, second, strict=True):
        assert not set(left) & set(right)
        assert 0 <= len(left) - len(right) <= 1
        assert torch.equal(moved, same)
        assert torch.allclose(moved, cut(torch.cat([own, others]), 0.7).sum(dim=0), rtol=1e-9, atol=1e-11)
        sizes |= {len(left), len(right)}
    assert 0 in sizes  # the second rank's part of a batch of one or none; 30 larger ones come once in 10^6


class Nobody(dp.Poisson):
    """Batches that happen to be empty: what is added is the noise."""

    def _draw(self, *_: object) -> Tensor:
        return torch.zeros(0, dtype=torch.int64)


@pytest.mark.statistical
def test_noise_is_added_once(tmp_path: Path) -> None:
    def work(rank: int) -> Any:
        private = training(sampling=Nobody(), **GAUSSIAN)
        moved = [moved_by(private, lambda: private.step(next(private.batches(steps=1)))) for _ in range(30)]
        return torch.cat(moved), private._secret.uniform(4)

    (noise, coins), (same, others) = together(work, tmp_path)
    assert torch.equal(noise, same)
    assert not torch.equal(coins, others)

    def believable(sd: float) -> bool:
        share = stats.chi2.cdf(float((noise**2).sum()) / sd**2, len(noise))
        return 1e-5 < share < 1 - 1e-5

    assert believable(2.0 * 0.5)
    assert not believable(2.0 * 0.5 * 2**0.5)
    assert not believable(2.0 * 0.5 / 2**0.5)


def test_noise_on_a_grid_stays_on_it(tmp_path: Path) -> None:
    noise = dp.DiscreteGaussian(noise_multiplier=1.0, grid=2.0**-6)

    def work(rank: int) -> Any:
        private = training(clip=dp.Flat(clip_norm=1.0), noise=noise, accountant="rdp")
        sums: list[Tensor] = []
        private.optimizer.register_step_pre_hook(lambda *_: sums.append(private._flat * 16))
        for batch in private.batches(steps=2):
            private.step(batch)
        return torch.cat(sums)

    for found in together(work, tmp_path):
        cells = found / noise.spacing(1.0)
        assert torch.equal(cells, cells.round())
        assert bool((found % 1 != 0).any())


def test_the_adaptive_bound_is_one_number(tmp_path: Path) -> None:
    def work(rank: int) -> Any:
        clip = dp.AdaptiveQuantile(clip_norm=0.1, count_noise=1.0)
        private = training(clip=clip, noise=dp.Gaussian(noise_multiplier=1.0), expected_batch_size=4, diagnostics=True)
        bounds: list[float] = []
        for batch in private.batches(steps=8):
            private.step(batch)
            bounds.append(private.clip_norm)
        return bounds, flat(private.module), [each.samples for each in private.diagnostics], private.epsilon().epsilon

    first, second = together(work, tmp_path)
    assert first[0] == second[0]
    assert len(set(first[0])) == 8
    assert torch.equal(first[1], second[1])
    assert first[2:] == second[2:]


def test_an_epoch_is_shuffled_over_all_ranks(tmp_path: Path) -> None:
    def work(rank: int) -> Any:
        private = training(sampling=dp.Shuffled(), expected_batch_size=10)
        seen: list[int] = []
        for batch in private.batches(epochs=2):
            seen += batch.indices.tolist()
            private.step(batch)
        return seen

    assert sorted(sum(together(work, tmp_path), [])) == sorted([*range(N)] * 2)


def test_a_callers_batch_counts_once(tmp_path: Path) -> None:
    data = tuple(each[:9] for each in samples())

    def work(rank: int) -> Any:
        private = training(clip=dp.Flat(clip_norm=0.7))
        return moved_by(private, lambda: private.step_unsampled(*data))

    wanted = cut(gradients(network(), data, range(9)), 0.7).sum(dim=0)
    for moved in together(work, tmp_path):
        assert torch.allclose(moved, wanted, rtol=1e-9, atol=1e-11)


def test_all_ranks_know_what_the_ledger_of_the_first_holds_and_stop_together(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    options = {**GAUSSIAN, "accountant": "rdp", "ledger": path, "block": 5}
    with training(**options) as before:
        for batch in before.batches(steps=7):
            before.step(batch)
        spent = before.epsilon().epsilon

    def looked(rank: int) -> Any:
        with training(max_epsilon=spent * 1.2, **options) as private:
            at_start = private.epsilon().epsilon
            for batch in private.batches(steps=1000):
                private.step(batch)
            with pytest.raises(ConfigError, match="E156"):
                private.step_unsampled(*samples())
            here = private._account.ledger is not None
            return at_start, private.spent.as_json(), private.epsilon().epsilon, private.stopped, here

    first, second = together(looked, tmp_path)
    assert first[:4] == second[:4]
    assert (first[4], second[4]) == (True, False)
    assert first[0] == spent
    assert spent < first[2] <= spent * 1.2
    with training(**options) as after:
        assert after.epsilon().epsilon == first[2]


def test_checkpoints_are_written_and_read_by_the_first_rank(tmp_path: Path) -> None:
    path, place = tmp_path / "ledger", tmp_path / "last"

    def save(rank: int) -> Any:
        module = network()
        clip = dp.AdaptiveQuantile(clip_norm=0.1, count_noise=1.0)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        with training(module, optimizer=optimizer, clip=clip, ledger=path) as private:
            for batch in private.batches(steps=3):
                private.step(batch)
            private.save(place if rank == 0 else tmp_path / "nowhere" / "else")
            for batch in private.batches(steps=2):
                private.step(batch)
            moved = flat(module)
            private.load(place)
            with pytest.raises(ConfigError, match="E585" if rank == 0 else "E157"):
                private.load(tmp_path / "missing")
            for batch in private.batches(steps=2):
                private.step(batch)
            return moved, flat(module), private.clip_norm, private.spent.steps

    first, second = together(save, tmp_path)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], first[1])
    assert first[2:] == second[2:]
    assert first[3] == 7


def test_a_share_of_the_data_for_each_rank_is_refused(tmp_path: Path) -> None:
    def work(rank: int) -> Any:
        with pytest.raises(ConfigError, match=r"E155.*64, 63 samples"):
            training(data=samples(N - rank))
        return None

    together(work, tmp_path)


def test_alone_nothing_is_said_to_anybody() -> None:
    total = torch.ones(3)
    ranks.to_first(total)
    ranks.from_first(total)
    drawn = torch.arange(5)
    assert torch.equal(total, torch.ones(3))
    assert ranks.share(drawn, torch.device("cpu")) is drawn
    assert ranks.tell(b"words", torch.device("cpu")) == b"words"
    assert (ranks.number(), ranks.world()) == (0, 1)


SCRIPT = """
    import sys
    import torch, torch.distributed as dist
    from vambrace.privacy import dp

    dist.init_process_group("gloo")
    torch.manual_seed(dist.get_rank())
    module = torch.nn.Linear(6, 3)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    draw = torch.Generator().manual_seed(0)
    data = torch.randn(64, 6, generator=draw), torch.randint(3, (64,), generator=draw)
    private = dp.make_private(
        module, optimizer, data, loss="cross_entropy", clip=dp.Flat(clip_norm=1.0), ledger=sys.argv[1],
        noise=dp.Gaussian(noise_multiplier=1.0), expected_batch_size=2, delta=1e-3, accountant="rdp",
    )
    for batch in private.batches(epochs=1):
        private.step(batch)
    found = module.weight.detach(), private.epsilon().epsilon, private.spent.steps
    torch.save(found, f"{sys.argv[1]}.{dist.get_rank()}")
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_torchrun(tmp_path: Path) -> None:
    script, path = tmp_path / "train.py", tmp_path / "ledger"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
        str(path),
    ]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    first, second = (torch.load(f"{path}.{rank}") for rank in range(2))
    assert torch.equal(first[0], second[0])
    assert first[1:] == second[1:]
    assert first[2] == 32
