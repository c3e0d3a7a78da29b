"""Pickles that have no mark, and texts that begin like one."""

from __future__ import annotations

import collections
import copyreg
import datetime
import decimal
import pickle
from pathlib import Path

import numpy as np
import pytest

from vambrace.models.old_pickles import uses_what_it_names


class Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("x",)


OBJECTS = {
    "ordered": collections.OrderedDict(a=1),
    "counter": collections.Counter("abca"),
    "date": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    "decimal": decimal.Decimal("1.5"),
    "array": np.arange(5),
    "path": Path("a"),
    "runs": Runs(),
    "class": collections.OrderedDict,
}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("protocol", [0, 1])
def test_what_python_writes_is_one_at_any_length(name: str, protocol: int) -> None:
    data = pickle.dumps(OBJECTS[name], protocol=protocol)
    assert uses_what_it_names(data, whole=True)
    first = data.index(b"\n", data.index(b"\n") + 1) + 1
    if data[:1] in {b"c", b"("}:
        for end in range(first, len(data)):
            assert uses_what_it_names(data[:end], whole=False), data[:end]


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'x'\ntR.",
        b"cos\nsystem\n(I0x10\ntR.",  # pickletools reads no such number, and an unpickler does
        b"cos\nsystem\np01\n0g01\n(S'x'\ntR",
        b"cos\nsystem\np00\n(S'x'\ntR.",
        b"(cos\nsystem\n\x95\x02\0\0\0\0\0\0\0M\1\0tS'x'\no.",
        b"cos\nsystem\np0\0\n(S'x'\ntR.",  # an unpickler ends the number there
        b"cos\nsystem\nF1_0\n0(S'x'\ntR.",
        b"cos\nsystem\n(I\0\nS'x'\ntR.",  # of which an unpickler makes 0
        b"(ios\nsystem\n.",
        b"(cos\nsystem\n0S'x'\nios\nsystemX",  # some take the line for a whole one
        b"(cos\nsystem\nS'x'\no.",
        b"cos\nsystem\n(NtR" + b"words that are no opcodes",
        b"cos\nsystem\n.",  # it is given back, which is what pickles of functions do
        "cos\nsystem\ncm\u00f6d\nname\n(tR.".encode(),
    ],
)
def test_what_runs_is_one(data: bytes) -> None:
    assert uses_what_it_names(data, whole=True)
    assert uses_what_it_names(data, whole=False)


@pytest.mark.parametrize(
    "data",
    [
        b"cat\ndog\nhorse\n",
        b"cat\ndog\npig\nbear\n",
        b"city\nBerlin\nLondon\nParis\n",
        b"country\nFrance\nItaly\nSpain\n",
        b"company\nApple\nIBM\nIntel\n",
        b"class_name\nCar\nPerson\nBicycle\n",
        b"click\nnumpy\nPillow\n",
        b"component\nCPU\nSSD\nRAM\n",
        b"city\nBerlin\nNaples\nMilan\n",
        b"country\nBrazil\nNamibia\n",
        b"client\nAlice\nNancy\n",
        b"code\nE11.9\nI10.9\nI25.1\nE78.5\n",
        b"code\nE11.9\nL40.0\nM05\n",
        b"code\n1a\n2a\n",
        b"class\nid\n1\n",
        b"id\n0\n1\n",
        b"i\nii\niii\n",
        b"cat\ndog\nrabbit\n",
        b"cat\r\ndog\r\nhorse\r\n",
        b"(cat\ndog)\n",
    ],
)
def test_words_are_none(data: bytes) -> None:
    assert not uses_what_it_names(data, whole=True)
    assert not uses_what_it_names(data + b"\n", whole=False)


def test_of_a_part_the_rest_decides() -> None:
    assert uses_what_it_names(b"cat\ndog\n", whole=False)
    assert not uses_what_it_names(b"cat\ndog\n", whole=True)
    assert uses_what_it_names(b"cat\ndog\np", whole=False)


def test_an_unpickler_does_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of words it only imports; of pickles it calls."""
    called: list[str] = []
    monkeypatch.setattr(copyreg, "dog", called.append, raising=False)
    for data, runs in ((b"ccopyreg\ndog\n(S'x'\ntR.", True), (b"ccopyreg\ndog\nhorse\n", False)):
        assert uses_what_it_names(data, whole=True) is runs
        try:
            pickle.loads(data)
        except Exception:
            assert not runs
        assert bool(called) is runs
        called.clear()


@pytest.mark.parametrize("word", [b"Birds", b"Terns", b"Xerus"])
def test_four_letters_are_no_length_that_a_file_has(word: bytes) -> None:
    text = b"cats\ndogs\n" + (word + b"\n") * 3000
    assert not uses_what_it_names(text, whole=True)
    assert not uses_what_it_names(text[:10_000], whole=False, size=len(text))
    assert uses_what_it_names(text[:10_000], whole=False)  # of what comes there is no end known
    assert uses_what_it_names(text[:10_000], whole=False, size=2**31)
