"""Checkpoints: state that goes on as if it had never left, and that nobody else reads."""

from __future__ import annotations

import contextlib
import copy
import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vambrace.assets import seal
from vambrace.assets.seal import statement
from vambrace.assets.seal.recipients import recipients_of
from vambrace.core import files, tree
from vambrace.errors import ArtifactRefused, ConfigError, ResourceError

KEY = bytes(range(32))


def training() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    return net, torch.optim.AdamW(net.parameters(), lr=0.01)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    net(inputs).square().mean().backward()
    optimizer.step()


def test_training_goes_on_exactly_where_it_was(tmp_path: Path) -> None:
    key = seal.generate("mlkem768-x25519")
    keep = seal.Checkpoints(tmp_path / "kept", recipients=[key.public()])
    net, optimizer = training()
    for number in range(5):
        step(net, optimizer, number)
    path = keep(5, module=net, optimizer=optimizer, extra={"best": 0.5, "seen": [1, 2]})
    assert path.name == "step-000000000005.sealed"
    for number in range(5, 8):
        step(net, optimizer, number)
    resumed, other = training()
    step(resumed, other, 99)
    found, extra = keep.restore(identity=key, module=resumed, optimizer=other)
    assert (found, extra) == (5, {"best": 0.5, "seen": [1, 2]})
    for number in range(5, 8):
        step(resumed, other, number)
    for name, value in net.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert b"running_mean" not in path.read_bytes()


def test_the_newest_stay_and_older_go_when_the_new_one_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = seal.Checkpoints(tmp_path, recipients=KEY, keep=2)
    net, _ = training()
    for number in (1, 20, 3, 100):
        keep(number, module=net)
    assert [each.name for each in keep.paths()] == ["step-000000000020.sealed", "step-000000000100.sealed"]
    from vambrace.core import files

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.system, "fsync", full)
    with pytest.raises(ResourceError, match="E601"):
        keep(200, module=net)
    monkeypatch.undo()
    assert len(keep.paths()) == 2
    assert keep.restore(identity=KEY, module=net) == (100, {})
    assert keep.restore(identity=KEY, module=net, step=20) == (20, {})


def test_the_one_just_made_stays(tmp_path: Path) -> None:
    """A training that begins anew counts from 0, beside what the one before has left."""
    keep = seal.Checkpoints(tmp_path / "kept", recipients=KEY, keep=2)
    net, _ = training()
    for count in (100, 200, 10):
        made = keep(count, module=net)
        assert made.exists()
    assert keep.restore(identity=KEY, module=net, step=10) == (10, {})


@pytest.mark.parametrize("gone", [True, False])
def test_older_ones_that_another_process_removes(gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = seal.Checkpoints(tmp_path, recipients=KEY, keep=1)
    net, _ = training()
    keep(1, module=net)
    unlink = files.system.unlink

    def late(path: Path) -> None:
        if not gone:
            raise PermissionError(errno.EACCES, "not yours")
        unlink(path)
        unlink(path)

    monkeypatch.setattr(files.system, "unlink", late)
    with contextlib.nullcontext() if gone else pytest.raises(ResourceError, match="E601: EACCES"):
        keep(2, module=net)
    assert [each.name for each in keep.paths()][-1] == "step-000000000002.sealed"
    assert len(keep.paths()) == (1 if gone else 2)


def test_what_is_no_checkpoint_or_lacks_what_is_wanted(tmp_path: Path) -> None:
    keep = seal.Checkpoints(tmp_path / "kept", recipients=KEY)
    net, optimizer = training()
    with pytest.raises(FileNotFoundError, match="E776"):
        keep.restore(identity=KEY, module=net)
    keep(1, module=net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    step(net, optimizer, 0)
    changed = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ConfigError, match="E769"):
        keep.restore(identity=KEY, module=net, optimizer=optimizer)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in changed.items()), "nothing was changed"
    assert not all(torch.equal(before[name], value) for name, value in changed.items())
    with pytest.raises(ArtifactRefused, match="E728"):
        keep.restore(identity=bytes(32), module=net)
    with pytest.raises(ConfigError, match="E109.*extra"):
        keep(2, module=net, extra={"bad": object()})
    for bad in (-1, 10**12, 1.5):
        with pytest.raises(ConfigError, match="E712"):
            keep(bad, module=net)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="E712"):
        seal.Checkpoints(tmp_path, recipients=KEY, keep=-1)


