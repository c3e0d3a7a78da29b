"""What an audit found, and the file it is kept in. Needs no torch.

    >>> from vambrace.privacy.dp.charges import Charge, Spent
    >>> step = Charge(mechanism="gaussian", noise_multiplier=4.0, sampling="full", sample_rate=1.0)
    >>> found = Bound.of(canaries=1000, guesses=200, correct=130, delta=1e-5, confidence=0.95, method="one_run")
    >>> Audited(bound=found, spent=Spent([(step, 1)])).holds
    True

The file is canonical JSON with a checksum. Its numbers are not believed: a reader proves the bound again from its
counts, and accounts for the claim again from its charges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from vambrace.core import canonical
from vambrace.core.files import write_file
from vambrace.core.options import Options
from vambrace.core.spec import read
from vambrace.errors import ConfigError
from vambrace.privacy.dp import accounting
from vambrace.privacy.dp.charges import Charge, Spent
from vambrace.privacy.dp.guessing import Bound

if TYPE_CHECKING:
    from pathlib import Path

    from vambrace.privacy.dp.accounting import Guarantee

__all__ = ["Audited", "FORMAT", "parse_audit"]

FORMAT = "vambrace-dp-audit/1"

_NEAR = 1e-5  # bounds of equal counts on different machines


@dataclass(frozen=True, slots=True, kw_only=True)
class _Charged(Options):
    charge: Charge
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _File(Options):
    format: Literal["vambrace-dp-audit/1"]
    bound: Bound
    spent: tuple[_Charged, ...]
    claimed: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A claim and what was found against it.

    Attributes:
        bound: epsilon is at least this, at the confidence of the bound.
        spent: what the audited training charged.
    """

    bound: Bound
    spent: Spent

    @property
    def claim(self) -> Guarantee:
        """What the charges claim, at the delta of the bound."""
        return accounting.epsilon(self.spent, delta=self.bound.delta)

    @property
    def holds(self) -> bool:
        """Whether nothing was found against the claim. That proves nothing for it."""
        return self.bound.epsilon <= self.claim.epsilon

    def __str__(self) -> str:
        found, claimed = self.bound, self.claim.epsilon
        against = "which contradicts" if found.epsilon > claimed else "and nothing against"
        sure = f"{100 * found.confidence:g} % confidence"
        right = f"{found.correct:,} of {found.guesses:,} guesses about {found.canaries:,} canaries were right"
        least = f"epsilon is at least {found.epsilon:.3g} at delta {found.delta:g}"
        return f"{least} ({sure}; {right}), {against} the claim of {claimed:.3g}"

    def write(self, path: Path) -> None:
        """Put it at `path`, whole or not at all.

        Raises:
            ResourceError: E601, when it cannot be written.
        """
        claimed = self.claim.epsilon
        file = _File(
            format=FORMAT,
            bound=self.bound,
            spent=tuple(_Charged(charge=charge, steps=steps) for charge, steps in self.spent),
            claimed=claimed if math.isfinite(claimed) else None,
        )
        body = file.as_json()
        write_file(path, canonical.dumps({**body, "sha256": canonical.digest(body)}) + b"\n")


def parse_audit(data: bytes, *, name: str = "the audit") -> Audited:
    """What the bytes of such a file say.

    Args:
        data: the file's content.
        name: what messages call it.

    Raises:
        ConfigError: E159, for damage, for another version, and for a bound that its counts do not prove.
    """
    try:
        file = read(_File, _body(data))
        counts = {key: value for key, value in file.bound.as_json().items() if key != "epsilon"}
        bound = Bound.of(**cast("Any", counts))
        spent = Spent((each.charge, each.steps) for each in file.spent)
    except ConfigError as error:
        raise _refusal(f"{name} holds {error.seen}") from error
    except (ValueError, RecursionError) as error:
        raise _refusal(f"{name} {error}") from error
    if abs(bound.epsilon - file.bound.epsilon) > _NEAR:
        raise _refusal(f"{name} says epsilon {file.bound.epsilon:.6g}, and its counts prove {bound.epsilon:.6g}")
    return Audited(bound=bound, spent=spent)


def _body(data: bytes) -> dict[str, Any]:
    try:
        found: Any = canonical.loads(data)
    except ValueError:
        raise ValueError("is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError("is no object")
    body = cast("dict[str, Any]", found)
    if body.get("format") != FORMAT:
        raise ValueError(f"is of version {body.get('format')!r}")
    seal = body.pop("sha256", None)
    if seal != canonical.digest(body):
        raise ValueError("does not match its checksum")
    return body


def _refusal(seen: str) -> ConfigError:
    return ConfigError(
        "E159",
        seen=seen,
        expected=f"the file that Audited.write wrote, {FORMAT}",
        fix="restore it as it was, or audit again",
    )
