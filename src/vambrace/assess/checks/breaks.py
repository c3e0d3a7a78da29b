"""What the records of the adversarial check say, sample by sample and all together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vambrace.attacks.flags import black_box_flag, blind_flag
from vambrace.core.findings import Flag
from vambrace.core.intervals import wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.assess.checks.base import Record
    from vambrace.search.outcome import Attacked

__all__ = [
    "beaten",
    "blind",
    "curve_of",
    "is_broken",
    "is_correct",
    "is_robust",
    "mismatches",
    "turns_at",
    "turns_of",
]

_SUMMED = ("attacked", "broken", "regained", "forwards", "backwards", "verifications")


def is_correct(record: Record) -> bool:
    """Whether the model is right about the sample as it came."""
    return bool(record["finite"]) and record["prediction"] == record["label"]


def is_broken(record: Record, eps: float) -> bool:
    """Whether an attack within this radius broke the sample."""
    return "broken" in record and record["broken"] <= eps


def is_robust(record: Record, eps: float) -> bool:
    """Right, and neither broken nor claimed without proof."""
    return is_correct(record) and not is_broken(record, eps) and "mismatch" not in record


def curve_of(records: Sequence[Record], radii: Sequence[float]) -> dict[str, Any]:
    """Accuracy against radius, beginning with the same samples unchanged."""
    counts = [sum(map(is_correct, records))] + [sum(is_robust(record, eps) for record in records) for eps in radii]
    intervals = [wilson(count, len(records)) for count in counts]
    return {
        "eps": [0.0, *radii],
        "accuracy": [count / len(records) if records else 0.0 for count in counts],
        "low": [each.low if each else None for each in intervals],
        "high": [each.high if each else None for each in intervals],
    }


def mismatches(records: Sequence[Record]) -> list[Flag]:
    """E461 where claims of an attack did not hold."""
    claims = sum("mismatch" in record or "broken" in record for record in records)
    wrong = sum("mismatch" in record for record in records)
    if not wrong:
        return []
    text = f"{wrong:,} of {claims:,} adversarial examples that the attack claimed do not hold when asked about again."
    return [Flag(code="E461", level="unreliable", text=text, families=("adversarial",))]


def blind(records: Sequence[Record]) -> list[Flag]:
    """E464 where the attack had nothing to go by on too many of the samples that it did not break."""
    survivors = [record for record in records if is_correct(record) and "broken" not in record]
    flag = blind_flag(sum("blind" in record for record in survivors), len(survivors))
    return [] if flag is None else [flag]


def turns_of(outcome: Attacked, eps: float) -> list[dict[str, Any]]:
    """What each attack of an ensemble did at a radius, as JSON; none for a single attack."""
    return [
        {
            "eps": eps,
            "name": part.name,
            "attacked": part.attacked,
            "broken": part.broken,
            "regained": part.regained,
            "left": outcome.left,
            "black_box": part.black_box,
            "forwards": part.cost.forwards,
            "backwards": part.cost.backwards,
            "verifications": part.cost.verifications,
        }
        for part in outcome.parts
    ]


def turns_at(records: Sequence[Record], eps: float) -> list[dict[str, Any]]:
    """What each attack of an ensemble did at a radius in all units together, in the order of first turns."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        for turn in record.get("turns", ()):
            if turn["eps"] == eps:
                sums = found.setdefault(turn["name"], dict.fromkeys(_SUMMED, 0) | {"name": turn["name"]})
                sums |= {name: sums[name] + turn[name] for name in _SUMMED}
                sums["black_box"] = turn["black_box"]
    return list(found.values())


def beaten(records: Sequence[Record], radii: Sequence[float]) -> list[Flag]:
    """E467 or E468 where black-box attacks of an ensemble broke what those with gradients had left; the worst one."""
    flags: list[Flag | None] = []
    for eps in radii:
        units = [[turn for turn in record.get("turns", ()) if turn["eps"] == eps] for record in records]
        left = sum(turns[0]["left"] for turns in units if turns)
        broken = sum(turn["broken"] - turn["regained"] for turns in units for turn in turns if turn["black_box"])
        flags.append(black_box_flag(broken, broken + left))
    return sorted((flag for flag in flags if flag is not None), key=lambda flag: flag.code)[:1]
