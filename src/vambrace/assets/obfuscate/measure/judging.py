"""What was measured, held against the gates: one function for each group of them.

`vambrace.assets.obfuscate.measure.gates` says which there are and when they hold.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

from vambrace.assets.obfuscate.measure.gates import Gates, Judged, inapplicable, judged_by, unmeasured
from vambrace.core.findings import Interval
from vambrace.core.intervals import wilson

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.measure.alignment import Alignment
    from vambrace.assets.obfuscate.measure.classifier import Classified
    from vambrace.assets.obfuscate.measure.equality import Equality
    from vambrace.assets.obfuscate.measure.keyless import Keyless, KeylessOutput
    from vambrace.assets.obfuscate.measure.overhead import Overhead
    from vambrace.assets.obfuscate.measure.readability import Readability
    from vambrace.assets.obfuscate.measure.survival import Survived

__all__ = [
    "judge_classifier",
    "judge_equality",
    "judge_keyless",
    "judge_locked",
    "judge_names",
    "judge_overhead",
    "judge_survival",
]

_EVERYWHERE = ("real", "random", "edge")
_FEWEST_ROWS = 10
_OPENED = 2
"""Wrong keys that open a file, or nearly, by more than luck."""
_SPREAD = 2.5
_MORE = 3
"""So many more keys where one of several numbers is enough."""

_FEWEST_KEYS = 2


def judge_equality(found: Equality | None, gates: Gates) -> list[Judged]:
    """`repeat`, `equality`, `top1` and `nan`."""
    if found is None:
        return [unmeasured(name, gates, "Answers were not compared.") for name in ("repeat", "equality", "top1", "nan")]
    repeat = found.repeat.differing + found.repeat.shapes_apart
    steady = repeat == 0
    exact = gates.profile == "exact"
    apart = found.worst(*(_EVERYWHERE if exact else ("real",)))
    close = found.relative(gates.relative_to, "real")
    far = found.relative(gates.relative_to, "random", "edge")
    drift = max((each.max_row for each in found.drift.values()), default=0.0)
    real, broken = found.decided("real"), found.worst("nan", "infinite")
    # Sums of channels that are mixed may hold infinities of both signs, as the tolerance profile says.
    allowed = 0 if exact else found.worst("infinite").nan_apart
    judged = [
        judged_by(
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
        return judged + [unmeasured(name, gates, why) for name in ("equality", "top1", "nan")]
    judged.append(
        judged_by(
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
        # Settings, and places in a row, are no further samples: rows are what was drawn.
        rows = found.asked("real")
        judged.append(
            judged_by(
                "top1",
                gates,
                holds=real.top1_same == real.top1_of,
                value=real.top1_same / real.top1_of,
                threshold=1.0,
                n=rows,
                interval=wilson(rows * real.top1_same // real.top1_of, rows),
                sentence=f"{real.top1_same} of {real.top1_of} decisions on real inputs are the same; "
                f"{real.near_ties} of those that differ are near ties.",
            )
        )
    else:
        judged.append(inapplicable("top1", gates, "No output holds decisions."))
    if broken.elements:
        judged.append(
            judged_by(
                "nan",
                gates,
                holds=broken.nan_apart == allowed and broken.shapes_apart == 0,
                value=float(broken.nan_apart - allowed),
                threshold=0.0,
                n=broken.elements,
                sentence=f"For inputs with NaN or infinity, {broken.nan_apart} elements are NaN on one side only"
                + (f", {allowed} of them for infinity, which this profile allows." if allowed else "."),
            )
        )
    else:
        judged.append(inapplicable("nan", gates, "No input holds floats, or nothing answers NaN and infinities."))
    return judged


def judge_overhead(found: Overhead | None, gates: Gates) -> list[Judged]:
    """`latency`, `size` and `memory`."""
    if found is None:
        return [unmeasured(name, gates, "Cost was not measured.") for name in ("latency", "size", "memory")]
    time, null = found.judged
    noisy = abs(null.median - 1) > gates.latency - 1
    judged = [
        unmeasured("latency", gates, f"The machine is too busy: the original over itself is {null.median:.3f}.")
        if noisy and gates.latency > 1
        else judged_by(
            "latency",
            gates,
            holds=time.median <= gates.latency,
            value=time.median,
            threshold=gates.latency,
            n=time.sessions,
            interval=time.interval,
            sentence=f"A call takes {time.median:.3f} times as long ({found.settings}, {found.clock}; middle half of "
            f"{time.low_quarter:.3f} to {time.high_quarter:.3f}); the original over itself is {null.median:.3f}.",
        ),
        judged_by(
            "size",
            gates,
            holds=found.size.ratio <= gates.size or found.size.obfuscated - found.size.original <= gates.size_spare,
            value=found.size.ratio,
            threshold=gates.size,
            sentence=f"The file has {found.size.obfuscated} bytes, the original {found.size.original}; "
            f"{gates.size_spare} more are spare whatever the ratio.",
        ),
    ]
    ratio = found.memory.ratio_above_idle if found.memory else None
    if found.memory is None or ratio is None:
        return [
            *judged,
            unmeasured("memory", gates, "Memory was not measured: the system does not say, or no process ran."),
        ]
    added = [(each - found.memory.idle) / 2**20 for each in (found.memory.original, found.memory.obfuscated)]
    judged.append(
        judged_by(
            "memory",
            gates,
            holds=ratio <= gates.memory or added[1] - added[0] <= gates.memory_spare / 2**20,
            value=ratio,
            threshold=gates.memory,
            sentence=f"Above an idle process of {found.memory.idle / 2**20:.1f} MiB the model takes {added[1]:.1f} "
            f"MiB, the original {added[0]:.1f} MiB; {gates.memory_spare / 2**20:.0f} MiB more are spare whatever the "
            "ratio.",
        )
    )
    return judged


def judge_names(found: Readability | None, gates: Gates) -> list[Judged]:
    """`names`."""
    if found is None:
        return [unmeasured("names", gates, "Names were not read.")]
    names = found.names
    sentence = (
        f"{names.kept} of {names.originals} names and {names.kept_words} of {names.original_words} words of the "
        f"original can be read, {names.trade_words} words of the trade, {names.documented} texts of documentation. "
        f"{names.interface} inputs and outputs keep their names."
    )
    holds = names.clean and not (gates.interface and names.interface)
    return [judged_by("names", gates, holds=holds, value=names.leakage, threshold=0.0, sentence=sentence)]


def judge_survival(found: tuple[Survived, ...], gates: Gates) -> list[Judged]:
    """One for each tool, those that are required and were not asked for included."""
    judged: list[Judged] = []
    for each in found:
        name = f"survival:{each.tool}"
        if each.most is None:
            judged.append(unmeasured(name, gates, f"{each.tool} was not measured: {each.why}."))
            continue
        if each.hidden <= gates.survival:
            judged.append(
                inapplicable(name, gates, "Too little of the structure was hidden for anything to come back.")
            )
            continue
        which = max(each.brought, key=lambda similarity: each.brought[similarity])
        judged.append(
            judged_by(
                name,
                gates,
                holds=each.most <= gates.survival,
                value=each.most,
                threshold=gates.survival,
                n=each.control.n if each.control else 0,
                sentence=f"{each.tool} brings back {each.most:z.3f} of a similarity at most ({which}): it rises by "
                f"{each.risen[which]:z.3f}"
                + (
                    f", and for nine of ten of {each.control.n} unrelated networks by at most "
                    f"{each.control.risen[which]:z.3f}"
                    if each.control
                    else ""
                )
                + f". {each.hidden:.3f} had been hidden.",
            )
        )
    there = {each.gate for each in judged}
    missing = [name for name in gates.required if name.startswith("survival:") and name not in there]
    return judged + [unmeasured(name, gates, f"{name.removeprefix('survival:')} was not run.") for name in missing]


def judge_classifier(found: Classified | None, gates: Gates) -> list[Judged]:
    """`naive`."""
    if found is None:
        return [
            unmeasured("naive", gates, "No classifier was trained: that takes the obfuscator itself, and half an hour.")
        ]
    naive, branches, adaptive = (found.row(name) for name in ("naive", "branches", "adaptive"))
    threshold = min(1.0, gates.naive * found.chance)
    return [
        judged_by(
            "naive",
            gates,
            holds=naive.accuracy <= threshold,
            value=naive.accuracy,
            threshold=threshold,
            n=naive.n,
            interval=naive.interval,
            sentence=f"Trained on clean graphs, an attacker names the right one of {len(found.families)} families for "
            f"{naive.right} of {naive.n} networks; branch by branch, for {branches.right}; trained on our own output, "
            f"for {adaptive.right}.",
        )
    ]


def judge_keyless(found: Keyless | None, gates: Gates) -> list[Judged]:
    """`keyless`: by the output that is nearest to the original's."""
    if found is None:
        return [unmeasured("keyless", gates, "No key-locked file at rest was given.")]
    if not found.outputs:
        return [inapplicable("keyless", gates, "No output depends on weights.")]
    if found.rows < _FEWEST_ROWS:
        why = f"{found.rows} real rows say too little about what the file does; {_FEWEST_ROWS} are needed."
        return [unmeasured("keyless", gates, why)]
    told = [each for each in found.outputs if each.told]
    if not told:
        why = "Nothing could be told: the answers to real rows are zeros, no numbers, or such as any weights may give."
        return [unmeasured("keyless", gates, why)]
    # Each as a multiple of what is allowed, so that the file as it is and wrong keys can be held against each other.
    ranked = [(_beyond(each, gates, len(told)), each) for each in told]
    over, worst = max(ranked, key=lambda pair: pair[0])
    mean = float(np.mean(worst.wrong)) if worst.wrong else None
    likeness = worst.without if mean is None else mean
    assert likeness is not None
    return [
        judged_by(
            "keyless",
            gates,
            holds=over <= 1,
            value=likeness,
            threshold=gates.keyless_once if mean is None else gates.keyless,
            n=found.rows,
            interval=_spread(worst, len(told)),
            sentence=_without_key(found, worst),
        )
    ]


