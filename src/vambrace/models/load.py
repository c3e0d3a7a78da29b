"""Load a model from a file, by the policy that data is opened and programs are not.

    model = load("net.onnx", bounds=(0, 1))
    model = load("net.safetensors", factory="mypkg.nets:small", mean=(0.5,), std=(0.25,))
    model = load("checkpoint.pt", factory="nets:resnet20", state_key="state_dict", strip_prefix="module.")

    safetensors + factory       parameters are data, the code is the user's
    ONNX                        checked before any runtime sees it (`vambrace.models.onnx`)
    .pt, .pth, .bin state dict  `torch.load(weights_only=True)` only, never a fallback
    anything that runs code     refused, unless its SHA-256 is accepted (`vambrace.models.executable`)

Content decides what a file is, not its name. `load` is for Python, where naming a factory is trusting it; `load_model`
is for plans, where only the roots listed under [trust] may run.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from vambrace.core.access import Bounds
from vambrace.errors import ConfigError, ModelRefused
from vambrace.models.checkpoint import read_checkpoint, refusal, scan_checkpoint
from vambrace.models.containers import kind_of_container, open_container
from vambrace.models.contract import Identity
from vambrace.models.executable import open_accepted, refuse_executable
from vambrace.models.factory import Built, build, root_of
from vambrace.models.formats import Format, identify
from vambrace.models.normalise import Normalisation
from vambrace.models.onnx import load_onnx
from vambrace.models.onnx_file import check_onnx
from vambrace.models.safetensors import read_safetensors
from vambrace.models.state import fill, pick
from vambrace.models.torch import from_torch
from vambrace.models.weights import weights_sha256

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from vambrace.core.contract import InputContract
    from vambrace.models.contract import Model, Outputs
    from vambrace.models.onnx_file import Checked
    from vambrace.models.pickles import Scan

__all__ = ["Source", "Trust", "load", "load_model"]


class Source(Protocol):
    """What of a plan's model table is used here; see `vambrace.assess.plan.ModelSpec`."""

    @property
    def source(self) -> str:
        """Path of the weights, relative to the plan's folder; "" for a factory that brings its own."""
        ...

    @property
    def factory(self) -> str:
        """The factory, "pkg.mod:fn", or ""."""
        ...

    @property
    def factory_args(self) -> Mapping[str, bool | int | float | str]:
        """Its keyword arguments."""
        ...

    @property
    def outputs(self) -> Outputs:
        """What the network emits."""
        ...

    @property
    def sha256(self) -> str:
        """The hash that the file must have, or ""."""
        ...

    @property
    def identity(self) -> str:
        """Path of the key file that opens a sealed file, or ""."""
        ...

    @property
    def signer(self) -> str:
        """Path of the public key of who must have signed a sealed file, or ""."""
        ...


