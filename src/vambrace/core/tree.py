"""The tree codec: nested state, such as an optimizer's, as one safetensors file. Format: docs/formats/tree-v1.md.

A tree is None, bool, int, float, str, a tensor, or a list, tuple or dict of trees (dict keys: str or int). Everything
else
is refused by its path: what cannot be written safely must not be written quietly. Nothing is executed on reading.

    >>> decode(encode({"step": 3, "betas": (0.9, 0.999), 7: [None, float("inf")]}))
    {'step': 3, 'betas': (0.9, 0.999), 7: [None, inf]}

Guarantees: `decode(encode(tree))` has the same types, values, bits of tensors and order of keys. Tensors come back on
the CPU, contiguous, without gradient; an `nn.Parameter` as a plain tensor, an OrderedDict as a dict; a tensor that
stands in two places becomes two. When not: for secrets (nothing is encrypted), or for data larger than memory.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NoReturn, cast

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["decode", "encode", "has_sign", "in_memory"]

_VERSION = "vambrace-tree/1"
_DEEPEST = 64
_EXACT = 2**53
_LARGEST_HEADER = 64 * 2**20
_MOST_BRACKETS = 8_000_000
_FLOAT = re.compile(r"-?(inf|(0|[1-9][0-9]*)(\.[0-9]+)?(e[+-]?[0-9]+)?)|nan")
_INT = re.compile(r"-?[1-9][0-9]{0,2466}")
_NAME = re.compile(r"0|[1-9][0-9]{0,8}")
_DTYPES = frozenset(
    f"torch.{name}"
    for name in (
        *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    )
)


def encode(tree: object) -> bytes:
    """A tree to the bytes of one safetensors file.

    Raises:
        ConfigError: E109, for a value that is no tree, or a tensor whose memory was freed, naming its path; for nesting
            deeper than 64, as in a cycle.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_skeleton(tree, "tree", 0, tensors), ensure_ascii=True, separators=(",", ":"))
    # One entry, because safetensors writes several in no fixed order, and equal trees shall give equal bytes.
    data = save(tensors, metadata={_VERSION: skeleton})
    size = int.from_bytes(data[:8], "little")
    if size > _LARGEST_HEADER or _brackets(data[8 : 8 + size]) > _MOST_BRACKETS:
        fix = "store long lists and texts as tensors (torch.tensor, torch.frombuffer)"
        raise _refusal("tree", "more than a reader takes beside the tensors' elements", fix)
    return data


