"""Public names of `vambrace.assets.obfuscate`: each resolves, and none is that of a submodule."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vambrace.assets import obfuscate

FOLDER = Path(obfuscate.__file__).parent


@pytest.mark.parametrize("name", obfuscate.__all__)
def test_every_name_resolves_and_is_no_submodule(name: str) -> None:
    assert getattr(obfuscate, name) is not None
    # Importing a submodule sets its name in the package, and would take the place of a function.
    assert not (FOLDER / f"{name}.py").exists()
    assert not (FOLDER / name).is_dir()


def test_nothing_else() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = obfuscate.nothing
    assert sorted(obfuscate._HOMES) == obfuscate.__all__


def test_nothing_is_loaded_before_it_is_needed() -> None:
    code = (
        "import sys; from vambrace.assets import obfuscate; "
        "assert not {'torch', 'onnx', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