class Trust(Protocol):
    """What may run code; see `vambrace.assess.plan.TrustSpec`."""

    @property
    def code(self) -> Sequence[str]:
        """Importable roots of the user's own code."""
        ...

    @property
    def artifacts(self) -> Sequence[str]:
        """SHA-256 of executable model files that a human accepted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Recipe:
    """Everything about a model that is not in its file."""

    factory: str | Callable[..., nn.Module] | None
    factory_args: Mapping[str, object]
    bounds: Bounds | tuple[float | Tensor, float | Tensor] | None
    mean: float | Sequence[float] | Tensor | None
    std: float | Sequence[float] | Tensor | None
    outputs: Outputs
    strip_prefix: str
    state_key: str
    device: str | torch.device
    trust_code: tuple[str, ...]
    trust_artifacts: frozenset[str]
    sha256: str
    base: Path
    input_shape: tuple[int | None, ...] | None
    identity: object = None
    signer: object = None


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    factory: str | Callable[..., nn.Module] | None = None,
    factory_args: Mapping[str, object] | None = None,
    bounds: Bounds | tuple[float | Tensor, float | Tensor] | None = (0.0, 1.0),
    mean: float | Sequence[float] | Tensor | None = None,
    std: float | Sequence[float] | Tensor | None = None,
    outputs: Outputs = "logits",
    strip_prefix: str = "",
    state_key: str = "",
    device: str | torch.device = "cpu",
    trust_code: Sequence[str] = (),
    trust_artifacts: Sequence[str] = (),
    sha256: str | None = None,
    input_shape: Sequence[int] | None = None,
    identity: object = None,
    signer: object = None,
) -> Model:
    """The model in a file, ready to be assessed.

    Args:
        path: the file, relative to the working folder; None when the factory brings its own weights.
        factory: builds the network for files that hold weights only: "pkg.mod:fn", importable from the working folder
            or the environment, or the function itself. Its top-level module is trusted by being named.
        factory_args: keyword arguments of the factory.
        bounds: the box of valid inputs in the caller's units; None where there is none.
        mean: subtracted inside the model, see `Normalisation`.
        std: divides after `mean`.
        outputs: what the network emits, "logits" or "probabilities".
        strip_prefix: removed from every name in a state dict, such as "module.".
        state_key: where in a checkpoint the state dict lies, such as "state_dict"; dots descend.
        device: where a PyTorch network runs; ONNX models run on the CPU.
        trust_code: further roots whose classes a pickled network may hold.
        trust_artifacts: SHA-256 of executable files that a human accepted.
        sha256: refuse the file unless it has this hash.
        input_shape: shape of one sample as the caller feeds it; an ONNX model that takes vectors then gets it
            flattened.
        identity: what opens a sealed file, which holds safetensors or ONNX; see `vambrace.assets.seal.load`.
        signer: who must have signed a sealed file, see there; None: nobody has to.

    Raises:
        ModelRefused: E200 to E239, for a file or factory that is unsafe, unreadable or does not fit.
        ArtifactRefused: for a sealed file that is damaged, forged, or opened by nothing that was given.
        ConfigError: E114, E115, E117, E118, E770, E771 for arguments that cannot be used.
        MissingExtra: E112, for an ONNX model without the extra.
    """
    roots = (root_of(factory),) if isinstance(factory, str) and factory else ()
    return _load(
        None if path is None or str(path) == "" else Path(path),
        _Recipe(
            factory=factory or None,
            factory_args=dict(factory_args or {}),
            bounds=bounds,
            mean=mean,
            std=std,
            outputs=outputs,
            strip_prefix=strip_prefix,
            state_key=state_key,
            device=device,
            trust_code=(*roots, *trust_code),
            trust_artifacts=frozenset(_hash(digest) for digest in trust_artifacts),
            sha256=_hash(sha256) if sha256 else "",
            base=Path.cwd(),
            input_shape=None if input_shape is None else tuple(input_shape),
            identity=identity,
            signer=signer,
        ),
    )


def load_model(spec: Source, contract: InputContract, trust: Trust, base: Path, device: str | torch.device) -> Model:
    """The model that a plan describes. Unlike `load`, it trusts no factory that the plan does not list.

    Args:
        spec: the plan's model table.
        contract: its input contract; without bounds they are (0, 1).
        trust: its trust table.
        base: folder of the plan, where relative paths start and modules are found.
        device: where a PyTorch network runs.

    Raises:
        ModelRefused, ConfigError, MissingExtra: as `load`.
    """
    size = contract.size
    return _load(
        base / spec.source if spec.source else None,
        _Recipe(
            factory=spec.factory or None,
            factory_args=spec.factory_args,
            bounds=contract.bounds or (0.0, 1.0),
            mean=contract.mean or None,
            std=contract.std or None,
            outputs=spec.outputs,
            strip_prefix=contract.strip_prefix,
            state_key=contract.state_key,
            device=device,
            trust_code=tuple(trust.code),
            trust_artifacts=frozenset(_hash(digest) for digest in trust.artifacts),
            sha256=_hash(spec.sha256) if spec.sha256 else "",
            base=base,
            input_shape=None if size is None else (contract.channels, *size),
            # As text, which errors do not repeat: it may be a passphrase in the wrong place.
            identity=str(base / spec.identity) if spec.identity else None,
            signer=base / spec.signer if spec.signer else None,
        ),
    )


def _load(path: Path | None, recipe: _Recipe) -> Model:
    if recipe.outputs not in {"logits", "probabilities"}:
        raise ConfigError(
            "E115",
            seen=f"outputs={recipe.outputs!r}",
            expected='"logits" or "probabilities"',
            fix='let the network give scores, and say outputs = "logits"',
        )
    if path is None:
        held = {"sha256": recipe.sha256, "identity": recipe.identity, "signer": recipe.signer}
        if wanted := [name for name, value in held.items() if value is not None and value != ""]:
            raise ConfigError(
                "E115",
                seen=f"{' and '.join(wanted)}, and no model file",
                expected="a file that is held against them",
                fix="give the path of the model, which may be of a variable that is not set; or leave them out",
            )
        if recipe.factory is None:
            raise ConfigError(
                "E115",
                seen="neither a model file nor a factory",
                expected="one of them",
                fix="give the path of the model, or a factory that returns a network with its weights",
            )
        return _assessable(_build(recipe, recipe.factory), str(recipe.factory), recipe)
    container = kind_of_container(path)
    form = None if container else identify(path)
    if form is not None and (recipe.identity is not None or recipe.signer is not None):
        raise ConfigError(
            "E771",
            seen=f"an identity or a signer for {path.name}, which is not sealed",
            expected="a sealed file",
            fix="drop them if the plain file is meant; whoever replaced a sealed file by it has proven nothing",
        )
    if recipe.sha256 and (found := _file_sha256(path)) != recipe.sha256:
        raise ModelRefused(
            "E203",
            seen=f"{path.name} has SHA-256 {found}",
            expected=f"the pinned {recipe.sha256}",
            fix="get the pinned file, or change sha256 if you changed the model on purpose",
        )
    if form is None:
        return _contained(path, container, recipe)
    if form.kind == "onnx":
        return _onnx(path, recipe)
    scan = scan_checkpoint(path, form) if form.kind in {"checkpoint", "legacy"} else None
    if form.is_executable or (scan is not None and scan.foreign):
        return _assessable(_accepted(path, form, scan, recipe), path.name, recipe)
    if form.kind == "safetensors":
        return _filled(lambda: read_safetensors(path), path.name, recipe, flat=True)
    return _filled(lambda: read_checkpoint(path, form, scan), path.name, recipe, flat=False)


def _contained(path: Path, container: str, recipe: _Recipe) -> Model:
    """The model in a container: what it holds is never written anywhere."""
    content = open_container(path, container, identity=recipe.identity, signer=recipe.signer)
    if isinstance(content, bytes):
        return _onnx(check_onnx(content, path.name), recipe)
    return _filled(lambda: content, path.name, recipe, flat=True)


def _onnx(source: Path | Checked, recipe: _Recipe) -> Model:
    return load_onnx(
        source,
        bounds=recipe.bounds,
        normalise=Normalisation(recipe.mean, recipe.std),
        outputs=recipe.outputs,
        input_shape=recipe.input_shape,
        device=recipe.device,
    )


def _filled(read: Callable[[], object], name: str, recipe: _Recipe, *, flat: bool) -> Model:
    """The factory's network with the weights that `read` gives; `flat`: they have no inner tables."""
    if recipe.factory is None:
        raise ModelRefused(
            "E204",
            seen=f"{name} holds weights only, and no factory says what network they belong to",
            expected="a factory",
            fix="add --factory pkg.mod:fn (factory=...), a function that returns the network",
        )
    weights = read()
    if flat and recipe.state_key:
        raise ModelRefused(
            "E209",
            seen=f"state_key {recipe.state_key!r} for {name}",
            expected="none: a safetensors file has no inner tables",
            fix="drop --state-key",
        )
    built = _build(recipe, recipe.factory)
    state = pick(weights, state_key=recipe.state_key, network=built.network)
    fill(built.network, state, strip_prefix=recipe.strip_prefix, name=name)
    return _assessable(built, name, recipe)


