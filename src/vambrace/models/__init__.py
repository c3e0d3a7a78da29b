"""What is assessed: networks from memory and from files, and wrappers around them.

    model = models.from_torch(module, bounds=(0, 1))
    model = models.load("net.safetensors", factory="mypkg.nets:small")
    model = models.load("net.onnx")

Optional packages are not needed to import this: an ONNX model asks for the extra when it is loaded.
"""

from vambrace.models.bpda import BPDA
from vambrace.models.contract import Identity, Model, Outputs
from vambrace.models.ensemble import Ensemble
from vambrace.models.expectation import Expectation
from vambrace.models.load import load
from vambrace.models.low_precision import LowPrecision
from vambrace.models.torch import TorchModel, from_torch
from vambrace.models.wrappers import Batched, Counted

__all__ = [
    "BPDA",
    "Batched",
    "Counted",
    "Ensemble",
    "Expectation",
    "Identity",
    "LowPrecision",
    "Model",
    "Outputs",
    "TorchModel",
    "from_torch",
    "load",
]
