"""`make_private` refuses what it cannot keep, in words that help, and leaves nothing behind when it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from privacy.dp.toy_training import ENDLESS, NOISELESS, N, network, samples, sgd, training
from vambrace.errors import ConfigError
from vambrace.privacy import dp
from vambrace.privacy.dp.history import parse
from vambrace.privacy.dp.making import _ANSWERS

GAUSSIAN = dp.Gaussian(noise_multiplier=1.0)
ONE = dp.Flat(clip_norm=1.0)

REFUSED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "delta of a coin": ("E150", "below 1 / 64", {"delta": 1 / 64}),
    "delta zero": ("E144", "delta", {"delta": 0.0}),
    "delta one": ("E144", "delta", {"delta": 1.0}),
    "no loss": ("E150", "exactly one", {"loss": None}),
    "two losses": ("E150", "exactly one", {"loss": "mse", "per_sample_loss": lambda module, batch: batch}),
    "unknown loss": ("E150", "cross_entropy", {"loss": "ce"}),
    "loss that reduces": ("E150", "reduction", {"loss": nn.CrossEntropyLoss()}),
    "loss that reduces in secret": ("E153", r"shape \(\)", {"loss": nn.functional.cross_entropy}),
    "noise without a bound": ("E150", "finite", {"clip": ENDLESS, "noise": GAUSSIAN}),
    "gaussian on l1": ("E150", '"l2"', {"clip": dp.Flat(norm="l1"), "noise": GAUSSIAN}),
    "laplace on l2": ("E150", '"l1"', {"clip": ONE, "noise": dp.Laplace(noise_multiplier=1.0)}),
    "batch of nobody": ("E147", "expected_batch_size", {"expected_batch_size": 0}),
    "batch of too many": ("E147", "expected_batch_size", {"expected_batch_size": N + 1}),
    "half a batch": ("E147", "expected_batch_size", {"expected_batch_size": 8.0}),
    "no block": ("E150", "block", {"block": 0}),
    "no rows": ("E150", "physical_batch_size", {"physical_batch_size": 0}),
    "float16": ("E150", "bfloat16", {"autocast": torch.float16}),
    "accountant of others": ("E144", '"pld"', {"accountant": "prv"}),
    "accountant that does not know": (
        "E144",
        "laplace",
        {"clip": dp.Flat(norm="l1"), "noise": dp.Laplace(noise_multiplier=1.0), "accountant": "gdp"},
    ),
    "budget of nothing": ("E144", "max_epsilon", {"clip": ONE, "noise": GAUSSIAN, "max_epsilon": 0.0}),
    "budget without noise": ("E150", "max_epsilon", {"max_epsilon": 1.0}),
    "budget in debug": ("E150", "max_epsilon", {"clip": ONE, "noise": GAUSSIAN, "max_epsilon": 9.0, "debug": True}),
    "budget by an approximation": (
        "E150",
        "upper bound",
        {"clip": ONE, "noise": GAUSSIAN, "max_epsilon": 9.0, "accountant": "gdp"},
    ),
    "loader": (
        "E155",
        "not a loader",
        {"data": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*samples()))},
    ),
    "samples that are no pairs": ("E150", "per_sample_loss", {"data": [{"x": 1.0}] * N}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    code, words, options = REFUSED[name]
    with pytest.raises(ConfigError, match=words) as caught:
        training(**options)
    assert caught.value.code == code


@pytest.mark.parametrize("word", [*_ANSWERS, "colour"])
def test_words_of_others_are_answered_with_ours(word: str) -> None:
    with pytest.raises(ConfigError, match=rf"E150.*{word}") as caught:
        training(**{word: 1.0})
    assert _ANSWERS.get(word, "leave it out") in str(caught.value)


@pytest.mark.parametrize("name", ["clip", "noise", "expected_batch_size", "delta"])
def test_what_must_be_given_is_asked_for_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"E150.*without {name}"):
        training(**{name: None})


def test_answers_name_options_that_exist() -> None:
    options = {"clip", "noise", "dataset", "delta", "loss", "sampling", "max_epsilon", "expected_batch_size"}
    for answer in _ANSWERS.values():
        assert answer.split("=")[0].split(":")[0].split(",")[0].split(" ")[0] in {*options, "physical_batch_size"}


def test_a_large_delta_is_allowed_where_it_is_asked_for() -> None:
    assert training(delta=0.1, allow_large_delta=True).settings.delta == 0.1


# ---- modules and optimizers -------------------------------------------------------------------------------------


def frozen() -> nn.Module:
    return network().requires_grad_(False)


def mixed() -> nn.Module:
    module = network()
    module[2].float()
    return module


def complex_numbers() -> nn.Module:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    return module


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (frozen, "requires a gradient"),
        (mixed, "of one"),
        (complex_numbers, "real floating type"),
        (lambda: nn.DataParallel(network()), "the module itself"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "lazy"),
    ],
)
def test_modules_that_cannot_train_are_refused(module: Any, words: str) -> None:
    made = module()
    with pytest.raises(ConfigError, match=rf"E150.*{words}"):
        dp.make_private(
            made,
            torch.optim.SGD(network().parameters(), lr=0.1),
            samples(),
            loss="cross_entropy",
            clip=ONE,
            noise=GAUSSIAN,
            expected_batch_size=16,
            delta=1e-3,
        )


def test_an_optimizer_holds_the_trainable_parameters_of_the_module_and_no_others() -> None:
    module, other = network(), network()
    with pytest.raises(ConfigError, match=r"E150.*2 other parameters"):
        training(module, optimizer=torch.optim.SGD([*module.parameters(), *other[0].parameters()], lr=0.1))
    with pytest.raises(ConfigError, match=r"E150.*without 0\.weight, 0\.bias"):
        training(module, optimizer=sgd(module[2]))
    module[0].requires_grad_(False)
    training(module, optimizer=sgd(module[2]))


def test_an_optimizer_that_calls_back_is_refused() -> None:
    module = network()
    with pytest.raises(ConfigError, match=r"E150.*LBFGS.*closure"):
        training(module, optimizer=torch.optim.LBFGS(module.parameters()))


def test_an_optimizer_for_sparse_gradients_is_refused() -> None:
    module = network()
    with pytest.raises(ConfigError, match=r"E150.*SparseAdam.*dense"):
        training(module, optimizer=torch.optim.SparseAdam(list(module.parameters())))


# ---- what is left behind ----------------------------------------------------------------------------------------


def test_what_is_refused_leaves_no_ledger_no_lock_and_no_hook(tmp_path: Path) -> None:
    path, module = tmp_path / "ledger", network()
    optimizer = sgd(module)
    for options in (
        {"delta": 0.5},
        {"loss": nn.functional.cross_entropy},
        {"clip": ONE, "noise": dp.Laplace(noise_multiplier=1.0)},
    ):
        with pytest.raises(ConfigError):
            training(module, optimizer=optimizer, ledger=path, **options)
        assert not path.exists()
    with pytest.raises(ConfigError, match="E156"):
        training(module, optimizer=optimizer, ledger=path, clip=ONE, noise=GAUSSIAN, max_epsilon=1e-3)
    optimizer.step()
    private = training(module, optimizer=optimizer, ledger=path)
    assert private.spent.steps == 0


def test_nothing_of_the_module_changes_when_it_is_made_private() -> None:
    module = nn.Sequential(network(), nn.Dropout(0.5))
    before = {name: each.clone() for name, each in module.state_dict().items()}
    state = torch.get_rng_state()
    training(module)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training
    assert all(torch.equal(each, before[name]) for name, each in module.state_dict().items())
    assert all(each.grad is None for each in module.parameters())


def test_a_ledger_of_other_terms_is_refused_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / "run" / "ledger"
    training(ledger=path).close()
    for other in ({"delta": 1e-4}, {"sampling": dp.Shuffled()}, {"data": samples(N + 1)}):
        with pytest.raises(ConfigError, match="E585"):
            training(ledger=path, **other)
    private = training(ledger=str(path))
    assert parse(path.read_bytes()).terms == private._account.ledger.history.terms


@pytest.mark.parametrize(
    ("sampling", "relation"),
    [
        (dp.Poisson(), "add_or_remove_one"),
        (dp.Everything(), "add_or_remove_one"),
        (dp.FixedSize(), "replace_one"),
        (dp.Shuffled(), "zero_out_one"),
    ],
)
def test_the_ledger_and_epsilon_speak_of_the_same_neighbours(sampling: Any, relation: str, tmp_path: Path) -> None:
    with training(clip=ONE, noise=GAUSSIAN, sampling=sampling, ledger=tmp_path / "ledger") as private:
        for batch in private.batches(steps=3):
            private.step(batch)
        assert private._account.ledger.history.terms.relation == relation == private.epsilon().relation
        private.step_unsampled(*samples())
        assert private.epsilon().epsilon > 1
        assert private.epsilon().relation == relation


def test_truncated_poisson_is_accounted_by_pld(tmp_path: Path) -> None:
    sampling = dp.TruncatedPoisson(max_batch_size=20)
    with pytest.raises(ConfigError, match=r"E144.*truncated"):
        training(clip=ONE, noise=GAUSSIAN, sampling=sampling, accountant="rdp")
    private = training(clip=ONE, noise=GAUSSIAN, sampling=sampling, accountant="pld", ledger=tmp_path / "ledger")
    for batch in private.batches(steps=2):
        assert len(batch) <= 20
        private.step(batch)
    assert 0 < private.epsilon().epsilon < 20


def test_defaults_are_the_ones_that_are_proved() -> None:
    private = training(clip=ONE, noise=GAUSSIAN)
    settings = private.settings
    assert settings.sampling == dp.Poisson()
    assert dp.make_private.__kwdefaults__["accountant"] == "pld"
    assert not settings.debug
    assert not settings.diagnostics
    assert private._secret.private
    assert NOISELESS.mechanism == "none"
    assert private.epsilon().epsilon == 0
