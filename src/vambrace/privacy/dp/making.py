"""`make_private`: one call from a module, an optimizer and data to private training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from vambrace.errors import ConfigError
from vambrace.privacy.dp import ranks
from vambrace.privacy.dp.accounting import check_delta
from vambrace.privacy.dp.batches import Source
from vambrace.privacy.dp.clipping import Clipping, require_option
from vambrace.privacy.dp.history import Terms
from vambrace.privacy.dp.ledger import Ledger
from vambrace.privacy.dp.losses import LossName, named
from vambrace.privacy.dp.noise import Noise
from vambrace.privacy.dp.private import Private, Settings
from vambrace.privacy.dp.sampling import Poisson, Sampler
from vambrace.privacy.dp.secret import Secret

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
    clip: Clipping,
    noise: Noise,
    expected_batch_size: int,
    delta: float,
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
        optimizer: any of torch's, over parameters of the module.
        dataset: a tuple of tensors of one length, or a data set with `len` and samples by number.
        loss: for samples (inputs, labels): a name, or outputs and labels to (n,).
        per_sample_loss: for any other sample: module and collated batch to (n,). One of the two.
        clip: how far one sample may move the sum.
        noise: on the clipped sum.
        expected_batch_size: samples a step on average; what the sum is divided by.
        delta: for which epsilon is told; below one over the number of samples.
        sampling: how batches are chosen; None: `Poisson()`.
        ledger: file that steps are charged in before they run, gone on with where it exists; None: in memory.
        max_epsilon: `batches` stops before the step that would break it.
        accountant: for `epsilon` and `max_epsilon`.
        physical_batch_size: most rows in one forward pass; larger batches go in several. Changes speed only.
        autocast: type that the forward pass computes in, such as torch.bfloat16; gradients are clipped in float32.
        collate: samples to a batch, for data sets; None: torch's default.
        block: steps that are charged with one write to the ledger; a crash costs what is left of a block.
        allow_large_delta: allow a delta that promises nothing.
        diagnostics: keep what steps looked like in `diagnostics`, which is NOT private.
        debug: reproducible noise and batches, for finding faults; epsilon is infinite then.
        **others: words of other libraries, each answered with ours.

    Raises:
        ConfigError: E150 for options out of range or that do not go together, E151 to E153 for modules and losses, E155
            for data, E585 for a ledger of another training.
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
    source = Source.of(dataset, collate)
    check_delta(delta)
    small = delta < 1 / source.size or allow_large_delta
    require_option(small, "delta", delta, f"below 1 / {source.size}, one over the samples (or allow_large_delta=True)")
    require_option((loss is None) != (per_sample_loss is None), "loss", loss, "or per_sample_loss: exactly one of them")
    if noise.noise_multiplier:
        require_option(clip.clip_norm < float("inf"), "clip_norm", clip.clip_norm, "finite where there is noise")
        fits = noise.ord == clip.order
        require_option(fits, "clip", clip, f'in norm "{noise.ord}" for {type(noise).__name__} noise')
    require_option(block >= 1, "block", block, "1 or more")
    _require_module(module, optimizer)
    chosen = Poisson() if sampling is None else sampling
    fields = chosen.charge_fields(source.size, expected_batch_size)
    settings = Settings(
        clip=clip,
        noise=noise,
        sampling=chosen,
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
    terms = Terms(
        dataset_size=source.size,
        delta=delta,
        unit="sample",
        relation={"fixed_size": "replace_one", "shuffle": "zero_out_one"}.get(
            str(fields["sampling"]), "add_or_remove_one"
        ),
        sampler=str(fields["sampling"]),
    )
    return Private(
        module,
        optimizer,
        settings,
        source,
        _loss(loss, per_sample_loss),
        Secret(debug_seed=0 if debug else None),
        _ledger(ledger, terms),
    )


def _loss(
    loss: LossName | Callable[[Tensor, Tensor], Tensor] | None,
    per_sample_loss: Callable[[nn.Module, Any], Tensor] | None,
) -> Callable[[nn.Module, Any], Tensor]:
    if per_sample_loss is not None:
        return per_sample_loss
    assert loss is not None  # noqa: S101  checked by make_private
    compare = named(loss)

    def pair(module: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401
        if not isinstance(batch, tuple | list) or len(cast("Sequence[Any]", batch)) != 2:
            raise ConfigError(
                "E150",
                seen=f"samples that are a {type(batch).__name__}",  # pyright: ignore[reportUnknownArgumentType]
                expected="pairs of inputs and labels, which loss= is for",
                fix="give per_sample_loss=lambda module, batch: ... instead of loss",
            )
        return compare(module(batch[0]), batch[1])

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


def _require_module(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    trainable = [each for each in module.parameters() if each.requires_grad]
    require_option(
        bool(trainable), "module", type(module).__name__, "with at least one parameter that requires a gradient"
    )
    wrapped = isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
    require_option(
        not wrapped, "module", type(module).__name__, "the module itself: ranks are summed by private training"
    )
    places = {(each.device, each.dtype) for each in trainable}
    require_option(
        len(places) == 1, "module", sorted(map(str, places)), "trainable parameters on one device, of one type"
    )
    known = {id(each) for each in module.parameters()}
    for group in optimizer.param_groups:
        strangers = sum(id(each) not in known for each in group["params"])
        require_option(
            not strangers, "optimizer", f"with {strangers} other parameters", "over parameters of the module only"
        )
