"""Private training: the loop stays a loop, and every step is charged before it runs.

    private = dp.make_private(module, optimizer, dataset, loss="cross_entropy", clip=..., noise=..., ...)
    for batch in private.batches(epochs=10):
        private.step(batch)
    private.epsilon()

Source: Abadi et al. 2016, arXiv 1607.00133, algorithm 1, with Poisson batches of any size, empty ones included, and the
noisy sum divided by the expected batch size, which is public, never by the actual one, which is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from vambrace.errors import ConfigError
from vambrace.privacy.dp import accounting, ranks
from vambrace.privacy.dp.batches import Batch, Part, Source, flatten, moved, rebuild
from vambrace.privacy.dp.charges import Charge, Spent
from vambrace.privacy.dp.checkpoint import load_checkpoint, save_checkpoint
from vambrace.privacy.dp.clipping import AdaptiveQuantile, Clipping
from vambrace.privacy.dp.engine.engine import Added, Engine, Row, Task
from vambrace.privacy.dp.monitors import Monitor
from vambrace.privacy.dp.sampling import Everything, Sampler, Shuffled, steps_per_epoch

if TYPE_CHECKING:
    from pathlib import Path

    from vambrace.privacy.dp.accounting import Accountant, Guarantee
    from vambrace.privacy.dp.ledger import Ledger
    from vambrace.privacy.dp.noise import Noise
    from vambrace.privacy.dp.secret import Secret

__all__ = ["Private", "Seen", "Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a private training was asked for; see `make_private`."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one step looked like. NOT private: every number depends on the data and none is charged.

    Attributes:
        samples: in the batch.
        dropped: samples without a finite gradient, which counted for nothing.
        clipped: share of the samples whose gradient was cut.
        loss: their mean loss; nan where there is none.
    """

    samples: int
    dropped: int
    clipped: float
    loss: float


