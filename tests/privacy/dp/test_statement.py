"""The statement says what was done, what holds and what it leaves out, and never rounds in the trainer's favour."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from scipy.stats import norm

from vambrace.errors import ConfigError
from vambrace.privacy.dp.accounting import epsilon
from vambrace.privacy.dp.charges import Charge, Spent
from vambrace.privacy.dp.statement import statement

JARGON = re.compile(r"(?i)R[eé]nyi|\bRDP\b|\bPLD\b|zCDP|\bGDP\b|accountant|neighbou?r|adjacen|amplif|subsampl|\bFFT\b")


def step(noise: float = 1.1, rate: float = 256 / 60000, **fields: Any) -> Charge:
    return Charge(
        **{"mechanism": "gaussian", "noise_multiplier": noise, "sampling": "poisson", "sample_rate": rate, **fields}
    )


def told(*runs: tuple[Charge, int], delta: float = 1e-5, **fields: Any) -> str:
    return statement(Spent(runs), delta=delta, **fields)


def test_what_everybody_must_know_is_there() -> None:
    text = told((step(), 14040), dataset_size=60000)
    assert text.startswith("Privacy statement: epsilon 2.39 at delta 1e-05\n")
    assert "14,040 steps: each sample was in with probability 0.427 %" in text
    for part in ("one training sample", "with and the training without", "upper bound", "several trainings"):
        assert part in text
    for part in ("validation", "People with several samples", "gaps"):
        assert part in text
    assert "debug" not in text
    assert "Looked at during training" not in text
    assert "Note:" not in text
    assert not JARGON.search(text)


@pytest.mark.parametrize("noise", [0.6, 1.1, 3.0])
@pytest.mark.parametrize("accountant", ["pld", "rdp", "zcdp"])
def test_epsilon_is_never_rounded_down(noise: float, accountant: Any) -> None:
    exact = epsilon(Spent([(step(noise), 200)]), delta=1e-5, accountant=accountant).epsilon
    shown = float(
        re.findall(r"epsilon ([\d,.]+) at", told((step(noise), 200), accountant=accountant))[0].replace(",", "")
    )
    assert exact <= shown <= 1.02 * exact


def test_the_attacker_of_the_statement_is_the_best_there_is() -> None:
    """For one Gaussian the best attack is known: what is told bounds it, and not by far."""
    text = told((step(1.0, 1.0, sampling="full"), 1), delta=1e-3)
    told_rate = float(re.findall(r"at most ([\d.]+) in 100", text)[0])
    best = 100 * norm.cdf(norm.ppf(0.01) + 1)
    assert best <= told_rate <= 4 * best


@pytest.mark.parametrize(
    ("charge", "words"),
    [
        (step(sampling="shuffle", sample_rate=0.1), "shuffled order, each once in a pass"),
        (step(sampling="full", sample_rate=1.0), "all samples"),
        (step(sampling="fixed_size", sample_rate=0.1, batch_size=100, dataset_size=1000), "100 of 1,000 samples"),
        (step(sampling="truncated_poisson", batch_size=300, dataset_size=60000), "at most 300 at a time"),
        (step(mechanism="laplace"), "laplace noise"),
        (step(mechanism="discrete_gaussian"), "discrete gaussian noise"),
        (step(count_noise_multiplier=20.0), "noisy count, which is part of the cost"),
    ],
    ids=lambda value: value.sampling + "-" + value.mechanism if isinstance(value, Charge) else "",
)
def test_samplers_and_noise_in_words(charge: Charge, words: str) -> None:
    text = told((charge, 10))
    assert words in text
    assert "epsilon" in text.splitlines()[0]


def test_neighbours_in_words() -> None:
    assert "differ in any one of them" in told(
        (step(sampling="fixed_size", sample_rate=0.1, batch_size=100, dataset_size=1000), 10)
    )
    assert "left out of its sums" in told((step(sampling="shuffle", sample_rate=0.1), 10))


@pytest.mark.parametrize("charge", [step(private=False), step(0.0, mechanism="none")], ids=["debug", "none"])
def test_a_training_that_is_not_private_claims_nothing(charge: Charge) -> None:
    text = told((step(), 10), (charge, 1))
    assert text.startswith("Privacy statement: no privacy is claimed\n")
    assert "Nothing: whoever sees the model" in text
    assert not re.search(r"epsilon \d", text)
    assert ("debug mode" in text) == (not charge.private)
    assert ("no noise was added" in text) == (charge.mechanism == "none")


def test_an_approximation_is_called_one() -> None:
    text = told((step(), 100), accountant="gdp")
    assert "epsilon about" in text.splitlines()[0]
    assert "It is no upper bound" in text
    assert "at most" not in text.split("What this does not cover")[0]


def test_zcdp_says_what_it_ignores() -> None:
    assert "no credit for choosing samples at random" in told((step(), 100), accountant="zcdp")


def test_what_was_looked_at_is_named() -> None:
    assert "without protection: training_loss, clipped_share." in told(
        (step(), 10), diagnostics=["training_loss", "clipped_share"]
    )


def test_weak_promises_are_called_weak() -> None:
    assert "promises little" in told((step(0.3), 14040))
    assert "promises little" not in told((step(), 14040))
    assert "Delta is not below 1/60,000" in told((step(), 10), delta=1 / 60000, dataset_size=60000)
    assert "Delta is not below" not in told((step(), 10), delta=1e-5, dataset_size=60000)


def test_nothing_trained() -> None:
    text = told()
    assert text.startswith("Privacy statement: epsilon 0 at")
    assert "No step was trained" in text


def test_a_fallback_is_noted() -> None:
    assert "rdp instead of pld" in told((step(), 10_000), delta=1e-13)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="dataset_size 0"):
        told((step(), 1), dataset_size=0)
    with pytest.raises(ConfigError, match="delta"):
        told((step(), 1), delta=math.nan)
