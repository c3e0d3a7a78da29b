"""Whatever somebody without the key does to a sealed file is refused by its own error, nothing false comes out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.seal.harness import (
    CHUNK,
    KEY,
    OTHER,
    PUBLIC,
    SIGNER,
    Outcome,
    content,
    every_way,
    identities,
    nothing_false,
    streamed,
)
from assets.seal.naive_sealed import HEADER, Naive
from vambrace.assets.seal.opening import open_header
from vambrace.assets.seal.passphrase import Argon2id, Passphrase
from vambrace.assets.seal.writer import Writer
from vambrace.errors import ArtifactRefused

CONTENT = content(3 * CHUNK + 777)
PLAIN = Naive(CONTENT, metadata={"licence": "MIT"}, public={"name": "a model"})
SIGNED = Naive(CONTENT, signer=SIGNER, pad=True)
FILES = {"plain": PLAIN, "signed": SIGNED}
WHOLE = {name: each.data() for name, each in FILES.items()}
HEADER_CODES = {"E700", "E701", "E702", "E725", "E728", "E729"}


def refused(name: str, data: bytes, path: Path, codes: set[str]) -> list[Outcome]:
    """Every way refuses `data` with one of `codes`, and none lets out what was not sealed there."""
    signers = (PUBLIC,) if name == "signed" else ()
    outcomes = every_way(data, path, signers=signers)
    for outcome in outcomes:
        assert outcome.code, f"{outcome.way} reads it"
        assert outcome.code in codes, (outcome.way, outcome.message)
        nothing_false(outcome, CONTENT)
        if outcome.way == "spooled":
            assert outcome.out == b""
    return outcomes


def flipped(data: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    return bytes(changed)


@pytest.mark.parametrize("name", FILES)
def test_untouched_files_open(name: str, tmp_path: Path) -> None:
    """Negative control: the same checks pass where nothing was done."""
    for outcome in every_way(WHOLE[name], tmp_path / "a", signers=(PUBLIC,) if name == "signed" else ()):
        assert (outcome.code, outcome.out) == ("", CONTENT)


# The header.


def header_is_refused(region: bytes, at: int, bit: int) -> None:
    with pytest.raises(ArtifactRefused) as caught:
        open_header(flipped(region, at, bit), identities())
    assert caught.value.code in HEADER_CODES
    if at < 8:
        assert caught.value.code == "E700"


def test_every_byte_of_the_head_the_text_and_the_mac() -> None:
    region = WHOLE["plain"][:HEADER]
    end = 116 + len(PLAIN.header_text())
    rng = random.Random(1)
    for at in [*range(end), *range(end, HEADER - 32, 211), *range(HEADER - 32, HEADER)]:
        header_is_refused(region, at, rng.randrange(8))


@pytest.mark.slow
def test_every_byte_of_the_header() -> None:
    region = WHOLE["signed"][:HEADER]
    for at in range(HEADER):
        header_is_refused(region, at, at % 8)


@pytest.mark.parametrize("at", [0, 8, 10, 11, 12, 16, 48, 80, 112, 116, 300, 40_000, HEADER - 1])
def test_a_damaged_header_lets_nothing_out(at: int, tmp_path: Path) -> None:
    for outcome in refused("plain", flipped(WHOLE["plain"], at, 0), tmp_path / "a", HEADER_CODES):
        assert outcome.out == b""


def test_a_header_of_another_file_of_the_same_recipient(tmp_path: Path) -> None:
    other = Naive(CONTENT, file_key=b"g" * 32).data()
    refused("plain", other[:HEADER] + WHOLE["plain"][HEADER:], tmp_path / "a", {"E705", "E708"})
    # The same file key, as after a fault of the writer, and another salt.
    other = Naive(CONTENT, salt=b"t" * 32).data()
    refused("plain", other[:HEADER] + WHOLE["plain"][HEADER:], tmp_path / "a", {"E705", "E708"})


# The chunks.


@pytest.mark.parametrize("name", FILES)
def test_a_bit_in_every_part_of_every_chunk(name: str, tmp_path: Path) -> None:
    region, records, _ = FILES[name].parts()
    rng, begin = random.Random(2), len(region)
    for index, record in enumerate(records):
        places = {*range(4), 4, rng.randrange(4, len(record)), len(record) - 17, len(record) - 16, len(record) - 1}
        for place in places:
            changed = flipped(WHOLE[name], begin + place, rng.randrange(8))
            outcomes = refused(name, changed, tmp_path / "a", {"E705", "E706"})
            stream = outcomes[0]
            assert len(stream.out) == index * CHUNK
            if place >= 4:
                assert all(f"chunk {index} " in outcome.message for outcome in outcomes), outcomes
        begin += len(record)


def test_every_bit_of_a_frame(tmp_path: Path) -> None:
    for at in (HEADER, HEADER + 3 * (CHUNK + 20)):
        for bit in range(32):
            refused("plain", flipped(WHOLE["plain"], at + bit // 8, bit % 8), tmp_path / "a", {"E705", "E706"})


def moved(records: list[bytes], other: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Chunks in other places; the first ones are whole and have the same size."""
    yield "swapped", [records[1], records[0], *records[2:]]
    yield "swapped at the end", [records[0], records[2], records[1], *records[3:]]
    yield "dropped at the start", records[1:]
    yield "dropped in the middle", [records[0], *records[2:]]
    yield "dropped at the end", records[:-1]
    yield "doubled", [records[0], *records]
    yield "doubled in place", [records[0], records[0], *records[2:]]
    yield "last doubled", [*records, records[-1]]
    yield "last first", [records[-1], *records]
    yield "spliced", [records[0], other[1], *records[2:]]
    yield "last spliced", [*records[:-1], other[-1]]
    yield "all spliced", other


