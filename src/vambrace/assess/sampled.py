"""Which samples a check measured, as results say it: what tells whether two runs measured the same. Needs no torch.

A check's own `limit` takes a part of its data, so equal data does not mean equal samples. `plan.checks[].samples` of
results says for each role which of the role's samples the check measured, in the form of `vambrace.core.outcomes`: one
bit a sample, in ascending order of ids. `data.<role>` names the role's samples by two digests, of their contents and of
their ids: with both equal, the n-th sample of one run is the n-th of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vambrace.core import outcomes

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Sampled", "sampled"]

_DIGESTS = ("sha256", "ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The samples behind the numbers of one check; two are equal where they are the same samples.

    Attributes:
        sources: data role to the digests of all its samples' contents and ids.
        chosen: data role to whether the check measured each of them, in ascending order of ids; empty for preflight,
            whose samples follow from the data.
    """

    sources: Mapping[str, tuple[str, ...]]
    chosen: Mapping[str, tuple[bool, ...]]


def sampled(check: str, *, data: Mapping[str, Any], plan: Mapping[str, Any]) -> Sampled | None:
    """The samples of the check with this id; None where results do not say.

    Args:
        check: id of a check, or "preflight".
        data: `Results.data`.
        plan: `Results.plan`.
    """
    chosen: dict[str, tuple[bool, ...]] = {}
    if check != "preflight":
        planned = next((each for each in plan.get("checks", ()) if each["id"] == check), dict[str, Any]())
        for role, text in cast("Mapping[str, object]", planned.get("samples", {})).items():
            mask = outcomes.unpack(text)
            if mask is None:
                return None
            chosen[role] = mask
        if not chosen:
            return None
    sources: dict[str, tuple[str, ...]] = {}
    for role in chosen or data:
        found = [data.get(role, {}).get(name) for name in _DIGESTS]
        if not all(isinstance(each, str) for each in found):
            return None
        sources[role] = tuple(cast("list[str]", found))
    return Sampled(sources=sources, chosen=chosen)
