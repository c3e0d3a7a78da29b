"""Adversarial examples: options and one rule each, on the search loop.

>>> from vambrace.attacks import PGD
>>> PGD(norm="linf", eps=8 / 255).steps
40
"""

from vambrace.attacks.apgd import APGD
from vambrace.attacks.curve import Curve
from vambrace.attacks.gradient import FGSM, PGD

__all__ = ["APGD", "Curve", "FGSM", "PGD"]
