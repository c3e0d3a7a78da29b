"""Whether a check can run on what is assessed: data roles, access, and the form of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vambrace.core.access import Access
from vambrace.errors import AccessError, ConfigError

if TYPE_CHECKING:
    from vambrace.assess.checks.base import Check
    from vambrace.assess.plan import PlannedCheck
    from vambrace.core.options import Options

__all__ = ["Subject", "misfit", "why_not"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is assessed, as far as the choice of checks depends on it.

    Attributes:
        access: what the model gives.
        roles: data roles that the plan has.
        input_shape: of one sample.
        span: widest distance between the bounds, in input units; None for a model without bounds.
        num_classes: width of the logits.
        majority: share of the commonest class in the data, what always guessing it would get right.
    """

    access: Access
    roles: Sequence[str]
    input_shape: Sequence[int]
    span: float | None
    num_classes: int
    majority: float = 0.0


def why_not(planned: PlannedCheck, subject: Subject) -> ConfigError | AccessError | None:
    """Why a check cannot run on this subject, or None."""
    check: Check = planned.check
    missing = [role for role in check.roles if role not in subject.roles]
    if missing:
        return ConfigError(
            "E169",
            seen=f"{planned.id} needs data for {' and '.join(missing)}, and the plan has none",
            expected=f"data for {' and '.join(check.roles)}",
            fix=f"add {' '.join(f'--{role} SOURCE' for role in missing)}, or leave the check out",
        )
    if subject.access < check.needs:
        return AccessError(
            "E110",
            seen=f"{planned.id} needs {check.needs.name.lower()}, and the model gives {subject.access.name.lower()}",
            expected=f"a model that gives {check.needs.name.lower()}",
            fix=f"load the model in a form that gives {check.needs.name.lower()}, or leave the check out",
        )
    perturbation = cast("Options | None", getattr(check, "perturbation", None))
    if perturbation is not None:
        name = getattr(check, "name", "")
        reason = misfit(name, type(perturbation), subject.input_shape)
        if not reason and subject.span is None:
            reason = "the model has no bounds, which severities are scaled to"
        if reason:
            return ConfigError(
                "E169", seen=f"{planned.id}: {reason}", expected="inputs that it can change", fix="leave the check out"
            )
    return None


def misfit(name: str, kind: type[Any], shape: Sequence[int]) -> str:
    """Why a perturbation does not apply to samples of this shape; "" where it does."""
    if not getattr(kind, "needs_images", False):
        return ""
    if len(shape) != 3:
        return f"it changes pictures (channels, height, width), and a sample has the shape {tuple(shape)}"
    if name == "jpeg" and shape[0] not in (1, 3):
        return f"JPEG has 1 or 3 channels, and a sample has {shape[0]}"
    return ""
