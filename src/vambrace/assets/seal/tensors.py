"""Tensors as the plain bytes of a sealed file: one safetensors file, written and read without a copy in between.

    packed = Packed({"weight": torch.ones(2, 3)})
    tensors = read_tensors(sealed)              # views into one buffer that chunks are decrypted into
    Lazy(sealed).rows("weight", 0, 1)           # reads the chunks that hold these rows, and no others

Names, shapes and dtypes lie inside the ciphertext, as all content does. What is read is checked before it is used: the
file may be authentic and yet be nonsense.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final, Self, cast

import numpy as np
import torch
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from vambrace.core.options import require
from vambrace.core.tree import has_sign, in_memory
from vambrace.errors import ArtifactRefused, ConfigError
from vambrace.models.formats import kind_of_start
from vambrace.models.safetensors import MOST_HEADER, Entry, parse_header, shape_fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from vambrace.assets.seal.sealed import Sealed

__all__ = ["Lazy", "Packed", "read_header", "read_tensors"]

_ALIGNED: Final = 64
_DTYPES: Final = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
    "C64": torch.complex64,
}
_FOREIGN: Final = {
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.int8,
    torch.float8_e5m2: torch.int8,
    torch.float8_e4m3fnuz: torch.int8,
    torch.float8_e5m2fnuz: torch.int8,
    torch.float8_e8m0fnu: torch.int8,
}
"""What numpy lacks, and what it has of the same size."""
_CODES: Final = {dtype: code for code, dtype in _DTYPES.items()}


class Packed:
    """A safetensors file that exists one tensor at a time.

    A tensor that stands under two names is written twice. Tensors of other devices are copied when their turn comes.

    Args:
        tensors: by name; dense, of any device.

    Attributes:
        size: bytes of the file.

    Raises:
        ConfigError: E760, for what is no dense tensor with a name, of a dtype that safetensors lacks, whose memory was
            freed, or whose sign torch keeps aside and cannot apply.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            _check_packable(name, tensor)
        # Wide elements first, so that each tensor begins at a multiple of its own element's size.
        names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
        self._tensors = [tensors[name] for name in names]
        entries: dict[str, object] = {}
        end = 0
        for name, tensor in zip(names, self._tensors, strict=True):
            begin, end = end, end + tensor.numel() * tensor.element_size()
            entries[name] = {
                "dtype": _CODES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [begin, end],
            }
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
        require(
            len(text) <= MOST_HEADER,
            code="E760",
            seen=f"{len(names)} tensors, whose names and shapes take {len(text)} bytes",
            expected=f"at most {MOST_HEADER}",
            fix="store them in several files",
        )
        text += b" " * (-(8 + len(text)) % _ALIGNED)
        self._header = len(text).to_bytes(8, "little") + text
        self.size = len(self._header) + end

    def pieces(self) -> Iterator[memoryview]:
        """The bytes of the file in order."""
        yield memoryview(self._header)
        for tensor in self._tensors:
            if tensor.numel():
                yield _bytes(tensor)


def read_header(sealed: Sealed) -> tuple[dict[str, Entry], int]:
    """The tensors of a sealed safetensors file, and where their bytes begin in it; also of one that came in a stream.

    Raises:
        ArtifactRefused: E764, when the content is no safetensors file; and as `Sealed.read_into`.
        ModelRefused: E221 to E223, for a header that lies.
    """
    kind = sealed.description.content
    begin = sealed.read(0, min(sealed.size, 9))
    if kind == "folder" or (kind == "bytes" and kind_of_start(begin) != "safetensors"):
        raise _other(f"a content of kind {kind!r}")
    if sealed.size < 8:
        raise _other(f"a content of {sealed.size} bytes")
    length = int.from_bytes(begin[:8], "little")
    if length > min(MOST_HEADER, sealed.size - 8):
        raise _other(f"a header of {length} bytes in a content of {sealed.size}")
    return parse_header(sealed.read(8, 8 + length), sealed.size - 8 - length), 8 + length


def read_tensors(sealed: Sealed, *, threads: int = 1) -> dict[str, Tensor]:
    """All tensors, on the CPU, by name; they are views into one buffer, which lives as long as any of them.

    Raises:
        ArtifactRefused, ModelRefused: as `read_header`.
        ResourceError: E604, when the file cannot be read.
    """
    entries, start = read_header(sealed)
    room = _room(sealed.size + _ALIGNED)
    # Chunks are decrypted into their place, so the buffer is laid out for its tensors, not for the header before them.
    skipped = -(room.data_ptr() + start) % _ALIGNED
    content = room[skipped : skipped + sealed.size]
    sealed.read_into(0, _memory(content), threads=threads)
    return {name: _view(content[start + entry.begin : start + entry.end], entry) for name, entry in entries.items()}


