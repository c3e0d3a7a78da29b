"""The examples that a finding shows: which of a unit's samples are saved, and what is said about them.

The worst come first, that is those the model is most surely wrong about; ties go to the smaller id, so that the
choice does not depend on order or company. A unit saves as many as the whole check may show, because it cannot know
what the others found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from vambrace.assess.evidence import save_evidence
from vambrace.core.findings import Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from vambrace.assess.checks.answers import Chunk
    from vambrace.assess.checks.base import Context, Record, Reduction

__all__ = ["allotted", "as_evidence", "example_name", "quota", "save_worst"]


def quota(images: int, points: int) -> int:
    """How many of a check's `images` a unit saves for each of its radii or severities, rounded up."""
    return -(-images // points)


def allotted(images: int, saved: Sequence[int]) -> list[int]:
    """How many examples each radius or severity shows, of `saved` ones: `images` at most in all, shared out in turns.

    None shows more than its quota, so that the choice does not depend on how many units saved theirs.

    >>> allotted(12, [3, 3, 3, 3, 3]), allotted(2, [0, 5, 1]), allotted(9, [1, 0, 2])
    ([3, 3, 2, 2, 2], [0, 1, 1], [1, 0, 2])
    """
    most = [min(each, quota(images, len(saved))) for each in saved]
    shown = [0] * len(saved)
    while sum(shown) < images and shown != most:
        for place, there in enumerate(most):
            shown[place] += shown[place] < there and sum(shown) < images
    return shown


def save_worst(
    context: Context, chunk: Chunk, changed: Mapping[int, Tensor], margins: Mapping[int, float], *, most: int
) -> dict[int, dict[str, Any]]:
    """Save up to `most` of the changed samples: place in the chunk to {"file", "name"}.

    Args:
        context: where to.
        chunk: the unit's samples.
        changed: by place, the changed sample.
        margins: by place, how wrong the model is about it.
        most: 0 saves none.
    """
    worst = sorted(changed, key=lambda place: (-margins[place], chunk.numbers[place]))[:most]
    return {
        place: {
            "file": save_evidence(context.evidence, chunk.inputs[place], changed[place]),
            "name": chunk.batch.names[place],
        }
        for place in worst
    }


def as_evidence(
    reduction: Reduction,
    record: Record,
    saved: Mapping[str, Any],
    *,
    kind: Literal["adversarial", "perturbed"],
    point: float,
    prediction: int,
    clean_prediction: int,
    facts: Mapping[str, Any],
) -> Evidence:
    """One saved example.

    Args:
        reduction: of its check.
        record: of its sample.
        saved: what `save_worst` said.
        kind: what changed it.
        point: the radius or severity.
        prediction: on the changed input.
        clean_prediction: on the input itself.
        facts: what else replay and readers need.
    """
    label = int(record["label"])
    return Evidence(
        finding=example_name(reduction.check, point, record["id"]),
        kind=kind,
        file=f"evidence/{saved['file']}",
        sample=record["id"],
        data={
            "label": label,
            "prediction": prediction,
            "label_name": _class_name(reduction.class_names, label),
            "prediction_name": _class_name(reduction.class_names, prediction),
            "clean_prediction": clean_prediction,
            "name": saved["name"],
            **facts,
        },
    )


def example_name(check: str, point: float, sample: str) -> str:
    """The name by which `vambrace replay` finds a saved example: check, radius or severity, and the end of the id.

    >>> example_name("pgd-linf", 0.3, "1311768467463790320")
    'pgd-linf-0.3-789abcdef0'
    """
    return f"{check}-{point:.6g}-{int(sample) % 16**10:010x}"


def _class_name(names: Sequence[str], label: int) -> str:
    return names[label] if label < len(names) else str(label)
