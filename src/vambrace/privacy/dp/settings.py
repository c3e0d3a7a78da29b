"""What a private training was asked for, and so what each of its steps costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vambrace.privacy.dp.charges import Charge
from vambrace.privacy.dp.clipping import AdaptiveQuantile, Clipping

if TYPE_CHECKING:
    import torch

    from vambrace.privacy.dp.accounting import Accountant
    from vambrace.privacy.dp.noise import Noise
    from vambrace.privacy.dp.sampling import Sampler

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """See `make_private`.

    Attributes:
        size: samples in the data.
    """

    size: int
    clip: Clipping
    noise: Noise
    sampling: Sampler
    expected_batch_size: int
    delta: float
    accountant: Accountant
    max_epsilon: float | None
    physical_batch_size: int | None
    autocast: torch.dtype | None
    block: int
    debug: bool
    diagnostics: bool

    def charge(self, turn: int, sampling: Sampler | None = None) -> Charge:
        """The cost of a step: the very noise that is added at this turn of the schedule, on a batch chosen so.

        Args:
            turn: counted from 0.
            sampling: None: the training's own.
        """
        fields = cast("dict[str, Any]", (sampling or self.sampling).charge_fields(self.size, self.expected_batch_size))
        clip = self.clip
        return Charge(
            mechanism=self.noise.mechanism,
            noise_multiplier=self.noise.multiplier(turn),
            count_noise_multiplier=clip.count_noise_multiplier if isinstance(clip, AdaptiveQuantile) else 0.0,
            private=not self.debug,
            **fields,
        )
