"""A private step is what it says it is: clipped, scaled by the expected size, noised, charged, once a batch."""

from __future__ import annotations

import copy
import io
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from privacy.dp.toy_training import (
    CLASSES,
    FEATURES,
    N,
    cut,
    flat,
    gradients,
    moved_by,
    network,
    samples,
    training,
)
from vambrace.errors import ConfigError
from vambrace.privacy import dp
from vambrace.privacy.dp import keystream

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda module: torch.optim.SGD(module.parameters(), lr=0.3),
    "momentum": lambda module: torch.optim.SGD(module.parameters(), lr=0.3, momentum=0.9),
    "nesterov": lambda module: torch.optim.SGD(
        module.parameters(), lr=0.3, momentum=0.9, nesterov=True, weight_decay=0.1
    ),
    "adam": lambda module: torch.optim.Adam(module.parameters(), lr=0.01),
    "adamw": lambda module: torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1),
    "one by one": lambda module: torch.optim.Adam(module.parameters(), lr=0.01, foreach=False),
    "fused": lambda module: torch.optim.AdamW(module.parameters(), lr=0.01, fused=True),
}


# ---- what a step does -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_noise_and_clipping_a_step_is_the_optimizers_own(name: str) -> None:
    ours, theirs, data = network(), network(), samples()
    private = training(ours, optimizer=OPTIMIZERS[name](ours), sampling=dp.Everything(), expected_batch_size=N)
    plain = OPTIMIZERS[name](theirs)
    schedules = [torch.optim.lr_scheduler.StepLR(each, 2, gamma=0.5) for each in (private.optimizer, plain)]
    for batch in private.batches(steps=5):
        private.step(batch)
        plain.zero_grad()
        F.cross_entropy(theirs(data[0]), data[1]).backward()
        plain.step()
        for schedule in schedules:
            schedule.step()
        assert torch.allclose(flat(ours), flat(theirs), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(flat(ours), flat(network()))


@pytest.mark.parametrize("most", [None, 1, 5])
def test_the_sum_is_that_of_clipped_gradients_one_by_one(most: int | None) -> None:
    private = training(clip=dp.Flat(clip_norm=0.7), physical_batch_size=most)
    for batch in private.batches(steps=4):
        rows = batch.indices.tolist()
        wanted = cut(gradients(private.module, samples(), rows), 0.7).sum(dim=0)
        found = moved_by(private, lambda batch=batch: private.step(batch))
        assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-11)
        assert wanted.norm() <= 0.7 * len(rows)


def test_clip_and_scale_know_the_expected_size_and_never_the_actual_one() -> None:
    """One sample more moves a step by at most clip_norm over the expected size, whatever the batch."""
    inputs, labels = samples()
    private = training(clip=dp.Flat(clip_norm=0.1), expected_batch_size=16, sampling=dp.Everything())
    with_all = moved_by(private, lambda: private.step(next(private.batches(steps=1))))
    fewer = training(data=(inputs[:-1], labels[:-1]), clip=dp.Flat(clip_norm=0.1), sampling=dp.Everything())
    without = moved_by(fewer, lambda: fewer.step(next(fewer.batches(steps=1))))
    last = cut(gradients(network(), samples(), [N - 1]), 0.1)[0]
    assert torch.allclose(with_all - without, last, atol=1e-10)
    assert (with_all - without).norm() <= 0.1 * (1 + 1e-9)
    mean = with_all / N - without / (N - 1)  # the control: an actual mean moves by what all others are as well
    assert not torch.allclose(mean, last / N, atol=1e-6)


def noise_of(private: Any, steps: int) -> Tensor:
    """What steps on empty batches add to the sum."""
    found = [moved_by(private, lambda: private.step(next(private.batches(steps=1)))) for _ in range(steps)]
    return torch.cat(found)


class Nobody(dp.Poisson):
    """A Poisson sampler whose batches happen to be empty."""

    def _draw(self, *_: object) -> Tensor:
        return torch.zeros(0, dtype=torch.int64)