def decode(data: bytes) -> Any:  # noqa: ANN401  a tree of any shape
    """The tree in the bytes that `encode` wrote.

    Raises:
        ConfigError: E111, for bytes that are damaged, of another version, or that `encode` does not write.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    metadata = _metadata(data)
    if list(metadata) != [_VERSION]:
        raise _damage(f"the version line {', '.join(sorted(metadata))[:80]!r}", f"{_VERSION} alone")
    skeleton = _json(metadata[_VERSION])
    try:
        tensors = load(data)
    except (SafetensorError, LookupError, RuntimeError, ValueError) as error:  # what torch makes of odd types and sizes
        raise _damage(f"tensors that cannot be read ({error})", "whole safetensors data") from error
    tree, used = _tree(skeleton, tensors, 0, 0)
    if used != len(tensors):
        raise _damage(f"{len(tensors) - used} tensors that the tree does not use", "one tensor for each place")
    return tree


def in_memory(tensor: Tensor) -> bool:
    """Whether a strided tensor, of any shape and device, has all of its elements in its storage.

    Not so where the storage was freed or made smaller, as sharded training does between steps: what is read then is
    whatever lies there in the process, or nothing. Nor where there is no storage: on "meta", and within
    `torch.func.vmap` and `torch.func.grad`.
    """
    try:
        storage = tensor.untyped_storage()
    except NotImplementedError:
        return False
    if storage.device.type == "meta":
        return False
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    end = (tensor.storage_offset() + reach + 1) * tensor.element_size()
    return tensor.numel() == 0 or storage.nbytes() >= end


def has_sign(tensor: Tensor) -> bool:
    """Whether the elements of a tensor can be had with their sign, which torch keeps aside in some views."""
    if tensor.is_neg():
        try:
            tensor[(slice(1),) * tensor.dim()].resolve_neg()  # of one element, and not of a copy of all
        except RuntimeError:  # float8, truth values and wide numbers without a sign
            return False
    return True


def _skeleton(value: Any, path: str, depth: int, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    if depth > _DEEPEST:
        raise _refusal(path, "nesting deeper than 64, or a cycle", "flatten it")
    # Exact types: a subclass (NumPy's float, an enum, a named tuple) would come back as something else.
    kind = type(cast("object", value))
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if abs(value) <= _EXACT else {"int": _digits(value, path)}
    if kind is float:
        return {"float": repr(value)}
    if kind is str:
        if any(0xD800 <= ord(char) <= 0xDFFF for char in value):
            raise _refusal(path, "text with half a character", "encode it otherwise")
        return value
    if kind is list:
        return [_skeleton(each, f"{path}[{i}]", depth + 1, tensors) for i, each in enumerate(value)]
    if kind is tuple:
        return {"tuple": [_skeleton(each, f"{path}[{i}]", depth + 1, tensors) for i, each in enumerate(value)]}
    if kind in (dict, OrderedDict):
        return {"dict": [_pair(key, each, path, depth, tensors) for key, each in value.items()]}
    if (kind.__module__, kind.__qualname__) in (("torch", "Tensor"), ("torch.nn.parameter", "Parameter")):
        return {"tensor": _stored(value, path, tensors)}
    raise _refusal(
        path, f"a {kind.__module__}.{kind.__qualname__}", "convert it to numbers, text, lists, dicts or tensors"
    )


def _pair(key: Any, value: Any, path: str, depth: int, tensors: dict[str, Tensor]) -> list[Any]:  # noqa: ANN401
    if type(key) not in (str, int):
        raise _refusal(path, f"a key of type {type(key).__name__}", "use text or whole numbers as keys")
    place = f"{path}[{key!r}]"
    return [_skeleton(key, place, depth + 1, tensors), _skeleton(value, place, depth + 1, tensors)]


def _digits(value: int, path: str) -> str:
    if value.bit_length() > 8192:
        raise _refusal(path, f"an integer of {value.bit_length()} bits", "store it as bytes in a tensor")
    return str(value)


def _stored(tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> str:
    if (
        str(tensor.dtype) not in _DTYPES
        or str(tensor.layout) != "torch.strided"
        or tensor.is_meta
        or tensor.is_quantized
    ):
        raise _refusal(
            path, f"a tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device}", "make it a plain dense tensor"
        )
    if not in_memory(tensor):
        raise _refusal(path, "a tensor whose memory was freed, or that has none", "gather its shards before storing")
    if not has_sign(tensor):
        raise _refusal(
            path, f"a tensor of {tensor.dtype} whose sign torch keeps aside", "store the tensor it is made of"
        )
    name = str(len(tensors))
    # A clone, also where the tensor is contiguous already: safetensors refuses tensors that share memory.
    tensors[name] = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().clone()
    return name


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of safetensors bytes, read strictly."""
    size = int.from_bytes(data[:8], "little") if len(data) >= 8 else -1
    if not 0 <= size <= min(len(data) - 8, _LARGEST_HEADER):
        raise _damage("no safetensors header", "a file that the tree codec wrote")
    if _brackets(data[8 : 8 + size]) > _MOST_BRACKETS:
        raise _damage("too many lists and numbers", f"at most {_MOST_BRACKETS} opening brackets")
    try:
        text = data[8 : 8 + size].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damage("a header that is not UTF-8", "a file that the tree codec wrote") from error
    header = _json(text)
    metadata = cast("dict[str, Any]", header).get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(
        isinstance(each, str) for each in cast("dict[str, Any]", metadata).values()
    ):
        raise _damage("no metadata", "a file that the tree codec wrote")
    return cast("dict[str, str]", metadata)


