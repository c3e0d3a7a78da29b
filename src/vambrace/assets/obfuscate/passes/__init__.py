"""The passes of obfuscation by name, and which of them make up a profile, in the order in which they are done.

Passes that change structure and weights come first, so that order, metadata and names, which come last, hide what they
added as well.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.passes.base import Pass, Profile

__all__ = ["pass_class", "pass_names", "profile_names"]

_WHERE: dict[str, str] = {
    "baked_permutation": "channels:BakedPermutation",
    "rebasis": "rebasis:Rebasis",
    "metadata": "metadata:Metadata",
    "names": "names:Names",
    "order": "order:Order",
    "permutation": "permutation:Permutation",
    "predicates": "predicates:Predicates",
    "scaling": "scaling:Scaling",
    "signs": "signs:Signs",
}
_FIRST: dict[Profile, tuple[str, ...]] = {
    "exact": (),
    "tolerance": ("rebasis", "baked_permutation"),
}
_ALWAYS: tuple[str, ...] = ("permutation", "scaling", "signs", "predicates", "order", "metadata", "names")


def pass_names() -> tuple[str, ...]:
    """Every pass there is, sorted."""
    return tuple(sorted(_WHERE))


def profile_names(profile: Profile) -> tuple[str, ...]:
    """The passes of a profile, in order.

    Raises:
        ConfigError: E802, for another profile.
    """
    if profile not in _FIRST:
        raise ConfigError(
            "E802", seen=f"the profile {profile!r}", expected="exact or tolerance", fix="choose one of the two"
        )
    return (*_FIRST[profile], *_ALWAYS)


def pass_class(name: str) -> type[Pass]:
    """The class of a pass, imported now.

    Raises:
        ConfigError: E802, for a name that there is not.
    """
    if name not in _WHERE:
        raise ConfigError(
            "E802", seen=f"the pass {name!r}", expected=f"one of: {', '.join(pass_names())}", fix="correct the name"
        )
    module, _, kind = _WHERE[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), kind)