def fits(noise: Tensor, sd: float) -> bool:
    """Whether normal noise of a standard deviation is believable: mean, variance, shape. A false alarm in 10^5."""
    n = len(noise)
    variance = stats.chi2.cdf(float((noise**2).sum()) / sd**2, n)
    shape = stats.kstest(noise.numpy() / sd, "norm").pvalue
    return min(variance, 1 - variance) > 1e-5 and shape > 1e-5


@pytest.mark.statistical
@pytest.mark.parametrize(
    "clip", [dp.Flat(clip_norm=0.5), dp.PerLayer(clip_norms=(0.3, 0.4)), dp.Automatic(clip_norm=0.5)]
)
def test_empty_batches_step_with_the_whole_noise_and_are_charged(clip: Any) -> None:
    private = training(clip=clip, noise=dp.Gaussian(noise_multiplier=3.0), sampling=Nobody())
    noise = noise_of(private, 60)
    assert private.spent.steps == 60
    assert [charge.noise_multiplier for charge, _ in private.spent] == [3.0]
    assert fits(noise, 3.0 * 0.5)
    for wrong in (2.0**0.5, 0.5**0.5, 1 / 0.5, 1 / 16):
        assert not fits(noise, 3.0 * 0.5 * wrong)
    halves = noise[: len(noise) // 2], noise[len(noise) // 2 :]
    assert abs(float(torch.corrcoef(torch.stack(halves))[0, 1])) < 0.15
    assert len(set(noise.tolist())) == len(noise)


def test_a_real_empty_batch_is_a_batch() -> None:
    private = training(expected_batch_size=1, noise=dp.Gaussian(noise_multiplier=1.0), clip=dp.Flat(clip_norm=1.0))
    sizes: list[int] = []
    for batch in private.batches(steps=30):
        sizes.append(len(batch))
        moved = moved_by(private, lambda batch=batch: private.step(batch))
        assert bool((moved != 0).all())
    assert 0 in sizes  # 30 batches of one expected sample: all are filled once in 10^6
    assert private.spent.steps == 30


@pytest.mark.parametrize("update", ["geometric", "linear"])
def test_the_adaptive_bound_follows_its_noisy_count(update: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = samples()
    clip = dp.AdaptiveQuantile(clip_norm=0.3, count_noise=2.0, learning_rate=0.5, quantile=0.7, update=update)
    private = training(clip=clip, diagnostics=True)
    draw = torch.Generator().manual_seed(0)
    drawn: list[float] = []

    def normal(size: int, **_: object) -> Tensor:
        drawn.append(float(torch.randn(1, generator=draw)))
        return torch.tensor(drawn[-1:], dtype=torch.float64)

    monkeypatch.setattr(type(private._secret), "normal", lambda self, size, **more: normal(size, **more))
    for number, batch in enumerate(private.batches(steps=6)):
        rows, bound = batch.indices.tolist(), private.clip_norm
        own = gradients(private.module, data, rows)
        moved = moved_by(private, lambda batch=batch: private.step(batch))
        assert torch.allclose(moved, cut(own, bound).sum(dim=0), rtol=1e-9, atol=1e-11)
        share = (float((own.norm(dim=1) <= bound).double().sum() - len(rows) / 2) + 2.0 * drawn[number]) / 16 + 0.5
        wanted = (
            bound * 2.718281828459045 ** (-0.5 * (share - 0.7))
            if update == "geometric"
            else bound - 0.5 * (share - 0.7)
        )
        assert private.clip_norm == pytest.approx(max(wanted, 1e-6), rel=1e-9)
    assert [charge.count_noise_multiplier for charge, _ in private.spent] == [4.0]
    assert len(drawn) == 6


@pytest.mark.statistical
def test_noise_is_measured_in_the_bound_of_the_very_step() -> None:
    clip = dp.AdaptiveQuantile(clip_norm=1.0, count_noise=0.01, learning_rate=1.0, quantile=0.9)
    private = training(clip=clip, noise=dp.Gaussian(noise_multiplier=2.0), sampling=Nobody(), accountant="rdp")
    for _ in range(4):  # nobody is cut, nobody is there: the bound rises by exp(0.4) in every step
        before = private.clip_norm
        noise = noise_of(private, 1) / (2.0 * before)
        assert private.clip_norm > 1.4 * before
        assert stats.kstest(noise.numpy(), "norm").pvalue > 1e-5


def test_decaying_noise_is_charged_as_it_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = dp.AdaptiveGaussian(noise_multiplier=4.0, decay="exponential", rate=0.1)
    private = training(clip=dp.Flat(clip_norm=2.0), noise=noise)
    added: list[float] = []
    own = dp.AdaptiveGaussian._add
    monkeypatch.setattr(
        dp.AdaptiveGaussian,
        "_add",
        lambda self, total, multiplier, sensitivity, secret: (
            added.append(multiplier * sensitivity),
            own(self, total, multiplier, sensitivity, secret),
        ),
    )
    for batch in private.batches(steps=30):
        private.step(batch)
    charged = [charge.noise_multiplier for charge, steps in private.spent for _ in range(steps)]
    assert added == [2.0 * each for each in charged]
    assert charged[0] == 4.0
    assert charged[-1] < 0.5


# ---- what a batch is good for -----------------------------------------------------------------------------------


def test_only_the_last_batch_of_the_same_training_is_taken_and_once() -> None:
    private, other = training(), training()
    batch = next(private.batches(steps=1))
    strange: list[tuple[Any, str]] = [
        (next(other.batches(steps=1)), "other origin"),
        (samples(), "tuple of other origin"),
        (samples()[0], "Tensor of other origin"),
        (None, "NoneType of other origin"),
    ]
    for wrong, words in strange:
        with pytest.raises(ConfigError, match=f"E154.*{words}"):
            private.step(wrong)
    assert private.spent.steps == 0
    private.step(batch)
    with pytest.raises(ConfigError, match=r"E154.*used before"):
        private.step(batch)


def test_a_batch_that_was_drawn_comes_again_until_it_is_used() -> None:
    """Or one could draw until one likes what came: batches that are chosen are not sampled."""
    private = training()
    pending = next(private.batches(steps=1))
    for _ in range(3):
        for batch in private.batches(steps=2):
            assert batch is pending
            break
    private.step(pending)
    assert next(private.batches(steps=1)) is not pending
    assert private.spent.steps == 1


def test_no_batch_may_be_left_out() -> None:
    private = training()
    with pytest.raises(ConfigError, match=r"E154.*left out"):
        list(private.batches(steps=2))
    batches = private.batches(steps=5)
    private.step(next(batches))
    next(batches)
    with pytest.raises(ConfigError, match=r"E154.*left out"):
        next(batches)
    assert private.spent.steps == 1


def test_batches_wants_epochs_or_steps_and_says_so_at_once() -> None:
    private = training()
    for wrong in ({}, {"epochs": 1, "steps": 1}, {"epochs": 0.5}, {"steps": -1}, {"steps": True}):
        with pytest.raises(ConfigError, match="E150"):
            private.batches(**wrong)
    assert len([private.step(batch) for batch in private.batches(epochs=2)]) == 2 * 4 == private.spent.steps
    assert not list(private.batches(steps=0))


def test_a_shuffled_epoch_sees_each_sample_once() -> None:
    private = training(sampling=dp.Shuffled(), expected_batch_size=20)
    seen: list[int] = []
    for batch in private.batches(epochs=3):
        seen += batch.indices.tolist()
        private.step(batch)
    for epoch in range(3):
        assert sorted(seen[epoch * N : (epoch + 1) * N]) == list(range(N))
    assert seen[:N] != seen[N : 2 * N]


def test_an_epoch_outlives_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystream, "KEY_SERVES", 2**12)  # a few steps, as 64 GiB are for a large model
    private = training(
        sampling=dp.Shuffled(),
        expected_batch_size=1,
        clip=dp.Flat(clip_norm=1.0),
        noise=dp.Gaussian(noise_multiplier=1.0),
    )
    seen: list[int] = []
    for batch in private.batches(epochs=1):
        seen += batch.indices.tolist()
        private.step(batch)
    assert sorted(seen) == list(range(N))
    assert private._secret._renewals > 2


# ---- when things fail -------------------------------------------------------------------------------------------


class Augmented(torch.utils.data.Dataset):
    """Samples that are turned around by a coin, or blurred by as many draws as their number says."""

    def __init__(self, draw: Callable[[], float], times: int) -> None:
        self.draw, self.times = draw, times

    def __len__(self) -> int:
        return N

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        inputs, labels = samples()
        shift = sum(self.draw() for _ in range(1 + row % self.times))
        return (inputs[row].flip(0) if shift % 1 < 0.5 else inputs[row] + shift), labels[row]


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("draw", [random.random, lambda: float(np.random.rand()), lambda: float(torch.rand(()))])
def test_data_that_is_augmented_at_random_mixes_no_samples(draw: Callable[[], float], times: int) -> None:
    private = training(data=Augmented(draw, times), clip=dp.Flat(clip_norm=0.5))
    private.step(next(private.batches(steps=1)))
    assert all(row.method in ("ghost", "direct") for row in private.table)


class Failing(torch.utils.data.Dataset):
    """A data set that fails on the n-th call."""

    def __init__(self, at: int) -> None:
        self.data, self.at, self.calls = samples(), at, 0

    def __len__(self) -> int:
        return N

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        self.calls += 1
        if self.calls == self.at:
            raise OSError("the disk is gone")
        return self.data[0][row], self.data[1][row]


def test_a_step_that_fails_stays_charged_moves_nothing_and_training_goes_on() -> None:
    data = Failing(at=10**9)
    private = training(
        data=data, clip=dp.Flat(clip_norm=1.0), noise=dp.Gaussian(noise_multiplier=1.0), physical_batch_size=2
    )
    private.step(next(private.batches(steps=1)))
    before, seen = flat(private.module), [each.grad for each in private.module.parameters()]
    data.at = data.calls + 5  # in the third piece: two were summed already
    batch = next(private.batches(steps=1))
    with pytest.raises(OSError, match="the disk is gone"):
        private.step(batch)
    assert private.spent.steps == 2
    assert torch.equal(flat(private.module), before)
    assert all(not bool(each.any()) for each in seen if each is not None), "a sum without noise was left in .grad"
    with pytest.raises(ConfigError, match=r"E154.*used before"):
        private.step(batch)
    for batch in private.batches(steps=3):
        private.step(batch)
    assert private.spent.steps == 5


def test_samples_without_a_finite_gradient_count_for_nothing() -> None:
    inputs, labels = samples()
    inputs[5], inputs[9] = float("nan"), float("inf")
    private = training(data=(inputs, labels), clip=dp.Flat(clip_norm=1.0), sampling=dp.Everything(), diagnostics=True)
    rows = [row for row in range(N) if row not in (5, 9)]
    wanted = cut(gradients(private.module, (inputs, labels), rows), 1.0).sum(dim=0)
    moved = moved_by(private, lambda: private.step(next(private.batches(steps=1))))
    assert torch.allclose(moved, wanted, rtol=1e-9)
    assert private.diagnostics[0].dropped == 2
    assert private.diagnostics[0].samples == N


# ---- the budget -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accountant", "budget"), [("zcdp", 9.0), ("pld", 3.0)])
@pytest.mark.parametrize(
    "noise",
    [dp.Gaussian(noise_multiplier=2.0), dp.AdaptiveGaussian(noise_multiplier=4.0, decay="time", rate=0.3, floor=3.0)],
    ids=["constant", "decaying"],
)
def test_batches_end_before_the_budget_breaks(noise: Any, accountant: Any, budget: float) -> None:
    options = {"clip": dp.Flat(clip_norm=1.0), "noise": noise, "accountant": accountant, "delta": 1e-4}
    private = training(max_epsilon=budget, **options)
    for number, batch in enumerate(private.batches(steps=10_000)):
        if number % 2:
            private.step(batch)
            continue
        batch._make = lambda _: iter([None])  # steps that fail were charged, and count
        with pytest.raises(AttributeError):
            private.step(batch)
    assert private.stopped == f"max_epsilon {budget:g}"
    assert 0 < private.epsilon().epsilon <= budget
    more = private.spent + dp.Spent([private.settings.charge(private.spent.steps)])
    assert dp.epsilon(more, delta=1e-4, accountant=accountant).epsilon > budget
    assert not list(private.batches(steps=5))


def test_a_budget_below_one_step_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"E156.*first step"):
        training(clip=dp.Flat(clip_norm=1.0), noise=dp.Gaussian(noise_multiplier=0.5), max_epsilon=0.1)


