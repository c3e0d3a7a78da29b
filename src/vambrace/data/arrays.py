"""Arrays in memory or mapped from a file, by an explicit contract: what is not certain is refused, not guessed.

Axes, where the contract's `layout` is None:

| shape | taken as |
|---|---|
| (n, d) | features, kept as they are; pictures where `size` says (h, w): see `unfolded` |
| (n, h, w), h and w both other than 1 and 3 | NHW: one channel, (n, 1, h, w) |
| (n, c, h, w), c 1 or 3, last axis neither | NCHW |
| (n, h, w, c), c 1 or 3, second axis neither | NHWC: turned to (n, c, h, w) |
| anything else, such as (n, 3, 32, 3), (n, 1, 1, 1), (n, 4, 32, 32) | refused: E308 names the flag |

Values:

| type | bounds | becomes |
|---|---|---|
| uint8 | not stated, or (0, 1) | divided by 255 |
| uint8 | (0, 255) | cast |
| uint8 that holds only 0 and 1 | not stated, or (0, 1) | refused: nearly black pixels or flags? |
| uint8 | any other | refused |
| bool | not stated, or any that contain 0 and 1 | cast |
| other integers, floats | stated | cast to float32; every value must be finite and inside |
| other integers, floats | not stated | refused |

    >>> import numpy as np
    >>> from_arrays(np.full((2, 4, 4), 51, np.uint8), [0, 1]).read([1]).inputs[0, 0, 0, 0].item()
    0.20000000298023224
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vambrace.core.contract import InputContract
from vambrace.core.options import require
from vambrace.data.batches import sample_id
from vambrace.data.images import resized
from vambrace.data.labels import check_labels, names_for_labels
from vambrace.data.loaded import Loaded, content_hashes
from vambrace.data.select import choose
from vambrace.data.values import Extent, stated_bounds
from vambrace.errors import DataRefused

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from vambrace.core.contract import Layout

__all__ = ["ArrayStore", "examined", "from_arrays", "layout_of", "plain_array", "unfolded"]

_AXES: dict[str, int] = {"NCHW": 4, "NHWC": 4, "NHW": 3}
_CHUNK_BYTES = 2**24


@dataclass(frozen=True, slots=True, eq=False)
class ArrayStore:
    """Samples along the first axis of an array, turned into the model's axis order as they are read.

    Attributes:
        array: (n, ...), numbers or booleans; may be mapped from a file.
        layout: order of its axes.
        contract: channels, size and resize are applied.
    """

    array: NDArray[Any]
    layout: Layout
    contract: InputContract

    def decode(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The samples at `positions`, uint8 or float32 (m, ...), new memory."""
        rows: NDArray[Any] = np.asarray(self.array[positions])
        if rows.dtype != np.uint8:
            with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite, and is refused as such
                rows = rows.astype(np.float32)
        if self.layout == "features":
            return rows
        if self.layout == "NHW":
            rows = rows[:, None]
        elif self.layout == "NHWC":
            rows = rows.transpose(0, 3, 1, 2)
        rows = _with_channels(rows, self.contract.channels)
        size = self.contract.size
        if size is not None and rows.shape[2:] != size:
            rows = np.stack([resized(row, size, self.contract.resize) for row in rows])
        return np.ascontiguousarray(rows)

    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one decoded sample, without reading any.

        Raises:
            DataRefused: E314 for a size, E315 for channels that the contract does not allow.
        """
        shape, contract = self.array.shape[1:], self.contract
        if self.layout == "features":
            return shape
        channels, height, width = {
            "NHW": (1, *shape),
            "NHWC": (shape[-1], *shape[:2]),
            "NCHW": shape,
        }[self.layout]
        if contract.channels is not None and channels not in (1, 3):
            raise DataRefused(
                "E315",
                seen=f"inputs with {channels} channels",
                expected=f"1 or 3, to make {contract.channels}",
                fix="leave out --channels",
            )
        if contract.size is not None and contract.size != (height, width) and contract.resize == "none":
            raise DataRefused(
                "E314",
                seen=f"inputs of {height} x {width}",
                expected=f"{contract.size[0]} x {contract.size[1]}",
                fix="correct --size, or allow a change: --resize squash or --resize center",
            )
        return (contract.channels or channels, *(contract.size or (height, width)))


def from_arrays(
    inputs: ArrayLike | torch.Tensor,
    labels: ArrayLike | torch.Tensor,
    *,
    class_names: Sequence[str] = (),
    contract: InputContract | None = None,
    name: str = "arrays",
    head: int | None = None,
    limit: int | None = None,
) -> Loaded:
    """A data set over arrays or tensors in memory, which are not copied.

    Args:
        inputs: (n, ...), see the tables of this module.
        labels: integers (n,).
        class_names: in label order; empty: those of the contract.
        contract: how the arrays are meant; None: `InputContract()`.
        name: short name for people.
        head: take only the first samples.
        limit: at most this many samples, stratified by label.

    Raises:
        DataRefused: E302, E307 to E311, E314, E315.
    """
    contract = InputContract() if contract is None else contract
    require(
        not class_names or not contract.classes or tuple(class_names) == contract.classes,
        seen=f"class_names {tuple(class_names)} beside classes {contract.classes} in the contract",
        expected="one list of classes",
        fix="give class_names or contract.classes, not both",
    )
    classes = tuple(class_names) or contract.classes
    array = plain_array(inputs, "inputs")
    numbers = check_labels(plain_array(labels, "labels"), count=len(array), classes=classes)
    return examined(array, numbers, name=name, classes=classes, contract=contract, head=head, limit=limit)


def plain_array(values: ArrayLike | torch.Tensor, what: str) -> NDArray[Any]:
    """Numbers (n, ...) as a NumPy array, shared where possible.

    Raises:
        DataRefused: E311, for what is no array of numbers.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        array: NDArray[Any] = values.resolve_conj().resolve_neg().numpy()
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise _not_numbers(what, "rows of different lengths") from error
    if array.dtype.kind in "US" and what == "labels":
        raise names_for_labels(f"labels of type {array.dtype}")
    if array.ndim == 0 or array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise _not_numbers(what, f"type {array.dtype} and shape {array.shape}")
    return array


