"""What a private training may still spend, and the charging of its steps before they run.

Rank 0 charges its ledger; the other ranks charge the same steps in memory, so that every rank knows the cost and all
stop at the same step. Without a ledger the account lives as long as the training's object, and no longer.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from typing import TYPE_CHECKING, Any

from torch.utils.weak import WeakIdKeyDictionary

from vambrace.core.tree import decode, encode
from vambrace.errors import ConfigError
from vambrace.privacy.dp import accounting, ranks
from vambrace.privacy.dp.charges import Spent
from vambrace.privacy.dp.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vambrace.privacy.dp.events import events, share
from vambrace.privacy.dp.monitors import Monitor
from vambrace.privacy.dp.noise import AdaptiveGaussian
from vambrace.privacy.dp.sampling import Everything

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from vambrace.privacy.dp.charges import Charge
    from vambrace.privacy.dp.ledger import Ledger
    from vambrace.privacy.dp.settings import Settings

__all__ = ["Account"]

Tree = Any

_unwritten: MutableMapping[Tensor, Account] = WeakIdKeyDictionary()
"""Accounts in memory by the parameters that they are about."""

_FAR, _NEAR = 10**9, 10**5
"""Steps that a budget is searched for at a time: of one charge, and of a schedule that is read step by step."""


class Account:
    """Charges of one training; made on every rank.

    Two numbers stay tied, whatever fails: the steps of this sampler that were charged are those that were taken and
    those that are reserved.

    Attributes:
        ledger: where there is one on disk, on rank 0 alone.
        closed: whether `close` was called.
        durable: whether rank 0 has one.
        turn: the next step's number in the schedule of the noise; goes on from what the ledger had.
        place: the next step's number since this process began, for samplers that go through the data in order.

    Args:
        settings: of the training.
        ledger: open; None: charge in memory.
        device: that ranks talk over.

    Raises:
        ConfigError: E144, for steps that the accountant cannot account for; E156, where not even the first step fits.
        MissingExtra: E112, without dp-accounting.
    """

    def __init__(self, settings: Settings, ledger: Ledger | None, device: torch.device) -> None:
        self.ledger, self.closed = ledger, False
        self._settings, self._device = settings, device
        self._pid = os.getpid()
        self._reserved = 0  # steps that are charged and were not taken yet
        self.durable = ranks.tell(b"ledger" if ledger else b"", device) == b"ledger"
        told = "" if ledger is None else json.dumps(ledger.spent.as_json())
        found = ranks.tell(told.encode(), device)
        self._memory = Spent.from_json(json.loads(found)) if found else Spent()
        self._require_sense()
        self._end_epoch()
        word = settings.charge(0).sampling
        self.turn = self._start = sum(steps for charge, steps in self.spent if charge.sampling == word)
        self._known, self._ends_there, self._limit = False, True, None
        if settings.max_epsilon is not None:
            first = Monitor(
                settings.charge(0),
                max_epsilon=settings.max_epsilon,
                delta=settings.delta,
                accountant=settings.accountant,
            )
            if not self.spent.steps and first.guarantee_after(1).epsilon > settings.max_epsilon:
                raise self._broken("a first step that alone")

    @property
    def spent(self) -> Spent:
        """What was charged so far; never less than what ran."""
        return self._memory if self.ledger is None else self.ledger.spent

    @property
    def place(self) -> int:
        return self.turn - self._start

    @property
    def exhausted(self) -> bool:
        """Whether the next step would break the budget."""
        limit = self._find_limit()
        if limit is not None and self.turn >= limit and not self._ends_there:
            self._known = False  # the search went no further than this
            limit = self._find_limit()
        return limit is not None and self.turn >= limit

    def claim(self, module: nn.Module) -> None:
        """Raise E158 where what was spent on a module would be forgotten: by another account in memory, not closed."""
        trained = [each for each in module.parameters() if each.requires_grad]
        others = {id(other): other for each in trained if (other := _unwritten.get(each)) is not None}
        for other in (other for other in others.values() if other.spent.steps and not other.closed):
            raise ConfigError(
                "E158",
                seen=f"a module under private training already, with {other.spent.steps} steps charged in memory only",
                expected="one account for all that was spent on a module",
                fix="go on with that training; or give ledger=..., which adds up; or close() it first, and state its "
                "epsilon beside the new one's",
            )
        if not self.durable:
            _unwritten.update((each, self) for each in trained)

    def take(self, planned: int) -> int:
        """Charge the next step of the schedule; only when this has returned may it run.

        On disk it is charged with equal steps behind it, since every write is waited for: as many as are planned, but
        no more than a block and the budget hold.

        Args:
            planned: steps that are to come, this one included, 1 or more.

        Returns:
            Its turn, which is the one that its noise follows.

        Raises:
            ConfigError: E156, beyond the budget; E585, as `Ledger.reserve`.
            ResourceError: E601, as `Ledger.reserve`.
        """
        if os.getpid() != self._pid:
            self._reserved = 0  # a forked process has a copy of the number, but the steps are its parent's
        if self.exhausted:
            raise self._broken("a step that")
        if not self._reserved:
            self._reserve_block(planned)
        self._reserved -= 1
        self.turn += 1
        return self.turn - 1

    def take_unsampled(self) -> int:
        """Charge a step that sees every sample, beside the schedule; returns the turn that its noise follows.

        Raises:
            ConfigError, ResourceError: as `take`.
        """
        charge = self._settings.charge(self.turn, Everything())
        budget = self._settings.max_epsilon
        if budget is not None:
            fits = self._epsilon(self.spent + Spent([charge])) <= budget
            if ranks.tell(b"fits" if fits else b"", self._device) != b"fits":
                raise self._broken("a step on all samples that")
        self._reserve(charge, 1)
        self._known = False
        # The turn stays: what is reserved was charged for the noise of this turn and those behind it.
        return self.turn

    def save(self, path: Path, *, module_state: Tree, optimizer_state: Tree, extra: Tree) -> None:
        """Write a checkpoint that belongs to the ledger; the other ranks write nothing.

        Raises:
            ConfigError: E157, where there is no ledger on disk.
            ResourceError: E601, when it cannot be written.
        """
        self._require_ledger()
        if self.ledger is not None:
            save_checkpoint(
                path,
                module_state=module_state,
                optimizer_state=optimizer_state,
                extra=extra,
                ledger_head=self.ledger.head,
                ledger_position=self.ledger.position,
            )

    def load(self, path: Path) -> Checkpoint:
        """What a checkpoint of this ledger holds; rank 0 reads it and tells the others.

        Raises:
            ConfigError: as `load_checkpoint` on rank 0; E157, where there is no ledger on disk, and on the other ranks
                where rank 0 could not read.
        """
        self._require_ledger()
        if ranks.world() == 1 and self.ledger is not None:
            return load_checkpoint(path, self.ledger)
        content = b""
        try:
            if self.ledger is not None:
                content = encode(dataclasses.asdict(load_checkpoint(path, self.ledger)))
        finally:
            content = ranks.tell(content, self._device)  # also where rank 0 failed, or the others would wait for ever
        if not content:
            raise ConfigError(
                "E157",
                seen="a checkpoint that rank 0 could not read",
                expected="a checkpoint of this training",
                fix="see what rank 0 says",
            )
        return Checkpoint(**decode(content))

    def close(self) -> None:
        """Let others use the ledger."""
        self.closed = True
        if self.ledger is not None:
            self.ledger.close()

    def _reserve_block(self, planned: int) -> None:
        charge, most = self._settings.charge(self.turn), 1
        if self.durable:
            limit = self._find_limit()
            room = planned if limit is None else min(planned, limit - self.turn)
            most = min(self._settings.block, room)
        same = 1
        while same < most and self._settings.charge(self.turn + same) == charge:
            same += 1
        self._reserve(charge, same)
        self._reserved = same

    def _reserve(self, charge: Charge, steps: int) -> None:
        if self.ledger is not None:
            self.ledger.reserve(charge, steps)
        else:
            self._memory = self._memory + Spent([(charge, steps)])

    def _require_sense(self) -> None:
        """What was charged and what will be must have one meaning of neighbours, and a cost by this accountant."""
        whole = self.spent + Spent([self._settings.charge(0)])
        events(whole)
        kinds = {(each.mechanism, each.sampling, each.count_noise_multiplier > 0): each for each, _ in whole}
        self._epsilon(Spent(kinds.values()))  # one of each: the cost of all is not asked for here, and takes longer

    def _end_epoch(self) -> None:
        """The order of a broken shuffled epoch is gone with its process: the rest is charged, as if it had run."""
        shuffled = [(charge, steps) for charge, steps in self.spent if charge.sampling == "shuffle"]
        done = sum(share(charge.sample_rate) * steps for charge, steps in shuffled)
        if done != math.floor(done):
            last = shuffled[-1][0]
            self._reserve(last, math.ceil((math.ceil(done) - done) / share(last.sample_rate)))

    def _find_limit(self) -> int | None:
        """The first turn that the budget does not allow, searched for when it is first asked for; rank 0 finds it."""
        settings = self._settings
        if settings.max_epsilon is None or self._known:
            return self._limit
        first = self.turn + self._reserved
        charge = settings.charge(first)
        constant = not isinstance(settings.noise, AdaptiveGaussian)
        horizon = _FAR if constant else _NEAR  # a schedule is read step by step
        found = 0
        if ranks.number() == 0:
            monitor = Monitor(
                charge if constant else lambda step: settings.charge(first + step),
                max_epsilon=settings.max_epsilon,
                delta=settings.delta,
                accountant=settings.accountant,
                spent=self.spent,
                horizon=horizon,
            )
            found = monitor.last_step
        found = int(ranks.tell(str(found).encode(), self._device))
        self._limit, self._known, self._ends_there = first + found, True, found < horizon
        return self._limit

    def _require_ledger(self) -> None:
        if not self.durable:
            raise ConfigError(
                "E157",
                seen="a checkpoint of a training whose ledger is in memory only",
                expected="a ledger on disk, or a resumed training would forget what was spent",
                fix='give make_private(..., ledger="runs/dp/ledger")',
            )

    def _epsilon(self, spent: Spent) -> float:
        settings = self._settings
        return accounting.epsilon(spent, delta=settings.delta, accountant=settings.accountant).epsilon

    def _broken(self, what: str) -> ConfigError:
        return ConfigError(
            "E156",
            seen=f"{what} would take epsilon beyond max_epsilon {self._settings.max_epsilon:g}",
            expected="steps within the budget",
            fix="stop here; or, for a new training, more noise, smaller batches or a larger max_epsilon "
            "(dp.calibrate finds what fits)",
        )
