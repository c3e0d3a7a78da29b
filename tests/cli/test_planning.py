"""One plan from a file with flags on top: what wins, and where paths start."""

from __future__ import annotations

from pathlib import Path

import pytest

from vambrace.assess.plan import Plan
from vambrace.cli.flags import ContractFlags, RunFlags, SourceFlags
from vambrace.cli.planning import planned
from vambrace.errors import ConfigError

PLAN = """
schema = 1
profile = "smoke"
seed = 3
model = { source = "net.onnx", sha256 = "%s" }
contract = { bounds = [0, 1], mean = [0.5], std = [0.5] }
trust = { code = ["mine"] }
[data.eval]
source = "val.npy"
labels = "val-labels.npy"
limit = 7
[data.members]
source = "train.npz"
[run]
threads = 2
out = "there"
[[gate]]
metric = "clean.accuracy"
min = 0.5
""" % ("0" * 64)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plans").mkdir()
    path = tmp_path / "plans" / "plan.toml"
    path.write_text(PLAN)
    return path


def plan(
    file: Path | None,
    source: SourceFlags | None = None,
    contract: ContractFlags | None = None,
    run: RunFlags | None = None,
    **options: object,
) -> Plan:
    return planned(file, source or SourceFlags(), contract or ContractFlags(), run or RunFlags(), **options)  # type: ignore[arg-type]


def test_a_file_alone_is_itself(file: Path) -> None:
    found = plan(file)
    assert (found.profile, found.seed, found.base) == ("smoke", 3, str(file.parent))
    assert found.data["eval"].limit == 7
    assert found.gates is not None
    assert len(found.gates) == 1


def test_flags_win_key_by_key(file: Path) -> None:
    found = plan(
        file,
        SourceFlags(outputs="probabilities"),
        ContractFlags(mean="0.4", size="28x28"),
        RunFlags(seed=9, threads=1, budget="10m"),
    )
    assert (found.seed, found.profile) == (9, "smoke")
    assert found.model.outputs == "probabilities"
    assert found.model.source == "net.onnx"
    assert (found.contract.mean, found.contract.std, found.contract.size) == ((0.4,), (0.5,), (28, 28))
    assert (found.run.threads, found.run.out, found.run.budget) == (1, "there", 600.0)


def test_a_limit_is_for_every_role(file: Path) -> None:
    found = plan(file, SourceFlags(limit=5))
    assert {role: spec.limit for role, spec in found.data.items()} == {"eval": 5, "members": 5}


def test_labels_of_the_plan_are_not_those_of_another_source(file: Path) -> None:
    found = plan(file, SourceFlags(data="digits"))
    assert found.data["eval"].labels == ""
    assert found.data["eval"].source == "digits"
    assert found.data["eval"].limit == 7
    kept = plan(file, SourceFlags(labels="plans/other.npy"))
    assert kept.data["eval"].labels == "other.npy"
    assert kept.data["eval"].source == "val.npy"


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("other.npz", "../other.npz"),
        ("plans/other.npz", "other.npz"),
        ("/data/other.npz", "/data/other.npz"),
        ("digits:test", "digits:test"),
        ("pkg.mod:fn", "pkg.mod:fn"),
    ],
)
def test_paths_of_flags_start_where_the_user_stands(file: Path, given: str, stored: str) -> None:
    assert plan(file, SourceFlags(data=given)).data["eval"].source == stored
    assert plan(None, SourceFlags(model="a.onnx", data=given)).data["eval"].source == given


def test_a_file_that_is_called_like_a_factory_is_a_file(file: Path) -> None:
    Path("odd:name").write_text("")
    assert plan(file, SourceFlags(data="odd:name")).data["eval"].source == "../odd:name"


def test_code_that_is_named_is_trusted_beside_the_plans(file: Path) -> None:
    assert plan(file, SourceFlags(factory="yours.nets:net", data="mine:fn")).trust.code == ("mine", "yours")
    assert plan(None, SourceFlags(factory="a.b:c", data="digits")).trust.code == ("a",)
    assert plan(None, SourceFlags(model="a.onnx", data="digits")).trust.code == ()


def test_gates_can_be_taken_away(file: Path) -> None:
    assert plan(file, judge=False).gates is None
    assert plan(None, SourceFlags(model="a.onnx", data="digits"), judge=False).gates is None


def test_where_a_plan_will_lie(file: Path) -> None:
    found = plan(None, SourceFlags(model="net.onnx", data="val"), base=file.parent)
    assert (found.model.source, found.data["eval"].source) == ("../net.onnx", "../val")


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        (SourceFlags(), "no model and no data"),
        (SourceFlags(data="digits"), "no model"),
        (SourceFlags(model="net.onnx"), "no data"),
    ],
)
def test_what_is_missing_is_named(source: SourceFlags, seen: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(None, source)
    assert (caught.value.code, caught.value.seen) == ("E575", seen)


def test_a_plan_whose_tables_are_none_is_refused_by_the_reader(file: Path) -> None:
    file.write_text('schema = 1\nmodel = { source = "a.onnx" }\ndata = "digits"\n')
    with pytest.raises(ConfigError, match="E16"):
        plan(file, SourceFlags(limit=5))
    file.write_text('schema = 1\nmodel = { source = "a.onnx" }\ndata = { eval = "digits" }\n')
    with pytest.raises(ConfigError, match="E16"):
        plan(file, SourceFlags(limit=5, labels="x"))
