"""The header: its bytes are those of the page, and nothing else is read as one, not even from a holder of the key."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from assets.seal.harness import KEY, identities
from assets.seal.naive_sealed import HEADER, Naive, b64, canonical, wrap
from vambrace.assets.seal import header as headers
from vambrace.assets.seal.header import Header, build, commits, described, parse, verify
from vambrace.assets.seal.opening import open_header
from vambrace.assets.seal.schedule import FileKeys
from vambrace.assets.seal.suites import Suite
from vambrace.errors import ArtifactRefused, ConfigError

FILE = Naive(b"abc", public={"name": "€", "n": 1})
REGION = FILE.region()
KEYS = FileKeys(FILE.file_key, FILE.salt, Suite.AES_256_GCM)
TEXT = FILE.header_text().decode()


def test_it_says_what_the_page_says() -> None:
    header = parse(REGION)
    assert header.fixed.pack() == REGION[:112] == FILE.fixed()
    assert header.fixed.head == REGION[:80]
    assert header.fixed.binding == FILE.binding()
    assert (header.fixed.suite, header.fixed.chunk_size) == (Suite.AES_256_GCM, 65_536)
    assert (header.epoch, header.private, header.public) == (0, FILE.private(), {"name": "€", "n": 1})
    assert [stanza["type"] for stanza in header.recipients] == ["key"]
    verify(REGION, KEYS)
    assert commits(header.fixed, KEYS)


def test_what_is_built_is_what_was_parsed() -> None:
    assert build(parse(REGION), KEYS) == REGION
    header = dataclasses.replace(parse(REGION), epoch=7, recipients=[{"type": "of a later release", "x": [1]}])
    assert parse(build(header, KEYS)) == header


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes(kind: Any) -> None:
    assert parse(kind(REGION)).fixed.pack() == REGION[:112]
    verify(kind(REGION), KEYS)


def test_other_keys_neither_commit_nor_verify() -> None:
    for other in (
        FileKeys(b"g" * 32, FILE.salt, Suite.AES_256_GCM),
        FileKeys(FILE.file_key, b"t" * 32, Suite.AES_256_GCM),
        FileKeys(FILE.file_key, FILE.salt, Suite.SM4_GCM),
    ):
        assert not commits(parse(REGION).fixed, other)
        with pytest.raises(ArtifactRefused, match="E702: a header whose HMAC"):
            verify(REGION, other)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 0}, "E701"),
        ({"version": 2}, "E701"),
        ({"version": 257}, "E701"),
        ({"chunk_size": 0}, "E702"),
        ({"chunk_size": 32_768}, "E702"),
        ({"chunk_size": 65_537}, "E702"),
        ({"chunk_size": 2**25}, "E702"),
        ({"chunk_size": 2**31}, "E702"),
        ({"epoch": -1}, "E702"),
        ({"epoch": 1.5}, "E702"),
        ({"epoch": True}, "E702"),
        ({"epoch": None}, "E702"),
        ({"epoch": "0"}, "E702"),
        ({"recipients": []}, "E702"),
        ({"recipients": {}}, "E702"),
        ({"recipients": [{"type": "x"}] * 65}, "E702"),
        ({"recipients": [{}]}, "E702"),
        ({"recipients": [{"type": 1}]}, "E702"),
        ({"recipients": ["key"]}, "E702"),
        ({"recipients": [{"type": "key"}]}, "E725"),
        ({"public": []}, "E702"),
        ({"public": {"expires": "soon"}}, "E702"),
        ({"public": {"a": [[[[[[[[]]]]]]]]}}, "E702"),
        ({"zeros": bytes(HEADER - 32 - 116 - len(TEXT.encode()) - 1) + b"\1"}, "E702"),
        ({"zeros": b"\1" + bytes(HEADER - 32 - 116 - len(TEXT.encode()) - 1)}, "E702"),
    ],
)
def test_what_even_a_holder_of_the_key_cannot_write(change: dict[str, Any], code: str) -> None:
    region = dataclasses.replace(FILE, **change).region()
    for read in (parse, lambda region: open_header(region, identities())):
        with pytest.raises(ArtifactRefused, match=code):
            read(region)


def spelt(text: str) -> bytes:
    return dataclasses.replace(FILE, text=text.encode("utf-8", "surrogatepass")).region()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        TEXT + "\n",
        " " + TEXT,
        TEXT.replace(":", ": ", 1),
        TEXT.replace('"epoch":0', '"epoch":0.0'),
        TEXT.replace('"epoch":0', '"epoch":-0'),
        TEXT.replace('"epoch":0', '"epoch":0e0'),
        TEXT.replace('"epoch":0', '"epoch":00'),
        TEXT.replace('"epoch":0', '"epoch":1e400'),
        TEXT.replace('"epoch":0', '"epoch":9007199254740993'),
        TEXT.replace('"epoch":0', '"epoch":0,"epoch":0'),
        TEXT.replace('"epoch":0,', ""),
        TEXT.replace('"epoch":0', '"epoch":0,"more":0'),
        TEXT.replace("€", "\\u20ac"),
        TEXT.replace("€", "\ud800"),
        TEXT.replace("€", "\\ud800"),
        TEXT.replace('"type"', '"\\u0074ype"'),
        TEXT.replace('"epoch"', '"zpoch"'),
        re.sub(r'("private":"[^"]*)=+"', r'\1"', TEXT),
        re.sub(r'"private":"[^"]*"', '"private":"AAAAAAAAAAAAAAAAAAAAAAAAAAAA"', TEXT),
        re.sub(r'"private":"[^"]*"', '"private":""', TEXT),
        re.sub(r'"private":"[^"]*"', '"private":null', TEXT),
        re.sub(r'"private":"', '"private":"\\\\n', TEXT),
        re.sub(r'"private":"', '"private":" ', TEXT),
        '{"epoch":' + "[" * 30_000 + "]" * 30_000 + "}",
    ],
)
def test_other_spellings(text: str) -> None:
    assert text != TEXT
    with pytest.raises(ArtifactRefused, match="E702"):
        parse(spelt(text))


def test_the_one_spelling() -> None:
    """Negative control of the tests above."""
    assert spelt(TEXT) == REGION


def test_base64_with_bits_that_are_lost() -> None:
    private = b64(FILE.private())
    assert private.endswith("="), "choose a public text of another length"
    end = len(private.rstrip("=")) - 1
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = private[:end] + digits[digits.index(private[end]) ^ 1] + private[end + 1 :]
    with pytest.raises(ArtifactRefused, match="E702"):
        parse(spelt(TEXT.replace(private, other)))


def test_the_descriptions_are_those_of_the_fixed_part() -> None:
    for text in (TEXT.replace('"n":1', '"n":2'), TEXT.replace(b64(FILE.private()), b64(b"x" * 80))):
        with pytest.raises(ArtifactRefused, match="E702: descriptions that are not those"):
            parse(spelt(text))


def test_lengths_that_lie() -> None:
    for length in (0, len(TEXT.encode()) - 1, len(TEXT.encode()) + 1, 65_388, 65_389, 2**31, 2**32 - 1):
        region = REGION[:112] + length.to_bytes(4, "little") + REGION[116:]
        with pytest.raises(ArtifactRefused, match="E702"):
            parse(region)


def test_a_text_that_fills_the_header() -> None:
    room = 65_388 - len(TEXT.encode())
    full = Naive(b"abc", public={"name": "€" + "x" * room, "n": 1})
    assert len(full.header_text()) == 65_388
    header = parse(full.region())
    assert build(header, KEYS) == full.region()
    public = {**header.public, "name": header.public["name"] + "x"}
    fixed = dataclasses.replace(header.fixed, described=described(header.private, public))
    with pytest.raises(ConfigError, match="E714: descriptions and recipients of 65389 bytes"):
        build(dataclasses.replace(header, fixed=fixed, public=public), KEYS)


def test_what_cannot_be_read_again_is_not_written() -> None:
    header = parse(REGION)
    for change in ({"recipients": []}, {"epoch": -1}, {"recipients": [{"type": "key"}]}, {"public": {"other": 1}}):
        with pytest.raises(ArtifactRefused):
            build(dataclasses.replace(header, **change), KEYS)


def test_other_files() -> None:
    for data, code in (
        (b"", "E700"),
        (b"\x89VBSEA", "E700"),
        (b"PK\3\4" + bytes(70_000), "E700"),
        (REGION[:-1], "E706"),
    ):
        with pytest.raises(ArtifactRefused, match=code):
            parse(data)


def test_sixty_four_recipients() -> None:
    stanzas = [wrap(bytes([i]) * 32, bytes([i]) * 32, FILE.file_key, FILE.binding()) for i in range(63)]
    stanzas.append(wrap(KEY, FILE.key_salt, FILE.file_key, FILE.binding()))
    region = dataclasses.replace(FILE, recipients=stanzas).region()
    assert len(parse(region).recipients) == 64
    assert open_header(region, identities()).keys.file_key == FILE.file_key
    assert isinstance(parse(region), Header)
    assert len(region) == headers.HEADER_BYTES
    assert canonical({"a": 1}) == b'{"a":1}'
