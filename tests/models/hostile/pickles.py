"""Hostile checkpoints, rows 1 to 13 and 60 to 69: files that are or hold pickles or code. See `hostile_corpus`."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import vambrace
from hostile_corpus import Row, canary_code


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def weights() -> dict[str, torch.Tensor]:
    return network().state_dict()


@dataclass
class Evil:
    """Runs `code` when it is unpickled, by the function `called`."""

    code: str
    called: Callable[[str], object] = exec

    def __reduce__(self) -> tuple[object, ...]:
        return self.called, (self.code,)


def evil(folder: Path) -> Evil:
    return Evil(canary_code(folder))


def shell(folder: Path) -> Evil:
    import os

    return Evil(f'"{sys.executable}" -c "{canary_code(folder)}"', os.system)


def save(name: str, made: Callable[[Path], object], **options: object) -> Callable[[Path], None]:
    return lambda folder: torch.save(made(folder), folder / name, **options)


def write(name: str, made: Callable[[Path], bytes]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / name).write_bytes(made(folder))

    return build


def load(name: str) -> Callable[[Path], object]:
    return lambda folder: vambrace.load(folder / name, factory=network)


def checkpoint(extra: dict[str, bytes], compression: int = zipfile.ZIP_STORED, data: bytes | None = None) -> bytes:
    """What torch.save writes for the weights, with more members or another pickle."""
    saved, made = io.BytesIO(), io.BytesIO()
    torch.save(weights(), saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(made, "w", compression) as target:
        for info in source.infolist():
            content = source.read(info)
            target.writestr(info.filename, data if data is not None and info.filename.endswith("data.pkl") else content)
        root = source.namelist()[0].partition("/")[0]
        for name, content in extra.items():
            target.writestr(f"{root}/{name}", content)
    return made.getvalue()


def with_inner_pickle(folder: Path) -> dict[str, object]:
    """A state dict beside bytes that are a pickle, and the call that opens them."""

    class Loads:
        def __reduce__(self) -> tuple[object, ...]:
            return pickle.loads, (pickle.dumps(evil(folder)),)

    return {**weights(), "more": Loads()}


def computed_name(folder: Path) -> bytes:
    """The name of the function is fetched from the memo out of order, so that no opcode spells it."""
    code = canary_code(folder).encode()
    text = b"\x8c\x08builtins\x94\x8c\x04exec\x94000"  # pushed, stored, popped
    body = b"\x80\x04N\x94" + text.replace(b"000", b"00") + b"h\x01h\x02\x93"
    return body + b"X" + struct.pack("<I", len(code)) + code + b"\x85R."


def without_stop(folder: Path) -> bytes:
    return pickle.dumps(evil(folder), protocol=2)[:-1]


def exported(folder: Path) -> None:
    program = torch.export.export(network().eval(), (torch.rand(2, 4),))
    torch.export.save(program, folder / "net.pt2")


def scripted(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network()), folder / "net.pt")


def packaged(folder: Path) -> None:
    from torch.package import PackageExporter

    with PackageExporter(folder / "net.pt") as exporter:
        exporter.intern("**")
        exporter.save_pickle("net", "net.pkl", weights())


def joblib_dump(folder: Path) -> None:
    import joblib

    joblib.dump({"a": evil(folder)}, folder / "net.joblib")
    joblib.dump({"a": evil(folder)}, folder / "small.joblib", compress=3)


def huge_view() -> dict[str, torch.Tensor]:
    """A tensor of 8 TiB on a storage of one number."""
    return {**weights(), "1.weight": torch.zeros(1).expand(2**20, 2**21)}


def directory_bomb() -> bytes:
    """A zip whose directory names 200,000 empty members; each would cost its reader half a kilobyte."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, *[0] * 7, 2, *[0] * 6) + b"a/"
    directory = entry * 200_000
    start = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, 2, 0) + b"a/"
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(directory), len(start), 0)
    return start + directory + end


def warm(folder: Path) -> None:
    """One good file of each kind, so that imports are not measured; also shows that good files load."""
    torch.save(weights(), folder / "net.pt")
    torch.save(weights(), folder / "old.pt", _use_new_zipfile_serialization=False)
    assert load("net.pt")(folder)
    assert load("old.pt")(folder)


def refused(number: int, title: str, build: Callable[[Path], None], name: str, code: str, sentence: str) -> Row:
    return Row(
        number=number,
        title=title,
        build=build,
        act=load(name),
        error="ModelRefused",
        exit=3,
        code=code,
        sentence=sentence,
    )


