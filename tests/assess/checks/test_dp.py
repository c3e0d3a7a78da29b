"""The check of a privacy ledger: what it charges is accounted for again, and what promises nothing is no number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vambrace.assess.checks.clean import CleanCheck
from vambrace.assess.checks.dp import DpCheck
from vambrace.assess.documents import DOCUMENTS, documents_of, roles_of
from vambrace.core import canonical
from vambrace.core.access import Access
from vambrace.core.findings import Finding, Status
from vambrace.data.batches import Batch
from vambrace.errors import ConfigError
from vambrace.privacy.dp.accounting import epsilon
from vambrace.privacy.dp.audited import Audited
from vambrace.privacy.dp.charges import Charge, Spent
from vambrace.privacy.dp.guessing import Bound
from vambrace.privacy.dp.history import Terms
from vambrace.privacy.dp.ledger import Ledger

TERMS = Terms(dataset_size=60_000, delta=1e-5, unit="sample", relation="add_or_remove_one", sampler="poisson")
STEP = Charge(mechanism="gaussian", noise_multiplier=1.1, sampling="poisson", sample_rate=0.004)
SILENT = Charge(mechanism="none", noise_multiplier=0.0, sampling="poisson", sample_rate=0.004)
CHECK = DpCheck(ledger="runs/ledger")


def ledger(folder: Path, *charges: tuple[Charge, int], terms: Terms = TERMS) -> bytes:
    """The bytes of a ledger with these charges."""
    with Ledger.create(folder / "ledger", terms) as book:
        for charge, steps in charges:
            book.reserve(charge, steps)
    return (folder / "ledger").read_bytes()


def audit(folder: Path, correct: int) -> bytes:
    """An audit of a training that claims epsilon 1."""
    bound = Bound.of(canaries=1000, guesses=200, correct=correct, delta=1e-5, confidence=0.95, method="one_run")
    charge = Charge(mechanism="gaussian", noise_multiplier=4.083, sampling="poisson", sample_rate=0.25)
    Audited(bound=bound, spent=Spent([(charge, 16)])).write(folder / "audit")
    return (folder / "audit").read_bytes()


def examined(world: Any, check: DpCheck, **documents: bytes) -> list[Any]:
    """The records of the check's unit, as they come out of a journal."""
    context = dataclasses.replace(world.context(DOCUMENTS), documents=documents)
    nothing = Batch(world.inputs[:0], world.labels[:0], world.ids[:0], (), ())
    measured = check.measure(context, nothing)
    assert measured.cost.forwards == 0
    return canonical.loads(canonical.dumps(list(measured.records)))


def found(world: Any, check: DpCheck, documents: dict[str, bytes], **changes: Any) -> dict[str, Finding]:
    records = {DOCUMENTS: examined(world, check, **documents)}
    changes = {"planned": {DOCUMENTS: len(check.documents)}, **changes}
    return {each.metric: each for each in check.reduce(world.reduction(records, **changes))}


def test_the_number_is_that_of_the_charges(world: Any, tmp_path: Path) -> None:
    data = ledger(tmp_path, (STEP, 1000), (STEP, 500))
    clean = {record["id"]: record for record in world.measured(CleanCheck()).records}
    (finding,) = found(world, CHECK, {"ledger": data}, clean=clean).values()
    expected = epsilon(Spent([(STEP, 1500)]), delta=1e-5).epsilon
    assert finding.value == expected
    assert (finding.metric, finding.unit, finding.n, finding.family) == ("epsilon", "epsilon", 1500, "dp")
    assert (finding.status, finding.higher_is_better, finding.interval) == (Status.MEASURED, False, None)
    right = sum(record["correct"] for record in clean.values())
    assert 0 < right < 60
    assert finding.sentence.startswith("Training charged 1,500 steps, which cost epsilon 0.683 at")
    assert "for one sample more or less; beside it, the model is right on about" in finding.sentence
    assert finding.parameters["accountant"] == "pld"
    assert (finding.parameters["dataset_size"], finding.parameters["delta"]) == (60_000, 1e-5)


