"""What is about to be sealed: files that run code when they are opened are found before the seal hides them.

A seal says that the bytes are as they were sealed. It does not make a pickle safe, and nobody can look at it before
opening it; so whoever seals one has to say that this is meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vambrace.errors import ArtifactRefused, ModelRefused

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["kind_of", "refuse_pickle"]


def kind_of(path: Path) -> str:
    """What the file at `path` is, as `vambrace.models.formats` names it; "" for what is no known model file."""
    from vambrace.models.formats import identify

    try:
        return identify(path).kind
    except ModelRefused as error:
        # A name that promises more safety than the content keeps: only pickles in disguise are refused so.
        return "pickle" if error.code == "E202" else ""


def refuse_pickle(path: Path, kind: str, *, shown: str = "") -> None:
    """Refuse the file at `path` when opening it, in some tool or other, can run code.

    Args:
        path: the file.
        kind: what `kind_of` says of it.
        shown: how messages call it; "": its name.

    Raises:
        ArtifactRefused: E761.
    """
    if kind not in {"", "safetensors", "onnx"}:
        raise ArtifactRefused(
            "E761",
            seen=f"{shown or path.name} is a {kind} file, which holds a pickle{_inside(path)}",
            expected="a file that is data only, such as safetensors or ONNX",
            fix="convert it first, or allow pickles on purpose: allow_pickle=True, --allow-pickle",
        )


def _inside(path: Path) -> str:
    """What the pickle would import, where that can be told without opening it."""
    from vambrace.models.checkpoint import scan_checkpoint
    from vambrace.models.formats import identify

    try:
        form = identify(path)
        if form.is_executable:
            return ""
        foreign = sorted({str(name) for name in scan_checkpoint(path, form).foreign})
    except ModelRefused:
        return ""
    return f" that imports {', '.join(foreign[:5])}" if foreign else ""