def examined(
    array: NDArray[Any],
    labels: NDArray[np.int64],
    *,
    name: str,
    classes: tuple[str, ...],
    contract: InputContract,
    among: NDArray[np.int64] | None = None,
    head: int | None = None,
    limit: int | None = None,
) -> Loaded:
    """The data set over checked labels and an array, whose selected samples are all looked at once.

    Args:
        array: (n, ...), numbers or booleans.
        labels: (n,), from `check_labels`.
        name: short name for people.
        classes: class names; may be empty.
        contract: how the array is meant.
        among: positions that belong to the set, ascending; None: all.
        head: take only the first samples.
        limit: at most this many samples, stratified by label.
    """
    if array.ndim == 0 or not len(array):
        raise DataRefused("E302", seen=f"{name} holds 0 samples", expected="at least one", fix="check the source")
    array, stated = unfolded(array, contract)
    layout = layout_of(array.shape, stated)
    bounds = stated_bounds(array.dtype, contract.bounds)
    store = ArrayStore(array, layout, contract)
    shape = store.sample_shape()
    names = [str(index) for index in range(len(array))]
    ids = np.fromiter((sample_id(index) for index in names), np.int64, len(array))
    among = np.arange(len(array)) if among is None else among
    chosen = among[choose(labels[among], ids[among], head=head, limit=limit)]
    step = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    indices: list[int] = chosen.tolist()
    extent = Extent()
    hashes: list[str] = []
    for start in range(0, len(chosen), step):
        part = chosen[start : start + step]
        decoded = store.decode(part)
        extent.add(decoded, part, bounds)
        hashes += content_hashes(decoded, labels[part].tolist())
    return Loaded(
        name=name,
        class_names=classes,
        labels=tuple(labels[chosen].tolist()),
        ids=tuple(ids[chosen].tolist()),
        names=tuple(names[at] for at in indices),
        hashes=tuple(hashes),
        shape=shape,
        bounds=bounds,
        warnings=extent.judge(array.dtype, bounds, stated=contract.bounds is not None),
        store=store,
        positions=chosen,
    )


