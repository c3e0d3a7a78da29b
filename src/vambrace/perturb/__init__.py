"""Natural perturbations: what cameras, files and hands do to inputs, with severities 1 to 5.

from vambrace.perturb import Rotate
turned = Rotate()(inputs, severity=3, rng=0, ids=batch.ids)
"""

from vambrace.perturb.affine import Rotate
from vambrace.perturb.blur import GaussianBlur
from vambrace.perturb.codec import Jpeg
from vambrace.perturb.frame import Perturbation
from vambrace.perturb.noise import GaussianNoise
from vambrace.perturb.tone import Contrast

__all__ = ["Contrast", "GaussianBlur", "GaussianNoise", "Jpeg", "Perturbation", "Rotate"]
