"""ONNX models that are sealed: from the file into a session of onnxruntime, through memory only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vambrace.assets.seal.loading import open_sealed
from vambrace.core.extras import require
from vambrace.core.reason import reason
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from vambrace.assets.seal.origin import Signer

__all__ = ["session"]


def session(
    path: str | os.PathLike[str],
    *,
    identity: Sequence[object] | object,
    signer: Signer | Iterable[Signer] | None = None,
    threads: int = 1,
    options: Any = None,  # noqa: ANN401  onnxruntime is optional
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> Any:  # noqa: ANN401
    """An `onnxruntime.InferenceSession` of a sealed .onnx file, whose tensors are all inside it.

    Args:
        path: the sealed file.
        identity: who opens it; see `seal.load`.
        signer: who must have signed; see `seal.load`.
        threads: how many decrypt, 1 to 256.
        options: `onnxruntime.SessionOptions`; None: the usual ones.
        providers: of onnxruntime.

    Raises:
        MissingExtra: E112, without onnxruntime.
        ArtifactRefused: as `seal.load`; E764, when it is no single file.
        ModelRefused: E230 to E236, for a model that `vambrace.load` refuses too; E232 where tensors lie elsewhere;
            E855 locked by a key.
    """
    from vambrace.models.onnx_file import check_onnx, refuse, refuse_locked

    runtime = require("onnxruntime", extra="onnx")
    with open_sealed(path, identity=identity, signer=signer, threads=threads) as sealed:
        if sealed.description.content != "bytes":
            raise ArtifactRefused(
                "E764",
                seen=f"a content of kind {sealed.description.content!r}",
                expected="one .onnx file",
                fix="open the folder with seal.load, and give its tensors to onnxruntime",
            )
        plain = sealed.read(0, sealed.size)
    refuse_locked(check_onnx(plain, Path(path).name).model, Path(path).name)
    try:
        return runtime.InferenceSession(plain, options, providers=list(providers))
    except Exception as error:  # the runtime's errors share no base class
        if not type(error).__module__.startswith("onnxruntime"):  # of the caller's options
            raise
        refuse("E236", Path(path).name, f"cannot be used by onnxruntime ({reason(error)})", "a valid ONNX model")
