"""Sealed files are read in order from a stream (`Reader`), or at any place of a file on disk (`Sealed`).

    Reader(sys.stdin.buffer, "me.key").copy_to(target)

Both let out plain bytes only of chunks that were verified, and refuse all that is not as it was sealed. Without
`signers` what comes out is intact, and made by somebody who could seal for this recipient; who that was is not proven.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vambrace.assets.seal.header import HEADER_BYTES
from vambrace.assets.seal.incoming import Incoming
from vambrace.assets.seal.opening import open_header
from vambrace.assets.seal.origin import accepted_keys
from vambrace.assets.seal.recipients import identities_of
from vambrace.assets.seal.sealed import Sealed
from vambrace.assets.seal.sink import put
from vambrace.assets.seal.source import fill
from vambrace.core.disk import drop, spooling

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from vambrace.assets.seal.origin import Signer
    from vambrace.assets.seal.sink import Sink
    from vambrace.assets.seal.source import Stream
    from vambrace.assets.seal.statement import Statement

__all__ = ["Reader", "Sealed"]


class Reader(io.RawIOBase):
    """The content of one sealed stream, in order, once; a raw stream of Python's `io`.

    The end of the content comes out only after everything behind it has been verified, to the end of the stream. With
    `signers`, nothing comes out before: ciphertext waits in an unlinked temporary file. Memory holds three chunks.

    Args:
        stream: gives the sealed bytes; is read to its end.
        identities: who opens it; see `seal.load`.
        signers: who must have signed, see there; None: nobody has to.
        check_signature: verify a signature also where nobody has to have signed; costs a SHA-256 of everything.
        stream_unverified: with `signers`, let chunks out before the signature has been verified, which comes last.
        ignore_expiry: open the file after its `expires`, too.
        spool: folder of the temporary file; None: the system's.

    Attributes:
        header: what the file says to everybody.
        description: what it says about its content.

    Raises:
        ArtifactRefused: as `open_header`; while reading, E705 a damaged chunk, E706 cut short, E707 bytes after the
            end, E708 a damaged trailer, E711 a content that contradicts its description, E740 to E743 a signature that
            is not what it has to be.
        ResourceError: E604, when the stream cannot be read; E601, when the temporary file cannot be written.
    """

    def __init__(
        self,
        stream: Stream,
        identities: Sequence[object] | object,
        *,
        signers: Signer | Iterable[Signer] | None = None,
        check_signature: bool = False,
        stream_unverified: bool = False,
        ignore_expiry: bool = False,
        spool: Path | None = None,
    ) -> None:
        super().__init__()
        by, accepted = identities_of(identities), accepted_keys(signers)
        region = memoryview(bytearray(HEADER_BYTES))
        opened = open_header(bytes(region[: fill(stream, region)]), by, ignore_expiry=ignore_expiry)
        self.header = opened.header
        self.description = opened.description
        self._incoming = Incoming(stream, opened, signers=accepted, hashed=bool(accepted) or check_signature)
        self._parts = self._spooled(spool) if accepted and not stream_unverified else self._incoming.contents()
        self._part = memoryview(b"")
        self._failed: BaseException | None = None

    @property
    def signed(self) -> bool | None:
        """Whether the file has a signature; None until the end has been verified."""
        return self._incoming.signed

    @property
    def statement(self) -> Statement | None:
        """Who signed; None where nobody did, where it was not checked, and until the end has been verified."""
        return self._incoming.statement

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401  as in io.RawIOBase
        """Put verified bytes of the content into `buffer`; how many, 0 at the verified end."""
        out = memoryview(buffer).cast("B")
        if not out:
            return 0
        if not self._part:
            self._part = self._next()
        size = min(len(out), len(self._part))
        out[:size], self._part = self._part[:size], self._part[size:]
        return size

    def copy_to(self, sink: Sink) -> int:
        """Write the rest of the content to `sink`, without another copy; how many bytes that were."""
        total = 0
        while part := self._part or self._next():
            self._part = part  # stays, for who asks again, where the sink takes nothing
            self._part = put(sink, part)
            total += len(part) - len(self._part)
        return total

    def close(self) -> None:
        """Forget what was not read; the stream beneath stays open. Twice is fine."""
        if not self.closed:
            self._parts.close()
        super().close()

    def _next(self) -> memoryview:
        if self.closed:
            raise ValueError("a reader that is closed")
        if self._failed is not None:  # a generator that has raised looks like one that is at its end
            raise self._failed
        try:
            return next(self._parts, memoryview(b""))
        except BaseException as error:
            self._failed = error
            raise

    def _spooled(self, folder: Path | None) -> Generator[memoryview]:
        with contextlib.ExitStack() as stack:
            with spooling(folder):
                file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by `drop`
                stack.callback(drop, file)
                for _ in self._incoming.contents(keep=file.write):
                    pass
                file.seek(0)
            yield from self._incoming.again(file)
