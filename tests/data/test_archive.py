from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.hostile.samples import encoded, pixels, put
from vambrace import data
from vambrace.data.archive import check_members, open_archive
from vambrace.errors import DataRefused


def packed(method: int = zipfile.ZIP_DEFLATED, names: tuple[str, ...] = ("cat/0.png", "dog/1.png")) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for at, name in enumerate(names):
            archive.writestr(name, b"" if name.endswith("/") else encoded(pixels(at)))
    return file.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_honest_zips(method: int, tmp_path: Path) -> None:
    names = ("cat/", "cat/0.png", "dog/1.png", "dog/..hidden..png", "d/0.png", "a.b/..c/0.png")
    path = put(tmp_path / "a.zip", packed(method, names))
    with open_archive(path) as archive:
        assert [info.filename for info in check_members(archive, path)] == list(names)


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../x", "a/..", "..", "/x", "C:/x", "c:x", "a\\x", "..\\x", "a/b.ZIP", "a/b.tar.gz", "x.7z", "//host/x"],
)
def test_unsafe_names(name: str, tmp_path: Path) -> None:
    path = put(tmp_path / "a.zip", packed(names=("cat/0.png", name)))
    with open_archive(path) as archive, pytest.raises(DataRefused) as caught:
        check_members(archive, path)
    assert caught.value.code == "E313"


@pytest.mark.parametrize(
    "names", [("A/x", "a/y"), ("a/X", "a/x"), ("a", "a/x", "A"), ("stra\u00dfe/x", "STRASSE/y"), ("x/b/1", "X/b/2")]
)
def test_names_that_collide(names: tuple[str, ...], tmp_path: Path) -> None:
    path = put(tmp_path / "a.zip", packed(names=names))
    with open_archive(path) as archive, pytest.raises(DataRefused, match="which are one on some systems"):
        check_members(archive, path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_zips_are_read_or_refused(tmp_path: Path, draw: st.DataObject) -> None:
    changed = bytearray(packed())
    for _ in range(draw.draw(st.integers(1, 4))):
        changed[draw.draw(st.integers(4, len(changed) - 1))] = draw.draw(st.integers(0, 255))
    path = put(tmp_path / "a.zip", bytes(changed))
    try:
        out = data.load(path)
        out.read(range(len(out)))
    except DataRefused as error:
        assert error.code in {"E302", "E303", "E304", "E311", "E312", "E313", "E314", "E315"}  # noqa: PT017
