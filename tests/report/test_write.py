"""`vambrace.report.write`: names, order, durability, refusals, and that nothing of it needs torch."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import xmlschema

from report import sample
from report.markup import dangers
from vambrace import explain
from vambrace.core import files
from vambrace.core.canonical import dumps
from vambrace.errors import ConfigError, ResourceError
from vambrace.report import FILES, read_results, write

ALL = ("html", "json", "junit")


def test_writes_all(tmp_path: Path) -> None:
    results = sample.results(tmp_path)
    paths = write(results, tmp_path, ALL, timings=sample.TIMINGS, environment=sample.ENVIRONMENT)
    assert [path.name for path in paths] == ["report.html", "results.json", "junit.xml"]
    page, data, junit = (path.read_bytes() for path in paths)
    assert dangers(page) == []
    assert data == dumps(results.as_json())
    assert read_results(paths[1]) == results
    xmlschema.XMLSchema(Path(__file__).parents[1] / "vectors" / "junit.xsd").validate(io.BytesIO(junit))
    assert b'time="121.500"' in junit
    before = [path.read_bytes() for path in paths]
    write(results, tmp_path, ALL, timings=sample.TIMINGS, environment=sample.ENVIRONMENT)
    assert [path.read_bytes() for path in paths] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evidence", *sorted(FILES.values())]


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    assert write(sample.refused(), tmp_path, ["junit", "junit"]) == [tmp_path / "junit.xml"]
    assert [path.name for path in tmp_path.iterdir()] == ["junit.xml"]
    assert write(sample.refused(), tmp_path, []) == []


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="E553.*'pdf'"):
        write(sample.refused(), tmp_path, ["html", "pdf"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("images", [-1, "some", True, 2.5, None])
def test_impossible_images(tmp_path: Path, images: Any) -> None:
    with pytest.raises(ConfigError, match="E554"):
        write(sample.refused(), tmp_path, ALL, images=images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("images", [0, 3, "all", "none", "blur"])
def test_possible_images(tmp_path: Path, images: Any) -> None:
    write(sample.refused(), tmp_path, ["html"], images=images)


def test_a_full_disk_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = write(sample.refused(), tmp_path, ["html"])
    before = path.read_bytes()

    def full(_fd: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(files.system, "write", full)
    with pytest.raises(ResourceError, match="E601"):
        write(sample.passing(), tmp_path, ["html"])
    assert path.read_bytes() == before


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "jsonschema", "matplotlib", "scipy", "sklearn"}:
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Block())
from pathlib import Path
from vambrace.report import read_results, summary, write
assert "jinja2" not in sys.modules and "PIL" not in sys.modules, "a summary needs no templates"
run = Path(sys.argv[1])
results = read_results(run / "results.json")
write(results, run, ["html", "json", "junit"])
assert summary(results, width=80).startswith("FAIL")
"""


def test_needs_no_torch(tmp_path: Path) -> None:
    results = sample.results(tmp_path)
    write(results, tmp_path, ["json"])
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").stat().st_size > 100_000


@pytest.mark.parametrize("code", ["E550", "E551", "E552", "E553", "E554", "E555"])
def test_every_code_is_explained(code: str) -> None:
    page = explain.page(code)
    assert page is not None
    assert "Fix:" in page
    assert 3 <= len(page.splitlines()) <= 12
