"""Files that MindSpore encrypted, built here from the documented layout by ciphers put together from single AES blocks.

Nothing of the reader is used to build them: GCM is CTR and GHASH written out (NIST SP 800-38D), CBC is chained by hand,
and both rest on the library's ECB alone. Real blocks have 64 MiB; smaller ones of equal size have the same form.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from vambrace.assets.seal import keys, mindspore
from vambrace.errors import ArtifactRefused, ConfigError, MissingExtra, ResourceError

GCM, CBC, SM4 = 0x7F3A5ED8, 0x7F3A5ED9, 0x7F3A5EDA
MAGIC = {"AES-GCM": GCM, "AES-CBC": CBC, "SM4-CBC": SM4}
KEYS = {"AES-GCM": (16, 24, 32), "AES-CBC": (16, 24, 32), "SM4-CBC": (16,)}
ALL = [(mode, size) for mode, sizes in KEYS.items() for size in sizes]


def one(algorithm, key: bytes, block: bytes) -> bytes:
    cipher = Cipher(algorithm(key), modes.ECB()).encryptor()
    return cipher.update(block) + cipher.finalize()


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def times(x: int, y: int) -> int:
    """The product in GCM's field: algorithm 1 of SP 800-38D."""
    z, v = 0, y
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            z ^= v
        v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
    return z


def ghash(h: int, data: bytes) -> int:
    y = 0
    for at in range(0, len(data), 16):
        y = times(y ^ int.from_bytes(data[at : at + 16], "big"), h)
    return y


