"""Key-locked models in files: keys from key files, and models that are put in order as they are loaded.

model = load_model("net.onnx", key="model.key")                            # locked
model = load_model("net.sealed", key="model.key", identity="reader.key")   # sealed and locked
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vambrace.assets.obfuscate.locking import unlock
from vambrace.assets.seal import keys
from vambrace.assets.seal.contained import open_model
from vambrace.errors import ArtifactRefused, ConfigError, ModelRefused
from vambrace.models.containers import kind_of_container
from vambrace.models.normalise import Normalisation
from vambrace.models.onnx import load_onnx
from vambrace.models.onnx_file import check_onnx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vambrace.core.access import Bounds
    from vambrace.models.contract import Model, Outputs

__all__ = ["key_bytes", "load_model"]


# What may be 32 bytes as base64 or hexadecimal digits, which errors do not repeat: they go into logs. As a path it may
# have lost slashes, and whoever copies it takes quotes along.
_KEY = re.compile(r"(?:^|[\s\"',:])[A-Za-z0-9+/_-]{36,}={0,2}[\s\"',;]*$")


def key_bytes(key: object) -> bytes:
    """The 32 bytes of a key that locks models or draws copies.

    Args:
        key: 32 bytes, a `Secret` of the kind aes256, or the path of its file.

    Raises:
        ConfigError: E853, for anything else, and for a path where nothing is.
        ArtifactRefused: E720, E721, for a file that is no key file, or that others can read.
    """
    if isinstance(key, bytes) and len(key) == 32:
        return key
    if isinstance(key, str | os.PathLike):
        place = Path(cast("str | os.PathLike[str]", key))
        if not place.exists():
            raise _no_key(
                "what may be a key in place of its path" if _KEY.search(str(place)) else f"nothing at {place}"
            )
        key = keys.read(place)
    if isinstance(key, keys.Secret) and key.kind == "aes256":
        return key.raw
    raise _no_key(f"a key of {key.kind}" if isinstance(key, keys.Secret | keys.Public) else f"a {type(key).__name__}")


def load_model(
    path: str | os.PathLike[str],
    *,
    key: object,
    identity: object = None,
    signer: object = None,
    bounds: Bounds | tuple[float | Tensor, float | Tensor] | None = (0.0, 1.0),
    mean: float | Sequence[float] | Tensor | None = None,
    std: float | Sequence[float] | Tensor | None = None,
    outputs: Outputs = "logits",
    input_shape: Sequence[int] | None = None,
) -> Model:
    """A locked ONNX model, ready to be assessed, as `vambrace.load` gives plain ones; nothing is written anywhere.

    Nothing tells whether the key is right: a wrong one gives another model.

    Args:
        path: an .onnx file as it was locked, or a sealed file that holds one.
        key: what it was locked with; see `key_bytes`.
        identity: what opens a sealed file; see `seal.load`.
        signer: who must have signed a sealed file; see there.
        bounds: the box of valid inputs, before `mean` and `std`; None where there is none.
        mean: subtracted before the model.
        std: divides after `mean`.
        outputs: what the model emits, "logits" or "probabilities".
        input_shape: shape of one sample as the caller feeds it.

    Raises:
        ArtifactRefused: E837, for a model that is not locked; E764 for a sealed file with something else in it.
        ConfigError: E853 for a key; E770, E771 where a sealed file and an identity do not go together.
        ModelRefused: E230 to E239, for a model that is unsafe or cannot be used; E856, for one that is no classifier.
    """
    place, secret = Path(path), key_bytes(key)
    source: Path | bytes = place
    if kind_of_container(place):
        if identity is None:
            raise ConfigError(
                "E770",
                seen=f"{place.name} is sealed, and nothing is there to open it",
                expected="the key or passphrase that it was sealed for",
                fix="give identity=...",
            )
        content: Any = open_model(place, identity=identity, signer=signer)
        if not isinstance(content, bytes):
            raise ArtifactRefused(
                "E764",
                seen=f"{place.name} holds tensors",
                expected="one .onnx file that was locked",
                fix="seal the locked .onnx file itself",
            )
        source = content
    elif identity is not None or signer is not None:
        raise ConfigError(
            "E771",
            seen=f"an identity or a signer for {place.name}, which is not sealed",
            expected="a sealed file",
            fix="drop them if the plain file is meant",
        )
    model = unlock(source, secret)
    try:
        return load_onnx(
            check_onnx(model.SerializeToString(), place.name),
            bounds=bounds,
            normalise=Normalisation(mean, std),
            outputs=outputs,
            input_shape=None if input_shape is None else tuple(input_shape),
        )
    except ModelRefused as error:
        if error.code != "E237":
            raise
        raise ModelRefused(
            "E856",
            seen=f"{error.seen}, and is locked",
            expected=f"a classifier to assess: {error.expected}",
            fix="for any other network, give obfuscate.unlock(model, key), which is in order, to onnxruntime",
        ) from error


def _no_key(seen: str) -> ConfigError:
    return ConfigError(
        "E853",
        seen=seen,
        expected="32 bytes, or a secret key of the kind aes256 or its file",
        fix="make one with `vambrace keygen KEY --kind aes256`",
    )
