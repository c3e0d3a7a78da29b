"""Defects that were found in other libraries, each as a test that ours passes; named by library and what went wrong.

Where it matters, the test also shows that the defect, rebuilt here, would be seen.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
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
    sgd,
    together,
    training,
)
from vambrace.core.tree import decode
from vambrace.errors import ConfigError
from vambrace.privacy import dp
from vambrace.privacy.dp.sampling import steps_per_epoch

MNIST = {"sample_rate": 256 / 60_000, "noise_multiplier": 1.1, "steps": 14_040, "delta": 1e-5}


def one_step(private: Any) -> Tensor:
    return moved_by(private, lambda: private.step(next(private.batches(steps=1))))


# ---- Opacus -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count_noise", [10.0, 1.0, 0.55])
def test_opacus_adaptive_clipping_reports_less_than_flat(count_noise: float) -> None:
    """There, the gradient's noise is raised and charged as raised, the count not at all: 0.24 for a true 1.34."""
    spent: dict[str, Any] = {}
    for name, clip in {"flat": dp.Flat(), "adaptive": dp.AdaptiveQuantile(count_noise=count_noise)}.items():
        private = training(
            data=samples(1000), clip=clip, noise=dp.Gaussian(noise_multiplier=1.0), expected_batch_size=10, delta=1e-4
        )
        private.step(next(private.batches(steps=1)))
        ((charge, _),) = private.spent.runs
        spent[name] = dp.epsilon(dp.Spent([(charge, 200)]), delta=1e-5, accountant="rdp").epsilon
        assert charge.noise_multiplier == 1.0
    assert spent["adaptive"] > spent["flat"] > 1.3
    both = (1 + (2 * count_noise) ** -2) ** -0.5
    theirs = dp.epsilon(
        noise_multiplier=(1 - (2 * count_noise) ** -2) ** -0.5,
        sample_rate=0.01,
        steps=200,
        delta=1e-5,
        accountant="rdp",
    )
    ours = dp.epsilon(noise_multiplier=both, sample_rate=0.01, steps=200, delta=1e-5, accountant="rdp")
    assert spent["adaptive"] == pytest.approx(ours.epsilon)
    assert theirs.epsilon < spent["flat"]


