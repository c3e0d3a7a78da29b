"""Vectors of the sealed format: what was valid stays readable, what was refused stays refused, and means the same."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest

from assets.seal import write_sealed_vectors as writing
from assets.seal.harness import Recorder
from vambrace.assets.seal.keys import Secret
from vambrace.assets.seal.passphrase import Passphrase
from vambrace.assets.seal.reader import Reader, Sealed
from vambrace.assets.seal.recipients import Identity, as_identity
from vambrace.errors import VambraceError

VECTORS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(writing.FOLDER.glob("*.json"))}


def bytes_of(vector: dict[str, Any]) -> bytes:
    head, mac, rest = (base64.b64decode(vector[name], validate=True) for name in ("head", "mac", "rest"))
    return head.ljust(65_536 - 32, b"\0") + mac + rest


def identity_of(vector: dict[str, Any]) -> Identity:
    kind, value = vector["identity"]["kind"], vector["identity"]["value"]
    if kind == "passphrase":
        return Passphrase(value)
    raw = base64.b64decode(value, validate=True)
    return as_identity(raw if kind == "key" else Secret(kind, raw))


def streamed(vector: dict[str, Any], path: Path) -> dict[str, Any]:
    sink = Recorder()
    reader = Reader(io.BytesIO(bytes_of(vector)), [identity_of(vector)], check_signature=True)
    reader.copy_to(sink)
    return said(reader, bytes(sink.data))


def on_disk(vector: dict[str, Any], path: Path) -> dict[str, Any]:
    path.write_bytes(bytes_of(vector))
    with Sealed.open(path, [identity_of(vector)]) as sealed:
        content = sealed.read(0, sealed.size)
        sealed.verify()
        return said(sealed, content)


def said(file: Reader | Sealed, content: bytes) -> dict[str, Any]:
    return {
        "content": base64.b64encode(content).decode(),
        "kind": file.description.content,
        "metadata": file.description.metadata,
        "public": file.header.public,
        "signer": file.statement and base64.b64encode(file.statement.signer).decode(),
    }


@pytest.mark.parametrize("read", [streamed, on_disk])
@pytest.mark.parametrize("name", VECTORS)
def test_vector(name: str, read: Any, tmp_path: Path) -> None:
    vector = VECTORS[name]
    assert set(vector) == {"comment", "head", "mac", "rest", "identity", "expect"}
    if "error" not in vector["expect"]:
        assert read(vector, tmp_path / "a") == vector["expect"]
        return
    with pytest.raises(VambraceError) as caught:
        read(vector, tmp_path / "a")
    assert caught.value.code == vector["expect"]["error"]
    if read is streamed:
        assert caught.value.seen.startswith(vector["expect"]["seen"])


def test_they_are_what_the_script_writes() -> None:
    """From the page alone, so the page, the script and the package say the same."""
    written = {name: json.loads(writing.spelt(vector)) for name, vector in writing.vectors()}
    assert {*written, writing.RANDOM} == set(VECTORS)
    assert written == {name: vector for name, vector in VECTORS.items() if name != writing.RANDOM}
    assert sum("error" in vector["expect"] for vector in VECTORS.values()) >= 20
