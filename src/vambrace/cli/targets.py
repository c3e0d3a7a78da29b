"""TARGET of a command that makes a file: free, apart from what the command reads, and made whole or not at all."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from vambrace.cli.ending import tidily
from vambrace.cli.streams import STREAM, BytesOut
from vambrace.errors import ConfigError, MissingExtra, ModelRefused

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from vambrace.core.files import Draft

__all__ = ["are_one", "check_free", "free", "outside", "put", "sink", "taken", "weights_of"]

_GRAPH_BYTES: Final = 2**26
_SECRET: Final = b"vambrace-secret-key/"  # how such files begin, see `keys`


@contextlib.contextmanager
def sink(target: Path, *, force: bool) -> Generator[BytesOut | Draft]:
    """Where plain bytes go: stdout, or a file that appears when all of them have been written."""
    from vambrace.core.files import Draft

    if target == STREAM:
        out = BytesOut()
        yield out
        out.flush()
        return
    with free(target):
        draft = Draft(target, mode=0o600, fresh=not force)
        try:
            yield draft
            draft.commit()
        except BaseException:
            draft.discard()
            raise


@contextlib.contextmanager
def free(target: Path) -> Generator[None]:
    """Say it as `check_free` does, where something came to TARGET during the work."""
    try:
        yield
    except FileExistsError as error:
        raise taken(target) from error


def put(contents: Mapping[Path, bytes], *, force: bool) -> None:
    """Put all of them on disk before any takes its place, one after the other.

    Raises:
        ConfigError: E766, where something came to one of the places meanwhile and may not be replaced.
        ResourceError: E601, when one cannot be written.
    """
    from vambrace.core.files import Draft

    with tidily(), contextlib.ExitStack() as stack:
        drafts: list[Draft] = []
        for path, content in contents.items():
            with free(path):
                drafts.append(Draft(path, fresh=not force))
            stack.callback(drafts[-1].discard)
            drafts[-1].write(content)
        for draft in drafts:
            with free(draft.path):
                draft.commit()


def are_one(path: Path, other: str | Path) -> bool:
    """Whether both are names of one file; where nothing is at one of them, no."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False  # a key may be words, too


def weights_of(source: Path) -> list[Path]:
    """Files in which an ONNX model says that its weights lie; they are not sealed with it."""
    if source.suffix != ".onnx" or not os.path.isfile(source):
        return []
    from vambrace.models.onnx_file import weight_files

    try:
        return weight_files(source)
    except (MissingExtra, ModelRefused):  # a file of any kind can be sealed
        return []


def outside(source: Path) -> list[Path]:
    """Weights of an ONNX model that is small enough to be looked at in passing: those of large ones lie inside them."""
    try:
        if (
            source.suffix != ".onnx"
            or not source.is_file()
            or source.stat().st_size > _GRAPH_BYTES
            or b"location" not in source.read_bytes()
        ):
            return []
    except OSError:
        return []  # sealing says why
    return weights_of(source)


def check_free(path: Path, *, keys: Sequence[str | Path | None], force: bool, weights: Sequence[Path] = ()) -> None:
    """Refuse a TARGET where something is, or may not be replaced.

    Args:
        path: TARGET.
        keys: what else the command reads, keys in words included; never replaced.
        force: replace what is there.
        weights: files that are never replaced either.

    Raises:
        ConfigError: E766.
        ResourceError: E605, for a device, pipe or socket.
    """
    from vambrace.core.disk import refuse_special

    refuse_special(path)  # first, for no --force replaces such a thing
    if not force and os.path.lexists(path):
        raise taken(path, "choose another place: no folder is replaced") if path.is_dir() else taken(path)
    # What was sealed would stand in the place of what opens it.
    if any(key is not None and are_one(path, key) for key in keys):
        raise taken(path, "choose another place: this is a key that the command reads", "a place of its own")
    if _is_secret(path):
        raise taken(path, "choose another place: this is a secret key, perhaps the only copy", "a place of its own")
    if any(are_one(path, each) for each in weights):
        raise taken(path, "choose another place: weights of the model lie in it", "a place of its own")


def _is_secret(path: Path) -> bool:
    """Whether a secret key of Vambrace is there."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SECRET)) == _SECRET
    except OSError:
        return False


def taken(path: Path, fix: str = "choose another place, or --force", expected: str = "a new place") -> ConfigError:
    """E766: something is at `path`."""
    return ConfigError("E766", seen=f"{path} is there already", expected=expected, fix=fix)
