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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

import torch
from torch import Tensor, nn

from vambrace.errors import ConfigError
from vambrace.privacy.dp import accounting, ranks
from vambrace.privacy.dp.batches import Batch, Part, Source, cut, moved
from vambrace.privacy.dp.clipping import AdaptiveQuantile
from vambrace.privacy.dp.engine.engine import Engine
from vambrace.privacy.dp.guard import Guard, modes
from vambrace.privacy.dp.sampling import Everything, steps_per_epoch
from vambrace.privacy.dp.seen import LOOKED_AT, Seen, seen, tallied, uncut
from vambrace.privacy.dp.statement import statement
from vambrace.privacy.dp.tables import lines
from vambrace.privacy.dp.tasks import casting, task

if TYPE_CHECKING:
    from vambrace.privacy.dp.account import Account
    from vambrace.privacy.dp.accounting import Accountant, Guarantee
    from vambrace.privacy.dp.charges import Spent
    from vambrace.privacy.dp.engine.engine import Row, Task
    from vambrace.privacy.dp.secret import Secret
    from vambrace.privacy.dp.settings import Settings

__all__ = ["Private"]

_TRIED = 64
"""The most samples that a module is tried on together before training."""


class Private:
    """A module under private training; made by `make_private`. Prints as the dry-run table.

    Attributes:
        module: the module itself, of its own type.
        optimizer: the caller's; it steps here only, until `close`.
        settings: what was asked for.
        diagnostics: what steps looked like, not private; stays empty unless it was asked for.
        stopped: why `batches` ended early, "" where it did not.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        settings: Settings,
        source: Source,
        loss: Callable[[nn.Module, Any], Tensor],
        secret: Secret,
        account: Callable[[torch.device], Account],
    ) -> None:
        """For `make_private`, which checks what is given. The account is opened last: nothing refused leaves a ledger.

        Raises:
            ConfigError: E151 to E153, E155 as `make_private`, and what `account` raises.
        """
        self.module, self.optimizer, self.settings = module, optimizer, settings
        self.diagnostics: list[Seen] = []
        self.stopped = ""
        self._source, self._loss, self._secret = source, loss, secret
        self._engines: dict[tuple[object, ...], Engine] = {}
        self._issued: Batch | None = None  # the one batch that may be stepped on
        self._planned = 1  # steps that the current `batches` has still to give
        trained = [each for each in module.parameters() if each.requires_grad]
        self._device = trained[0].device
        dtype = torch.float64 if trained[0].dtype == torch.float64 else torch.float32
        self._flat = torch.zeros(sum(each.numel() for each in trained), dtype=dtype, device=self._device)
        parts = cast("tuple[Tensor, ...]", self._flat.split([each.numel() for each in trained]))
        self._views = [part.view_as(each) for part, each in zip(parts, trained, strict=True)]
        ranks.same(module, source.size, self._device)
        engine = self._engine()
        self._groups = settings.clip.groups(engine.names)
        self._bounds = settings.clip.norms(len(self._groups))
        self._account = account(self._device)
        self._guard = Guard(module, optimizer)

    @property
    def table(self) -> tuple[Row, ...]:
        """Every trainable parameter, how its gradient is clipped, and why."""
        return self._engine().table

    @property
    def clip_norm(self) -> float:
        """What a sample's gradient is cut to, now."""
        return math.hypot(*self._bounds)

    @property
    def spent(self) -> Spent:
        """What was charged so far, on any rank; never less than what ran."""
        return self._account.spent

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see as many samples as there are, on average."""
        if isinstance(self.settings.sampling, Everything):
            return 1
        return steps_per_epoch(self._source.size, self.settings.expected_batch_size)

    def epsilon(self, *, delta: float | None = None, accountant: Accountant | None = None) -> Guarantee:
        """What holds for all that was charged."""
        return accounting.epsilon(
            self.spent,
            delta=self.settings.delta if delta is None else delta,
            accountant=accountant or self.settings.accountant,
        )

    def statement(self, *, delta: float | None = None, accountant: Accountant | None = None) -> str:
        """The same in plain words: who is protected, from what, and what is not covered."""
        return statement(
            self.spent,
            delta=self.settings.delta if delta is None else delta,
            accountant=accountant or self.settings.accountant,
            dataset_size=self._source.size,
            diagnostics=LOOKED_AT if self.settings.diagnostics else (),
        )

    def batches(self, *, epochs: int | None = None, steps: int | None = None) -> Iterator[Batch]:
        """Draw the batches of some epochs or steps, each for one call of `step` before the next is drawn.

        Ends early, and says so in `stopped`, before the step that would break `max_epsilon`.

        Raises:
            ConfigError: E150, unless exactly one of the two is given, a whole number of 0 or more; E154, where the next
                batch is asked for and the last was not used: leaving out batches, empty ones too, breaks the sampling.
        """
        given = steps if epochs is None else epochs
        if (epochs is None) == (steps is None) or type(given) is not int or given < 0:
            raise ConfigError(
                "E150",
                seen=f"epochs={epochs!r}, steps={steps!r}",
                expected="exactly one of the two, a whole number of 0 or more",
                fix="say batches(epochs=10) or batches(steps=1000)",
            )
        return self._batches(given if epochs is None else given * self.steps_per_epoch)

    def step(self, batch: Batch) -> None:
        """Charge, clip, add noise, and let the optimizer step.

        What was charged stays charged where the step then fails: the batch is used up, and the next one goes on.

        Raises:
            ConfigError: E154, for anything but the last batch that `batches` of this object drew, once; E151 where the
                module was changed to one that looks across the batch; E156 beyond `max_epsilon`; E158, where
                other parameters train than at the start; E585, where the ledger cannot be written.
            ResourceError: E601, where the ledger cannot be written. The same batch may be tried again.
        """
        self._require_issued(batch)
        self._guard.check()
        engine = self._engine()
        turn = self._account.take(self._planned)
        batch.used, self._issued = True, None
        self._planned = max(1, self._planned - 1)
        self._step(engine, batch.parts(), turn)

    def step_unsampled(self, inputs: Any, labels: Tensor | None = None) -> None:  # noqa: ANN401
        """A step on a batch of the caller's choice, for benchmarks: charged as if every sample had been in it.

        Each sample may be in the batch once; nobody can check that here. With several ranks, all give the same batch.

        Args:
            inputs: samples first; or, without labels, any collated batch that the loss understands.
            labels: samples first.

        Raises:
            ConfigError, ResourceError: as `step`.
        """
        self._guard.check()
        engine = self._engine()
        tree = moved(inputs if labels is None else (inputs, labels), self._device)
        turn = self._account.take_unsampled()
        self._step(engine, cut(tree, self.settings.physical_batch_size, ranks.number(), ranks.world()), turn)

    def save(self, path: Path | str) -> None:
        """Write module, optimizer and clip norm as a checkpoint that belongs to the ledger; only rank 0 writes.

        Raises:
            ConfigError: E157, where there is no ledger on disk.
            ResourceError: E601, when it cannot be written.
        """
        self._account.save(
            Path(path),
            module_state=self.module.state_dict(),
            optimizer_state=self.optimizer.state_dict(),
            extra={"bounds": list(self._bounds)},
        )

    def load(self, path: Path | str) -> None:
        """Go on from a checkpoint, which rank 0 reads. Steps are counted from the ledger: an old one gains nothing.

        Raises:
            ConfigError: E157 where there is no ledger on disk; E585 where it is not the checkpoint's, or older; E111
                for a damaged file.
        """
        found = self._account.load(Path(path))
        self.module.load_state_dict(found.module_state)
        self.optimizer.load_state_dict(found.optimizer_state)
        clip = self.settings.clip
        if isinstance(clip, AdaptiveQuantile):  # any other bound is the one that was asked for now
            self._bounds = (min(clip.most, max(clip.least, float(found.extra["bounds"][0]))),)

    def close(self) -> None:
        """End private training: the optimizer may step anywhere again, and others may use the ledger."""
        self._guard.release()
        self._account.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise ConfigError(
            "E145",
            seen="a try to copy or store a private training",
            expected="that its secret and its account stay where they are",
            fix="copy or store the module, which is an ordinary one; to go on later, save(path) and the ledger",
        )

    def __str__(self) -> str:
        settings, rows = self.settings, self.table
        frozen = sum(not each.requires_grad for each in self.module.parameters())
        size = sum(row.size for row in rows)
        return "\n".join(
            [
                f"{type(self.module).__name__} under private training: {size:,} trainable elements in {len(rows)} "
                f"parameters ({frozen} frozen)",
                f"clip      {settings.clip}, now to {self.clip_norm:g}",
                f"noise     {settings.noise}{', REPRODUCIBLE: nothing is private' if settings.debug else ''}",
                f"sampling  {settings.sampling}, {settings.expected_batch_size:,} of {self._source.size:,} samples "
                f"expected in a step, {self.steps_per_epoch:,} steps an epoch",
                f"charged   {self.spent.steps:,} steps",
                "",
                *lines(rows),
            ]
        )

    def _batches(self, count: int) -> Iterator[Batch]:
        self.stopped = ""
        for done in range(count):
            if self._account.exhausted:
                self.stopped = f"max_epsilon {self.settings.max_epsilon:g}"
                return
            # One that was drawn and left, by a loop that ended early, comes again: to throw batches away is to choose.
            batch = self._draw() if self._issued is None else self._issued
            self._issued, self._planned = batch, count - done
            yield batch
            if not batch.used:
                raise _unissued("a batch that was left out", "every batch to be used, whatever is in it")

    def _draw(self) -> Batch:
        settings, source = self.settings, self._source
        expected = settings.expected_batch_size
        drawn = None
        if ranks.number() == 0:
            drawn = settings.sampling.draw(source.size, expected, self._secret, self._account.place)
        return Batch(
            ranks.share(drawn, self._device),
            self,
            lambda rows: source.parts(rows, expected, settings.physical_batch_size, self._device),
        )

    def _step(self, engine: Engine, parts: Iterable[Part], turn: int) -> None:
        settings, clip = self.settings, self.settings.clip
        adapts = isinstance(clip, AdaptiveQuantile)
        tally = torch.zeros(4, dtype=torch.float64, device=self._device)
        noise = torch.zeros(1, dtype=torch.float64, device=self._device)
        try:
            self._flat.zero_()
            with torch.inference_mode(False), torch.enable_grad():
                for part in parts:
                    added = engine.add(
                        self._task(part),
                        lambda norms: clip.factors(norms, self._bounds),
                        self._views,
                        self._groups,
                        part.mask,
                    )
                    if adapts or settings.diagnostics:
                        tally += tallied(added, part.mask, self._bounds)
            ranks.to_first(self._flat, tally)
            if ranks.number() == 0:
                settings.noise.add_(self._flat, self.clip_norm, turn, self._secret)
                if adapts:
                    noise.fill_(float(self._secret.normal(1, dtype=torch.float64)) * clip.count_noise)
            ranks.from_first(self._flat, tally, noise)
        except BaseException:
            self._flat.zero_()  # gradients of the last step are views of it, and must not show a sum without noise
            raise
        self._flat.div_(settings.expected_batch_size)
        for parameter, view in zip(engine.parameters, self._views, strict=True):
            parameter.grad = view.to(parameter.dtype)
        self._guard.step()
        if settings.diagnostics:
            self.diagnostics.append(seen(tally))
        if isinstance(clip, AdaptiveQuantile):
            count = uncut(tally) + float(noise)
            self._bounds = (clip.follow(self._bounds[0], count, settings.expected_batch_size),)

    def _engine(self) -> Engine:
        """The engine of the module's present mode and make, proved when they are first met."""
        mode = modes(self.module)
        if mode not in self._engines:
            engine = Engine(self.module, order=self.settings.clip.order)
            with torch.inference_mode(False), torch.enable_grad(), casting(self._device, self.settings.autocast):
                still = self._source.still()
                engine.prepare(lambda rows: self._few(still, rows), many=self._many)
            self._engines[mode] = engine
        return self._engines[mode]

    def _task(self, part: Part) -> Task:
        return task(self.module, self._loss, part, self._device, self.settings.autocast)

    @property
    def _many(self) -> int:
        """As many samples as go through the module together, within reason."""
        settings = self.settings
        return min(_TRIED, settings.expected_batch_size, settings.physical_batch_size or settings.expected_batch_size)

    def _few(self, source: Source, rows: Sequence[int]) -> Task:
        """A task on a few samples, taken from all over the data: in sorted data, neighbours are alike."""
        size = source.size
        stride = max(1, round(0.618 * size))  # the golden section keeps the first few multiples far apart
        while math.gcd(stride, size) > 1:
            stride += 1
        chosen = [row * stride % size for row in rows]
        return self._task(Part(moved(source.take(chosen), self._device), len(chosen), None))

    def _require_issued(self, batch: Batch) -> None:
        wanted = "the last batch that batches() of this object drew, once"
        if not isinstance(batch, Batch) or batch.issuer is not self:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _unissued(f"a {type(batch).__name__} of other origin", wanted)
        if batch.used:
            raise _unissued("a batch that was used before", wanted)
        if batch is not self._issued:
            raise _unissued("a batch that was drawn before another one", wanted)


def _unissued(seen: str, expected: str) -> ConfigError:
    return ConfigError(
        "E154",
        seen=seen,
        expected=expected,
        fix="step on what batches() yields, as it comes; for a batch of your own, step_unsampled, which costs far more",
    )