def unfolded(array: NDArray[Any], contract: InputContract) -> tuple[NDArray[Any], Layout | None]:
    """Flat samples (n, d) as the pictures whose size the contract states, and the layout of what comes out.

    With d = h * w they have one channel. With three times as many only the layout can say whether the values of one
    colour stand together (NCHW) or those of one pixel (NHWC). `features` keeps them flat, and so does no size.

        >>> shape = unfolded(np.zeros((5, 784)), InputContract(size=(28, 28)))[0].shape
        >>> shape
        (5, 28, 28)

    Raises:
        DataRefused: E308 where the layout is needed, E314 where d fits no picture of this size.
    """
    layout = contract.layout
    if array.ndim != 2 or contract.size is None or layout == "features":
        return array, layout
    count, values = array.shape
    height, width = contract.size
    if values == height * width:
        shapes = {"NCHW": (1, height, width), "NHWC": (height, width, 1)}
        return array.reshape(count, *shapes.get(layout or "NHW", (height, width))), layout or "NHW"
    if values == 3 * height * width:
        if layout in ("NCHW", "NHWC"):
            shape = (3, height, width) if layout == "NCHW" else (height, width, 3)
            return array.reshape(count, *shape), layout
        raise DataRefused(
            "E308",
            seen=f"flat samples of {values} values, for {height} x {width} pixels of three",
            expected="the order of the values, stated",
            fix="--layout NCHW where all values of one colour come first, --layout NHWC where those of one pixel do",
        )
    raise DataRefused(
        "E314",
        seen=f"flat samples of {values} values",
        expected=f"{height * width} for {height} x {width} pixels of one channel, or {3 * height * width} of three",
        fix="correct --size, or keep them flat: --layout features",
    )


def layout_of(shape: tuple[int, ...], layout: Layout | None) -> Layout:
    """The order of axes, stated or taken from the shape where only one is possible; see the table of this module.

        >>> layout_of((100, 28, 28), None), layout_of((100, 32, 32, 3), None)
        ('NHW', 'NHWC')

    Raises:
        DataRefused: E308.
    """
    if layout is not None:
        if len(shape) == _AXES.get(layout, len(shape)) and len(shape) > 1 and 0 not in shape[1:]:
            return layout
        raise DataRefused(
            "E308",
            seen=f"inputs of shape {shape} with layout {layout}",
            expected=f"{_AXES[layout]} axes" if layout in _AXES else "at least two axes",
            fix="correct --layout, or store the inputs in that order",
        )
    small = [size in (1, 3) for size in shape[1:]]
    if 0 not in shape[1:]:
        match small:
            case [_]:
                return "features"
            case [False, False]:
                return "NHW"
            case [True, _, False]:
                return "NCHW"
            case [False, _, True]:
                return "NHWC"
            case _:
                pass
    raise DataRefused(
        "E308",
        seen=f"inputs of shape {shape}, whose axes could mean several things",
        expected="a shape with one meaning: (n, d), (n, h, w), (n, c, h, w) or (n, h, w, c) with c 1 or 3",
        fix="state the order of the axes: --layout NCHW, NHWC, NHW or features",
    )


def _with_channels(rows: NDArray[Any], channels: int | None) -> NDArray[Any]:
    """Rows (m, 1 or 3, h, w) with `channels` channels; three become one by ITU-R 601 luma, as Pillow rounds it."""
    if channels is None or rows.shape[1] == channels:
        return rows
    if channels == 3:
        return np.repeat(rows, 3, axis=1)
    if rows.dtype == np.uint8:
        red, green, blue = (rows[:, at].astype(np.uint32) for at in range(3))
        return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)[:, None]
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.einsum("nchw,c->nhw", rows, weights, dtype=np.float32)[:, None]


def _not_numbers(what: str, seen: str) -> DataRefused:
    return DataRefused(
        "E311",
        seen=f"{what} of {seen}",
        expected="an array of integers, booleans or floats of at most 64 bits",
        fix="convert it to a plain array, such as float32 or uint8",
    )
