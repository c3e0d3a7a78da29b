from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.hostile.samples import put
from vambrace import data
from vambrace.core.contract import InputContract
from vambrace.data.factory import is_reference
from vambrace.errors import ConfigError, DataRefused

SETS = """
import random, sys
import numpy as np, torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 3, 6, 6), dtype=np.uint8)
LABELS = np.arange(20) % 4

def arrays(): return PIXELS, LABELS
def tensors(): return [torch.from_numpy(PIXELS).float() / 255, torch.from_numpy(LABELS)]
def tensor_dataset(): return TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(LABELS))

class Lazy(Dataset):
    classes = ["a", "b", "c", "d"]
    reads = []
    def __len__(self): return 20
    def __getitem__(self, at):
        self.reads.append(at)
        return torch.from_numpy(PIXELS[at]), int(LABELS[at])

class WithTargets(Lazy):
    targets = LABELS.tolist()

class WrongTargets(Lazy):
    targets = [0] * 20

class Augmented(Lazy):
    def __getitem__(self, at):
        return torch.from_numpy(PIXELS[at]).float() / 255 * random.random(), int(LABELS[at])

class TensorLabels(Lazy):
    def __getitem__(self, at): return PIXELS[at], torch.tensor([LABELS[at]])

class Pictures(Lazy):
    def __getitem__(self, at):
        from PIL import Image
        return Image.fromarray(PIXELS[at].transpose(1, 2, 0)), int(LABELS[at])

class Growing(Lazy):
    def __getitem__(self, at): return PIXELS[at][:, : 4 + at % 2], int(LABELS[at])

class Triple(Lazy):
    def __getitem__(self, at): return PIXELS[at], int(LABELS[at]), at

class FloatLabels(Lazy):
    def __getitem__(self, at): return PIXELS[at], 0.5

class Breaks(Lazy):
    def __getitem__(self, at):
        if at == 7: raise KeyError("no such picture")
        return super().__getitem__(at)

class Endless(IterableDataset):
    def __iter__(self): return iter([])

def lazy(): return Lazy()
def with_targets(): return WithTargets()
def wrong_targets(): return WrongTargets()
def augmented(): return Augmented()
def tensor_labels(): return TensorLabels()
def pictures(): return Pictures()
def growing(): return Growing()
def triple(): return Triple()
def float_labels(): return FloatLabels()
def breaks(): return Breaks()
def endless(): return Endless()
def raises(): raise ValueError("first line\\nsecond line")
def exits(): sys.exit(0)
def text(): return "words"
def needs_argument(size): return arrays()
def imports_late():
    import vambrace_test_sets.late
    return vambrace_test_sets.late.arrays()
"""


@pytest.fixture
def base(tmp_path: Path) -> Any:
    put(tmp_path / "vambrace_test_sets" / "__init__.py", b"")
    put(tmp_path / "vambrace_test_sets" / "mine.py", SETS.encode())
    put(tmp_path / "vambrace_test_sets" / "late.py", b"from vambrace_test_sets.mine import arrays\n")
    put(tmp_path / "vambrace_test_sets" / "broken.py", b"def f(:\n")
    path = list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in [name for name in sys.modules if name.startswith("vambrace_test_sets")]:
        del sys.modules[name]


def load(base: Path, name: str, **options: Any) -> data.Loaded:
    options = {"trust_code": ("vambrace_test_sets",), **options}
    return data.load(f"vambrace_test_sets.mine:{name}", base=base, **options)


def module() -> Any:
    return sys.modules["vambrace_test_sets.mine"]


@pytest.mark.parametrize("name", ["arrays", "tensor_dataset", "lazy", "with_targets", "tensor_labels", "imports_late"])
def test_everything_gives_the_same_samples(name: str, base: Path) -> None:
    out = load(base, name)
    assert out.name == f"vambrace_test_sets.mine:{name}"
    assert out.labels == tuple(at % 4 for at in range(20))
    assert out.names == tuple(str(at) for at in range(20))
    batch = out.read([3, 19])
    assert batch.inputs.equal(torch.from_numpy(module().PIXELS[[3, 19]]).float() / 255)
    assert batch.hashes == data.from_arrays(module().PIXELS, module().LABELS).read([3, 19]).hashes


def test_floats_need_bounds(base: Path) -> None:
    with pytest.raises(DataRefused, match="E309"):
        load(base, "tensors")
    out = load(base, "tensors", contract=InputContract(bounds=(0, 1)))
    assert out.read([0]).inputs.equal(torch.from_numpy(module().PIXELS[:1]).float() / 255)


@pytest.mark.parametrize("name", ["arrays", "lazy", "with_targets"])
def test_selection(name: str, base: Path) -> None:
    out = load(base, name, limit=8)
    assert out.counts == (2, 2, 2, 2)
    assert out.ids == tuple(data.sample_id(at) for at in out.names)
    assert load(base, name, head=6).names == tuple("012345")
    assert set(load(base, name, limit=4).ids) < set(out.ids)
    with pytest.raises(ConfigError, match="E103"):
        load(base, name, limit=0)


def test_targets_spare_reading_what_is_not_taken(base: Path) -> None:
    out = load(base, "with_targets", limit=4)
    assert sorted(set(module().Lazy.reads)) == sorted(int(name) for name in out.names)


def test_classes_are_taken_over(base: Path) -> None:
    assert load(base, "lazy").class_names == ("a", "b", "c", "d")
    stated = InputContract(classes=("w", "x", "y", "z"))
    assert load(base, "lazy", contract=stated).class_names == ("w", "x", "y", "z")
    with pytest.raises(DataRefused, match="E307"):
        load(base, "lazy", contract=InputContract(classes=("w", "x")))