def test_unsampled_steps_are_charged_as_all_samples_and_kept_in_the_budget() -> None:
    options = {"clip": dp.Flat(clip_norm=1.0), "noise": dp.Gaussian(noise_multiplier=5.0), "accountant": "rdp"}
    private = training(max_epsilon=1.5, **options)
    batch = next(private.batches(steps=1))
    private.step_unsampled(*samples())
    assert [charge.sampling for charge, _ in private.spent] == ["full"]
    private.step(batch)
    until_full = (private.step_unsampled(*samples()) for _ in range(100))
    with pytest.raises(ConfigError, match=r"E156.*all samples"):
        list(until_full)
    assert 0.5 < private.epsilon().epsilon <= 1.5


def test_an_unsampled_step_sums_its_own_batch_in_pieces() -> None:
    private = training(clip=dp.Flat(clip_norm=0.5), physical_batch_size=3)
    data = tuple(each[:10] for each in samples())
    wanted = cut(gradients(private.module, data, range(10)), 0.5).sum(dim=0)
    assert torch.allclose(moved_by(private, lambda: private.step_unsampled(*data)), wanted, rtol=1e-9, atol=1e-12)


# ---- what a person sees -----------------------------------------------------------------------------------------


def test_debug_is_reproducible_and_claims_nothing() -> None:
    def run(**options: Any) -> tuple[Tensor, Any]:
        private = training(clip=dp.Flat(clip_norm=1.0), noise=dp.Gaussian(noise_multiplier=1.0), **options)
        for batch in private.batches(steps=3):
            private.step(batch)
        return flat(private.module), private

    one, private = run(debug=True)
    assert torch.equal(one, run(debug=True)[0])
    assert private.epsilon().epsilon == float("inf")
    assert "debug mode" in private.statement()
    assert "no privacy is claimed" in private.statement()
    assert "REPRODUCIBLE" in str(private)
    assert not torch.equal(run()[0], run()[0])


