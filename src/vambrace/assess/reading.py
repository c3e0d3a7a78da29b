"""A plan as people write it, `vambrace.toml` or JSON, to a `Plan`. The layout is docs/formats/plan-v1.md.

    schema = 1
    profile = "ci"
    model = { source = "net.onnx" }
    data.eval = { source = "val/" }
    [[check]]                       # none: the profile chooses
    attack = "pgd"
    norm = "linf"
    eps = ["2/255", "8/255"]
    [[gate]]                        # beside the profile's own; gates = "none": measure, do not judge
    metric = "pgd-linf.robust_accuracy@0.0313725"
    min = 0.4

`read_plan` reads a file; `parse_plan` reads data, such as a file's with command-line flags laid over it. Methods are
found by name, so attacks and perturbations are imported here and torch with them; `read_gates` reads gates alone, and
needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vambrace.assess.methods import read_check
from vambrace.assess.plan import ROLES, DataSpec, GateSpec, ModelSpec, Plan, RunSpec, TrustSpec
from vambrace.assess.writing import write_commented_toml
from vambrace.core.contract import InputContract
from vambrace.core.dialect import check_data, read_file
from vambrace.core.refusal import located, unknown_key, wrong_value
from vambrace.core.spec import read
from vambrace.errors import ConfigError, VambraceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["parse_plan", "read_gates", "read_plan", "read_table", "write_commented_toml"]

Json = Any

_TABLES = ("model", "contract", "data", "trust", "run", "check", "gate")
_KEYS = ("schema", "profile", "seed", "gates", *_TABLES)
_PROFILES = ("smoke", "ci", "full")


def read_plan(path: Path | str) -> Plan:
    """The plan in a file. Its relative paths start at the file's folder (`Plan.base`).

    Raises:
        ConfigError: E160 to E168, E530, E531 with the place in the file.
    """
    path = Path(path)
    return parse_plan(read_table(path), base=path.resolve().parent, where=path.name)


def read_table(path: Path | str) -> dict[str, Json]:
    """The data of a plan file, with its version checked and nothing else.

    Raises:
        ConfigError: E160 for what is neither TOML nor JSON; E171 for a file without `schema = 1`.
    """
    table = read_file(Path(path))
    if "schema" not in table:
        raise ConfigError(
            "E171",
            seen=f"{path}: no schema",
            expected="schema = 1, the version of the plan's form",
            fix="write `schema = 1` in the first line",
        )
    _check_schema(table, str(path))
    return table


def parse_plan(table: Mapping[str, Json], *, base: Path | str, where: str) -> Plan:
    """The plan in some data.

    Args:
        table: the layout of a plan file; `schema` may be left out.
        base: folder at which relative paths of model and data start.
        where: where the data comes from, for messages, such as the file's name.

    Raises:
        ConfigError: E160 to E168, E530, E531.
    """
    check_data(table, where=where)
    try:
        return _parse(table, str(base))
    except VambraceError as error:
        raise located(error, where) from error


def read_gates(table: Mapping[str, Json], *, where: str) -> tuple[GateSpec, ...] | None:
    """The gates of a plan, without its methods: None for an explicit "none", empty for the profile's own alone.

    Raises:
        ConfigError: E160 to E167 or E530 for a gate; E531 for both `gates` and `[[gate]]`.
    """
    try:
        return _gates(table)
    except VambraceError as error:
        raise located(error, where) from error


def _parse(table: Mapping[str, Json], base: str) -> Plan:
    for key in table:
        if key not in _KEYS:
            raise unknown_key(key, _KEYS, where="", called="a plan")
    _check_schema(table, "")
    profile = table.get("profile", "ci")
    if profile not in _PROFILES:
        raise wrong_value("profile", profile, _PROFILES)
    seed = table.get("seed", 0)
    if type(seed) is not int:
        raise ConfigError("E166", seen=f"seed = {seed!r}", expected="a whole number", fix="use a seed such as 0")
    data = _table(table, "data")
    for role in data:
        if role not in ROLES:
            raise unknown_key(role, ROLES, where="data")
    return Plan(
        profile=profile,
        seed=seed,
        model=read(ModelSpec, _table(table, "model"), where="model"),
        contract=read(InputContract, _table(table, "contract"), where="contract"),
        data={
            role: read(DataSpec, _table(data, role, "data."), where=f"data.{role}") for role in ROLES if role in data
        },
        trust=read(TrustSpec, _table(table, "trust"), where="trust"),
        run=read(RunSpec, _table(table, "run"), where="run"),
        checks=tuple(read_check(each, f"check[{i}]") for i, each in enumerate(_tables(table, "check"))),
        gates=_gates(table),
        base=base,
    )


def _gates(table: Mapping[str, Json]) -> tuple[GateSpec, ...] | None:
    listed = _tables(table, "gate")
    if "gates" not in table:
        return tuple(read(GateSpec, each, where=f"gate[{i}]") for i, each in enumerate(listed))
    if table["gates"] != "none" or listed:
        raise ConfigError(
            "E531",
            seen=f"gates = {table['gates']!r}" + (" beside [[gate]] tables" if listed else ""),
            expected='gates = "none" alone, or [[gate]] tables, or neither (the profile\'s own gates)',
            fix='write gates = "none" to measure without judging, or one [[gate]] table a condition',
        )
    return None


def _check_schema(table: Mapping[str, Json], where: str) -> None:
    schema = table.get("schema", 1)
    if type(schema) is not int or schema != 1:
        raise ConfigError(
            "E171",
            seen=f"{where}{': ' if where else ''}schema = {schema!r}",
            expected="schema = 1",
            fix="use a release of vambrace that knows this version, or write the plan again with `vambrace init`",
        )


def _table(table: Mapping[str, Json], key: str, prefix: str = "") -> dict[str, Json]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        fix = f"[{prefix}{key}] as a table, such as {prefix}{key}.source = {value!r}"
        raise ConfigError("E166", seen=f"{prefix}{key} = {value!r}", expected="a table", fix=f"write {fix}")
    return cast("dict[str, Json]", value)


def _tables(table: Mapping[str, Json], key: str) -> Sequence[dict[str, Json]]:
    value = table.get(key, [])
    if isinstance(value, list) and all(isinstance(each, dict) for each in cast("list[Json]", value)):
        return cast("list[dict[str, Json]]", value)
    raise ConfigError(
        "E166",
        seen=f"{key} = {value!r}",
        expected=f"a list of tables, [[{key}]]",
        fix=f"write [[{key}]] with two brackets",
    )
