"""Hostile safetensors files, rows 14 to 21 and 70 to 79: headers that lie. See `hostile_corpus`."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

import vambrace
from hostile_corpus import Row

WEIGHT = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}
BIAS = {"dtype": "F32", "shape": [3], "data_offsets": [48, 60]}


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def file(header: object, buffer: int = 60) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(buffer)


def tensors(weight: dict[str, object] | None = None, bias: dict[str, object] | None = None) -> dict[str, object]:
    return {"1.weight": WEIGHT | (weight or {}), "1.bias": BIAS | (bias or {})}


def write(data: Callable[[], bytes]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "net.safetensors").write_bytes(data())

    return build


def load(folder: Path) -> object:
    return vambrace.load(folder / "net.safetensors", factory=network)


def warm(folder: Path) -> None:
    """A good file, so that imports are not measured."""
    write(lambda: file(tensors()))(folder)
    assert load(folder)


def sparse(size: int) -> Callable[[Path], None]:
    """A file of `size` bytes whose header fills it, with nothing written but the length."""

    def build(folder: Path) -> None:
        with (folder / "net.safetensors").open("wb") as stream:
            stream.write(struct.pack("<Q", size - 8) + b"{")
            stream.truncate(size)

    return build


def refused(number: int, title: str, build: Callable[[Path], None], code: str, sentence: str) -> Row:
    return Row(
        number=number, title=title, build=build, act=load, error="ModelRefused", exit=3, code=code, sentence=sentence
    )


ROWS = [
    refused(
        14, "overlap", write(lambda: file(tensors(bias={"data_offsets": [40, 52]}), 52)), "E223", "overlaps tensor"
    ),
    refused(
        15,
        "hole",
        write(lambda: file(tensors(bias={"data_offsets": [56, 68]}), 68)),
        "E223",
        "8 unused bytes between '1.weight' and '1.bias'",
    ),
    refused(
        16,
        "header longer than the file",
        write(lambda: struct.pack("<Q", 2**63) + b"{}"),
        "E220",
        "a header of 9223372036854775808 bytes in a file of 10",
    ),
    refused(17, "header of 1 GiB", sparse(2**30), "E220", "expected at most 8388608"),
    refused(
        18,
        "the same name twice",
        write(lambda: file(json.dumps(tensors()).replace("1.bias", "1.weight").encode())),
        "E221",
        "the key '1.weight' twice",
    ),
    refused(
        19,
        "dtype that does not fit its bytes",
        write(lambda: file(tensors(weight={"dtype": "F64"}))),
        "E222",
        "F64 of shape [3, 4] in 48 bytes",
    ),
    refused(20, "truncated", write(lambda: file(tensors(), 40)), "E223", "lies behind the end of the file"),
    refused(
        21,
        "shape whose size overflows 64 bits",
        write(lambda: file(tensors(weight={"shape": [2**62, 16, 3, 4]}))),
        "E222",
        "1.weight",
    ),
    refused(111, "bytes behind the last tensor", write(lambda: file(tensors(), 80)), "E223", "20 unused bytes"),
    refused(112, "JSON nested 100,000 deep", write(lambda: file(b'{"a":' + b"[" * 100_000)), "E221", "no JSON"),
    replace(
        refused(
            113,
            "8 MiB of empty lists",
            write(lambda: file(b'{"a":[' + b"[]," * (2**21 + 2**19) + b"[]]}")),
            "E221",
            "with other keys",
        ),
        mebibytes=256,  # JSON takes 25 times its size: this is why headers have a cap
    ),
    refused(
        114, "negative offset", write(lambda: file(tensors(weight={"data_offsets": [-8, 40]}))), "E223", "[-8, 40]"
    ),
    refused(115, "dtype of no kind", write(lambda: file(tensors(weight={"dtype": "PICKLE"}))), "E222", "'PICKLE'"),
    refused(
        116,
        "whole numbers where the network has floats",
        write(lambda: file(tensors(weight={"dtype": "I32"}))),
        "E208",
        "1.weight is torch.int32, the network needs torch.float32",
    ),
    refused(
        117, "a number in place of a size", write(lambda: file(tensors(weight={"shape": [True, 12]}))), "E222", "True"
    ),
    refused(118, "empty file", write(lambda: b""), "E201", "is empty"),
    refused(119, "NaN in the header", write(lambda: file(b'{"a":NaN}', 0)), "E221", "NaN"),
    refused(120, "metadata that is no text", write(lambda: file({"__metadata__": {"a": 1}}, 0)), "E221", "metadata"),
]
