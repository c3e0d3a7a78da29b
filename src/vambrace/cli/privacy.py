"""`vambrace dp epsilon`, `noise` and `steps`: what private training costs, before any is done. Needs no torch."""

from __future__ import annotations

import dataclasses
import json
import math
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vambrace.cli.helping import Command, Group
from vambrace.cli.speaking import tell
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    import click

    from vambrace.privacy.dp.accounting import Accountant, Guarantee

__all__ = ["Noise", "Sampler", "epsilon", "noise", "steps"]

_NO_MATTER = "leave it out: epsilon depends on the noise over the clip norm, not on the clip norm"
_ELSEWHERE = {
    "--sigma": "--noise-multiplier",
    "--noise": "--noise-multiplier",
    "--initial-noise-multiplier": "--noise-multiplier",
    "--q": "--sample-rate",
    "--sampling-rate": "--sample-rate",
    "--sampling-probability": "--sample-rate",
    "--target-delta": "--delta",
    "--target-epsilon": "--epsilon",
    "--max-epsilon": "--epsilon",
    "--max-eps": "--epsilon",
    "--eps": "--epsilon",
    "--lot-size": "--batch-size",
    "--n": "--dataset-size",
    "--num-samples": "--dataset-size",
    "--num-examples": "--dataset-size",
    "--iterations": "--steps",
    "--num-steps": "--steps",
    "--num-epochs": "--epochs",
    "--max-grad-norm": _NO_MATTER,
    "--l2-norm-clip": _NO_MATTER,
    "--norm-bound": _NO_MATTER,
    "--clip-norm": _NO_MATTER,
    "--micro-batches": "leave it out: every sample is clipped by itself here",
    "--num-microbatches": "leave it out: every sample is clipped by itself here",
}


class _Answering(Command):
    """A command that knows what other toolkits call its options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, or say in our words what was meant."""
        from click import NoSuchOption

        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            ours = _ELSEWHERE.get(error.option_name.lower().replace("_", "-"))
            if ours is None:
                raise
            raise ConfigError(
                "E576",
                seen=f"no such option '{error.option_name}'",
                expected=" ".join([ctx.command_path, *self.collect_usage_pieces(ctx)]),
                fix=f"{ours} is its name here" if ours.startswith("--") else ours,
            ) from None


class Sampler(StrEnum):
    """How batches are chosen."""

    POISSON = "poisson"
    FIXED_SIZE = "fixed_size"
    SHUFFLE = "shuffle"
    FULL = "full"


class Noise(StrEnum):
    """Distributions of noise."""

    GAUSSIAN = "gaussian"
    DISCRETE_GAUSSIAN = "discrete_gaussian"
    LAPLACE = "laplace"


