r"""Keys as files: one line of text that says what it is, so that no key is taken for another.

    vambrace-secret-key/1 KIND BASE64
    vambrace-public-key/1 KIND BASE64

A secret is 32 bytes of the operating system's randomness for every kind:

| kind | secret | public part |
|---|---|---|
| `aes256` | a key that seals and opens | none |
| `x25519` | private key (RFC 7748) | 32 bytes |
| `mlkem768-x25519` | seed of X-Wing (draft-connolly-cfrg-xwing-kem, 5.2) | 1,216 bytes: ML-KEM-768, then X25519 |
| `ed25519` | private key (RFC 8032), for signatures | 32 bytes |

    >>> from pathlib import Path; from tempfile import mkdtemp
    >>> key, file = generate("x25519"), Path(mkdtemp()) / "model.key"
    >>> write(file, key)
    >>> read(file).public() == key.public()
    True
    >>> key
    <secret key x25519>

Python promises little about secrets in memory: a key's own bytes can be overwritten (`Secret.wipe`), but not the
copies that it handed out, those inside of the cryptographic library, or what went to swap or a core dump.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import hashlib
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final, Literal, cast, get_args

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vambrace.assets.seal.source import nothing_at
from vambrace.core import files
from vambrace.errors import ArtifactRefused, ConfigError, NotThere, ResourceError

__all__ = ["Public", "Secret", "generate", "parse", "read", "write"]

Kind = Literal["aes256", "ed25519", "mlkem768-x25519", "x25519"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_PUBLIC_BYTES: Final = {"ed25519": 32, "mlkem768-x25519": 1216, "x25519": 32}
_LINE = re.compile(r"vambrace-(secret|public)-key/1 ([a-z0-9-]{1,40}) ([A-Za-z0-9+/]{1,4000}={0,2})\r?\n?")
_LONGEST = 4096
EMPTY: Final = "an empty path, as of a variable that is not set"


@dataclasses.dataclass(frozen=True, slots=True)
class Public:
    """The part of a key pair that everybody may have.

    Attributes:
        kind: `x25519`, `mlkem768-x25519` or `ed25519`.
        raw: the key, 32 bytes, or 1,216 of `mlkem768-x25519`.

    Raises:
        ConfigError: E724, for another kind or another number of bytes.
    """

    kind: Kind
    raw: bytes = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        wanted = _PUBLIC_BYTES.get(self.kind)
        if wanted is None or len(self.raw) != wanted:
            raise _unfit(f"{len(self.raw)} bytes for a public key of kind {self.kind[:40]!r}", _PUBLIC_BYTES)

    def __repr__(self) -> str:
        return f"<public key {self.kind} {self.id}>"

    @property
    def id(self) -> str:
        """The first 8 bytes of SHA-256 of the key, in hexadecimal digits: a name, proof of nothing."""
        return hashlib.sha256(self.raw).digest()[:8].hex()

    def text(self) -> str:
        """The line of its key file, without the end of line."""
        return f"vambrace-public-key/1 {self.kind} {base64.b64encode(self.raw).decode()}"


class Secret:
    """A secret key. Its `repr` shows nothing of it; it cannot be pickled or copied by accident.

    Args:
        kind: one of `KINDS`.
        raw: the 32 bytes of the secret.

    Raises:
        ConfigError: E724, for another kind or another number of bytes.
    """

    __slots__ = ("_raw", "kind")

    def __init__(self, kind: Kind, raw: bytes | bytearray | memoryview) -> None:
        if kind not in KINDS or len(raw) != 32:
            raise _unfit(f"{len(raw)} bytes for a secret key of kind {kind[:40]!r}", dict.fromkeys(KINDS, 32))
        self.kind: Kind = kind
        self._raw = bytearray(raw)

    def __repr__(self) -> str:
        return f"<secret key {self.kind}>"

    def __reduce__(self) -> str:
        raise TypeError("secret keys are not pickled or copied; write them with vambrace.assets.seal.keys.write")

    @property
    def raw(self) -> bytes:
        """The 32 secret bytes, a copy that `wipe` does not reach.

        Raises:
            ConfigError: E724, after `wipe`.
        """
        if not self._raw:
            raise ConfigError("E724", seen="a secret key that was wiped", expected="a key", fix="read it again")
        return bytes(self._raw)

    @property
    def id(self) -> str:
        """Its name in sealed files: that of its public part, or 8 bytes of HKDF-Expand, in hexadecimal digits."""
        if self.kind == "aes256":
            return HKDFExpand(hashes.SHA256(), 32, b"vambrace-sealed/1 id").derive(self.raw)[:8].hex()
        return self.public().id

    def public(self) -> Public:
        """The public part.

        Raises:
            ConfigError: E723, for `aes256`, which has none.
            MissingExtra: E730, where the installed `cryptography` lacks ML-KEM.
        """
        if self.kind == "x25519":
            return Public("x25519", X25519PrivateKey.from_private_bytes(self.raw).public_key().public_bytes_raw())
        if self.kind == "ed25519":
            return Public("ed25519", Ed25519PrivateKey.from_private_bytes(self.raw).public_key().public_bytes_raw())
        if self.kind == "mlkem768-x25519":
            from vambrace.assets.seal.hpke import xwing_public

            return Public("mlkem768-x25519", xwing_public(self.raw))
        raise ConfigError(
            "E723",
            seen="a key of kind aes256 where a public key is needed",
            expected=f"a key of kind {', '.join(_PUBLIC_BYTES)}",
            fix="generate a key pair, or use the key itself as recipient",
        )

    def text(self) -> str:
        """The line of its key file, without the end of line: secret."""
        return f"vambrace-secret-key/1 {self.kind} {base64.b64encode(self.raw).decode()}"

    def wipe(self) -> None:
        """Overwrite the bytes held here and forget them; copies that were handed out stay where they are."""
        self._raw[:] = bytes(len(self._raw))
        self._raw = bytearray()


def generate(kind: Kind) -> Secret:
    """A new secret key of the operating system's randomness.

    Raises:
        ConfigError: E724, for a kind that is not one of `KINDS`.
    """
    return Secret(kind, secrets.token_bytes(32))


def write(path: str | os.PathLike[str], key: Secret | Public) -> None:
    """Put a key into a new file: readable by its owner alone if it is secret (mode 0600), by all if it is public.

    An existing file is never overwritten: the only copy of a key may be in it.

    Raises:
        ConfigError: E722, when there is something at `path`.
        ResourceError: E601, when it cannot be written.
    """
    target = Path(path)
    try:
        files.create_file(target, f"{key.text()}\n".encode(), mode=0o600 if isinstance(key, Secret) else 0o644)
    except FileExistsError as error:
        raise ConfigError(
            "E722",
            seen=f"a file at {target}",
            expected="a free name: a key file is never overwritten",
            fix="choose another name, or move the file away",
        ) from error


def read(path: str | os.PathLike[str], *, permissive: bool = False) -> Secret | Public:
    """The key in a file.

    Args:
        path: a key file, or a pipe of one.
        permissive: read a secret key that others can read too (as a container platform mounts secrets).

    Raises:
        NotThere: E776, a FileNotFoundError: there is none.
        ArtifactRefused: E720, for anything but one key; E721, for a secret key in a file that others can read.
        ResourceError: E604, when it cannot be read.
    """
    source = Path(path)
    if not os.fspath(path):  # as a path, it would be the folder one is in
        raise NotThere("E776", seen=EMPTY, expected="a key file", fix="check what the path comes from")
    try:
        with source.open("rb", buffering=0) as file:
            mode = os.fstat(file.fileno()).st_mode
            data = b""
            while len(data) <= _LONGEST and (more := file.read(_LONGEST)):
                data += more
    except (OSError, ValueError) as error:
        if not os.path.exists(source):  # noqa: PTH110  nor is a name that is too long, or has a null byte
            raise nothing_at(source, "a key file") from error
        raise ResourceError(
            "E604",
            seen=f"{type(error).__name__} reading {source}",
            expected="a readable key file",
            fix="check the path and its permissions",
        ) from error
    with contextlib.suppress(UnicodeDecodeError):
        key = _parsed(data.decode("ascii"))
        if isinstance(key, Secret) and not permissive and stat.S_ISREG(mode) and mode & 0o077:
            key.wipe()
            raise ArtifactRefused(
                "E721",
                seen=f"{source} has mode {stat.S_IMODE(mode):04o}: others than its owner can use this secret key",
                expected="mode 0600 or 0400",
                fix=f"chmod 600 {source}",
            )
        if key is not None:
            return key
    raise ArtifactRefused(
        "E720",
        seen=f"{source} does not hold one key of Vambrace",
        expected=f"one line, vambrace-secret-key/1 or vambrace-public-key/1, a kind ({', '.join(KINDS)}), and base64",
        fix="give the file that `keys.write` made; raw bytes are given as a Key",
    )


def parse(text: str) -> Secret | Public:
    """The key in a line of text.

    Raises:
        ArtifactRefused: E720, for anything but one key; the message does not show the text.
    """
    key = _parsed(text)
    if key is None:
        raise ArtifactRefused(
            "E720",
            seen=f"a text of {len(text)} characters that is no key of Vambrace",
            expected=f"vambrace-secret-key/1 or vambrace-public-key/1, a kind ({', '.join(KINDS)}), and base64",
            fix="give the line as `text()` wrote it",
        )
    return key


def _parsed(text: str) -> Secret | Public | None:
    match = _LINE.fullmatch(text)
    if match is None:
        return None
    sort, kind, spelt = match.groups()
    try:
        raw = base64.b64decode(spelt, validate=True)
    except binascii.Error:
        return None
    # Bits that the last character has too many would let one key be written in several ways.
    if base64.b64encode(raw).decode() == spelt:
        with contextlib.suppress(ConfigError):
            return (Secret if sort == "secret" else Public)(cast("Kind", kind), raw)
    return None


def _unfit(seen: str, sizes: dict[str, int] | dict[Kind, int]) -> ConfigError:
    return ConfigError(
        "E724",
        seen=seen,
        expected=", ".join(f"{kind} of {size} bytes" for kind, size in sizes.items()),
        fix="generate the key with `keys.generate`, or read it from its file",
    )
