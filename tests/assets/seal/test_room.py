"""Bytes that exist once."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

from vambrace.assets.seal import room
from vambrace.assets.seal.room import filled

MIB = 2**20
HEIGHT = """
import json, re, sys
from pathlib import Path
from vambrace.assets.seal.room import filled

def peak():
    return int(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])

def fill(out):
    for begin in range(0, len(out), 4096):
        out[begin] = 7

filled(2**20, fill)
before = peak()
data = filled(64 * 2**20, fill)
print(json.dumps({"grew": peak() - before, "right": data[::4096] == b"\\x07" * (len(data) // 4096)}))
"""


@pytest.mark.parametrize("size", [0, 1, 4095, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB + 13])
def test_what_was_put_there_comes_back(size: int) -> None:
    pattern = (bytes(range(256)) * (size // 256 + 1))[:size]
    seen: list[bytes] = []

    def fill(out: memoryview) -> None:
        seen.append(bytes(out))
        out[:] = pattern

    assert filled(size, fill) == pattern
    assert seen == [bytes(size)], "zeros, and all of them, so that nothing of other memory can be let out"


def test_what_filling_raises_comes_out() -> None:
    def fill(out: memoryview) -> None:
        raise ValueError("no")

    for size in (1, 5 * MIB):
        with pytest.raises(ValueError, match="no"):
            filled(size, fill)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_they_are_there_once() -> None:
    done = subprocess.run([sys.executable, "-c", HEIGHT], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["right"]
    assert 60 * 1024 <= said["grew"] < 72 * 1024


@pytest.mark.parametrize("absent", ["library", "function", "system"])
def test_a_system_without_such_advice(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def library(_: object) -> object:
        if absent == "library":
            raise OSError("none")
        return object()

    monkeypatch.setattr(ctypes, "CDLL", library)
    if absent == "system":
        monkeypatch.setattr(room.sys, "platform", "win32")
    assert filled(4 * MIB, lambda out: out.__setitem__(0, 5))[:2] == b"\x05\x00"


def test_advice_is_for_whole_pages_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int, int]] = []

    class Library:
        def madvise(self, begin: ctypes.c_void_p, length: ctypes.c_size_t, what: int) -> int:
            calls.append((begin.value or 0, length.value, what))
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    bounds: list[int] = []

    def fill(out: memoryview) -> None:
        first = ctypes.addressof(ctypes.c_char.from_buffer(out))
        bounds.extend((first, first + len(out)))

    filled(4 * MIB - 1, fill)
    assert not calls, "small ones are not worth it"
    bounds.clear()
    filled(4 * MIB + 4097, fill)
    [(begin, length, what)] = calls
    assert what == 14  # MADV_HUGEPAGE
    page = room.mmap.PAGESIZE
    assert begin % page == 0
    assert length % page == 0
    assert bounds[0] <= begin < bounds[0] + page
    assert bounds[1] - page < begin + length <= bounds[1]
