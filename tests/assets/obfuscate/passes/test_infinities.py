"""Which passes make NaN of an infinity among the inputs: those that the guide names, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_nets import answers, feeds, net
from vambrace.assets.obfuscate.passes import pass_names
from vambrace.assets.obfuscate.passes.chains import ChainLayers
from vambrace.assets.obfuscate.passes.norms import InsertNorms
from vambrace.assets.obfuscate.passes.packing import PackWeights
from vambrace.assets.obfuscate.pipeline import onnx_model

NAMED = ("chain_layers", "rebasis")
DRAW = np.random.default_rng(0)
# Whole shares, and no bound of time, so that they find places in small networks.
WHOLE: dict[str, Any] = {
    "chain_layers": ChainLayers(share=1.0, cost=4.0),
    "insert_norms": InsertNorms(share=1.0),
    "pack_weights": PackWeights(share=1.0, convolutions=True),
}


def positive(*sizes: int) -> np.ndarray:
    """So that what is infinite stays so with one sign, in the original, but for the last channel of the last."""
    found = (np.abs(DRAW.standard_normal(sizes)) + 0.1).astype(np.float32)
    if len(sizes) > 1:  # passes that mix channels leave matrices of one sign alone
        found.reshape(-1)[-1] = -0.1
    return found


def pair() -> onnx.ModelProto:
    return net(
        """(float[n,6] x) => (float[n,5] y) {
            a = MatMul (x, w)
            b = Add (a, b0)
            c = MatMul (b, v)
            d = Add (c, b1)
            y = Relu (d)
        }""",
        weights={"w": positive(6, 8), "b0": positive(8), "v": positive(8, 5), "b1": positive(5)},
    )


def pictures() -> onnx.ModelProto:
    return net(
        """(float[n,3,6,6] x) => (float[n,4,6,6] y) {
            a = Conv <pads=[1,1,1,1]> (x, w)
            b = BatchNormalization (a, s, t, m, v)
            c = Relu (b)
            y = Conv (c, u)
        }""",
        weights={
            **{"w": positive(6, 3, 3, 3), "s": positive(6), "t": positive(6), "m": positive(6), "v": positive(6)},
            "u": positive(4, 6, 1, 1),
        },
    )


def breaks(name: str) -> bool:
    for model in (pair(), pictures()):
        for sign in (1, -1):
            given = feeds(model, rows=2)
            given["x"] = np.abs(given["x"])
            given["x"].flat[1] = sign * np.inf
            for seed in range(2):
                passes = [WHOLE.get(name, name)]
                changed = onnx_model(model, profile="tolerance", passes=passes, ratio="large", seed=seed).model
                before, after = answers(model, given)[0], answers(changed, given)[0]
                if np.any(np.isnan(after) & ~np.isnan(before)):
                    return True
    return False


@pytest.mark.parametrize("name", [name for name in pass_names() if name != "phantoms"])
def test_an_infinity_becomes_nan_only_where_the_guide_says_so(name: str) -> None:
    assert breaks(name) == (name in NAMED)
