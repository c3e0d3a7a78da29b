"""Twelve usual ways to get private training wrong in silence, planted one by one: each is caught, and by its own check.

A check takes nothing and raises AssertionError. On the trainer as it is, all of them pass.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from privacy.dp.toy_training import CLASSES, FEATURES, N, cut, flat, gradients, moved_by, samples, training
from vambrace.errors import ConfigError
from vambrace.privacy import dp
from vambrace.privacy.dp import private as trainer
from vambrace.privacy.dp.clipping import Clipping
from vambrace.privacy.dp.engine.engine import Engine
from vambrace.privacy.dp.guard import Guard
from vambrace.privacy.dp.history import parse
from vambrace.privacy.dp.ledger import Ledger
from vambrace.privacy.dp.private import Private
from vambrace.privacy.dp.settings import Settings

Patch = pytest.MonkeyPatch
CLIP = 0.3


# ---- the checks -------------------------------------------------------------------------------------------------


def one_sample_moves_the_sum_by_no_more_than_the_bound() -> None:
    inputs, labels = samples()
    sums: list[Tensor] = []
    for kept in (N, N - 1):  # the last sample has by far the longest gradient
        private = training(data=(inputs[:kept], labels[:kept]), clip=dp.Flat(clip_norm=CLIP), sampling=dp.Everything())
        sums.append(moved_by(private, lambda: private.step(next(private.batches(steps=1)))))  # noqa: B023
    assert float((sums[0] - sums[1]).norm()) <= CLIP * (1 + 1e-9)


def the_sum_is_that_of_gradients_one_by_one_over_the_expected_size() -> None:
    private = training(clip=dp.Flat(clip_norm=CLIP))
    for batch in private.batches(steps=4):
        wanted = cut(gradients(private.module, samples(), batch.indices.tolist()), CLIP).sum(dim=0)
        moved = moved_by(private, lambda: private.step(batch))  # noqa: B023
        assert torch.allclose(moved, wanted, rtol=1e-8, atol=1e-10)


class Nobody(dp.Poisson):
    """Batches that happen to be empty: what is added is the noise."""

    def _draw(self, *_: object) -> Tensor:
        return torch.zeros(0, dtype=torch.int64)


def noises(steps: int = 60) -> list[Tensor]:
    private = training(clip=dp.Flat(clip_norm=CLIP), noise=dp.Gaussian(noise_multiplier=2.0), sampling=Nobody())
    return [moved_by(private, lambda: private.step(next(private.batches(steps=1)))) for _ in range(steps)]


def noise_has_the_deviation_that_is_charged() -> None:
    noise = torch.cat(noises()) / (2.0 * CLIP)
    share = stats.chi2.cdf(float((noise**2).sum()), len(noise))
    assert 1e-5 < share < 1 - 1e-5, float(noise.std())


def noise_is_new_in_every_step() -> None:
    one, other = noises(2)
    assert not torch.allclose(one, other)
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.8


def an_empty_batch_is_a_step() -> None:
    private = training(clip=dp.Flat(clip_norm=CLIP), noise=dp.Gaussian(noise_multiplier=2.0), sampling=Nobody())
    stepped: list[int] = []
    private.optimizer.register_step_post_hook(lambda *_: stepped.append(1))
    before = flat(private.module)
    private.step(next(private.batches(steps=1)))
    assert private.spent.steps == 1
    assert len(stepped) == 1
    assert bool((flat(private.module) != before).all())


def the_count_that_adapts_is_charged() -> None:
    cost: dict[str, float] = {}
    for name, clip in {"flat": dp.Flat(), "adaptive": dp.AdaptiveQuantile(count_noise=0.8)}.items():
        private = training(clip=clip, noise=dp.Gaussian(noise_multiplier=2.0), accountant="rdp")
        for batch in private.batches(steps=3):
            private.step(batch)
        cost[name] = private.epsilon().epsilon
    both = 1 / math.hypot(1 / 2.0, 1 / 1.6)
    expected = dp.epsilon(noise_multiplier=both, sample_rate=16 / N, steps=3, delta=1e-3, accountant="rdp").epsilon
    assert cost["flat"] < cost["adaptive"] == pytest.approx(expected)


def batch_norms_are_refused() -> None:
    module = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES)).double()
    with pytest.raises(ConfigError, match="E151"):
        training(module)


def a_batch_is_good_for_one_step() -> None:
    private = training(clip=dp.Flat(clip_norm=CLIP), noise=dp.Gaussian(noise_multiplier=2.0))
    batch = next(private.batches(steps=1))
    private.step(batch)
    before = flat(private.module)
    with pytest.raises(ConfigError, match="E154"):
        private.step(batch)
    assert torch.equal(flat(private.module), before)


def the_ledger_is_ahead_of_every_step(folder: Path) -> None:
    path, ran = folder / "ledger", [0]
    private = training(ledger=path, block=4, clip=dp.Flat(clip_norm=CLIP), noise=dp.Gaussian(noise_multiplier=2.0))

    def look(*_: object) -> None:
        ran[0] += 1
        assert parse(path.read_bytes()).steps >= ran[0]

    private.optimizer.register_step_pre_hook(look)
    try:
        for batch in private.batches(steps=10):
            private.step(batch)
    finally:
        private.close()
        path.unlink()


def noise_follows_the_bound_of_the_step() -> None:
    clip = dp.AdaptiveQuantile(clip_norm=1.0, count_noise=0.01, learning_rate=5.0, quantile=0.9)
    private = training(clip=clip, noise=dp.Gaussian(noise_multiplier=2.0), sampling=Nobody())
    for _ in range(3):  # nobody is there to be cut: the bound grows by exp(2) in every step
        bound = private.clip_norm
        noise = moved_by(private, lambda: private.step(next(private.batches(steps=1)))) / (2.0 * bound)
        assert 0.5 < float(noise.std()) < 2.0


def the_sampler_draws_at_the_rate_that_is_charged() -> None:
    private = training(clip=dp.Flat(), noise=dp.Gaussian(noise_multiplier=2.0))
    drawn = 0
    for batch in private.batches(steps=50):
        drawn += len(batch)
        private.step(batch)
    ((charge, steps),) = private.spent.runs
    assert stats.binomtest(drawn, N * steps, charge.sample_rate).pvalue > 1e-6


CHECKS: list[Callable[..., None]] = [
    one_sample_moves_the_sum_by_no_more_than_the_bound,
    the_sum_is_that_of_gradients_one_by_one_over_the_expected_size,
    noise_has_the_deviation_that_is_charged,
    noise_is_new_in_every_step,
    an_empty_batch_is_a_step,
    the_count_that_adapts_is_charged,
    batch_norms_are_refused,
    a_batch_is_good_for_one_step,
    the_ledger_is_ahead_of_every_step,
    noise_follows_the_bound_of_the_step,
    the_sampler_draws_at_the_rate_that_is_charged,
]


# ---- the bugs ---------------------------------------------------------------------------------------------------


def no_clip(patch: Patch) -> None:
    patch.setattr(Clipping, "factors", lambda self, norms, bounds: torch.ones_like(norms))


def clip_after_mean(patch: Patch) -> None:
    own = Engine.add

    def add(self: Any, task: Any, factors_of: Any, views: Any, groups: Any, mask: Any = None) -> Any:
        sums = [torch.zeros_like(view) for view in views]
        found = own(self, task, torch.ones_like, sums, groups, mask)
        mean = torch.cat([each.flatten() for each in sums]) / task.count
        factor = min(1.0, CLIP / float(mean.norm()))
        for view, each in zip(views, sums, strict=True):
            view.add_(each, alpha=factor)
        return found

    patch.setattr(Engine, "add", add)


def actual_batch_size(patch: Patch) -> None:
    own, step, sizes = Private.step, Guard.step, [0]

    def noted(self: Any, batch: Any) -> None:
        sizes[0] = len(batch)
        own(self, batch)

    def scaled(self: Any) -> None:
        for parameter in self._parameters:
            parameter.grad = parameter.grad * (16 / max(1, sizes[0]))
        step(self)

    patch.setattr(Private, "step", noted)
    patch.setattr(Guard, "step", scaled)


def reused_noise(patch: Patch) -> None:
    first: list[Tensor] = []

    def add(self: Any, total: Tensor, multiplier: float, sensitivity: float, secret: Any) -> None:
        if not first:
            first.append(secret.normal(total.numel(), dtype=total.dtype))
        total.add_(first[0], alpha=multiplier * sensitivity)

    patch.setattr(dp.Gaussian, "_add", add)


def noise_times(factor: float) -> Callable[[Patch], None]:
    def plant(patch: Patch) -> None:
        own = dp.Gaussian._add
        patch.setattr(
            dp.Gaussian,
            "_add",
            lambda self, total, multiplier, sensitivity, secret: own(
                self, total, multiplier * factor, sensitivity, secret
            ),
        )

    return plant


def empty_batch_left_out(patch: Patch) -> None:
    own = Private.step

    def step(self: Any, batch: Any) -> None:
        if len(batch):
            own(self, batch)
        batch.used = True

    patch.setattr(Private, "step", step)


def count_uncharged(patch: Patch) -> None:
    own = Settings.charge
    patch.setattr(
        Settings,
        "charge",
        lambda self, turn, sampling=None: dataclasses.replace(own(self, turn, sampling), count_noise_multiplier=0.0),
    )


def scaled_losses(patch: Patch) -> None:
    own, step = trainer.task, Guard.step

    def task(*given: Any) -> Any:
        found = own(*given)
        return dataclasses.replace(found, losses=lambda: found.losses() * 1024.0)

    def unscaled(self: Any) -> None:
        for parameter in self._parameters:
            parameter.grad = parameter.grad / 1024.0
        step(self)

    patch.setattr(trainer, "task", task)
    patch.setattr(Guard, "step", unscaled)


def nothing_proved(patch: Patch) -> None:
    patch.setattr(Engine, "prepare", lambda self, task_of, many=0: None)


def batches_unchecked(patch: Patch) -> None:
    patch.setattr(Private, "_require_issued", lambda self, batch: None)


def charged_afterwards(patch: Patch) -> None:
    waiting: list[tuple[Any, int]] = []
    own = Ledger.reserve

    def reserve(self: Ledger, charge: Any, steps: int) -> None:
        for before in waiting:
            own(self, *before)
        waiting[:] = [(charge, steps)]

    patch.setattr(Ledger, "reserve", reserve)


def half_charged(patch: Patch) -> None:
    own = Ledger.reserve
    patch.setattr(Ledger, "reserve", lambda self, charge, steps: own(self, charge, max(1, steps // 2)))


def noise_of_the_first_bound(patch: Patch) -> None:
    own = dp.Gaussian._add
    patch.setattr(
        dp.Gaussian,
        "_add",
        lambda self, total, multiplier, sensitivity, secret: own(self, total, multiplier, 1.0, secret),
    )


def twice_the_rate(patch: Patch) -> None:
    own = dp.Poisson._draw
    patch.setattr(dp.Poisson, "_draw", lambda self, n, expected, secret, step: own(self, n, 2 * expected, secret, step))


Bug = tuple[Callable[[Patch], None], Callable[..., None]]
BUGS: dict[str, Bug] = {
    "no clip": (no_clip, one_sample_moves_the_sum_by_no_more_than_the_bound),
    "clip after mean": (clip_after_mean, one_sample_moves_the_sum_by_no_more_than_the_bound),
    "wrong batch factor": (actual_batch_size, the_sum_is_that_of_gradients_one_by_one_over_the_expected_size),
    "reused noise": (reused_noise, noise_is_new_in_every_step),
    "noise divided by n": (noise_times(1 / 16), noise_has_the_deviation_that_is_charged),
    "missed empty batch": (empty_batch_left_out, an_empty_batch_is_a_step),
    "noise too small by sqrt 2": (noise_times(2**-0.5), noise_has_the_deviation_that_is_charged),
    "adaptive count uncharged": (count_uncharged, the_count_that_adapts_is_charged),
    "clip on loss-scaled gradients": (scaled_losses, the_sum_is_that_of_gradients_one_by_one_over_the_expected_size),
    "batch norm left in": (nothing_proved, batch_norms_are_refused),
    "batch used twice": (batches_unchecked, a_batch_is_good_for_one_step),
    "ledger behind the truth": (charged_afterwards, the_ledger_is_ahead_of_every_step),
}
MORE_BUGS: dict[str, Bug] = {
    "noise too large by sqrt 2": (noise_times(2**0.5), noise_has_the_deviation_that_is_charged),
    "ledger of half the steps": (half_charged, the_ledger_is_ahead_of_every_step),
    "noise in the first bound": (noise_of_the_first_bound, noise_follows_the_bound_of_the_step),
    "drawn at twice the rate": (twice_the_rate, the_sampler_draws_at_the_rate_that_is_charged),
}


def run(check: Callable[..., None], folder: Path) -> None:
    check(folder) if check is the_ledger_is_ahead_of_every_step else check()


@pytest.mark.statistical
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_trainer_passes(check: Callable[..., None], tmp_path: Path) -> None:
    run(check, tmp_path)


@pytest.mark.statistical
@pytest.mark.parametrize("name", [*BUGS, *MORE_BUGS])
def test_a_planted_bug_is_caught(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    plant, check = (BUGS | MORE_BUGS)[name]
    plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run(check, tmp_path)


def test_there_are_twelve_and_every_check_is_needed() -> None:
    assert len(BUGS) == 12
    assert {check for _, check in (BUGS | MORE_BUGS).values()} == set(CHECKS)