def test_opacus_count_noise_from_the_global_generator() -> None:
    bounds: list[float] = []
    for _ in range(2):
        torch.manual_seed(0)
        private = training(clip=dp.AdaptiveQuantile(count_noise=3.0), noise=dp.Gaussian(noise_multiplier=1.0))
        private.step(next(private.batches(steps=1)))
        bounds.append(private.clip_norm)
    assert bounds[0] != bounds[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
def test_opacus_empty_local_batches_are_skipped_and_ranks_wait_for_ever(tmp_path: Path) -> None:
    def work(rank: int) -> Any:
        private = training(expected_batch_size=1, clip=dp.Flat(), noise=dp.Gaussian(noise_multiplier=1.0))
        sizes: list[int] = []
        for batch in private.batches(steps=12):
            sizes.append(len(batch))
            private.step(batch)
        return sizes, flat(private.module), private.spent.steps

    first, second = together(work, tmp_path)
    assert 0 in second[0]
    assert torch.equal(first[1], second[1])
    assert first[2] == second[2] == 12


def test_opacus_partitions_are_shuffled_with_seed_zero() -> None:
    orders: list[list[int]] = []
    for _ in range(2):
        torch.manual_seed(0)
        private = training(sampling=dp.Shuffled(), expected_batch_size=N)
        batch = next(private.batches(steps=1))
        orders.append(batch.indices.tolist())
    assert orders[0] != orders[1]


def test_opacus_float_truncation_loses_a_step_an_epoch() -> None:
    """int(1 / (1 / n)) is n - 1 for 93, 99, 105 and 1,361 others below 20,000."""
    assert [int(1 / (1 / n)) for n in (93, 99, 105)] == [92, 98, 104]
    for n in range(1, 20_000):
        assert steps_per_epoch(n, 1) == n
    private = training(data=samples(93), expected_batch_size=1)
    assert private.steps_per_epoch == 93
    assert sum(1 for batch in private.batches(epochs=1) if private.step(batch) is None) == 93 == private.spent.steps


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
def test_opacus_one_bad_example_poisons_the_weights(value: float) -> None:
    inputs, labels = samples()
    inputs[7] = value
    private = training(data=(inputs, labels), clip=dp.Flat(clip_norm=0.3), sampling=dp.Everything())
    moved = one_step(private)
    assert bool(flat(private.module).isfinite().all())
    rest = [row for row in range(N) if row != 7]
    others = cut(gradients(network(), (inputs, labels), rest), 0.3).sum(dim=0)
    assert float((moved - others).norm()) <= 0.3 * (1 + 1e-9)


class Positions(nn.Module):
    """Tokens and positions; the positions have a batch dimension of one, as in many language models."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places, self.head = nn.Embedding(11, 6), nn.Embedding(4, 6), nn.Linear(6, CLASSES)
        self.register_buffer("ids", torch.arange(4).unsqueeze(0))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head((self.tokens(inputs) + self.places(self.ids)).tanh().mean(dim=1))


@pytest.mark.parametrize("size", [1, 4, N])
def test_opacus_broadcast_positions_mix_or_crash(size: int) -> None:
    draw = torch.Generator().manual_seed(0)
    data = torch.randint(11, (N, 4), generator=draw), torch.randint(CLASSES, (N,), generator=draw)
    module = Positions().double()
    private = training(module, data, clip=dp.Flat(clip_norm=0.2), physical_batch_size=size, expected_batch_size=N // 2)
    for batch in private.batches(steps=2):
        wanted = cut(gradients(module, data, batch.indices.tolist()), 0.2).sum(dim=0)
        moved = moved_by(private, lambda: private.step(batch))  # noqa: B023
        assert torch.allclose(moved, wanted, rtol=1e-8, atol=1e-10)


def test_opacus_virtual_batches_alias_the_gradient_of_the_step_before() -> None:
    data = samples()
    private = training(clip=dp.Flat(clip_norm=0.3), physical_batch_size=3, expected_batch_size=32)
    for batch in private.batches(steps=4):
        wanted = cut(gradients(private.module, data, batch.indices.tolist()), 0.3).sum(dim=0)
        assert torch.allclose(moved_by(private, lambda: private.step(batch)), wanted, rtol=1e-8, atol=1e-10)  # noqa: B023


@pytest.mark.parametrize("clip_norm", [1e-3, 0.1, 10.0])
def test_opacus_ghost_ignored_the_clip_norm_and_the_bias(clip_norm: float) -> None:
    """A single sample's sum is exactly as long as its whole gradient, biases included, cut to the bound."""
    for row in range(0, N, 9):
        data = tuple(each[row : row + 1] for each in samples())
        private = training(clip=dp.Flat(clip_norm=clip_norm))
        own = float(gradients(network(), data, [0]).norm())
        moved = float(moved_by(private, lambda: private.step_unsampled(*data)).norm())  # noqa: B023
        assert moved == pytest.approx(min(own, clip_norm), rel=1e-9)


def test_opacus_renames_parameters_and_hides_the_type() -> None:
    module = network()
    private = training(module)
    one_step(private)
    assert [*private.module.state_dict()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert type(private.module) is nn.Sequential


class Partly(nn.Module):
    """A bare parameter, an unused one, and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()[:2].requires_grad_(False)
        self.head = nn.Parameter(torch.ones(5, CLASSES, dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs) @ self.head


def test_opacus_per_sample_gradient_is_not_initialised() -> None:
    module, data = Partly(), samples()
    private = training(module, clip=dp.Flat(clip_norm=0.3), sampling=dp.Everything())
    own = torch.stack(
        [
            torch.autograd.grad(F.cross_entropy(module(data[0][row : row + 1]), data[1][row : row + 1]), module.head)[0]
            for row in range(N)
        ]
    ).flatten(1)
    moved = one_step(private)
    assert torch.allclose(moved[: own.shape[1]], cut(own, 0.3).sum(dim=0), rtol=1e-9)
    assert not bool(moved[own.shape[1] :].any())
    assert {row.name: row.method for row in private.table}["unused"] == "unused"


# ---- fastDP -----------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """An embedding that is the output layer too, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.twice = nn.Embedding(CLASSES, 6), nn.Linear(6, 6)
        self.out = nn.Linear(6, CLASSES, bias=False)
        self.out.weight = self.tokens.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.twice(self.twice(self.tokens(inputs).sum(dim=1)).tanh()))


def test_fastdp_tied_weights_exceed_the_bound() -> None:
    """There by up to 1.59 times: the last use's norm is taken, the sum of both uses is added."""
    draw = torch.Generator().manual_seed(0)
    data = torch.randint(CLASSES, (N, 4), generator=draw), torch.randint(CLASSES, (N,), generator=draw)
    for seed in range(3):
        torch.manual_seed(seed)
        module = Tied().double()
        private = training(module, data, clip=dp.Flat(clip_norm=0.05))
        for row in range(0, N, 7):
            one = tuple(each[row : row + 1] for each in data)
            own = gradients(module, data, [row])
            moved = moved_by(private, lambda: private.step_unsampled(*one))  # noqa: B023
            assert float(moved.norm()) <= 0.05 * (1 + 1e-9)
            assert torch.allclose(moved, cut(own, 0.05)[0], rtol=1e-8, atol=1e-11)


def test_fastdp_accounts_a_loader_of_the_users_as_poisson() -> None:
    private = training()
    for wrong in (samples(), [samples()], torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*samples()))):
        with pytest.raises(ConfigError, match="E154"):
            private.step(wrong)


