"""A PyTorch module as a `Model`: the way in for whoever has the network in memory.

    >>> from torch import nn
    >>> import torch
    >>> model = from_torch(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval(), bounds=(0, 1))
    >>> model(torch.rand(2, 1, 2, 2)).shape, model.predict(torch.rand(5, 1, 2, 2)).dtype
    (torch.Size([2, 3]), torch.int64)

The module is borrowed, not taken: each call runs it in eval mode with its parameters frozen (`Frozen`) and puts
every flag back. Gradients flow to the inputs only. A module that was handed over in train mode is reported by a
warning and by `TorchModel.was_training`, since its owner may expect dropout or batch statistics to be on.

Without normalisation and in the model's own dtype, the module is given the caller's tensor itself, not a copy. If it
writes into it, PyTorch's version counter shows, and the call raises E424. Writes that evade the counter
(`.data`, NumPy) are found by preflight, which compares the tensor it handed over.

NaN and infinite logits are no error here: the search and preflight must see and diagnose them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from vambrace.core.access import Access, Bounds
from vambrace.core.reason import reason
from vambrace.errors import ConfigError, ModelMisbehaved, VambraceError
from vambrace.models.contract import Identity
from vambrace.models.frozen import Frozen
from vambrace.models.normalise import Normalisation
from vambrace.models.outputs import checked_logits
from vambrace.models.weights import weights_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vambrace.models.contract import Outputs

__all__ = ["TorchModel", "from_torch", "usable_device"]

_log = logging.getLogger(__name__)


def from_torch(
    module: nn.Module,
    *,
    bounds: Bounds | tuple[float | Tensor, float | Tensor] | None = (0.0, 1.0),
    mean: float | Sequence[float] | Tensor | None = None,
    std: float | Sequence[float] | Tensor | None = None,
    device: str | torch.device | None = None,
    outputs: Outputs = "logits",
    input_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    identity: Identity | str | None = None,
) -> TorchModel:
    """A classifier in memory, ready to be assessed.

    Args:
        module: takes inputs (n, ...) and gives one row of outputs for each, (n, k).
        bounds: the box of valid inputs in the caller's units, before normalisation; None where there is none.
        mean: subtracted inside the model: a number, one per channel, or a tensor that broadcasts against a sample.
        std: divides after `mean`; of the same kinds.
        device: where the module runs; given, the module is moved there and stays. None: where it is.
        outputs: what the module emits, "logits" or "probabilities".
        input_shape: shape of one sample; None: learned from the first call.
        num_classes: width of the outputs; None: learned from the first call.
        identity: what makes results of this model reusable across processes. A string vouches for the code under that
            name; the weights are hashed. None: runs cannot be resumed in another process.

    Raises:
        ConfigError: E114 for a mean or std that cannot be used, E115 for other arguments.
    """
    if not isinstance(module, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(
            "E115",
            seen=f"a {type(module).__name__} as the model",
            expected="a torch.nn.Module",
            fix="pass the network itself; wrap a function in a module with a forward()",
        )
    if outputs not in {"logits", "probabilities"}:
        raise ConfigError(
            "E115",
            seen=f"outputs={outputs!r}",
            expected='"logits" or "probabilities"',
            fix='let the network give scores, and say outputs="logits"',
        )
    if device is not None:
        module.to(usable_device(device))
    normalise = Normalisation(mean, std)
    if isinstance(identity, str):
        identity = Identity(
            name=identity,
            kind="torch",
            weights=weights_sha256(module),
            source=None,
            detail={"outputs": outputs, "dtype": str(_dtype(module)), **normalise.as_json()},
        )
    return TorchModel(
        module,
        bounds=bounds if bounds is None or isinstance(bounds, Bounds) else Bounds(*bounds),
        normalise=normalise,
        outputs=outputs,
        input_shape=None if input_shape is None else tuple(input_shape),
        num_classes=num_classes,
        identity=identity,
    )


def usable_device(device: str | torch.device) -> torch.device:
    """The device, if tensors can be put there.

    Raises:
        ConfigError: E115 for a name that is none, or a device that this machine or this build of torch does not have.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            "E115",
            seen=f"device {str(device)!r} ({reason(error)})",
            expected="a device of this machine",
            fix='use "cpu", or see `vambrace doctor` for what is there',
        ) from error


