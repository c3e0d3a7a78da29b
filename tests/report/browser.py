"""A headless Chromium for the tests of the page; they skip where there is none."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
SECONDS = 120


def chromium() -> str:
    """Path of the browser; the test skips where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no chromium here")
    return found


def browse(page: Path, *flags: str) -> str:
    """Open a page with a fresh profile and return what the browser prints."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [chromium(), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    if done.returncode != 0 and not done.stdout:
        pytest.skip(f"chromium does not start here: {done.stderr.decode(errors='replace')[-200:]}")
    return done.stdout.decode("utf-8", "replace")


def after_loading(page: Path) -> str:
    """The document as it is after the page has loaded and its scripts, if any, have run."""
    return browse(page, "--dump-dom", "--virtual-time-budget=2000")
