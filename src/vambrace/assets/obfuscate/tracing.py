"""Whose copy is it? Choices that were drawn for one customer are looked for in a model that turned up somewhere.

Names do not matter, nor the order of nodes and weights. What is compared are the largest magnitudes of channels
(scaling), and arrangements of channels (permutation, decoys). For each candidate the chance is computed that a copy
made for anybody else, with independent choices, agrees as well: a channel's factor is one of `reach + 1` with equal
chance and an order of n is one of n!. So the chance is at most a binomial tail and 1/n!, times the number of ways in
which arrays of the leaked model could be taken for those of the candidate, times the number of candidates.

What removes the marks: rescaling every channel to a normal form and folding gathers and branches away. Fine-tuning that
moves the largest weight of a channel by less than a sixth leaves scaling readable; fusing a batch normalisation into
its convolution does too. A lock by a key hides scales until it is undone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import numpy as np

from vambrace.assets.obfuscate.locks import lock_of, not_traced
from vambrace.assets.obfuscate.net import Net, as_proto
from vambrace.assets.obfuscate.record import check_map
from vambrace.errors import ArtifactRefused, ConfigError
from vambrace.models.external import external_tensors, inline, map_files
from vambrace.models.onnx_file import file_bytes, parse_onnx

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.record import ObfuscationMap

__all__ = ["Match", "SURE", "arrangement_mark", "scale_mark", "trace"]

SURE = -6.0
"""The most that `Match.log10_chance` may be where a copy is named: one in a million."""

_STEPS = 16
"""Steps of an octave in which magnitudes are written down."""
_NEAR = 4
_NOTHING = -1100
_MOST = 2**62
"""Beyond all sizes and numbers of a mark."""
_DIGITS = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How well a model agrees with the copy of one customer.

    Attributes:
        customer: from the map; None where it has none.
        scaled: channels whose magnitude agrees.
        channels: channels that were compared.
        arranged: arrangements that were found.
        arrangements: arrangements that were looked for.
        log10_chance: ten to this power bounds the chance that the copy of somebody else agrees as well with any of the
            candidates; 0 at most.
    """

    customer: str | None
    scaled: int
    channels: int
    arranged: int
    arrangements: int
    log10_chance: float


def scale_mark(weights: NDArray[Any], axis: int, rows: NDArray[np.int64], reach: int) -> dict[str, Any]:
    """What is written into a map about channels whose factors are 2**0 to 2**-reach.

    Args:
        weights: as they are in the copy.
        axis: of the channels.
        rows: the channels; no two share a factor, in this mark or another one.
        reach: as above.
    """
    peaks = _peaks(weights, axis)[rows]
    return {
        "kind": "scale",
        "shape": list(weights.shape),
        "axis": axis,
        "rows": rows.tolist(),
        "peaks": np.rint(peaks * _STEPS).astype(np.int64).tolist(),
        "reach": reach,
    }


def arrangement_mark(array: NDArray[Any], blocks: list[int]) -> dict[str, Any]:
    """What is written into a map about an array whose channels were arranged inside blocks of these sizes."""
    return {"kind": "arrangement", "digest": _digest(array), "blocks": blocks}


def trace(model: str | Path | bytes | Any, candidates: Iterable[ObfuscationMap]) -> list[Match]:  # noqa: ANN401
    """Compare a model with the maps of copies, the best match first.

    Args:
        model: path, bytes or onnx.ModelProto of what turned up.
        candidates: maps of the copies that it may be.

    Raises:
        ConfigError: E805, for no candidates; E801, for what is no ONNX model with its weights.
        ArtifactRefused: E803, for what is no map, or one with a mark that cannot be read.
        ModelRefused: E200, E230 to E234, for a file that is unsafe or cannot be read; E855, for a locked model in which
            no copy shows: `obfuscate.unlock` it first.
    """
    maps = list(candidates)
    if not maps:
        raise ConfigError(
            "E805",
            seen="no candidates",
            expected="the obfuscation maps of the copies that were given away",
            fix="open the sealed maps; with the owner's key and the original they can also be made again",
        )
    for one in maps:
        check_map(one)
    for mark in (mark for one in maps for entry in one.passes for mark in entry.marks):
        if not _readable(mark):
            raise ArtifactRefused(
                "E803",
                seen=f"an obfuscation map with a mark that cannot be read ({str(mark)[:120]})",
                expected="marks as obfuscation writes them",
                fix="open the sealed map again, and give it as it was written",
            )
    net = _opened(model)
    arrays = [array for graph in net.graphs() for array in graph.constants().values() if array.ndim]
    digests = {_digest(array) for array in arrays}
    shapes: dict[tuple[int, ...], list[NDArray[Any]]] = {}
    for array in arrays:
        if array.ndim > 1 and array.dtype.kind == "f":
            shapes.setdefault(array.shape, []).append(array)
    found = sorted(
        (_match(one, shapes, digests, len(arrays), len(maps)) for one in maps), key=lambda match: match.log10_chance
    )
    # Arrangements may show in a locked model. Nor is an entry alone a lock: whoever leaks a copy can add one.
    if found[0].log10_chance > SURE and (lock := lock_of(net.extra)) is not None:
        raise not_traced(lock)
    return found


