"""Obfuscation of ONNX models: passes in order over one net, the map of what they did, and the way back.

    obfuscated = onnx_model("net.onnx", profile="exact")
    obfuscated.model                # an onnx.ModelProto that computes the same
    undo(obfuscated.model, obfuscated.map)

It raises the cost of reading a model. It is not encryption: whoever runs the model has its function, and whoever holds
the original finds its weights again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vambrace.assets.obfuscate.keyed import Stream, as_key, fingerprint
from vambrace.assets.obfuscate.locks import lock_of, not_led_back
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes import pass_class, profile_names
from vambrace.assets.obfuscate.passes.choosing import with_share
from vambrace.assets.obfuscate.planning import BUDGET, check_budget
from vambrace.assets.obfuscate.record import Entry, ObfuscationMap, check_map, model_digest
from vambrace.core import spec
from vambrace.core.reason import reason
from vambrace.errors import ArtifactRefused, ConfigError, ModelRefused, VambraceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.measure.equality import Decide
    from vambrace.assets.obfuscate.passes.base import Pass, Profile
    from vambrace.assets.obfuscate.planning import Fitted, Planned

__all__ = ["Obfuscated", "Undone", "onnx_model", "undo"]

SHARES = {"small": 0.1, "medium": 0.3, "large": 0.6}
"""Share of the eligible places that passes with a cost take, as in MindSpore's `obf_ratio`."""

