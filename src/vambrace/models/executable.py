"""Model files that are programs: opened only after a human accepted the SHA-256 of exactly these bytes.

    torchscript   torch.jit.load
    pt2           torch.export.load, unless it carries native code (AOTInductor)
    checkpoint    a whole network pickled by torch.save: still `weights_only=True`, widened to the classes that the file
                  names, and these only if they are modules of torch.nn or classes under a trusted root
    everything else (joblib and other pickles, torch.package, whole networks in older formats) is refused also then

There is no sandbox yet: an accepted file runs with the rights of this process. Accepting a hash means that you trust
whoever made the file; for your own networks, a state dict and a factory need no such trust.
"""

from __future__ import annotations

import importlib
import io
import warnings
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from vambrace.core.reason import reason
from vambrace.core.trusted import importable, is_trusted
from vambrace.errors import ModelRefused
from vambrace.models.checkpoint import refusal, scan_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vambrace.models.formats import Format, Kind
    from vambrace.models.pickles import Scan

__all__ = ["open_accepted", "refuse_executable"]

_CODES: dict[Kind, str] = {"torchscript": "E212", "pt2": "E213", "package": "E214", "pickle": "E215"}
_NATIVE = (".so", ".dll", ".dylib", ".pyd", ".cubin", ".cpp", ".o")


def refuse_executable(path: Path, form: Format, digest: str) -> ModelRefused:
    """The error for an executable file whose hash nobody accepted; E210 for a bare pickle that would run code."""
    if form.kind == "pickle":
        try:
            worse = refusal(path, scan_checkpoint(path, form))
        except ModelRefused as error:  # compressed, or more than a pickle: joblib writes arrays in between
            worse = error
        if worse is not None and worse.code == "E210":
            return worse
    if form.kind in {"package", "pickle"}:
        fix = "export the weights as safetensors and give --factory; scikit-learn models come through a factory too"
    else:
        fix = (
            "save the state dict as safetensors and give --factory; "
            f'or, if you trust whoever made it, accept it in the plan: [trust] artifacts = ["{digest}"]'
        )
    return ModelRefused(
        _CODES[form.kind], seen=f"{path.name} is {form.title}", expected="a format that is data only", fix=fix
    )


def open_accepted(
    data: bytes, name: str, form: Format, scan: Scan | None, *, trusted: Sequence[str], base: Path
) -> nn.Module:
    """The network in an accepted file, on the CPU and in eval mode.

    Args:
        data: the bytes whose hash was accepted; the file is not read again.
        name: of the file, for messages.
        form: what it is.
        scan: what its pickle reaches, for checkpoints.
        trusted: roots whose classes a pickled network may hold.
        base: folder they may lie in.

    Raises:
        ModelRefused: E218, when the file cannot or will not be opened even so.
    """
    try:
        with warnings.catch_warnings(), importable(base, trusted):
            # torch.jit is on its way out; whoever accepted the hash knows what it is.
            warnings.simplefilter("ignore")
            network = _read(data, name, form, scan, trusted)
    except ModelRefused:
        raise
    except Exception as error:  # these readers raise nearly anything on damaged files
        why = reason(error)
        raise _refused(name, f"torch cannot open it ({why})", "make it again with this version of torch") from error
    if not isinstance(network, nn.Module):
        raise _refused(name, f"it holds a {type(network).__name__}, no network", "save the state dict instead")
    for part in network.modules():
        # Not eval(): exported programs refuse it, though the flag means nothing to them.
        part.training = False
    return network


def _read(data: bytes, name: str, form: Format, scan: Scan | None, trusted: Sequence[str]) -> object:
    stream = io.BytesIO(data)
    if form.kind == "torchscript":
        return cast("object", torch.jit.load(stream, map_location="cpu"))  # pyright: ignore[reportUnknownMemberType]
    if form.kind == "pt2":
        native = [member for member in form.members if member.endswith(_NATIVE)]
        if native:
            raise _refused(name, f"it carries native code ({native[0]})", "export it again without AOTInductor")
        from torch.export import load  # slow, and needed here only

        return load(stream).module()
    if form.kind == "checkpoint" and scan is not None:
        if scan.dangerous:
            raise _refused(name, f"it would call {scan.dangerous[0]}", "save the state dict and give --factory")
        classes = [_network_class(name, foreign, trusted) for foreign in scan.foreign]
        with torch.serialization.safe_globals(list(classes)):
            return cast("object", torch.load(stream, map_location="cpu", weights_only=True))
    raise _refused(
        name,
        f"{form.title} is never opened here",
        "load it where it was made, save torch.save(net.state_dict(), path) or safetensors, and give --factory",
    )


def _network_class(name: str, foreign: str, trusted: Sequence[str]) -> type:
    """The class called `foreign`, if a pickled network may hold it."""
    module, _, attribute = foreign.rpartition(".")
    ours = is_trusted(module, trusted)
    found: object = None
    if ours or module.startswith("torch.nn."):
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except Exception as error:
            raise _refused(name, f"it needs {foreign}, which does not import ({error})", "mend that module") from error
    # A function could do anything with what the file hands it; of torch's own classes only modules are wanted.
    if isinstance(found, type) and (ours or issubclass(found, nn.Module)):
        return found
    raise _refused(
        name,
        f"it needs {foreign}",
        f'if that is a class of your own code, trust it: [trust] code = ["{foreign.partition(".")[0]}"]; '
        "else save the state dict and give --factory",
    )


def _refused(name: str, why: str, fix: str) -> ModelRefused:
    return ModelRefused(
        "E218", seen=f"{name} was accepted by its hash, but {why}", expected="a network that can be opened", fix=fix
    )