def _brackets(header: bytes) -> int:
    """Each takes many times its size in memory when it is read, so they are counted before."""
    return header.count(b"[") + header.count(b"{")


def _json(text: str) -> Any:  # noqa: ANN401
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise _damage("a repeated key", "each key once")
        return found

    def refused(name: str) -> NoReturn:
        raise _damage(f"the number {name}", "whole numbers, with other numbers in their tagged form")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refused)
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise _damage(f"text that is not JSON ({str(error)[:80]})", "a file that the tree codec wrote") from error


def _tree(node: Any, tensors: dict[str, Tensor], used: int, depth: int) -> tuple[Any, int]:  # noqa: ANN401
    """The value of a skeleton node, and how many tensors have been used up to its end."""
    if depth > _DEEPEST:
        raise _damage("nesting deeper than 64", "a tree that encode writes")
    if isinstance(node, str) and any(0xD800 <= ord(char) <= 0xDFFF for char in node):
        raise _damage("text with half a character", "whole characters")
    if node is None or isinstance(node, bool | str):
        return node, used
    if isinstance(node, int):
        if abs(node) > _EXACT:
            raise _damage("a plain integer beyond 2**53", "its tagged form")
        return node, used
    if isinstance(node, list):
        return _sequence(cast("list[Any]", node), tensors, used, depth)
    if not isinstance(node, dict) or len(cast("dict[str, Any]", node)) != 1:
        raise _damage("a value without exactly one tag", "a tagged value")
    ((tag, inside),) = cast("dict[str, Any]", node).items()
    match tag, inside:
        case "float", str() if _FLOAT.fullmatch(inside) and repr(float(inside)) == inside:
            return float(inside), used
        case "int", str() if _INT.fullmatch(inside) and abs(int(inside)) > _EXACT:
            return int(inside), used
        case "tuple", list():
            items, used = _sequence(cast("list[Any]", inside), tensors, used, depth)
            return tuple(items), used
        case "dict", list():
            return _mapping(cast("list[Any]", inside), tensors, used, depth)
        case "tensor", str() if inside == str(used) and inside in tensors and _NAME.fullmatch(inside):
            return tensors[inside], used + 1
        case _:
            raise _damage(
                f"the value {str(cast('object', node))[:60]}", "a tag of version 1 with a value in its one form"
            )


def _sequence(nodes: list[Any], tensors: dict[str, Tensor], used: int, depth: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    for each in nodes:
        item, used = _tree(each, tensors, used, depth + 1)
        items.append(item)
    return items, used


def _mapping(pairs: list[Any], tensors: dict[str, Tensor], used: int, depth: int) -> tuple[dict[Any, Any], int]:
    found: dict[Any, Any] = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(cast("list[Any]", pair)) != 2:
            raise _damage("a dict entry that is not a key and a value", "pairs")
        items, used = _sequence(cast("list[Any]", pair), tensors, used, depth)
        key, value = items
        if type(key) not in (str, int) or key in found:
            raise _damage(f"the key {str(key)[:60]!r}", "text or whole numbers, each once")
        found[key] = value
    return found, used


def _refusal(path: str, seen: str, fix: str) -> ConfigError:
    return ConfigError(
        "E109",
        seen=f"{path} is {seen}",
        expected="None, bool, int, float, str, tensor, or a list, tuple or dict of these",
        fix=fix,
    )


def _damage(seen: str, expected: str) -> ConfigError:
    return ConfigError(
        "E111", seen=f"stored state with {seen}", expected=expected, fix="restore the file from a backup"
    )
