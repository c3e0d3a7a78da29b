"""Data from the user's own code: "pkg.mod:fn" returns (inputs, labels) or a torch `Dataset` of such pairs.

Only code under the roots that the plan trusts is imported, and from the plan's folder where it lies there (see
`vambrace.core.trusted`). A `Dataset` stays lazy: it is read item by item on loading and again at every read, and what
it returns must not change in between.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import math
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.utils.data import TensorDataset

from vambrace.core.contract import InputContract
from vambrace.core.progress import Progress, silent
from vambrace.core.trusted import importable, is_trusted
from vambrace.data.arrays import ArrayStore, examined, layout_of, plain_array
from vambrace.data.batches import sample_id
from vambrace.data.labels import check_labels
from vambrace.data.loaded import Loaded, content_hashes
from vambrace.data.select import check_amounts, choose
from vambrace.data.values import Extent, stated_bounds
from vambrace.errors import DataRefused

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["DatasetStore", "from_dataset", "is_reference", "load_factory"]


def is_reference(source: str) -> bool:
    """Whether a source reads "pkg.mod:fn".

    >>> is_reference("mine.sets:test"), is_reference("val/"), is_reference("C:/val")
    (True, False, False)
    """
    module, separator, name = source.partition(":")
    return bool(separator) and all(part.isidentifier() for part in [*module.split("."), name])


def load_factory(
    reference: str,
    *,
    trust_code: Sequence[str],
    base: Path,
    contract: InputContract,
    head: int | None = None,
    limit: int | None = None,
    progress: Progress = silent,
) -> Loaded:
    """Call "pkg.mod:fn" without arguments and take what it returns as data.

    Args:
        reference: module and function.
        trust_code: dotted names of trusted modules.
        base: folder of the plan.
        contract: how arrays are meant.
        head: take only the first samples.
        limit: at most this many samples, stratified by label.
        progress: told while a `Dataset` is read.

    Raises:
        DataRefused: E330 outside the trusted roots, E331 where the code fails, E332 for another result.
    """
    module, _, name = reference.partition(":")
    if not is_trusted(module, trust_code):
        raise DataRefused(
            "E330",
            seen=f"the factory {reference}",
            expected=f"code under a trusted root ({', '.join(trust_code) or 'none is named'})",
            fix=f'if this code is your own, add "{module.split(".")[0]}" to code in [trust]',
        )
    with importable(base, trust_code):
        with _explained(reference):
            _check_not_another(reference, base)
            made: Any = getattr(importlib.import_module(module), name)()
        returned = type(made).__name__
        if isinstance(made, TensorDataset) and len(made.tensors) == 2:
            made = made.tensors
        if (pair := _two(made)) is not None:
            inputs, labels = pair
            array = plain_array(inputs, "inputs")
            classes = contract.classes
            numbers = check_labels(plain_array(labels, "labels"), count=len(array), classes=classes)
            return examined(array, numbers, name=reference, classes=classes, contract=contract, head=head, limit=limit)
        if hasattr(made, "__getitem__") and hasattr(made, "__len__") and not isinstance(made, str | bytes | dict):
            return from_dataset(made, name=reference, contract=contract, head=head, limit=limit, progress=progress)
    raise DataRefused(
        "E332",
        seen=f"{reference} returned a {returned}",
        expected="(inputs, labels), or a torch Dataset with a length",
        fix="return tensors or arrays of all samples, or a map-style Dataset",
    )


@dataclass(frozen=True, slots=True, eq=False)
class DatasetStore:
    """Items of a `Dataset`, decoded by the rules for arrays.

    Attributes:
        dataset: what is indexed.
        contract: how its inputs are meant.
        name: for messages.
    """

    dataset: Any
    contract: InputContract
    name: str

    def decode(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The inputs at `positions`, uint8 or float32 (m, ...)."""
        return self.items(positions)[0]

    def items(self, positions: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any], np.dtype[Any]]:
        """Decoded inputs, labels as they come, and the stored type of the inputs."""
        with _explained(self.name):
            pairs = [_pair(self.dataset[int(at)], int(at), self.name) for at in positions]
        rows: list[NDArray[Any]] = []
        dtype = np.dtype(np.float32)
        for inputs, _ in pairs:
            row = plain_array(inputs, f"inputs of {self.name}")[None]
            store = ArrayStore(row, layout_of(row.shape, self.contract.layout), self.contract)
            store.sample_shape()
            rows.append(store.decode(np.array([0]))[0])
            dtype = row.dtype
        if len({row.shape for row in rows}) > 1:
            raise _shapes(self.name, rows)
        return np.stack(rows), np.asarray([label for _, label in pairs], np.int64), dtype