@pytest.mark.parametrize("name", FILES)
def test_chunks_moved_within_and_between_files(name: str, tmp_path: Path) -> None:
    region, records, trailer = FILES[name].parts()
    for other in (Naive(CONTENT, file_key=b"g" * 32), Naive(CONTENT, salt=b"t" * 32)):
        for what, changed in moved(records, other.records()):
            data = region + b"".join(changed) + trailer
            outcomes = refused(name, data, tmp_path / "a", {"E705", "E706", "E707", "E708"})
            assert outcomes[0].code in {"E705", "E708"}, what


def test_a_chunk_cannot_be_made_the_last(tmp_path: Path) -> None:
    """Truncation with a frame that says so: the nonce knows better, before the trailer is met."""
    region, records, trailer = PLAIN.parts()
    last = (CHUNK | 2**31).to_bytes(4, "little") + records[1][4:]
    outcomes = refused("plain", region + records[0] + last + trailer, tmp_path / "a", {"E705", "E706"})
    assert outcomes[0].message.startswith("E705: chunk 1 is not authentic")


# The trailer and the end.


@pytest.mark.parametrize("name", FILES)
def test_every_byte_of_the_trailer(name: str, tmp_path: Path) -> None:
    _, _, trailer = FILES[name].parts()
    begin = len(WHOLE[name]) - len(trailer)
    for place in range(len(trailer)):
        changed = flipped(WHOLE[name], begin + place, place % 8)
        if place % 16:
            outcome = streamed(changed)
            assert (outcome.code, outcome.out) == ("E708", CONTENT[: 3 * CHUNK])  # not the end, which would look whole
        else:
            refused(name, changed, tmp_path / "a", {"E708"})


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_cut(name: str, tmp_path: Path) -> None:
    region, records, trailer = FILES[name].parts()
    edges, at = [0, 1, 8, 100, HEADER], len(region)
    for record in records:
        edges += [at + 4, at + 4 + len(record) // 2, at := at + len(record)]
    edges += [at + 32, len(WHOLE[name]) - 72, len(WHOLE[name])]
    for size in sorted({edge + off for edge in edges for off in (-1, 0, 1)}):
        if 0 <= size < len(WHOLE[name]):
            codes = {"E700"} if size < 8 else {"E706"}
            refused(name, WHOLE[name][:size], tmp_path / "a", codes)


@pytest.mark.parametrize("name", FILES)
def test_bytes_after_the_end(name: str, tmp_path: Path) -> None:
    data = WHOLE[name]
    for more in (b"\0", b"x" * 71, b"x" * 72, data[-72:], bytes(20_000), data):
        outcomes = refused(name, data + more, tmp_path / "a", {"E707"})
        assert outcomes[0].out == CONTENT[: 3 * CHUNK]


def test_trailers_of_other_files(tmp_path: Path) -> None:
    region, records, trailer = SIGNED.parts()
    chunks = b"".join(records)
    _, _, unsigned = Naive(CONTENT, pad=True).parts()
    _, _, other = Naive(CONTENT, signer=SIGNER, pad=True, file_key=b"g" * 32).parts()
    for foreign in (other, trailer[:32] + unsigned, trailer[:-72] + unsigned):
        refused("signed", region + chunks + foreign, tmp_path / "a", {"E706", "E707", "E708"})
    # A recipient can take a signature away; what is left is intact, and nobody's.
    outcomes = every_way(region + chunks + unsigned, tmp_path / "a", signers=(PUBLIC,))
    assert [outcome.code for outcome in outcomes] == ["", "", "", "E742", "E742", "E742"]
    assert [outcome.out for outcome in outcomes[3:]] == [b"", CONTENT[: 3 * CHUNK], b""]


# Keys and makers.


def test_wrong_keys_and_wrong_passphrases(tmp_path: Path) -> None:
    assert streamed(WHOLE["plain"], opener=identities(b"x" * 32)).code == "E728"
    assert streamed(WHOLE["plain"], opener=[Passphrase("secret")]).code == "E729"
    assert streamed(WHOLE["plain"], opener=identities() + identities(b"x" * 32)).code == ""
    path = tmp_path / "a"
    with Writer(path, [Passphrase("secret", kdf=Argon2id(memory_kib=8192, passes=1, lanes=1))]) as writer:
        writer.write(b"abc")
    assert streamed(path.read_bytes(), opener=[Passphrase("secret")]).out == b"abc"
    wrong = streamed(path.read_bytes(), opener=[Passphrase("Secret")])
    assert (wrong.code, wrong.out) == ("E727", b"")


def test_a_header_that_asks_for_hours_of_hashing() -> None:
    stanza = {"type": "argon2id", "salt": "AAAAAAAAAAAAAAAAAAAAAA==", "memory_kib": 2**31, "passes": 2**31, "lanes": 1}
    bomb = Naive(b"", recipients=[stanza | {"wrapped": "A" * 64}])
    assert streamed(bomb.data(), opener=[Passphrase("secret")]).code == "E726"
    assert streamed(bomb.data()).code == "E726"


def test_sealed_again_by_an_attacker_to_the_same_recipient(tmp_path: Path) -> None:
    """Anybody can seal for a public key: only a signature says who did."""
    forged = Naive(b"malice", file_key=b"a" * 32)
    assert every_way(forged.data(), tmp_path / "a")[0].out == b"malice"
    for signer, code in ((None, "E742"), (OTHER, "E743")):
        forged = Naive(b"malice", file_key=b"a" * 32, signer=signer)
        for outcome in every_way(forged.data(), tmp_path / "a", signers=(PUBLIC,))[3:]:
            assert (outcome.code, outcome.out) == (code, b""), outcome.way


def test_a_recipient_cannot_keep_the_signature_over_another_content(tmp_path: Path) -> None:
    """Whoever opens a file has its key, and can put authentic chunks and an authentic trailer into it."""
    region, records, trailer = SIGNED.parts()
    forged = SIGNED.record(1, False, b"M" * CHUNK)
    for leaves, code in ((None, "E705"), ([*map(leaf_of, [records[0], forged, *records[2:]])], "E741")):
        chunks = [records[0], forged, *records[2:]]
        mended = Naive(
            CONTENT, signer=SIGNER, pad=True, statement=trailer[32 * len(records) : -72],
            leaves=leaves or [*map(leaf_of, records)],
        )  # fmt: skip
        data = region + b"".join(chunks) + mended.trailer(chunks)
        outcomes = {each.way: each for each in every_way(data, tmp_path / "a", signers=(PUBLIC,))}
        assert outcomes["stream"].code == ""  # without a signer that is intact, and of unknown origin
        for way in ("spooled", "unverified", "signed"):
            assert outcomes[way].code in {code, "E708", "E741"}, way
        assert outcomes["spooled"].out == b""
        nothing_false(outcomes["signed"], CONTENT)


def leaf_of(record: bytes) -> bytes:
    return hashlib.sha256(b"\0" + record).digest()


# Anything at all.

EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.integers(0, 2**20), st.integers(0, 7)),
        st.tuples(st.just("cut"), st.integers(0, 2**20), st.integers(1, 70_000)),
        st.tuples(st.just("put"), st.integers(0, 2**20), st.binary(min_size=1, max_size=90)),
        st.tuples(st.just("copy"), st.integers(0, 2**20), st.integers(0, 2**20), st.integers(1, 70_000)),
        st.tuples(st.just("graft"), st.integers(0, 2**20), st.integers(1, 70_000)),
        st.tuples(st.just("end"), st.integers(0, 2**20)),
        st.tuples(st.just("word"), st.integers(0, 300), st.integers(0, 2**32 - 1)),
    ),
    min_size=1,
    max_size=4,
)
GRAFT = Naive(CONTENT, file_key=b"g" * 32).data()


