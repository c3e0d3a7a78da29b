"""What has to hold before an obfuscated model is handed out, judged from what was measured.

| gate | holds where | value |
|---|---|---|
| `repeat` | the original beside itself differs nowhere, without which equality means nothing | elements |
| `equality` | exact: no bit differs, on real, random and edge inputs | largest difference |
| | tolerance: at most `relative` of the largest value (of the sample, or of the output), on real inputs | the same |
| `top1` | every decision is the same, where outputs hold decisions | share |
| `nan` | NaN stands in the same places for inputs that hold NaN or infinity | places that differ |
| `latency` | median ratio at most `latency`, by processor time for one thread, else by the wall clock | ratio |
| `size`, `memory` | ratio at most `size`, `memory`; memory is what is above an idle process | ratio |
| `names` | no name or word of the original, no word of the trade, no documentation | share that leaks |
| `survival:TOOL` | a tool raises no similarity by more than `survival` | points of similarity |
| `naive` | an attacker trained on clean graphs is right at most `naive` times as often as chance | share |
| `locked` | of a key-locked file at rest, at most chance plus `locked` channels are re-identified | share |

A gate passes, fails, does not apply (no tool can bring back what was never hidden), or was not measured.
Those named in `required` have to be measured; one that is measured and fails always counts. The adaptive attacker is
reported and not judged: no threshold is known that a keyless rewrite of a graph could promise against somebody who has
the same software.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vambrace.core.intervals import wilson
from vambrace.core.options import Options, Ratio
from vambrace.core.options import require as hold

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.measure.alignment import Alignment
    from vambrace.assets.obfuscate.measure.classifier import Classified
    from vambrace.assets.obfuscate.measure.equality import Equality
    from vambrace.assets.obfuscate.measure.overhead import Overhead
    from vambrace.assets.obfuscate.measure.readability import Readability
    from vambrace.assets.obfuscate.measure.survival import Survived
    from vambrace.core.findings import Interval

__all__ = [
    "Gates",
    "Judged",
    "Word",
    "judge_classifier",
    "judge_equality",
    "judge_locked",
    "judge_names",
    "judge_overhead",
    "judge_survival",
]

Word = Literal["pass", "fail", "not measured", "does not apply"]
_EVERYWHERE = ("real", "random", "edge")
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
        latency, size, memory: most ratio.
        survival: most rise of a similarity, 0 to 1.
        naive: times chance, at least 1.
        locked: above chance, 0 to 1.
        interface: whether inputs and outputs must have lost their names as well.
        required: names of gates.
    """

    profile: Literal["exact", "tolerance"] = "exact"
    relative: Ratio = 1e-5
    relative_to: Literal["sample", "output"] = "sample"
    latency: Ratio = 1.05
    size: Ratio = 1.1
    memory: Ratio = 1.1
    survival: Ratio = 0.05
    naive: Ratio = 2.0
    locked: Ratio = 0.05
    interface: bool = False
    required: tuple[str, ...] = _ALWAYS

    def __post_init__(self) -> None:
        ratios = (self.latency, self.size, self.memory, self.naive)
        shares = (self.survival, self.locked)
        hold(
            self.profile in {"exact", "tolerance"}
            and self.relative_to in {"sample", "output"}
            and self.relative >= 0
            and all(ratio >= 1 for ratio in ratios)
            and all(0 <= share <= 1 for share in shares),
            code="E825",
            seen=f"profile {self.profile!r}, relative {self.relative:g}, ratios {ratios}, shares {shares}",
            expected="the profile exact or tolerance, relative at least 0, ratios at least 1, shares from 0 to 1",
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


def judge_equality(found: Equality | None, gates: Gates) -> list[Judged]:
    """`repeat`, `equality`, `top1` and `nan`."""
    if found is None:
        return [_none(name, gates, "Answers were not compared.") for name in ("repeat", "equality", "top1", "nan")]
    repeat = found.repeat.differing + found.repeat.shapes_apart
    steady = repeat == 0
    exact = gates.profile == "exact"
    apart = found.worst(*(_EVERYWHERE if exact else ("real",)))
    close = found.relative(gates.relative_to, "real")
    far = found.relative(gates.relative_to, "random", "edge")
    drift = max((each.max_row for each in found.drift.values()), default=0.0)
    real, broken = found.decided("real"), found.worst("nonfinite")
    judged = [
        _judged(
            "repeat",
            gates,
            holds=steady,
            value=float(repeat),
            threshold=0.0,
            n=found.repeat.rows,
            sentence="The original gives the same answers each time it is asked."
            if steady
            else f"The original differs from itself in {repeat} elements, so equality cannot be judged.",
        )
    ]
    if not steady:
        why = "The original is not deterministic under these settings."
        return judged + [_none(name, gates, why) for name in ("equality", "top1", "nan")]
    judged.append(
        _judged(
            "equality",
            gates,
            holds=apart.exact if exact else close <= gates.relative and not apart.nan_apart,
            value=apart.max_abs if exact else close,
            threshold=0.0 if exact else gates.relative,
            n=apart.rows,
            sentence=f"On {'real, random and edge' if exact else 'real'} inputs {apart.differing} of {apart.elements} "
            f"elements differ in a bit; the largest difference is {apart.max_abs:.3g}, {apart.max_row:.3g} of its "
            f"sample's largest value, {apart.max_ulp:.0f} representable numbers."
            + (f" {apart.shapes_apart} answers have another shape." if apart.shapes_apart else "")
            + (
                ""
                if exact
                else f" On random and edge inputs it is {far:.3g} of the {gates.relative_to}'s largest value."
            )
            + f" The original's own answers differ by {drift:.3g} of a sample's between runtime settings.",
        )
    )
    if real.top1_of:
        judged.append(
            _judged(
                "top1",
                gates,
                holds=real.top1_same == real.top1_of,
                value=real.top1_same / real.top1_of,
                threshold=1.0,
                n=real.top1_of,
                interval=wilson(real.top1_same, real.top1_of),
                sentence=f"{real.top1_same} of {real.top1_of} decisions on real inputs are the same; "
                f"{real.near_ties} of those that differ are near ties.",
            )
        )
    else:
        judged.append(_idle("top1", gates, "No output holds decisions."))
    if broken.elements:
        judged.append(
            _judged(
                "nan",
                gates,
                holds=broken.nan_apart == 0 and broken.shapes_apart == 0,
                value=float(broken.nan_apart),
                threshold=0.0,
                n=broken.elements,
                sentence=f"For inputs with NaN or infinity, {broken.nan_apart} elements are NaN on one side only.",
            )
        )
    else:
        judged.append(_idle("nan", gates, "No input holds floats."))
    return judged


def judge_overhead(found: Overhead | None, gates: Gates) -> list[Judged]:
    """`latency`, `size` and `memory`."""
    if found is None:
        return [_none(name, gates, "Cost was not measured.") for name in ("latency", "size", "memory")]
    time, null = found.judged
    noisy = abs(null.median - 1) > gates.latency - 1
    judged = [
        _none("latency", gates, f"The machine is too busy: the original over itself is {null.median:.3f}.")
        if noisy and gates.latency > 1
        else _judged(
            "latency",
            gates,
            holds=time.median <= gates.latency,
            value=time.median,
            threshold=gates.latency,
            n=time.rounds,
            interval=time.interval,
            sentence=f"A call takes {time.median:.3f} times as long ({found.settings}, {found.clock}; middle half of "
            f"{time.low_quarter:.3f} to {time.high_quarter:.3f}); the original over itself is {null.median:.3f}.",
        ),
        _judged(
            "size",
            gates,
            holds=found.size.ratio <= gates.size,
            value=found.size.ratio,
            threshold=gates.size,
            sentence=f"The file has {found.size.obfuscated} bytes, the original {found.size.original}.",
        ),
    ]
    ratio = found.memory.ratio_above_idle if found.memory else None
    if found.memory is None or ratio is None:
        return [*judged, _none("memory", gates, "Memory was not measured: the system does not say, or no process ran.")]
    added = [(each - found.memory.idle) / 2**20 for each in (found.memory.original, found.memory.obfuscated)]
    judged.append(
        _judged(
            "memory",
            gates,
            holds=ratio <= gates.memory,
            value=ratio,
            threshold=gates.memory,
            sentence=f"Above an idle process of {found.memory.idle / 2**20:.1f} MiB the model takes {added[1]:.1f} "
            f"MiB, the original {added[0]:.1f} MiB.",
        )
    )
    return judged


def judge_names(found: Readability | None, gates: Gates) -> list[Judged]:
    """`names`."""
    if found is None:
        return [_none("names", gates, "Names were not read.")]
    names = found.names
    sentence = (
        f"{names.kept} of {names.originals} names and {names.kept_words} of {names.original_words} words of the "
        f"original can be read, {names.trade_words} words of the trade, {names.documented} texts of documentation. "
        f"{names.interface} inputs and outputs keep their names."
    )
    holds = names.clean and not (gates.interface and names.interface)
    return [_judged("names", gates, holds=holds, value=names.leakage, threshold=0.0, sentence=sentence)]


def judge_survival(found: tuple[Survived, ...], gates: Gates) -> list[Judged]:
    """One for each tool, those that are required and were not asked for included."""
    judged: list[Judged] = []
    for each in found:
        name = f"survival:{each.tool}"
        if each.most is None:
            judged.append(_none(name, gates, f"{each.tool} was not measured: {each.why}."))
            continue
        if each.hidden <= gates.survival:
            judged.append(_idle(name, gates, "Too little of the structure was hidden for anything to come back."))
            continue
        which = max(each.risen, key=lambda similarity: each.risen[similarity])
        judged.append(
            _judged(
                name,
                gates,
                holds=each.most <= gates.survival,
                value=each.most,
                threshold=gates.survival,
                sentence=f"{each.tool} raises a similarity by {each.most:.3f} at most ({which}); {each.hidden:.3f} "
                "had been hidden.",
            )
        )
    there = {each.gate for each in judged}
    missing = [name for name in gates.required if name.startswith("survival:") and name not in there]
    return judged + [_none(name, gates, f"{name.removeprefix('survival:')} was not run.") for name in missing]


def judge_classifier(found: Classified | None, gates: Gates) -> list[Judged]:
    """`naive`."""
    if found is None:
        return [_none("naive", gates, "No classifier was trained: that takes the obfuscator itself.")]
    naive, adaptive = found.row("naive"), found.row("adaptive")
    threshold = min(1.0, gates.naive * found.chance)
    return [
        _judged(
            "naive",
            gates,
            holds=naive.accuracy <= threshold,
            value=naive.accuracy,
            threshold=threshold,
            n=naive.n,
            interval=naive.interval,
            sentence=f"Trained on clean graphs, an attacker names the right one of {len(found.families)} families for "
            f"{naive.right} of {naive.n} networks; trained on our own output, for {adaptive.right}.",
        )
    ]


def judge_locked(found: Alignment | None, gates: Gates) -> list[Judged]:
    """`locked`."""
    if found is None or found.share is None or not found.told:
        return [_none("locked", gates, "No key-locked file at rest was given.")]
    threshold = found.chance + gates.locked
    return [
        _judged(
            "locked",
            gates,
            holds=found.share <= threshold,
            value=found.share,
            threshold=threshold,
            n=found.channels,
            interval=found.interval,
            sentence=f"Of the locked file, {found.found} of {found.channels} channels are re-identified; guessing "
            f"gives {100 * found.chance:.1f} %. {100 * found.values:.1f} % of its weights are still the original's by "
            "value.",
        )
    ]


def _judged(
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


def _none(gate: str, gates: Gates, why: str, word: Word = "not measured") -> Judged:
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


def _idle(gate: str, gates: Gates, why: str) -> Judged:
    return _none(gate, gates, why, "does not apply")