def _spread(output: KeylessOutput, several: int) -> Interval | None:
    """Of the mean over wrong keys, beyond that over other weights: by its lower end the gate judges."""
    if len(output.wrong) < _FEWEST_KEYS:
        return None
    error, middle = _error(output, several), float(np.mean(output.wrong))
    return Interval(low=middle - error, high=middle + error, method="t") if error else None


def _error(output: KeylessOutput, several: int) -> float:
    """Half of the 95 % interval of the mean over wrong keys, beyond that over other weights, for one of several."""
    each = [values for values in (output.wrong, output.strangers) if len(values) > 1]
    error = float(sum(np.var(values, ddof=1) / len(values) for values in each)) ** 0.5
    return error * float(student.ppf(1 - 0.025 / several, max(1, len(output.wrong) - 1)))


def _beyond(output: KeylessOutput, gates: Gates, several: int) -> float:
    """Likeness over what is allowed: above 1 where it is surely more.

    One file that answers the reverse of the original is as good as one that answers the same, and so is one of several
    numbers. Wrong keys are another matter: nobody knows which of them do the one and which the other.
    """
    if output.given:
        return math.inf
    once = abs(output.without or 0.0) / max(gates.keyless_once, 1e-9)
    if not output.wrong:
        return once
    if output.opened >= _OPENED:
        return math.inf
    by_luck = _OPENED + math.log2(several) / 2
    # Some of the others do so by chance, and how many is seen of these.
    for keys, chance, least in (
        (output.nearly, output.nearly_strangers, by_luck),
        (output.telling, output.telling_strangers, by_luck + _MORE),
    ):
        if keys - chance >= least + _SPREAD * math.sqrt(chance):
            return math.inf
    once = max(once, output.turned / max(gates.keyless_once, 1e-9))
    surely = float(np.mean(output.wrong)) - _error(output, several)
    return max(once, surely / max(gates.keyless, 1e-9))


