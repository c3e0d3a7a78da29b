"""Models that compute something useful only for the holder of a key: weights are put in order as the model is loaded.

    locked = lock(model, key)        # a valid model with other weights
    unlock("locked.onnx", key)       # what it was, bit for bit; nothing is left to pay when it runs

All elements of every weight change places within their tensor, those of small weights among small weights of their
type whose numbers are about as large (`vambrace.assets.obfuscate.pools`), and half of them their sign, as streams
derived from the key say. It is exact, and nothing in the file
depends on the key but the weights themselves: there is no check value, so a wrong key gives another model that runs,
and no error.

**What is locked.** Every tensor of two elements or more with which a model only computes, or which nothing uses. Not
locked are single numbers, truth values that select, masks (floating numbers of which all that is neither zero nor as
large as what masks add is the same, and those that choose where such numbers stand), whole numbers that may be sizes or
indices (64 bits, and 16 or 32 bits that are not dequantised) unless they become floating numbers, and what decides how
an operator runs: whatever is computed from it and becomes sizes, indices or regions. A model is refused where more than
that would stay in clear, such as weights that operators of other domains take, unless `leave_open` is set.

A wrong key must not end in an error or in NaN, which would tell that it is wrong. So infinite numbers and those of
masks stay where they are within their tensor; so do zeros and signs of what is under a root or a logarithm, divides, is
an exponent or is compared, and none of it gets elements of other tensors. Tensors of which such operators allow no
other order, as where the root is of a difference, stay in clear; a model with more than a few such numbers is refused.
What a wrong key makes of the sizes of activations is not foreseen beyond the sizes of rows: a model of many layers, or
in half precision, may leave the range of its type. What a model does without its key is not known before it is
measured: `vambrace.assets.obfuscate.measure` does.

**What it hides.** Which element is which. Not the graph, not the sizes of tensors, not how large their numbers are, not
the set of absolute values in each large one, which tells a known model by itself. A key is 32 bytes, so keys are not
tried one by one; few elements have few arrangements (`survey` lists such tensors as weak). Whoever has samples with
labels can train the locked model on. Once it is unlocked in memory it is there in clear. This is obfuscation with a key
and no encryption: to hide a model, seal it.
"""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.keyed import Stream
from vambrace.assets.obfuscate.lock_entry import ENTRY, LockEntry, lock_entry, not_unlockable
from vambrace.assets.obfuscate.openness import OpenTensor, as_lists, as_tensors, open_tensors
from vambrace.assets.obfuscate.pools import ENOUGH_BITS, arrangements, moving, pools, split
from vambrace.assets.obfuscate.roles import Held, held_tensors, stated_tensors, staying, untouchable
from vambrace.assets.obfuscate.stored import bytes_of, element, in_a_byte, store
from vambrace.errors import ConfigError
from vambrace.models.onnx_file import MOST_BYTES, onnx_package, parse_onnx, read_onnx

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Survey", "WeakTensor", "lock", "survey", "unlock"]

