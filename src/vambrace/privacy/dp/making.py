"""`make_private`: one call from a module, an optimizer and data to private training."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from vambrace.errors import ConfigError
from vambrace.privacy.dp import ranks
from vambrace.privacy.dp.account import Account
from vambrace.privacy.dp.accounting import check_accountant, check_delta
from vambrace.privacy.dp.batches import Source
from vambrace.privacy.dp.charges import Spent
from vambrace.privacy.dp.clipping import Clipping, require_option
from vambrace.privacy.dp.events import events
from vambrace.privacy.dp.history import Terms
from vambrace.privacy.dp.ledger import Ledger
from vambrace.privacy.dp.losses import LossName, named
from vambrace.privacy.dp.noise import Noise
from vambrace.privacy.dp.private import Private
from vambrace.privacy.dp.sampling import Poisson, Sampler
from vambrace.privacy.dp.secret import Secret
from vambrace.privacy.dp.settings import Settings

if TYPE_CHECKING:
    from vambrace.privacy.dp.accounting import Accountant

__all__ = ["make_private"]

_ANSWERS = {
    "max_grad_norm": "clip=dp.Flat(clip_norm=...)",
    "l2_norm_clip": "clip=dp.Flat(clip_norm=...)",
    "norm_bound": "clip=dp.Flat(clip_norm=...)",
    "noise_multiplier": "noise=dp.Gaussian(noise_multiplier=...)",
    "data_loader": "dataset: private training draws its own batches",
    "dataloader": "dataset: private training draws its own batches",
    "batch_size": "expected_batch_size",
    "target_delta": "delta",
    "target_epsilon": "max_epsilon to stop in time, or dp.calibrate(epsilon=...) for the noise that fits",
    "poisson_sampling": "sampling=dp.Poisson(), or dp.Shuffled()",
    "clipping": "clip=dp.PerLayer() or dp.Automatic()",
    "criterion": "loss",
    "microbatches": "physical_batch_size, which changes speed and never privacy",
}


def make_private(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: object,
    *,
    loss: LossName | Callable[[Tensor, Tensor], Tensor] | None = None,
    per_sample_loss: Callable[[nn.Module, Any], Tensor] | None = None,
    clip: Clipping | None = None,
    noise: Noise | None = None,
    expected_batch_size: int | None = None,
    delta: float | None = None,
    sampling: Sampler | None = None,
    ledger: Path | str | None = None,
    max_epsilon: float | None = None,
    accountant: Accountant = "pld",
    physical_batch_size: int | None = None,
    autocast: torch.dtype | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    block: int = 64,
    allow_large_delta: bool = False,
    diagnostics: bool = False,
    debug: bool = False,
    **others: object,
) -> Private:
    """Put a module under private training. Nothing of the module changes: not its type, its keys or its training mode.

    Args:
        module: with at least one trainable parameter; layers that look across the batch are refused.
        optimizer: any of torch's that steps without a closure, over the module's trainable parameters. Until `close` it
            refuses steps from elsewhere.
        dataset: a tensor, a tuple or a dict of tensors of one length, or a data set with `len` and samples by number.
            With several ranks, the whole of it on each.
        loss: for samples (inputs, labels): a name, or outputs and labels to (n,).
        per_sample_loss: for any other sample: module and collated batch to (n,). One of the two.
        clip: how far one sample may move the sum. Must be given, as the next three: None only lets the error say so.
        noise: on the clipped sum.
        expected_batch_size: samples a step on average; what the sum is divided by.
        delta: for which epsilon is told; below one over the number of samples.
        sampling: how batches are chosen; None: `Poisson()`.
        ledger: file that steps are charged in before they run, gone on with where it exists; None: in memory, for as
            long as the object that is returned.
        max_epsilon: `batches` stops before the step that would break it; above 0, and by an accountant that gives an
            upper bound ("gdp" does not).
        accountant: for `epsilon` and `max_epsilon`.
        physical_batch_size: most rows in one forward pass; larger batches go in several. Changes speed only.
        autocast: torch.bfloat16 to compute the forward pass in it; gradients are clipped in float32.
        collate: samples to a batch, for data sets; None: torch's default.
        block: steps that are charged with one write to the ledger; a crash costs what is left of a block.
        allow_large_delta: allow a delta that promises nothing.
        diagnostics: keep what steps looked like in `diagnostics`, which is NOT private.
        debug: reproducible noise and batches, for finding faults; epsilon is infinite then.
        **others: words of other libraries, each answered with ours.

    Raises:
        ConfigError: E144 for steps that the accountant does not know, E147 for sizes that do not fit, E150 for options
            out of range or that do not go together, E151 to E153 for modules and losses, E155 for data, E156 where
            `max_epsilon` allows not even a first step, E158 for a module whose other account in memory is still open,
            E585 for a ledger of another training.
        MissingExtra: E112, without dp-accounting.
    """
    for word in others:
        answer = _ANSWERS.get(word)
        raise ConfigError(
            "E150",
            seen=f"make_private({word}=...)",
            expected="the options of make_private",
            fix=f"say {answer}" if answer else "leave it out; help(dp.make_private) lists the options",
        )
    if clip is None or noise is None or expected_batch_size is None or delta is None:
        needed = {"clip": clip, "noise": noise, "expected_batch_size": expected_batch_size, "delta": delta}
        missing = [name for name, value in needed.items() if value is None]
        raise ConfigError(
            "E150",
            seen=f"make_private without {', '.join(missing)}",
            expected="all four of clip, noise, expected_batch_size and delta: none has a value that is right for all",
            fix=f"add {missing[0]}, such as clip=dp.Flat(clip_norm=1.0), noise=dp.Gaussian(noise_multiplier=1.1), "
            "expected_batch_size=256, delta=1e-5",
        )
    check_accountant(accountant)
    check_delta(delta)
    _require_options(clip, noise, max_epsilon, accountant, physical_batch_size, autocast, block, debug)
    compare = _loss(loss, per_sample_loss)
    source = Source.of(dataset, collate)
    small = delta < 1 / source.size or allow_large_delta
    require_option(small, "delta", delta, f"below 1 / {source.size}, one over the samples (or allow_large_delta=True)")
    _require_module(module)
    _require_optimizer(module, optimizer)
    settings = Settings(
        size=source.size,
        clip=clip,
        noise=noise,
        sampling=Poisson() if sampling is None else sampling,
        expected_batch_size=expected_batch_size,
        delta=delta,
        accountant=accountant,
        max_epsilon=max_epsilon,
        physical_batch_size=physical_batch_size,
        autocast=autocast,
        block=block,
        debug=debug,
        diagnostics=diagnostics,
    )
    first = settings.charge(0)
    terms = Terms(
        dataset_size=source.size,
        delta=delta,
        unit="sample",
        relation=events(Spent([first])).relation,
        sampler=first.sampling,
    )

    def account(device: torch.device) -> Account:
        found = _ledger(ledger, terms)
        try:
            opened = Account(settings, found, device)
            opened.claim(module)
        except BaseException:
            if found is not None:
                found.close()
            raise
        return opened

    return Private(
        module,
        optimizer,
        settings=settings,
        source=source,
        loss=compare,
        secret=Secret(debug_seed=0 if debug else None),
        account=account,
    )


def _require_options(
    clip: Clipping,
    noise: Noise,
    max_epsilon: float | None,
    accountant: Accountant,
    physical_batch_size: int | None,
    autocast: torch.dtype | None,
    block: int,
    debug: bool,
) -> None:
    if noise.noise_multiplier:
        require_option(math.isfinite(clip.clip_norm), "clip_norm", clip.clip_norm, "finite where there is noise")
        fits = noise.ord == clip.order
        require_option(fits, "clip", clip, f'in norm "{noise.ord}" for {type(noise).__name__} noise')
    if max_epsilon is not None:
        fits = bool(noise.noise_multiplier) and not debug
        require_option(fits, "max_epsilon", max_epsilon, "left out where nothing is private: without noise, in debug")
        bound = accountant != "gdp"
        require_option(bound, "accountant", accountant, "an upper bound where there is a budget: pld, rdp or zcdp")
    require_option(type(block) is int and block >= 1, "block", block, "a whole number, 1 or more")
    most = physical_batch_size
    fits = most is None or (type(most) is int and most >= 1)
    require_option(fits, "physical_batch_size", most, "a whole number, 1 or more, or None")
    # Gradients in float16 vanish without a loss scale, and a scaled loss would be clipped at another norm.
    require_option(autocast in (None, torch.bfloat16), "autocast", autocast, "torch.bfloat16 or None")


def _loss(
    loss: LossName | Callable[[Tensor, Tensor], Tensor] | None,
    per_sample_loss: Callable[[nn.Module, Any], Tensor] | None,
) -> Callable[[nn.Module, Any], Tensor]:
    """Either of the two as a loss of module and batch."""
    require_option((loss is None) != (per_sample_loss is None), "loss", loss, "or per_sample_loss: exactly one of them")
    if loss is None:
        return cast("Callable[[nn.Module, Any], Tensor]", per_sample_loss)
    compare = named(loss)

    def pair(module: nn.Module, batch: object) -> Tensor:
        values = cast("Sequence[Tensor]", batch) if isinstance(batch, tuple | list) else ()
        if len(values) != 2:
            raise ConfigError(
                "E150",
                seen=f"samples that are a {type(cast('object', batch)).__name__}",
                expected="pairs of inputs and labels, which loss= is for",
                fix="give per_sample_loss=lambda module, batch: ... instead of loss",
            )
        return compare(module(values[0]), values[1])

    return pair


def _ledger(path: Path | str | None, terms: Terms) -> Ledger | None:
    if path is None or ranks.number() > 0:
        return None
    place = Path(path)
    if not place.exists():
        return Ledger.create(place, terms)
    found = Ledger.open(place)
    if found.history.terms != terms:
        found.close()
        raise ConfigError(
            "E585",
            seen=f"the ledger {place} of a training with {found.history.terms}",
            expected=f"{terms}",
            fix="name a new file, or go on with the same data, delta and sampler",
        )
    return found


def _require_module(module: nn.Module) -> None:
    kind = type(module).__name__
    wrapped = isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
    require_option(not wrapped, "module", kind, "the module itself: ranks are summed by private training")
    shaped = not any(isinstance(each, nn.UninitializedParameter) for each in module.parameters())
    require_option(shaped, "module", kind, "with shapes: run one batch through lazy layers first")
    trainable = [each for each in module.parameters() if each.requires_grad]
    require_option(bool(trainable), "module", kind, "with at least one parameter that requires a gradient")
    places = {(each.device, each.dtype) for each in trainable}
    one = len(places) == 1 and trainable[0].is_floating_point()
    found = sorted(map(str, places))
    require_option(one, "module", found, "trainable parameters on one device, of one real floating type")


def _require_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    known = {id(each) for each in module.parameters()}
    held = {id(each) for group in optimizer.param_groups for each in group["params"]}
    kind = type(optimizer).__name__
    strangers = len(held - known)
    require_option(
        not strangers, "optimizer", f"with {strangers} other parameters", "over parameters of the module only"
    )
    left = [name for name, each in module.named_parameters() if each.requires_grad and id(each) not in held]
    require_option(
        not left,
        "optimizer",
        f"without {', '.join(left[:3])}{', ...' if len(left) > 3 else ''}",
        "over every trainable parameter: each takes its part of the clip norm and of the noise, so freeze the others",
    )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    needed = closure is not None and closure.default is inspect.Parameter.empty
    require_option(not needed, "optimizer", kind, "one whose step needs no closure: each call of it would be a release")
    sparse = isinstance(optimizer, torch.optim.SparseAdam)
    require_option(not sparse, "optimizer", kind, "one for dense gradients, such as Adam: noise reaches every element")
