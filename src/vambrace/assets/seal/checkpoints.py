"""Checkpoints of training that never lie on the disk in the clear: encrypted before they are flushed.

    keep = seal.Checkpoints("checkpoints/", recipients=["team.pub"], keep=3)
    for step, batch in enumerate(batches):
        ...
        if step % 1000 == 0:
            keep(step, module=net, optimizer=optimizer)
    step = keep.restore(identity="team.key", module=net, optimizer=optimizer)

The training machine needs public keys only: what can be read there is what is in memory. State goes through the tree
codec (`vambrace.core.tree`), so nested optimizer state is stored without a pickle.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
from collections import OrderedDict
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import nn

from vambrace.assets.seal import statement
from vambrace.assets.seal.loading import open_sealed
from vambrace.assets.seal.recipients import recipients_of
from vambrace.assets.seal.source import nothing_at
from vambrace.assets.seal.writer import Writer
from vambrace.core import files, tree
from vambrace.core.options import require
from vambrace.core.reason import reason
from vambrace.errors import ArtifactRefused, ResourceError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from torch import optim

    from vambrace.assets.seal import keys
    from vambrace.assets.seal.origin import Signer

__all__ = ["Checkpoints"]

_NAME: Final = re.compile(r"step-([0-9]{12})\.sealed")
_KEYS: Final = {"extra", "module", "optimizer", "step"}
_VERSIONS: Final = "versions"


class Checkpoints:
    """Sealed checkpoints in a folder, the newest few of them; call it whenever one is due.

    Args:
        folder: where they lie, as `step-000000001000.sealed`.
        recipients: who can open them; see `seal.save`.
        keep: how many stay, those of the most steps, and in any case the one just made; 0: all.
        sign: who vouches for them, see `seal.save`, so that `restore` can ask for it: without, whoever can write into
            the folder and knows a recipient can put a checkpoint of their own there.
        name: of the signer; readable by everybody.
        role: of the signer, the same.

    Raises:
        ConfigError: E712, for a negative `keep`; E723 or E724, for recipients; E746 or E748, for a signer who cannot
            sign.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        recipients: Sequence[object] | object,
        keep: int = 0,
        sign: Ed25519PrivateKey | keys.Secret | str | os.PathLike[str] | None = None,
        name: str = "",
        role: str = "",
    ) -> None:
        require(keep >= 0, code="E712", seen=f"keep={keep}", expected="0 or more", fix="say how many stay, 0 for all")
        self.folder = Path(folder)
        self._recipients = recipients_of(recipients)
        self._keep = keep
        self._sign = statement.hook(sign, name=name, role=role)

    def __call__(
        self,
        step: int,
        *,
        module: nn.Module,
        optimizer: optim.Optimizer | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Path:
        """Seal the state after `step` steps; older ones go when it is durable.

        Args:
            step: 0 to 10^12 - 1.
            module: whose `state_dict` is stored.
            optimizer: the same; None: none.
            extra: numbers, texts, tensors, and lists, tuples and dicts of them.

        Raises:
            ConfigError: E109, for state that cannot be stored, by its path; E712, for a step that cannot be.
            ResourceError: E601, when it cannot be written; older checkpoints are all there then.
        """
        whole = isinstance(step, Integral)  # of others the name would not be found again
        require(
            whole and 0 <= step < 10**12, code="E712", seen=f"step {step}", expected="0 to 10^12 - 1", fix="count steps"
        )
        held = module.state_dict()
        state = {
            "step": int(step),
            "module": dict(held),
            "optimizer": None if optimizer is None else optimizer.state_dict(),
            "extra": dict(extra or {}),
            _VERSIONS: _versions(held),
        }
        plain = tree.encode(state)
        files.make_folder(self.folder)
        path = self.folder / f"step-{step:012}.sealed"
        with Writer(path, self._recipients, content="tensors", size=len(plain), sign=self._sign) as writer:
            writer.write(plain)
        if self._keep:
            # Of a training that began anew, a checkpoint may have fewer steps than what an earlier one has left.
            for old in self.paths()[: -self._keep]:
                if old == path:
                    continue
                try:
                    files.remove(old)
                except ResourceError as error:
                    # Another process of the same training may have been first.
                    if not isinstance(error.__cause__, FileNotFoundError):
                        raise
        return path

    def paths(self) -> list[Path]:
        """The checkpoints that are there, oldest step first."""
        found = self.folder.iterdir() if os.path.isdir(self.folder) else ()
        return sorted(path for path in found if _NAME.fullmatch(path.name))

    def restore(
        self,
        *,
        identity: Sequence[object] | object,
        module: nn.Module,
        optimizer: optim.Optimizer | None = None,
        signer: Signer | Iterable[Signer] | None = None,
        step: int | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Put stored state back into `module` and `optimizer`; the step and the extra that were stored.

        Args:
            identity: who opens it; see `seal.load`.
            module: gets its state, strictly by name; lazy layers get their size with it.
            optimizer: the same; None: stored optimizer state is left alone.
            signer: see `seal.load`; None: nobody has to have signed, and origin is not proven.
            step: which; None: that of the most steps, whichever training it is of.

        Raises:
            NotThere: E776, a FileNotFoundError: there is none.
            ArtifactRefused: as `seal.load`; E764, for a file that is no checkpoint, or one of another step.
            ConfigError: E111, for bytes that the tree codec has not written; E769, for a checkpoint without the state
                that `optimizer` needs; E777, for a module on "meta".
            RuntimeError, ValueError: by torch, when the state of a module or of an optimizer does not fit; both are
                as before then, and so is the module when code of its own raises something.
        """
        paths = self.paths() if step is None else [self.folder / f"step-{step:012}.sealed"]
        if not paths:
            raise nothing_at(self.folder / "step-*.sealed", "a checkpoint")
        with open_sealed(paths[-1], identity=identity, signer=signer) as sealed:
            state: Any = tree.decode(sealed.read(0, sealed.size))
        if not _is_checkpoint(state):
            raise _no_checkpoint(paths[-1])
        stored = cast("dict[str, Any]", state)
        # A name is easily changed, and no signature is over it: weights of one step would pass for those of another.
        if paths[-1].name != f"step-{stored['step']:012}.sealed":
            raise ArtifactRefused(
                "E764",
                seen=f"{paths[-1].name} with the state of step {stored['step']}",
                expected="the step that its name says",
                fix="give it back the name that it was made with, if you renamed or copied it",
            )
        if optimizer is not None:
            require(
                stored["optimizer"] is not None,
                code="E769",
                seen=f"{paths[-1].name} without an optimizer's state",
                expected="one that was stored with an optimizer",
                fix="restore the module alone, or choose another checkpoint",
            )
        with _unchanged(module):
            module.load_state_dict(_versioned(stored["module"], stored.get(_VERSIONS)))
            if optimizer is not None:
                _take(optimizer, stored["optimizer"], paths[-1])
        return stored["step"], stored["extra"]


@contextlib.contextmanager
def _unchanged(module: nn.Module) -> Generator[None]:
    """Put the state of `module` back when something is raised inside: torch copies some before it says what misfits."""
    state = module.state_dict()
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    away = [name for name, value in tensors.items() if value.is_meta]
    require(
        not away,
        code="E777",
        seen=f'a module whose {away[0] if away else ""!r} is on "meta", where nothing can be put',
        expected="one that has memory",
        fix="module.to_empty(device=...) first",
    )
    lazy = [(value, type(value)) for value in tensors.values() if nn.parameter.is_lazy(value)]
    kept = {name: _kept(value) for name, value in state.items() if not nn.parameter.is_lazy(value)}
    try:
        yield
    except BaseException:
        module.load_state_dict(_versioned(kept, _versions(state)), strict=False)
        for value, kind in lazy:
            if not nn.parameter.is_lazy(value):  # got its size, and a stranger's elements
                value.data = value.new_empty(0)
                value.__class__ = kind
        raise


def _take(optimizer: optim.Optimizer, state: dict[str, Any], path: Path) -> None:
    """Give an optimizer a state; where it does not fit, the optimizer has its own again."""
    before = optimizer.state, optimizer.param_groups  # torch puts others in their places, some kinds before they look
    try:
        optimizer.load_state_dict(state)
    except BaseException as error:
        optimizer.state, optimizer.param_groups = before
        if isinstance(error, (KeyError, TypeError, AttributeError)):
            raise ArtifactRefused(
                "E764",
                seen=f"{path.name} with an optimizer's state that {type(optimizer).__name__} does not take "
                f"({type(error).__name__}: {reason(error, 80)})",
                expected="the state of an optimizer of the same kind, as seal.Checkpoints stores it",
                fix="restore with an optimizer of the kind that it was made with, or the module alone",
            ) from error
        raise


def _is_checkpoint(state: Any) -> bool:  # noqa: ANN401  a tree of any shape
    """Whether it has the parts of a checkpoint; whoever knows the public key can have made it."""
    if type(state) is not dict or {*cast("dict[Any, Any]", state)} - {_VERSIONS} != _KEYS:
        return False
    parts = cast("dict[str, Any]", state)
    kinds = {
        "step": int,
        "module": dict,
        "extra": dict,
        "optimizer": type(None) if parts["optimizer"] is None else dict,
    }
    versions = cast("dict[Any, Any]", parts.get(_VERSIONS, {}))
    return (
        all(type(parts[name]) is kind for name, kind in kinds.items())
        and all(type(name) is str for name in parts["module"])
        and type(versions) is dict
        and all(type(name) is str and type(number) is int for name, number in versions.items())
    )


def _versions(state: Any) -> dict[str, int]:  # noqa: ANN401  of torch
    """Which version of its state each module inside has: one that is told none takes it for that of an old one."""
    found = cast("dict[str, dict[str, Any]]", getattr(state, "_metadata", {}))
    return {name: each["version"] for name, each in found.items() if type(each.get("version")) is int}


def _versioned(state: Mapping[str, Any], versions: dict[str, int] | None) -> OrderedDict[str, Any]:
    """State as `load_state_dict` takes it; checkpoints of before have no versions."""
    found = OrderedDict(state)
    if versions is not None:
        found._metadata = {name: {"version": number} for name, number in versions.items()}  # pyright: ignore[reportAttributeAccessIssue]
    return found


def _no_checkpoint(path: Path) -> ArtifactRefused:
    return ArtifactRefused(
        "E764",
        seen=f"{path.name} without a module's and an optimizer's state",
        expected="a checkpoint that seal.Checkpoints made",
        fix="open it with seal.load",
    )


def _kept(value: Any) -> Any:  # noqa: ANN401  modules may hold state of any kind
    """A copy in main memory, where a model on a GPU has room to be twice."""
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else copy.deepcopy(value)