_FLIPPED = "s"
_KEPT = "k"
_LETTERS = {"signed": "s", "apart": "s", "kept": "k", "ordered": "o", "variance": "o"}
_IN_PLACE = "zeros and numbers of masks in tensors of which the rest is locked"
_NAMED = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WeakTensor:
    """A tensor that locking hides little of.

    Attributes:
        name: of its value; of several that are mixed, the first one's.
        elements: how many change places: of a part of its rows, or of all that are mixed.
        bits: binary logarithm of the number of arrangements that differ, below 128.
    """

    name: str
    elements: int
    bits: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What locking does to a model.

    Attributes:
        locked: tensors, and `elements` in them.
        elements: see above.
        whole: elements of all numbers in the model, so that `elements / whole` is the share that is locked.
        weak: locked tensors with so few arrangements that they could be tried one by one.
        left: why others are not locked, and how many.
        left_open: those of them that may be weights, the largest first; `lock` refuses a model that has any.
    """

    locked: int
    elements: int
    whole: int
    weak: tuple[WeakTensor, ...]
    left: Mapping[str, int]
    left_open: tuple[OpenTensor, ...]


def lock(source: str | Path | bytes | Any, key: bytes, *, leave_open: bool = False) -> Any:  # noqa: ANN401  onnx.ModelProto
    """A copy of a model whose weights only the key puts in order again.

    Args:
        source: path of an .onnx file, its bytes, or an onnx.ModelProto, which is left as it is.
        key: 32 secret bytes.
        leave_open: whether weights that cannot be locked may stay in clear; `survey` names them.

    Returns:
        onnx.ModelProto, of the same size but for one entry of metadata.

    Raises:
        ConfigError: E800 for a key of another length; E836 for a model that is locked already, has nothing to lock or
            more than 2 GiB of weights; E857 for one with weights that cannot be locked.
        ModelRefused: E230 to E235, for a file that is unsafe or cannot be read.
    """
    model = _model(source)
    if any(each.key == ENTRY for each in model.metadata_props):
        raise _not_lockable("a model that is locked already", "unlock it first, or lock the original")
    as_tensors(model)
    held = held_tensors(model)
    entry = _entry(held)
    if not leave_open:
        _check_open(open_tensors(model))
    if not entry.roles.strip("-"):
        raise _not_lockable("a model without weights of two elements or more", "seal it instead")
    _rewrite_all([each.tensor for each in held], entry, key, back=False)
    entry.write(model)
    return model


def unlock(source: str | Path | bytes | Any, key: bytes) -> Any:  # noqa: ANN401  onnx.ModelProto
    """A copy of a locked model with its weights in order, if the key is right; nothing tells whether it is.

    Args:
        source: path of an .onnx file, its bytes, or an onnx.ModelProto, which is left as it is.
        key: the 32 bytes that it was locked with.

    Raises:
        ArtifactRefused: E837, for a model that is not locked, or whose weights were moved or merged since.
        ConfigError: E800, E836, as `lock`.
        ModelRefused: E230 to E235, as `lock`.
    """
    model = _model(source)
    entry = lock_entry(model)
    held = [tensor for _, _, tensor, _ in stated_tensors(model)]
    if len(held) != len(entry.roles) or any(
        letter != "-" and untouchable(tensor)[0] for letter, tensor in zip(entry.roles, held, strict=True)
    ):
        raise not_unlockable(f"{len(held)} tensors where {len(entry.roles)} were locked")
    _rewrite_all(held, entry, key, back=True)
    as_lists(model)
    kept = [each for each in model.metadata_props if each.key != ENTRY]
    model.ClearField("metadata_props")
    model.metadata_props.extend(kept)
    return model


def survey(source: str | Path | bytes | Any) -> Survey:  # noqa: ANN401
    """What `lock` would do to a model, and what it would leave.

    Raises:
        ConfigError: E836, for what is no model, or one of more than 2 GiB of weights.
        ModelRefused: E230 to E235, as `lock`.
    """
    model = _model(source)
    as_tensors(model)
    held = held_tensors(model)
    left: dict[str, int] = {}
    for each in held:
        if each.role is None:
            left[each.why] = left.get(each.why, 0) + 1
        elif each.role == "kept" and _moving(each.tensor, _KEPT).size < math.prod(each.tensor.dims):
            left[_IN_PLACE] = left.get(_IN_PLACE, 0) + 1
    weak: list[WeakTensor] = []
    for group in _entry(held).groups([each.tensor for each in held]):
        tensors = [held[number].tensor for number in group.tensors]
        if group.letter == _KEPT:
            arrays = [_moving(tensor, _KEPT).astype(np.float64) for tensor in tensors]
        else:
            arrays = [moving(tensor, some) for tensor, some in zip(tensors, group.parts, strict=True)]
        bits = arrangements(np.concatenate(arrays), signs=group.letter in _FLIPPED)
        if bits < ENOUGH_BITS:
            weak.append(WeakTensor(name=held[group.tensors[0]].name, elements=sum(map(len, arrays)), bits=bits))
    locked = [each for each in held if each.role]
    return Survey(
        locked=len(locked),
        elements=sum(_moving(each.tensor, _letter(each)).size for each in locked),
        whole=sum(math.prod(each.tensor.dims) for each in held),
        weak=tuple(weak),
        left=left,
        left_open=open_tensors(model),
    )


def _letter(held: Held) -> str:
    return _LETTERS.get(held.role or "", "-")


def _entry(held: list[Held]) -> LockEntry:
    """For a new lock of a model with these tensors."""
    parts = split(held)
    roles = "".join(map(_letter, held))
    return LockEntry(roles=roles, salt=secrets.token_hex(32), joined=pools(held, parts), parts=parts)


def _rewrite_all(tensors: list[Any], entry: LockEntry, key: bytes, *, back: bool) -> None:
    """Put all tensors of a model out of order, or back."""
    groups = entry.groups(tensors)
    left = Counter(number for group in groups for number in group.tensors)
    wholes: dict[int, NDArray[Any]] = {}
    masks: dict[int, int] = {}
    for group in groups:
        for number in group.tensors:
            if number not in wholes:
                raw = bytes_of(tensors[number])
                width, masks[number] = element(tensors[number], raw)
                wholes[number] = np.frombuffer(raw, dtype=f"<u{width}").copy()
        moved = [
            (wholes[number], _moves(tensors[number], part, group.letter))
            for number, part in zip(group.tensors, group.parts, strict=True)
        ]
        mask = masks[group.tensors[0]] if group.letter in _FLIPPED else 0
        _rewrite(moved, mask, Stream(key, *group.path), back=back)
        left.subtract(group.tensors)
        # Of a tensor of many parts the bytes are written once.
        for number in dict.fromkeys(group.tensors):
            if not left[number]:
                store(tensors[number], wholes.pop(number).tobytes())


def _rewrite(
    places: list[tuple[NDArray[Any], NDArray[np.bool_] | slice]], mask: int, stream: Stream, *, back: bool
) -> None:
    """Put elements of arrays of one type, at some places of each, into the order of a stream, or back; flip a mask."""
    elements = np.concatenate([whole[some] for whole, some in places])
    order = _order(stream, elements.size)
    flips = _flips(stream, elements.size, elements.dtype, mask) if mask else None
    if back:
        new = np.empty_like(elements)
        new[order] = elements
        if flips is not None:
            new ^= flips
    else:
        new = (elements if flips is None else elements ^ flips)[order]
    at = 0
    for whole, some in places:
        count = whole[some].size
        whole[some] = new[at : at + count]
        at += count


def _moves(tensor: Any, part: NDArray[np.bool_] | None, letter: str) -> NDArray[np.bool_] | slice:  # noqa: ANN401
    """Which elements of a tensor move."""
    if letter == _KEPT:
        shared = in_a_byte(tensor)
        return ~staying(_array(tensor).reshape(-1), shared)[::shared]
    return slice(None) if part is None else part


def _array(tensor: Any) -> NDArray[Any]:  # noqa: ANN401  onnx.TensorProto
    return onnx_package().numpy_helper.to_array(tensor)


def _moving(tensor: Any, letter: str) -> NDArray[Any]:  # noqa: ANN401  onnx.TensorProto
    """The elements that change places, in order."""
    array = _array(tensor).reshape(-1)
    return array[~staying(array, in_a_byte(tensor))] if letter == _KEPT else array


def _order(stream: Stream, count: int) -> NDArray[np.int64]:
    """From where each of `count` elements is taken: the low bits of sorted words, far faster than sorting indices."""
    bits = np.uint64((1 << max(1, (count - 1).bit_length())) - 1)
    words = np.frombuffer(stream.bytes(8 * count), dtype="<u8").astype(np.uint64)
    words &= ~bits
    words |= np.arange(count, dtype=np.uint64)
    words.sort()
    words &= bits
    return words.view(np.int64)


def _flips(stream: Stream, count: int, dtype: np.dtype[Any], mask: int) -> NDArray[Any]:
    drawn = np.frombuffer(stream.bytes((count + 7) // 8), dtype=np.uint8)
    return np.unpackbits(drawn, count=count, bitorder="little").astype(dtype) * dtype.type(mask)


def _model(source: str | Path | bytes | Any) -> Any:  # noqa: ANN401
    """A model of our own: read and checked, or copied."""
    onnx = onnx_package()
    if isinstance(source, str | Path):
        return _of_one_message(read_onnx(Path(source), whole=True).model)
    if isinstance(source, bytes):
        source = parse_onnx(source, "the model")
    if not isinstance(source, onnx.ModelProto):
        raise _not_lockable(
            f"a {type(source).__name__}", "give the path of an .onnx file, its bytes or an onnx.ModelProto"
        )
    model = onnx.ModelProto()
    model.CopyFrom(source)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for _, _, tensor, _ in stated_tensors(model)):
        raise _not_lockable("a model whose weights lie in other files", "give the path of the model, not the model")
    return _of_one_message(model)


def _of_one_message(model: Any) -> Any:  # noqa: ANN401  onnx.ModelProto
    """Refuse what could not leave again, before the memory for its order is asked for."""
    size = sum(len(tensor.raw_data) for _, _, tensor, _ in stated_tensors(model))
    if size > MOST_BYTES:
        raise _not_lockable(f"{size} bytes of weights, more than the 2 GiB of one message", "lock its parts one by one")
    return model


def _not_lockable(seen: str, fix: str) -> ConfigError:
    return ConfigError("E836", seen=seen, expected="an ONNX model with weights that are not locked yet", fix=fix)


def _check_open(found: tuple[OpenTensor, ...]) -> None:
    if found:
        named = [f"{each.name[:60] or 'a tensor'} of {each.elements} elements ({each.why})" for each in found[:_NAMED]]
        more = [f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
        raise ConfigError(
            "E857",
            seen=f"weights that would stay in clear: {', '.join([*named, *more])}",
            expected="a model whose weights can all be locked",
            fix="export it with operators of ONNX's own and dense weights, or seal it; leave_open=True or --leave-open "
            "locks the rest",
        )