def test_the_statement_names_what_was_looked_at() -> None:
    options = {"clip": dp.Flat(clip_norm=1.0), "noise": dp.Gaussian(noise_multiplier=1.0), "accountant": "rdp"}
    quiet, looked = training(**options), training(diagnostics=True, **options)
    for private in (quiet, looked):
        for batch in private.batches(steps=2):
            private.step(batch)
    assert "batch sizes" in looked.statement()
    assert "batch sizes" not in quiet.statement()
    assert f"epsilon {quiet.epsilon().epsilon:.1f}" in quiet.statement()
    assert [each.samples for each in looked.diagnostics] != []
    assert quiet.diagnostics == []


def test_diagnostics_count_samples_and_not_padding() -> None:
    data = samples()
    private = training(clip=dp.Flat(clip_norm=0.5), diagnostics=True, expected_batch_size=37, physical_batch_size=33)
    for batch in private.batches(steps=3):
        rows = batch.indices.tolist()
        own = gradients(private.module, data, rows).norm(dim=1)
        losses = F.cross_entropy(private.module(data[0][rows]), data[1][rows]).detach()
        private.step(batch)
        found = private.diagnostics[-1]
        assert (found.samples, found.dropped) == (len(rows), 0)
        assert found.clipped == pytest.approx(float((own > 0.5).double().mean()))
        assert found.loss == pytest.approx(float(losses))