@dataclass(eq=False)
class Private:
    """A module under private training; made by `make_private`.

    Attributes:
        module: the module itself, of its own type.
        optimizer: the caller's.
        settings: what was asked for.
        diagnostics: what steps looked like, not private; stays empty unless it was asked for.
        stopped: why `batches` ended early, "" where it did not.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    settings: Settings
    source: Source
    loss: Callable[[nn.Module, Any], Tensor] = field(repr=False)
    secret: Secret = field(repr=False)
    ledger: Ledger | None = field(repr=False, default=None)
    diagnostics: list[Seen] = field(init=False, default_factory=list[Seen])
    stopped: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self._engine = Engine(self.module, order=self.settings.clip.order)
        self._groups = self.settings.clip.groups(self._engine.names)
        self._bounds = self.settings.clip.norms(len(self._groups))
        parameters = self._engine.parameters
        self._device = parameters[0].device
        dtype = torch.float64 if parameters[0].dtype == torch.float64 else torch.float32
        self._flat = torch.zeros(self._engine.size, dtype=dtype, device=self._device)
        parts = cast("tuple[Tensor, ...]", self._flat.split([each.numel() for each in parameters]))
        self._views = [part.view_as(each) for part, each in zip(parts, parameters, strict=True)]
        self._memory = Spent()  # what was charged, where there is no file
        self._reserved = 0  # steps that are charged and have not run
        self._turn = self.spent.steps  # of the schedule: which step's noise is next
        ranks.same(self.module)
        self._engine.prepare(lambda rows: self._task(self._few(rows)))
        self._begin_epoch()
        self._limit = self._find_limit()

    @property
    def table(self) -> tuple[Row, ...]:
        """Every trainable parameter, how its gradient is clipped, and why."""
        return self._engine.table

    @property
    def clip_norm(self) -> float:
        """What a sample's gradient is cut to, now."""
        return math.hypot(*self._bounds)

    @property
    def spent(self) -> Spent:
        """What was charged so far; never less than what ran."""
        return self._memory if self.ledger is None else self.ledger.spent

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see as many samples as there are, on average."""
        if isinstance(self.settings.sampling, Everything):
            return 1
        return steps_per_epoch(self.source.size, self.settings.expected_batch_size)

    def epsilon(self, *, delta: float | None = None, accountant: Accountant | None = None) -> Guarantee:
        """What holds for all that was charged."""
        return accounting.epsilon(
            self.spent,
            delta=self.settings.delta if delta is None else delta,
            accountant=accountant or self.settings.accountant,
        )

    def batches(self, *, epochs: int | None = None, steps: int | None = None) -> Iterator[Batch]:
        """Draw the batches of some epochs or steps, each for one call of `step`.

        Ends early, and says so in `stopped`, before the step that would break `max_epsilon`.

        Raises:
            ConfigError: E150, unless exactly one of the two is given.
        """
        if (epochs is None) == (steps is None):
            raise ConfigError(
                "E150",
                seen=f"epochs={epochs!r}, steps={steps!r}",
                expected="exactly one of the two",
                fix="say batches(epochs=10) or batches(steps=1000)",
            )
        count = steps if epochs is None else epochs * self.steps_per_epoch
        self.stopped = ""
        for _ in range(count or 0):
            if self._limit is not None and self._turn >= self._limit:
                self.stopped = f"max_epsilon {self.settings.max_epsilon}"
                return
            yield self._draw()

    def step(self, batch: Batch) -> None:
        """Charge, clip, add noise, and let the optimizer step.

        Raises:
            ConfigError: E154, for a batch that `batches` of this object did not draw, or that was used before.
        """
        if not isinstance(batch, Batch) or batch.issuer is not self or batch.used:  # pyright: ignore[reportUnnecessaryIsInstance]
            used = isinstance(batch, Batch) and batch.used  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                "E154",
                seen="a batch that was used before" if used else f"a {type(batch).__name__} of other origin",
                expected="a batch from this object's batches(), once",
                fix="step on what batches() yields; for a batch of your own, step_unsampled, which costs far more",
            )
        batch.used = True
        self._charge_turn()
        self._step(batch.parts, self._turn)
        self._turn += 1

    def step_unsampled(self, inputs: Tensor, labels: Tensor) -> None:
        """A step on a batch of the caller's choice, for benchmarks: charged as if every sample had been in it.

        Raises:
            ConfigError: E156, where it would break `max_epsilon`.
        """
        charge = self._charge_at(self._turn, Everything())
        budget = self.settings.max_epsilon
        if budget is not None and self._cost(self.spent + Spent([charge])) > budget:
            raise ConfigError(
                "E156",
                seen=f"a step that would take epsilon beyond max_epsilon {budget}",
                expected="steps within the budget",
                fix="step on batches(), which cost less, or stop here",
            )
        self._reserve(charge, 1)
        self._step([Part(moved((inputs, labels), self._device), len(inputs), None)], self._turn)
        self._limit = self._find_limit()

    def save(self, path: Path) -> None:
        """Write module, optimizer and clip norm as a checkpoint that belongs to the ledger.

        Raises:
            ConfigError: E157, where there is no ledger on disk.
        """
        ledger = self._require_ledger()
        save_checkpoint(
            path,
            module_state=self.module.state_dict(),
            optimizer_state=self.optimizer.state_dict(),
            extra={"bounds": list(self._bounds)},
            ledger_head=ledger.head,
            ledger_position=ledger.position,
        )

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Steps are counted from the ledger, so an old checkpoint gains nothing.

        Raises:
            ConfigError: E157 where there is no ledger on disk; E585 where it is not the checkpoint's, or older.
        """
        found = load_checkpoint(path, self._require_ledger())
        self.module.load_state_dict(found.module_state)
        self.optimizer.load_state_dict(found.optimizer_state)
        self._bounds = tuple(found.extra["bounds"])

    def close(self) -> None:
        """Let others use the ledger."""
        if self.ledger is not None:
            self.ledger.close()

    def _fields(self, sampling: Sampler) -> dict[str, Any]:
        return sampling.charge_fields(self.source.size, self.settings.expected_batch_size)

    def _charge_at(self, step: int, sampling: Sampler | None = None) -> Charge:
        clip, noise = self.settings.clip, self.settings.noise
        fields = self._fields(sampling or self.settings.sampling)
        count = clip.count_noise_multiplier if isinstance(clip, AdaptiveQuantile) else 0.0
        return Charge(
            mechanism=noise.mechanism,
            noise_multiplier=noise.multiplier(step),
            count_noise_multiplier=count,
            private=not self.settings.debug,
            **fields,
        )

    def _charge_turn(self) -> None:
        """Charge the next step before it runs; on disk with equal ones behind it, since each write is waited for."""
        if not self._reserved:
            charge, most = self._charge_at(self._turn), self.settings.block
            if self.ledger is None:
                most = 1
            elif self._limit is not None:
                most = max(1, min(most, self._limit - self._turn))
            same = 1
            while same < most and self._charge_at(self._turn + same) == charge:
                same += 1
            self._reserve(charge, same)
            self._reserved = same
        self._reserved -= 1

    def _reserve(self, charge: Charge, steps: int) -> None:
        if self.ledger is None:
            self._memory = self._memory + Spent([(charge, steps)])
        else:
            self.ledger.reserve(charge, steps)

    def _begin_epoch(self) -> None:
        """The order of a broken epoch is gone with its process: the rest of the epoch is charged and skipped."""
        rest = -self._turn % self.steps_per_epoch
        if isinstance(self.settings.sampling, Shuffled) and rest:
            self._reserve(self._charge_at(self._turn), rest)
            self._turn += rest

    def _find_limit(self) -> int | None:
        """The first turn that the budget does not allow."""
        settings = self.settings
        if settings.max_epsilon is None:
            return None
        first = self._turn + self._reserved
        monitor = Monitor(
            lambda step: self._charge_at(first + step),
            max_epsilon=settings.max_epsilon,
            delta=settings.delta,
            accountant=settings.accountant,
            spent=self.spent,
        )
        return first + monitor.last_step

    def _cost(self, spent: Spent) -> float:
        settings = self.settings
        return accounting.epsilon(spent, delta=settings.delta, accountant=settings.accountant).epsilon

    def _draw(self) -> Batch:
        settings = self.settings
        drawn = settings.sampling.draw(self.source.size, settings.expected_batch_size, self.secret, self._turn)
        mine = ranks.share(drawn, self._device)
        return Batch(
            mine,
            self,
            lambda rows: self.source.parts(
                rows, settings.expected_batch_size, settings.physical_batch_size, self._device
            ),
        )

    def _step(self, parts: list[Part], turn: int) -> None:
        settings, clip = self.settings, self.settings.clip
        self._flat.zero_()
        tally = torch.zeros(4, dtype=torch.float64)  # samples, not cut, dropped, sum of losses
        for part in parts:
            added = self._engine.add(
                self._task(part),
                lambda norms: clip.factors(norms, self._bounds),
                self._views,
                self._groups,
                part.mask,
            )
            tally += _tallied(added, part.mask, self._bounds)
        if ranks.number() == 0:
            settings.noise.add_(self._flat, self.clip_norm, turn, self.secret)
            if isinstance(clip, AdaptiveQuantile):
                # Centred, so that a sample moves the count by one half and not by one.
                tally[1] += float(self.secret.normal(1, dtype=torch.float64)) * clip.count_noise
        ranks.total(self._flat, tally)
        self._flat.div_(settings.expected_batch_size)
        for parameter, view in zip(self._engine.parameters, self._views, strict=True):
            parameter.grad = view.to(parameter.dtype)
        self.optimizer.step()
        if settings.diagnostics:
            self.diagnostics.append(_seen(tally))
        if isinstance(clip, AdaptiveQuantile):
            count = float(tally[1]) - 0.5 * float(tally[0] - tally[2])
            self._bounds = (clip.follow(self._bounds[0], count, settings.expected_batch_size),)

    def _task(self, part: Part) -> Task:
        dtype = self.settings.autocast
        inner = _Whole(self.module, self.loss)

        def losses() -> Tensor:
            with torch.autocast(self._device.type, dtype=dtype, enabled=dtype is not None):
                return self.loss(self.module, part.tree)

        def single(values: dict[str, Tensor], *leaves: Tensor) -> Tensor:
            tree = rebuild(part.tree, [leaf.unsqueeze(0) for leaf in leaves])
            named = {f"module.{name}": value for name, value in values.items()}
            return torch.func.functional_call(inner, named, (tree,)).sum()

        return Task(losses, part.count, flatten(part.tree), single)

    def _few(self, rows: Any) -> Part:  # noqa: ANN401
        chosen = [row % self.source.size for row in rows]
        return Part(moved(self.source.take(chosen), self._device), len(chosen), None)

    def _require_ledger(self) -> Ledger:
        if self.ledger is None:
            raise ConfigError(
                "E157",
                seen="a checkpoint of a training whose ledger is in memory only",
                expected="a ledger on disk, or a resumed training would forget what was spent",
                fix='give make_private(..., ledger="runs/dp/ledger")',
            )
        return self.ledger


def _tallied(added: Added, mask: Tensor | None, bounds: tuple[float, ...]) -> Tensor:
    """Samples, those not cut, those dropped, and the sum of losses, (4,)."""
    counted = added.counted
    rows = counted if mask is None else mask
    cut = (added.norms > added.norms.new_tensor(bounds).unsqueeze(1)).any(dim=0)
    losses = torch.nan if added.losses is None else torch.where(counted, added.losses, 0.0).sum()
    samples = rows.numel() if mask is None else rows.sum()
    found = (samples, (counted & ~cut).sum(), samples - counted.sum(), losses)
    return torch.stack([torch.as_tensor(each, dtype=torch.float64) for each in found]).cpu()


def _seen(tally: Tensor) -> Seen:
    samples, whole, dropped, losses = cast("list[float]", tally.tolist())
    counted = max(samples - dropped, 1.0)
    return Seen(samples=int(samples), dropped=int(dropped), clipped=1.0 - whole / counted, loss=losses / counted)


class _Whole(nn.Module):
    """A module with its loss, so that both can be called with other parameters."""

    def __init__(self, module: nn.Module, loss: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.module, self._loss = module, loss

    def forward(self, tree: Any) -> Tensor:  # noqa: ANN401
        return self._loss(self.module, tree)
