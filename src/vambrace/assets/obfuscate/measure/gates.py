"""What has to hold before an obfuscated model is handed out, judged from what was measured.

| gate | holds where | value |
|---|---|---|
| `repeat` | the original beside itself differs nowhere, without which equality means nothing | elements |
| `equality` | exact: no bit differs, on real, random and edge inputs | largest difference |
| | tolerance: at most `relative` of the largest value (of the sample, or of the output), on real inputs | the same |
| `top1` | every decision is the same, where outputs hold decisions | share |
| `nan` | NaN stands in the same places for inputs that hold NaN or infinity | places that differ |
| `latency` | median ratio at most `latency`, by processor time for one thread, else by the wall clock | ratio |
| `size`, `memory` | ratio at most `size`, `memory`, or no more bytes added than are spare | ratio |
| `names` | no name or word of the original, no word of the trade, no documentation | share that leaks |
| `survival:TOOL` | a tool brings no more than `survival` of a similarity back | points of similarity |
| `naive` | an attacker trained on clean graphs is right at most `naive` times as often as chance | share |
| `keyless` | with wrong keys, a locked file is at most `keyless` nearer to the original than chance | likeness |
| | and without a key at most `keyless_once`, or that far the other way, since that is one draw | the same |
| | and no more keys than chance tells open it, nearly or in one of several numbers, nor does the file | the same |
| `locked` | of a key-locked file at rest, at most chance plus `locked` channels are re-identified | share |

A gate passes, fails, does not apply (no tool can bring back what was never hidden), or was not measured.
Those named in `required` have to be measured; one that is measured and fails always counts. Attackers who read branch
by branch or trained on our output are reported and not judged: no threshold is known that a keyless rewrite of a graph
could promise against them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vambrace.assets.obfuscate.planning import BUDGET
from vambrace.core.options import Options, Ratio
from vambrace.core.options import require as hold

if TYPE_CHECKING:
    from vambrace.core.findings import Interval

__all__ = ["Gates", "Judged", "Word", "inapplicable", "judged_by", "unmeasured"]

Word = Literal["pass", "fail", "not measured", "does not apply"]
_ALWAYS = (
    "repeat",
    "equality",
    "top1",
    "nan",
    "latency",
    "size",
    "memory",
    "names",
    "survival:ort-basic",
    "survival:ort-extended",
    "survival:ort-all",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates(Options):
    """Thresholds, and which gates have to be measured.

    Attributes:
        profile: "exact" or "tolerance": which equality is asked for.
        relative: of the tolerance profile.
        relative_to: the largest value of the same "sample", which is stricter, or of the "output" over all samples.
        latency, size, memory: most ratio, above 0 for the first and at least 1 for the others; memory is what is above
            an idle process.
        size_spare, memory_spare: bytes that may be added whatever the ratio, so that small models can be hidden; the
            second is what a runtime takes for as many operators as fit into the first.
        survival: most rise of a similarity beyond the one of unrelated networks, 0 to 1.
        naive: times chance, at least 1.
        keyless: likeness above chance, 0 to 1, on average over wrong keys; it fails where that is sure at 95 %.
        keyless_once: the same for the file as it lies there; reversed answers are as good as the original's.
        locked: above chance, 0 to 1.
        interface: whether inputs and outputs must have lost their names as well.
        required: names of gates.
    """

    profile: Literal["exact", "tolerance"] = "exact"
    relative: Ratio = 1e-5
    relative_to: Literal["sample", "output"] = "sample"
    latency: Ratio = BUDGET
    size: Ratio = 1.1
    memory: Ratio = 1.1
    size_spare: int = 262_144
    memory_spare: int = 25_165_824
    survival: Ratio = 0.05
    naive: Ratio = 2.0
    keyless: Ratio = 0.03
    keyless_once: Ratio = 0.5
    locked: Ratio = 0.05
    interface: bool = False
    required: tuple[str, ...] = _ALWAYS

    def __post_init__(self) -> None:
        ratios = (self.size, self.memory, self.naive)
        shares = (self.survival, self.keyless, self.keyless_once, self.locked)
        hold(
            self.profile in {"exact", "tolerance"}
            and self.relative_to in {"sample", "output"}
            and self.relative >= 0
            and self.latency > 0
            and all(ratio >= 1 for ratio in ratios)
            and min(self.size_spare, self.memory_spare) >= 0
            and all(0 <= share <= 1 for share in shares),
            code="E825",
            seen=f"profile {self.profile!r}, relative {self.relative:g}, latency {self.latency:g}, ratios {ratios}, "
            f"shares {shares}, spare {(self.size_spare, self.memory_spare)}",
            expected="the profile exact or tolerance, relative and spare bytes at least 0, latency above 0, ratios at "
            "least 1, shares from 0 to 1",
            fix="leave out what you do not mean to change",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One gate.

    Attributes:
        gate: its name.
        word: how it stands.
        sentence: what was found, in plain words.
        value: what was compared, or None.
        threshold: with what.
        n: how many observations the value rests on; 0 where it is a count or a single measurement.
        interval: 95 %, where the value is statistical.
        required: whether it has to be measured.
    """

    gate: str
    word: Word
    sentence: str
    value: float | None
    threshold: float | None
    n: int
    interval: Interval | None
    required: bool


def judged_by(
    gate: str,
    gates: Gates,
    *,
    holds: bool,
    value: float,
    threshold: float,
    sentence: str,
    n: int = 0,
    interval: Interval | None = None,
) -> Judged:
    """A gate that was measured."""
    return Judged(
        gate=gate,
        word="pass" if holds else "fail",
        sentence=sentence,
        value=value,
        threshold=threshold,
        n=n,
        interval=interval,
        required=gate in gates.required,
    )


def unmeasured(gate: str, gates: Gates, why: str, word: Word = "not measured") -> Judged:
    """A gate that was not, and why."""
    return Judged(
        gate=gate,
        word=word,
        sentence=why,
        value=None,
        threshold=None,
        n=0,
        interval=None,
        required=gate in gates.required,
    )


def inapplicable(gate: str, gates: Gates, why: str) -> Judged:
    """A gate that says nothing here, and why."""
    return unmeasured(gate, gates, why, "does not apply")