def test_resize_evens_out_a_dataset(base: Path) -> None:
    with pytest.raises(DataRefused, match="E314"):
        load(base, "growing", contract=InputContract(layout="NCHW"))
    contract = InputContract(layout="NCHW", size=(4, 4), resize="squash")
    assert load(base, "growing", contract=contract).read([0, 1]).inputs.shape == (2, 3, 4, 4)


def test_a_dataset_in_memory() -> None:
    inputs, labels = torch.rand(6, 1, 4, 4), torch.arange(6) % 3
    dataset = torch.utils.data.TensorDataset(inputs, labels)
    out = data.from_dataset(dataset, contract=InputContract(bounds=(0, 1)), limit=3)
    assert (out.name, out.counts, out.shape) == ("dataset", (1, 1, 1), (1, 4, 4))
    assert out.read([2]).inputs.equal(inputs[int(out.names[2])][None])


def test_augmentation_is_found_out(base: Path) -> None:
    out = load(base, "augmented", contract=InputContract(bounds=(0, 1)))
    with pytest.raises(DataRefused, match="E320.*random augmentation"):
        out.read([0])


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("wrong_targets", "E307", "sample 1 comes with label 1, and was announced with 0"),
        ("pictures", "E332", "item 0 of vambrace_test_sets.mine:pictures is (Image, int)"),
        ("triple", "E332", "is a tuple"),
        ("float_labels", "E332", "(ndarray, float)"),
        ("breaks", "E331", "raised KeyError: 'no such picture'"),
        ("endless", "E332", "returned a Endless"),
        ("raises", "E331", "raised ValueError: first line; expected"),
        ("exits", "E331", "raised SystemExit: 0"),
        ("text", "E332", "returned a str"),
        ("needs_argument", "E331", "raised TypeError"),
        ("missing", "E331", "raised AttributeError"),
    ],
)
def test_what_goes_wrong_is_explained(name: str, code: str, says: str, base: Path) -> None:
    with pytest.raises(DataRefused) as caught:
        load(base, name)
    assert caught.value.code == code
    assert says in str(caught.value)


def test_modules_that_do_not_import(base: Path) -> None:
    for module_name, says in (("broken", "SyntaxError"), ("gone", "ModuleNotFoundError")):
        with pytest.raises(DataRefused, match=f"E331.*{says}"):
            data.load(f"vambrace_test_sets.{module_name}:f", base=base, trust_code=("vambrace_test_sets",))


@pytest.mark.parametrize(
    ("trusted", "runs"),
    [
        (("vambrace_test_sets",), True),
        (("vambrace_test_sets.mine",), True),
        (("other", "vambrace_test_sets"), True),
        ((), False),
        (("vambrace_test",), False),
        (("vambrace_test_sets.late",), False),
        (("vambrace_test_sets.mine.deeper",), False),
        (("",), False),
    ],
)
def test_only_trusted_roots_run(trusted: tuple[str, ...], runs: bool, base: Path) -> None:
    if runs:
        assert len(load(base, "arrays", trust_code=trusted)) == 20
    else:
        with pytest.raises(DataRefused, match="E330"):
            load(base, "arrays", trust_code=trusted)
        assert "vambrace_test_sets" not in sys.modules  # refused before the import, not after


@pytest.mark.parametrize("loaded", [False, True])
def test_two_folders_of_code_do_not_mix(
    loaded: bool, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan's folder comes first; where a module of that name is loaded already, nothing is guessed."""
    elsewhere = tmp_path / "elsewhere"
    put(elsewhere / "vambrace_test_sets" / "__init__.py", b"")
    put(elsewhere / "vambrace_test_sets" / "mine.py", b"def arrays(): return None\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    if loaded:
        importlib.import_module("vambrace_test_sets.mine")
        with pytest.raises(DataRefused, match="E331.*is loaded already"):
            load(base, "arrays")
    else:
        assert len(load(base, "arrays")) == 20
    monkeypatch.undo()


def test_a_plain_module_and_a_second_call(tmp_path: Path) -> None:
    put(tmp_path / "vambrace_test_sets.py", b"def arrays(): return [[1.0], [2.0]], [0, 1]\n")
    try:
        for _ in range(2):
            out = data.load(
                "vambrace_test_sets:arrays",
                base=tmp_path,
                trust_code=("vambrace_test_sets",),
                contract=InputContract(bounds=(0, 2)),
            )
            assert out.read([1]).inputs.tolist() == [[2.0]]
    finally:
        del sys.modules["vambrace_test_sets"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:b", True),
        ("a.b.c:d_1", True),
        ("a", False),
        ("a:", False),
        (":b", False),
        ("a.:b", False),
        ("a:b:c", False),
        ("a-b:c", False),
        ("./a:b", False),
        ("a:b.c", False),
    ],
)
def test_is_reference(text: str, expected: bool) -> None:
    assert is_reference(text) is expected


def test_a_path_wins_over_a_reference(base: Path) -> None:
    put(base / "a:b", b"")
    with pytest.raises(DataRefused, match="E301: a:b is an empty file"):
        data.load("a:b", base=base)


def test_labels_beside_a_factory(base: Path) -> None:
    with pytest.raises(DataRefused, match="E306"):
        load(base, "arrays", labels="y.npy")


def test_arrays_may_live_anywhere_in_memory(base: Path) -> None:
    assert np.shares_memory(load(base, "arrays").store.array, module().PIXELS)