def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    """The module had the checkpoint's state, or a part of it, when its optimizer or its last layer was refused."""
    keep = seal.Checkpoints(tmp_path, recipients=KEY)
    net, optimizer = training()
    step(net, optimizer, 0)
    keep(1, module=net, optimizer=optimizer)
    step(net, optimizer, 1)
    two = torch.optim.AdamW([{"params": each.parameters()} for each in net], lr=0.01)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match="different number of parameter groups"):
        keep.restore(identity=KEY, module=net, optimizer=two)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not two.state_dict()["state"]
    wider = nn.Sequential(net[0], net[1], nn.Linear(8, 3))
    before, kept = copy.deepcopy(wider.state_dict()), copy.deepcopy(optimizer.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        keep.restore(identity=KEY, module=wider, optimizer=optimizer)
    assert all(torch.equal(value, before[name]) for name, value in wider.state_dict().items())
    assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], kept["state"][0]["exp_avg"])


def test_a_module_without_elements_yet(tmp_path: Path) -> None:
    """What cannot be copied aside ended the work."""
    keep = seal.Checkpoints(tmp_path, recipients=KEY)
    net, lazy = nn.Linear(5, 3), nn.LazyLinear(3)
    keep(1, module=net)
    assert keep.restore(identity=KEY, module=lazy) == (1, {})
    assert torch.equal(lazy.weight, net.weight)
    half, other = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), nn.Sequential(net, nn.Linear(3, 4))
    before = half[1].weight.detach().clone()
    keep(2, module=other)
    with pytest.raises(RuntimeError, match="size mismatch"):
        keep.restore(identity=KEY, module=half)
    assert torch.equal(half[1].weight, before)
    # The first layer had got its size, and elements of the checkpoint, by then.
    assert type(half[0].weight) is type(half[0].bias) is nn.UninitializedParameter
    assert half(torch.ones(2, 7)).shape == (2, 2)


def test_elements_that_came_with_a_size_go_when_the_optimizer_is_refused(tmp_path: Path) -> None:
    net = nn.Linear(5, 3)
    state = {"step": 1, "module": dict(net.state_dict()), "optimizer": {}, "extra": {}}
    with seal.Writer(tmp_path / "step-000000000001.sealed", recipients_of(KEY), content="tensors") as writer:
        writer.write(tree.encode(state))
    lazy, other = nn.LazyLinear(3), nn.LazyBatchNorm1d()
    for module in (lazy, other):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        with pytest.raises(ArtifactRefused if module is lazy else RuntimeError, match="E764|Missing key"):
            seal.Checkpoints(tmp_path, recipients=KEY).restore(identity=KEY, module=module, optimizer=optimizer)
        kinds = {type(value) for value in (*module.parameters(), *module.buffers()) if nn.parameter.is_lazy(value)}
        assert kinds >= {nn.UninitializedParameter}
        assert all(nn.parameter.is_lazy(value) for name, value in module.named_parameters())
    assert lazy.weight.size() == (0,), "nor are elements of the checkpoint in it"
    assert lazy(torch.ones(2, 9)).shape == (2, 3)
    assert other(torch.ones(2, 4)).shape == (2, 4)


def state_of(optimizer: torch.optim.Optimizer) -> tuple[list[dict[str, object]], int]:
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    return copy.deepcopy(groups), len(optimizer.state)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.NAdam])
def test_the_state_of_another_kind_of_optimizer(kind: Any, tmp_path: Path) -> None:
    """It was refused, as no checkpoint, and stayed in the optimizer."""
    net, _ = training()
    keep = seal.Checkpoints(tmp_path, recipients=KEY)
    other = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    step(net, other, 0)
    keep(1, module=net, optimizer=other)
    optimizer = kind(net.parameters(), lr=0.001)
    step(net, optimizer, 1)
    before, parameters = state_of(optimizer), [*optimizer.state]
    with pytest.raises(ArtifactRefused, match=f"E764.*an optimizer's state that {kind.__name__} does not take"):
        keep.restore(identity=KEY, module=net, optimizer=optimizer)
    assert state_of(optimizer) == before
    assert all(one is two for one, two in zip(optimizer.state, parameters, strict=True))
    step(net, optimizer, 2)