class Lazy:
    """Tensors of a sealed file that are read when they are asked for, from the chunks that hold them and no others.

    Args:
        sealed: the open file; closed with this object.

    Attributes:
        sealed: as given: `header`, `description`, `statement`.

    Raises:
        ArtifactRefused, ModelRefused: as `read_header`.
    """

    def __init__(self, sealed: Sealed) -> None:
        self.sealed = sealed
        self._entries, self._start = read_header(sealed)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def keys(self) -> tuple[str, ...]:
        """The names, in the order of the file."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; nothing is read. Raises as `tensor`."""
        return self._entry(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor; nothing is read. Raises as `tensor`."""
        return _DTYPES[self._entry(name).dtype]

    def tensor(self, name: str) -> Tensor:
        """A whole tensor, on the CPU; so is `lazy[name]`.

        Raises:
            ConfigError: E767, for a name that is not there.
            ArtifactRefused, ResourceError: as `Sealed.read_into`.
        """
        return self._read(self._entry(name))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensor(name)

    def rows(self, name: str, begin: int, end: int) -> Tensor:
        """A tensor's `[begin:end]` along its first dimension, on the CPU, as Python slices.

        Raises:
            ConfigError: E767, for a name that is not there or a tensor without dimensions.
            ArtifactRefused, ResourceError: as `Sealed.read_into`.
        """
        entry = self._entry(name)
        require(
            bool(entry.shape),
            code="E767",
            seen=f"rows of {name!r}, which is a single number",
            expected="a tensor with dimensions",
            fix="read it whole: tensor(name)",
        )
        begin, end, _ = slice(begin, end).indices(entry.shape[0])
        row = math.prod(entry.shape[1:]) * _DTYPES[entry.dtype].itemsize
        end = max(begin, end)
        shape = (end - begin, *entry.shape[1:])
        return self._read(Entry(entry.dtype, shape, entry.begin + begin * row, entry.begin + end * row))

    def close(self) -> None:
        """Close the file; twice is fine."""
        self.sealed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise ConfigError(
                "E767",
                seen=f"no tensor {name[:80]!r} among {len(self._entries)}",
                expected="a name that is in the file",
                fix="look at keys()",
            )
        return entry

    def _read(self, entry: Entry) -> Tensor:
        content = _room(entry.end - entry.begin)
        self.sealed.read_into(self._start + entry.begin, _memory(content))
        return _view(content, entry)


def _room(size: int) -> Tensor:
    """Fresh bytes: numpy's, which asks for huge pages; to get torch's small ones takes longer than to decrypt."""
    # Of no bytes at all, torch would get a stride of 0, which it cannot view as another dtype.
    return torch.from_numpy(np.empty(max(1, size), dtype=np.uint8))[:size]


def _bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor's elements in their order: where they lie, or in a copy on the CPU."""
    if tensor.dtype in _FOREIGN:
        # Torch keeps a minus sign aside for some views, and views no such one as another dtype.
        tensor = tensor.detach().resolve_neg().view(_FOREIGN[tensor.dtype])
    # By numpy, for torch takes twice as long, and other threads that seal wait for the interpreter meanwhile.
    # One with many sizes is made flat first: older numpy has 32 at most.
    plain = np.ascontiguousarray((tensor if tensor.dim() <= 32 else tensor.reshape(-1)).numpy(force=True))
    return memoryview(cast("Any", plain.reshape(-1).view(np.uint8)))


def _memory(content: Tensor) -> memoryview:
    """The bytes of a flat tensor of the CPU where they lie."""
    return memoryview(cast("Any", content.numpy()))


def _view(content: Tensor, entry: Entry) -> Tensor:
    dtype = _DTYPES[entry.dtype]
    # A file that others wrote may begin a tensor anywhere; a view needs its place to be a multiple of its elements.
    whole = content if content.storage_offset() % dtype.itemsize == 0 else content.clone()
    return whole.view(dtype).view(entry.shape)


def _check_packable(name: Any, tensor: Any) -> None:  # noqa: ANN401  users' dicts hold anything
    if not isinstance(name, str) or name == "__metadata__" or not _is_text(name):
        found = f"the name {str(name)[:80]!r}"
    elif (
        not isinstance(tensor, torch.Tensor)
        or is_lazy(tensor)
        or tensor.is_nested
        or is_traceable_wrapper_subclass(tensor)
    ):
        found = f"{name!r}, which is a {type(tensor).__name__} and no dense tensor in memory"
    elif tensor.layout != torch.strided or tensor.dtype not in _CODES:
        found = f"{name!r}, which is of {tensor.dtype}, {tensor.layout}, on {tensor.device}"
    elif not in_memory(tensor):
        found = f"{name!r}, a {type(tensor).__name__} whose memory was freed, or that has none"
    elif not has_sign(tensor):
        found = f"{name!r}, of {tensor.dtype} with a minus sign that torch keeps aside and has no way to apply"
    elif fault := shape_fault(tensor.shape):
        found = f"{name!r}, of {tensor.dim()} sizes, where there can be {fault}"
    else:
        return
    raise ConfigError(
        "E760",
        seen=found,
        expected="dense tensors by name, of a dtype that safetensors has",
        fix="convert it, leave it out, or store nested state with seal.Checkpoints",
    )


def _is_text(name: str) -> bool:
    """Whether UTF-8 has it; Python's texts may hold halves of characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _other(seen: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E764",
        seen=seen,
        expected="tensors: a safetensors file",
        fix="open it as what it is: seal.load, or vambrace open",
    )
