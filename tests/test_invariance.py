"""What happens to a sample is its own, and what it cost is what the model saw: for every method that is registered.

A method that is added to a registry is held to this without a line here: outcomes do not depend on batch size, order,
company or parts, and the ledger equals the rows that a counter at the model sees. In double precision nothing may
differ; in single precision a kernel may round otherwise for another batch, and every outcome that flips is listed with
its margin.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from vambrace import assess, data
from vambrace.assess.checks.adversarial import AdversarialCheck
from vambrace.assess.checks.clean import CleanCheck
from vambrace.assess.checks.membership import MembershipCheck
from vambrace.assess.checks.natural import NaturalCheck
from vambrace.assess.journal import parse
from vambrace.assess.plan import DataSpec, ModelSpec, Plan, PlannedCheck, RunSpec, TrustSpec
from vambrace.assess.preflight import preflight
from vambrace.assess.rundir import read_run_file
from vambrace.attacks.fixed import FixedRadius
from vambrace.core.contract import InputContract
from vambrace.core.findings import Cost
from vambrace.core.registry import ATTACKS, CHECKS, PERTURBATIONS, load, names
from vambrace.errors import ConfigError
from vambrace.models import Counted, from_torch
from vambrace.perturb.frame import UNIT
from vambrace.privacy.membership import loss_scores, measure
from vambrace.testing.attacks import check_attack
from vambrace.testing.digits import train
from vambrace.testing.perturbations import check_perturbation, sample_images

BATCHES = (1, 7, 64)
RADII = {"linf": 0.1, "l2": 0.6, "l1": 3.0, "l0": 6.0}
SHORT = {"steps": 4, "restarts": 2, "queries": 40, "budget": 150, "samples": 10}
N = 24
WAYS = {
    "FGSM-linf", "PGD-linf", "PGD-l2", "APGD-linf", "MomentumPGD-linf",  # by gradients, in a ball
    "Square-linf",  # by scores
    "DDN-l2",  # the nearest by gradients
    "HopSkipJump-l2",  # the nearest by labels
    "Adaptive-linf",  # all samples together
}  # fmt: skip
OUTCOMES = {"broken", "prediction", "correct", "finite", "mismatch", "predictions"}


def attacks() -> list[Any]:
    """Every registered attack in every norm that it takes, kept short where that can be said.

    The standard ensemble, whose budgets are what it is, has a suite of its own.
    """
    found = []
    for name in names(ATTACKS):
        kind = load(ATTACKS, name)
        fields = kind.__dataclass_fields__
        options = {key: value for key, value in SHORT.items() if key in fields}
        for norm in ("linf", "l2", "l1", "l0") if name != "standard" else ():
            try:
                found.append(kind(norm=norm, eps=RADII[norm], **options))
            except ConfigError:
                continue
    return found


def one_of_each() -> list[Any]:
    """What the main job runs: one attack of each way to search, among all that are registered."""
    return [attack for attack in attacks() if of(attack) in WAYS]


def plain(attacks: list[Any]) -> list[Any]:
    """Those of a fixed radius that look at one sample at a time; the others have kits of their own."""
    return [attack for attack in attacks if isinstance(attack, FixedRadius) and not attack.joint]


def of(method: Any) -> str:
    return "-".join(str(part) for part in (type(method).__name__, getattr(method, "norm", "")) if part)


def test_the_registries_are_what_is_tested():
    assert {attack.name for attack in attacks()} == set(names(ATTACKS)) - {"standard"}
    assert {"gaussian_noise", "gaussian_blur", "rotate", "contrast", "jpeg"} <= set(names(PERTURBATIONS))
    kinds = {planned.check.kind for planned in every_check()}
    assert kinds == set(names(CHECKS)) - {"dp"}, "a new kind of check belongs into every_check(), if it asks samples"


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd"])
def test_the_plain_attacks_keep_their_promises_by_default(name):
    """The conformance kit: claims, ledger at batch 1, 7 and 64, whole against split, permuted and shuffled with ids."""
    check_attack(load(ATTACKS, name)(eps=0.1))


@pytest.mark.parametrize("attack", plain(attacks()), ids=of)
def test_every_attack_keeps_its_promises_in_every_norm(attack):
    """With few steps, so that strength is not asked for: that is what the suite of each attack does."""
    check_attack(attack, strength=0.0)


@pytest.mark.parametrize("name", names(PERTURBATIONS))
def test_every_perturbation_keeps_its_promises(name):
    check_perturbation(load(PERTURBATIONS, name)(), shape=(1, 8, 8))


@pytest.mark.parametrize("name", names(PERTURBATIONS))
def test_every_perturbation_is_the_samples_own_in_double_precision(name):
    """Whole against batches of 1, 7 and 64 in another order: no value differs by more than rounding."""
    perturb = load(PERTURBATIONS, name)()
    inputs = sample_images(N, (1, 8, 8)).double()
    ids = torch.arange(N) * 7919 + 1
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    whole = perturb(inputs, severity=3, rng=4, ids=ids, bounds=UNIT)[order]
    for batch in BATCHES:
        parts = zip(inputs[order].split(batch), ids[order].split(batch), strict=True)
        found = torch.cat([perturb(part, severity=3, rng=4, ids=own, bounds=UNIT) for part, own in parts])
        assert float((found - whole).abs().max()) <= 1e-12, batch
    assert not torch.equal(perturb(inputs, severity=3, rng=4, ids=ids, bounds=UNIT), inputs)


@pytest.fixture(scope="module")
def net(device):
    part = data.load("digits:train")
    batch = part.read(range(len(part)))
    return train(batch.inputs, batch.labels, epochs=5).to(device)


@pytest.fixture(scope="module")
def double(net):
    return copy.deepcopy(net).double()


def test_membership_scores_are_the_samples_own(double, device):
    model = from_torch(double)
    read = [data.load(source, limit=N).read(range(N)) for source in ("digits:train", "digits:test")]
    sides = [(batch.inputs.double().to(device), batch.labels.to(device)) for batch in read]
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    whole = [loss_scores(model, *side) for side in sides]
    expected = measure(*whole, rates=(0.5,))
    assert 0.4 < expected.auc < 1
    for batch in BATCHES:
        mixed = [loss_scores(model, inputs[order], labels[order], batch_size=batch) for inputs, labels in sides]
        for one, other in zip(whole, mixed, strict=True):
            torch.testing.assert_close(other, one[order], rtol=1e-12, atol=1e-12)
        assert measure(*mixed, rates=(0.5,)).auc == expected.auc


def every_check() -> list[PlannedCheck]:
    checks = [PlannedCheck(id="clean", check=CleanCheck()), PlannedCheck(id="membership", check=MembershipCheck())]
    checks += [
        PlannedCheck(id=of(each), check=AdversarialCheck(attack=each, eps=(each.eps / 2, each.eps)))
        for each in one_of_each()
    ]
    for name in names(PERTURBATIONS):
        check = NaturalCheck(perturbation=load(PERTURBATIONS, name)(), severities=(1, 4))
        checks.append(PlannedCheck(id=name, check=check))
    return checks


ROLES = {"eval": "digits:test", "members": "digits:train", "nonmembers": "digits:test"}


def world(order: int = 0) -> dict[str, Any]:
    """The data of every role, in the order of the source or shuffled."""
    found = {}
    for number, (role, source) in enumerate(ROLES.items()):
        whole = data.load(source, limit=4 * N)
        places = torch.arange(number * N, (number + 1) * N)
        if order:
            places = places[torch.randperm(N, generator=torch.Generator().manual_seed(order))]
        found[role] = data.subset(whole, places.tolist())
    return found


@dataclass
class Ran:
    """One assessment: its findings, and its records by check and sample."""

    report: Any
    records: dict[tuple[str, str, str], dict[str, Any]]


def assessed(model: Any, out: Path, *, batch: int, order: int = 0, chunk: int | None = None, seed: int = 0) -> Ran:
    roles = world(order)
    report = assess.run(
        model,
        roles["eval"],
        members=roles["members"],
        nonmembers=roles["nonmembers"],
        checks=every_check(),
        gates="none",
        seed=seed,
        options=RunSpec(batch=batch, chunk=chunk, threads=1, images=0),
        out=out,
    )
    assert report.exit_code == 0, report.results.verdict
    parsed = parse((report.path / "journal").read_bytes(), read_run_file(report.path).run)
    records = {(unit.check, unit.role, each["id"]): each for unit in parsed.units for each in unit.result["records"]}
    assert len(records) == N * (2 + len(every_check()) - 1)
    return Ran(report, records)


def differences(one: Ran, other: Ran) -> list[tuple[Any, ...]]:
    """Every field of every record that is not the same; numbers may differ by rounding only."""
    found = []
    assert one.records.keys() == other.records.keys()
    for key, record in one.records.items():
        twin = other.records[key]
        for field in sorted({*record, *twin} - {"turns"}):  # what the attacks of an ensemble did is of the unit
            a, b = record.get(field), twin.get(field)
            near = isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6)
            if a != b and not near:
                found.append((*key, field, a, b, record.get("margin"), twin.get("margin")))
    return found


@pytest.fixture(scope="module")
def whole(double, tmp_path_factory):
    return assessed(from_torch(double), tmp_path_factory.mktemp("whole"), batch=64)


@pytest.mark.parametrize(("batch", "order", "chunk"), [(1, 0, 8), (7, 0, None), (7, 3, 10), (64, 5, None)])
def test_records_of_the_main_job_do_not_depend_on_batch_order_or_company(double, whole, tmp_path, batch, order, chunk):
    """A network in double precision: 0 differences, in any check."""
    other = assessed(from_torch(double), tmp_path, batch=batch, order=order, chunk=chunk)
    assert differences(whole, other) == []
    values = {finding.name: finding.value for finding in whole.report.results.findings}
    assert {finding.name: finding.value for finding in other.report.results.findings} == pytest.approx(values)
    fallen = {check for (check, _, _), record in whole.records.items() if "broken" in record}
    assert {of(each) for each in one_of_each()} == fallen, "an attack that breaks nothing proves nothing"


def test_another_seed_makes_other_records(double, whole, tmp_path):
    """The comparison can tell: not everything is equal to everything."""
    other = differences(whole, assessed(from_torch(double), tmp_path, batch=64, seed=1))
    assert {check for check, *_ in other} >= {"PGD-linf", "APGD-linf", "Square-linf"}
    assert not {check for check, *_ in other} & {"clean", "membership", "FGSM-linf", "contrast"}


def test_flips_in_single_precision_are_few_and_listed(net, tmp_path):
    """Float32 kernels round otherwise at another batch; `pytest -rP` lists what that changes, with margins."""
    model = from_torch(net)
    one = assessed(model, tmp_path / "whole", batch=64)
    flips = []
    for batch, order in ((1, 0), (7, 3)):
        flips += [
            (batch, *each)
            for each in differences(one, assessed(model, tmp_path / str(batch), batch=batch, order=order))
            if each[3] in OUTCOMES
        ]
    print(f"{len(flips)} fields differ", *flips, sep="\n")
    samples = {(each[0], each[1], each[3]) for each in flips}
    assert len(samples) <= 0.01 * 2 * len(one.records), flips


@pytest.mark.parametrize("batch", BATCHES)
def test_the_ledger_of_the_main_job_is_what_the_model_saw(net, tmp_path, batch):
    """Rows that an independent counter saw = preflight + logical + verification + idle + padding + the watch."""
    plan = Plan(
        profile="smoke",
        seed=0,
        model=ModelSpec(),
        contract=InputContract(bounds=(0.0, 1.0)),
        data={"eval": DataSpec(source="")},
        trust=TrustSpec(),
        run=RunSpec(batch=batch, threads=1),
        checks=(),
        gates=None,
    )
    before = Counted(from_torch(net))
    preflight(before, world(), plan)
    counted = Counted(from_torch(net))
    ran = assessed(counted, tmp_path, batch=batch)
    cost = Cost()
    for planned in every_check():
        own = {finding.cost for finding in ran.report.results.findings if finding.check == planned.id}
        assert len(own) == 1, "all findings of a check cost what the check cost"
        cost += own.pop()
    assert min(cost.forwards, cost.backwards, cost.verifications) > 0
    broken = sum("broken" in record for record in ran.records.values())
    assert cost.verifications >= 2 * broken, "the attack confirms what it claims, and the check asks again"
    units = len(parse((ran.report.path / "journal").read_bytes(), read_run_file(ran.report.path).run).units)
    watch = max(1, min(8, batch // 4)) * (units + 1)
    forward = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
    assert counted.forwards == before.forwards + forward + watch
    assert counted.backwards == before.backwards + cost.backwards + cost.idle_backwards + cost.padding_backwards
