"""What can be named in a plan: built-ins and plug-ins in one entry-point table, imported only when asked for.

A plug-in is a package that declares, in its own `pyproject.toml`, an option dataclass under one of the
groups:

    [project.entry-points."vambrace.attacks"]
    acme_patch = "acme.patch:Patch"

Vambrace declares its own methods in the same way, so the table of installed packages is the only truth: after
a name is added to `pyproject.toml`, an editable installation must be installed again (`make install`). A name
that two packages claim is an error that names both; neither wins.

    >>> names("vambrace.checks")
    ('adversarial', 'clean', 'dp', 'membership', 'natural')
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib.util
import inspect
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vambrace.core.access import Access
from vambrace.core.options import Options
from vambrace.errors import ConfigError, VambraceError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ATTACKS", "CHECKS", "Entry", "PERTURBATIONS", "describe", "entry", "load", "name_of", "names"]

ATTACKS = "vambrace.attacks"
PERTURBATIONS = "vambrace.perturbations"
CHECKS = "vambrace.checks"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name and where it leads.

    Attributes:
        group: one of `ATTACKS`, `PERTURBATIONS`, `CHECKS`.
        name: unique in its group.
        target: "package.module:Class".
        distribution: the installed package that declares it.
        version: of that package.
    """

    group: str
    name: str
    target: str
    distribution: str
    version: str


def names(group: str) -> tuple[str, ...]:
    """Every registered name of a group, sorted.

    Raises:
        ConfigError: E162, for a name that two packages claim.
    """
    return tuple(sorted(name for name in _table(group) if entry(group, name)))


def entry(group: str, name: str) -> Entry:
    """What stands in the table, without importing it.

    Raises:
        ConfigError: E161, for a name that nobody claims; E162, for one that two packages claim.
    """
    table = _table(group)
    found = table.get(name)
    if not found:
        close = difflib.get_close_matches(name.lower().replace("-", "_"), table, n=1, cutoff=0.5)
        known = ", ".join(sorted(table)) or "none: is vambrace installed?"
        raise ConfigError(
            "E161",
            seen=f"{name!r} is not a name in {group}",
            expected=f"one of: {known}",
            fix=f"did you mean {close[0]!r}?" if close else "vambrace list shows all; a plug-in must be installed",
        )
    first, *others = found
    if others:
        claims = " and ".join(f"{each.distribution} {each.version} ({each.target})" for each in found)
        raise ConfigError(
            "E162",
            seen=f"{name!r} in {group} is claimed by {claims}",
            expected="one package for one name",
            fix=f"uninstall one of {' and '.join(each.distribution for each in found)}",
        )
    return first


def load(group: str, name: str) -> type[Any]:
    """The option dataclass behind a name, imported now.

    Raises:
        ConfigError: E161 or E162, as `entry`; E163, when it cannot be imported; E164, when it is no option
            dataclass.
    """
    found = entry(group, name)
    module, _, attribute = found.target.partition(":")
    try:
        loaded: Any = importlib.import_module(module)
        for part in attribute.split("."):
            loaded = getattr(loaded, part)
    except VambraceError:
        raise
    except Exception as error:
        raise ConfigError(
            "E163",
            seen=f"{name!r} of {found.distribution} {found.version}: {type(error).__name__}: {error}",
            expected=f"{found.target} to import",
            fix=f"repair or uninstall {found.distribution}",
        ) from error
    if not (inspect.isclass(loaded) and issubclass(loaded, Options) and dataclasses.is_dataclass(loaded)):
        raise ConfigError(
            "E164",
            seen=f"{name!r} of {found.distribution} {found.version} is {found.target}, a {type(loaded).__name__}",
            expected="a frozen dataclass over vambrace.core.options.Options",
            fix=f"correct the entry point of {found.distribution}",
        )
    return loaded


