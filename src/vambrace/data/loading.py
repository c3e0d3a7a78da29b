"""`load`: whatever a user calls data, told apart by its content, becomes batches.

| source | read as |
|---|---|
| "digits", "digits:train", "digits:test" | the embedded digits |
| a folder | class folders of images |
| a file that begins like a zip | `.npz` if it holds arrays, else class folders of images, read in place |
| a file that begins like `.npy` | an array, mapped; its labels are in another file |
| a file that begins like idx, plain or gzipped | an array; its labels lie beside it, or in another file |
| "pkg.mod:fn" | the user's own code, under a trusted root |

    >>> from vambrace import data
    >>> digits = data.load("digits:test", limit=100)
    >>> len(digits), digits.shape, digits.counts
    (100, (1, 8, 8), (10, 10, 10, 10, 10, 10, 10, 10, 10, 10))
    >>> digits.read([0, 1]).inputs.shape
    torch.Size([2, 1, 8, 8])
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vambrace.core.contract import InputContract
from vambrace.core.options import require
from vambrace.core.progress import Progress, silent
from vambrace.data.archive import open_archive
from vambrace.data.arrays import examined
from vambrace.data.digits import load_digits
from vambrace.data.factory import is_reference, load_factory
from vambrace.data.folder import load_images
from vambrace.data.idx import is_idx, label_paths, read_idx
from vambrace.data.images import image_format
from vambrace.data.labels import check_labels
from vambrace.data.npy import map_npy, read_npz
from vambrace.data.trees import FolderTree, ZipTree, readable
from vambrace.errors import DataRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vambrace.data.loaded import Loaded

__all__ = ["load"]

_KNOWN = "class folders of images, a zip of them, .npy, .npz, idx, idx.gz, pkg.mod:fn or digits"
_NPY = b"\x93NUMPY"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


def load(
    source: str | Path,
    *,
    contract: InputContract | None = None,
    labels: str | Path = "",
    limit: int | None = None,
    head: int | None = None,
    base: Path = Path(),
    trust_code: Sequence[str] = (),
    max_skipped: float = 0.01,
    progress: Progress = silent,
) -> Loaded:
    """The data of a source, as batches.

    Every selected sample is looked at once: decoded, checked against the contract and hashed. Nothing is written,
    nothing is unpacked to disk, and no code but a trusted factory runs.

    Args:
        source: see the table of this module; a path is relative to `base`.
        contract: how stored samples become inputs; None: `InputContract()`.
        labels: an idx or `.npy` file of labels, for sources that hold none; relative to `base`.
        limit: at most this many samples, stratified by label, chosen by their ids: a smaller limit takes a subset.
        head: only the first samples in source order; `limit` then chooses among them.
        base: folder of the plan.
        trust_code: dotted names of modules that factories may come from.
        max_skipped: share of unusable images, 0 to 1, up to which they are left out and listed.
        progress: told while images or a `Dataset` are read.

    Raises:
        ConfigError: E103, for a limit, head or share that is none.
        DataRefused: E300 to E333.
    """
    contract = InputContract() if contract is None else contract
    require(
        0 <= max_skipped <= 1,
        seen=f"max_skipped = {max_skipped!r}",
        expected="a share from 0 to 1",
        fix="0.01 allows one image in a hundred",
    )
    text = str(source)
    require(bool(text), seen="no data", expected=_KNOWN, fix="name the data: --data PATH")
    path = base / source
    if text == "digits" or text.startswith("digits:") or (is_reference(text) and not path.exists()):
        if labels:
            raise _labels_twice(text)
        if is_reference(text) and not text.startswith("digits:"):
            return load_factory(
                text,
                trust_code=trust_code,
                base=base,
                contract=contract,
                head=head,
                limit=limit,
                progress=progress,
            )
        return load_digits(text, contract=contract, head=head, limit=limit)
    try:
        return _from_path(
            path, base / labels if labels else None, contract, head, limit, max_skipped=max_skipped, progress=progress
        )
    except MemoryError as error:
        raise DataRefused(
            "E312",
            seen=f"{text} needs more memory than there is",
            expected="data that fits, or that can be read in place",
            fix="store large arrays as plain .npy or idx files, or take a part with --limit",
        ) from error
    except OSError as error:
        raise DataRefused(
            "E300",
            seen=f"{text} cannot be read: {error.strerror or error}",
            expected="data that this user may read",
            fix="check the path and its permissions",
        ) from error


def _from_path(
    path: Path,
    labels: Path | None,
    contract: InputContract,
    head: int | None,
    limit: int | None,
    *,
    max_skipped: float,
    progress: Progress,
) -> Loaded:
    name = readable(path.resolve().name)
    kind = _kind(path)
    if kind in ("folder", "zip"):
        if labels is not None:
            raise _labels_twice(name)
        return load_images(
            FolderTree(path) if kind == "folder" else ZipTree(path),
            name=name,
            contract=contract,
            head=head,
            limit=limit,
            max_skipped=max_skipped,
            progress=progress,
        )
    if kind == "npz":
        inputs, numbers = read_npz(path, labels_apart=labels is not None)
    else:
        inputs, numbers = (map_npy(path) if kind == "npy" else read_idx(path)), None
    if numbers is None:
        numbers = _label_file(path, labels)
    checked = check_labels(numbers, count=len(inputs) if inputs.ndim else 0, classes=contract.classes)
    return examined(inputs, checked, name=name, classes=contract.classes, contract=contract, head=head, limit=limit)


def _label_file(path: Path, labels: Path | None) -> NDArray[Any]:
    """Labels from the stated file, or from the one that belongs to `path` by its name."""
    beside = label_paths(path)
    found = labels or next((candidate for candidate in beside if candidate.is_file()), None)
    if found is None or not found.is_file():
        where = f", or {beside[0].name} beside it" if beside else ""
        raise DataRefused(
            "E306",
            seen=f"{path.name} and no labels" + (f" at {found.name}" if found else ""),
            expected=f"a file of labels{where}",
            fix="name it: --labels FILE (idx or .npy)",
        )
    kind = _kind(found)
    if kind == "npy":
        return map_npy(found)
    if kind == "idx":
        return read_idx(found)
    raise DataRefused(
        "E306",
        seen=f"{found.name}, which is neither idx nor .npy",
        expected="a file of labels",
        fix="save the labels by numpy.save",
    )


def _kind(path: Path) -> str:
    """What a path holds by its content: "folder", "zip", "npz", "npy" or "idx"."""
    if path.is_dir():
        return "folder"
    if not path.is_file():
        seen = "is no regular file" if path.exists() else "does not exist"
        raise DataRefused(
            "E300",
            seen=f"{path.name or path} {seen}",
            expected=_KNOWN,
            fix="check the path; it counts from the plan's folder",
        )
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(_ZIP):
        return _kind_of_zip(path)
    if head.startswith(_NPY):
        return "npy"
    if is_idx(head) or (head.startswith(b"\x1f\x8b") and is_idx(_unpacked_head(path))):
        return "idx"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise _pickled(path.name)
    raise DataRefused("E301", seen=f"{path.name} is {_guess(head, path)}", expected=_KNOWN, fix=_advice(head))


def _kind_of_zip(path: Path) -> str:
    with open_archive(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        raise _pickled(path.name)
    return "npz" if any(name.endswith(".npy") and "/" not in name for name in names) else "zip"


def _unpacked_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(4)
    except (OSError, EOFError, zlib.error):
        return b""


def _guess(head: bytes, path: Path) -> str:
    if not head:
        return "an empty file"
    if (kind := image_format(head[:16])) is not None:
        return f"one {kind} image"
    if head.startswith(b"\x1f\x8b"):
        return "gzipped, and not idx inside" if not path.name.endswith((".tar.gz", ".tgz")) else "a packed tar archive"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file"
    if head.startswith(b"PAR1"):
        return "a Parquet file"
    if path.suffix.lower() in {".csv", ".tsv"}:
        return "a table of text"
    return "of an unknown type"


def _advice(head: bytes) -> str:
    if image_format(head[:16]) is not None:
        return "name the folder that holds the class folders"
    if head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar":
        return "unpack it, and name the folder"
    return "convert it, such as by numpy.savez_compressed(path, x=inputs, y=labels), or read it in a factory pkg.mod:fn"


def _pickled(name: str) -> DataRefused:
    return DataRefused(
        "E316",
        seen=f"{name} holds pickled Python objects, which run code when they are read",
        expected=_KNOWN,
        fix="name the data, not the model; save tensors by numpy.savez_compressed(path, x=inputs, y=labels)",
    )


def _labels_twice(name: str) -> DataRefused:
    return DataRefused(
        "E306",
        seen=f"--labels beside {name}, which has labels of its own",
        expected="labels in exactly one place",
        fix="drop --labels",
    )
