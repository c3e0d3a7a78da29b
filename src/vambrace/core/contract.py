"""The input contract: what the caller feeds, written down, for this is where tools of this kind go wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from vambrace.core.options import Options, Ratio, require

__all__ = ["InputContract", "Layout", "Resize"]

Layout = Literal["NCHW", "NHWC", "NHW", "features"]
Resize = Literal["none", "squash", "center"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputContract(Options):
    """How stored samples become what the model is fed, and what the model does with it first.

    Attributes:
        bounds: the box of valid inputs in the caller's units. uint8 data with bounds (0, 1) is divided by
            255; with bounds (0, 255) it is only cast. None: images mean (0, 1); arrays of floats must state
            it.
        mean, std: per-channel normalisation done inside the model, differentiably, in units of `bounds`;
            empty: none.
        size: (height, width) the model needs; None: as stored.
        resize: what to do with images of another size: "none" refuses, "squash" ignores the aspect ratio,
            "center" scales the short side and crops the centre.
        layout: order of the axes of stored arrays; None: taken from the shape where it is unambiguous, else
            refused.
        channels: 1 or 3 for images; None: as stored, which must then be equal for all.
        classes: class names in label order; empty: all-integer folder names numerically, else sorted.
        strip_prefix: removed from every key of a state dict, such as "module.".
        state_key: where the state dict lies in the checkpoint, such as "state_dict"; dots descend.
    """

    bounds: tuple[Ratio, Ratio] | None = None
    mean: tuple[Ratio, ...] = ()
    std: tuple[Ratio, ...] = ()
    size: tuple[int, int] | None = None
    resize: Resize = "none"
    layout: Layout | None = None
    channels: Literal[1, 3] | None = None
    classes: tuple[str, ...] = ()
    strip_prefix: str = ""
    state_key: str = ""

    def __post_init__(self) -> None:
        for name, known in (("layout", (None, *get_args(Layout))), ("resize", get_args(Resize))):
            require(
                getattr(self, name) in known,
                seen=f"{name} {getattr(self, name)!r}",
                expected=" or ".join(map(str, known)),
                fix=f"correct --{name}",
            )
        require(
            self.bounds is None or -math.inf < self.bounds[0] < self.bounds[1] < math.inf,
            seen=f"bounds {self.bounds}",
            expected="two finite numbers, low < high",
            fix="give the range that inputs may have, smallest value first, such as --bounds 0,1",
            code="E101",
        )
        require(
            len(self.mean) == len(self.std),
            seen=f"{len(self.mean)} means and {len(self.std)} standard deviations",
            expected="one of each per channel",
            fix="give --mean and --std the same number of values",
        )
        require(
            all(map(math.isfinite, self.mean)) and all(0 < value < math.inf for value in self.std),
            seen=f"mean {self.mean} and std {self.std}",
            expected="finite means and positive deviations",
            fix="correct --mean and --std",
        )
        require(
            self.channels is None or len(self.mean) in {0, self.channels},
            seen=f"{len(self.mean)} means for {self.channels} channels",
            expected="one per channel",
            fix="correct --mean and --std, or --channels",
        )
        require(
            self.resize == "none" or self.size is not None,
            seen=f"resize {self.resize!r} without a size",
            expected="a target size",
            fix="add --size HEIGHT,WIDTH",
        )
        require(
            self.size is None or min(self.size) >= 1,
            seen=f"size {self.size}",
            expected="positive height and width",
            fix="correct --size",
        )
        twice = [name for name in self.classes if self.classes.count(name) > 1]
        require(
            not twice,
            seen=f"the class {twice[0]!r} twice" if twice else "",
            expected="each class name once, in label order",
            fix="correct --classes",
        )
