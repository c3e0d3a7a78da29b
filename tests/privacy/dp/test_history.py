"""What a ledger's bytes say: vectors of the format, any damage anywhere, any cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vambrace.errors import ConfigError
from vambrace.privacy.dp.charges import Charge
from vambrace.privacy.dp.history import FORMAT, ORIGIN, Terms, parse, sealed

VECTORS = sorted((Path(__file__).parents[2] / "vectors" / "dp-ledger").glob("*.json"))
TERMS = Terms(dataset_size=60000, delta=1e-5, unit="sample", relation="add_or_remove_one", sampler="poisson")
CHARGE = Charge(mechanism="gaussian", noise_multiplier=1.1, sampling="poisson", sample_rate=0.01).as_json()


def written(*records: dict[str, object]) -> list[bytes]:
    """The lines of a ledger with these records."""
    lines, previous = [], ORIGIN
    for record in ({"format": FORMAT, "run": "0" * 32, "terms": TERMS.as_json()}, *records):
        line = sealed(record, previous)
        previous = json.loads(line)["sha256"]
        lines.append(line + b"\n")
    return lines


LINES = written(
    {"kind": "charged", "charge": CHARGE, "first": 0, "steps": 100},
    {"kind": "closed", "used": 60},
    {"kind": "charged", "charge": CHARGE, "first": 100, "steps": 30},
    {"kind": "charged", "charge": CHARGE, "first": 130, "steps": 7},
)
STEPS = [0, 100, 100, 130, 137]  # charged once each of the lines is there
LEDGER = b"".join(LINES)
ENDS = [sum(map(len, LINES[: n + 1])) for n in range(len(LINES))]


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 47


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    vector = json.loads(path.read_text(encoding="utf-8"))
    data, expect = vector["ledger"].encode("latin-1"), vector["expect"]
    if "error" in expect:
        with pytest.raises(ConfigError) as caught:
            parse(data)
        assert caught.value.code == expect["error"]
        assert expect["seen"] in caught.value.seen
        assert "the ledger" in caught.value.seen
        return
    history = parse(data)
    assert (history.chain[-1], len(history.chain) - 1) == (expect["head"], expect["position"])
    assert (history.steps, history.spent.steps, history.keep) == (expect["steps"], expect["steps"], expect["keep"])
    assert history.spent.as_json() == expect["spent"]


def test_every_cut_keeps_every_whole_line() -> None:
    """What a crash leaves of an append: never less than the lines that were whole, at most the one that was cut."""
    for size in range(len(LEDGER) + 1):
        whole = sum(end <= size + 1 for end in ENDS)  # also the line that lacks but its line feed
        if not whole:
            with pytest.raises(ConfigError, match="E585"):
                parse(LEDGER[:size])
            continue
        history = parse(LEDGER[:size])
        assert len(history.chain) == whole
        assert history.steps == history.spent.steps == STEPS[whole - 1]
        assert history.keep == ENDS[whole - 1]


def check_refused(data: bytes) -> None:
    """Damage has its error, and never a number."""
    try:
        history = parse(data)
    except ConfigError as error:
        assert error.code == "E585"  # noqa: PT017
        return
    raise AssertionError(f"{history.steps} steps were read from damage")


def test_every_byte_flipped_once() -> None:
    for place in range(len(LEDGER)):
        data = bytearray(LEDGER)
        data[place] ^= 1 << (place % 8)
        check_refused(bytes(data))


@given(st.integers(0, len(LEDGER) - 1), st.integers(1, 255))
@settings(max_examples=300)
def test_any_byte_changed(place: int, flip: int) -> None:
    data = bytearray(LEDGER)
    data[place] ^= flip
    check_refused(bytes(data))


@pytest.mark.slow
def test_really_any_bit_flipped() -> None:
    for place in range(len(LEDGER)):
        for bit in range(8):
            data = bytearray(LEDGER)
            data[place] ^= 1 << bit
            check_refused(bytes(data))


@pytest.mark.parametrize("flip", range(1, 256))
def test_the_last_line_feed_is_no_exception(flip: int) -> None:
    check_refused(LEDGER[:-1] + bytes([LEDGER[-1] ^ flip]))


@given(st.lists(st.sampled_from(LINES), max_size=7))
def test_lines_stand_in_their_order_or_not_at_all(lines: list[bytes]) -> None:
    if lines and lines == LINES[: len(lines)]:
        assert parse(b"".join(lines)).steps == STEPS[len(lines) - 1]
    else:
        check_refused(b"".join(lines))


@given(st.integers(0, len(LEDGER)), st.integers(0, 60), st.binary(max_size=20))
@settings(max_examples=300)
def test_anything_cut_out_and_put_in(place: int, length: int, new: bytes) -> None:
    """Only the end of a file can be lost unseen, and not one line more than the cut reaches."""
    data = LEDGER[:place] + new + LEDGER[place + length :]
    try:
        history = parse(data)
    except ConfigError as error:
        assert error.code == "E585"  # noqa: PT017
        return
    whole = sum(end <= place + 1 for end in ENDS)
    assert data == LEDGER or place + length >= ENDS[-1] - 1
    assert history.steps >= STEPS[whole - 1]


@given(st.binary(max_size=200))
def test_any_bytes_at_all(data: bytes) -> None:
    check_refused(data)


def test_what_closes_a_block_is_told_and_changes_nothing() -> None:
    history = parse(LEDGER)
    assert [block.used for block in history.blocks] == [60, None, None]
    assert history.spent.steps == 137
    assert history.terms == TERMS
    assert history.run == "0" * 32


@pytest.mark.parametrize(
    "fields",
    [{"dataset_size": 0}, {"delta": 1.0}, {"delta": -1e-9}, {"unit": ""}, {"relation": "Add"}, {"sampler": "x" * 65}],
)
def test_terms_that_mean_nothing(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"E103.*{next(iter(fields))}"):
        Terms(**{**TERMS.as_json(), **fields})
