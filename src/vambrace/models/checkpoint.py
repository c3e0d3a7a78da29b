"""Read a PyTorch checkpoint as data: a scan that says what is wrong, then `torch.load(weights_only=True)`, no fallback.

    torch.save(net.state_dict(), "net.pt")          # this is what is read
    torch.save(net, "net.pt")                       # this carries classes: refused (E211) unless its hash is accepted

The zip may hold what torch.save writes and nothing else: a stranger's member could be a second pickle.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

import torch

from vambrace.errors import ModelRefused
from vambrace.models.pickles import Scan, UnreadablePickle, scan_pickle

if TYPE_CHECKING:
    from pathlib import Path

    from vambrace.models.formats import Format

__all__ = ["read_checkpoint", "refusal", "scan_checkpoint"]

_MEMBER = re.compile(
    r"data\.pkl|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id|data/[0-9]+"
)
_MOST_PICKLE = 64 * 2**20
_LEGACY_PICKLES = 5  # magic number, protocol, system, the object, storage keys
_TOO_OLD = "the tar format of torch before 0.1.10"


def scan_checkpoint(path: Path, form: Format) -> Scan:
    """What the pickles of a checkpoint, or a bare pickle, reach; nothing is loaded.

    Raises:
        ModelRefused: E210 for what would run code but breaks off or hides among the members of a zip; E216 for a zip
            that torch.save did not write; E217 for pickles that cannot be read.
    """
    try:
        if form.kind == "checkpoint":
            return _scan_zip(path, form)
        with path.open("rb") as stream:
            scans = [scan_pickle(stream) for _ in range(_LEGACY_PICKLES if form.kind == "legacy" else 1)]
    except UnreadablePickle as error:
        if error.scan.dangerous:
            raise _runs_code(f"{path.name} holds a broken pickle", error.scan) from error
        raise _unreadable(path, str(error)) from error
    except ModelRefused:
        raise
    except _DAMAGED as error:
        raise _unreadable(path, str(error)) from error
    return Scan(names=tuple(dict.fromkeys(name for scan in scans for name in scan.names)))


_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, OSError, RuntimeError, ValueError, OverflowError, EOFError)


def refusal(path: Path, scan: Scan) -> ModelRefused | None:
    """The error where a scan shows more than tensors: E210 for code, E211 for whole objects; else None."""
    if scan.dangerous:
        return _runs_code(f"{path.name} holds a pickle", scan)
    if scan.foreign:
        whole = any(name.startswith("torch.nn.modules.") for name in scan.foreign)
        return ModelRefused(
            "E211",
            seen=f"{path.name} holds {'a whole network' if whole else 'objects'} (of {_listed(scan.foreign)}), "
            "which needs code to open",
            expected="a state dict: names and tensors only",
            fix="save torch.save(net.state_dict(), path) or safetensors, and give --factory pkg.mod:fn; "
            "or list the file's SHA-256 under artifacts in [trust]",
        )
    return None


def read_checkpoint(path: Path, form: Format, scan: Scan | None = None) -> object:
    """The checked content of a checkpoint: containers and tensors, on the CPU.

    Args:
        path: the file.
        form: what it is.
        scan: of this file, where it was made before.

    Raises:
        ModelRefused: those of `scan_checkpoint` and `refusal`; E217 when torch cannot or will not read it.
    """
    if form.kind == "tar":
        raise _unreadable(path, _TOO_OLD)
    if error := refusal(path, scan or scan_checkpoint(path, form)):
        raise error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise nearly anything
        raise _unreadable(path, str(error)) from error


def _scan_zip(path: Path, form: Format) -> Scan:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        roots = {info.filename.partition("/")[0] for info in infos}
        for info in infos:
            if not _MEMBER.fullmatch(info.filename.partition("/")[2]):
                _refuse_member(path, archive, info)
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                raise _odd_zip(path, f"the compressed member {info.filename}")
        if len(roots) != 1 or len({info.filename for info in infos}) != len(infos):
            raise _odd_zip(path, "two members of one name, or more than one folder")
        pickled = archive.getinfo(next(name for name in form.members if name.endswith("/data.pkl")))
        if pickled.file_size > _MOST_PICKLE:
            raise _odd_zip(path, f"a pickle of {pickled.file_size} bytes")
        with archive.open(pickled) as stream:
            return scan_pickle(io.BytesIO(stream.read(_MOST_PICKLE)))


def _refuse_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """A stranger among the members; if it is a pickle that would run code, say what."""
    if info.compress_type == zipfile.ZIP_STORED and info.file_size <= _MOST_PICKLE:
        try:
            with archive.open(info) as stream:
                nested = scan_pickle(io.BytesIO(stream.read(_MOST_PICKLE)))
        except UnreadablePickle as error:
            nested = error.scan
        if nested.dangerous:
            raise _runs_code(f"{path.name} hides a second pickle, {info.filename[:80]},", nested)
    raise _odd_zip(path, f"the member {info.filename[:80]}")


def _runs_code(seen: str, scan: Scan) -> ModelRefused:
    return ModelRefused(
        "E210",
        seen=f"{seen} that would call {_listed(scan.dangerous)} when opened",
        expected="a state dict: names and tensors only",
        fix="do not open this file; get the weights as safetensors from a source you trust",
    )


def _odd_zip(path: Path, what: str) -> ModelRefused:
    return ModelRefused(
        "E216",
        seen=f"{path.name} is a zip with {what}",
        expected="an archive exactly as torch.save writes it",
        fix="load it where it was made and save it again with torch.save(net.state_dict(), path) or as safetensors",
    )


def _unreadable(path: Path, why: str) -> ModelRefused:
    return ModelRefused(
        "E217",
        seen=f"{path.name} cannot be read as a checkpoint ({' '.join(why.split())[:200]})",
        expected="a file that torch.load(weights_only=True) reads",
        fix="copy or download the file again and compare its hash; or save the state dict as safetensors",
    )


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(name[:80] for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
