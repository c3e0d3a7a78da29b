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
    "chain_layers": "chains:ChainLayers",
    "disguises": "disguises:Disguises",
    "fold_norms": "norms:FoldNorms",
    "fuse_linear": "fusion:FuseLinear",
    "insert_norms": "norms:InsertNorms",
    "metadata": "metadata:Metadata",
    "names": "names:Names",
    "order": "order:Order",
    "pack_weights": "packing:PackWeights",
    "permutation": "permutation:Permutation",
    "phantoms": "phantoms:Phantoms",
    "predicates": "predicates:Predicates",
    "rebasis": "rebasis:Rebasis",
    "scaling": "scaling:Scaling",
    "signs": "signs:Signs",
    "split_layers": "fission:SplitLayers",
}
_FIRST: dict[Profile, tuple[str, ...]] = {
    "exact": (),
    "tolerance": (
        # The first ones cannot be undone bit for bit, so nothing that can be comes before them.
        *("fold_norms", "fuse_linear", "rebasis", "chain_layers", "insert_norms"),
        *("baked_permutation", "split_layers", "disguises", "pack_weights"),
    ),
}
_ALWAYS: tuple[str, ...] = ("permutation", "scaling", "signs", "predicates", "metadata", "phantoms", "order", "names")


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