SLOWDOWN = 0.005
"""Most that each pass with a cost may add to a run, as a share of it and by an estimate, where its share is open; that
is for the usual budget, and larger ones give more in proportion."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Obfuscated:
    """A model and its map.

    Attributes:
        model: onnx.ModelProto.
        map: what was done; a secret.
        fitted: which passes move answers too far, where there were inputs to measure that with.
        planned: which passes are too slow, where there was a budget.
    """

    model: Any
    map: ObfuscationMap
    fitted: Fitted | None = None
    planned: Planned | None = None

    @property
    def left_out(self) -> dict[str, str]:
        """Passes that were left out for what was measured, and why."""
        moved = self.fitted.left_out if self.fitted is not None else ()
        why = {each.name: f"moves answers by {each.moved}" for each in moved}
        if self.planned is not None:
            alone = self.planned.alone
            for name in self.planned.dropped:
                why[name] = f"takes too long ({alone[name]:.2f} times the latency by itself)"
        return why


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Undone:
    """A model that was led back.

    Attributes:
        model: onnx.ModelProto.
        kept: passes that cannot be undone and are still in it.
    """

    model: Any
    kept: tuple[str, ...]


def onnx_model(
    source: str | Path | bytes | Any,  # noqa: ANN401  onnx.ModelProto; the package is optional
    *,
    profile: Profile = "exact",
    passes: Iterable[str | Pass] | None = None,
    ratio: Literal["small", "medium", "large"] | None = None,
    seed: int | bytes | None = None,
    customer: str | None = None,
    inputs: NDArray[Any] | Sequence[NDArray[Any]] | Mapping[str, NDArray[Any]] | None = None,
    budget: float | None = None,
    decide: Decide | None = None,
) -> Obfuscated:
    """Obfuscate a model.

    With inputs, what comes out in the tolerance profile holds two gates of that profile: `equality`, a difference of at
    most 1e-5 of a sample's largest answer, and `top1`. Passes that break them are left out. As in `measure`, that is on
    the first 500 rows under the runtime's first settings and on the first 50 under four others; no row behind those is
    looked at. Where the original differs from itself, nothing is left out.

    Args:
        source: path of an .onnx file, its bytes, or an onnx.ModelProto, which is left as it is.
        profile: "exact", equal bit for bit under the same runtime settings, or "tolerance", equal but for rounding.
        passes: names or options of passes in the order in which to do them, instead of the profile's own; each must be
            of the profile.
        ratio: how many of the eligible places passes with a cost take: a tenth, three or six tenths. None: three, as
            far as each of these passes adds little to the time of a run (half a per cent or two), by an estimate.
        seed: 32 secret bytes or a whole number; by default fresh bytes of the operating system.
        customer: whose copy this is; `seed` must then be the 32 bytes that all copies share.
        inputs: real samples (n, ...), as for `measure`; in the exact profile they serve for the budget alone.
        budget: latency relative to the original, such as 1.05, as far as passes that cost anything can be left out.
        decide: from the outputs of a call to whole numbers, what the model is used for; these have to agree in place of
            top-1, as in `measure`.

    Raises:
        ConfigError: E800 seed or customer; E801 source; E802 profile, passes or ratio; E820 inputs, or a budget without
            any; E839 a budget that is none.
        ModelRefused: E200, E230 to E235, for a file that is unsafe or cannot be read; E855, for a locked model.
        ArtifactRefused: E821, E822, for a model that does not run on the inputs.
    """
    if ratio is not None and ratio not in SHARES:
        raise _wrong(f"the ratio {ratio!r}", "small, medium or large", "choose one of the three")
    key = as_key(seed) if customer is None else fingerprint(customer, seed if isinstance(seed, bytes) else b"")
    if budget is not None:
        check_budget(budget)
    if budget is not None and inputs is None:
        raise ConfigError(
            "E820", seen="a budget without inputs", expected="real samples to measure with", fix="give inputs as well"
        )
    wanted = profile_names(profile) if passes is None else passes
    slowdown = SLOWDOWN * max(1.0, ((budget or BUDGET) - 1) / (BUDGET - 1)) if ratio is None else None
    chosen = [_ready(one, SHARES[ratio or "medium"], profile, slowdown) for one in wanted]
    net = Net.load(source)
    if lock_of(net.extra) is not None:
        raise ModelRefused(
            "E855",
            seen="a locked model, whose key would fit no longer",
            expected="a model in order",
            fix="unlock it, obfuscate it, and lock the result",
        )
    if inputs is None or (budget is None and profile == "exact"):
        return _made(net, chosen, key, profile, customer)
    from vambrace.assets.obfuscate.budget import within
    from vambrace.assets.obfuscate.measure.runtime import load

    read = load(source) if isinstance(source, str | Path) else source

    def make(tried: Sequence[Pass], first: int) -> Obfuscated:
        return _made(Net.load(read), tried, key, profile, customer, first)

    return within(net.model(), chosen, make, inputs, budget, decide)


def _made(
    net: Net, passes: Sequence[Pass], key: bytes, profile: Profile, customer: str | None, first: int = 0
) -> Obfuscated:
    """Do passes to a net, in place, with the choices of a list in which the first one stands at the place `first`."""
    original = model_digest(net.model())
    entries: list[Entry] = []
    for place, one in enumerate(passes, first):
        applied = one.apply(net, Stream(key, "pass", place, one.name))
        fields = {field.name: getattr(applied, field.name) for field in dataclasses.fields(applied)}
        entries.append(Entry(name=one.name, options=one.as_json(), **fields))
    model = net.model()
    done = ObfuscationMap(
        profile=profile,
        customer=customer,
        original=original,
        obfuscated=model_digest(model),
        passes=tuple(entries),
    )
    return Obfuscated(model=model, map=done)


def undo(model: Any, obfuscation: ObfuscationMap) -> Undone:  # noqa: ANN401  onnx.ModelProto, bytes or a path
    """Lead an obfuscated model back by its map; the model becomes what it was, bit for bit, and that is checked.

    But for the order of attributes in its file where graphs stand before others (Scan): graphs come last. Where a pass
    cannot be undone, all others are, and what is checked is that the model is the one that was made.

    Raises:
        ArtifactRefused: E803, for what is no map; E804, for the map of another model, or a model that was
            changed since.
        ConfigError: E801, E802, for what is no model or a pass that this version does not have.
        ModelRefused: E200, E230 to E235, as `onnx_model`; E855, for a model that was locked since.
    """
    check_map(obfuscation)
    net = Net.load(model)
    if (lock := lock_of(net.extra)) is not None:
        raise not_led_back(lock)
    one_way = any(entry.done and entry.record is None for entry in obfuscation.passes)
    # What comes out will not be the original then, so a wrong key or another edit would not show in it.
    if one_way and model_digest(net.model()) != obfuscation.obfuscated:
        raise _other("not what was written")
    kept: list[str] = []
    for entry in reversed(obfuscation.passes):
        if entry.record is None:
            kept += [entry.name] if entry.done else []
            continue
        one = spec.read(pass_class(entry.name), entry.options)
        try:
            one.undo(net, entry.record)
        except VambraceError:
            raise
        except Exception as error:  # whatever a stranger wrote into a map
            raise _other(f"the pass {entry.name} cannot be undone ({reason(error, 120)})") from error
    try:
        undone = net.model()
    except Exception as error:  # records may also leave what is no model
        raise _other(f"what comes out is no model ({reason(error, 120)})") from error
    if not kept and model_digest(undone) != obfuscation.original:
        raise _other("what comes out is not the original")
    return Undone(model=undone, kept=tuple(reversed(kept)))


def _ready(one: str | Pass, share: float, profile: Profile, slowdown: float | None) -> Pass:
    """A pass with its share stated; without a `slowdown`, that share is done whatever time it is likely to take."""
    made = pass_class(one)() if isinstance(one, str) else one
    if profile == "exact" and made.profile != "exact":
        raise _wrong(
            f"the pass {made.name} in the exact profile", "passes whose results are equal", 'choose profile="tolerance"'
        )
    return with_share(made, share, slowdown)


def _other(seen: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E804",
        seen=f"a model with which this map does not go: {seen}",
        expected="the model that this map was made with, as it was written",
        fix="give the map that was written with this file, and for a locked one the key that it was locked with",
    )


def _wrong(seen: str, expected: str, fix: str) -> ConfigError:
    return ConfigError("E802", seen=seen, expected=expected, fix=fix)
