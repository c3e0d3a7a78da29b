"""Lists of files by strangers: what is read is what any JSON parser reads, and what is not costs next to nothing."""

from __future__ import annotations

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.assets.seal import folders, signature
from vambrace.assets.seal.listing import HASHED, MOST_PATH, SIZED, Listed, listed
from vambrace.core import canonical
from vambrace.errors import ArtifactRefused

HASH = "0123456789abcdef" * 4
FILES = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\"), max_size=12),
        st.integers(0, 2**53),
    ),
    max_size=4,
)


def written(files: list[Listed], *, hashed: bool) -> bytes:
    entries = [{"path": each.path, "size": each.size} | ({"sha256": each.sha256} if hashed else {}) for each in files]
    return canonical.dumps({"files": entries} | ({"kind": "folder"} if hashed else {}))


def text_of(files: list[tuple[str, int]], *, hashed: bool) -> bytes:
    return written([Listed(path, HASH, size) for path, size in files], hashed=hashed)


def read(text: bytes, *, hashed: bool, most: int = 100) -> list[Listed]:
    return list(listed(text, HASHED if hashed else SIZED, b'],"kind":"folder"}' if hashed else b"]}", most=most))


def control(path: str) -> bool:
    """What no path has: the callers check it, and here it is read or not."""
    return re.search(r"[\x00-\x1f]", path) is not None


@given(FILES, st.booleans())
def test_what_canonical_json_says_is_read(files: list[tuple[str, int]], hashed: bool) -> None:
    files = [(path, size) for path, size in files if not control(path)]
    wanted = [Listed(path, HASH if hashed else "", size) for path, size in files]
    assert read(text_of(files, hashed=hashed), hashed=hashed) == wanted


@given(FILES, st.booleans(), st.data())
def test_nothing_else_is_read(files: list[tuple[str, int]], hashed: bool, data: st.DataObject) -> None:
    """Against a parser of any JSON: what comes out, written again, is the text byte for byte."""
    text = bytearray(text_of(files, hashed=hashed))
    at = data.draw(st.integers(0, len(text) - 1))
    kind = data.draw(st.sampled_from(["change", "cut", "add", "repeat"]))
    if kind == "change":
        text[at] = data.draw(st.sampled_from(list(b'{}[],:"\\ 0a19e.-+u\x7f\x80\xc0\xed\xff') + [text[at] ^ 1]))
    elif kind == "cut":
        del text[at : at + data.draw(st.integers(1, 60))]
    elif kind == "add":
        text[at:at] = data.draw(
            st.sampled_from([b" ", b",", b"0", b"\\u0041", b"\\/", b"\n", b'"a":1,', b"[", b"\xef\xbb\xbf"])
        )
    else:
        text[at:at] = text[at : at + data.draw(st.integers(1, 60))]
    try:
        found = read(bytes(text), hashed=hashed)
    except ValueError:
        return
    assert written(found, hashed=hashed) == bytes(text)


@pytest.mark.parametrize(
    "entry",
    [
        b'{"path":"a","size":01}',
        b'{"path":"a","size":-1}',
        b'{"path":"a","size":1.0}',
        b'{"path":"a","size":true}',
        b'{"path":"a","size":9007199254740993}',
        b'{"path":"a\\u0062","size":1}',
        b'{"path":"a\\/b","size":1}',
        b'{"path":"a\\\\b","size":1}',
        b'{"path":"\xed\xa0\x80","size":1}',
        b'{"path":"\xc0\xaf","size":1}',
        b'{"size":1,"path":"a"}',
        b'{"path":"a","path":"a","size":1}',
        b'{"path":"a"}',
        b'{"path":"a","size":1},',
        b'{"path":"' + b"a" * (MOST_PATH + 1) + b'","size":1}',
        b'{"path":"' + b'\\"' * (MOST_PATH + 1) + b'","size":1}',
        b"{}",
        b"0",
        b"[",
    ],
)
def test_entries_that_are_none(entry: bytes) -> None:
    good = b'{"path":"a","size":1}'
    assert len(read(b'{"files":[' + good + b"]}", hashed=False)) == 1
    for text in (entry, good + b"," + entry):
        with pytest.raises(ValueError, match="file|codec"):
            read(b'{"files":[' + text + b"]}", hashed=False)


def test_bounds() -> None:
    longest = [("a" * MOST_PATH, 2**53), ('"' * MOST_PATH, 0)]
    assert [each.path for each in read(text_of(longest, hashed=False), hashed=False)] == [path for path, _ in longest]
    files = [(str(number), 0) for number in range(5)]
    assert len(read(text_of(files, hashed=True), hashed=True, most=5)) == 5
    with pytest.raises(ValueError, match="more than 4 files"):
        read(text_of(files, hashed=True), hashed=True, most=4)


SIZE = 4 * 2**20
HOSTILE = {
    "objects": b"[{}" + b",{}" * (SIZE // 3) + b"]",
    "numbers": b"[0" + b",0" * (SIZE // 2) + b"]",
    "depth": b"[" * SIZE,
    "text": b'"' + b"a" * SIZE + b'"',
    "files without anything": b'{"files":[{}' + b",{}" * (SIZE // 3) + b'],"kind":"folder"}',
    "a path without end": b'{"files":[{"path":"' + b"a" * SIZE,
    "a path of quotation marks": b'{"files":[{"path":"' + b'\\"' * (SIZE // 2) + b'","size":0}]}',
    "lines": b"\n" * SIZE,
    "entries": b'{"kind":"file","sha256":"' + HASH.encode() + b'","size":1}\n' + b"[{}" + b",{}" * (SIZE // 3) + b"]",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_signatures_cost_little(case: str) -> None:
    """Less than twice their own size, where an object each would take twenty times that."""
    data = b"vambrace-signature/1\n" + HOSTILE[case] + b"\n{}\n"
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactRefused, match="E744"):
            signature.parse(data)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data)
    finally:
        tracemalloc.stop()


def test_a_signature_file_is_bounded_before_it_is_read() -> None:
    with pytest.raises(ArtifactRefused, match="E744.*more than 33554432 bytes"):
        signature.parse(bytes(signature.MOST_BYTES + 1))


@pytest.mark.parametrize("shape", ["deep", "deep and many"])
def test_deep_paths_cost_their_length(shape: str) -> None:
    """Not that of all folders on the way, each by its path: those are quadratic in the depth."""
    deep = "/".join(["a"] * 2048)
    paths = [deep] if shape == "deep" else [f"{number:03}{deep[3:]}" for number in range(32)]
    length = sum(map(len, paths))
    tracemalloc.start()
    try:
        assert folders._fault(dict.fromkeys(paths, 0)) == ""  # pyright: ignore
        assert tracemalloc.get_traced_memory()[1] < 300 * length
    finally:
        tracemalloc.stop()
    assert "more than 4096 bytes" in folders._fault({f"{deep}/a": 0})  # pyright: ignore


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_MOST_NAMES", 5)
    assert folders._fault({"a/b": 0, "a/c": 0, "d/e": 0}) == ""  # pyright: ignore
    assert "more than 5" in folders._fault({"a/b": 0, "a/c": 0, "d/e/f": 0})  # pyright: ignore