def edited(data: bytes, edits: list[tuple[object, ...]]) -> bytes:
    changed = bytearray(data)
    for kind, place, *rest in edits:
        at = place % (len(changed) + 1)
        match kind, rest:
            case "flip", [bit] if at < len(changed):
                changed[at] ^= 1 << bit
            case "cut", [size]:
                del changed[at : at + size]
            case "put", [more]:
                changed[at:at] = more
            case "copy", [to, size]:
                changed[to % (len(changed) + 1) :][:size] = b""
                changed[to : to + size] = changed[at : at + size]
            case "graft", [size]:
                changed[at : at + size] = GRAFT[at : at + size]
            case "end", []:
                del changed[at:]
            case "word", [word]:
                # Where numbers stand: frames, and the fields of foot and header.
                places = [*range(8, 16, 4), 112, *(HEADER + i * (CHUNK + 20) for i in range(5))]
                places += [len(changed) - 72 + i for i in range(8, 40, 4)]
                number = places[at % len(places)]
                changed[number : number + 4] = word.to_bytes(4, "little")
            case _:
                pass
    return bytes(changed)


def mutations_are_refused(name: str, edits: list[tuple[object, ...]], path: Path) -> None:
    data = edited(WHOLE[name], edits)
    if data == WHOLE[name]:
        return
    for outcome in every_way(data, path, signers=(PUBLIC,) if name == "signed" else ()):
        assert outcome.code.startswith("E7"), (outcome.way, outcome.message)
        nothing_false(outcome, CONTENT)


@given(name=st.sampled_from(list(FILES)), edits=EDITS)
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutations(name: str, edits: list[tuple[object, ...]], tmp_path: Path) -> None:
    mutations_are_refused(name, edits, tmp_path / "a")


@pytest.mark.slow
@given(name=st.sampled_from(list(FILES)), edits=EDITS)
@settings(max_examples=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_mutations(name: str, edits: list[tuple[object, ...]], tmp_path: Path) -> None:
    mutations_are_refused(name, edits, tmp_path / "a")


def test_the_key_is_the_right_one() -> None:
    """Negative control: what these tests refuse, they do not refuse for its key."""
    assert KEY == PLAIN.key == SIGNED.key