def test_it_prints_as_a_table_of_every_parameter() -> None:
    module = network()
    module[0].weight.requires_grad_(False)
    private = training(module, clip=dp.Flat(clip_norm=1.0), noise=dp.Gaussian(noise_multiplier=1.0))
    text = str(private)
    assert "23 trainable elements in 3 parameters (1 frozen)" in text
    for name in ("0.bias", "2.weight", "2.bias"):
        assert name in text
    assert "Poisson(), 16 of 64 samples" in text
    assert "4 steps an epoch" in text


# ---- what stays as it was ---------------------------------------------------------------------------------------


def test_the_module_keeps_type_keys_equality_and_every_way_of_copying() -> None:
    module = network()
    keys, same = list(module.state_dict()), copy.deepcopy(module)
    private = training(module, clip=dp.Flat(clip_norm=1.0), noise=dp.Gaussian(noise_multiplier=1.0))
    for batch in private.batches(steps=2):
        private.step(batch)
        assert type(module) is nn.Sequential
        assert list(module.state_dict()) == keys
        assert module is private.module
        assert not module._forward_hooks
        assert not any(each._backward_hooks for each in module.parameters())
        assert all(each.requires_grad and each.is_leaf for each in module.parameters())
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), saved(module)):
            assert type(other) is nn.Sequential
            assert torch.equal(flat(other), flat(module))
            assert other(samples()[0]).shape == (N, CLASSES)
        optimizer = copy.deepcopy(private.optimizer)
        optimizer.load_state_dict(pickle.loads(pickle.dumps(private.optimizer.state_dict())))
    same.load_state_dict(module.state_dict())
    for forbidden in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(ConfigError, match="E145"):
            forbidden(private)


