"""Nothing trains, and nothing is filled from samples, outside of the clipped sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privacy.dp.toy_training import (
    CLASSES,
    ENDLESS,
    FEATURES,
    NOISELESS,
    N,
    cut,
    flat,
    gradients,
    moved_by,
    network,
    samples,
    sgd,
    training,
)
from vambrace.errors import ConfigError
from vambrace.privacy import dp
from vambrace.privacy.dp import ranks
from vambrace.privacy.dp.private import Private

GAUSSIAN = {"clip": dp.Flat(clip_norm=1.0), "noise": dp.Gaussian(noise_multiplier=1.0)}


def step(private: Private) -> None:
    private.step(next(private.batches(steps=1)))


# ---- which parameters train -------------------------------------------------------------------------------------


def add(private: Private) -> None:
    private.module.append(nn.Linear(CLASSES, CLASSES, dtype=torch.float64))


def grow(private: Private) -> None:
    private.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})


CHANGES: dict[str, Callable[[Private], object]] = {
    "added": add,
    "thawed": lambda private: private.module[0].weight.requires_grad_(True),
    "frozen": lambda private: private.module[2].weight.requires_grad_(False),
    "replaced": lambda private: setattr(private.module[2], "bias", nn.Parameter(torch.zeros(CLASSES))),
    "moved": lambda private: private.module.float(),
    "given to the optimizer": grow,
    "taken from the optimizer": lambda private: private.optimizer.param_groups[0]["params"].pop(),
    "closed": lambda private: private.close(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_parameters_than_at_the_start_are_refused(change: str) -> None:
    module = network()
    module[0].weight.requires_grad_(False)
    private = training(module, optimizer=torch.optim.SGD(module.parameters(), lr=0.1), **GAUSSIAN)
    step(private)
    batch = next(private.batches(steps=1))
    CHANGES[change](private)
    with pytest.raises(ConfigError, match="E158"):
        private.step(batch)
    with pytest.raises(ConfigError, match="E158"):
        private.step_unsampled(*samples())
    assert private.spent.steps == 1


def test_after_a_change_training_goes_on_where_it_is_made_private_again(tmp_path: Any) -> None:
    module = network()
    module[0].weight.requires_grad_(False)
    private = training(module, ledger=tmp_path / "ledger", **GAUSSIAN)
    for batch in private.batches(steps=3):
        private.step(batch)
    private.close()
    module[0].weight.requires_grad_(True)
    again = training(module, ledger=tmp_path / "ledger", **GAUSSIAN)
    step(again)
    assert again.spent.steps == 4
    with pytest.raises(ConfigError, match="E158"):
        step(private)


def test_frozen_parameters_stay_even_with_an_old_gradient_and_weight_decay() -> None:
    module, data = network(), samples()
    module[0].weight.grad = torch.ones_like(module[0].weight)
    module[0].weight.requires_grad_(False)
    frozen = module[0].weight.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    private = training(module, optimizer=optimizer, clip=dp.Flat(clip_norm=0.4), sampling=dp.Everything())
    before = flat(module)
    wanted = cut(gradients(module, data, range(N)), 0.4).sum(dim=0) / 16 + 0.1 * before
    step(private)
    assert torch.equal(module[0].weight, frozen)
    assert torch.allclose(before - flat(module), 0.5 * wanted, rtol=1e-9, atol=1e-12)
    assert "0.weight" not in {row.name for row in private.table}


def test_processes_that_come_together_later_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    private = training(**GAUSSIAN)
    batch = next(private.batches(steps=1))
    monkeypatch.setattr(ranks, "world", lambda: 2)
    with pytest.raises(ConfigError, match=r"E158.*2 processes"):
        private.step(batch)
    assert private.spent.steps == 0


# ---- who steps the optimizer ------------------------------------------------------------------------------------


def scaled(private: Private, data: tuple[Tensor, Tensor]) -> None:
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(F.cross_entropy(private.module(data[0]), data[1])).backward()
    scaler.step(private.optimizer)


def plain(private: Private, data: tuple[Tensor, Tensor]) -> None:
    F.cross_entropy(private.module(data[0]), data[1]).backward()
    private.optimizer.step()


@pytest.mark.parametrize("outside", [plain, scaled])
def test_the_optimizer_steps_in_private_only(outside: Callable[..., None]) -> None:
    module, data = network(dtype=torch.float32), samples(dtype=torch.float32)
    private = training(module, data, **GAUSSIAN)
    step(private)
    before = flat(module)
    with pytest.raises(ConfigError, match=r"E158.*from outside"):
        outside(private, data)
    assert torch.equal(flat(module), before)
    step(private)
    private.close()
    outside(private, data)
    assert not torch.equal(flat(module), before)


def test_a_step_that_failed_leaves_the_optimizer_guarded() -> None:
    private = training(**GAUSSIAN)
    batch = next(private.batches(steps=1))
    batch._make = lambda _: iter([None])
    with pytest.raises(AttributeError):
        private.step(batch)
    with pytest.raises(ConfigError, match="E158"):
        private.optimizer.step()


def test_a_second_training_takes_the_optimizer_over() -> None:
    module = network()
    optimizer = sgd(module)
    first = training(module, optimizer=optimizer, **GAUSSIAN)
    second = training(module, optimizer=optimizer, **GAUSSIAN)
    step(second)
    with pytest.raises(ConfigError, match=r"E158.*made anew"):
        step(first)
    with pytest.raises(ConfigError, match="E158"):
        optimizer.step()


def test_what_a_module_spent_in_memory_is_not_forgotten() -> None:
    module = network()
    first = training(module, **GAUSSIAN)
    step(first)
    with pytest.raises(ConfigError, match=r"E158.*1 steps charged in memory"):
        training(module, **GAUSSIAN)
    with pytest.raises(ConfigError, match=r"E158.*1 steps charged in memory"):
        training(nn.Sequential(module), **GAUSSIAN)
    first.close()
    assert training(module, **GAUSSIAN).spent.steps == 0
    assert first.spent.steps == 1


def test_schedulers_and_hooks_of_the_caller_are_fine() -> None:
    private = training(**GAUSSIAN)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(private.optimizer, 5)
    stepped: list[int] = []
    private.optimizer.register_step_post_hook(lambda *_: stepped.append(1))
    for batch in private.batches(steps=3):
        private.step(batch)
        schedule.step()
    assert len(stepped) == 3


# ---- what looks across the batch --------------------------------------------------------------------------------


def normed(**options: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(FEATURES, 8), nn.BatchNorm1d(8, **options), nn.Tanh(), nn.Linear(8, CLASSES)
    ).double()


def frozen_norm() -> nn.Sequential:
    module = normed()
    module[1].requires_grad_(False)
    return module


@pytest.mark.parametrize(
    "make", [normed, lambda: normed(affine=False), lambda: normed(track_running_stats=False), frozen_norm]
)
def test_batch_norms_in_training_are_refused_by_name(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ConfigError, match=r"E151.*BatchNorm1d.*fix_modules"):
        training(make())


def test_a_batch_norm_that_only_reads_is_fine_until_it_is_set_to_train() -> None:
    module = frozen_norm().eval()
    private = training(module, **GAUSSIAN)
    step(private)
    statistics = {name: each.clone() for name, each in module.named_buffers()}
    batch = next(private.batches(steps=1))
    module.train()
    with pytest.raises(ConfigError, match=r"E151.*BatchNorm1d"):
        private.step(batch)
    assert all(torch.equal(each, statistics[name]) for name, each in module.named_buffers())
    assert private.spent.steps == 1
    module.eval()
    private.step(batch)


def test_modes_are_proved_when_they_are_met() -> None:
    module, data = network(), samples()
    module.insert(1, nn.Dropout(0.9))
    private = training(module, clip=dp.Flat(clip_norm=0.5), sampling=dp.Everything())
    step(private)
    module.eval()
    wanted = cut(gradients(module, data, range(N)), 0.5).sum(dim=0)
    assert torch.allclose(moved_by(private, lambda: step(private)), wanted, rtol=1e-9, atol=1e-12)
    module.train()
    assert not torch.allclose(moved_by(private, lambda: step(private)), wanted, rtol=1e-3)
    assert len(private._engines) == 2


class Centring(nn.Module):
    """An activation without parameters that looks across the batch."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs - inputs.mean(dim=0)