class TorchModel:
    """What `from_torch` gives: the `Model` contract over a module.

    Attributes:
        module: the network itself, for whoever needs INTERNALS.
        was_training: names of the submodules that were in train mode when handed over ("" is the module itself);
            empty is right.
        calls: how often the module was run.
        rows: samples it was run on.
        queries: samples asked through `predict`.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        bounds: Bounds | None,
        normalise: Normalisation,
        outputs: Outputs,
        input_shape: tuple[int, ...] | None,
        num_classes: int | None,
        identity: Identity | None,
    ) -> None:
        first = next(module.parameters(), None)
        first = next(module.buffers(), None) if first is None else first
        self.module = module
        self.was_training = _training(module)
        self.calls = 0
        self.rows = 0
        self.queries = 0
        self._frozen = Frozen(module)
        self._normalise = normalise
        self._plain = normalise.is_identity
        self._outputs: Outputs = outputs
        self._declared_shape = self._input_shape = input_shape
        self._declared_classes = self._num_classes = num_classes
        self._identity = identity
        self._device = torch.device("cpu") if first is None else first.device
        self._dtype = _dtype(module)
        self._bounds = bounds if bounds is None else bounds.to(torch.zeros((), device=self._device))
        self._contiguous = False
        if self.was_training:
            _log.warning(
                "%s was handed over in train mode (%d of its parts); "
                "it is assessed in eval mode, and put back after each call",
                type(module).__name__,
                len(self.was_training),
            )

    @property
    def access(self) -> Access:
        """INTERNALS; GRADIENTS for a compiled TorchScript module, whose parts take no hooks."""
        return Access.GRADIENTS if isinstance(self.module, torch.jit.ScriptModule) else Access.INTERNALS

    @property
    def bounds(self) -> Bounds | None:
        """The box of valid inputs."""
        return self._bounds

    @property
    def outputs(self) -> Outputs:
        """What the module itself emits."""
        return self._outputs

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of one sample; learned from the first call where it was not given."""
        return self._input_shape

    @property
    def num_classes(self) -> int | None:
        """Width of the logits; learned from the first call where it was not given."""
        return self._num_classes

    @property
    def device(self) -> torch.device:
        """Where the module's parameters are."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the first floating parameter."""
        return self._dtype

    @property
    def identity(self) -> Identity | None:
        """What a unit key needs; None unless it was given."""
        return self._identity

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...), floating, to logits (n, k) on the inputs' device; float32 at least.

        Raises:
            ConfigError: E113, for inputs that are not floating or have another shape than was declared.
            ModelMisbehaved: E401 to E404 for outputs that are no logits, E406 when the module raises, E424 when it
                writes into its input.
        """
        shape = self._declared_shape
        # Arrays come here too, whatever the annotation says.
        is_float = isinstance(inputs, Tensor) and inputs.is_floating_point()  # pyright: ignore[reportUnnecessaryIsInstance]
        if not is_float or (shape is not None and inputs.shape[1:] != shape):
            raise _bad_inputs(inputs, shape)
        self.calls += 1
        self.rows += inputs.shape[0]
        fed = inputs if inputs.device == self._device else inputs.to(self._device)
        if not self._plain:
            # In single precision at least: half would round 0..255 data before the mean is taken off.
            fed = self._normalise(fed.to(torch.promote_types(fed.dtype, torch.float32)))
        if fed.dtype != self._dtype:
            fed = fed.to(self._dtype)
        if self._contiguous and not _is_plain(fed):
            fed = fed.clone(memory_format=torch.contiguous_format)
        version = fed._version if fed is inputs and not fed.is_inference() else -1
        with self._frozen:
            given = self._run(fed)
        if version >= 0 and fed._version != version:
            raise ModelMisbehaved(
                "E424",
                seen=f"{type(self.module).__name__} wrote into the tensor that it was given",
                expected="forward() leaves its input as it is",
                fix="replace in-place operations on the input (sub_, relu_, inplace=True of the first layer), "
                "or clone it first",
            )
        logits = checked_logits(given, inputs.shape[0], self._outputs, self._declared_classes, self.module)
        if self._num_classes is None or self._input_shape is None:
            self._input_shape, self._num_classes = tuple(inputs.shape[1:]), logits.shape[1]
        return logits if logits.device == inputs.device else logits.to(inputs.device)

    def predict(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to the class of the largest logit, int64 (n,); one query a sample."""
        self.queries += inputs.shape[0]
        with torch.no_grad():
            return self(inputs).argmax(dim=1)

    def _run(self, fed: Tensor) -> object:
        try:
            return self.module(fed)
        except VambraceError:
            raise
        except (
            Exception,
            SystemExit,
        ) as error:  # a model that calls sys.exit(0) must not end a run as if it had passed
            if _is_memory(error):
                raise
            if _needs_contiguous(error) and not _is_plain(fed):
                # `view(n, -1)` in forward() cannot read channels-last activations: plain layout from now on.
                self._contiguous = True
                return self._run(fed.clone(memory_format=torch.contiguous_format))
            raise ModelMisbehaved(
                "E406",
                seen=f"{type(self.module).__name__} raised {type(error).__name__} "
                f"on inputs of shape {tuple(fed.shape)}: {reason(error)}",
                expected="logits (n, k) for inputs of this shape",
                fix="call the network on such a batch by hand; "
                "if the shape is wrong, correct size, channels or layout of the input contract",
            ) from error

    def __repr__(self) -> str:
        return f"TorchModel({type(self.module).__name__}, outputs={self._outputs!r}, device={str(self._device)!r})"


def _training(module: nn.Module) -> tuple[str, ...]:
    parts = cast("Iterable[tuple[str, nn.Module]]", module.named_modules())
    return tuple(name for name, part in parts if part.training)


def _dtype(module: nn.Module) -> torch.dtype:
    tensors = (*module.parameters(), *module.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def _bad_inputs(inputs: object, shape: tuple[int, ...] | None) -> ConfigError:
    if not isinstance(inputs, Tensor):
        return ConfigError(
            "E113",
            seen=f"inputs that are a {type(inputs).__name__}",
            expected="a floating tensor (n, ...)",
            fix="convert first, such as torch.from_numpy(inputs).float()",
        )
    if not inputs.is_floating_point():
        return ConfigError(
            "E113",
            seen=f"inputs of type {inputs.dtype}",
            expected="floating values inside the bounds",
            fix="convert first, such as inputs.float() / 255 for bounds (0, 1)",
        )
    return ConfigError(
        "E113",
        seen=f"inputs of shape {tuple(inputs.shape)}",
        expected=f"(n, {', '.join(map(str, shape or ()))})",
        fix="feed samples of one shape; a single sample needs a batch dimension: inputs[None]",
    )


def _is_memory(error: BaseException) -> bool:
    # Running out of memory says nothing about the model; whoever chose the batch must hear it as it is.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _needs_contiguous(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "view size is not compatible" in str(error)


def _is_plain(tensor: Tensor) -> bool:
    # Not is_contiguous(): with one channel it is true of channels-last strides as well, and convolutions follow those.
    return tensor.stride() == torch.empty(tensor.shape, device="meta").stride()
