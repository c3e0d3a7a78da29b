"""Our own adversary: a script that takes an obfuscated model apart with everything that is cheap, and is timed.

It runs the model on a few inputs and believes what it sees, round after round, until nothing changes any more:

1. branches whose condition never changed become the side that was taken, then the bodies inside those;
2. values that never changed become constants: packed weights, offsets found at run time, weights restored from a key;
3. of values that were equal in every run, one is kept: chains of identities, decoys of equal result, work done twice;
4. values that are a plain activation of an earlier one, however computed, become that activation;
5. products and gathers by constants go into weights, through what lies between;
6. layers whose results are added, put side by side or chained become one layer;
7. channels between two layers get a norm from 1 to 2 by powers of two, so that scales are gone;
8. operators and names are put into an order that the graph alone decides.

Its answers are held against the model's own, on rows that it has not seen: an attack that breaks the model has not won.
What it leaves is read by the same metrics as the obfuscated file. It is a lower bound of what people can do with more
time, and says nothing about them.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.measure.difference import NOTHING, Difference, compare, joined
from vambrace.assets.obfuscate.measure.draft import Draft
from vambrace.assets.obfuscate.measure.equality import run_rows
from vambrace.assets.obfuscate.measure.linear import absorb, even_out, merge
from vambrace.assets.obfuscate.measure.observing import observe
from vambrace.assets.obfuscate.measure.runtime import Network, Settings
from vambrace.assets.obfuscate.measure.untangling import Recogniser, drop_copies, fold_constants, settle_branches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from onnx import ModelProto

    from vambrace.assets.obfuscate.measure.inputs import Rows

__all__ = ["TakenApart", "take_apart"]

_ROUNDS = 8
_STEPS = ("branches", "constants", "copies", "activations", "absorbed", "merged", "evened")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TakenApart:
    """What the script left.

    Attributes:
        model: an onnx.ModelProto.
        steps: rewrite -> how often it applied.
        rounds: how many.
        seconds: CPU time, runs of the model included.
        difference: its answers beside the model's, on other rows.
    """

    model: ModelProto
    steps: dict[str, int]
    rounds: int
    seconds: float
    difference: Difference

    def as_json(self) -> dict[str, object]:
        """As JSON data, without the model."""
        return {
            "steps": self.steps,
            "rounds": self.rounds,
            "cpu_seconds": self.seconds,
            "difference": asdict(self.difference),
        }


def take_apart(
    model: ModelProto, rows: Rows, other_rows: Rows, *, keys: Mapping[str, NDArray[Any]] | None = None
) -> TakenApart:
    """Undo what can be undone.

    Args:
        model: an onnx.ModelProto.
        rows: what the attacker runs it on; two different calls or more, for one shows nothing to be constant.
        other_rows: rows to check the result on.
        keys: inputs that the attacker has, such as a stolen key; they become constants too.

    Raises:
        ArtifactRefused: E821 or E822, where the model does not run.
    """
    begin = time.process_time()
    draft = Draft(model)
    draft.fix(keys or {})
    steps: dict[str, int] = dict.fromkeys(_STEPS, 0)
    rounds = 0
    for _ in range(_ROUNDS):
        rounds += 1
        before = dict(steps)
        observed = observe(draft.model(), rows)
        steps["branches"] += settle_branches(draft, observed)
        steps["constants"] += fold_constants(draft, observed)
        steps["copies"] += drop_copies(draft, observed)
        if steps == before:
            recogniser = Recogniser(draft, observed)
            observe(draft.model(), rows, watch=recogniser.watch)
            steps["activations"] += recogniser.rewrite()
            steps["absorbed"] += absorb(draft)
            steps["merged"] += merge(draft)
        if steps == before:
            break
    steps["evened"] = even_out(draft)
    left = draft.model(canonical=True)
    seconds = time.process_time() - begin
    return TakenApart(
        model=left, steps=steps, rounds=rounds, seconds=seconds, difference=_beside(model, left, other_rows, keys)
    )


def _beside(model: ModelProto, left: ModelProto, rows: Rows, keys: Mapping[str, NDArray[Any]] | None) -> Difference:
    settings = Settings(level="disabled")
    one, two = Network(model, settings, keys), Network(left, settings)
    found = NOTHING
    for mine, theirs in zip(run_rows(one, rows), run_rows(two, rows), strict=True):
        found = joined(found, compare(mine, theirs))
    return found