def _readable(mark: Any) -> bool:  # noqa: ANN401  JSON, by whoever edited it
    """Whether a mark has the fields of its kind, and they fit each other."""
    if not isinstance(mark, dict):
        return False
    one = cast("dict[str, Any]", mark)
    if one.get("kind") == "arrangement":
        digest = one.get("digest")
        return isinstance(digest, str) and len(digest) == _DIGITS and _wholes(one.get("blocks"), 0, _MOST)
    shape, axis, rows, peaks = (one.get(name) for name in ("shape", "axis", "rows", "peaks"))
    return (
        one.get("kind") == "scale"
        and _wholes(shape, 0, _MOST)
        and len(shape) > 1
        and isinstance(axis, int)
        and 0 <= axis < len(shape)
        and _wholes(rows, 0, shape[axis] - 1)
        and _wholes(peaks, -_MOST, _MOST)
        and len(rows) == len(peaks)
        and _wholes([one.get("reach")], 0, _MOST)
    )


def _wholes(numbers: Any, low: int, high: int) -> TypeGuard[list[int]]:  # noqa: ANN401  as above
    return isinstance(numbers, list) and all(
        isinstance(each, int) and low <= each <= high for each in cast("list[Any]", numbers)
    )


def _opened(model: str | Path | bytes | Any) -> Net:  # noqa: ANN401
    """Nothing is run, so operators of others are no danger here."""
    if not isinstance(model, str | Path):
        return Net(as_proto(model), foreign=True)
    path = Path(model)
    read = parse_onnx(file_bytes(path), path.name)
    tensors = external_tensors(read, path.name)
    inline(read, tensors, map_files(tensors, path.parent, path.name), whole=True)
    return Net(read, path.name, foreign=True)


def _match(
    one: ObfuscationMap,
    shapes: Mapping[tuple[int, ...], list[NDArray[Any]]],
    digests: set[str],
    arrays: int,
    candidates: int,
) -> Match:
    marks = [mark for entry in one.passes for mark in entry.marks]
    scaled = channels = found = total = 0
    log, ways_log = math.log(candidates), 0.0
    chance = 0.0
    for mark in marks:
        if mark["kind"] == "arrangement":
            total += 1
            # Which of them are found is not known beforehand: a factor of two for each.
            log += math.log(2.0)
            if mark["digest"] in digests:
                found += 1
                log += min(0.0, math.log(arrays) - sum(math.lgamma(size + 1) for size in mark["blocks"]))
            continue
        agree, compared, ways = _agreeing(mark, shapes)
        # Few channels among many arrays of their shape tell nothing, however many of them agree.
        if ways and compared * math.log(mark["reach"] + 1) > math.log(ways):
            scaled, channels = scaled + agree, channels + compared
            ways_log += math.log(ways)
            chance = max(chance, 1.0 / (mark["reach"] + 1))
    if channels:  # with the scales or by arrangements alone, whichever tells more: a factor of two for the choice
        log += math.log(2.0) + min(0.0, ways_log + _log_tail(scaled, channels, chance))
    return Match(
        customer=one.customer,
        scaled=scaled,
        channels=channels,
        arranged=found,
        arrangements=total,
        log10_chance=min(0.0, log) / math.log(10.0),
    )


def _log_tail(found: int, total: int, chance: float) -> float:
    """Bound of the logarithm of P(X >= found), X binomial: Hoeffding, JASA 1963, theorem 1 (2.1)."""
    share = found / total
    if share <= chance:
        return 0.0
    above = share * math.log(share / chance)
    below = (1 - share) * math.log((1 - share) / (1 - chance)) if share < 1 else 0.0
    return -total * (above + below)


def _agreeing(mark: Mapping[str, Any], shapes: Mapping[tuple[int, ...], list[NDArray[Any]]]) -> tuple[int, int, int]:
    """The most channels that agree with any array of the right shape, of how many, and how many arrays were tried."""
    shape, axis = tuple(mark["shape"]), int(mark["axis"])
    tried = [(array, axis) for array in shapes.get(shape, [])]
    if len(shape) == 2:
        tried += [(array, 1 - axis) for array in shapes.get(shape[::-1], [])]
    wanted, rows = np.array(mark["peaks"], np.int64), np.array(mark["rows"], np.int64)
    # Older maps name channels of zeros as well, in which all copies agree.
    wanted, rows = wanted[wanted > _NOTHING * _STEPS], rows[wanted > _NOTHING * _STEPS]
    agree = [int(np.sum(np.abs(_peaks(array, at)[rows] * _STEPS - wanted) <= _NEAR)) for array, at in tried]
    return max(agree, default=0), len(rows), len(tried)


def _peaks(weights: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """The binary logarithm of the largest magnitude in each channel; `_NOTHING` where all is zero."""
    others = tuple(place for place in range(weights.ndim) if place != axis)
    peaks = np.max(np.abs(weights.astype(np.float64)), axis=others, initial=0.0)
    return np.where(peaks > 0, np.log2(np.maximum(peaks, 5e-324)), float(_NOTHING))


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()
