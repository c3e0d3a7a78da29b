"""Files that are opened while somebody changes their header, and through links."""

from __future__ import annotations

import hashlib
import importlib
import types
from pathlib import Path

import pytest

from assets.seal.headers_on_disk import torn
from vambrace.assets import seal
from vambrace.assets.seal.header import HEADER_BYTES
from vambrace.assets.seal.source import FileSource
from vambrace.assets.seal.verifying import outline
from vambrace.errors import ArtifactRefused

OLD, NEW = bytes(32), bytes([1]) * 32


def test_a_header_that_is_met_half_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    seal.save(__file__, path, recipients=[OLD])
    before = path.read_bytes()[:HEADER_BYTES]
    seal.rewrap(path, OLD, [NEW])
    after = path.read_bytes()[:HEADER_BYTES]
    answers = [before, torn(before, after), after]
    read = FileSource.read

    def racing(self: FileSource, offset: int, size: int) -> bytes:
        return answers.pop(0) if offset == 0 and size == HEADER_BYTES and answers else read(self, offset, size)

    monkeypatch.setattr(FileSource, "read", racing)
    assert seal.load(path, identity=NEW) == Path(__file__).read_bytes()
    answers[:] = [torn(before, after), torn(before, after)]
    with pytest.raises(ArtifactRefused, match="E70[12]"):
        seal.load(path, identity=NEW)
    assert not answers, "what stays as it is, is not read for ever"


def test_a_header_that_never_stops_changing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write to the file holds up nobody who reads it, opened or not."""
    path = tmp_path / "x"
    seal.save(__file__, path, recipients=[OLD])
    read, reads = FileSource.read, 0

    def changing(self: FileSource, offset: int, size: int) -> bytes:
        nonlocal reads
        data = bytearray(read(self, offset, size))
        if offset == 0:
            reads += 1
            assert reads < 50
            data[-1 - reads] ^= 1  # among the bytes of the HMAC
            data[200] ^= reads
        return bytes(data)

    monkeypatch.setattr(FileSource, "read", changing)
    for call in (lambda: seal.load(path, identity=OLD), lambda: outline(path)):
        reads = 0
        with pytest.raises(ArtifactRefused, match="E702"):
            call()


@pytest.mark.parametrize("name", seal.__all__)
def test_public_names_are_not_hidden_by_files_of_the_same_name(name: str) -> None:
    importlib.import_module("vambrace.assets.seal.rewrapping")
    assert not isinstance(getattr(seal, name), types.ModuleType)


def test_a_link_leads_to_the_sidecar_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "real" / "x"
    path.parent.mkdir()
    seal.save(__file__, path, recipients=[OLD])
    before = path.read_bytes()[:HEADER_BYTES]
    seal.rewrap(path, OLD, [NEW])
    data = path.read_bytes()
    after = data[:HEADER_BYTES]
    path.write_bytes(torn(before, after) + data[HEADER_BYTES:])
    (path.parent / ".x.header").write_bytes(after + hashlib.sha256(after).digest())
    (tmp_path / "link").symlink_to(path)
    assert seal.load(tmp_path / "link", identity=NEW) == Path(__file__).read_bytes()
