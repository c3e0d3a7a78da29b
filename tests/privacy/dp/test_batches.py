"""Data as private training reads it: trees of tensors, padded pieces, and what it cannot draw from."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from vambrace.errors import ConfigError
from vambrace.privacy.dp.batches import Source, cut, flatten, moved, rebuild

CPU = torch.device("cpu")
Pair = namedtuple("Pair", "left right")
ROWS = torch.arange(10)


class Listed:
    """A data set by hand; counts what is read."""

    def __init__(self, size: int = 10) -> None:
        self.size, self.reads = size, 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> dict[str, Any]:
        self.reads += 1
        return {"x": torch.tensor([float(row)]), "y": row, "name": f"s{row}", "pair": Pair(row, [row])}


READABLE: dict[str, Any] = {
    "tensor": ROWS,
    "tuple": (ROWS, -ROWS),
    "dict": {"a": ROWS, "b": ROWS * 2},
    "tensor data set": TensorDataset(ROWS, -ROWS),
    "subset": Subset(TensorDataset(torch.arange(20)), range(10)),
    "list of pairs": [(row, -row) for row in range(10)],
    "numbers": list(range(10)),
    "own": Listed(),
}


@pytest.mark.parametrize("name", READABLE)
def test_samples_come_by_number(name: str) -> None:
    source = Source.of(READABLE[name])
    assert source.size == 10
    first = flatten(source.take([3, 1, 1]))[0]
    assert first.flatten().tolist() == [3, 1, 1]


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(range(3))


UNREADABLE: dict[str, Any] = {
    "loader": DataLoader(TensorDataset(ROWS)),
    "stream": Stream(),
    "nothing": (),
    "empty": [],
    "no samples": (torch.zeros(0, 3), torch.zeros(0)),
    "lengths differ": (ROWS, ROWS[:5]),
    "scalar": torch.tensor(1.0),
    "number": 5,
    "arrays": (np.zeros((10, 2)), np.zeros(10)),
    "half arrays": (np.zeros((10, 2)), ROWS),
    "dict of arrays": {"a": np.zeros(10)},
    "dict of lists": {"a": [1, 2], "b": [3, 4]},
    "generator": (row for row in range(3)),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_drawn_from_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="E155"):
        Source.of(UNREADABLE[name])


@given(
    count=st.integers(0, 70),
    expected=st.integers(1, 64),
    most=st.none() | st.integers(1, 40),
)
def test_pieces_hold_every_sample_once_and_padding_does_not_count(count: int, expected: int, most: int | None) -> None:
    data = torch.arange(100.0)
    indices = torch.randperm(100, generator=torch.Generator().manual_seed(count))[:count]
    seen: list[float] = []
    for part in Source.of((data, data)).parts(indices, expected, most, CPU):
        mask = torch.ones(part.count, dtype=torch.bool) if part.mask is None else part.mask
        assert all(leaf.shape == (part.count,) for leaf in flatten(part.tree))
        assert most is None or part.count <= most
        assert part.mask is None or not bool(part.mask.all())
        seen += part.tree[0][mask].tolist()
    assert seen == indices.tolist()


def test_pieces_are_read_as_they_are_asked_for_and_padding_is_read_once() -> None:
    data = Listed(100)
    parts = Source.of(data).parts(torch.arange(45), 64, 32, CPU)
    assert data.reads == 0
    assert next(parts).count == 32
    assert data.reads == 32
    last = next(parts)
    assert last.count == 14
    assert last.mask is not None
    assert int(last.mask.sum()) == 13
    assert data.reads == 45


def test_an_own_collate_is_used() -> None:
    source = Source.of([1, 2, 3], collate=lambda rows: {"x": torch.tensor(rows) * 10})
    assert source.take([2, 0])["x"].tolist() == [30, 10]


TREE = {"a": ROWS[:4], "b": [Pair(ROWS[:4] + 1, "text"), (ROWS[:4] + 2, None)], "c": OrderedDict(d=ROWS[:4] + 3)}


def test_trees_keep_their_form() -> None:
    assert [int(leaf[0]) for leaf in flatten(TREE)] == [0, 1, 2, 3]
    doubled = rebuild(TREE, [leaf * 2 for leaf in flatten(TREE)])
    assert [int(leaf[1]) for leaf in flatten(doubled)] == [2, 4, 6, 8]
    assert isinstance(doubled["b"][0], Pair)
    assert doubled["b"][0].right == "text"
    assert isinstance(doubled["b"][1], tuple)
    assert doubled["b"][1][1] is None
    assert list(doubled["c"]) == ["d"]
    assert moved(TREE, torch.device("meta"))["a"].device.type == "meta"


@pytest.mark.parametrize("most", [None, 1, 3, 100])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_callers_batch_is_shared_out_row_by_row(most: int | None, world: int) -> None:
    batch = {"x": torch.arange(10), "y": torch.arange(10) + 100}
    seen: list[int] = []
    for rank in range(world):
        for part in cut(batch, most, rank, world):
            assert part.mask is None
            assert part.count <= (most or 10)
            assert torch.equal(part.tree["y"], part.tree["x"] + 100)
            seen += part.tree["x"].tolist()
    assert sorted(seen) == list(range(10))
    assert not list(cut((torch.zeros(0),), most, 0, world))


def test_rows_of_tensors_are_copies() -> None:
    data = torch.zeros(5)
    taken: Tensor = Source.of((data,)).take([0, 1])[0]
    taken += 1
    assert not bool(data.any())
