"""One `[[check]]` table to a planned check, and back.

A table has one selector, which names a method: `attack` (then the check is adversarial), `perturb` (natural) or
`check`. Beside it stand `id`, `required`, `named`, `limit`, and the method's own options under their own names.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

from vambrace.assess.plan import PlannedCheck
from vambrace.core import registry
from vambrace.core.options import Options, parse_ratio
from vambrace.core.refusal import located, unknown_key
from vambrace.core.spec import read
from vambrace.errors import ConfigError, VambraceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assess.checks.base import Check

__all__ = ["check_as_table", "read_check"]

Json = Any

_SELECTORS = ("attack", "perturb", "check")
_PLACE = ("id", "required", "named", "limit")


def read_check(table: Mapping[str, Json], where: str) -> PlannedCheck:
    """The check in one table.

    Args:
        table: a selector, the keys of its place (id, required, named, limit), and the method's own options.
        where: its place in the plan, such as "check[1]".

    Raises:
        ConfigError: E161 to E168, E172, E197, E198, or the method's own code; each with its place.
    """
    chosen = [key for key in _SELECTORS if key in table]
    if len(chosen) != 1:
        odd = next((key for key in table if key not in _PLACE), "")
        meant = unknown_key(odd, _SELECTORS, where=where).fix if odd and not chosen else ""
        raise ConfigError(
            "E172",
            seen=f"{where} with {' and '.join(chosen) or 'no method'}",
            expected='exactly one of attack = "...", perturb = "..." or check = "..."',
            fix=meant if "did you mean" in meant else "write one table for each method",
        )
    selector = chosen[0]
    name = table[selector]
    if not isinstance(name, str):
        raise ConfigError(
            "E166", seen=f"{where}.{selector} = {name!r}", expected="a name in quotes", fix="vambrace list"
        )
    options = {key: value for key, value in table.items() if key not in (selector, *_PLACE)}
    try:
        check, called = _BUILDERS[selector](name, options, where)
    except VambraceError as error:
        # Messages about a method's own options carry the place already.
        raise (error if error.seen.startswith(where) else located(error, where)) from error
    place = {key: table[key] for key in _PLACE if key in table}
    put = read(_Place, place, where=where)
    try:
        return PlannedCheck(id=put.id or called, check=check, required=put.required, named=put.named, limit=put.limit)
    except VambraceError as error:
        raise located(error, where) from error


def check_as_table(planned: PlannedCheck) -> dict[str, Json]:
    """The table that `read_check` reads as this check; defaults of its place are left out.

    Raises:
        ConfigError: E173, for an option that is None although its default is not: TOML has no word for nothing.
    """
    check: Any = planned.check
    place: dict[str, Json] = {"id": planned.id}
    method: Any = check
    selector, more = ("check", registry.CHECKS), dict[str, Json]()
    if planned.check.kind == "adversarial":
        method, selector = check.attack, ("attack", registry.ATTACKS)
        more = {"eps": check.eps[0] if len(check.eps) == 1 else list(check.eps)}
    elif planned.check.kind == "natural":
        method, selector = check.perturbation, ("perturb", registry.PERTURBATIONS)
        more = {"severities": list(check.severities)}
    place[selector[0]] = registry.name_of(selector[1], cast("type[Any]", type(method)))
    for field in dataclasses.fields(_Place):
        if field.name != "id" and getattr(planned, field.name) != field.default:
            place[field.name] = getattr(planned, field.name)
    return place | _without_nothing(method) | more


def _without_nothing(method: Any) -> dict[str, Json]:  # noqa: ANN401  an option dataclass
    """The options of a method; those that are None by default are left out."""
    found = method.as_json()
    for field in dataclasses.fields(method):
        if found[field.name] is None:
            if field.default is not None:
                raise ConfigError(
                    "E173",
                    seen=f"{type(method).__name__}.{field.name} is None",
                    expected="a value that a plan file can hold",
                    fix="give it a value; its default is another one",
                )
            del found[field.name]
    return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Place(Options):
    """The keys of a check that are not its method's."""

    id: str = ""
    required: bool = True
    named: bool = True
    limit: int | None = None


def _attack(name: str, options: dict[str, Json], where: str) -> tuple[Check, str]:
    kind = registry.load(registry.ATTACKS, name)
    eps = options.pop("eps", None)
    if eps is None:
        known = [field.name for field in dataclasses.fields(kind)]
        odd = next((key for key in options if key not in known), None)
        if odd is not None:  # such as `epsilon`, which explains the missing one
            raise unknown_key(odd, known, where=where, called=f"attack {name}")
        raise ConfigError(
            "E167",
            seen=f"{where}.eps is missing for attack {name}",
            expected="one radius or several, in the units of the inputs",
            fix='add eps = "8/255", or eps = ["2/255", "8/255"]',
        )
    radii = [_radius(each, f"{where}.eps") for each in (cast("list[Json]", eps) if isinstance(eps, list) else [eps])]
    attack = read(kind, {**options, "eps": max(radii, default=0.0)}, where=where, called=f"attack {name}")
    check = registry.load(registry.CHECKS, "adversarial")(attack=attack, eps=tuple(radii))
    norm = getattr(attack, "norm", "")
    return check, f"{name}-{norm}" if norm else name


def _perturb(name: str, options: dict[str, Json], where: str) -> tuple[Check, str]:
    kind = registry.load(registry.PERTURBATIONS, name)
    check = registry.load(registry.CHECKS, "natural")
    given = {"severities": options.pop("severities")} if "severities" in options else {}
    known = [*(field.name for field in dataclasses.fields(kind)), "severities"]
    for key in options:
        if key not in known:
            raise unknown_key(key, known, where=where, called=f"perturbation {name}")
    perturbation = read(kind, options, where=where, called=f"perturbation {name}")
    chosen = read(_Severities, given, where=where)
    severities = {} if chosen.severities is None else {"severities": chosen.severities}
    return check(perturbation=perturbation, **severities), f"natural-{name}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Severities(Options):
    severities: tuple[int, ...] | None = None


def _plain(name: str, options: dict[str, Json], where: str) -> tuple[Check, str]:
    if name in ("adversarial", "natural"):
        selector, example = ("attack", "pgd") if name == "adversarial" else ("perturb", "rotate")
        raise ConfigError(
            "E172",
            seen=f"{where}.check = {name!r}",
            expected=f"the method: {selector} = ...",
            fix=f'write {selector} = "{example}"; `vambrace list` shows the others',
        )
    kind = registry.load(registry.CHECKS, name)
    return read(kind, options, where=where, called=f"check {name}"), name


_BUILDERS = {"attack": _attack, "perturb": _perturb, "check": _plain}


def _radius(value: Json, where: str) -> float:
    try:
        return parse_ratio(value)
    except ConfigError as error:
        raise located(error, where) from error