def test_state_of_a_modules_own_is_as_before(tmp_path: Path) -> None:
    """A module that empties what it gave lost it."""

    class Own(nn.Linear):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.told = {"count": 4}

        def get_extra_state(self) -> dict[str, int]:
            return self.told

        def set_extra_state(self, state: dict[str, int]) -> None:
            self.told.clear()
            self.told.update(state)

    keep = seal.Checkpoints(tmp_path, recipients=KEY)
    keep(1, module=nn.Sequential(Own(5, 3), nn.Linear(3, 2)))
    module = nn.Sequential(Own(5, 3), nn.Linear(3, 4))
    module[0].told = {"count": 9}
    with pytest.raises(RuntimeError, match="size mismatch"):
        keep.restore(identity=KEY, module=module)
    assert module[0].told == {"count": 9}


class Observer(nn.Module):
    """Takes state of its first version as torch's observers do: with another scale."""

    _version = 2

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, local: dict[str, Any], *more: Any) -> None:
        if local.get("version", 1) < 2:
            state[prefix + "scale"] = torch.tensor(-1.0)
        super()._load_from_state_dict(state, prefix, local, *more)


def test_state_is_of_the_version_it_is_of(tmp_path: Path) -> None:
    """The versions were not stored, and new state was taken for old."""
    keep = seal.Checkpoints(tmp_path, recipients=KEY)
    keep(1, module=nn.Sequential(Observer(3.0), nn.Linear(3, 2)))
    module = nn.Sequential(Observer(5.0), nn.Linear(3, 2))
    assert keep.restore(identity=KEY, module=module) == (1, {})
    assert module[0].scale == 3
    other = nn.Sequential(Observer(7.0), nn.Linear(3, 4))
    with pytest.raises(RuntimeError, match="size mismatch"):
        keep.restore(identity=KEY, module=other)
    assert other[0].scale == 7


def test_checkpoints_without_versions_are_read_as_before(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    state = {"step": 4, "module": dict(net.state_dict()), "optimizer": None, "extra": {}}
    with seal.Writer(tmp_path / "step-000000000004.sealed", recipients_of(KEY), content="tensors") as writer:
        writer.write(tree.encode(state))
    module = nn.Linear(3, 2)
    assert seal.Checkpoints(tmp_path, recipients=KEY).restore(identity=KEY, module=module) == (4, {})
    assert torch.equal(module.weight, net.weight)


def test_a_module_on_meta_is_refused(tmp_path: Path) -> None:
    """Nothing was put into it, and a step came back as if it had been."""
    keep = seal.Checkpoints(tmp_path, recipients=KEY)
    keep(1, module=nn.Linear(5, 3))
    away = nn.Sequential(nn.Linear(5, 3, device="meta"))
    with pytest.raises(ConfigError, match=r"E777: a module whose '0.weight' is on .*to_empty"):
        keep.restore(identity=KEY, module=away)
    keep(2, module=nn.Sequential(nn.Linear(5, 3)))
    assert keep.restore(identity=KEY, module=away.to_empty(device="cpu")) == (2, {})


def test_errors_of_a_module_are_its_own(tmp_path: Path) -> None:
    """They came out as E764, as if the file were no checkpoint."""

    class Own(nn.Linear):
        def _load_from_state_dict(self, *given: object, **named: object) -> None:
            super()._load_from_state_dict(*given, **named)
            if not torch.equal(self.weight, before):
                raise KeyError("mine")

    keep = seal.Checkpoints(tmp_path, recipients=KEY)
    keep(1, module=nn.Linear(5, 3))
    module = Own(5, 3)
    before = module.weight.detach().clone()
    with pytest.raises(KeyError, match="mine"):
        keep.restore(identity=KEY, module=module)
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize(
    "changed",
    [
        {"step": "x"},
        {"step": [1]},
        {"step": True},
        {"module": [1]},
        {"module": None},
        {"module": {0: torch.ones(3)}},
        {"optimizer": [1]},
        {"optimizer": {}},
        {"optimizer": "x"},
        {"optimizer": {"state": {}, "param_groups": 3}},
        {"optimizer": {"state": [], "param_groups": [{"params": [0, 1, 2, 3, 4, 5]}]}},
        {"extra": 3},
        {"versions": 3},
        {"versions": {"": "x"}},
        {"versions": {0: 2}},
        {"more": 3},
    ],
    ids=str,
)
def test_what_only_looks_like_a_checkpoint(changed: dict[str, object], tmp_path: Path) -> None:
    """Whoever knows the public key can have made it: the module was overwritten, or an error of Python came out."""
    net, optimizer = training()
    state = {"step": 1, "module": dict(net.state_dict()), "optimizer": optimizer.state_dict(), "extra": {}}
    plain = tree.encode(state | changed)
    with seal.Writer(tmp_path / "step-000000000001.sealed", recipients_of(KEY), content="tensors") as writer:
        writer.write(plain)
    module, other = training()
    step(module, other, 3)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ArtifactRefused, match="E764"):
        seal.Checkpoints(tmp_path, recipients=KEY).restore(identity=KEY, module=module, optimizer=other)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    if type(changed.get("optimizer")) is not dict:  # nor is the module's part of it taken
        with pytest.raises(ArtifactRefused, match="E764"):
            seal.Checkpoints(tmp_path, recipients=KEY).restore(identity=KEY, module=module)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bool, torch.uint16, torch.float32])
