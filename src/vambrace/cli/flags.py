"""Flags that several commands share, as dataclasses that become tables of the plan dialect.

A flag that was not given is left out of the table, so the dialect's own default and the plan file stay in force. How
tables are laid over a plan file is the business of `vambrace.cli.planning`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import typer

from vambrace.cli.streams import path_text
from vambrace.errors import ConfigError

__all__ = ["ContractFlags", "RunFlags", "SourceFlags", "is_code", "numbers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFlags:
    """What is assessed and on what."""

    TITLE: ClassVar[str] = "Model and data"

    model: Annotated[
        str | None, typer.Option(help="Weights (.safetensors, .pt) or an ONNX file.", callback=path_text)
    ] = None
    factory: Annotated[
        str | None, typer.Option(help="pkg.mod:fn that builds the network; your own code, trusted because you name it.")
    ] = None
    outputs: Annotated[str | None, typer.Option(help="What the network emits: logits or probabilities.")] = None
    identity: Annotated[
        str | None, typer.Option(metavar="KEY", help="Key file that opens a sealed model.", callback=path_text)
    ] = None
    signer: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Public key file of who must have signed a sealed model.", callback=path_text),
    ] = None
    data: Annotated[str | None, typer.Option(help="Folder, zip, npy, npz, idx, pkg.mod:fn, or digits.")] = None
    labels: Annotated[str | None, typer.Option(help="Label file of idx data, when it does not lie beside it.")] = None
    members: Annotated[str | None, typer.Option(help="Samples the model was trained on, for privacy checks.")] = None
    nonmembers: Annotated[str | None, typer.Option(help="Samples it was not trained on, from the same source.")] = None
    limit: Annotated[int | None, typer.Option(help="At most this many samples a role, stratified by class.")] = None

    def table(self) -> dict[str, Any]:
        """The flags as tables of the plan dialect; `limit` and `labels` stand apart, because they concern given roles.

        Returns:
            "model", "data" and "trust" as in a plan, and beside them "limit" and "labels", where they were given.
        """
        roles = {"eval": self.data, "members": self.members, "nonmembers": self.nonmembers}
        data = {role: {"source": source} for role, source in roles.items() if source is not None}
        model = _given(
            source=self.model,
            factory=self.factory,
            outputs=self.outputs,
            identity=self.identity,
            signer=self.signer,
        )
        named = (self.factory, *roles.values())
        roots = sorted({name.split(":")[0].split(".")[0] for name in named if name and is_code(name)})
        parts = _given(model=model or None, data=data or None, trust={"code": roots} if roots else None)
        return {**parts, **_given(limit=self.limit, labels=self.labels)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractFlags:
    """How stored samples become inputs; see `vambrace.core.contract.InputContract`."""

    TITLE: ClassVar[str] = "Input contract: how stored samples become inputs (docs/inputs.md)"

    bounds: Annotated[str | None, typer.Option(metavar="LOW,HIGH", help="Range of the inputs, such as 0,1.")] = None
    mean: Annotated[str | None, typer.Option(metavar="M,...", help="Per-channel mean the model subtracts.")] = None
    std: Annotated[str | None, typer.Option(metavar="S,...", help="Per-channel deviation it divides by.")] = None
    size: Annotated[str | None, typer.Option(metavar="H,W", help="Height and width the model needs.")] = None
    resize: Annotated[str | None, typer.Option(help="Images of another size: none (refuse), squash or center.")] = None
    layout: Annotated[str | None, typer.Option(help="Axes of stored arrays: NCHW, NHWC, NHW or features.")] = None
    channels: Annotated[int | None, typer.Option(help="1 or 3: convert images to grey or colour.")] = None
    classes: Annotated[Path | None, typer.Option(help="File with one class name a line, in label order.")] = None
    strip_prefix: Annotated[str | None, typer.Option(help="Remove this from state-dict keys, such as module.")] = None
    state_key: Annotated[str | None, typer.Option(help="Where the state dict lies in a checkpoint.")] = None

    def table(self) -> dict[str, Any]:
        """The flags as the `[contract]` table of the plan dialect; empty when none was given."""
        contract = _given(
            bounds=numbers(self.bounds, "--bounds"),
            mean=numbers(self.mean, "--mean"),
            std=numbers(self.std, "--std"),
            size=_size(self.size),
            resize=self.resize,
            layout=self.layout,
            channels=self.channels,
            classes=_lines(self.classes),
            strip_prefix=self.strip_prefix,
            state_key=self.state_key,
        )
        return {"contract": contract} if contract else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFlags:
    """How the run is carried out."""

    TITLE: ClassVar[str] = "Run"

    profile: Annotated[str | None, typer.Option(help="smoke (a minute), ci (a quarter of an hour) or full.")] = None
    seed: Annotated[int | None, typer.Option(help="Root of all randomness.")] = None
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...")] = None
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Begin nothing after 90s, 10m, 2h; what began is finished.")
    ] = None
    workers: Annotated[int | None, typer.Option(help="Processes; the numbers do not depend on it.")] = None
    threads: Annotated[int | None, typer.Option(help="Threads of every worker.")] = None
    batch: Annotated[int | None, typer.Option(help="Physical batch; preflight chooses one otherwise.")] = None
    images: Annotated[int | None, typer.Option(help="Worst examples that a check shows; 0 saves none.")] = None
    out: Annotated[str | None, typer.Option(help="Folder for run directories (default: runs).")] = None

    def given(self) -> dict[str, Any]:
        """The flags that were given, by name."""
        return _given(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def table(self) -> dict[str, Any]:
        """The flags as tables of the plan dialect."""
        run = self.given()
        top = {name: run.pop(name) for name in ("profile", "seed") if name in run}
        return {**top, "run": run} if run else top


def numbers(text: str | None, flag: str, *, whole: bool = False) -> list[str] | list[int] | None:
    """The values of a flag such as `--mean 0.485,0.456,0.406`; fractions such as 1/255 are kept as text.

    Raises:
        ConfigError: E571, when a whole number is needed and something else stands there.
    """
    if text is None:
        return None
    parts = text.replace("x", ",").split(",") if whole else text.split(",")
    parts = [part.strip() for part in parts]
    if not whole:
        return parts
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(
            "E571", seen=f"{flag} {text}", expected="whole numbers, such as 224,224", fix=f"correct {flag}"
        )
    return [int(part) for part in parts]


def _size(text: str | None) -> list[int] | None:
    """Height and width.

    Raises:
        ConfigError: E571, for anything but two whole numbers.
    """
    sizes = cast("list[int] | None", numbers(text, "--size", whole=True))
    if sizes is not None and len(sizes) != 2:
        both = f"--size {sizes[0]},{sizes[0]}" if len(sizes) == 1 else f"--size {sizes[0]},{sizes[1]}"
        raise ConfigError("E571", seen=f"--size {text}", expected="height and width, such as 224,224", fix=both)
    return sizes


def is_code(source: str) -> bool:
    """Whether a source is "pkg.mod:fn" rather than a path or the embedded digits."""
    module, separator, name = source.partition(":")
    return (
        module != "digits"
        and bool(separator)
        and name.isidentifier()
        and all(part.isidentifier() for part in module.split("."))
    )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _lines(path: Path | None) -> list[str] | None:
    """The class names in a file: the number of a line is the label, so every line counts.

    Raises:
        ConfigError: E572, for a file that cannot be read, holds no name, a blank line between names or a name twice.
    """
    if path is None:
        return None
    try:
        # Not `splitlines`: it also cuts at characters that a name may hold. Some editors begin with a byte order mark.
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "E572",
            seen=f"{path}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}",
            expected="a UTF-8 text file, one class name a line",
            fix="check the path of --classes, and save the file as UTF-8",
        ) from error
    if names == [""]:
        raise _no_names(path, "it is empty", fix="write the names, or leave --classes out")
    lines: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            fix = f"remove line {number}, or write the name of class {number - 1} in it"
            raise _no_names(path, f"line {number} is blank", fix=fix)
        if (first := lines.setdefault(name, number)) < number:
            raise _no_names(path, f"{name!r} in lines {first} and {number}", fix=f"correct line {number}")
    return names


def _no_names(path: Path, seen: str, *, fix: str) -> ConfigError:
    return ConfigError(
        "E572", seen=f"{path}: {seen}", expected="one class name a line, each once, in label order", fix=fix
    )
