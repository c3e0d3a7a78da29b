"""One plan from a file, if there is one, with flags laid over it, through the one dialect.

Paths in a plan start at the plan's folder, paths of flags where the user stands: they are turned into what leads to the
same place from the plan's folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vambrace.cli.flags import is_code
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from vambrace.assess.plan import Plan
    from vambrace.cli.flags import ContractFlags, RunFlags, SourceFlags

__all__ = ["planned"]

_DIGITS = ("digits", "digits:train", "digits:test")

Table = dict[str, Any]


def planned(
    file: Path | None,
    source: SourceFlags,
    contract: ContractFlags,
    run: RunFlags,
    *,
    judge: bool = True,
    base: Path | None = None,
) -> Plan:
    """The plan that a command line means.

    Args:
        file: a plan file, or None.
        source: flags.
        contract: flags.
        run: flags.
        judge: False takes the gates away, by "none".
        base: the folder where the plan will lie; None: the file's, or the working folder.

    Raises:
        ConfigError: E160 to E168 for a plan that does not read, E575 without model and data.
    """
    from vambrace.assess.reading import parse_plan, read_table

    base = (base or (file.parent if file is not None else Path())).resolve()
    table: Table = read_table(file) if file is not None else {}
    given = source.table()
    everywhere = {name: given.pop(name) for name in ("limit", "labels") if name in given}
    if "eval" in given.get("data", {}) and isinstance(table.get("data"), dict):
        _drop_labels(table["data"])
    for part in (_seen_from(base, given), contract.table(), run.table()):
        _overlay(table, part)
    if not judge:
        table["gates"] = "none"
        table.pop("gate", None)
    if not table.get("model") or not table.get("data"):
        missing = [f"no {name}" for name in ("model", "data") if not table.get(name)]
        raise ConfigError(
            "E575",
            seen=" and ".join(missing),
            expected="a plan file, or --model and --data",
            fix="vambrace assess --model net.onnx --data val/, or see what happens first: vambrace demo",
        )
    _spread(table, everywhere, base)
    return parse_plan(table, base=base, where=str(file) if file is not None else "the command line")


def _overlay(table: Table, part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        below: object = table.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            _overlay(cast("Table", below), cast("Table", value))
        elif key == "code" and isinstance(below, list):
            # Code that the plan trusts stays trusted when a flag names more.
            trusted, more = cast("list[Any]", below), cast("list[str]", value)
            table[key] = [*trusted, *(root for root in more if root not in trusted)]
        else:
            table[key] = value


def _spread(table: Table, everywhere: Table, base: Path) -> None:
    """Lay `--limit` over every role, and `--labels` over the role that is assessed."""
    data: object = table["data"]
    roles = cast("Table", data) if isinstance(data, dict) else {}
    if "limit" in everywhere:
        for role in roles.values():
            if isinstance(role, dict):
                role["limit"] = everywhere["limit"]
    if "labels" in everywhere and isinstance(roles.get("eval"), dict):
        roles["eval"]["labels"] = _from(base, everywhere["labels"])


def _drop_labels(data: Table) -> None:
    """Labels of the plan's own source are not those of another."""
    if isinstance(data.get("eval"), dict):
        data["eval"].pop("labels", None)


def _seen_from(base: Path, given: Table) -> Table:
    """The same tables with every path as it is seen from `base`."""
    table = {name: dict(part) for name, part in given.items()}
    for key in ("source", "identity", "signer"):
        if key in table.get("model", {}):
            table["model"][key] = _from(base, table["model"][key])
    for role in table.get("data", {}):
        table["data"][role] = {"source": _from(base, table["data"][role]["source"])}
    return table


def _from(base: Path, source: str) -> str:
    here = Path.cwd()
    path = Path(source)
    if not source or path.is_absolute() or base == here or source in _DIGITS:
        return source
    if is_code(source) and not path.exists():
        return source
    return os.path.relpath(here / path, base)
