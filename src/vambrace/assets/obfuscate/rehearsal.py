"""Networks of known families, obfuscated as a user's own would be: what attackers are trained on and asked about.

classify(Rehearsal(profile="exact"), options=ClassifierOptions(size="usual"))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from vambrace.assets.obfuscate.pipeline import onnx_model

if TYPE_CHECKING:
    from onnx import ModelProto

    from vambrace.assets.obfuscate.passes.base import Profile
    from vambrace.assets.obfuscate.pipeline import Obfuscated

__all__ = ["Rehearsal"]

_ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Obfuscates like `onnx_model` with these options and with inputs: noise, as the networks' weights are.

    Attributes:
        profile: whose passes.
        ratio: how many places passes with a cost take, as for `onnx_model`.
        budget: latency relative to the original, or None for no bound.
    """

    profile: Profile = "exact"
    ratio: Literal["small", "medium", "large"] | None = None
    budget: float | None = None

    def __call__(self, model: ModelProto, seed: int) -> ModelProto:
        """The obfuscated model, as `classify` asks for it."""
        return self.obfuscated(model, seed).model

    def obfuscated(self, model: ModelProto, seed: int) -> Obfuscated:
        """The same, with what was left out."""
        sizes = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
        inputs = np.random.default_rng(seed).normal(size=(_ROWS, *sizes[1:])).astype(np.float32)
        return onnx_model(model, profile=self.profile, ratio=self.ratio, seed=seed, inputs=inputs, budget=self.budget)
