"""Run directories: there whole or not at all, and a plan that was touched is refused, whatever was done to it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assess.assess_harness import Failing
from vambrace.assess.rundir import FORMAT, RunDirectory, RunFile, read_run_file
from vambrace.core import canonical, files
from vambrace.errors import ConfigError, ResourceError

PLAN = {"schema": 1, "seed": 3, "eps": 0.1, "big": 1e17}
FACTS = {"model": {"weights": "a" * 64}, "data": {}}


def make(out: Path, **options: object) -> RunDirectory:
    return RunDirectory.create(out, plan=PLAN, facts=FACTS, **options)


def test_create_and_open(tmp_path: Path) -> None:
    with make(tmp_path / "runs") as directory:
        path = directory.path
        assert directory.file.plan == PLAN
        assert directory.baseline is None
        assert sorted(entry.name for entry in path.iterdir()) == ["LOCK", "journal", "plan.json"]
        assert len(path.name) == 16 + 1 + 8
        (path / ".results.json.1.tmp").touch()
        (path / "notes.txt").touch()
        directory.evidence.mkdir()
        (directory.evidence / ".x.1.tmp").touch()
    with RunDirectory.open(path) as again:
        assert again.file == directory.file
        assert again.lock.stale is None
    assert [entry.name for entry in path.rglob("*") if entry.name.startswith(".")] == []
    assert (path / "notes.txt").exists()


def test_two_runs_at_once_have_two_names(tmp_path: Path) -> None:
    with make(tmp_path) as one, make(tmp_path) as two:
        assert one.path != two.path
        assert one.file.run != two.file.run


def test_baseline_is_kept(tmp_path: Path) -> None:
    with make(tmp_path, baseline=b"{}") as directory:
        assert directory.baseline is not None
        assert directory.baseline.read_bytes() == b"{}"


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    with make(tmp_path, name="mine"), pytest.raises(ResourceError, match="E600"):
        make(tmp_path, name="mine")
    with pytest.raises(ConfigError, match="E502"):
        make(tmp_path, name="mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ConfigError, match="E502"):
        make(tmp_path, name="other")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="E502"):
        make(tmp_path, name="file")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "mine", "other"]


def test_whatever_fails_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(1, 100):
        shim = Failing(at)
        monkeypatch.setattr(files, "system", shim)
        out = tmp_path / str(at)
        refused: ResourceError | None = None
        try:
            make(out).release()
        except ResourceError as error:
            refused = error
        if refused:
            assert refused.code == "E601"
            assert f"ENOSPC writing a run directory in {out} (" in refused.seen
            # There is nothing to resume, and its names are gone.
            assert refused.fix == "free some space, then run the same command again"
            assert ".new" not in str(refused)
            left = [entry.name for entry in out.iterdir()] if out.exists() else []
            # Only the last call, the fsync of the folder, can fail after the directory has its name.
            assert left == [] or (len(left) == 1 and not left[0].startswith("."))
        else:
            assert len(shim.calls) < at
            return
    raise AssertionError


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "system", Failing(1, errno.EACCES))
    with pytest.raises(ResourceError) as caught:
        make(tmp_path / "out")
    assert f"EACCES writing a run directory in {tmp_path / 'out'} (" in caught.value.seen
    assert "--out" in caught.value.fix


def failing_open(path: Path, code: int) -> Callable[..., int]:
    """`os.open` that refuses one path."""
    real = os.open

    def opened(target: str | Path, *rest: int) -> int:
        if Path(target) == path:
            raise OSError(code, os.strerror(code))
        return real(target, *rest)

    return opened


@pytest.mark.parametrize(
    ("code", "fix"), [(errno.EROFS, "copy"), (errno.EACCES, "copy"), (errno.ENOSPC, "free"), (errno.EMFILE, "ulimit")]
)
def test_a_run_that_can_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, fix: str) -> None:
    """What is asked for is room or a place to write, not another kind of file system; and --out helps nobody here."""
    with make(tmp_path / "out", name="run") as directory:
        path = directory.path
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing_open(path / "LOCK", code))
        with pytest.raises(ResourceError) as caught:
            RunDirectory.open(path)
    assert (caught.value.code, caught.value.exit_code) == ("E601", 6)
    assert f"{errno.errorcode[code]} writing {path} (" in caught.value.seen
    assert "MiB free" in caught.value.seen
    assert fix in caught.value.fix
    assert "--out" not in caught.value.fix
    copied = shutil.copytree(path, tmp_path / "copy")
    with RunDirectory.open(copied) as again:  # so the fix does help
        assert again.file == directory.file


def test_a_name_is_taken_also_where_its_lock_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make(tmp_path, name="mine") as directory:
        path = directory.path
    monkeypatch.setattr(os, "open", failing_open(path / "LOCK", errno.EROFS))
    with pytest.raises(ConfigError, match="E502"):
        make(tmp_path, name="mine")


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_what_is_no_run_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="E500"):
        RunDirectory.open(tmp_path / name)
    assert not list((tmp_path / "empty").iterdir())


GOOD = RunFile(run="0" * 32, created="2026-04-02T18:15:30Z", plan=PLAN, facts=FACTS)


def read(folder: Path, content: bytes) -> RunFile | str:
    (folder / "plan.json").write_bytes(content)
    try:
        return read_run_file(folder)
    except ConfigError as error:
        return error.code


def test_every_bit_of_the_plan_counts(tmp_path: Path) -> None:
    content = GOOD.as_bytes()
    assert read(tmp_path, content) == GOOD
    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            assert read(tmp_path, bytes(changed)) in ("E501", GOOD)


@settings(max_examples=60)
@given(st.binary(max_size=60) | st.integers(0, len(GOOD.as_bytes()) - 1).map(lambda size: GOOD.as_bytes()[:size]))
def test_any_content_is_survived(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    assert read(tmp_path_factory.mktemp("run"), content) == "E501"


@pytest.mark.parametrize(
    "text",
    ["[]", "null", "1e999", '{"a":1,"a":2}', "[" * 5000, '{"format":"vambrace-run/1","x":1e400}', '{"x":"\\ud800"}'],
)
def test_hostile_json(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text.encode()) == "E501"


def test_another_version_is_named(tmp_path: Path) -> None:
    body = canonical.loads(GOOD.as_bytes())
    body.pop("digest")
    body["format"] = "vambrace-run/2"
    (tmp_path / "plan.json").write_bytes(canonical.dumps({**body, "digest": canonical.digest(body)}))
    with pytest.raises(ConfigError, match=f"E501.*'vambrace-run/2', not '{FORMAT}'"):
        read_run_file(tmp_path)


def test_write_json_is_canonical(tmp_path: Path) -> None:
    with make(tmp_path) as directory:
        path = directory.write_json("x.json", {"b": 1.0, "a": "\u20ac"})
        assert path.read_bytes() == '{"a":"\u20ac","b":1}'.encode()