ROWS = [
    refused(
        1, "pickle REDUCE in .pt", write("net.pt", lambda f: pickle.dumps(shell(f))), "net.pt", "E210", "posix.system"
    ),
    refused(2, "pickle REDUCE in .pth zip", save("net.pth", shell), "net.pth", "E210", "would call posix.system"),
    refused(
        3,
        "pickle REDUCE in .bin, older format",
        save("net.bin", lambda f: {**weights(), "x": evil(f)}, _use_new_zipfile_serialization=False),
        "net.bin",
        "E210",
        "would call builtins.exec",
    ),
    refused(4, "full-module pickle", save("net.pt", lambda _: network()), "net.pt", "E211", "a whole network"),
    refused(
        5,
        "full-module pickle, older format",
        save("net.pth", lambda _: network(), _use_new_zipfile_serialization=False),
        "net.pth",
        "E211",
        "torch.nn.modules.container.Sequential",
    ),
    refused(
        6,
        "second pickle as a member of the zip",
        write("net.pt", lambda f: checkpoint({"extra.pkl": pickle.dumps(evil(f))})),
        "net.pt",
        "E210",
        "hides a second pickle",
    ),
    refused(7, "pickle inside a pickle", save("net.pt", with_inner_pickle), "net.pt", "E210", "pickle.loads"),
    refused(8, "TorchScript", scripted, "net.pt", "E212", "TorchScript archive"),
    refused(9, ".pt2", exported, "net.pt2", "E213", "torch.export .pt2 archive"),
    refused(10, "joblib", joblib_dump, "net.joblib", "E210", "would call builtins.exec"),
    refused(11, "compressed joblib", joblib_dump, "small.joblib", "E215", "pickle or joblib file"),
    refused(12, "torch.package", packaged, "net.pt", "E214", "torch.package archive"),
    refused(
        13,
        "a function whose name is fetched from the memo",
        write("net.pt", lambda f: checkpoint({}, data=computed_name(f))),
        "net.pt",
        "E210",
        "would call builtins.exec",
    ),
    refused(
        101,
        "pickle that runs, then breaks off",
        write("net.pt", lambda f: checkpoint({}, data=without_stop(f))),
        "net.pt",
        "E210",
        "broken pickle that would call builtins.exec",
    ),
    refused(
        102,
        "pickle called .safetensors",
        write("net.safetensors", lambda f: pickle.dumps(evil(f))),
        "net.safetensors",
        "E202",
        "net.safetensors is a pickle or joblib file",
    ),
    refused(103, "checkpoint called .onnx", save("net.onnx", evil), "net.onnx", "E202", "is a PyTorch checkpoint"),
    refused(
        104,
        "compressed members, 1000:1",
        write("net.pt", lambda _: checkpoint({"data/9": bytes(2**28)}, zipfile.ZIP_DEFLATED)),
        "net.pt",
        "E216",
        "compressed member",
    ),
    refused(
        105, "directory of 200,000 members", write("net.pt", lambda _: directory_bomb()), "net.pt", "E216", "directory"
    ),
    refused(
        106,
        "text of 2**60 bytes promised",
        write("net.pt", lambda _: checkpoint({}, data=b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x.")),
        "net.pt",
        "E217",
        "cannot be read as a checkpoint",
    ),
    refused(
        107,
        "tensor of 8 TiB on one number",
        save("net.pt", lambda _: huge_view()),
        "net.pt",
        "E208",
        "1.weight has shape",
    ),
    refused(
        108,
        "truncated zip",
        write("net.pt", lambda _: checkpoint({})[:-100]),
        "net.pt",
        "E216",
        "cannot be read",
    ),
    refused(
        109,
        "two members of one name",
        write("net.pt", lambda _: _twice(checkpoint({}))),
        "net.pt",
        "E216",
        "two members of one name",
    ),
    refused(
        110,
        "code in the second pickle of the older format",
        write("net.pt", lambda f: _legacy_with(pickle.dumps(evil(f), protocol=2))),
        "net.pt",
        "E210",
        "would call builtins.exec",
    ),
]


def _twice(data: bytes) -> bytes:
    stream = io.BytesIO(data)
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "a") as archive:
        warnings.simplefilter("ignore")
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        archive.writestr(name, archive.read(name))
    return stream.getvalue()


def _legacy_with(second: bytes) -> bytes:
    stream = io.BytesIO()
    torch.save(weights(), stream, _use_new_zipfile_serialization=False)
    data = stream.getvalue()
    first = data.index(b".") + 1  # the magic number holds no full stop
    return data[:first] + second + data[first:]
