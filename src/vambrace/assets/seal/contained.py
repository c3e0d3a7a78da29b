"""A model in a sealed file, for `vambrace.load`: its tensors, or its bytes; see `vambrace.models.containers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vambrace.assets.seal.loading import open_sealed
from vambrace.assets.seal.tensors import read_tensors
from vambrace.errors import ArtifactRefused
from vambrace.models.formats import HEAD, kind_of_start

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = ["open_model"]


def open_model(path: Path, *, identity: Any, signer: Any) -> dict[str, Tensor] | bytes:  # noqa: ANN401
    """The tensors of the sealed file at `path`, or the bytes of an ONNX model; arguments and errors as those of `load`.

    Raises:
        ArtifactRefused: E764, also for a folder and for pickles.
    """
    with open_sealed(path, identity=identity, signer=signer) as sealed:
        begin = sealed.read(0, min(sealed.size, HEAD))
        kind = kind_of_start(begin) or ""
        if sealed.description.content == "folder":
            raise _no_model(path, "a folder", "seal the model file itself, or open the folder: vambrace open")
        if sealed.description.content == "tensors" or kind == "safetensors":
            return read_tensors(sealed)
        if begin.startswith(b"PK\x03\x04") or kind in {"legacy", "pickle", "tar"}:
            fix = (
                "seal its tensors, seal.save(net.state_dict(), ...), or open it and load what comes out: vambrace open"
            )
            raise _no_model(path, "an archive or a pickle, such as checkpoints of PyTorch", fix)
        return sealed.read(0, sealed.size)


def _no_model(path: Path, seen: str, fix: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E764", seen=f"{path.name} holds {seen}", expected="one model file: safetensors or ONNX", fix=fix
    )
