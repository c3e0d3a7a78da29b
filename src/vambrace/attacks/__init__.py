"""Adversarial examples: options and one rule each, on the search loop.

>>> from vambrace.attacks import PGD
>>> PGD(norm="linf", eps=8 / 255).steps
40
"""

from vambrace.attacks.adaptive import Adaptive
from vambrace.attacks.apgd import APGD
from vambrace.attacks.boundary import Boundary
from vambrace.attacks.carlini_wagner import CarliniWagner
from vambrace.attacks.curve import Curve
from vambrace.attacks.ddn import DDN
from vambrace.attacks.deep_fool import DeepFool
from vambrace.attacks.fab import FAB
from vambrace.attacks.flags import flags
from vambrace.attacks.fmn import FMN
from vambrace.attacks.gradient import FGSM, PGD
from vambrace.attacks.hop_skip_jump import HopSkipJump
from vambrace.attacks.interop import as_function
from vambrace.attacks.least_likely import LeastLikely
from vambrace.attacks.ledger import ledger
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
from vambrace.attacks.nes import NES
from vambrace.attacks.random_step import RFGSM
from vambrace.attacks.rays import RayS
from vambrace.attacks.square import Square
from vambrace.attacks.standard import Standard

__all__ = [
    "APGD",
    "Adaptive",
    "BIM",
    "Boundary",
    "CarliniWagner",
    "Curve",
    "DDN",
    "DIFGSM",
    "DeepFool",
    "FAB",
    "FGSM",
    "FMN",
    "HopSkipJump",
    "LeastLikely",
    "MDIFGSM",
    "MIFGSM",
    "MomentumPGD",
    "NES",
    "NIFGSM",
    "PGD",
    "RFGSM",
    "RayS",
    "SIFGSM",
    "Square",
    "Standard",
    "TIFGSM",
    "VMIFGSM",
    "VNIFGSM",
    "as_function",
    "flags",
    "ledger",
]