def from_dataset(
    dataset: Any,  # noqa: ANN401  torch's Dataset does not declare the length that is needed here
    *,
    name: str = "dataset",
    contract: InputContract | None = None,
    head: int | None = None,
    limit: int | None = None,
    progress: Progress = silent,
) -> Loaded:
    """A data set over a map-style `Dataset` of (tensor or array, integer) pairs, which stays lazy.

    Args:
        dataset: has a length and gives the same pair at every read. Its `classes` are the class names where the
            contract states none; its `targets` spare a pass over all items to learn the labels.
        name: short name for people.
        contract: how inputs are meant, by the rules for arrays; None: `InputContract()`.
        head: take only the first samples.
        limit: at most this many samples, stratified by label.
        progress: told while items are read.

    Raises:
        DataRefused: E302, E307 to E311, E314, E315, E320, E331, E332.
    """
    check_amounts(head, limit)
    contract = InputContract() if contract is None else contract
    store = DatasetStore(dataset, contract, name)
    with _explained(name):
        count = len(dataset) if head is None else min(head, len(dataset))
        targets: object = getattr(dataset, "targets", None)
        offered = getattr(dataset, "classes", ())
    classes = contract.classes or (tuple(offered) if _is_names(offered) else ())
    if not count:
        raise DataRefused("E302", seen=f"{name} holds 0 samples", expected="at least one", fix="check the factory")
    if targets is None or len(cast("Sequence[object]", targets)) != len(dataset):
        raw = [store.items(np.array([at]))[1] for at in range(count)]
        labels = check_labels(np.concatenate(raw), count=count, classes=classes)
    else:
        labels = check_labels(plain_array(cast("Any", targets), "targets")[:count], count=count, classes=classes)
    names = [str(index) for index in range(count)]
    ids = np.fromiter((sample_id(index) for index in names), np.int64, count)
    chosen = choose(labels, ids, head=None, limit=limit)
    extent, hashes = Extent(), list[str]()
    decoded, dtype, bounds = np.empty(0), np.dtype(np.float32), (0.0, 1.0)
    first: NDArray[Any] | None = None
    progress.start("load", len(chosen))
    indices: list[int] = chosen.tolist()
    for at in indices:
        decoded, label, dtype = store.items(np.array([at]))
        if label[0] != labels[at]:
            raise DataRefused(
                "E307",
                seen=f"sample {at} comes with label {label[0]}, and was announced with {labels[at]}",
                expected="the same label at every read and in `targets`",
                fix="correct the Dataset",
            )
        first = decoded if first is None else first
        if decoded.shape != first.shape:
            raise _shapes(name, [first[0], decoded[0]])
        bounds = stated_bounds(dtype, contract.bounds)
        extent.add(decoded, np.array([at]), bounds)
        hashes += content_hashes(decoded, label.tolist())
        progress.advance("load")
    progress.finish("load")
    return Loaded(
        name=name,
        class_names=classes,
        labels=tuple(labels[chosen].tolist()),
        ids=tuple(ids[chosen].tolist()),
        names=tuple(names[at] for at in indices),
        hashes=tuple(hashes),
        shape=decoded.shape[1:],
        bounds=bounds,
        warnings=extent.judge(dtype, bounds, stated=contract.bounds is not None),
        store=store,
        positions=chosen,
    )


def _shapes(name: str, rows: Sequence[NDArray[Any]]) -> DataRefused:
    return DataRefused(
        "E314",
        seen=f"samples of {name} with the shapes {sorted({row.shape for row in rows})[:3]}",
        expected="one shape",
        fix="resize in the Dataset, or state --size and --resize",
    )


def _pair(item: object, at: int, name: str) -> tuple[Any, int]:
    """The input and the label of one item."""
    seen = f"a {type(item).__name__}"
    if (pair := _two(item)) is not None:
        inputs, label = pair
        number = _whole(label)
        if number is not None and isinstance(inputs, (torch.Tensor, np.ndarray)):
            return cast("Any", inputs), number
        seen = f"({type(cast('object', inputs)).__name__}, {type(label).__name__})"
    raise DataRefused(
        "E332",
        seen=f"item {at} of {name} is {seen}",
        expected="(tensor or array, integer)",
        fix="turn pictures into tensors in the Dataset, such as by torchvision's ToTensor",
    )


def _whole(label: Any) -> int | None:  # noqa: ANN401  whatever a user's Dataset returns
    """An integer, or a tensor or array that holds just one."""
    if hasattr(label, "item") and math.prod(getattr(label, "shape", ())) == 1:
        label = label.item()
    return label if isinstance(label, int) else None


def _two(made: object) -> tuple[Any, Any] | None:
    """The two parts of a tuple or list of two."""
    if not isinstance(made, tuple | list):
        return None
    parts = tuple(cast("Sequence[Any]", made))
    return (parts[0], parts[1]) if len(parts) == 2 else None


def _is_names(offered: object) -> bool:
    return isinstance(offered, list | tuple) and all(
        isinstance(name, str) for name in cast("Sequence[object]", offered)
    )


def _check_not_another(reference: str, base: Path) -> None:
    """Refuse a module of the plan's folder while another of the same name is loaded: Python would take that one."""
    root = reference.partition(":")[0].partition(".")[0]
    loaded = getattr(sys.modules.get(root), "__spec__", None)
    here = importlib.machinery.PathFinder.find_spec(root, [str(base)])
    if loaded is None or here is None:
        return
    places = [
        {os.path.realpath(at) for at in (spec.origin, *(spec.submodule_search_locations or ())) if at}
        for spec in (loaded, here)
    ]
    if not places[0] & places[1]:
        raise DataRefused(
            "E331",
            seen=f"{reference}, and another module called {root} that is loaded already",
            expected=f"{root} from the plan's folder",
            fix=f"give your module a name of its own instead of {root}",
        )


@contextmanager
def _explained(name: str) -> Generator[None]:
    """Whatever the user's code raises becomes E331."""
    try:
        yield
    except DataRefused:
        raise
    except (Exception, SystemExit) as error:
        line = (str(error).splitlines() or [""])[0][:200]
        raise DataRefused(
            "E331",
            seen=f"{name} raised {type(error).__name__}: {line}",
            expected="code that gives the data",
            fix="call it in Python and correct it; modules are looked for in the plan's folder first",
        ) from error
