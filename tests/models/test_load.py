import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import vambrace
from vambrace.core.access import Access
from vambrace.core.contract import InputContract
from vambrace.errors import ConfigError, ModelRefused, VambraceError
from vambrace.models.load import load_model

NETS = """
import torch
from torch import nn

def net(width=3):
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, width))
"""


def network(width: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, width))


@dataclass
class Spec:
    """The plain fields of a plan's model table."""

    source: str = ""
    factory: str = ""
    factory_args: dict[str, object] = field(default_factory=dict)
    outputs: str = "logits"
    sha256: str = ""
    identity: str = ""
    signer: str = ""


@dataclass
class Trusted:
    code: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with every form of the same weights and a module that builds the network."""
    state = network().state_dict()
    save_file(state, tmp_path / "net.safetensors")
    torch.save(state, tmp_path / "net.pt")
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 1, "model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "run.ckpt")
    name = f"nets_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    (tmp_path / f"{name}.py").write_text(NETS)
    (tmp_path / "factory").write_text(f"{name}:net")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def factory(folder: Path) -> str:
    return (folder / "factory").read_text()


def code(error: pytest.ExceptionInfo[VambraceError]) -> str:
    return error.value.code


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt", "old.bin"])
def test_every_form_gives_the_same_model(folder: Path, factory: str, name: str) -> None:
    inputs = torch.rand(4, 2, 2, 2)
    model = vambrace.load(name, factory=factory, bounds=(0, 2), mean=(0.1, 0.2), std=(0.5, 0.25))
    mean, std = torch.tensor([0.1, 0.2])[:, None, None], torch.tensor([0.5, 0.25])[:, None, None]
    assert torch.equal(model(inputs), network()((inputs - mean) / std))
    assert model.bounds.high == 2
    assert model.access is Access.INTERNALS
    assert model.was_training == ()
    assert model.identity.name == name
    assert model.identity.weights == vambrace.load("net.pt", factory=network).identity.weights


def test_where_in_the_checkpoint(folder: Path, factory: str) -> None:
    model = vambrace.load("run.ckpt", factory=factory, state_key="model", strip_prefix="module.")
    assert torch.equal(model.module[1].weight, network()[1].weight)
    with pytest.raises(ModelRefused, match="state_key='model'"):
        vambrace.load("run.ckpt", factory=factory)
    with pytest.raises(ModelRefused, match="strip_prefix='module.'"):
        vambrace.load("run.ckpt", factory=factory, state_key="model")
    with pytest.raises(ModelRefused, match="drop --state-key") as caught:
        vambrace.load("net.safetensors", factory=factory, state_key="model")
    assert code(caught) == "E209"


def test_the_pinned_hash(folder: Path, factory: str) -> None:
    digest = hashlib.sha256(Path("net.pt").read_bytes()).hexdigest()
    assert vambrace.load("net.pt", factory=factory, sha256=digest.upper())
    with pytest.raises(ModelRefused, match=digest) as caught:
        vambrace.load("net.pt", factory=factory, sha256="0" * 64)
    assert code(caught) == "E203"
    for wrong in ("0" * 63, "x" * 64, "deadbeef"):
        with pytest.raises(ConfigError) as caught:
            vambrace.load("net.pt", factory=factory, sha256=wrong)
        assert code(caught) == "E118"


def test_weights_need_a_network(folder: Path) -> None:
    with pytest.raises(ModelRefused, match="add --factory") as caught:
        vambrace.load("net.pt")
    assert code(caught) == "E204"


def test_a_factory_may_bring_its_own_weights(folder: Path, factory: str) -> None:
    one, two = vambrace.load(factory=factory), vambrace.load("", factory=factory)
    assert one.identity == two.identity
    assert one.identity.name == factory
    with pytest.raises(ConfigError) as caught:
        vambrace.load()
    assert code(caught) == "E115"


def test_identity_follows_what_changes_the_answers(folder: Path, factory: str) -> None:
    plain = vambrace.load("net.pt", factory=factory).identity
    assert vambrace.load("net.pt", factory=factory).identity == plain
    assert vambrace.load("net.pt", factory=factory, mean=0.5).identity != plain
    assert vambrace.load("net.pt", factory=factory, outputs="probabilities").identity != plain
    assert vambrace.load("net.pt", factory=factory, factory_args={"width": 3}).identity != plain
    module = folder / f"{factory.partition(':')[0]}.py"
    module.write_text(NETS + "# changed\n")
    assert vambrace.load("net.pt", factory=factory).identity.source != plain.source
    other = network()
    other[1].bias.data[0] += 1
    torch.save(other.state_dict(), "net.pt")
    assert vambrace.load("net.pt", factory=factory).identity.weights != plain.weights


@pytest.mark.parametrize("options", [{"outputs": "labels"}, {"device": "gpu"}, {"device": "cuda:99"}])
def test_arguments_that_cannot_be(folder: Path, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        vambrace.load("net.pt", factory=network, **options)
    assert code(caught) == "E115"


def test_the_device_is_kept(folder: Path, device: torch.device) -> None:
    model = vambrace.load("net.pt", factory=network, device=device)
    assert model.device.type == device.type
    assert next(model.module.parameters()).device.type == device.type


def plan(
    folder: Path, factory: str, contract: InputContract | None = None, trusted: Trusted | None = None, **spec: object
):
    root = factory.partition(":")[0]
    return load_model(
        Spec(**{"source": "net.pt", "factory": factory, **spec}),
        contract or InputContract(),
        Trusted(code=(root,)) if trusted is None else trusted,
        folder,
        "cpu",
    )


def test_a_plan_starts_at_its_own_folder(folder: Path, factory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    contract = InputContract(bounds=(0.0, 255.0), mean=(3.0, 3.0), std=(2.0, 2.0), size=(2, 2), channels=2)
    model = plan(folder, factory, contract)
    inputs = torch.rand(4, 2, 2, 2) * 255
    assert torch.equal(model(inputs), network()((inputs - 3) / 2))
    assert (model.bounds.low, model.bounds.high) == (0.0, 255.0)
    assert model.input_shape == (2, 2, 2)


def test_a_plan_without_bounds_means_zero_to_one(folder: Path, factory: str) -> None:
    assert plan(folder, factory).bounds.as_json() == [0.0, 1.0]


def test_a_plan_trusts_only_what_it_lists(folder: Path, factory: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        plan(folder, factory, trusted=Trusted())
    assert code(caught) == "E205"
    assert caught.value.exit_code == 3


def test_a_plan_passes_everything_on(folder: Path, factory: str) -> None:
    contract = InputContract(state_key="model", strip_prefix="module.")
    assert plan(folder, factory, contract, source="run.ckpt", factory_args={"width": 3})
    with pytest.raises(ModelRefused, match="E203"):
        plan(folder, factory, sha256="0" * 64)
    with pytest.raises(ModelRefused, match="another architecture or width"):
        plan(folder, factory, factory_args={"width": 4})
    assert plan(folder, factory, outputs="probabilities").outputs == "probabilities"
    assert plan(folder, factory, source="").identity.name == factory


def test_a_plan_accepts_artifacts_by_hash(folder: Path, factory: str) -> None:
    torch.save(network(), folder / "whole.pt")
    digest = hashlib.sha256((folder / "whole.pt").read_bytes()).hexdigest()
    with pytest.raises(ModelRefused, match="E211"):
        plan(folder, factory, source="whole.pt")
    model = plan(folder, "", source="whole.pt", trusted=Trusted(artifacts=(digest,)))
    assert torch.equal(model.module[1].weight, network()[1].weight)


def test_weights_only_is_never_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever torch.load says, there is no second, weaker attempt."""
    seen: list[object] = []

    def refuse(*_: object, **options: object) -> None:
        seen.append(options.get("weights_only"))
        raise RuntimeError("try again with weights_only=False")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ModelRefused) as caught:
        vambrace.load("net.pt", factory=network)
    assert code(caught) == "E217"
    assert seen == [True]


@pytest.mark.parametrize("value", [["me"], bytearray(32), "me", b"k", ["a.pub", "b.pub"]])
@pytest.mark.parametrize("name", ["identity", "signer"])
def test_what_no_model_file_is_held_against_is_named(factory: str, name: str, value: object) -> None:
    """A list was a TypeError."""
    with pytest.raises(ConfigError, match=f"E115: {name}, and no model file"):
        vambrace.load(None, factory=factory, **{name: value})  # type: ignore[arg-type]
