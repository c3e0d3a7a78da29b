"""A model in a sealed file, for `vambrace.load`: its tensors, or its bytes; see `vambrace.models.containers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vambrace.assets.seal.loading import load
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = ["open_model"]


def open_model(path: Path, *, identity: Any, signer: Any) -> dict[str, Tensor] | bytes:  # noqa: ANN401
    """The content of the sealed file at `path`; arguments and errors as those of `load`.

    Raises:
        ArtifactRefused: E764, also for a folder.
    """
    content = load(path, identity=identity, signer=signer)
    if isinstance(content, dict) and any(isinstance(each, bytes) for each in content.values()):
        raise ArtifactRefused(
            "E764",
            seen=f"{path.name} holds a folder",
            expected="one model file",
            fix="seal the model file itself, or open the folder: vambrace open",
        )
    return content  # pyright: ignore[reportReturnType]  no value is bytes
