import importlib
import sys

import pytest

from vambrace.core.trusted import importable, is_trusted


@pytest.mark.parametrize(
    ("module", "trusted", "expected"),
    [
        ("mine", ["mine"], True),
        ("mine.nets", ["mine"], True),
        ("mine.nets", ["mine.nets"], True),
        ("mine", ["mine.nets"], False),
        ("mines", ["mine"], False),
        ("mine", [], False),
        ("os", ["mine", "other"], False),
    ],
)
def test_roots(module: str, trusted: list[str], expected: bool) -> None:
    assert is_trusted(module, trusted) is expected


def test_a_trusted_root_comes_from_the_folder(tmp_path) -> None:
    (tmp_path / "colorsys_of_ours.py").write_text("import neighbour_of_ours\nVALUE = neighbour_of_ours.VALUE")
    (tmp_path / "neighbour_of_ours.py").write_text("VALUE = 7")
    before = (list(sys.path), list(sys.meta_path))
    with importable(tmp_path, ["colorsys_of_ours"]):
        assert importlib.import_module("colorsys_of_ours").VALUE == 7
    assert (sys.path, sys.meta_path) == before


def test_a_stray_file_shadows_nothing(tmp_path) -> None:
    """Modules of the folder that nobody trusts come last, so a standard module of the name wins."""
    (tmp_path / "colorsys.py").write_text("raise AssertionError('the stray file was run')")
    sys.modules.pop("colorsys", None)
    with importable(tmp_path, ["mine"]):
        assert hasattr(importlib.import_module("colorsys"), "rgb_to_hsv")


def test_a_trusted_root_wins_over_an_installed_one(tmp_path) -> None:
    (tmp_path / "chunk.py").write_text("OURS = True")
    sys.modules.pop("chunk", None)
    with importable(tmp_path, ["chunk"]):
        assert importlib.import_module("chunk").OURS
    del sys.modules["chunk"]


def test_everything_is_put_back_after_an_error(tmp_path) -> None:
    before = (list(sys.path), list(sys.meta_path))
    with pytest.raises(ZeroDivisionError), importable(tmp_path, ["mine"]):
        raise ZeroDivisionError
    assert (sys.path, sys.meta_path) == before


def test_a_folder_that_is_on_the_path_stays_there(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with importable(tmp_path, ["mine"]):
        pass
    assert sys.path[0] == str(tmp_path)
