"""Networks of the classifier's families as the command makes them, for `benchmarks/bench_obfuscate.py`."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import onnx

from vambrace.assets.obfuscate.rehearsal import Rehearsal


class Outputs:
    """Obfuscates and keeps what was made, so that every attacker sees the same.

    Args:
        rehearsal: how.
        folder: where models are kept.

    Attributes:
        made: how many.
        left_out: pass -> from how many it was left out, for time or because it moved answers too far.
        ratios: time over the original's, of each, as the plan measured it: the upper end of an interval.
    """

    def __init__(self, rehearsal: Rehearsal, folder: Path) -> None:
        self._rehearsal = rehearsal
        self._folder = folder
        self.made = 0
        self.left_out = Counter[str]()
        self.ratios = list[float]()

    def __call__(self, model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
        """The obfuscated model."""
        content = model.SerializeToString(deterministic=True) + f" {seed}".encode()
        path = self._folder / f"{hashlib.sha256(content).hexdigest()}.onnx"
        if not path.exists():
            found = self._rehearsal.obfuscated(model, seed)
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
            "budget": self._rehearsal.budget,
            "made": self.made,
            "left_out": dict(self.left_out),
            "time": {"median": median, "low_quarter": low, "high_quarter": high, "most": max(self.ratios)},
        }
