"""Facts of models and data: equal where it must not matter, different where numbers could differ."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from vambrace import data, models
from vambrace.assess.facts import (
    Samples,
    check_same_data,
    check_same_model,
    data_facts,
    model_facts,
    samples_digest,
)
from vambrace.core import canonical
from vambrace.core.contract import InputContract
from vambrace.errors import ConfigError


def model_of(seed: int = 0, **options: Any) -> models.TorchModel:
    torch.manual_seed(seed)
    return models.from_torch(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval(), **options)


def facts_of(*args: Any, declared: str = "", **options: Any) -> dict[str, Any]:
    return model_facts(model_of(*args, **options), declared=declared)


def test_the_same_model_is_the_same_through_json() -> None:
    began = canonical.loads(canonical.dumps(facts_of(identity="a", bounds=(0, 1))))
    check_same_model(began, facts_of(identity="a", bounds=(0.0, 1.0)))


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("weights", {"seed": 1}),
        ("detail", {"mean": 0.5}),
        ("outputs", {"outputs": "probabilities"}),
        ("bounds", {"bounds": (0, 255)}),
    ],
)
def test_another_model_is_named(field: str, options: dict[str, Any]) -> None:
    seed = options.pop("seed", 0)
    began = facts_of(identity="a")
    now = facts_of(seed, identity="a", **options)
    with pytest.raises(ConfigError, match=f"E503.*with ({field}|detail)") as caught:
        check_same_model(began, now)
    assert str(began[field])[:20] in caught.value.expected or "detail" in caught.value.seen


def test_what_only_the_first_call_shows_is_not_asked_before_it() -> None:
    model = model_of(identity="a")
    before = model_facts(model)
    assert before["input_shape"] is None
    model(torch.rand(1, 4))
    after = model_facts(model)
    assert after["input_shape"] == [4]
    check_same_model(after, before)
    with pytest.raises(ConfigError, match="E503"):
        check_same_model({**after, "input_shape": [5]}, after)


def test_models_without_identity_are_never_the_same() -> None:
    with pytest.raises(ConfigError, match="E505"):
        check_same_model(facts_of(), facts_of())
    with pytest.raises(ConfigError, match="E505"):
        check_same_model(facts_of(identity="a"), facts_of())
    check_same_model(facts_of(declared="x"), facts_of(declared="x"))
    with pytest.raises(ConfigError, match="E503"):
        check_same_model(facts_of(declared="x"), facts_of(declared="y"))
    with pytest.raises(ConfigError, match="E503"):
        check_same_model(facts_of(identity="a", declared="x"), facts_of(identity="a"))


def digits(limit: int = 20) -> data.Loaded:
    return data.load("digits:test", limit=limit)


def facts_of_data(batches: Any) -> dict[str, Any]:
    return data_facts(batches, Samples.of(batches))


def test_samples_are_read_where_hashes_are_not_known() -> None:
    whole = digits(40)
    part = data.subset(whole, [5, 3, 8])
    samples = Samples.of(part)
    assert samples.hashes == tuple(whole.hashes[place] for place in (5, 3, 8))
    assert samples.ids == tuple(whole.ids[place] for place in (5, 3, 8))
    assert Samples.of(whole).hashes == whole.hashes


def test_data_facts_count_and_hash() -> None:
    facts = facts_of_data(digits())
    assert facts["n"] == 20
    assert sum(facts["counts"]) == 20
    assert len(facts["class_names"]) == len(facts["counts"]) == 10
    assert facts["sha256"] != facts["ids"]


def test_other_data_is_named() -> None:
    began = {"eval": facts_of_data(digits())}
    check_same_data(canonical.loads(canonical.dumps(began)), {"eval": facts_of_data(digits())})
    check_same_data(began, {"eval": {**began["eval"], "name": "moved"}})
    with pytest.raises(ConfigError, match="E504.*eval with n 21"):
        check_same_data(began, {"eval": facts_of_data(digits(21))})
    with pytest.raises(ConfigError, match="E504.*data for members"):
        check_same_data(began, {**began, "members": began["eval"]})
    with pytest.raises(ConfigError, match="E504.*no data for eval"):
        check_same_data(began, {})
    backwards = data.subset(digits(), range(19, -1, -1))
    with pytest.raises(ConfigError, match="E504.*eval with sha256"):
        check_same_data(began, {"eval": facts_of_data(backwards)})


def test_changed_pixels_labels_and_class_names_are_other_data() -> None:
    pixels = torch.arange(32, dtype=torch.float32).reshape(8, 4) / 32
    labels = torch.arange(8) % 2
    contract = InputContract(bounds=(0.0, 1.0), layout="features")

    def facts(inputs: torch.Tensor, labels: torch.Tensor, contract: InputContract = contract) -> dict[str, Any]:
        return {"eval": facts_of_data(data.from_arrays(inputs.numpy(), labels.numpy(), contract=contract))}

    began = facts(pixels, labels)
    check_same_data(began, facts(pixels.clone(), labels))
    for other in (
        facts(pixels + 1e-6, labels),
        facts(pixels, 1 - labels),
        facts(pixels, labels, dataclasses.replace(contract, classes=("x", "y"))),
    ):
        with pytest.raises(ConfigError, match="E504"):
            check_same_data(began, other)


def test_samples_digest_knows_order_and_borders() -> None:
    assert samples_digest([1, 2], ["a", "b"]) != samples_digest([2, 1], ["b", "a"])
    assert samples_digest([1], ["2 3"]) != samples_digest([1, 2], ["2", "3"])
