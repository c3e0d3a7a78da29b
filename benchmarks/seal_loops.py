"""What bench_seal.py measures with: weights, the bare cipher in loops, places to put bytes and to take them from."""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from torch import Tensor

SEED, MIB, TAG = 0, 2**20, 16

Weights = dict[str, Tensor]


def weights(mib: int, kind: str) -> Weights:
    """About `mib` MiB of random bits: a transformer's matrices, or tensors of 1 MiB; `probe` has 1 MiB in both."""
    generator = torch.Generator().manual_seed(SEED)

    def drawn(*shape: int) -> Tensor:
        bits = torch.randint(-(2**31), 2**31 - 1, shape, dtype=torch.int64, generator=generator)
        return bits.to(torch.int32).view(torch.float32)

    made = {"probe": drawn(512, 512)}
    if kind == "mebibytes":
        return made | {f"part.{number:04}": drawn(512, 512) for number in range(mib - 1)}
    for layer in range(max(1, mib // 48)):
        for name in ("query", "key", "value", "out"):
            made[f"layers.{layer}.attention.{name}.weight"] = drawn(1024, 1024)
            made[f"layers.{layer}.attention.{name}.bias"] = drawn(1024)
        made[f"layers.{layer}.up.weight"] = drawn(4096, 1024)
        made[f"layers.{layer}.down.weight"] = drawn(1024, 4096)
        made[f"layers.{layer}.norm.weight"] = drawn(1024)
    return made


def size_of(state: Weights) -> int:
    """Bytes of all tensors."""
    return sum(each.nbytes for each in state.values())


def warm(size: int) -> None:
    """Take `size` bytes of memory, use them, give them back."""
    np.empty(size, np.uint8)[::4096] = 1


class Bare:
    """The cipher in a loop over chunks of 1 MiB: what nobody who encrypts them can be faster than."""

    def __init__(self, state: Weights, folder: Path, threads: int) -> None:
        self._cipher = AESGCM(os.urandom(32))
        self.path = folder / "bare"
        self._threads = threads
        # Chunks are cut from single tensors, never gathered.
        self._plain = [
            view[begin : begin + MIB]
            for view in (memoryview(each.numpy()).cast("B") for each in state.values())
            for begin in range(0, len(view), MIB)
        ]
        ends = np.cumsum([0, *(len(each) + TAG for each in self._plain)]).tolist()
        self._sealed = list(zip(ends, ends[1:], strict=False))
        ends = np.cumsum([0, *map(len, self._plain)]).tolist()
        self._opened = list(zip(ends, ends[1:], strict=False))

    def seal_to_file(self) -> None:
        """Encrypt each chunk into a buffer, write it."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

        def work(numbers: range) -> None:
            buffer = memoryview(bytearray(MIB + TAG))
            for number in numbers:
                begin, end = self._sealed[number]
                self._cipher.encrypt_into(_nonce(number), self._plain[number], b"", out := buffer[: end - begin])
                os.pwrite(fd, out, begin)

        self._spread(work)
        os.fsync(fd)
        os.close(fd)

    def seal_to_memory(self) -> object:
        """Encrypt each chunk to its place in fresh memory."""
        room = np.empty(self._sealed[-1][1], np.uint8)

        def work(numbers: range) -> None:
            for number in numbers:
                begin, end = self._sealed[number]
                self._cipher.encrypt_into(_nonce(number), self._plain[number], b"", room[begin:end])

        self._spread(work)
        return room

    def seal_to_nowhere(self) -> None:
        """Encrypt each chunk into the same buffer."""

        def work(numbers: range) -> None:
            buffer = memoryview(bytearray(MIB + TAG))
            for number in numbers:
                plain = self._plain[number]
                self._cipher.encrypt_into(_nonce(number), plain, b"", buffer[: len(plain) + TAG])

        self._spread(work)

    def open_into(self, fresh: Callable[[int], np.ndarray]) -> object:
        """Decrypt the file from a memory map, each chunk to its place in a fresh buffer."""
        with self.path.open("rb") as file:
            sealed = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        out = memoryview(fresh(self._opened[-1][1]))

        def work(numbers: range) -> None:
            for number in numbers:
                begin, end = self._sealed[number]
                low, high = self._opened[number]
                self._cipher.decrypt_into(_nonce(number), sealed[begin:end], b"", out[low:high])

        self._spread(work)
        return out

    def _spread(self, work: Callable[[range], None]) -> None:
        if self._threads == 1:
            work(range(len(self._plain)))
            return
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(work, [range(first, len(self._plain), self._threads) for first in range(self._threads)]))


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


class Nowhere:
    """A sink that forgets."""

    def write(self, data: memoryview) -> int:
        return len(data)


class Holes(io.FileIO):
    """A file of which only what is no full chunk is written: reserved in the place of the rest is nothing."""

    def write(self, data: memoryview) -> int:
        if len(data) < MIB:
            return super().write(data)
        self.seek(len(data), os.SEEK_CUR)
        return len(data)


class Zeros(io.RawIOBase):
    """So many bytes, of unknown number to who reads them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._left = size

    def readinto(self, buffer: memoryview) -> int:
        taken = min(len(buffer), self._left)
        buffer[:taken] = bytes(taken)
        self._left -= taken
        return taken
