"""In place of `vambrace.assets.obfuscate.measure.overhead.Latency`: times that a test knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["stopwatch"]


def stopwatch(slower: Callable[[Any, Any], float]) -> type:
    """A class that says of two models how much slower the second one is, surely."""

    class Known:
        def __init__(self, original: Any, obfuscated: Any, *_: Any, **__: Any) -> None:
            self.ratio = slower(original, obfuscated)

        def session(self, *_: Any, **__: Any) -> None:
            pass

        def ratios(self) -> Any:
            return {"cpu": SimpleNamespace(median=self.ratio, interval=None)}

    return Known
