"""What a profile runs, chosen by what the model gives and what data there is; what it demands is `assess.shipped`.

| | smoke: about a minute | ci: about a quarter of an hour | full: as long as it takes |
|---|---|---|---|
| clean | 256 samples | 1,000 | all |
| pgd linf | main radius, 10 steps, 32 samples | three radii, 20 steps, 1,000 | five radii, 100 steps, 5 starts, all |
| adaptive linf, l2 | | main radius, 1,000 | five radii, all |
| standard linf | | | main radius, all |
| fgsm linf, ddn l2 | | | five radii, all |
| scores only: square | linf, 200 queries, 32 samples | linf, l2, 1,000 queries, 200 | five radii, 5,000 queries, all |
| labels only: hop_skip_jump l2 | 300 queries, 16 samples | 1,000 queries, 100 | five radii, 5,000 queries, all |
| labels only: rays linf | | 1,000 queries, 100 | five radii, 5,000 queries, all |
| perturbations | noise, rotation, severity 1, 128 samples | five, severities 1 3 5, 1,000 | five, severities 1 to 5 |
| membership | | 2,000 a side | all |

Times are for a small network on two cores. Radii follow `vambrace.assess.radii`. What a profile would run but the
model, the data or the profile does not allow becomes a `Left` with its reason. A plan that names its own checks runs
those instead; a check that the user named and that cannot run is an error before work starts. The clean check is always
there, because no other number can be read without it.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vambrace.assess.fit import Subject, misfit, why_not
from vambrace.assess.plan import Plan, PlannedCheck
from vambrace.assess.radii import Radii, radii
from vambrace.assess.shipped import Named, beside, shipped_gates
from vambrace.core import registry
from vambrace.core.access import Access
from vambrace.core.findings import Left
from vambrace.core.refusal import closest
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from vambrace.core.options import Options

__all__ = ["Selection", "resolve", "select"]

_NATURAL = ("gaussian_noise", "gaussian_blur", "rotate", "contrast", "jpeg")
_ATTACK_LIMITS = {"smoke": 32, "ci": 1000, "full": None}
_CLEAN_LIMITS = {"smoke": 256, "ci": 1000, "full": None}
_NATURAL_LIMITS = {"smoke": 128, "ci": 1000, "full": None}
_MEMBERSHIP_LIMITS = {"ci": 2000, "full": None}
_SEVERITIES = {"smoke": (1,), "ci": (1, 3, 5), "full": (1, 2, 3, 4, 5)}

Profile = Literal["smoke", "ci", "full"]
Norm = Literal["l2", "linf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The checks that run, in order, and what was left out."""

    checks: tuple[PlannedCheck, ...]
    left_out: tuple[Left, ...]


def resolve(plan: Plan, subject: Subject, *, only: Sequence[str] = ()) -> tuple[Plan, tuple[Left, ...]]:
    """The plan with its checks and gates decided, and what was left out.

    Raises:
        AccessError: E110, for a named check that needs more than the model gives.
        ConfigError: E169, for a named check whose data is missing; E170, for an `only` that matches nothing.
    """
    selection = select(plan.profile, subject, named=plan.checks, only=only)
    checks = [Named.of(planned) for planned in selection.checks]
    shipped = shipped_gates(plan.profile, checks, num_classes=subject.num_classes, majority=subject.majority)
    gates = None if plan.gates is None else beside(plan.gates, shipped)
    return dataclasses.replace(plan, checks=selection.checks, gates=gates), selection.left_out


def select(
    profile: Profile, subject: Subject, *, named: Sequence[PlannedCheck] = (), only: Sequence[str] = ()
) -> Selection:
    """The checks of a profile that fit the subject; or those that the plan names, when it names any.

    Args:
        profile: which table column.
        subject: what is assessed.
        named: checks of the plan; those with `named` False may be left out.
        only: keep these ids, kinds, methods or patterns with `*`, and the clean check.

    Raises:
        AccessError: E110; ConfigError: E169, E170; see `resolve`.
    """
    wanted, left = list(named), list[Left]()
    if not wanted:
        wanted, left = _profile(profile, subject)
    elif not any(planned.check.kind == "clean" for planned in wanted):
        wanted.insert(0, _clean(profile))
    checks: list[PlannedCheck] = []
    for planned in wanted:
        problem = why_not(planned, subject)
        if problem is None:
            checks.append(planned)
        elif planned.named:
            raise problem
        else:
            left.append(Left(name=planned.id, reason=problem.seen))
    if named:
        own = "the plan names its own checks, and --profile changes none of them; it chooses gates only"
        left.append(Left(name=f"checks of profile {profile}", reason=own))
    return _narrowed(checks, left, only) if only else Selection(checks=tuple(checks), left_out=tuple(left))


