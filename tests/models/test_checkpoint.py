import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vambrace.errors import ModelRefused
from vambrace.models import checkpoint as module
from vambrace.models.checkpoint import read_checkpoint, refusal, scan_checkpoint
from vambrace.models.formats import identify
from vambrace.models.pickles import Scan

STATE = {"w": torch.arange(4.0), "b": torch.zeros(2, dtype=torch.int64)}


class Calls:
    def __reduce__(self) -> object:
        return os.getcwd, ()


def saved(value: object, **options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def rebuilt(change, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The checkpoint of STATE with its members changed by `change(dictionary of names and bytes)`."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(STATE))) as source:
        members = {name: source.read(name) for name in source.namelist()}
    change(members)
    with zipfile.ZipFile(made, "w", compression) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return made.getvalue()


def read(path: Path, data: bytes) -> object:
    path.write_bytes(data)
    return read_checkpoint(path, identify(path))


def refused(path: Path, data: bytes) -> ModelRefused:
    with pytest.raises(ModelRefused) as caught:
        read(path, data)
    return caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.pt"


@pytest.mark.parametrize(
    "data", [saved(STATE), saved(STATE, _use_new_zipfile_serialization=False), rebuilt(lambda _: None)]
)
def test_state_dicts_are_read(path: Path, data: bytes) -> None:
    found = read(path, data)
    assert all(torch.equal(found[name], value) for name, value in STATE.items())
    assert scan_checkpoint(path, identify(path)).foreign == ()


def root(members: dict[str, bytes]) -> str:
    return next(iter(members)).partition("/")[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.update({f"{root(members)}/notes.txt": b"hello"}),
        lambda members: members.update({f"{root(members)}/data/x": b""}),
        lambda members: members.update({f"{root(members)}/../data/3": b""}),
        lambda members: members.update({"other/data/3": b""}),
        lambda members: members.update({"loose": b""}),
        lambda members: members.update({f"{root(members)}/more.pkl": pickle.dumps({"a": 1})}),
    ],
)
def test_members_that_torch_does_not_write(path: Path, change) -> None:
    assert refused(path, rebuilt(change)).code == "E216"


def test_compressed_members(path: Path) -> None:
    error = refused(path, rebuilt(lambda _: None, zipfile.ZIP_DEFLATED))
    assert (error.code, "compressed" in error.seen) == ("E216", True)


def test_a_second_pickle_is_named(path: Path) -> None:
    for body in (pickle.dumps(Calls()), pickle.dumps(Calls())[:-1]):
        error = refused(path, rebuilt(lambda members, body=body: members.update({f"{root(members)}/x.pkl": body})))
        assert error.code == "E210"
        assert f"{os.name}.getcwd" in error.seen


def test_a_pickle_too_large_to_check(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_PICKLE", 10)
    assert "a pickle of" in refused(path, saved(STATE)).seen


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        ({"x": Calls()}, "E210", "would call"),
        (nn.Sequential(nn.Linear(1, 1)), "E211", "a whole network"),
        ({"config": Path("x")}, "E211", "objects (of pathlib."),
    ],
)
def test_more_than_tensors(path: Path, value: object, code: str, said: str, old: bool) -> None:
    error = refused(path, saved(value, _use_new_zipfile_serialization=not old))
    assert error.code == code
    assert said in error.seen


def test_broken_pickles(path: Path) -> None:
    def cut(by: bytes):
        def change(members: dict[str, bytes]) -> None:
            members[next(name for name in members if name.endswith("data.pkl"))] = by

        return change

    assert refused(path, rebuilt(cut(pickle.dumps(Calls())[:-1]))).code == "E210"
    assert refused(path, rebuilt(cut(b"\x80\x02]"))).code == "E217"
    assert refused(path, rebuilt(cut(b"\x80\x02}q\x00."[:2] + b"h\x63."))).code == "E217"
    assert refused(path, saved(STATE, _use_new_zipfile_serialization=False)[:40]).code == "E217"


def test_the_oldest_format(path: Path) -> None:
    error = refused(path, b"sys_info".ljust(1024, b"\0"))
    assert error.code == "E217"
    assert "0.1.10" in error.seen


def test_many_names_are_cut_short(path: Path) -> None:
    error = refusal(path, Scan(names=tuple(f"os.f{number}" for number in range(9))))
    assert error is not None
    assert "os.f0, os.f1, os.f2 and 6 more" in error.seen
    assert refusal(path, Scan(names=("torch.FloatStorage",))) is None


@given(st.data())
def test_damaged_checkpoints_are_refused_or_hold_tensors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    place = tmp_path_factory.getbasetemp() / "damaged_checkpoint.pt"
    whole = bytearray(saved(STATE, _use_new_zipfile_serialization=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(place, bytes(whole))
    except ModelRefused:
        return
    # Names or values may differ after damage; what may not happen is that anything but data comes out.
    waiting = [found]
    while waiting:
        value = waiting.pop()
        assert isinstance(
            value, dict | list | tuple | set | str | bytes | bytearray | int | float | complex | torch.Tensor | None
        )
        if isinstance(value, dict | list | tuple | set):
            waiting += [*value, *(value.values() if isinstance(value, dict) else [])]
