"""Sign files and folders, and check what was signed: a file of signatures beside them, one line for each signer.

    sign("net.onnx", "release.key", name="A. Smith", role="release")  # writes net.onnx.sig
    check("net.onnx").entries  # raises where anything has changed

Guarantees: what `check` returns was signed by the keys that it names, and is the same now, byte for byte; of a folder
no file that counts was changed, added or removed, and those that do not are named. Whether those keys may be trusted is
for the caller (`verifying`). Format, and what counts as part of a folder: docs/formats/signature-v1.md.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vambrace.assets.seal import origin, signature, subject
from vambrace.assets.seal.header import MAGIC
from vambrace.assets.seal.holding import alone
from vambrace.core import files
from vambrace.core.clock import now
from vambrace.core.disk import refuse_special, unreadable
from vambrace.errors import ArtifactRefused, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from vambrace.assets.seal import keys
    from vambrace.assets.seal.signature import Signature

__all__ = ["beside", "check", "is_sealed", "located", "sign"]


def sign(
    path: str | os.PathLike[str],
    key: Ed25519PrivateKey | keys.Secret | str | os.PathLike[str],
    *,
    name: str = "",
    role: str = "",
    date: str | None = None,
    to: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Signature:
    """Sign a file or folder; where others have signed it already, below them.

    Args:
        path: what is signed. It is read and not changed.
        key: the signer's secret key of kind ed25519, or its file.
        name: of the signer, at most 200 characters; a claim.
        role: what the signature means, the same; a claim.
        date: `YYYY-MM-DDTHH:MM:SSZ`; None: now.
        to: the file of signatures; None: `NAME.sig` beside `path`.
        progress: as in `subject.of`.

    Returns:
        All that the file of signatures now says.

    Raises:
        ConfigError: E746, for words that a signature cannot carry; E748, for a key that does not sign; E749, for a
            sealed file, where nothing is, and for signatures inside of the folder that they are for.
        ArtifactRefused: E741 or E744, when the signatures that are there do not hold; E745, when they are for other
            content; E747, for what cannot be signed.
        ResourceError: E600, when somebody writes to the run directory or signs at the same time; E601, E603, E604;
            E605, for a device, pipe or socket where the signatures would go.
    """
    place = located(path)
    if is_sealed(place):
        raise ConfigError(
            "E749",
            seen=f"{subject.shown(str(place))} is a sealed file",
            expected="a file or folder that carries no signature inside",
            fix="sign it while it is sealed (`vambrace seal --sign`), or with `vambrace rekey --sign`",
        )
    secret = origin.signing_key(key)
    moment = now() if date is None else date
    origin.described(name, role, moment)
    target = beside(place) if to is None else Path(to)
    refuse_special(target)
    if target.resolve().is_relative_to(place.resolve()):
        raise ConfigError(
            "E749",
            seen=f"signatures in {_named(target)}, which is part of what is signed",
            expected="signatures beside it",
            fix="choose another place for them, or none",
        )
    with alone(place):
        found = subject.of(place, progress)
        data = _content(target)
        if data is None:
            data = signature.begun(found)
        else:
            _same(signature.parse(data, named=_named(target)).subject, found, place)
        data = signature.added(data, secret, name=name, role=role, date=moment)
        signed = signature.parse(data, named=_named(target))
        files.write_file(target, data)
    return signed


def check(
    path: str | os.PathLike[str],
    *,
    at: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Signature:
    """Who signed the file or folder at `path`, which is as it was when they did.

    Args:
        path: the file or folder.
        at: the file of signatures; None: `NAME.sig` beside `path`.
        progress: as in `subject.of`.

    Raises:
        ConfigError: E749, where nothing is.
        ArtifactRefused: E742, when it was never signed; E741 or E744, when the signatures do not hold; E745, when it is
            not what was signed; E747, for a folder with what cannot be signed.
        ResourceError: E600, when somebody writes to the run directory; E604, when something cannot be read.
    """
    place = located(path)
    target = beside(place) if at is None else Path(at)
    data = _content(target)
    if data is None:
        raise ArtifactRefused(
            "E742",
            seen=f"no signature of {subject.shown(str(place))}",
            expected=f"signatures in {_named(target)}",
            fix="get the signature from the maker of the file; without it anybody can have made it",
        )
    signed = signature.parse(data, named=_named(target))
    _same(signed.subject, now := subject.of(place, progress), place)
    return dataclasses.replace(signed, subject=now)


def beside(path: Path) -> Path:
    """Where the signatures of a file or folder lie: `NAME.sig` beside it."""
    return path.with_name(f"{path.name}.sig")


def is_sealed(path: Path) -> bool:
    """Whether the file at `path` begins as sealed files do; False for a folder.

    Raises:
        ResourceError: E604, when it cannot be read.
    """
    if not os.path.isfile(path):
        return False
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise unreadable(subject.shown(str(path)), error) from error


def located(path: str | os.PathLike[str]) -> Path:
    """The path, with a name of its own, of something that is there.

    Raises:
        ConfigError: E749, where nothing is.
    """
    place = Path(path)
    if place.name in {"", ".."}:
        place = place.resolve()
    if not place.name or not os.path.exists(place):  # noqa: PTH110  of a name that is too long it says no
        raise ConfigError(
            "E749",
            seen=f"nothing at {subject.shown(str(place))}",
            expected="a file or folder",
            fix="check the path",
        )
    return place


def _content(path: Path) -> bytes | None:
    """The bytes of a file of signatures, not more than one may have and one; None where there is none."""
    try:
        # Without O_NONBLOCK, the open of a pipe that nobody writes to would never return.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123  see there
            return file.read(signature.MOST_BYTES + 1) or b""
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(subject.shown(str(path)), error) from error


def _same(signed: subject.Subject, found: subject.Subject, place: Path) -> None:
    if changes := subject.differences(signed, found):
        raise ArtifactRefused(
            "E745",
            seen=f"{subject.shown(str(place))} is not what was signed; {changes}",
            expected="every file as it was, none added and none removed",
            fix="get it again from its maker; if the change is yours, move the old signature away and sign anew",
        )


def _named(path: Path) -> str:
    return subject.shown(str(path))