def test_fastdp_the_clip_norm_has_no_effect_and_nobody_says_so() -> None:
    for clip in (dp.Automatic(clip_norm=0.7), dp.Flat(clip_norm=0.7)):
        assert f"{clip}, now to 0.7" in str(training(clip=clip, noise=dp.Gaussian(noise_multiplier=1.0)))


# ---- MindArmour -------------------------------------------------------------------------------------------------


def test_mindarmour_noise_keeps_the_first_bound_when_the_clip_norm_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    own = dp.Gaussian._add
    monkeypatch.setattr(
        dp.Gaussian,
        "_add",
        lambda self, total, multiplier, sensitivity, secret: (
            given.append(sensitivity),
            own(self, total, multiplier, sensitivity, secret),
        ),
    )
    clip = dp.AdaptiveQuantile(clip_norm=0.1, count_noise=1.0, learning_rate=1.0)
    private = training(clip=clip, noise=dp.Gaussian(noise_multiplier=1.0), accountant="rdp")
    bounds: list[float] = []
    for batch in private.batches(steps=5):
        bounds.append(private.clip_norm)
        private.step(batch)
    assert given == bounds
    assert len(set(bounds)) == 5


def test_mindarmour_the_count_is_not_charged() -> None:
    private = training(
        clip=dp.AdaptiveQuantile(count_noise=0.5), noise=dp.Gaussian(noise_multiplier=50.0), accountant="rdp"
    )
    one_step(private)
    alone = dp.epsilon(noise_multiplier=50.0, sample_rate=16 / N, steps=1, delta=1e-3, accountant="rdp")
    assert private.epsilon().epsilon > 5 * alone.epsilon


@pytest.mark.parametrize("micro", [1, 2, 32])
def test_mindarmour_clips_the_mean_of_micro_batches(micro: int) -> None:
    """There one record moves the sum by up to twice the bound; here pieces change nothing."""
    inputs, labels = samples()
    flipped = inputs.clone()
    flipped[-1] = -flipped[-1]  # the longest gradient, turned around: a replaced record moves twice the bound at most
    sums = [
        one_step(
            training(
                data=(each, labels), clip=dp.Flat(clip_norm=0.2), sampling=dp.Everything(), physical_batch_size=micro
            )
        )
        for each in (inputs, flipped)
    ]
    own = [cut(gradients(network(), (each, labels), [N - 1]), 0.2)[0] for each in (inputs, flipped)]
    assert torch.allclose(sums[0] - sums[1], own[0] - own[1], rtol=1e-6, atol=1e-10)


