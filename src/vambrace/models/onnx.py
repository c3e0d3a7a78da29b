"""ONNX models through onnxruntime on the CPU: scores, no gradients. The only file that imports onnxruntime.

Before the runtime sees a byte, the file is read once and checked (`vambrace.models.onnx_file`). The runtime then gets
the checked bytes and the mapped external files, and opens nothing itself. It runs with fixed threads, one operator at a
time.

Shapes. The first dimension is the batch. A model that fixes it to b runs b rows at a time: with b = 1, as many exports
have, row by row, which is slow but exact; with b > 1, the last rows are filled up by repeating one of them and cut off
again. Samples of another shape than the model's are refused, with one exception: where `input_shape` was stated and
differs from the model's only by sizes of 1, or the model takes plain vectors, samples are reshaped in their own order
(channels, height, width).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from vambrace.core.access import Access, Bounds
from vambrace.core.extras import require
from vambrace.core.reason import reason
from vambrace.errors import ConfigError, ModelMisbehaved
from vambrace.models.contract import Identity
from vambrace.models.onnx_file import Checked, read_onnx, refuse, refuse_locked
from vambrace.models.outputs import checked_logits
from vambrace.models.torch import usable_device

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.models.contract import Outputs
    from vambrace.models.normalise import Normalisation

__all__ = ["OnnxModel", "load_onnx"]

_TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}
_EXPORT = "export the network with one input and its scores as the only floating output"


def load_onnx(
    source: Path | Checked,
    *,
    bounds: Bounds | tuple[float | Tensor, float | Tensor] | None,
    normalise: Normalisation,
    outputs: Outputs = "logits",
    input_shape: tuple[int | None, ...] | None = None,
    device: str | torch.device = "cpu",
) -> OnnxModel:
    """The checked model at a path, or one that was checked before.

    Args:
        source: an .onnx file, or what `check_onnx` gave for its bytes.
        bounds: the box of valid inputs, before normalisation.
        normalise: done before the model.
        outputs: what the model emits, "logits" or "probabilities".
        input_shape: shape of one sample as the caller feeds it, None for a free size; stating it allows flattening.
        device: must be the CPU.

    Raises:
        MissingExtra: E112, without the extra.
        ConfigError: E115, for another device.
        ModelRefused: E230 no ONNX or cut off; E231 too large or nested too deeply; E232 to E234 external data; E235
            custom operators; E236 the runtime cannot use it; E237 inputs or outputs of another form; E238 samples of
            another shape; E855 locked by a key.
    """
    if usable_device(device).type != "cpu":
        raise ConfigError(
            "E115", seen=f"device {device} for an ONNX model", expected="cpu", fix="drop --device for ONNX models"
        )
    runtime = require("onnxruntime", extra="onnx")
    checked = read_onnx(source) if isinstance(source, Path) else source
    name = checked.name
    refuse_locked(checked.model, name)
    data = checked.model.SerializeToString() if checked.data is None else checked.data
    files, weights = checked.files, checked.sha256
    del checked
    session = _session(data, files, name, runtime)
    identity = Identity(
        name=name, kind="onnx", weights=weights, source=None, detail={"outputs": outputs, **normalise.as_json()}
    )
    return OnnxModel(
        session,
        bounds=bounds if bounds is None or isinstance(bounds, Bounds) else Bounds(*bounds),
        normalise=normalise,
        outputs=outputs,
        input_shape=input_shape,
        identity=identity,
    )


class OnnxModel:
    """What `load_onnx` gives: the `Model` contract over a session, with SCORES.

    Attributes:
        calls: how often the model was asked.
        rows: samples it was asked about.
        queries: the same as rows: each answer about a sample is one query.
        fixed_rows: how many samples the runtime answers at once, always; None: as many as there are.
    """

    def __init__(
        self,
        session: Any,  # noqa: ANN401  onnxruntime.InferenceSession; the package is optional
        *,
        bounds: Bounds | None,
        normalise: Normalisation,
        outputs: Outputs,
        input_shape: tuple[int | None, ...] | None,
        identity: Identity,
    ) -> None:
        name = identity.name
        inputs, given = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or inputs[0].type not in _TYPES or not inputs[0].shape:
            shown = ", ".join(f"{item.name} {item.type}{item.shape}" for item in inputs[:3])
            refuse("E237", name, f"takes {shown or 'no input'}", "one floating tensor with a batch dimension", _EXPORT)
        scores = [item for item in given if item.type in _TYPES and (not item.shape or len(item.shape) == 2)]
        if len(scores) != 1:
            shown = ", ".join(f"{item.name} {item.type}{item.shape}" for item in given[:3])
            refuse("E237", name, f"gives {shown}", "one floating output (n, k)", _EXPORT)
        self.calls = 0
        self.rows = 0
        self._session = session
        self._input = str(inputs[0].name)
        self._output = str(scores[0].name)
        self._dtype = _TYPES[inputs[0].type]
        self.fixed_rows = _fixed(inputs[0].shape[0])
        self._taken = tuple(_fixed(size) for size in inputs[0].shape[1:])
        self._normalise = normalise
        self._outputs: Outputs = outputs
        self._bounds = bounds
        self._identity = identity
        self._num_classes = _fixed(scores[0].shape[1]) if scores[0].shape else None
        self._stated = input_shape
        whole = _known(input_shape)
        if whole is not None and not _fits(whole, self._taken) and not _may_reshape(whole, self._taken):
            refuse(
                "E238",
                name,
                f"takes samples of shape {_dimensions(self._taken)}, and they have {_dimensions(whole)}",
                "the same shape, or as many values as the vector that the model takes",
                "correct --size and --channels, or export the model for these samples",
            )
        self._input_shape = whole if input_shape is not None else _known(self._taken)

    @property
    def access(self) -> Access:
        """SCORES."""
        return Access.SCORES

    @property
    def bounds(self) -> Bounds | None:
        """The box of valid inputs."""
        return self._bounds

    @property
    def outputs(self) -> Outputs:
        """What the model itself emits."""
        return self._outputs

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of one sample as the caller feeds it; None while a size is free."""
        return self._input_shape

    @property
    def num_classes(self) -> int | None:
        """Width of the logits."""
        return self._num_classes

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The type of the model's input."""
        return self._dtype

    @property
    def identity(self) -> Identity:
        """Name and hash of the file, external data included."""
        return self._identity

    @property
    def queries(self) -> int:
        """Samples that were asked about."""
        return self.rows

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...), floating, to logits (n, k) on the inputs' device; no gradient.

        Raises:
            ConfigError: E113, for inputs of another type or shape.
            ModelMisbehaved: E402 to E404 for outputs of another form, E406 when the runtime fails.
        """
        shape = self._row_shape(inputs)
        wide = inputs.detach().to("cpu", torch.promote_types(inputs.dtype, torch.float32))
        fed = self._normalise(wide).to(self._dtype).reshape(len(inputs), *shape).contiguous()
        self.calls += 1
        self.rows += len(inputs)
        given = self._run_all(fed)
        logits = checked_logits(given, len(inputs), self._outputs)
        if self._num_classes is None or self._input_shape is None:
            self._input_shape, self._num_classes = tuple(inputs.shape[1:]), logits.shape[1]
        return logits.to(inputs.device)

    def predict(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to the class of the largest logit, int64 (n,); one query a sample."""
        return self(inputs).argmax(dim=1)

    def _row_shape(self, inputs: Tensor) -> tuple[int, ...]:
        """The shape in which a sample reaches the model."""
        shape = tuple(inputs.shape[1:])
        stated = self._stated is None or _fits(shape, self._stated)
        if inputs.is_floating_point() and stated:
            if _fits(shape, self._taken):
                return shape
            if self._stated is not None and _may_reshape(shape, self._taken):
                return cast("tuple[int, ...]", self._taken)
        raise ConfigError(
            "E113",
            seen=f"inputs of type {inputs.dtype} and shape {tuple(inputs.shape)}",
            expected=f"floating inputs of shape (n, {_dimensions(self._taken if stated else self._stated)})",
            fix="correct size, channels or layout of the input contract; stating the size, such as --size 28,28, "
            "also lets a model that takes vectors get flattened samples",
        )

    def _run_all(self, fed: Tensor) -> object:
        if self.fixed_rows is None or len(fed) == self.fixed_rows:
            return self._run(fed)
        if len(fed) == 0:
            return torch.empty(0, self._num_classes or 0)
        parts: list[Tensor] = []
        for part in cast("tuple[Tensor, ...]", fed.split(self.fixed_rows)):
            short = self.fixed_rows - len(part)
            full = torch.cat([part, part[-1:].expand(short, *part.shape[1:])]) if short else part
            answer = self._run(full)
            checked_logits(answer, self.fixed_rows, "logits")
            parts.append(answer[: len(part)])
        return torch.cat(parts)

    def _run(self, fed: Tensor) -> Tensor:
        try:
            (given,) = self._session.run([self._output], {self._input: fed.numpy()})
        except Exception as error:  # the runtime's errors share no base class
            raise ModelMisbehaved(
                "E406",
                seen=f"{self._identity.name} raised {type(error).__name__} "
                f"on inputs of shape {tuple(fed.shape)}: {reason(error)}",
                expected="scores (n, k)",
                fix="run one batch by hand with onnxruntime; if only single rows work, "
                "export with a free batch dimension (dynamic_axes or dynamic_shapes)",
            ) from error
        return torch.from_numpy(given)

    def __repr__(self) -> str:
        return f"OnnxModel({self._identity.name!r}, outputs={self._outputs!r})"


