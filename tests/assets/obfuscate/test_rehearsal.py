"""Networks for attackers are obfuscated as a user's own is: with inputs, within a budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vambrace.assets.obfuscate import rehearsal
from vambrace.assets.obfuscate.measure.families import variant
from vambrace.assets.obfuscate.rehearsal import Rehearsal


@pytest.mark.parametrize("family", ["mlp", "unet"])
def test_options_reach_the_obfuscator_with_inputs_that_fit(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = variant(family, 0), list[Any]()
    real = rehearsal.onnx_model

    def obfuscated(*args: Any, **given: Any) -> Any:
        seen.append((args, given))
        return real(*args, **given)

    monkeypatch.setattr(rehearsal, "onnx_model", obfuscated)
    made = Rehearsal(profile="tolerance", ratio="small", budget=50.0)(model, 7)
    ((args, given),) = seen
    assert args == (model,)
    inputs = given.pop("inputs")
    assert given == {"profile": "tolerance", "ratio": "small", "seed": 7, "budget": 50.0}
    assert list(inputs.shape[1:]) == [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim][1:]
    assert inputs.dtype == np.float32
    assert made.SerializeToString(deterministic=True) == real(model, inputs=inputs, **given).model.SerializeToString(
        deterministic=True
    )


def test_what_was_left_out_is_kept() -> None:
    made = Rehearsal(budget=1e-9).obfuscated(variant("mlp", 0), 0)
    assert made.planned is not None
    assert "phantoms" in made.planned.dropped
    assert Rehearsal().obfuscated(variant("mlp", 0), 0).planned is None
