"""What tests seal: archives, and something that runs when it is opened."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

__all__ = ["KEY", "Runs", "written", "zipped"]

KEY = bytes(range(32))


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript and torch.package are on their way out
        write(stream)
    return stream.getvalue()


def zipped(*members: str, content: bytes = b"x") -> bytes:
    def write(stream: io.BytesIO) -> None:
        with zipfile.ZipFile(stream, "w") as archive:
            for member in members:
                archive.writestr(member, content)

    return written(write)
