"""Whether the radii that are attacked at fit the values of the data.

E469 is the counterpart of E465 (a radius far too small, `assess.checks.adversarial`): a ball around a sample that holds
the whole box of the data's own values, so that any sample may become any other and the number says nothing about small
changes. Most often the bounds are in other units than the data: values in 0..1 under bounds of 0,255, whose profile
attacks at a radius of 8.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vambrace.assess.probes import warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.assess.plan import PlannedCheck
    from vambrace.core.findings import Flag

__all__ = ["reach_flags"]

_POWERS = {"linf": 0.0, "l2": 0.5, "l1": 1.0}  # the box of side s in d dimensions is s * d ** power across


def reach_flags(checks: Sequence[PlannedCheck], *, spread: float, values: int) -> list[Flag]:
    """E469 for the checks whose largest radius exceeds the distance of the farthest two samples that the data allows.

    Args:
        checks: of the resolved plan.
        spread: largest minus smallest value of the probed samples, in the units of the inputs.
        values: how many values a sample has.
    """
    beyond: list[tuple[str, str, float, float]] = []
    for planned in checks:
        check: Any = planned.check
        eps, norm = getattr(check, "eps", ()), getattr(check, "norm", "")
        if eps and norm in _POWERS:
            across = spread * values ** _POWERS[norm]
            if max(eps) > across:
                beyond.append((planned.id, norm, max(eps), across))
    if not beyond:
        return []
    name, norm, radius, across = max(beyond, key=lambda each: each[2] / each[3] if each[3] else math.inf)
    others = f" (and in {len(beyond) - 1} more)" if len(beyond) > 1 else ""
    text = (
        f"the radius {norm} {radius:.4g} of {name}{others} is larger than the data is wide: its values spread over "
        f"{spread:.4g}, and no two samples are farther apart than {across:.4g}. Compare --bounds with the data's units."
    )
    return [warn("E469", text, ("adversarial",))]