def test_mindarmour_the_monitor_has_its_own_idea_of_the_noise() -> None:
    """Here the budget is found from the very charges of the training: decay, sampler and count included."""
    noise = dp.AdaptiveGaussian(noise_multiplier=6.0, decay="time", rate=0.05)
    clip = dp.AdaptiveQuantile(count_noise=4.0)
    private = training(clip=clip, noise=noise, max_epsilon=9.0)
    for batch in private.batches(steps=10_000):
        private.step(batch)
    charges = [private.settings.charge(step) for step in range(private.spent.steps + 1)]
    assert len({charge.noise_multiplier for charge in charges}) > 2
    assert dp.epsilon(dp.Spent(charges[:-1]), delta=1e-3, accountant="zcdp").epsilon <= 9.0
    assert dp.epsilon(dp.Spent(charges), delta=1e-3, accountant="zcdp").epsilon > 9.0
    assert private.spent == dp.Spent(charges[:-1])


@pytest.mark.parametrize("max_epsilon", [0.2, 1.0, 3.0])
def test_mindarmour_suggests_the_first_epoch_that_exceeds(max_epsilon: float) -> None:
    options: dict[str, Any] = {"noise_multiplier": 1.1, "batch_size": 256, "dataset_size": 60_000}
    found = dp.max_epochs(max_epsilon=max_epsilon, delta=1e-5, accountant="rdp", **options)
    cost = [
        dp.epsilon(
            noise_multiplier=1.1, sample_rate=256 / 60_000, steps=235 * epochs, delta=1e-5, accountant="rdp"
        ).epsilon
        for epochs in (found, found + 1)
    ]
    assert cost[0] <= max_epsilon < cost[1]


def test_mindarmour_charges_a_step_more_in_every_window() -> None:
    private = training(clip=dp.Flat(), noise=dp.Gaussian(noise_multiplier=1.0))
    for count in (3, 4, 1):
        for batch in private.batches(steps=count):
            private.step(batch)
    assert private.spent.steps == 8


def test_mindarmour_zcdp_forgets_sampling_and_does_not_say_so() -> None:
    found = dp.epsilon(accountant="zcdp", **MNIST)
    assert found.epsilon > 100
    assert any("sampling" in note for note in found.notes)
    assert dp.make_private.__kwdefaults__["accountant"] == "pld"


def test_mindarmour_few_orders_and_the_old_conversion() -> None:
    assert dp.epsilon(accountant="rdp", **MNIST).epsilon == pytest.approx(2.594363, rel=1e-5)
    assert dp.epsilon(accountant="pld", **MNIST).epsilon == pytest.approx(2.379644, rel=1e-3)


def test_mindarmour_clips_loss_scaled_gradients() -> None:
    module, data = network(dtype=torch.float32), samples(dtype=torch.float32)
    private = training(module, data, clip=dp.Flat(clip_norm=0.3), sampling=dp.Everything(), autocast=torch.bfloat16)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(F.cross_entropy(module(data[0]), data[1])).backward()
    with pytest.raises(ConfigError, match="E158"):
        scaler.step(private.optimizer)
    moved = one_step(private)
    wanted = cut(gradients(network(dtype=torch.float32), data, range(N)), 0.3).sum(dim=0)
    assert float((moved - wanted).norm()) < 0.05 * float(wanted.norm())
    with pytest.raises(ConfigError, match=r"E150.*bfloat16"):
        training(autocast=torch.float16)


def test_mindarmour_a_mistyped_option_is_ignored() -> None:
    with pytest.raises(ConfigError, match=r"E150.*epcohs"):
        training(epcohs=3)


# ---- several ----------------------------------------------------------------------------------------------------


def test_shuffled_batches_accounted_as_poisson() -> None:
    options: dict[str, Any] = {"clip": dp.Flat(), "noise": dp.Gaussian(noise_multiplier=1.0)}
    cost: dict[str, float] = {}
    for name, sampling in {"poisson": dp.Poisson(), "shuffled": dp.Shuffled()}.items():
        private = training(sampling=sampling, accountant="rdp", **options)
        for batch in private.batches(epochs=2):
            private.step(batch)
        cost[name] = private.epsilon().epsilon
    unsampled = dp.epsilon(noise_multiplier=1.0, sample_rate=1.0, steps=2, delta=1e-3, accountant="rdp").epsilon
    assert cost["poisson"] < cost["shuffled"] == pytest.approx(unsampled)


