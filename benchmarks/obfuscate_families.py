"""Networks of the classifier's families as the command makes them, for `benchmarks/bench_obfuscate.py`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import onnx

from vambrace.assets.obfuscate.measure.classifier import ClassifierOptions, networks
from vambrace.assets.obfuscate.measure.families import variant
from vambrace.assets.obfuscate.rehearsal import Rehearsal


@dataclass(frozen=True)
class Outputs:
    """Obfuscates and keeps what was made, so that every attacker sees the same.

    Attributes:
        rehearsal: how.
        folder: where models are kept, each beside what was left out of it.
    """

    rehearsal: Rehearsal
    folder: Path

    def __call__(self, model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
        """The obfuscated model."""
        content = model.SerializeToString(deterministic=True) + f" {seed}".encode()
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.onnx"
        if not path.exists():
            found = self.rehearsal.obfuscated(model, seed)
            assert found.fitted is not None
            assert found.planned is not None
            left_out = sorted({*found.planned.dropped, *(each.name for each in found.fitted.left_out)})
            kept = {"left_out": left_out, "time": found.planned.ratio}
            path.with_suffix(".json").write_text(json.dumps(kept))
            onnx.save(found.model, path)
        return onnx.load(path)

    def make_all(self, options: ClassifierOptions, processes: int) -> None:
        """Make all that a classifier asks for; each plan measures time against the original's in its own process."""
        with ProcessPoolExecutor(processes) as pool:
            for _ in pool.map(self._make, networks(options), repeat(options)):
                pass

    def _make(self, asked: tuple[str, int, tuple[int, ...]], options: ClassifierOptions) -> None:
        family, number, seeds = asked
        model = variant(family, number, seed=options.seed, size=options.size)
        for seed in seeds:
            self(model, seed)

    def as_json(self) -> dict[str, object]:
        """What was left out, and what it costs by the plans: the upper ends of their intervals."""
        kept = [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]
        times = [each["time"] for each in kept]
        low, median, high = np.quantile(times, (0.25, 0.5, 0.75))
        return {
            "budget": self.rehearsal.budget,
            "made": len(kept),
            "left_out": dict(Counter(name for each in kept for name in each["left_out"])),
            "time": {"median": median, "low_quarter": low, "high_quarter": high, "most": max(times)},
        }