def _without_key(found: Keyless, worst: KeylessOutput) -> str:
    bare = None if worst.without is None else f"{worst.without:.2f} without its key"
    keys = f"{np.mean(worst.wrong):.2f} with {found.keys} wrong keys on average" if worst.wrong else None
    sentence = "Where 1 is the original's function and 0 is chance, the locked file is at "
    sentence += " and at ".join(part for part in (bare, keys) if part) + f", on {found.rows} real rows"
    if worst.same is not None and worst.chance is not None:
        sentence += (
            f": {100 * worst.same:.1f} % of the original's decisions, where chance gives {100 * worst.chance:.1f} %"
        )
    if worst.wrong:
        sentence += f"; for whoever turns round or moves what a key gives, at {worst.turned:.2f}"
    sentence += "." + (f" With {found.failed} keys it does not run." if found.failed else "")
    sentence += f" {worst.opened} of the keys open it." if worst.opened else ""
    for what, keys, others in (
        ("nearly open it", worst.nearly, worst.nearly_strangers),
        ("give one of its numbers a row", worst.telling, worst.telling_strangers),
    ):
        sentence += f" {keys} of the keys {what}, and {others} of as many other weights." if keys > others else ""
    sentence += f" {worst.given} of its numbers a row it gives without a key." if worst.given else ""
    told = f" With {found.broken} keys it answers with NaN or an infinity, which tells that they are wrong."
    return sentence + (told if found.broken else "")


def judge_locked(found: Alignment | None, gates: Gates) -> list[Judged]:
    """`locked`."""
    if found is None:
        return [unmeasured("locked", gates, "No key-locked file at rest was given.")]
    if found.share is None or not found.told:
        return [unmeasured("locked", gates, "No layers of the locked file and the original could be told to match.")]
    threshold = found.chance + gates.locked
    return [
        judged_by(
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