def test_the_last_short_batch_is_divided_by_its_own_size() -> None:
    private = training(sampling=dp.Shuffled(), expected_batch_size=60, clip=dp.Flat(clip_norm=0.3))
    for batch in private.batches(epochs=1):
        wanted = cut(gradients(private.module, samples(), batch.indices.tolist()), 0.3).sum(dim=0)
        assert torch.allclose(moved_by(private, lambda: private.step(batch)), wanted, rtol=1e-8)  # noqa: B023
        sizes = len(batch)
    assert sizes == 4


def test_contrastive_losses_are_taken_for_losses_of_one_sample() -> None:
    def contrastive(outputs: Tensor, _: Tensor) -> Tensor:
        return F.cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)), reduction="none")

    with pytest.raises(ConfigError, match="E151"):
        training(loss=contrastive)


def test_a_regulariser_in_the_loss_is_clipped_with_it() -> None:
    def loss(module: nn.Module, batch: Any) -> Tensor:
        own = F.cross_entropy(module(batch[0]), batch[1], reduction="none")
        return own + 10 * sum(each.square().sum() for each in module.parameters())

    inputs, labels = samples()
    sums = [
        one_step(
            training(
                data=(inputs[:kept], labels[:kept]),
                per_sample_loss=loss,
                clip=dp.Flat(clip_norm=0.3),
                sampling=dp.Everything(),
            )
        )
        for kept in (N, N - 1)
    ]
    assert float((sums[0] - sums[1]).norm()) <= 0.3 * (1 + 1e-9)


def test_dropout_is_the_same_for_all_samples_under_vmap() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(FEATURES, CLASSES, dtype=torch.float64))

        def forward(self, inputs: Tensor) -> Tensor:
            return F.dropout(torch.einsum("bi,ij,ik->bj", inputs, self.weight.cos(), self.weight.sin()), 0.5)

    same = (torch.ones(N, FEATURES, dtype=torch.float64), torch.zeros(N, dtype=torch.int64))
    private = training(Odd(), same, clip=dp.Flat(clip_norm=1e-6), sampling=dp.Everything(), diagnostics=True)
    assert private._engine().fallback
    torch.manual_seed(0)
    one_step(private)  # equal samples: each is cut but those that drop all three outputs
    assert 0.5 < private.diagnostics[0].clipped < 1


def test_a_batch_is_accumulated_into_the_next() -> None:
    """Accumulating over Poisson batches changes what a step costs; here a step takes one batch, whole."""
    private = training()
    batch = next(private.batches(steps=1))
    private.step(batch)
    with pytest.raises(ConfigError, match="E154"):
        private.step(batch)
    assert "accumulate" not in dp.make_private.__kwdefaults__


def test_the_noise_can_be_drawn_again_from_a_seed_or_a_checkpoint(tmp_path: Path) -> None:
    runs: list[Tensor] = []
    with training(clip=dp.Flat(), noise=dp.Gaussian(noise_multiplier=1.0), ledger=tmp_path / "ledger") as private:
        one_step(private)
        private.save(tmp_path / "last")
    held = decode((tmp_path / "last").read_bytes())
    assert {*held} == {"format", "ledger_head", "ledger_position", "module_state", "optimizer_state", "extra"}
    assert {*held["extra"]} == {"bounds"}
    for _ in range(2):
        torch.manual_seed(0)
        with training(
            clip=dp.Flat(), noise=dp.Gaussian(noise_multiplier=1.0), ledger=tmp_path / "ledger", sampling=dp.Poisson()
        ) as again:
            again.load(tmp_path / "last")
            one_step(again)
            runs.append(flat(again.module))
    assert not torch.equal(*runs)


def test_a_delta_that_promises_nothing_passes() -> None:
    with pytest.raises(ConfigError, match=r"E150.*1 / 64"):
        training(delta=1 / N)
    module = network()
    assert training(module, optimizer=sgd(module), delta=0.99 / N).settings.delta < 1 / N
