"""What counts as success, as a value: `Untargeted(labels)`, `Targeted(classes)`, and combinations.

A goal owns its margin, the one number a search needs: positive exactly where the goal is reached.
Goals combine with `&` (both) and `|` (either). A goal of your own needs `size`, `margin`, `reached`
and `take`; derive from `Goal` for the operators.

    >>> import torch
    >>> goal = Untargeted(torch.tensor([0, 1]))
    >>> goal.margin(torch.tensor([[3.0, 1.0], [2.5, 2.0]])).tolist()
    [-2.0, 0.5]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AllOf", "AnyOf", "Goal", "Targeted", "Untargeted", "as_goal"]


class Goal(ABC):
    """One condition per sample on the model's answer."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many samples the goal speaks of."""

    @abstractmethod
    def margin(self, logits: Tensor) -> Tensor:
        """Logits (n, k) to (n,): > 0 exactly where reached; differentiable; NaN where logits are."""

    @abstractmethod
    def reached(self, predictions: Tensor) -> Tensor:
        """Predicted classes (n,) to bool (n,): all that a model with LABELS access lets one ask."""

    @abstractmethod
    def take(self, index: Tensor) -> Goal:
        """The goal of the samples at `index` (m,), in that order."""

    def __and__(self, other: Goal) -> AllOf:
        return AllOf(self, other)

    def __or__(self, other: Goal) -> AnyOf:
        return AnyOf(self, other)


@dataclass(frozen=True, slots=True, eq=False)
class Untargeted(Goal):
    """Any class but the true one. `labels`: int64 (n,)."""

    labels: Tensor

    def __post_init__(self) -> None:
        _check_classes(self.labels, "labels")

    @property
    def size(self) -> int:
        return self.labels.shape[0]

    def margin(self, logits: Tensor) -> Tensor:
        """Best other logit minus the true one."""
        own, others = _rivals(logits, self.labels)
        return (others - own).squeeze(1)

    def reached(self, predictions: Tensor) -> Tensor:
        return predictions != self.labels

    def take(self, index: Tensor) -> Untargeted:
        return Untargeted(self.labels[index])


@dataclass(frozen=True, slots=True, eq=False)
class Targeted(Goal):
    """Exactly the named class. `classes`: int64 (n,)."""

    classes: Tensor

    def __post_init__(self) -> None:
        _check_classes(self.classes, "classes")

    @property
    def size(self) -> int:
        return self.classes.shape[0]

    def margin(self, logits: Tensor) -> Tensor:
        """Target logit minus the best other one."""
        own, others = _rivals(logits, self.classes)
        return (own - others).squeeze(1)

    def reached(self, predictions: Tensor) -> Tensor:
        return predictions == self.classes

    def take(self, index: Tensor) -> Targeted:
        return Targeted(self.classes[index])


@dataclass(frozen=True, slots=True, eq=False)
class AllOf(Goal):
    """Both goals at once; its margin is the smaller one."""

    first: Goal
    second: Goal

    def __post_init__(self) -> None:
        _check_sizes(self.first, self.second)

    @property
    def size(self) -> int:
        return self.first.size

    def margin(self, logits: Tensor) -> Tensor:
        return self.first.margin(logits).minimum(self.second.margin(logits))

    def reached(self, predictions: Tensor) -> Tensor:
        return self.first.reached(predictions) & self.second.reached(predictions)

    def take(self, index: Tensor) -> AllOf:
        return AllOf(self.first.take(index), self.second.take(index))


@dataclass(frozen=True, slots=True, eq=False)
class AnyOf(Goal):
    """Either goal; its margin is the larger one."""

    first: Goal
    second: Goal

    def __post_init__(self) -> None:
        _check_sizes(self.first, self.second)

    @property
    def size(self) -> int:
        return self.first.size

    def margin(self, logits: Tensor) -> Tensor:
        return self.first.margin(logits).maximum(self.second.margin(logits))

    def reached(self, predictions: Tensor) -> Tensor:
        return self.first.reached(predictions) | self.second.reached(predictions)

    def take(self, index: Tensor) -> AnyOf:
        return AnyOf(self.first.take(index), self.second.take(index))


def as_goal(goal: Goal | Tensor) -> Goal:
    """Plain labels (n,) mean `Untargeted(labels)`; a goal is itself.

    Raises:
        ConfigError: E108, for labels that are not int64 (n,), such as one-hot rows.
    """
    return goal if isinstance(goal, Goal) else Untargeted(goal)


def _check_classes(classes: Tensor, name: str) -> None:
    if not str(getattr(classes, "dtype", "")).startswith("torch."):
        raise ConfigError(
            "E108",
            seen=f"{name} that are a {type(classes).__name__}",
            expected=f"{name} (n,), a torch.int64 tensor",
            fix=f"give torch.as_tensor({name}), one class a sample",
        )
    if classes.ndim == 1 and str(classes.dtype) == "torch.int64":
        return
    one_hot = classes.ndim == 2
    raise ConfigError(
        "E108",
        seen=f"{name} of shape {tuple(classes.shape)} and type {classes.dtype}",
        expected=f"{name} (n,), torch.int64",
        fix=f"{name}.argmax(dim=1), if they are one-hot" if one_hot else f"use {name}.long(), one class a sample",
    )


def _check_sizes(first: Goal, second: Goal) -> None:
    if first.size != second.size:
        raise ConfigError(
            "E108",
            seen=f"goals for {first.size} and {second.size} samples",
            expected="goals for the same samples",
            fix="combine goals before you `take` from them",
        )


def _rivals(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The logit of each sample's class, and the best of the others: (n, 1) each."""
    column = classes.unsqueeze(1)
    return logits.gather(1, column), logits.scatter(1, column, float("-inf")).amax(dim=1, keepdim=True)