def _session(data: bytes, files: dict[str, Any], name: str, runtime: Any) -> Any:  # noqa: ANN401
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    # The bytes were checked as ONNX; a file that is also a runtime flatbuffer must not be read as one.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if files:
        buffers = [memoryview(content) for content in files.values()]
        options.add_external_initializers_from_files_in_memory(list(files), buffers, [len(one) for one in buffers])
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors share no base class
        refuse("E236", name, f"cannot be used by onnxruntime ({reason(error)})", "a valid ONNX model")


def _fixed(size: object) -> int | None:
    """A stated size, or None for one that is free."""
    return size if isinstance(size, int) and size > 0 else None


def _known(shape: tuple[int | None, ...] | None) -> tuple[int, ...] | None:
    """The shape, if every size in it is stated."""
    return None if shape is None or None in shape else cast("tuple[int, ...]", shape)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(size in {None, given} for given, size in zip(shape, wanted, strict=True))


def _may_reshape(shape: tuple[int, ...], taken: tuple[int | None, ...]) -> bool:
    """Whether the model takes the same values in the same order: a vector, or the shape with other sizes of 1."""
    if None in taken or math.prod(shape) != math.prod(cast("tuple[int, ...]", taken)):
        return False
    plain, model = [[size for size in sizes if size != 1] for sizes in (shape, taken)]
    return plain == model or len(model) <= 1


def _dimensions(shape: tuple[int | None, ...] | None) -> str:
    return ", ".join("any" if size is None else str(size) for size in shape or ())