def test_signs_that_torch_keeps_aside(dtype: torch.dtype, tmp_path: Path) -> None:
    """Those that it cannot apply ended in an error of torch."""
    keep = seal.Checkpoints(tmp_path, recipients=KEY)
    extra = {"view": torch._neg_view(torch.ones(3).to(dtype))}  # pyright: ignore[reportPrivateUsage]
    if dtype == torch.float32:
        keep(1, module=nn.Linear(1, 1), extra=extra)
        assert keep.restore(identity=KEY, module=nn.Linear(1, 1))[1]["view"].tolist() == [-1.0] * 3
    else:
        with pytest.raises(ConfigError, match=r"E109.*\['view'\].*whose sign torch keeps aside"):
            keep(1, module=nn.Linear(1, 1), extra=extra)


def test_steps_that_numpy_counted(tmp_path: Path) -> None:
    keep = seal.Checkpoints(tmp_path, recipients=KEY)
    net, _ = training()
    assert keep(np.int64(7), module=net).name == "step-000000000007.sealed"  # type: ignore[arg-type]
    assert keep.restore(identity=KEY, module=net) == (7, {})


def test_whose_checkpoint_it_is_can_be_asked(tmp_path: Path) -> None:
    """There was no way to sign one, so nobody could, and a stranger's with more steps was taken for the newest."""
    maker, net = seal.generate("ed25519"), nn.Linear(2, 2)
    keep = seal.Checkpoints(tmp_path, recipients=KEY, sign=maker, name="Ada")
    keep(5, module=net)
    assert keep.restore(identity=KEY, module=net, signer=maker.public())[0] == 5
    before = copy.deepcopy(net.state_dict())
    seal.Checkpoints(tmp_path, recipients=KEY)(999, module=nn.Linear(2, 2))
    with pytest.raises(ArtifactRefused, match="E742"):
        keep.restore(identity=KEY, module=net, signer=maker.public())
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert keep.restore(identity=KEY, module=net, signer=maker.public(), step=5)[0] == 5
    with pytest.raises(ConfigError, match="E748"):
        seal.Checkpoints(tmp_path, recipients=KEY, sign=seal.generate("x25519"))


def test_the_state_of_one_step_does_not_pass_for_that_of_another(tmp_path: Path) -> None:
    """A copy under another name was restored as that step, its signature asked for and found good."""
    maker = seal.generate("ed25519")
    keep = seal.Checkpoints(tmp_path, recipients=[KEY], sign=maker)
    net, _ = training()
    first = keep(1, module=net)
    (tmp_path / "step-000000000050.sealed").write_bytes(first.read_bytes())
    before = copy.deepcopy(net.state_dict())
    nn.init.zeros_(net[0].weight)  # type: ignore[index]
    for step_asked in (50, None):
        with pytest.raises(ArtifactRefused, match="E764: step-000000000050.sealed with the state of step 1"):
            keep.restore(identity=KEY, module=net, signer=maker.public(), step=step_asked)
        assert not torch.equal(net.state_dict()["0.weight"], before["0.weight"])
    assert keep.restore(identity=KEY, module=net, signer=maker.public(), step=1)[0] == 1
    assert torch.equal(net.state_dict()["0.weight"], before["0.weight"])


def test_each_is_dated_when_it_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a training bore the moment at which it began."""
    dates = iter(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"])
    monkeypatch.setattr(statement, "now", lambda: next(dates))
    maker = seal.generate("ed25519")
    keep = seal.Checkpoints(tmp_path, recipients=[KEY], sign=maker)
    net, _ = training()
    found = [seal.verify(keep(number, module=net), signer=maker.public()).signatures[0].date for number in (1, 2)]
    assert found == ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]