def gcm(key: bytes, iv: bytes, plain: bytes) -> tuple[bytes, bytes]:
    """Ciphertext and tag, without associated data."""
    h = int.from_bytes(one(algorithms.AES, key, bytes(16)), "big")
    if len(iv) == 12:
        start = int.from_bytes(iv + b"\0\0\0\1", "big")
    else:
        start = ghash(h, iv + bytes(-len(iv) % 16 + 8) + struct.pack(">Q", 8 * len(iv)))

    def counter(n: int) -> bytes:
        low = (start + n) & 0xFFFFFFFF
        return ((start >> 32 << 32) | low).to_bytes(16, "big")

    stream = b"".join(one(algorithms.AES, key, counter(1 + n)) for n in range((len(plain) + 15) // 16))
    sealed = xor(plain, stream[: len(plain)])
    lengths = struct.pack(">QQ", 0, 8 * len(sealed))
    mac = ghash(h, sealed + bytes(-len(sealed) % 16) + lengths)
    return sealed, xor(mac.to_bytes(16, "big"), one(algorithms.AES, key, counter(0)))


def cbc(algorithm, key: bytes, iv: bytes, plain: bytes) -> bytes:
    count = 16 - len(plain) % 16
    plain, sealed = plain + bytes([count]) * count, b""
    for at in range(0, len(plain), 16):
        iv = one(algorithm, key, xor(plain[at : at + 16], iv))
        sealed += iv
    return sealed


def block(plain: bytes, key: bytes, mode: str = "AES-GCM", *, layout: str = "now", iv: bytes | None = None) -> bytes:
    """One block as MindSpore writes it; layout "early": of 2021, "unset": a tag of zeros."""
    iv = iv or os.urandom(16)
    tag = b""
    if mode == "AES-GCM":
        sealed, tag = gcm(key, iv[:12] if layout == "early" else iv, plain)
        tag = {"now": tag, "early": b"", "unset": bytes(16)}[layout]
    else:
        sealed = cbc(algorithms.SM4 if mode == "SM4-CBC" else algorithms.AES, key, iv, plain)
    magic = GCM if layout == "early" else MAGIC[mode]
    body = struct.pack("<i", 16) + iv + struct.pack("<i", len(sealed)) + sealed
    return struct.pack("<I", magic) + tag + struct.pack("<i", len(body)) + body


def blocks(plain: bytes, key: bytes, mode: str = "AES-GCM", size: int = 64, **more: str) -> list[bytes]:
    return [block(plain[at : at + size], key, mode, **more) for at in range(0, len(plain), size)]


PLAIN = bytes(range(256)) * 2 + b"a checkpoint, and its last block is short"


def test_the_builder_is_gcm() -> None:
    """Against the library's, for the sizes of IV that both layouts have."""
    for iv in (bytes(range(12)), bytes(range(16))):
        for plain in (b"a", PLAIN):
            sealed, tag = gcm(bytes(range(32)), iv, plain)
            assert AESGCM(bytes(range(32))).encrypt(iv, plain, None) == sealed + tag


@pytest.mark.parametrize(("mode", "size"), ALL)
@pytest.mark.parametrize("plain", [b"x", PLAIN[:64], PLAIN[:65], PLAIN[:128], PLAIN])
def test_files_of_every_mode_open(tmp_path: Path, mode: str, size: int, plain: bytes) -> None:
    key = os.urandom(size)
    data = b"".join(blocks(plain, key, mode))
    (tmp_path / "net.ckpt").write_bytes(data)
    assert mindspore.is_encrypted(data)
    for source in (data, bytearray(data), memoryview(data), tmp_path / "net.ckpt", str(tmp_path / "net.ckpt")):
        for given_mode in (None, mode):
            opened = mindspore.read(source, key, given_mode)
            assert opened.data == plain
            assert (opened.mode, opened.authenticated) == (mode, mode == "AES-GCM")
    assert any("full ones" in warning for warning in opened.warnings)
    assert any("changed unnoticed" in warning for warning in opened.warnings) == (mode != "AES-GCM")
    assert "range" not in repr(opened)
    assert repr(plain)[2:10] not in repr(opened)


def test_a_secret_of_ours_is_a_key() -> None:
    key = keys.generate("aes256")
    assert mindspore.read(block(PLAIN, key.raw), key).data == PLAIN


@pytest.mark.parametrize(("mode", "size"), ALL)
def test_every_cut_is_refused(mode: str, size: int) -> None:
    key = os.urandom(size)
    parts = blocks(PLAIN[:150], key, mode)
    data, edges = b"".join(parts), {len(parts[0]), len(parts[0]) + len(parts[1])}
    for end in range(len(data)):
        if end in edges:
            continue  # what a cut at the edge of a block does is below
        with pytest.raises(ArtifactRefused, match="E780" if end < 4 else "E781"):
            mindspore.read(data[:end], key)
    for extra in (b"\0", b"abcd", data[:10], bytes(100)):
        with pytest.raises(ArtifactRefused, match=r"E781.*block 4"):
            mindspore.read(data + extra, key)


@pytest.mark.parametrize("mode", KEYS)
def test_blocks_in_another_order_are_named_where_the_format_lets_it(mode: str) -> None:
    key = os.urandom(16)
    first, second, short = blocks(PLAIN[:150], key, mode)
    for order, named in (
        ([short, first, second], "block 1 of 3 is shorter"),
        ([first, short, second], "block 2 of 3 is shorter"),
        ([first, second, short, short], "blocks 3 and 4 are the same"),
        ([first, first, second, short], "blocks 1 and 2 are the same"),
    ):
        with pytest.raises(ArtifactRefused, match=f"E783.*{named}"):
            mindspore.read(b"".join(order), key)
    other = "AES-CBC" if mode != "AES-CBC" else "AES-GCM"
    with pytest.raises(ArtifactRefused, match=r"E783.*block 3 is in another mode"):
        mindspore.read(first + second + block(b"x", key, other), key)
    # Whole full blocks the format does not tell apart; the reader says so.
    for order, plain in (
        ([second, first, short], PLAIN[64:128] + PLAIN[:64] + PLAIN[128:150]),
        ([first, short], PLAIN[:64] + PLAIN[128:150]),
    ):
        opened = mindspore.read(b"".join(order), key)
        assert opened.data == plain
        assert any("left out, exchanged" in warning for warning in opened.warnings)


def test_the_order_of_many_blocks_is_checked_at_one_look_each() -> None:
    """A hostile file of the blocks that take least has a million of them in 64 MiB."""
    looks = 0

    class Size(int):
        def __lt__(self, other: int) -> bool:
            nonlocal looks
            looks += 1
            return int(self) < int(other)

        def __gt__(self, other: int) -> bool:
            nonlocal looks
            looks += 1
            return int(self) > int(other)

    count = 100
    many = [
        mindspore._Block(start=0, size=Size(64), iv=number.to_bytes(16, "big"), mode="AES-GCM", tag=bytes(16))
        for number in range(count)
    ]
    mindspore._in_order(many, "AES-GCM")
    assert 0 < looks <= 3 * count


def test_a_file_that_may_have_been_cut_behind_a_full_block_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mindspore, "_FULL", (64, 512))
    for mode in KEYS:
        key = os.urandom(16)
        parts = blocks(PLAIN[:150], key, mode)
        cut = mindspore.read(b"".join(parts[:2]), key)
        assert any("may have been cut" in warning for warning in cut.warnings)
        whole = mindspore.read(b"".join(parts), key)
        assert not any("may have been cut" in warning for warning in whole.warnings)
        assert not any("another program" in warning for warning in whole.warnings)


def test_blocks_of_another_size_than_mindspores_are_said() -> None:
    key = os.urandom(16)
    assert any("another program" in warning for warning in mindspore.read(b"".join(blocks(PLAIN, key)), key).warnings)
    assert not any("another program" in warning for warning in mindspore.read(block(PLAIN, key), key).warnings)


def test_every_changed_bit_of_a_gcm_block_is_refused() -> None:
    key = os.urandom(32)
    data = b"".join(blocks(PLAIN[:70], key))
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(ArtifactRefused, match=r"E78[01345]"):
            mindspore.read(changed, key)


def test_a_changed_block_behind_a_good_one_tells_that_the_key_is_right() -> None:
    for mode in KEYS:
        key = os.urandom(16)
        parts = blocks(PLAIN[:150], key, mode)
        parts[1] = parts[1][:-1] + bytes([parts[1][-1] ^ 0x80])
        with pytest.raises(ArtifactRefused, match=r"E784.*block 2.*those before it do"):
            mindspore.read(b"".join(parts), key)
    with pytest.raises(ArtifactRefused, match=r"E784.*block 1 does not open.*check the key"):
        mindspore.read(block(PLAIN, bytes(16)), bytes(range(16)))


def test_wrong_keys() -> None:
    for mode, size in ALL:
        data = block(PLAIN, bytes(range(size)), mode, iv=bytes(16))
        refused = 0
        for n in range(20):
            try:
                found = mindspore.read(data, bytes([n]) * size)
            except ArtifactRefused as error:
                refused += error.code == "E784"
            else:
                assert not found.authenticated
        # In the CBC modes about one wrong key in 256 gives a padding that is none.
        assert refused >= (20 if mode == "AES-GCM" else 18)


@pytest.mark.parametrize("size", [16, 24, 32])
@pytest.mark.parametrize("layout", ["early", "unset"])
def test_gcm_without_tags_only_when_asked(size: int, layout: str) -> None:
    key = os.urandom(size)
    data = b"".join(blocks(PLAIN, key, layout=layout))
    for mode in (None, "AES-GCM"):
        with pytest.raises(ArtifactRefused, match=r"E785.*unverified=True"):
            mindspore.read(data, key, mode)
        opened = mindspore.read(data, key, mode, unverified=True)
        assert opened.data == PLAIN
        assert (opened.mode, opened.authenticated) == ("AES-GCM", False)
        assert any("changed unnoticed" in warning for warning in opened.warnings)


def test_a_tag_that_is_there_counts_even_when_not_asked_for() -> None:
    """`unverified` is for what has no tag, not for what has a wrong one."""
    key = os.urandom(16)
    good = blocks(PLAIN[:150], key)
    assert mindspore.read(b"".join(good), key, unverified=True).authenticated
    stripped = good[1][:4] + bytes(16) + good[1][20:]
    with pytest.raises(ArtifactRefused, match=r"E784.*block 2"):
        mindspore.read(good[0] + stripped + good[2], key, unverified=True)
    with pytest.raises(ArtifactRefused, match="E784"):
        mindspore.read(good[0][:4] + b"\1" * 16 + good[0][20:], key, unverified=True)


def test_early_cbc_is_read_when_the_mode_is_given() -> None:
    key = os.urandom(24)
    data = b"".join(blocks(PLAIN, key, "AES-CBC", layout="early"))
    opened = mindspore.read(data, key, "AES-CBC")
    assert opened.data == PLAIN
    assert not opened.authenticated
    with pytest.raises(ArtifactRefused, match=r'E785.*mode="AES-CBC"'):
        mindspore.read(data, key)


def test_an_empty_block_is_none() -> None:
    """MindSpore writes no block for no bytes, and reads none."""
    key = os.urandom(16)
    with pytest.raises(ArtifactRefused, match="E781"):
        mindspore.read(block(b"", key), key)


def test_where_sm4_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise UnsupportedAlgorithm("no SM4 here")

    data = block(b"x", bytes(16), "SM4-CBC")
    monkeypatch.setattr(mindspore, "Cipher", absent)
    with pytest.raises(MissingExtra, match=r"E730.*SM4-CBC"):
        mindspore.read(data, bytes(16))


def test_modes_and_keys_that_do_not_fit() -> None:
    data = {mode: block(b"x", bytes(16), mode) for mode in KEYS}
    for mode, sizes in KEYS.items():
        for other in KEYS:
            if other != mode:
                with pytest.raises(ArtifactRefused, match=f"E786.*{mode}"):
                    mindspore.read(data[mode], bytes(16), other)
        for size in {0, 8, 15, 17, 24, 32, 33, 64} - {*sizes}:
            with pytest.raises(ConfigError, match="E782"):
                mindspore.read(data[mode], bytes(size))
        with pytest.raises(ConfigError, match="E782"):
            mindspore.read(data[mode], bytes(16), "AES-CTR")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"PK\3\4" + bytes(80), b"\x89VBSEAL\n" + bytes(80), struct.pack(">I", GCM)]
)
def test_other_files_are_told_apart(tmp_path: Path, data: bytes) -> None:
    assert not mindspore.is_encrypted(data)
    (tmp_path / "a").write_bytes(data)
    for source in (data, tmp_path / "a"):
        with pytest.raises(ArtifactRefused, match="E780"):
            mindspore.read(source, bytes(16))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="E776"):
        mindspore.read(tmp_path / "absent", bytes(16))
    with pytest.raises(ResourceError, match="E604"):
        mindspore.read(tmp_path, bytes(16))


