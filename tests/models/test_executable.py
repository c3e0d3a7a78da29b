import hashlib
import io
import pickle
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import vambrace
from vambrace.errors import ModelRefused

TRUSTED = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
    def forward(self, x):
        return self.layer(x.flatten(1))
class Config:
    width = 3
"""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout())


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(params=["torchscript", "pt2", "checkpoint"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"net.{'pt2' if request.param == 'pt2' else 'pt'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if request.param == "torchscript":
            torch.jit.save(torch.jit.script(network().train()), path)
        elif request.param == "pt2":
            rows = torch.export.Dim("n")
            program = torch.export.export(network().eval(), (torch.rand(2, 1, 2, 2),), dynamic_shapes=({0: rows},))
            torch.export.save(program, path)
        else:
            torch.save(network(), path)
    return path


def test_opened_when_its_hash_is_accepted(file: Path, inputs: torch.Tensor) -> None:
    model = vambrace.load(file, trust_artifacts=[digest(file).upper()], bounds=(0, 1), mean=0.5, std=0.5)
    expected = network().eval()((inputs - 0.5) / 0.5)
    assert torch.allclose(model(inputs), expected, atol=1e-6)
    assert model.was_training == ()
    assert model.identity.source == digest(file)
    points = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(points).sum(), points)
    assert gradient.abs().sum() > 0
    assert (model.access == vambrace.core.access.Access.GRADIENTS) == isinstance(model.module, torch.jit.ScriptModule)


def test_refused_when_another_hash_is_accepted(file: Path) -> None:
    with pytest.raises(ModelRefused) as caught:
        vambrace.load(file, trust_artifacts=["0" * 64], factory=network)
    assert caught.value.code in {"E211", "E212", "E213"}
    assert caught.value.exit_code == 3


def test_refusal_gives_the_line_that_accepts_it(file: Path) -> None:
    with pytest.raises(ModelRefused) as caught:
        vambrace.load(file)
    assert digest(file) in caught.value.fix or (caught.value.code == "E211" and "[trust]" in caught.value.fix)


def saved(value: object, path: Path, **options: object) -> Path:
    torch.save(value, path, **options)
    return path


class Runs:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> object:
        return exec, (f"open({str(self.canary)!r}, 'w').close()",)


@pytest.mark.parametrize("value", [lambda canary: {"x": Runs(canary)}, lambda canary: [network(), Runs(canary)]])
def test_an_accepted_pickle_still_calls_nothing(tmp_path: Path, value) -> None:
    file = saved(value(tmp_path / "canary"), tmp_path / "net.pt")
    with pytest.raises(ModelRefused, match=r"it would call builtins\.exec") as caught:
        vambrace.load(file, trust_artifacts=[digest(file)])
    assert caught.value.code == "E218"
    assert not (tmp_path / "canary").exists()


def test_classes_of_trusted_roots(tmp_path: Path, inputs: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_that_are_trusted.py").write_text(TRUSTED)
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        import nets_that_are_trusted as nets

        net = nets.Net().eval()
        net.config = nets.Config()
        file = saved(net, tmp_path / "net.pt")
        expected = net(inputs)
    with pytest.raises(ModelRefused, match=r"it needs nets_that_are_trusted\.\w+.*code = \[.nets_that_are_trusted.\]"):
        vambrace.load(file, trust_artifacts=[digest(file)])
    model = vambrace.load(file, trust_artifacts=[digest(file)], trust_code=["nets_that_are_trusted"])
    assert torch.equal(model(inputs), expected)
    assert nets.Net not in torch.serialization.get_safe_globals()


def test_code_that_is_not_trusted_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "nets_of_a_stranger.py"
    module.write_text(TRUSTED)
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        import nets_of_a_stranger

        file = saved(nets_of_a_stranger.Net(), tmp_path / "net.pt")
    del sys.modules["nets_of_a_stranger"]
    module.write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()\n" + TRUSTED)
    with pytest.raises(ModelRefused, match="it needs nets_of_a_stranger"):
        vambrace.load("net.pt", trust_artifacts=[digest(file)])
    assert not (tmp_path / "canary").exists()
    vambrace.load("net.pt", trust_artifacts=[digest(file)], trust_code=["nets_of_a_stranger"])
    assert (tmp_path / "canary").exists(), "the canary is live"


@pytest.mark.parametrize("activation", [nn.functional.relu, torch.sigmoid])
def test_functions_in_a_pickled_network_are_refused(tmp_path: Path, activation) -> None:
    net = network()
    net.activation = activation
    file = saved(net, tmp_path / "net.pt")
    with pytest.raises(ModelRefused, match="it (needs torch|would call)") as caught:
        vambrace.load(file, trust_artifacts=[digest(file)])
    assert caught.value.code == "E218"


@pytest.mark.parametrize(
    ("value", "code"),
    [({"a": 1}, "E215"), ([1], "E215"), (Runs(Path("x")), "E210"), (torch.nn.Linear, "E215")],
)
def test_bare_pickles(tmp_path: Path, value: object, code: str) -> None:
    (tmp_path / "net.joblib").write_bytes(pickle.dumps(value))
    with pytest.raises(ModelRefused) as caught:
        vambrace.load(tmp_path / "net.joblib")
    assert caught.value.code == code


def test_bare_pickles_that_break_off(tmp_path: Path) -> None:
    for data, code in ((pickle.dumps([1])[:-1], "E215"), (pickle.dumps(Runs(tmp_path / "x"))[:-1], "E210")):
        (tmp_path / "net.joblib").write_bytes(data)
        with pytest.raises(ModelRefused) as caught:
            vambrace.load(tmp_path / "net.joblib")
        assert caught.value.code == code


def test_what_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    saved(network(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    saved(nn.Parameter(torch.ones(1)), tmp_path / "tensor.pt")
    for name, code in (("plain.pkl", "E218"), ("old.pt", "E218"), ("tensor.pt", "E209")):
        file = tmp_path / name
        with pytest.raises(ModelRefused) as caught:
            vambrace.load(file, trust_artifacts=[digest(file)], factory=network)
        assert caught.value.code == code, name


def test_native_code_is_refused_even_so(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("net/archive_format", "pt2")
        archive.writestr("net/data/aotinductor/model/x.so", b"\x7fELF")
    file = tmp_path / "net.pt2"
    with pytest.raises(ModelRefused, match="native code") as caught:
        vambrace.load(file, trust_artifacts=[digest(file)])
    assert caught.value.code == "E218"


def test_a_damaged_archive(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network()), stream)
    data = bytearray(stream.getvalue())
    data[data.index(b"code/") + 200] ^= 0xFF
    (tmp_path / "net.pt").write_bytes(data)
    file = tmp_path / "net.pt"
    with pytest.raises(ModelRefused) as caught:
        vambrace.load(file, trust_artifacts=[digest(file)])
    assert caught.value.code in {"E216", "E218"}