Delta = Annotated[float, typer.Option(metavar="DELTA", help="Delta, well below 1 / samples.", show_default=False)]
Epsilon = Annotated[float, typer.Option(metavar="EPSILON", help="Epsilon not to exceed.", show_default=False)]
Multiplier = Annotated[
    float,
    typer.Option(
        "--noise-multiplier",
        metavar="Z",
        help="Deviation of the noise over the clip norm.",
        show_default=False,
    ),
]
Rate = Annotated[str | None, typer.Option(metavar="RATE", help="Share of the samples in a batch: 0.01, 256/60000.")]
Batch = Annotated[int | None, typer.Option(metavar="N", help="Samples in a batch; with --dataset-size.")]
Dataset = Annotated[int | None, typer.Option(metavar="N", help="Samples in all.")]
Steps = Annotated[int | None, typer.Option(metavar="N", help="Steps; or --epochs.")]
Epochs = Annotated[str | None, typer.Option(metavar="N", help="Passes over the data, rounded up to whole steps.")]
By = Annotated[str, typer.Option(metavar="NAME", help="pld (default), rdp, zcdp or gdp.", show_default=False)]
Samples = Annotated[
    Sampler,
    typer.Option("--sampling", help="How batches are chosen (default: poisson).", show_default=False),
]
Kind = Annotated[Noise, typer.Option("--mechanism", help="Noise (default: gaussian).", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")]

app = typer.Typer(
    name="dp",
    cls=Group,
    help="What differentially private training costs: epsilon, or the noise or the steps for a given epsilon.",
    rich_markup_mode=None,
)


@app.command("epsilon", cls=_Answering, short_help="Epsilon of equal steps.")
def epsilon(
    *,
    noise_multiplier: Multiplier,
    delta: Delta,
    steps: Steps = None,
    epochs: Epochs = None,
    sample_rate: Rate = None,
    batch_size: Batch = None,
    dataset_size: Dataset = None,
    accountant: By = "pld",
    sampling: Samples = Sampler.POISSON,
    mechanism: Kind = Noise.GAUSSIAN,
    statement: Annotated[bool, typer.Option("--statement", help="In plain language, with what it leaves out.")] = False,
    as_json: Json = False,
) -> None:
    """Epsilon of a training of equal steps, for a delta.

    Such as: vambrace dp epsilon --noise-multiplier 1.1 --batch-size 256 --dataset-size 60000 --epochs 60 --delta 1e-5
    """
    from vambrace.privacy.dp import accounting
    from vambrace.privacy.dp import statement as stating
    from vambrace.privacy.dp.charges import Spent

    charge = accounting.charge_of(
        noise_multiplier=noise_multiplier,
        sample_rate=_rate(sample_rate),
        batch_size=batch_size,
        dataset_size=dataset_size,
        sampling=sampling.value,
        mechanism=mechanism.value,
    )
    count = _steps(steps, epochs, charge.sample_rate)
    spent, by = Spent([(charge, count)]), cast("Accountant", accountant)
    found = accounting.epsilon(spent, delta=delta, accountant=by)
    if dataset_size is not None and delta * dataset_size >= 1:
        large = f"delta is not below 1 / {dataset_size}: publishing one sample outright would keep to such a promise"
        found = dataclasses.replace(found, notes=(*found.notes, large))
    if as_json:
        _tell_json(found, {"noise_multiplier": noise_multiplier, "sample_rate": charge.sample_rate, "steps": count})
    elif statement:
        tell(stating.statement(spent, delta=delta, accountant=by, dataset_size=dataset_size))
    else:
        _tell([("epsilon", _up(found.epsilon)), ("steps", f"{count}")], found)


@app.command("noise", cls=_Answering, short_help="The least noise for an epsilon.")
def noise(
    *,
    epsilon: Epsilon,
    delta: Delta,
    steps: Steps = None,
    epochs: Epochs = None,
    sample_rate: Rate = None,
    batch_size: Batch = None,
    dataset_size: Dataset = None,
    accountant: By = "pld",
    sampling: Samples = Sampler.POISSON,
    mechanism: Kind = Noise.GAUSSIAN,
    as_json: Json = False,
) -> None:
    """The least noise multiplier for which a training stays within an epsilon, to five digits.

    Such as: vambrace dp noise --epsilon 3 --batch-size 256 --dataset-size 60000 --epochs 60 --delta 1e-5
    """
    from vambrace.privacy.dp.accounting import charge_of
    from vambrace.privacy.dp.calibration import calibrate

    charge = charge_of(
        noise_multiplier=1.0,
        sample_rate=_rate(sample_rate),
        batch_size=batch_size,
        dataset_size=dataset_size,
        sampling=sampling.value,
    )
    found = calibrate(
        epsilon=epsilon,
        delta=delta,
        accountant=cast("Accountant", accountant),
        steps=_steps(steps, epochs, charge.sample_rate),
        sample_rate=_rate(sample_rate),
        batch_size=batch_size,
        dataset_size=dataset_size,
        sampling=sampling.value,
        mechanism=mechanism.value,
    )
    if as_json:
        _tell_json(
            found.guarantee,
            {"noise_multiplier": found.noise_multiplier, "sample_rate": found.sample_rate, "steps": found.steps},
        )
    else:
        _tell(
            [
                ("noise multiplier", f"{found.noise_multiplier:g}"),
                ("steps", f"{found.steps}"),
                ("epsilon", _up(found.guarantee.epsilon)),
            ],
            found.guarantee,
        )


@app.command("steps", cls=_Answering, short_help="The most steps for an epsilon.")
def steps(
    *,
    epsilon: Epsilon,
    noise_multiplier: Multiplier,
    delta: Delta,
    sample_rate: Rate = None,
    batch_size: Batch = None,
    dataset_size: Dataset = None,
    accountant: By = "pld",
    sampling: Samples = Sampler.POISSON,
    mechanism: Kind = Noise.GAUSSIAN,
    as_json: Json = False,
) -> None:
    """The most steps for which a training stays within an epsilon.

    Such as: vambrace dp steps --epsilon 3 --noise-multiplier 1.1 --batch-size 256 --dataset-size 60000 --delta 1e-5
    """
    from vambrace.privacy.dp.calibration import calibrate
    from vambrace.privacy.dp.events import share

    found = calibrate(
        epsilon=epsilon,
        delta=delta,
        accountant=cast("Accountant", accountant),
        noise_multiplier=noise_multiplier,
        sample_rate=_rate(sample_rate),
        batch_size=batch_size,
        dataset_size=dataset_size,
        sampling=sampling.value,
        mechanism=mechanism.value,
    )
    epochs = math.floor(found.steps * share(found.sample_rate))
    if as_json:
        _tell_json(
            found.guarantee,
            {
                "noise_multiplier": noise_multiplier,
                "sample_rate": found.sample_rate,
                "steps": found.steps,
                "whole_epochs": epochs,
            },
        )
    else:
        _tell(
            [
                ("steps", f"{found.steps}"),
                ("whole epochs", f"{epochs}"),
                ("epsilon", _up(found.guarantee.epsilon)),
            ],
            found.guarantee,
        )


def _rate(text: str | None) -> float | None:
    from vambrace.core.options import parse_ratio

    return None if text is None else parse_ratio(text)


def _steps(steps: int | None, epochs: str | None, rate: float) -> int:
    from vambrace.core.options import parse_ratio
    from vambrace.privacy.dp.events import share

    if (steps is None) == (epochs is None):
        raise ConfigError(
            "E144",
            seen="--steps and --epochs" if steps is not None else "no --steps and no --epochs",
            expected="one of the two",
            fix="add --steps N or --epochs N" if steps is None else "leave one out",
        )
    if steps is not None:
        return steps
    return math.ceil(Fraction(parse_ratio(epochs)) / share(rate))


def _tell(lines: list[tuple[str, str]], found: Guarantee) -> None:
    bound = "an upper bound" if found.upper_bound else "an approximation, no upper bound"
    neighbours = {
        "add_or_remove_one": "one sample added or removed",
        "replace_one": "one sample replaced by another",
        "zero_out_one": "one sample left out of its sums",
    }[found.relation]
    lines = [
        *lines,
        ("delta", f"{found.delta:g}"),
        ("accountant", f"{found.accountant}: {bound}"),
        ("neighbours", neighbours),
        *(("note", note) for note in found.notes),
    ]
    for name, text in lines:
        tell(f"{name:<16}  {text}")


def _tell_json(found: Guarantee, asked: dict[str, Any]) -> None:
    data = {**asked, **found.as_json()}
    del data["asked"]
    if not math.isfinite(found.epsilon):
        data["epsilon"] = None  # JSON has no infinity; the notes say what it is
    tell(json.dumps(data, indent=2))


def _up(value: float) -> str:
    from vambrace.privacy.dp.edges import rounded

    return f"{rounded(value, up=True):g}" if math.isfinite(value) else "infinite"
