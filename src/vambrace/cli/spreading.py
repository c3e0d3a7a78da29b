"""`flagged`: a command may take dataclasses of flags; their fields become its options, under the group's title."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["flagged"]

Outcome = TypeVar("Outcome")


def flagged(command: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Let a command take flag dataclasses: their fields become its parameters, and it gets the dataclass.

    A field that the command takes itself, as an argument say, is the command's.
    """
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters
    groups = {name: hints[name] for name in own if dataclasses.is_dataclass(hints[name])}
    parameters: list[inspect.Parameter] = [
        parameter.replace(annotation=hints[name]) for name, parameter in own.items() if name not in groups
    ]
    spread_over: dict[str, list[str]] = {}
    for group, kind in groups.items():
        types = get_type_hints(kind, include_extras=True)
        fields = [field for field in dataclasses.fields(kind) if field.name not in own]
        spread_over[group] = [field.name for field in fields]
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=_titled(types[field.name], kind.TITLE),
            )
            for field in fields
        ]

    @functools.wraps(command)
    def spread(**given: Any) -> Outcome:
        for group, names in spread_over.items():
            given[group] = groups[group](**{name: given.pop(name) for name in names})
        return command(**given)

    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return spread


def _titled(annotation: object, title: str) -> object:
    """The same annotation, with its option listed under `title`."""
    kind, option = get_args(annotation)
    listed = copy.copy(option)
    listed.rich_help_panel = title
    return Annotated[kind, listed]