def _profile(profile: Profile, subject: Subject) -> tuple[list[PlannedCheck], list[Left]]:
    """All that a profile would run on this kind of input, whatever the model gives."""
    wanted, left = [_clean(profile)], list[Left]()
    if subject.span is None:
        reason = "the model has no bounds, so no radius or severity has a meaning; state --bounds LOW,HIGH"
        left += [Left(name="adversarial attacks", reason=reason), Left(name="natural perturbations", reason=reason)]
    else:
        wanted += _attacks(profile, subject, subject.span)
        for name in _NATURAL if profile != "smoke" else ("gaussian_noise", "rotate"):
            kind = registry.load(registry.PERTURBATIONS, name)
            if reason := misfit(name, kind, subject.input_shape):
                left.append(Left(name=f"natural-{name}", reason=reason))
            else:
                wanted.append(_natural(profile, name, kind()))
    if profile != "smoke":
        check = registry.load(registry.CHECKS, "membership")()
        wanted.append(PlannedCheck(id="membership", check=check, limit=_MEMBERSHIP_LIMITS[profile]))
    if profile == "smoke":
        others = "the adaptive search, l2 attacks, three more perturbations, higher severities, membership"
        left.append(Left(name=others, reason="profile smoke is a first look; profile ci runs them"))
    if profile == "ci":
        others = (
            "more radii, steps and starts, FGSM, DDN, the standard ensemble, severities 2 and 4, samples beyond 1,000"
        )
        left.append(Left(name=others, reason="profile ci must end in minutes; profile full runs them"))
    return wanted, left


def _attacks(profile: Profile, subject: Subject, span: float) -> list[PlannedCheck]:
    """With gradients, which are left out with a reason where there are none; and what takes their place there."""
    linf, l2 = radii(subject.input_shape, span, "linf"), radii(subject.input_shape, span, "l2")
    wanted = _white_box(profile, linf, l2)
    if subject.access is Access.SCORES:
        queries, limit = {"smoke": (200, 32), "ci": (1000, 200), "full": (5000, None)}[profile]
        how: dict[str, Any] = {"queries": queries, "limit": limit}
        wanted.append(_attack("square", "linf", linf.curve if profile == "full" else (linf.main,), **how))
        if profile != "smoke":
            wanted.append(_attack("square", "l2", l2.curve if profile == "full" else (l2.main,), **how))
    if subject.access is Access.LABELS:
        budget, limit = {"smoke": (300, 16), "ci": (1000, 100), "full": (5000, None)}[profile]
        how = {"budget": budget, "limit": limit}
        wanted.append(_attack("hop_skip_jump", "l2", l2.curve if profile == "full" else (l2.main,), **how))
        if profile != "smoke":
            wanted.append(_attack("rays", "linf", linf.curve if profile == "full" else (linf.main,), **how))
    return wanted


def _white_box(profile: Profile, linf: Radii, l2: Radii) -> list[PlannedCheck]:
    limit = _ATTACK_LIMITS[profile]
    if profile == "smoke":
        return [_attack("pgd", "linf", (linf.main,), limit=limit, steps=10)]
    if profile == "ci":
        return [
            _attack("pgd", "linf", linf.up_to_main(3), limit=limit, steps=20),
            _attack("adaptive", "linf", (linf.main,), limit=limit),
            _attack("adaptive", "l2", (l2.main,), limit=limit),
        ]
    return [
        _attack("fgsm", "linf", linf.curve, limit=limit),
        _attack("pgd", "linf", linf.curve, limit=limit, steps=100, restarts=5),
        _attack("adaptive", "linf", linf.curve, limit=limit),
        _attack("adaptive", "l2", l2.curve, limit=limit),
        _attack("ddn", "l2", l2.curve, limit=limit),
        _attack("standard", "linf", (linf.main,), limit=limit),
    ]


def _attack(name: str, norm: Norm, eps: tuple[float, ...], *, limit: int | None, **options: Any) -> PlannedCheck:
    attack = registry.load(registry.ATTACKS, name)(norm=norm, eps=eps[-1], **options)
    check = registry.load(registry.CHECKS, "adversarial")(attack=attack, eps=eps)
    return PlannedCheck(id=f"{name}-{norm}", check=check, limit=limit)


def _natural(profile: Profile, name: str, perturbation: Options) -> PlannedCheck:
    check = registry.load(registry.CHECKS, "natural")(perturbation=perturbation, severities=_SEVERITIES[profile])
    return PlannedCheck(id=f"natural-{name}", check=check, limit=_NATURAL_LIMITS[profile])


def _clean(profile: Profile) -> PlannedCheck:
    check = registry.load(registry.CHECKS, "clean")()
    return PlannedCheck(id="clean", check=check, limit=_CLEAN_LIMITS[profile])


def _narrowed(checks: Sequence[PlannedCheck], left: list[Left], only: Sequence[str]) -> Selection:
    names = {planned.id: _names(planned) for planned in checks}
    for pattern in only:
        if any(fnmatch.fnmatchcase(name, pattern) for known in names.values() for name in known):
            continue
        # A check that cannot run is called by its id, which begins with its method.
        reason = next((each.reason for each in left if fnmatch.fnmatchcase(f"{each.name}-", f"{pattern}-*")), "")
        known = sorted({name for each in names.values() for name in each})
        close = closest(pattern, known)
        raise ConfigError(
            "E170",
            seen=f"--only {pattern} matches no check that can run{f': {reason}' if reason else ''}",
            expected=f"one of {', '.join(known)}",
            fix=f"did you mean {close}?" if close else "leave --only out to see what the profile runs",
        )
    kept = [
        planned
        for planned in checks
        if planned.check.kind == "clean"
        or any(fnmatch.fnmatchcase(name, pattern) for name in names[planned.id] for pattern in only)
    ]
    dropped = [Left(name=planned.id, reason="not selected by --only") for planned in checks if planned not in kept]
    return Selection(checks=tuple(kept), left_out=(*left, *dropped))


def _names(planned: PlannedCheck) -> set[str]:
    """What a check may be called by: its id, its kind, its method."""
    method = getattr(planned.check, "name", None)
    return {planned.id, planned.check.kind, *([method] if isinstance(method, str) else [])}