def test_without_the_clean_check_privacy_stands_alone(world: Any, tmp_path: Path) -> None:
    (finding,) = found(world, CHECK, {"ledger": ledger(tmp_path, (STEP, 1))}).values()
    assert finding.sentence.startswith("Training charged 1 step, which cost epsilon ")
    assert "beside" not in finding.sentence


def test_a_number_in_a_sentence_is_never_smaller_than_the_truth(world: Any, tmp_path: Path) -> None:
    for steps in (700, 900, 1100):
        folder = tmp_path / str(steps)
        (finding,) = found(world, CHECK, {"ledger": ledger(folder, (STEP, steps))}).values()
        said = float(finding.sentence.partition("epsilon ")[2].partition(" ")[0])
        assert finding.value is not None
        assert finding.value <= said < 1.01 * finding.value


@pytest.mark.parametrize(
    ("charges", "why"),
    [
        (((STEP, 1000), (SILENT, 1)), "epsilon is infinite"),
        (((STEP, 1000), (dataclasses.replace(STEP, private=False), 1)), "epsilon is infinite"),
        ((), "the ledger charges no step"),
    ],
    ids=["no noise", "debug mode", "no step"],
)
def test_what_promises_nothing_is_no_number(world: Any, tmp_path: Path, charges: Any, why: str) -> None:
    (finding,) = found(world, CHECK, {"ledger": ledger(tmp_path, *charges)}).values()
    assert (finding.value, finding.status) == (None, Status.NOT_MEASURED)
    assert why in finding.reason


def test_delta_and_accountant_are_the_plans(world: Any, tmp_path: Path) -> None:
    data = ledger(tmp_path, (STEP, 1000))
    check = DpCheck(ledger="l", delta=1e-7, accountant="rdp")
    (finding,) = found(world, check, {"ledger": data}).values()
    assert finding.value == epsilon(Spent([(STEP, 1000)]), delta=1e-7, accountant="rdp").epsilon
    assert (finding.parameters["delta"], finding.parameters["accountant"]) == (1e-7, "rdp")


def test_a_large_delta_is_a_warning(world: Any, tmp_path: Path) -> None:
    (finding,) = found(world, DpCheck(ledger="l", delta=2e-5), {"ledger": ledger(tmp_path, (STEP, 10))}).values()
    assert (finding.status, [flag.code for flag in finding.flags]) == (Status.WARN, ["E471"])
    assert "60,000 samples" in finding.flags[0].text