def test_a_part_that_was_put_in_later_is_proved() -> None:
    module = network()
    private = training(module, **GAUSSIAN)
    step(private)
    module[1] = Centring()
    with pytest.raises(ConfigError, match="E151"):
        step(private)
    assert private.spent.steps == 1
    module[1] = nn.ReLU()
    step(private)


class Mixing(nn.Module):
    """Subtracts the batch's mean, with chance in it or without."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.inner, self.chance = network(), chance

    def forward(self, inputs: Tensor) -> Tensor:
        out = self.inner(inputs)
        return out - 0.1 * out.mean(dim=0) + self.chance * torch.rand_like(out)


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_samples_that_move_each_others_losses_are_refused_with_chance_too(chance: float) -> None:
    with pytest.raises(ConfigError, match=r"E151.*samples beside it"):
        training(Mixing(chance))


def test_data_that_is_sorted_hides_no_mixing() -> None:
    inputs, labels = samples()
    inputs[: N // 2] = inputs[0]  # the first samples are all alike, and so are their losses
    with pytest.raises(ConfigError, match="E151"):
        training(Mixing(0.0), (inputs, labels))


class Counting(nn.Module):
    """Keeps something in a buffer: of the samples, or of calls."""

    def __init__(self, of_samples: bool) -> None:
        super().__init__()
        self.inner, self.of_samples = network(), of_samples
        self.register_buffer("kept", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.kept += inputs.detach().mean() if self.of_samples else 1.0
        return self.inner(inputs)


def test_buffers_filled_from_samples_are_refused_and_left_as_they_were() -> None:
    module = Counting(of_samples=True)
    with pytest.raises(ConfigError, match=r"E151.*kept"):
        training(module)
    assert float(module.kept) == 0
    counting = Counting(of_samples=False)
    private = training(counting, **GAUSSIAN)
    assert float(counting.kept) == 0
    step(private)
    assert float(counting.kept) == 1


def test_spectral_norm_is_no_statistic_of_samples() -> None:
    module = network()
    nn.utils.parametrizations.spectral_norm(module[0])
    private = training(module, clip=ENDLESS, noise=NOISELESS)
    step(private)
    assert private.spent.steps == 1
