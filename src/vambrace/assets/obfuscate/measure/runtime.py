"""ONNX files and onnxruntime for the measures: the one file here that imports onnx, onnxruntime and simplifiers.

A network is opened under stated settings (optimisation level, threads), because they decide the order in which a
runtime adds numbers up, and so the last bits of every answer. Names are not relied on: obfuscated models have others,
so inputs and outputs correspond by position.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

from vambrace.core.extras import require
from vambrace.core.options import Options
from vambrace.core.options import require as hold
from vambrace.core.reason import reason
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

__all__ = [
    "LEVELS",
    "Level",
    "Network",
    "Settings",
    "Taken",
    "clone",
    "constant_array",
    "load",
    "onnx",
    "optimised",
    "simplifier",
    "weights_of",
]

Level = Literal["disabled", "basic", "extended", "all"]
LEVELS: dict[str, str] = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_MOST_BYTES = 2**31 - 1
_MUTED = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Options):
    """How a network is run.

    Attributes:
        level: of onnxruntime's graph optimisation: "disabled", "basic", "extended" or "all".
        threads: inside one operator, at least 1; operators run one after the other.
    """

    level: Level = "all"
    threads: int = 1

    def __post_init__(self) -> None:
        hold(
            self.level in LEVELS and type(self.threads) is int and self.threads >= 1,
            code="E820",
            seen=f"level {self.level!r} with {self.threads!r} threads",
            expected=f"a level of {', '.join(LEVELS)} and at least one thread",
            fix="use Settings(), which is what onnxruntime does by itself, on one thread",
        )

    @property
    def title(self) -> str:
        """Such as "all, 1 thread"."""
        return f"{self.level}, {self.threads} thread{'s' if self.threads > 1 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One input of a network: its name, NumPy type, and sizes, None for a free one; no sizes for no stated rank."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


class Network:
    """A model that can be run.

    Args:
        model: an onnx.ModelProto.
        settings: how it is run.
        fixed: inputs by name that are the same in every call, such as keys; they are not part of `inputs`.

    Attributes:
        inputs: the other inputs, in the model's order.
        outputs: names, in the model's order.

    Raises:
        ArtifactRefused: E821, where the runtime cannot use the model; E823 for a fixed input that it does not take.
    """

    def __init__(
        self,
        model: ModelProto,
        settings: Settings | None = None,
        fixed: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._session = _session(model, self.settings)
        self._fixed = dict(fixed or {})
        taken = [_taken(each) for each in self._session.get_inputs()]
        unknown = set(self._fixed) - {each.name for each in taken}
        if unknown:
            _refuse(
                "E823", f"no input {sorted(unknown)[0]!r}", "the inputs that were given for it", "name what it takes"
            )
        self.inputs = tuple(each for each in taken if each.name not in self._fixed)
        given = self._session.get_outputs()
        for each in given:
            if not str(each.type).startswith("tensor("):
                _refuse(
                    "E821",
                    f"gives {each.name!r}, {each.type}",
                    "tensors",
                    "measure the part of it that gives tensors; without inputs it can be obfuscated as it is",
                )
        self.outputs = tuple(str(each.name) for each in given)

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs for one array an input, in the order of `inputs`.

        Raises:
            ArtifactRefused: E822, where the runtime fails on them.
        """
        feeds = {each.name: array for each, array in zip(self.inputs, arrays, strict=True)} | self._fixed
        try:
            return cast("list[NDArray[Any]]", self._session.run(None, feeds))
        except Exception as error:  # the runtime's errors share no base class
            shapes = [tuple(array.shape) for array in arrays]
            seen = f"failed on inputs of shapes {shapes}: {reason(error)}"
            _refuse("E822", seen, "a model that runs on the inputs it is measured on", "run it by hand on one of them")


@cache
def onnx() -> Any:  # noqa: ANN401  a module of an optional package
    """The package `onnx`, with its helpers.

    Raises:
        MissingExtra: E112, without the extra.
    """
    for part in ("helper", "numpy_helper", "inliner", "shape_inference"):
        require(f"onnx.{part}", extra="onnx")
    return require("onnx", extra="onnx")


def load(source: ModelProto | Path | str) -> ModelProto:
    """A model with its weights inside: a checked file, or a copy of what was given.

    Raises:
        ModelRefused: E230 to E235, for a file that is no model, or whose external data are not safe to read.
    """
    if not isinstance(source, Path | str):
        return clone(source)
    from vambrace.models.onnx_file import read_onnx

    return cast("ModelProto", read_onnx(Path(source), whole=True).model)


