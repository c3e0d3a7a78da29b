"""Attacks of other libraries behind one signature, that of `vambrace.attacks.interop`.

    attack = foolbox_attack("LinfPGD", eps=0.3, steps=40)
    points = attack(net, images, labels)                       # or attack(net, images, labels, targets, True)

Each runs on the same `nn.Module` with values in [0, 1], in eval mode. Their random numbers are global, so every call
seeds the generators of PyTorch, NumPy and Python, and puts them back. `absent` says what is not installed;
the constructors raise `Absent` with the same words, so that a benchmark can print it and go on.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import random
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Absent", "absent", "art_attack", "foolbox_attack", "torchattacks_attack"]

Function = Callable[..., Tensor]

SEED = 0


class Absent(RuntimeError):
    """A library that is not installed here."""


def absent(name: str) -> str | None:
    """Why a library cannot be used, in words for a benchmark's output; None where it can."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        return f"{name} is not installed ({error}): make peers"
    return None


def foolbox_attack(name: str, *, eps: float | None = None, **options: object) -> Function:
    """A class of `foolbox.attacks` by name.

    Args:
        name: such as "LinfPGD" or "LInfFMNAttack".
        eps: radius of attacks of a fixed radius; None: for those that make the distance small.
        options: of its constructor.
    """
    library = _library("foolbox")
    return functools.partial(_foolbox, library, getattr(library.attacks, name)(**options), eps)


def torchattacks_attack(name: str, **options: object) -> Function:
    """A class of `torchattacks` by name, such as "PGD", with the options of its constructor."""
    return functools.partial(_torchattacks, getattr(_library("torchattacks"), name), options)


def art_attack(name: str, **options: object) -> Function:
    """A class of `art.attacks.evasion` by name, such as "HopSkipJump", with the options of its constructor."""
    _library("art")
    return functools.partial(_art, getattr(importlib.import_module("art.attacks.evasion"), name), options)


def _foolbox(
    library: ModuleType,
    attack: Callable[..., tuple[Tensor, Tensor, Tensor]],
    eps: float | None,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor | None = None,
    targeted: bool = False,
) -> Tensor:
    wanted = library.TargetedMisclassification(targets) if targeted else library.Misclassification(labels)
    with _borrowed(model):
        wrapped = library.PyTorchModel(model, bounds=(0, 1), device=inputs.device)
        _, points, _ = attack(wrapped, inputs, wanted, epsilons=eps)
    return points.detach()


def _torchattacks(
    kind: Callable[..., object],
    options: dict[str, object],
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor | None = None,
    targeted: bool = False,
) -> Tensor:
    with _borrowed(model):
        attack = kind(model, **options)
        if targeted:
            attack.set_mode_targeted_by_label(quiet=True)
        return attack(inputs, targets if targeted else labels).detach()


def _art(
    kind: Callable[..., object],
    options: dict[str, object],
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor | None = None,
    targeted: bool = False,
) -> Tensor:
    estimators = importlib.import_module("art.estimators.classification")
    with _borrowed(model):
        with torch.no_grad():
            classes = model(inputs[:1]).shape[1]
        classifier = estimators.PyTorchClassifier(
            _Cast(model, inputs.dtype),
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(inputs.shape[1:]),
            nb_classes=classes,
            clip_values=(0.0, 1.0),
            device_type="cpu" if inputs.device.type == "cpu" else "gpu",
        )
        known = kind.attack_params
        more = {"verbose": False} if "verbose" in known else {}
        more |= {"targeted": targeted} if "targeted" in known else {}
        wanted = np.eye(classes, dtype=np.float32)[(targets if targeted else labels).cpu().numpy()]
        points = kind(classifier, **more, **options).generate(x=inputs.cpu().numpy(), y=wanted)
    return torch.from_numpy(points).to(inputs)


class _Cast(nn.Module):
    """ART's black-box attacks hand over float64 where NumPy 2 promotes; PyTorch does not mix it with float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of any floating type to logits."""
        return self.model(inputs.to(self.dtype))


def _library(name: str) -> ModuleType:
    if reason := absent(name):
        raise Absent(reason)
    return importlib.import_module(name)


@contextlib.contextmanager
def _borrowed(model: nn.Module) -> Iterator[None]:
    """Eval mode and seeded generators inside, everything as it was outside."""
    training = [part for part in model.modules() if part.training]
    state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(SEED)
        np.random.seed(SEED)
        random.seed(SEED)
        model.eval()
        try:
            yield
        finally:
            random.setstate(state[0])
            np.random.set_state(state[1])
            for part in training:
                part.training = True
