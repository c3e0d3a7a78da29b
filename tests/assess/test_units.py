"""Units and their keys: what may change a number changes the key of the units it concerns, and nothing else does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assess.toy import ToyCheck, toy_plan
from vambrace.assess.facts import Samples
from vambrace.assess.plan import GateSpec, Plan, PlannedCheck
from vambrace.assess.units import Unit, chosen, cut
from vambrace.core.contract import InputContract

SAMPLES = Samples(
    ids=tuple(range(100, 150)), hashes=tuple(f"{n:064x}" for n in range(50)), labels=tuple(n % 5 for n in range(50))
)
MODEL: dict[str, Any] = {
    "name": "net",
    "kind": "torch",
    "weights": "a" * 64,
    "source": "b" * 64,
    "detail": {"mean": [0.5]},
    "access": "gradients",
    "bounds": [0.0, 1.0],
    "outputs": "logits",
    "input_shape": [1, 8, 8],
    "num_classes": 5,
    "dtype": "float32",
}
DATA: dict[str, Any] = {"eval": {"class_names": ["a", "b"], "name": "digits"}}
CHECKS = (
    PlannedCheck(id="one", check=ToyCheck()),
    PlannedCheck(id="two", check=ToyCheck(scale=2.0), limit=25),
)


def units(plan: Plan | None = None, **changes: Any) -> tuple[Unit, ...]:
    world = {
        "model": MODEL,
        "data": DATA,
        "versions": {"torch": "2.13", "vambrace": "0.1", "python": "3.11"},
        "device": "cpu AVX2",
        **changes,
    }
    samples = world.pop("samples", {"eval": SAMPLES})
    return cut(plan or toy_plan(Path(), *CHECKS), samples, **world)


def keys(*given: Any, **changes: Any) -> list[str]:
    return [unit.key for unit in units(*given, **changes)]


def test_every_sample_is_in_one_unit_of_each_check() -> None:
    found = units()
    assert [(unit.name, unit.chunk, len(unit.positions)) for unit in found] == [
        ("one", 0, 20),
        ("one", 1, 20),
        ("one", 2, 10),
        ("two", 0, 20),
        ("two", 1, 5),
    ]
    one = [position for unit in found if unit.name == "one" for position in unit.positions]
    two = [position for unit in found if unit.name == "two" for position in unit.positions]
    assert one == list(range(50))
    assert two == sorted(set(two))
    assert len({unit.key for unit in found}) == len(found)


BASE = toy_plan(Path(), *CHECKS)

NOTHING = {
    "gates": dataclasses.replace(BASE, gates=(GateSpec(metric="one.brightness", min=0.9),)),
    "no gates": dataclasses.replace(BASE, gates=None),
    "profile": dataclasses.replace(BASE, profile="full"),
    "workers": dataclasses.replace(BASE, run=dataclasses.replace(BASE.run, workers=7)),
    "budget": dataclasses.replace(BASE, run=dataclasses.replace(BASE.run, budget=1.0)),
    "out": dataclasses.replace(BASE, run=dataclasses.replace(BASE.run, out="elsewhere")),
    "base": dataclasses.replace(BASE, base="elsewhere"),
    "required": dataclasses.replace(BASE, checks=tuple(dataclasses.replace(each, required=False) for each in CHECKS)),
}
EVERYTHING = {
    "seed": dataclasses.replace(BASE, seed=6),
    "contract": dataclasses.replace(BASE, contract=InputContract(bounds=(0.0, 1.0), mean=(0.5,), std=(0.5,))),
    "threads": dataclasses.replace(BASE, run=dataclasses.replace(BASE.run, threads=2)),
    "batch": dataclasses.replace(BASE, run=dataclasses.replace(BASE.run, batch=11)),
    "images": dataclasses.replace(BASE, run=dataclasses.replace(BASE.run, images=3)),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_changes_no_key(name: str) -> None:
    assert keys(NOTHING[name]) == keys()


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_changes_every_key(name: str) -> None:
    assert not set(keys(EVERYTHING[name])) & set(keys())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "onnx"),
        ("weights", "c" * 64),
        ("source", None),
        ("detail", {"mean": [0.4]}),
        ("access", "scores"),
        ("bounds", [0.0, 2.0]),
        ("outputs", "probabilities"),
        ("num_classes", 6),
        ("dtype", "float64"),
    ],
)
def test_another_model_changes_every_key(field: str, value: Any) -> None:
    assert not set(keys(model={**MODEL, field: value})) & set(keys())


def test_another_name_of_the_model_changes_none() -> None:
    assert keys(model={**MODEL, "name": "renamed"}) == keys()
    assert keys(data={"eval": {**DATA["eval"], "name": "renamed"}}) == keys()


def test_versions_and_device_change_every_key() -> None:
    assert not set(keys(versions={"torch": "2.14", "vambrace": "0.1"})) & set(keys())
    assert not set(keys(device="cpu AVX512")) & set(keys())
    assert not set(keys(data={"eval": {"class_names": ["b", "a"]}})) & set(keys())
    assert keys(versions={"torch": "2.13", "vambrace": "0.1", "python": "3.12"}) == keys()


def test_options_change_the_units_of_their_check() -> None:
    other = dataclasses.replace(BASE, checks=(CHECKS[0], dataclasses.replace(CHECKS[1], check=ToyCheck(scale=2.5))))
    assert keys(other)[:3] == keys()[:3]
    assert not set(keys(other)[3:]) & set(keys())


def test_a_renamed_check_draws_other_numbers_so_its_key_changes() -> None:
    other = dataclasses.replace(BASE, checks=(CHECKS[0], dataclasses.replace(CHECKS[1], id="renamed")))
    assert keys(other)[:3] == keys()[:3]
    assert not set(keys(other)[3:]) & set(keys())


def test_a_changed_sample_changes_the_unit_that_holds_it() -> None:
    hashes = list(SAMPLES.hashes)
    hashes[47] = "f" * 64
    changed = keys(samples={"eval": dataclasses.replace(SAMPLES, hashes=tuple(hashes))})
    same = [ours == theirs for ours, theirs in zip(changed, keys(), strict=True)]
    assert same[:3] == [True, True, False]
    ids = [*SAMPLES.ids[:-1], 7]
    assert keys(samples={"eval": dataclasses.replace(SAMPLES, ids=tuple(ids))})[2] != keys()[2]


def test_more_samples_keep_the_chunks_that_stay_equal() -> None:
    fewer = Samples(ids=SAMPLES.ids[:40], hashes=SAMPLES.hashes[:40], labels=SAMPLES.labels[:40])
    assert keys(samples={"eval": fewer})[:2] == keys()[:2]


def test_numbers_that_are_equal_in_json_share_a_key() -> None:
    """plan.json knows no difference between 1 and 1.0, so a resumed run must not either."""
    checks = (PlannedCheck(id="one", check=ToyCheck(scale=1)),)
    again = (PlannedCheck(id="one", check=ToyCheck(scale=1.0)),)
    assert keys(toy_plan(Path(), *checks)) == keys(toy_plan(Path(), *again))


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_smaller_limit_takes_a_subset(one: int, two: int) -> None:
    small, large = sorted((one, two))
    assert set(chosen(SAMPLES, small)) <= set(chosen(SAMPLES, large))
    assert len(chosen(SAMPLES, small)) == min(small, 50)
    assert chosen(SAMPLES, None) == tuple(range(50))
