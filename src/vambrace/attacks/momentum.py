"""One family of iterated gradient attacks made of parts, and the attacks that papers named after them.

    >>> from vambrace.attacks import DIFGSM, MDIFGSM
    >>> attack = DIFGSM(eps=8 / 255)
    >>> attack.diversity, attack.decay, MDIFGSM(eps=8 / 255).decay
    (0.5, 0.0, 1.0)

Every attack here is `MomentumPGD` with other defaults, so parts combine at will: `VMIFGSM(eps=..., scales=5,
diversity=0.5, kernel=15)` is the strongest combination of the last paper below. The parts make examples that fool
other models than the one they were made on (`surrogates=` in the call), and cost gradients: a step takes
`scales * (1 + neighbours)` of them. When not: to measure the model that gives the gradients, where APGD finds more
for less.

References, with the part that each added:

- Kurakin, Goodfellow, Bengio 2017, arXiv 1607.02533, section 2.2: several steps (BIM).
- Dong et al. 2018, arXiv 1710.06081, algorithm 1: `decay`.
- Xie et al. 2019, arXiv 1803.06978, section 3: `diversity`, `shrink`. Here a copy is shown smaller on a canvas of the
  size that the model takes, where the paper enlarges the canvas.
- Lin et al. 2020, arXiv 1908.06281, sections 3.1 and 3.2: `lookahead` and `scales`.
- Dong et al. 2019, arXiv 1904.02884, section 3: `kernel`. As in the authors' code the kernel ends at three standard
  deviations.
- Wang, He 2021, arXiv 2103.15571, algorithm 1: `neighbours`, `reach`. Neighbours are drawn around the place where the
  gradient is taken, as in the authors' code.

Gradients are divided by their mean absolute value before momentum adds them up: the l1 norm but for a fixed factor, as
the authors' code has it, and what makes a lookahead as long as a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

from vambrace.attacks.ball import Ball
from vambrace.attacks.fixed import FixedRadius, require_option
from vambrace.attacks.gathering import GatheredAscent
from vambrace.core.options import Ratio, require
from vambrace.ops import losses

if TYPE_CHECKING:
    from vambrace.search.problem import Problem

__all__ = ["BIM", "DIFGSM", "MDIFGSM", "MIFGSM", "MomentumPGD", "NIFGSM", "SIFGSM", "TIFGSM", "VMIFGSM", "VNIFGSM"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentumPGD(FixedRadius):
    """Steps up a gradient that momentum, copies and neighbours have made less particular to one model.

    Every iterate is judged, never a copy. A search that never succeeds takes `steps * scales * (1 + neighbours)`
    gradients, each one forward and one backward, and one forward more: that which judges the last point. Where no
    gradient is taken at the iterate itself (`lookahead`, `diversity`), judging costs one forward a step besides.

    Attributes:
        norm: "linf" or "l2".
        eps: radius in the units of the inputs.
        loss: what is ascended: "ce", "margin" or "dlr".
        steps: of the search, which starts at the input.
        step_size: in the units of the inputs; None: eps / steps.
        decay: what is kept of the momentum at each step; 0: no momentum.
        lookahead: take gradients where the momentum leads, not at the point; nothing without `decay`.
        diversity: chance of each gradient to be taken at a copy that is resized and placed at random; 0: none is.
            Images only.
        shrink: smallest share of its sides that such a copy has, more than 0 and at most 1.
        kernel: pixels across the Gaussian that smooths gradients, an odd number; 1: nothing does. Images only.
        scales: copies over which each gradient is averaged: the image, half, a quarter of it and so on; 1: the image.
        neighbours: points around, whose mean gradient corrects the next one; 0: none.
        reach: how far neighbours lie in each step, in radii `eps`.
    """

    name: ClassVar[str] = "momentum_pgd"
    loss: losses.Loss = "ce"
    steps: int = 10
    step_size: Ratio | None = None
    decay: Ratio = 1.0
    lookahead: bool = False
    diversity: Ratio = 0.0
    shrink: Ratio = 0.9
    kernel: int = 1
    scales: int = 1
    neighbours: int = 0
    reach: Ratio = 1.5

    def __post_init__(self) -> None:
        FixedRadius.__post_init__(self)
        require_option(self.loss in get_args(losses.Loss), "loss", self.loss, '"ce", "margin" or "dlr"')
        require_option(self.steps >= 1, "steps", self.steps, "1 or more")
        size = self.step_size
        require_option(size is None or 0 < size < float("inf"), "step_size", size, "more than 0")
        require_option(0 <= self.decay < float("inf"), "decay", self.decay, "0 or more")
        require_option(0 <= self.diversity <= 1, "diversity", self.diversity, "a chance, 0 to 1")
        require_option(0 < self.shrink <= 1, "shrink", self.shrink, "a share, more than 0 and at most 1")
        require_option(self.kernel >= 1 and self.kernel % 2 == 1, "kernel", self.kernel, "an odd number, 1 or more")
        require_option(self.scales >= 1, "scales", self.scales, "1 or more")
        require_option(self.neighbours >= 0, "neighbours", self.neighbours, "0 or more")
        require_option(0 <= self.reach < float("inf"), "reach", self.reach, "0 or more")

    def require_fit(self, problem: Problem) -> None:
        losses.require_loss(self.loss, problem.goal, problem.model.num_classes)
        parts = [name for name, on in (("diversity", self.diversity > 0), ("kernel", self.kernel > 1)) if on]
        require(
            not parts or problem.inputs.dim() == 4,
            seen=f"{' and '.join(parts)} of {self.name} on inputs of shape {tuple(problem.inputs.shape)}",
            expected="images (n, channels, height, width), which these parts resize and smooth",
            fix=f"switch {' and '.join(parts)} off, or reshape the inputs",
            code="E131",
        )

    def rule(self) -> GatheredAscent:
        """Steps of a fixed size along gathered gradients."""
        return GatheredAscent(
            ball=Ball(norm=self.norm, eps=self.eps),
            loss=self.loss,
            steps=self.steps if self.eps else 0,
            step_size=self.eps / self.steps if self.step_size is None else self.step_size,
            decay=self.decay,
            lookahead=self.lookahead,
            diversity=self.diversity,
            shrink=self.shrink,
            kernel=self.kernel,
            scales=self.scales,
            neighbours=self.neighbours,
            reach=self.reach,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BIM(MomentumPGD):
    """The basic iterative method (arXiv 1607.02533): steps from the input itself, without any part."""

    name: ClassVar[str] = "bim"
    decay: Ratio = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MIFGSM(MomentumPGD):
    """The momentum iterative method (arXiv 1710.06081): BIM with momentum."""

    name: ClassVar[str] = "mi_fgsm"


@dataclass(frozen=True, slots=True, kw_only=True)
class DIFGSM(MomentumPGD):
    """The diverse inputs method (arXiv 1803.06978): BIM with gradients at resized copies."""

    name: ClassVar[str] = "di_fgsm"
    decay: Ratio = 0.0
    diversity: Ratio = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class MDIFGSM(MomentumPGD):
    """Diverse inputs with momentum (arXiv 1803.06978, section 3.4); MindArmour calls it MDIIM."""

    name: ClassVar[str] = "mdi_fgsm"
    diversity: Ratio = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class NIFGSM(MomentumPGD):
    """Nesterov's accelerated gradient (arXiv 1908.06281, section 3.1): MIFGSM with a lookahead."""

    name: ClassVar[str] = "ni_fgsm"
    lookahead: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TIFGSM(MomentumPGD):
    """The translation-invariant method (arXiv 1904.02884): MIFGSM with smoothed gradients."""

    name: ClassVar[str] = "ti_fgsm"
    kernel: int = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class SIFGSM(MomentumPGD):
    """The scale-invariant method (arXiv 1908.06281, section 3.2): MIFGSM over darker copies.

    With `lookahead=True` it is the paper's SI-NI-FGSM.
    """

    name: ClassVar[str] = "si_fgsm"
    scales: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class VMIFGSM(MomentumPGD):
    """Variance tuning (arXiv 2103.15571): MIFGSM whose gradients are corrected by those of neighbours."""

    name: ClassVar[str] = "vmi_fgsm"
    neighbours: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class VNIFGSM(MomentumPGD):
    """Variance tuning with a lookahead (arXiv 2103.15571): NIFGSM whose gradients neighbours correct."""

    name: ClassVar[str] = "vni_fgsm"
    lookahead: bool = True
    neighbours: int = 20
