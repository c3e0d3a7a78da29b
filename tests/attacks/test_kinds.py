"""Options of the wrong kind are said by name, when they are made; numbers of every make are taken."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch

from vambrace.attacks import APGD, DDN, FMN, HopSkipJump, Square
from vambrace.attacks.kinds import require_kinds
from vambrace.core.options import Options
from vambrace.errors import ConfigError


@pytest.mark.parametrize(
    ("attack", "options", "seen", "expected", "fix"),
    [
        (Square, {"eps": torch.full((6,), 0.1)}, "eps that is a Tensor", "a number", "one eps for all samples"),
        (Square, {"eps": [0.1, 0.2]}, "eps that is a list", "a number", "`curve`"),
        (Square, {"eps": "8/255"}, "eps '8/255'", "a number", "eps=8/255"),
        (Square, {"eps": True}, "eps True", "a number", "correct eps"),
        (Square, {"eps": 10**400}, "eps of 1329 bits", "a number", "correct eps"),
        (Square, {"eps": 0.1, "queries": 10**400}, "queries of 1329 bits", "a whole number", "correct queries"),
        (Square, {"eps": None}, "eps None", "a number", "correct eps"),
        (Square, {"eps": Fraction(1, 4)}, "eps Fraction(1, 4)", "a number", "float(eps)"),
        (DDN, {"eps": "0.1"}, "eps '0.1'", "a number or nothing", "without quotes"),
        (DDN, {"steps": 1.5}, "steps 1.5", "a whole number", "correct steps"),
        (DDN, {"steps": True}, "steps True", "a whole number", "correct steps"),
        (APGD, {"eps": 0.1, "targets": 2.0}, "targets 2.0", "a whole number or nothing", "correct targets"),
        (APGD, {"eps": 0.1, "random_start": 1}, "random_start 1", "True or False", "correct random_start"),
        (HopSkipJump, {"budget": "many"}, "budget 'many'", "a whole number", "without quotes"),
        (FMN, {"step_size": torch.tensor(0.1)}, "step_size that is a Tensor", "a number or nothing", "a plain number"),
    ],
)
def test_the_wrong_kind_is_named(attack: type, options: dict, seen: str, expected: str, fix: str) -> None:
    with pytest.raises(ConfigError, match="E130") as caught:
        attack(**options)
    assert caught.value.seen == seen
    assert caught.value.expected == expected
    assert fix in caught.value.fix


def test_numbers_of_every_make_are_taken() -> None:
    assert Square(eps=np.float32(0.1), queries=np.int64(40)).queries == 40
    assert Square(eps=1).eps == 1
    assert FMN(step_size=None, eps=0).step_size is None


def test_numbers_of_every_make_are_said_as_json() -> None:
    told = Square(eps=np.float32(0.5), queries=np.int64(40)).as_json()
    assert json.loads(json.dumps(told)) == Square(eps=0.5, queries=40).as_json()
    assert told["quantised"] is False


def test_annotations_are_read_as_text_and_as_types() -> None:
    made = dataclass(frozen=True, kw_only=True)(
        type("Made", (Options,), {"__annotations__": {"count": int, "mode": "Mode"}, "count": 1, "mode": "any"})
    )
    require_kinds(made(mode=object()))
    with pytest.raises(ConfigError, match="E130"):
        require_kinds(made(count="1"))