def clone(model: ModelProto) -> ModelProto:
    """A copy that shares nothing."""
    copy = onnx().ModelProto()
    copy.CopyFrom(model)
    return copy


def weights_of(model: ModelProto) -> dict[str, NDArray[Any]]:
    """Every initialiser of the main graph and every constant node in it, as arrays by name."""
    to_array = onnx().numpy_helper.to_array
    found = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and (array := constant_array(node)) is not None:
            found[node.output[0]] = array
    return found


def constant_array(node: Any) -> NDArray[Any] | None:  # noqa: ANN401  an onnx.NodeProto
    """What a Constant node gives, or None where it is no plain tensor."""
    import numpy as np

    for attribute in node.attribute:
        if attribute.name == "value":
            return onnx().numpy_helper.to_array(attribute.t)
        if attribute.name in {"value_float", "value_floats"}:
            plain = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            return np.asarray(plain, dtype=np.float32)
        if attribute.name in {"value_int", "value_ints"}:
            plain = attribute.i if attribute.name == "value_int" else list(attribute.ints)
            return np.asarray(plain, dtype=np.int64)
    return None


def optimised(model: ModelProto, level: Level) -> ModelProto:
    """What onnxruntime makes of a model at a level, as it would save it.

    Raises:
        ArtifactRefused: E821, where the runtime cannot use the model.
    """
    with tempfile.TemporaryDirectory(prefix="vambrace-") as folder:
        path = Path(folder, "optimised.onnx")
        _session(model, Settings(level=level), str(path))
        return onnx().ModelProto.FromString(path.read_bytes())


def simplifier(name: Literal["onnxsim", "onnxslim"]) -> Callable[[ModelProto], ModelProto] | None:
    """A function ModelProto -> ModelProto of a package that need not be there; None where it is not.

    Simplifiers name operators of the model in what they print, so nothing of that is shown.
    """
    try:
        module: Any = importlib.import_module(name)
    except ImportError:
        return None

    def simplify(model: ModelProto) -> ModelProto:
        with _mute():
            return module.simplify(model)[0] if name == "onnxsim" else module.slim(model)

    return simplify


@contextlib.contextmanager
def _mute() -> Generator[None]:
    """Inside, nothing reaches stdout and stderr, of this whole process: libraries write past Python's own streams.

    One thread at a time, for two that put back what they found could leave a process silent.
    """
    with _MUTED, contextlib.ExitStack() as stack, open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
        for number in (1, 2):
            with contextlib.suppress(OSError):  # it is closed, and so is silent
                stack.callback(_put_back, os.dup(number), number)
                os.dup2(nowhere.fileno(), number)
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield


def _put_back(kept: int, number: int) -> None:
    os.dup2(kept, number)
    os.close(kept)


def _session(model: ModelProto, settings: Settings, save_to: str | None = None) -> Any:  # noqa: ANN401
    runtime = require("onnxruntime", extra="onnx")
    if model.ByteSize() > _MOST_BYTES:
        _refuse("E821", f"has {model.ByteSize()} bytes", "at most 2 GiB in one message", "measure a smaller model")
    options = runtime.SessionOptions()
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, LEVELS[settings.level])
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if save_to is not None:
        options.optimized_model_filepath = save_to
    try:
        return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors share no base class
        _refuse("E821", f"cannot be used by onnxruntime ({reason(error)})", "a valid ONNX model", "check the model")


def _taken(argument: Any) -> Taken:  # noqa: ANN401  onnxruntime.NodeArg
    import numpy as np

    kinds = {"float": "float32", "double": "float64"}
    kind = str(argument.type).removeprefix("tensor(").removesuffix(")")
    try:
        dtype = np.dtype(kinds.get(kind, kind))
    except TypeError:
        _refuse("E821", f"takes {argument.type}", "tensors of numbers", "measure a model of tensors")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in argument.shape)
    return Taken(name=str(argument.name), dtype=dtype, shape=shape)


def _refuse(code: str, seen: str, expected: str, fix: str, name: str = "the model") -> NoReturn:
    raise ArtifactRefused(code, seen=f"{name} {seen}", expected=expected, fix=fix)
