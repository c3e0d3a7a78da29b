from pathlib import Path

import pytest

from vambrace.core.disk import check_writable
from vambrace.errors import ResourceError


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "new")
    check_writable(tmp_path / "file")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]
    for name, word in (("no/new", "ENOENT"), ("file/new", "ENOTDIR"), (".", "EISDIR")):
        with pytest.raises(ResourceError, match=f"E601.*{word}"):
            check_writable(tmp_path / name)
    with pytest.raises(ResourceError, match="E601"):
        check_writable(Path("/proc/new"))