@pytest.mark.parametrize("number", [0, 1, 15, 17, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("at", [20, 24, 44])
def test_sizes_that_lie_are_refused_without_memory(number: int, at: int) -> None:
    """Of the block, the IV and the ciphertext; also together, so that they agree with each other."""
    key = bytes(16)
    data = bytearray(block(b"x" * 40, key))
    data[at : at + 4] = struct.pack("<I", number)
    with pytest.raises(ArtifactRefused, match="E781"):
        mindspore.read(data, key)
    size = min(number, 2**32 - 25)
    data[20:24], data[24:28], data[44:48] = struct.pack("<I", size + 24), struct.pack("<I", 16), struct.pack("<I", size)
    with pytest.raises(ArtifactRefused, match="E781"):
        mindspore.read(data, key)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_is_changed_is_refused_or_the_plain_bytes(data: st.DataObject) -> None:
    key = bytes(range(16))
    good = b"".join(blocks(PLAIN[:150], key))
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 40)))
    changed = good[:start] + data.draw(st.binary(max_size=40)) + good[end:]
    try:
        opened = mindspore.read(changed, key)
    except ArtifactRefused:
        return
    assert opened.data in (PLAIN[:150], PLAIN[:64], PLAIN[:128])


@pytest.mark.slow
@pytest.mark.parametrize("mode", KEYS)
def test_blocks_of_their_real_size(mode: str) -> None:
    """64 MiB and a few bytes; built by the library, since single cipher blocks would take an hour."""
    key, plain = os.urandom(16), os.urandom(2**20) * 64 + b"a last block"
    data = b""
    for at in (0, 64 * 2**20):
        part, iv = plain[at : at + 64 * 2**20], os.urandom(16)
        if mode == "AES-GCM":
            sealed = AESGCM(key).encrypt(iv, part, None)
            sealed, tag = sealed[:-16], sealed[-16:]
        else:
            count, tag = 16 - len(part) % 16, b""
            algorithm = algorithms.SM4 if mode == "SM4-CBC" else algorithms.AES
            cipher = Cipher(algorithm(key), modes.CBC(iv)).encryptor()
            sealed = cipher.update(part + bytes([count]) * count) + cipher.finalize()
        body = struct.pack("<i", 16) + iv + struct.pack("<i", len(sealed)) + sealed
        data += struct.pack("<I", MAGIC[mode]) + tag + struct.pack("<i", len(body)) + body
    opened = mindspore.read(data, key)
    assert opened.data == plain
    assert not any("another program" in warning or "cut" in warning for warning in opened.warnings)


def test_a_number_is_no_key() -> None:
    with pytest.raises(ConfigError, match="E782: a key that is a int"):
        mindspore.read(b"", 16)  # type: ignore[arg-type]