def test_a_ledger_of_very_many_settings_is_accounted_for_in_time(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A privacy loss distribution each would take minutes; Renyi's bound is one too, and takes none."""
    monkeypatch.setattr("vambrace.assess.checks.dp._MOST_CHARGES", 3)
    charges = [(dataclasses.replace(STEP, noise_multiplier=1 + at / 1000), 1) for at in range(4)]
    assert (
        found(world, CHECK, {"ledger": ledger(tmp_path / "few", *charges[:3])})["epsilon"].parameters["accountant"]
        == "pld"
    )
    (finding,) = found(world, CHECK, {"ledger": ledger(tmp_path, *charges)}).values()
    assert finding.parameters["accountant"] == "rdp"
    assert finding.value == epsilon(Spent(charges), delta=1e-5, accountant="rdp").epsilon


def test_an_audit_stands_beside_it(world: Any, tmp_path: Path) -> None:
    check = DpCheck(ledger="l", audit="a")
    documents = {"ledger": ledger(tmp_path, (STEP, 1000)), "audit": audit(tmp_path, 130)}
    findings = found(world, check, documents)
    assert list(findings) == ["epsilon", "audit_epsilon"]
    bound = findings["audit_epsilon"]
    assert (
        bound.value
        == Bound.of(canaries=1000, guesses=200, correct=130, delta=1e-5, confidence=0.95, method="one_run").epsilon
    )
    assert (bound.status, bound.n, bound.unit, bound.higher_is_better) == (Status.MEASURED, 1000, "epsilon", False)
    assert "finds an epsilon of at least 0.3" in bound.sentence
    assert "130 of 200 guesses were right), where its charges claim epsilon 1" in bound.sentence
    assert findings["epsilon"].status is Status.MEASURED


def test_an_audit_that_contradicts_takes_the_claim_away(world: Any, tmp_path: Path) -> None:
    documents = {"ledger": ledger(tmp_path, (STEP, 10)), "audit": audit(tmp_path, 190)}
    findings = found(world, DpCheck(ledger="l", audit="a"), documents)
    assert findings["epsilon"].status is Status.UNRELIABLE
    assert [flag.code for flag in findings["epsilon"].flags] == ["E470"]
    assert "it does not do what it charges for" in findings["epsilon"].sentence
    assert findings["audit_epsilon"].status is Status.MEASURED
    assert (findings["audit_epsilon"].value or 0) > 2


@pytest.mark.parametrize(
    ("missing", "status"), [("budget", Status.NOT_MEASURED), ("error: E585: line 2", Status.ERROR)]
)
def test_missing_records_give_no_number(world: Any, missing: str, status: Status) -> None:
    check = DpCheck(ledger="l", audit="a")
    reduction = world.reduction({DOCUMENTS: []}, planned={DOCUMENTS: 2}, missing=missing)
    findings = check.reduce(reduction)
    assert [(each.metric, each.value, each.status) for each in findings] == [
        ("epsilon", None, status),
        ("audit_epsilon", None, status),
    ]
    assert "0 of 2 files were measured" in findings[0].reason


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "text": lambda data: b"epsilon = 0.1\n",
    "bytes": lambda data: bytes(range(256)) * 4,
    "a line gone": lambda data: b"".join(data.splitlines(keepends=True)[:1] + data.splitlines(keepends=True)[2:]),
    "an edited step": lambda data: data.replace(b'"steps":1000', b'"steps":1', 1),
    "less noise than was charged": lambda data: data.replace(b'"noise_multiplier":1.1', b'"noise_multiplier":9.1'),
    "another version": lambda data: data.replace(b"vambrace-dp-ledger/1", b"vambrace-dp-ledger/2"),
    "nested": lambda data: b"[" * 200_000 + b"\n",
    "no line feed at all": lambda data: data.replace(b"\n", b" "),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_ledger_is_an_error(world: Any, tmp_path: Path, name: str) -> None:
    data = ledger(tmp_path, (STEP, 1000), (STEP, 1000))
    with pytest.raises(ConfigError, match="E585"):
        examined(world, CHECK, ledger=HOSTILE[name](data))


def test_a_torn_last_line_is_none(world: Any, tmp_path: Path) -> None:
    """Its append did not end, so no step of it ran."""
    data = ledger(tmp_path, (STEP, 1000))
    (record,) = examined(world, CHECK, ledger=data + b'{"charge":{"mech')
    assert record["steps"] == 1000


def test_a_hostile_audit_is_an_error(world: Any, tmp_path: Path) -> None:
    data = audit(tmp_path, 190).replace(b'"correct":190', b'"correct":110')
    with pytest.raises(ConfigError, match="E159"):
        examined(world, DpCheck(ledger="l", audit="a"), ledger=ledger(tmp_path, (STEP, 1)), audit=data)


def test_steps_that_nobody_can_account_for_are_an_error(world: Any, tmp_path: Path) -> None:
    fixed = Charge(
        mechanism="gaussian",
        noise_multiplier=1.1,
        sampling="fixed_size",
        sample_rate=0.1,
        dataset_size=10,
        batch_size=1,
    )
    with pytest.raises(ConfigError, match="E144"):
        examined(world, CHECK, ledger=ledger(tmp_path, (STEP, 1), (fixed, 1)))


@pytest.mark.parametrize(
    ("options", "code"),
    [({"ledger": ""}, "E103"), ({"ledger": "l", "delta": 0.0}, "E144"), ({"ledger": "l", "delta": 1.0}, "E144")],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], code: str) -> None:
    with pytest.raises(ConfigError, match=code):
        DpCheck(**options)


def test_it_asks_nothing_of_model_and_data() -> None:
    assert (CHECK.roles, CHECK.needs) == ((), Access.LABELS)
    assert roles_of(CHECK) == (DOCUMENTS,)
    assert documents_of(CHECK) == {"ledger": "runs/ledger"}
    assert documents_of(DpCheck(ledger="l", audit="a")) == {"ledger": "l", "audit": "a"}
    assert documents_of(CleanCheck()) == {}
