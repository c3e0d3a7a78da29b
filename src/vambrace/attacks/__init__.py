"""Adversarial examples: options and one rule each, on the search loop.

>>> from vambrace.attacks import PGD
>>> PGD(norm="linf", eps=8 / 255).steps
40
"""

from vambrace.attacks.apgd import APGD
from vambrace.attacks.curve import Curve
from vambrace.attacks.ddn import DDN
from vambrace.attacks.fab import FAB
from vambrace.attacks.gradient import FGSM, PGD
from vambrace.attacks.least_likely import LeastLikely
from vambrace.attacks.momentum import (
    BIM,
    DIFGSM,
    MDIFGSM,
    MIFGSM,
    NIFGSM,
    SIFGSM,
    TIFGSM,
    VMIFGSM,
    VNIFGSM,
    MomentumPGD,
)
from vambrace.attacks.random_step import RFGSM

__all__ = [
    "APGD",
    "BIM",
    "Curve",
    "DDN",
    "DIFGSM",
    "FAB",
    "FGSM",
    "LeastLikely",
    "MDIFGSM",
    "MIFGSM",
    "MomentumPGD",
    "NIFGSM",
    "PGD",
    "RFGSM",
    "SIFGSM",
    "TIFGSM",
    "VMIFGSM",
    "VNIFGSM",
]
