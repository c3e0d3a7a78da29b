"""Rules by operator: how each of them ties the axes of what it reads and makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vambrace.assets.obfuscate.rules.layout import LAYOUT
from vambrace.assets.obfuscate.rules.linear import LINEAR
from vambrace.assets.obfuscate.rules.pointwise import POINTWISE
from vambrace.assets.obfuscate.rules.windows import WINDOWS

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.rules.view import Rule

__all__ = ["rule_of"]

_RULES: dict[str, Rule] = {**POINTWISE, **LAYOUT, **LINEAR, **WINDOWS}


def rule_of(node: Node) -> Rule | None:
    """The rule of a node, or None: operators of other domains have none."""
    return _RULES.get(node.op) if node.is_a(node.op) else None
