"""The tests of sealed files can fail: what is wrong in one place is caught by a test that is named here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.seal import (
    test_chunks,
    test_header,
    test_opening,
    test_reader,
    test_sealed,
    test_suites,
    test_tampering,
    test_writer,
)
from assets.seal.harness import SIGNER
from assets.seal.naive_sealed import Naive
from vambrace.assets.seal import header, incoming, opening, sealed, statement, suites, trailer
from vambrace.assets.seal.chunks import ChunkCipher
from vambrace.assets.seal.incoming import Incoming
from vambrace.assets.seal.reader import Reader
from vambrace.assets.seal.suites import Suite

Patch = Callable[[pytest.MonkeyPatch], None]
Check = Callable[[Path], None]


def swap(owner: object, name: str, false: Any) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, false)


class Agreeable:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def several(*patches: Patch) -> Patch:
    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        for patch in patches:
            patch(monkeypatch)

    return apply


def believing(self: Any, nonce: bytes, data: Any, aad: bytes, out: Any) -> None:
    """Decrypts and does not look at the tag."""
    with contextlib.suppress(suites.InvalidTag):
        self._cipher.decrypt_into(nonce, data, aad, out)


def satisfied(self: Any, most: int, true: Any = incoming._Rest.take) -> bytes:
    """Does not look whether there is one byte more."""
    return b"" if most == 1 else true(self, most)


def eager(self: Reader, folder: Path | None) -> Any:
    return self._incoming.contents()


def early(self: Incoming, root: bytes, leaves: bytes) -> None:
    """The end is not looked at."""
    self.signed = False


MUTANTS: dict[str, tuple[Patch, Check]] = {
    "no key commitment": (
        swap(header, "commits", lambda fixed, keys: True),
        lambda path: test_opening.test_the_commitment_is_that_of_the_file_key(),
    ),
    "no header MAC": (
        swap(header, "verify", lambda region, keys: None),
        lambda path: test_tampering.test_every_byte_of_the_head_the_text_and_the_mac(),
    ),
    "descriptions not bound": (
        swap(header, "described", lambda private, public: Agreeable()),
        lambda path: test_header.test_the_descriptions_are_those_of_the_fixed_part(),
    ),
    "any spelling": (
        swap(header, "canonical_object", header.canonical.loads),
        lambda path: test_header.test_other_spellings(" " + test_header.TEXT),
    ),
    "no last flag": (
        swap(ChunkCipher, "_at", lambda self, index, last: self._nonce + index.to_bytes(4, "big") + b"\0"),
        test_tampering.test_a_chunk_cannot_be_made_the_last,
    ),
    "no last flag, by the page": (
        swap(ChunkCipher, "_at", lambda self, index, last: self._nonce + index.to_bytes(4, "big") + b"\0"),
        lambda path: test_chunks.test_records_are_those_of_the_page(Suite.AES_256_GCM),
    ),
    "one nonce": (
        swap(ChunkCipher, "_at", lambda self, index, last: self._nonce + bytes(4) + bytes([last])),
        lambda path: test_chunks.test_records_are_those_of_the_page(Suite.AES_256_GCM),
    ),
    "one nonce in reader and writer": (
        swap(ChunkCipher, "_at", lambda self, index, last: self._nonce + bytes(4) + bytes([last])),
        lambda path: test_writer.test_nothing_is_used_twice(),
    ),
    "tags not looked at": (
        swap(suites._OneShot, "open_into", believing),
        lambda path: test_tampering.test_a_bit_in_every_part_of_every_chunk("plain", path),
    ),
    "decrypted bytes left behind": (
        swap(suites, "_wipe", lambda out: None),
        lambda path: test_suites.test_what_is_not_authentic_leaves_zeros(Suite.AES_256_GCM),
    ),
    "no foot": (
        swap(trailer.TrailerMac, "verified", lambda self, foot, said=b"": True),
        lambda path: test_tampering.test_every_byte_of_the_trailer("plain", path),
    ),
    "no foot, signed": (
        swap(trailer.TrailerMac, "verified", lambda self, foot, said=b"": True),
        test_tampering.test_trailers_of_other_files,
    ),
    "end not looked at": (
        swap(Incoming, "_end", early),
        lambda path: test_tampering.test_files_that_are_cut("plain", path),
    ),
    "bytes after the end": (
        swap(incoming._Rest, "take", satisfied),
        lambda path: test_tampering.test_bytes_after_the_end("plain", path),
    ),
    "padding not looked at": (
        several(swap(incoming, "is_zero", lambda data: True), swap(sealed, "is_zero", lambda data: True)),
        lambda path: test_reader.test_what_contradicts_itself({"padding": b"\0\1"}, "E711", path),
    ),
    "leaves not looked at": (
        swap(trailer.Leaves, "check", lambda self, index, record: None),
        lambda path: test_sealed.test_a_chunk_that_a_recipient_put_in_is_found_where_it_is_touched(signed(path)),
    ),
    "any signer": (
        swap(
            statement,
            "demand",
            lambda said, accepted, true=statement.demand: true(said, {said.signer} if said else accepted),
        ),
        test_tampering.test_sealed_again_by_an_attacker_to_the_same_recipient,
    ),
    "not spooled": (
        swap(Reader, "_spooled", eager),
        test_reader.test_nothing_comes_out_before_the_signature_is_verified,
    ),
    "never expires": (
        swap(opening, "expiry", lambda *metadata: None),
        lambda path: test_opening.test_expiry("public"),
    ),
}


def signed(folder: Path) -> Path:
    path = folder / "a.sealed"
    path.write_bytes(Naive(test_sealed.DATA, signer=SIGNER).data())
    return path


@pytest.mark.parametrize("name", MUTANTS)
def test_it_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, check = MUTANTS[name]
    (tmp_path / "honest").mkdir()
    check(tmp_path / "honest")
    patch(monkeypatch)
    (tmp_path / "mutant").mkdir()
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(tmp_path / "mutant")
