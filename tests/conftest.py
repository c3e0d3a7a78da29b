"""What every test shares: real data where it is, a device, a home folder of its own, repeatable searches."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]
_HOME = "VAMBRACE_TEST_HOME"

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tensors of the tests live: cpu (default) or cuda")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything imports torch or matplotlib; workers and programs started by tests inherit it."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # torch.get_num_threads() == 1: tests share the cores by processes
    if (device := config.getoption("--device")) != "cpu":
        from placing import Placed, start

        start(device)
        mode = Placed(device)
        mode.__enter__()
        config.add_cleanup(lambda: mode.__exit__(None, None, None))
    if _HOME in os.environ:
        return
    home = tempfile.mkdtemp(prefix="vambrace-tests-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    os.environ |= {_HOME: home, "HOME": home, "USERPROFILE": home}
    for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        os.environ[name] = str(Path(home, name.lower()))
    # For CUDA kernels: torch warns where the cache is not there yet, or where two workers make its folders at once.
    Path(os.environ["XDG_CACHE_HOME"], "torch", "kernels").mkdir(parents=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and third-party models; the test skips where there is none."""
    folder = Path(os.environ.get("VAMBRACE_SHARED") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip("no shared data: set VAMBRACE_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device named by `--device`; the test skips where it is not there."""
    import torch

    chosen = torch.device(request.config.getoption("--device"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return chosen