def _accepted(path: Path, form: Format, scan: Scan | None, recipe: _Recipe) -> Built:
    """The network of a file that is more than data, if its hash is accepted."""
    if not recipe.trust_artifacts:
        raise (scan and refusal(path, scan)) or refuse_executable(path, form, _file_sha256(path))
    # The bytes that are hashed are those that are opened: the file is read once.
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest not in recipe.trust_artifacts:
        raise (scan and refusal(path, scan)) or refuse_executable(path, form, digest)
    network = open_accepted(data, path.name, form, scan, trusted=recipe.trust_code, base=recipe.base)
    return Built(network, digest)


def _build(recipe: _Recipe, factory: str | Callable[..., nn.Module]) -> Built:
    return build(factory, recipe.factory_args, trusted=recipe.trust_code, base=recipe.base)


def _assessable(built: Built, name: str, recipe: _Recipe) -> Model:
    normalise = Normalisation(recipe.mean, recipe.std)
    shape = [size for size in recipe.input_shape or () if size is not None]
    identity = Identity(
        name=name,
        kind="torch",
        weights=weights_sha256(built.network),
        source=built.source,
        detail={
            "factory_args": dict(recipe.factory_args),
            "outputs": recipe.outputs,
            **normalise.as_json(),
        },
    )
    return from_torch(
        built.network,
        device=recipe.device,
        bounds=recipe.bounds,
        mean=recipe.mean,
        std=recipe.std,
        outputs=recipe.outputs,
        input_shape=shape if shape and len(shape) == len(recipe.input_shape or ()) else None,
        identity=identity,
    )


def _hash(digest: str) -> str:
    plain = digest.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", plain):
        raise ConfigError(
            "E118",
            seen=f"{digest[:80]!r} as a SHA-256",
            expected="64 hexadecimal digits",
            fix="copy the output of sha256sum FILE",
        )
    return plain


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