def name_of(group: str, kind: type[Any]) -> str:
    """The registered name of a class; the inverse of `load`.

    Raises:
        ConfigError: E161, when it is registered under no name of the group.
    """
    target = f"{kind.__module__}:{kind.__qualname__}"
    table = _table(group)
    for name, found in table.items():
        if any(each.target == target for each in found):
            return name
    # An entry point may name a re-export; a class that was loaded has been imported through it.
    for name, found in table.items():
        if any(_imported(each) is kind for each in found):
            return name
    raise ConfigError(
        "E161",
        seen=f"{target} has no name in {group}",
        expected=f"one of: {', '.join(sorted(table))}",
        fix=f'declare it under [project.entry-points."{group}"] and install the package',
    )


def describe(group: str, name: str) -> str:
    """One line for people: what it is, what access it needs, and which package brings it if not vambrace.

    Read from the source file without running it, so that a catalogue is fast and cannot be broken by one
    plug-in.
    """
    found = entry(group, name)
    module, _, attribute = found.target.partition(":")
    source = _parsed(module)
    node = _class_in(source, attribute)
    summary = ((ast.get_docstring(node) or "") if node else "").strip().split("\n", 1)[0]
    parts = [summary or found.target]
    if node and (needs := _needs(source, node)):
        parts.append(f"needs {needs.lower()}")
    if found.distribution != "vambrace":
        parts.append(f"from {found.distribution} {found.version}")
    return f"{parts[0]} ({', '.join(parts[1:])})" if parts[1:] else parts[0]


def _imported(found: Entry) -> object:
    """What an entry leads to if its module has been imported already, else None."""
    module, _, attribute = found.target.partition(":")
    return getattr(sys.modules.get(module), attribute, None)


@cache
def _table(group: str) -> dict[str, tuple[Entry, ...]]:
    found: dict[str, dict[Entry, None]] = {}
    for point in metadata.entry_points(group=group):
        package = point.dist
        one = Entry(
            group=group,
            name=point.name,
            target=point.value,
            distribution=package.name if package else "an unknown package",
            version=package.version if package else "",
        )
        found.setdefault(point.name, {})[one] = None
    return {name: tuple(entries) for name, entries in sorted(found.items())}


def _source(module: str) -> str:
    """The text of a module's file, or "" where there is none. The top package is found, not run."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return ""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    candidates: Iterable[Path] = (
        [
            path
            for folder in folders
            for path in (folder.joinpath(*rest, "__init__.py"), folder.joinpath(*rest).with_suffix(".py"))
        ]
        if folders
        else [Path(spec.origin or "")]
    )
    for path in candidates:
        if path.is_file() and path.suffix == ".py":
            return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _parsed(module: str) -> ast.Module:
    try:
        return ast.parse(_source(module))
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module(body=[], type_ignores=[])


def _class_in(source: ast.Module, name: str) -> ast.ClassDef | None:
    return next((node for node in source.body if isinstance(node, ast.ClassDef) and node.name == name), None)


def _needs(source: ast.Module, node: ast.ClassDef, depth: int = 4) -> str:
    """The value of `needs: ClassVar[Access] = Access.X` in a class or its bases.

    Where it is no constant, what the property says, if that names what a model gives; else "".
    """
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "needs" and statement.value:
            return ast.unparse(statement.value).rpartition(".")[2]
        if isinstance(statement, ast.FunctionDef) and statement.name == "needs":
            said = (ast.get_docstring(statement) or "").split("\n", 1)[0].removesuffix(".")
            return said if any(access.name in said for access in Access) else ""
    for base in map(ast.unparse, node.bases if depth else ()):
        home = next(
            (each.module for each in source.body if isinstance(each, ast.ImportFrom) and base in _imports(each)), None
        )
        tree = _parsed(home) if home else source
        parent = _class_in(tree, base)
        if parent and parent is not node and (needs := _needs(tree, parent, depth - 1)):
            return needs
    return ""


def _imports(statement: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in statement.names if alias.asname is None}
