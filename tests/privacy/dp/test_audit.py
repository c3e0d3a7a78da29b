"""The audit of the trainer: a right one is not accused, faulty ones are; what it writes is what it reads."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vambrace.core import canonical
from vambrace.errors import ConfigError
from vambrace.privacy import dp
from vambrace.privacy.dp.audit import Audit
from vambrace.privacy.dp.audited import Audited, parse_audit
from vambrace.privacy.dp.charges import Charge, Spent
from vambrace.privacy.dp.clipping import Clipping
from vambrace.privacy.dp.guessing import Bound
from vambrace.privacy.dp.noise import Gaussian, Laplace

RATE, STEPS, DELTA = 0.25, 16, 1e-5
NOISE = {1.0: 4.083, 2.0: 2.3633}  # of `dp.calibrate(epsilon=claim, delta=1e-5, steps=16, sample_rate=0.25)`


def audited(claim: float = 1.0, *, look: Audit | None = None, **change: Any) -> Audited:
    world: dict[str, Any] = {
        "clip": dp.Flat(clip_norm=1.0),
        "noise": dp.Gaussian(noise_multiplier=NOISE[claim]),
        "sample_rate": RATE,
        "steps": STEPS,
        "delta": DELTA,
    }
    return (look or Audit())(**{**world, **change})


def too_little_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    true = Gaussian._add

    def add(self: Gaussian, flat: torch.Tensor, multiplier: float, sensitivity: float, secret: Any) -> None:
        true(self, flat, multiplier / 4, sensitivity, secret)

    monkeypatch.setattr(Gaussian, "_add", add)


def no_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clipping, "factors", lambda self, norms, bounds: torch.ones_like(norms))


FAULTS = {"noise / 4": too_little_noise, "no clipping": no_clipping}


@pytest.mark.parametrize("claim", [1.0, 2.0])
def test_a_right_trainer_is_seen_and_not_accused(claim: float) -> None:
    """The chance that chance alone turns this red is below 1e-6: see `dp.canaries_needed`."""
    found = audited(claim)
    assert found.claim.epsilon == pytest.approx(claim, rel=1e-3)
    assert 0 < found.bound.epsilon <= found.claim.epsilon
    assert found.holds
    assert found.spent == Spent(
        [(Charge(mechanism="gaussian", noise_multiplier=NOISE[claim], sampling="poisson", sample_rate=RATE), STEPS)]
    )
    assert "nothing against the claim" in str(found)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("claim", [1.0, 2.0])
def test_a_faulty_trainer_is_accused(claim: float, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    found = audited(claim)
    assert found.claim.epsilon == pytest.approx(claim, rel=1e-3)
    assert found.bound.epsilon > found.claim.epsilon
    assert not found.holds
    assert "contradicts the claim" in str(found)


def test_the_curve_proves_more_where_it_is_the_claim() -> None:
    noise = dp.Gaussian(
        noise_multiplier=dp.calibrate(epsilon=2.0, delta=DELTA, steps=4, sampling="full").noise_multiplier
    )
    world = {"noise": noise, "sampling": dp.Everything(), "sample_rate": 1.0, "steps": 4}
    found = audited(look=Audit(method="f_dp"), **world)
    assert found.holds
    plain = Bound.of(
        canaries=found.bound.canaries,
        guesses=found.bound.guesses,
        correct=found.bound.correct,
        delta=DELTA,
        confidence=0.95,
        method="one_run",
    )
    assert 0 < plain.epsilon < found.bound.epsilon


def test_without_noise_everything_is_found_and_nothing_is_claimed() -> None:
    found = audited(noise=dp.Gaussian(noise_multiplier=0.0), look=Audit(canaries=1000), sampling=dp.Everything())
    assert found.claim.epsilon == math.inf
    assert found.bound.correct == found.bound.guesses == 200
    assert found.bound.epsilon > 3.5


@pytest.mark.parametrize(
    "change",
    [
        {"clip": dp.AdaptiveQuantile(clip_norm=1.0, count_noise=50.0)},
        {"clip": dp.Automatic(clip_norm=2.0)},
        {"clip": dp.PerLayer()},
        {"clip": dp.Flat(clip_norm=1.0, norm="l1"), "noise": Laplace(noise_multiplier=20.0)},
        {"noise": dp.DiscreteGaussian(noise_multiplier=4.083)},
        {"sampling": dp.FixedSize()},
        {"sampling": dp.Shuffled()},
        {"sampling": dp.Everything(), "noise": dp.Gaussian(noise_multiplier=16.0)},
    ],
    ids=lambda change: "-".join(type(each).__name__ for each in change.values()),
)
def test_every_way_to_train_can_be_audited(change: dict[str, Any]) -> None:
    assert audited(look=Audit(canaries=1000), **change).holds


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (lambda: Audit(canaries=0), "canaries 0"),
        (lambda: Audit(guesses=5000), "guesses 5000"),
        (lambda: Audit(guesses=0), "guesses 0"),
        (lambda: Audit(confidence=1.0), "confidence 1.0"),
        (lambda: Audit(canary_norm=1.0), "canary_norm 1.0"),
        (lambda: audited(steps=0), "steps 0"),
        (lambda: audited(sample_rate=0.0), "sample_rate 0.0"),
        (lambda: audited(sample_rate=1.5), "sample_rate 1.5"),
        (lambda: audited(delta=0.01), "delta 0.01"),
        (lambda: audited(look=Audit(method="f_dp")), "method 'f_dp'"),
    ],
)
def test_an_audit_that_would_prove_nothing_is_refused(make: Callable[[], object], seen: str) -> None:
    with pytest.raises(ConfigError, match="E159") as error:
        make()
    assert seen in str(error.value)


@pytest.fixture
def kept() -> Audited:
    bound = Bound.of(canaries=1000, guesses=200, correct=150, delta=1e-5, confidence=0.95, method="one_run")
    step = Charge(mechanism="gaussian", noise_multiplier=4.0, sampling="poisson", sample_rate=0.25)
    return Audited(bound=bound, spent=Spent([(step, 16)]))


def test_it_is_kept_in_a_file(kept: Audited, tmp_path: Path) -> None:
    kept.write(tmp_path / "audit.json")
    data = (tmp_path / "audit.json").read_bytes()
    assert parse_audit(data) == kept
    assert json.loads(data)["claimed"] == pytest.approx(kept.claim.epsilon)
    silent = Audited(
        bound=kept.bound,
        spent=Spent([Charge(mechanism="none", noise_multiplier=0.0, sampling="full", sample_rate=1.0)]),
    )
    silent.write(tmp_path / "audit.json")
    assert parse_audit((tmp_path / "audit.json").read_bytes()).claim.epsilon == math.inf


def resealed(kept: Audited, path: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file with a change, and a checksum to match."""
    kept.write(path)
    body = json.loads(path.read_bytes())
    del body["sha256"]
    change(body)
    return canonical.dumps({**body, "sha256": canonical.digest(body)})


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda body: body["bound"].update(epsilon=0.1), "its counts prove"),
        (lambda body: body["bound"].update(correct=120), "its counts prove"),
        (lambda body: body["bound"].update(correct=999), "correct 999"),
        (lambda body: body["bound"].update(correct=True), "correct"),
        (lambda body: body["bound"].update(confidence=2), "confidence"),
        (lambda body: body["bound"].pop("delta"), "delta"),
        (lambda body: body["bound"].update(method="belief"), "method"),
        (lambda body: body.update(bound=[]), "bound"),
        (lambda body: body.update(spent={}), "spent"),
        (lambda body: body["spent"][0].update(steps=-1), "steps -1"),
        (lambda body: body["spent"][0]["charge"].update(sample_rate=2.0), "sample_rate"),
        (lambda body: body["spent"][0]["charge"].update(seed=1), "seed"),
        (lambda body: body.update(note="x"), "note"),
        (lambda body: body.update(format="vambrace-dp-audit/2"), "version 'vambrace-dp-audit/2'"),
        (lambda body: body.pop("format"), "version None"),
    ],
)
def test_what_does_not_follow_is_refused(
    kept: Audited, tmp_path: Path, change: Callable[[dict[str, Any]], object], seen: str
) -> None:
    with pytest.raises(ConfigError, match="E159") as error:
        parse_audit(resealed(kept, tmp_path / "a", change))
    assert seen in str(error.value)


