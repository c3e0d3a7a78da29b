"""File keys that a key management service wraps: its key stays with it, and it keeps the record of who opened what.

A provider is any object of the form `Provider`; `aws.Aws` is one. `Local` keeps its key in this process, for tests.

    >>> kms = Kms(Local(bytes(range(32))), context={"model": "resnet"})
    >>> stanza = kms.wrap(bytes(32), bytes(32))
    >>> stanza["provider"], stanza["context"], [*kms.unwrap([stanza], bytes(32))] == [bytes(32)]
    ('local', {'model': 'resnet'}, True)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vambrace.assets.seal.stanzas import BINDING, FILE_KEY, check_bounds, decode, encode, of_kind
from vambrace.core import canonical
from vambrace.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vambrace.assets.seal.stanzas import Stanza

__all__ = ["Kms", "Local", "Provider"]


class Provider(Protocol):
    """One key of a key management service.

    Attributes:
        name: of the service, such as "aws"; stands in the header for all to read, as does `key`.
        key: which key of the service.
    """

    name: str
    key: str

    def wrap(self, file_key: bytes, context: Mapping[str, str]) -> bytes:
        """`file_key` (32 bytes) encrypted, 1 to 16,384 bytes, so that it is had back only with the same context.

        Raises:
            ResourceError: E733, when the service refuses or does not answer.
        """
        ...

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes | None:
        """The file key; None where this key, with this context, did not wrap it.

        Raises:
            ResourceError: E733, when the service refuses or does not answer.
        """
        ...


class Kms:
    """A recipient, and the identity that opens: all who may use a key of a key management service.

    Args:
        provider: the key.
        context: texts that the service binds the file key to, shown in its records and in the header; when opening,
            None takes what the file says, and anything else must be the file's. The file's binding is added to it.

    Raises:
        ConfigError: E736, for a context that is not texts by texts, or names or a key that do not fit the header.
    """

    kinds = ("kms",)
    hint = ""

    def __init__(self, provider: Provider, *, context: Mapping[str, str] | None = None) -> None:
        self.provider = provider
        self.context = None if context is None else dict(context)
        given = cast("dict[object, object]", self.context or {})
        fits = all(isinstance(each, str) for pair in given.items() for each in pair) and BINDING not in given
        if not fits or not all(0 < len(name) <= 2048 for name in (provider.name, provider.key)):
            raise ConfigError(
                "E736",
                seen=f"a context or name for a key management service that does not fit ({provider.name[:40]!r})",
                expected=f"texts by texts, without {BINDING!r}; a service and a key of 1 to 2048 characters",
                fix="write numbers as texts; leave the binding to us",
            )

    def __repr__(self) -> str:
        return f"<key {self.provider.key!r} of {self.provider.name!r}>"

    def wrap(self, file_key: bytes, binding: bytes) -> dict[str, object]:
        """The stanza for this key; see `recipients.Recipient`.

        Raises:
            ResourceError: E733, when the service refuses or does not answer; E734, when its answer fits no header.
        """
        context = self.context or {}
        wrapped = self.provider.wrap(file_key, context | {BINDING: binding.hex()})
        if not _is_bytes(wrapped) or not 1 <= len(wrapped) <= 16_384 or file_key in wrapped:
            raise _strange(self, f"{_said(wrapped)} for a wrapped key", "1 to 16384 bytes that hide it")
        named = {"provider": self.provider.name, "key": self.provider.key, "context": dict(context)}
        stanza: dict[str, object] = {"type": "kms", **named, "wrapped": encode(wrapped)}
        check_bounds([stanza])
        return stanza

    def unwrap(self, stanzas: Sequence[Stanza], binding: bytes) -> Iterator[bytes]:
        """The file keys that the service unwraps; see `recipients.Identity`. Each stanza of the service is one request.

        Raises:
            ResourceError: E733, when the service refuses or does not answer; E734, when its answer is no file key.
        """
        mine = [stanza for stanza in of_kind(stanzas, *self.kinds) if stanza["provider"] == self.provider.name]
        for stanza in sorted(mine, key=lambda stanza: stanza["key"] != self.provider.key):
            context = cast("dict[str, str]", stanza["context"])
            if self.context is not None and context != self.context:
                continue
            file_key = self.provider.unwrap(decode(stanza["wrapped"]) or b"", context | {BINDING: binding.hex()})
            if file_key is None:
                continue
            if not _is_bytes(file_key) or len(file_key) != FILE_KEY:
                raise _strange(self, f"{_said(file_key)} for a file key", f"{FILE_KEY} bytes")
            yield bytes(file_key)


class Local:
    """A stand-in for a key management service, for tests: AES-256-GCM with a key that lies in this process.

    Args:
        secret: 32 bytes.
        key: its name.
    """

    name = "local"

    def __init__(self, secret: bytes, *, key: str = "test") -> None:
        self.key = key
        self._aead = AESGCM(secret)

    def wrap(self, file_key: bytes, context: Mapping[str, str]) -> bytes:
        """See `Provider`."""
        nonce = os.urandom(12)
        return nonce + self._aead.encrypt(nonce, file_key, canonical.dumps(dict(context)))

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes | None:
        """See `Provider`."""
        if len(wrapped) < 28:
            return None
        try:
            return self._aead.decrypt(wrapped[:12], wrapped[12:], canonical.dumps(dict(context)))
        except InvalidTag:
            return None


def _is_bytes(answer: object) -> bool:
    """Providers are others' code."""
    return isinstance(answer, bytes | bytearray)


def _said(answer: bytes) -> str:
    """What it is, and never what is in it."""
    return f"{len(answer)} bytes" if _is_bytes(answer) else f"a {type(answer).__name__}"


def _strange(kms: Kms, seen: str, expected: str) -> ResourceError:
    return ResourceError(
        "E734",
        seen=f"{kms!r} answered {seen}",
        expected=expected,
        fix="look at the provider: it does not keep its form",
    )
