"""Differentially private training: clipped sums in one backward pass, secret noise, a ledger, honest accounting.

    from vambrace.privacy import dp
    private = dp.make_private(module, optimizer, dataset, loss="cross_entropy", clip=dp.Flat(clip_norm=1.0), ...)

Names are resolved on first use: accounting never needs torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vambrace.privacy.dp.accounting import Guarantee, delta, epsilon
    from vambrace.privacy.dp.audit import Audit
    from vambrace.privacy.dp.audited import Audited
    from vambrace.privacy.dp.calibration import Calibration, calibrate
    from vambrace.privacy.dp.charges import Charge, Spent
    from vambrace.privacy.dp.clipping import AdaptiveQuantile, Automatic, Flat, PerLayer
    from vambrace.privacy.dp.fixing import fix_modules
    from vambrace.privacy.dp.guessing import Bound, audit_bound
    from vambrace.privacy.dp.ledger import Ledger
    from vambrace.privacy.dp.making import make_private
    from vambrace.privacy.dp.monitors import Monitor, max_epochs
    from vambrace.privacy.dp.noise import AdaptiveGaussian, DiscreteGaussian, Gaussian, Laplace
    from vambrace.privacy.dp.power import AuditDesign, canaries_needed
    from vambrace.privacy.dp.private import Private
    from vambrace.privacy.dp.sampling import Everything, FixedSize, Poisson, Shuffled, TruncatedPoisson

_HOMES = {
    "accounting": ("Guarantee", "delta", "epsilon"),
    "audit": ("Audit",),
    "audited": ("Audited",),
    "calibration": ("Calibration", "calibrate"),
    "charges": ("Charge", "Spent"),
    "clipping": ("AdaptiveQuantile", "Automatic", "Flat", "PerLayer"),
    "fixing": ("fix_modules",),
    "guessing": ("Bound", "audit_bound"),
    "ledger": ("Ledger",),
    "making": ("make_private",),
    "monitors": ("Monitor", "max_epochs"),
    "noise": ("AdaptiveGaussian", "DiscreteGaussian", "Gaussian", "Laplace"),
    "power": ("AuditDesign", "canaries_needed"),
    "private": ("Private",),
    "sampling": ("Everything", "FixedSize", "Poisson", "Shuffled", "TruncatedPoisson"),
}
_PLACES = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AdaptiveGaussian",
    "AdaptiveQuantile",
    "Audit",
    "AuditDesign",
    "Audited",
    "Automatic",
    "Bound",
    "Calibration",
    "Charge",
    "DiscreteGaussian",
    "Everything",
    "FixedSize",
    "Flat",
    "Gaussian",
    "Guarantee",
    "Laplace",
    "Ledger",
    "Monitor",
    "PerLayer",
    "Poisson",
    "Private",
    "Shuffled",
    "Spent",
    "TruncatedPoisson",
    "audit_bound",
    "calibrate",
    "canaries_needed",
    "delta",
    "epsilon",
    "fix_modules",
    "make_private",
    "max_epochs",
]


def __getattr__(name: str) -> object:
    if name in _PLACES:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