@pytest.mark.parametrize(
    "data", [b"", b"\x00\xff", b"[1]", b"null", b'{"format":', b"[" * 100_000, b'{"a":NaN}', b'{"a":1,"a":1}']
)
def test_what_is_no_audit_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match="E159"):
        parse_audit(data)


def test_no_byte_can_be_changed(kept: Audited, tmp_path: Path) -> None:
    kept.write(tmp_path / "a")
    data = (tmp_path / "a").read_bytes().rstrip(b"\n")
    for at in range(len(data)):
        with pytest.raises(ConfigError, match="E159"):
            parse_audit(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


@pytest.mark.slow
@pytest.mark.parametrize("claim", [1.0, 2.0])
def test_twenty_audits_of_a_right_trainer(claim: float) -> None:
    found = [audited(claim, look=Audit(canaries=_needed(claim))) for _ in range(20)]
    assert sum(each.holds for each in found) >= 19
    assert sum(each.bound.epsilon > 0 for each in found) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("claim", [1.0, 2.0])
def test_ten_audits_of_a_faulty_trainer(claim: float, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    assert sum(not audited(claim, look=Audit(canaries=_needed(claim))).holds for _ in range(10)) >= 9


@functools.cache
def _needed(claim: float) -> int:
    found = dp.canaries_needed(dp.AuditDesign(epsilon=claim, delta=DELTA, sample_rate=RATE, steps=STEPS))
    print(found)
    assert found.enough
    assert 1000 <= found.enough.canaries <= 10_000
    return found.enough.canaries