def saved(module: nn.Module) -> nn.Module:
    held = io.BytesIO()
    torch.save(module, held)
    held.seek(0)
    return torch.load(held, weights_only=False)


@pytest.mark.parametrize("beside", ["backward", "zeros", "none", "kept"])
def test_gradients_made_beside_it_never_reach_a_step(beside: str) -> None:
    data = samples()
    private = training(clip=dp.Flat(clip_norm=0.5), sampling=dp.Everything())
    for batch in private.batches(steps=3):
        if beside == "backward":
            F.cross_entropy(private.module(data[0]), data[1]).mul(100).backward()
        elif beside != "kept":
            private.optimizer.zero_grad(set_to_none=beside == "none")
        wanted = cut(gradients(private.module, data, range(N)), 0.5).sum(dim=0)
        assert torch.allclose(moved_by(private, lambda batch=batch: private.step(batch)), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")])
def test_a_step_is_the_same_in_any_context_of_the_caller(context: Any) -> None:
    data = samples()
    private = training(clip=dp.Flat(clip_norm=0.5), sampling=dp.Everything())
    wanted = cut(gradients(private.module, data, range(N)), 0.5).sum(dim=0)
    batch = next(private.batches(steps=1))
    with context():
        found = moved_by(private, lambda: private.step(batch))
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_autocast_clips_in_float32() -> None:
    module = network(dtype=torch.float32)
    data = samples(dtype=torch.float32)
    private = training(module, data, clip=dp.Flat(clip_norm=0.5), sampling=dp.Everything(), autocast=torch.bfloat16)
    moved = moved_by(private, lambda: private.step(next(private.batches(steps=1))))
    wanted = cut(gradients(network(dtype=torch.float32), data, range(N)), 0.5).sum(dim=0)
    assert torch.allclose(moved, wanted, atol=0.05 * float(wanted.norm()))
    assert not torch.allclose(moved, wanted, rtol=1e-6)
    assert {each.dtype for each in private.optimizer.param_groups[0]["params"]} == {torch.float32}


def test_parameters_in_half_precision_get_sums_from_float32() -> None:
    module, data = network(dtype=torch.bfloat16), samples(dtype=torch.bfloat16)
    private = training(module, data, clip=dp.Flat(clip_norm=0.5), sampling=dp.Everything(), expected_batch_size=1)
    private.step(next(private.batches(steps=1)))
    assert all(each.grad is not None and each.grad.dtype == torch.bfloat16 for each in module.parameters())
    assert private._flat.dtype == torch.float32


def test_dicts_of_samples_train_by_their_own_loss() -> None:
    inputs, labels = samples()
    weight = torch.linspace(0.5, 2.0, N, dtype=torch.float64)
    rows = [{"x": inputs[row], "y": labels[row], "weight": weight[row], "name": str(row)} for row in range(N)]

    def loss(module: nn.Module, batch: Any) -> Tensor:
        assert all(isinstance(each, str) for each in batch["name"])
        return F.cross_entropy(module(batch["x"]), batch["y"], reduction="none") * batch["weight"]

    private = training(data=rows, per_sample_loss=loss, clip=dp.Flat(clip_norm=0.5))
    for batch in private.batches(steps=2):
        chosen = batch.indices.tolist()
        own = gradients(private.module, (inputs, labels), chosen) * weight[chosen][:, None]
        assert torch.allclose(
            moved_by(private, lambda batch=batch: private.step(batch)), cut(own, 0.5).sum(dim=0), rtol=1e-9, atol=1e-12
        )


def test_a_module_without_rules_is_differentiated_sample_by_sample() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(network()[0].weight.detach().clone())

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.einsum("bi,oi,oj->bj", inputs, self.weight.cos(), self.weight[:, :CLASSES].sin())

    module, data = Odd(), samples()
    private = training(module, clip=dp.Flat(clip_norm=0.5), physical_batch_size=7)
    for batch in private.batches(steps=2):
        wanted = cut(gradients(module, data, batch.indices.tolist()), 0.5).sum(dim=0)
        moved = moved_by(private, lambda batch=batch: private.step(batch))
        assert torch.allclose(moved, wanted, rtol=1e-9, atol=1e-12)


def test_laplace_clips_in_l1() -> None:
    private = training(clip=dp.Flat(clip_norm=0.5, norm="l1"), sampling=dp.Everything())
    own = gradients(private.module, samples(), range(N))
    wanted = (own * (0.5 / own.abs().sum(dim=1, keepdim=True)).clamp(max=1.0)).sum(dim=0)
    assert torch.allclose(
        moved_by(private, lambda: private.step(next(private.batches(steps=1)))), wanted, rtol=1e-9, atol=1e-12
    )


def test_layers_are_clipped_apart() -> None:
    private = training(clip=dp.PerLayer(clip_norms=(0.3, 0.4)), sampling=dp.Everything())
    own = gradients(private.module, samples(), range(N))
    first = 5 * FEATURES + 5
    wanted = torch.cat([cut(own[:, :first], 0.3), cut(own[:, first:], 0.4)], dim=1).sum(dim=0)
    moved = moved_by(private, lambda: private.step(next(private.batches(steps=1))))
    assert torch.allclose(moved, wanted, rtol=1e-9, atol=1e-12)
    assert private.clip_norm == pytest.approx(0.5)


def test_automatic_clipping_scales_short_gradients_up() -> None:
    private = training(clip=dp.Automatic(clip_norm=0.5), sampling=dp.Everything())
    own = gradients(private.module, samples(), range(N))
    wanted = (own * 0.5 / (own.norm(dim=1, keepdim=True) + 0.01)).sum(dim=0)
    moved = moved_by(private, lambda: private.step(next(private.batches(steps=1))))
    assert torch.allclose(moved, wanted, rtol=1e-9, atol=1e-12)


def test_threads_do_not_change_what_is_summed() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        private = training(clip=dp.Flat(clip_norm=0.7), physical_batch_size=9)
        batch = next(private.batches(steps=1))
        wanted = cut(gradients(private.module, samples(), batch.indices.tolist()), 0.7).sum(dim=0)
        assert torch.allclose(moved_by(private, lambda: private.step(batch)), wanted, rtol=1e-9, atol=1e-12)
    finally:
        torch.set_num_threads(threads)
