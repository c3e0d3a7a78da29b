"""The input contract refuses what would silently feed a model something else."""

from __future__ import annotations

import math

import pytest

from vambrace.core.contract import InputContract
from vambrace.core.spec import read
from vambrace.errors import ConfigError


def test_good():
    full = InputContract(
        bounds=(0, 255), mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4), size=(224, 224), resize="center",
        layout="NHWC", channels=3, classes=("cat", "dog"), strip_prefix="module.", state_key="state_dict",
    )  # fmt: skip
    assert read(InputContract, full.as_json()) == full
    assert read(InputContract, InputContract().as_json()) == InputContract()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"bounds": (1, 0)}, "E101"),
        ({"bounds": (1, 1)}, "E101"),
        ({"bounds": (math.nan, 1)}, "E101"),
        ({"bounds": (0, math.inf)}, "E101"),
        ({"bounds": (-math.inf, 0)}, "E101"),
        ({"mean": (0.5,)}, "E103"),
        ({"mean": (0.5,), "std": (0.0,)}, "E103"),
        ({"mean": (0.5,), "std": (-1.0,)}, "E103"),
        ({"mean": (0.5,), "std": (math.nan,)}, "E103"),
        ({"mean": (math.nan,), "std": (1.0,)}, "E103"),
        ({"mean": (0.5,), "std": (math.inf,)}, "E103"),
        ({"mean": (0.5, 0.5), "std": (1.0, 1.0), "channels": 3}, "E103"),
        ({"size": (0, 3)}, "E103"),
        ({"resize": "center"}, "E103"),
        ({"classes": ("cat", "dog", "cat")}, "E103"),
    ],
)
def test_bad(options, code):
    with pytest.raises(ConfigError, match=code):
        InputContract(**options)
