"""An audit of private training itself: canaries go through the real trainer once, and are guessed from what comes out.

    from vambrace.privacy import dp
    found = dp.Audit()(clip=dp.Flat(clip_norm=1.0), noise=dp.Gaussian(noise_multiplier=4.1), sample_rate=0.25, steps=16,
                       delta=1e-5)
    print(found)          # epsilon is at least 0.31 at delta 1e-05 (...), and nothing against the claim of 0.998

Every canary is a sample whose gradient is one weight of a linear layer, no other canary's, and many times longer than
the clip norm: the most that a sample can do to what is released, and the easiest to see there. Its score is how far its
weight moved. Sampling, clipping, noise, steps and charges are those of `make_private`; whatever is missing in one of
them shows as a bound above the claim. What a coin leaves out keeps its place in the data and has a loss of zero, so
that neither the size of the data nor the sampling rate depends on the coins.

Source: Steinke, Nasr, Jagielski 2023, arXiv 2305.08846, algorithm 1; gradient canaries: Nasr et al. 2023, arXiv
2302.07956 ("Dirac canaries").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vambrace.core.options import Options, Ratio
from vambrace.privacy.dp.audited import Audited
from vambrace.privacy.dp.guessing import audit_bound
from vambrace.privacy.dp.making import make_private
from vambrace.privacy.dp.one_run import Method, check_confidence, require_audit
from vambrace.privacy.dp.power import AuditDesign, power
from vambrace.privacy.dp.sampling import Everything
from vambrace.privacy.dp.secret import Secret

if TYPE_CHECKING:
    from vambrace.privacy.dp.clipping import Clipping
    from vambrace.privacy.dp.noise import Noise
    from vambrace.privacy.dp.sampling import Sampler

__all__ = ["Audit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit(Options):
    """How hard to look.

    Attributes:
        canaries: coins; see `dp.canaries_needed`.
        guesses: how many of them to guess; None: as many as serve best against the claim, which is known beforehand.
        confidence: of the bound, above 0, below 1.
        method: "one_run" for any training; "f_dp" proves more, of Gaussian noise with every sample in every step.
        canary_norm: length of a canary's gradient over the clip norm, above 1: by this factor it stands out more where
            nothing clips it.
    """

    canaries: int = 4000
    guesses: int | None = None
    confidence: Ratio = 0.95
    method: Method = "one_run"
    canary_norm: Ratio = 10.0

    def __post_init__(self) -> None:
        require_audit(self.canaries >= 1, "canaries", self.canaries, "1 or more")
        fits = self.guesses is None or 1 <= self.guesses <= self.canaries
        require_audit(fits, "guesses", self.guesses, f"1 to {self.canaries}, one a canary at most, or None")
        require_audit(0 < self.confidence < 1, "confidence", self.confidence, "above 0, below 1")
        require_audit(1 < self.canary_norm < math.inf, "canary_norm", self.canary_norm, "above 1, finite")

    def __call__(
        self,
        *,
        clip: Clipping,
        noise: Noise,
        sample_rate: float,
        steps: int,
        delta: float,
        sampling: Sampler | None = None,
        device: torch.device | str = "cpu",
    ) -> Audited:
        """Train once on canaries, and guess.

        Args:
            clip: as for `make_private`.
            noise: as for `make_private`.
            sample_rate: expected share of the canaries in a batch, above 0, at most 1; rounded to whole samples.
            steps: of training, 1 or more.
            delta: of the claim.
            sampling: as for `make_private`.
            device: where the module lies.

        Raises:
            ConfigError: E159 for options that do not go together, and what `make_private` raises.
            MissingExtra: E112, without dp-accounting.
        """
        check_confidence(self.method, self.canaries, delta, self.confidence)
        require_audit(0 < sample_rate <= 1, "sample_rate", sample_rate, "above 0, at most 1")
        require_audit(steps >= 1, "steps", steps, "1 or more")
        # Only there is the claim the very curve that "f_dp" holds the guesses against.
        fits = self.method == "one_run" or (isinstance(sampling, Everything) and noise.mechanism == "gaussian")
        require_audit(fits, "method", self.method, '"one_run", but for Gaussian noise with sampling=Everything()')
        included = Secret().coins(self.canaries, 0.5)
        across = math.ceil(math.sqrt(self.canaries))
        module = nn.Linear(across, -(-self.canaries // across), bias=False, device=device)
        nn.init.zeros_(module.weight)
        number = torch.arange(self.canaries)
        column, row = number % across, number // across
        inputs = torch.zeros(self.canaries, across)
        inputs[number, column] = self.canary_norm * (clip.clip_norm if math.isfinite(clip.clip_norm) else 1.0)
        private = make_private(
            module,
            torch.optim.SGD(module.parameters(), lr=1.0),
            (inputs, row, included.float()),
            per_sample_loss=_upwards,
            clip=clip,
            noise=noise,
            expected_batch_size=max(1, round(sample_rate * self.canaries)),
            delta=delta,
            sampling=sampling,
            allow_large_delta=True,
        )
        for batch in private.batches(steps=steps):
            private.step(batch)
        private.close()
        rate = 1.0 if isinstance(sampling, Everything) else sample_rate
        bound = audit_bound(
            module.weight.detach().cpu()[row, column].numpy(),
            included.numpy(),
            guesses=self._guesses(private.epsilon().epsilon, delta, noise.multiplier(0), rate, steps),
            delta=delta,
            confidence=self.confidence,
            method=self.method,
        )
        return Audited(bound=bound, spent=private.spent)

    def _guesses(self, claimed: float, delta: float, noise: float, sample_rate: float, steps: int) -> int:
        """How many guesses; decided from what was asked for alone, so that the coins have no part in it."""
        if self.guesses is not None:
            return self.guesses
        if not 0 < claimed < math.inf:
            return max(1, self.canaries // 5)
        design = AuditDesign(
            epsilon=claimed,
            delta=delta,
            sample_rate=sample_rate,
            steps=steps,
            noise_multiplier=noise,
            confidence=self.confidence,
            method=self.method,
        )
        return power(design, canaries=self.canaries).guesses


def _upwards(module: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Minus the canary's weight times its length, (n,): training moves the weights of those that are in upwards."""
    inputs, row, included = batch
    return -module(inputs).gather(1, row.unsqueeze(1)).squeeze(1) * included
