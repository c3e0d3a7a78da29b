"""Networks of the classifier's families as the command makes them, for `benchmarks/bench_obfuscate.py`."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import onnx

from vambrace.assets.obfuscate.pipeline import onnx_model
from vambrace.assets.obfuscate.planning import BUDGET

ROWS = 20
"""Inputs that a network is timed and compared on: noise, as its weights are."""


class Outputs:
    """Obfuscates, within the budget that is usual, and keeps what it made, so that every attacker sees the same.

    Args:
        profile, ratio: as for `onnx_model`.
        folder: where models are kept.

    Attributes:
        made: how many.
        left_out: pass -> from how many it was left out, for time or because it moved answers too far.
        ratios: time over the original's, of each, as the plan measured it: the upper end of an interval.
    """

    def __init__(self, profile: str, ratio: str, folder: Path) -> None:
        self._wanted = {"profile": profile, "ratio": ratio, "budget": BUDGET}
        self._folder = folder
        self.made = 0
        self.left_out = Counter[str]()
        self.ratios = list[float]()

    def __call__(self, model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
        """The obfuscated model."""
        content = model.SerializeToString(deterministic=True) + f" {seed} {self._wanted}".encode()
        path = self._folder / f"{hashlib.sha256(content).hexdigest()}.onnx"
        if not path.exists():
            sizes = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
            inputs = np.random.default_rng(seed).normal(size=(ROWS, *sizes[1:])).astype(np.float32)
            found = onnx_model(model, **self._wanted, seed=seed, inputs=inputs)
            assert found.fitted is not None
            assert found.planned is not None
            self.made += 1
            self.left_out.update({*found.planned.dropped, *(each.name for each in found.fitted.left_out)})
            self.ratios.append(found.planned.ratio)
            onnx.save(found.model, path)
        return onnx.load(path)

    def as_json(self) -> dict[str, object]:
        """What was left out, and what it costs."""
        low, median, high = np.quantile(self.ratios, (0.25, 0.5, 0.75))
        return {
            "budget": BUDGET,
            "made": self.made,
            "left_out": dict(self.left_out),
            "time": {"median": median, "low_quarter": low, "high_quarter": high, "most": max(self.ratios)},
        }
