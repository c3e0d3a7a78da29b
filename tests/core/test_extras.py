import json

import pytest

from vambrace.core.extras import require
from vambrace.errors import MissingExtra


def test_gives_the_module() -> None:
    assert require("json", extra="onnx") is json


def test_names_the_line_that_installs_it() -> None:
    with pytest.raises(MissingExtra) as caught:
        require("no_such_package_here", extra="onnx")
    assert caught.value.code == "E112"
    assert caught.value.fix == "pip install 'vambrace[onnx]'"
    assert caught.value.exit_code == 2
    assert "no_such_package_here is not installed" in str(caught.value)
    assert isinstance(caught.value, ImportError)


def test_says_when_a_package_is_broken(tmp_path, monkeypatch) -> None:
    (tmp_path / "broken_package.py").write_text("raise ImportError('libfoo.so.1 is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match=r"libfoo\.so\.1 is missing"):
        require("broken_package", extra="onnx")
