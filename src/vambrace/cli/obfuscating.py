"""`vambrace obfuscate`, `restore`, `unlock` and `trace`: models that are harder to read, and the ways back."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vambrace.cli.gating import measured, read_inputs, said_of_lock, tell_gates, write_reports
from vambrace.cli.maps import check_signer, open_maps, say_unproven, seal_map
from vambrace.cli.obfuscated import tell_left_out, tell_passes, tell_table, tell_untraceable
from vambrace.cli.sealing import Signers, there
from vambrace.cli.secrets import Ask, Environment, Identities, Number, Recipients, key_option, opened_by, read_by
from vambrace.cli.speaking import say
from vambrace.cli.streams import file_place
from vambrace.cli.targets import are_one, check_free, put
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


__all__ = ["obfuscate", "restore", "trace", "unlock"]

Profile = Literal["exact", "tolerance"]
Ratio = Literal["small", "medium", "large"]
Force = Annotated[bool, typer.Option("--force", help="Replace what is at the target.")]
Key = Annotated[
    Path | None,
    key_option("--key-file", text="The key that locks the model: an aes256 key."),
]
Maps = Annotated[
    list[Path], typer.Option("--map", metavar="MAP", parser=file_place, help="A sealed map; again for more.")
]


def obfuscate(
    source: Annotated[Path, typer.Argument(parser=file_place)],
    *,
    target: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            parser=file_place,
            help="Where the obfuscated model goes.",
            show_default=False,
        ),
    ],
    profile: Annotated[
        Profile,
        typer.Option(help="exact: equal bit for bit (default); tolerance: equal but for rounding, and hides more."),
    ] = "exact",
    ratio: Annotated[
        Ratio | None,
        typer.Option(
            help="Of what costs time: a tenth, three or six tenths, whatever it takes (default: what is cheap)."
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget-latency",
            metavar="X",
            help="Leave out what makes it slower than X times, measured with --data (default there: 1.05).",
        ),
    ] = None,
    key: Key = None,
    leave_open: Annotated[
        bool, typer.Option("--leave-open", help="Lock even where some weights stay in clear; needs --key-file.")
    ] = False,
    seed: Annotated[int | None, typer.Option(metavar="N", help="To repeat the work: hides nothing by itself.")] = None,
    owner: Annotated[
        Path | None,
        key_option("--owner-key", text="The secret behind all copies: an aes256 key."),
    ] = None,
    customer: Annotated[
        str | None, typer.Option(metavar="ID", help="Whose copy this is, to trace it; needs --owner-key.")
    ] = None,
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            parser=file_place,
            help="Real inputs, .npy, one for each of the model's; else nothing is measured.",
        ),
    ] = [],  # noqa: B006  the parser copies it
    classify: Annotated[
        bool,
        typer.Option(
            "--classify",
            help="Also train attackers on networks that are obfuscated alike; half an hour or more; needs --data.",
        ),
    ] = False,
    report: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE", parser=file_place, help="Write what was measured: .html or .json; again for both."
        ),
    ] = [],  # noqa: B006
    place: Annotated[
        Path | None,
        typer.Option(
            "--map", metavar="MAP", parser=file_place, help="Where the sealed map goes (default: OUT.map.sealed)."
        ),
    ] = None,
    no_map: Annotated[bool, typer.Option("--no-map", help="Keep no map: there is no way back.")] = False,
    recipients: Recipients = [],  # noqa: B006
    ask: Ask = False,
    environment: Environment = None,
    number: Number = None,
    sign: Annotated[
        Path | None,
        key_option(text="The ed25519 key that vouches for the map."),
    ] = None,
    force: Force = False,
) -> None:
    """Rewrite an ONNX model so that it computes the same and is harder to read; this is not encryption.

    SOURCE is an .onnx file. The map of what was done leads back to it, so it is sealed: --recipient says for whom.
    With --key-file its weights are out of order until `vambrace unlock` or obfuscate.load_model puts them in order.
    With --data, what makes the model too slow is left out, and in the tolerance profile what moves answers too far;
    then the gates are measured, what the model does without its key among them; --classify adds how well attackers tell
    what kind of network it is. Exits 1 when a gate fails, 4 when one that is required was not measured.
    """
    from vambrace.assets.obfuscate.keyed import as_key
    from vambrace.assets.obfuscate.locked import key_bytes
    from vambrace.assets.obfuscate.locking import lock
    from vambrace.assets.obfuscate.measure.gates import Gates
    from vambrace.assets.obfuscate.pipeline import onnx_model
    from vambrace.assets.obfuscate.planning import check_budget
    from vambrace.assets.obfuscate.rehearsal import Rehearsal

    _model(source)
    if no_map and (place or recipients or sign or ask or environment is not None or number is not None):
        raise _apart("--no-map, and a place, recipient or signer of a map", "a map, or none", "leave --no-map out")
    place = Path(f"{target}.map.sealed") if place is None else place
    _check(data, report, budget, classify, seed, owner, customer)
    if leave_open and key is None:
        raise _apart("--leave-open without --key-file", "a key that locks the model", "--key-file KEY, or leave it out")
    if budget is not None:
        check_budget(budget)
    keys = [each for each in (key, owner, sign) if each is not None]
    taken = [target, *report, *([] if no_map else [place])]
    _free(taken, read=[*_parts(source), *data, *keys, *_files(recipients)], force=force)
    by = [] if no_map else read_by(recipients, ask=ask, environment=environment, number=number)
    check_signer(sign)
    secret = None if key is None else key_bytes(key)
    shared = None if owner is None else key_bytes(owner)
    inputs = read_inputs(data)
    gates = Gates(profile=profile)
    if secret is not None:  # else nothing says that the lock holds
        gates = dataclasses.replace(gates, required=(*gates.required, "keyless"))
    if inputs:
        budget = gates.latency if budget is None else budget
        gates = dataclasses.replace(gates, latency=budget)
        moved = ", or moves answers too far" if profile == "tolerance" else ""
        say(f"measuring what takes more than {budget:g} times the latency{moved}")
    made = onnx_model(
        source,
        profile=profile,
        ratio=ratio,
        seed=as_key(seed) if shared is None else shared,
        customer=customer,
        inputs=inputs or None,
        budget=budget,
    )
    tell_left_out(made)
    written = made.model if secret is None else lock(made.model, secret, leave_open=leave_open)
    attackers = Rehearsal(profile=profile, ratio=ratio, budget=budget) if classify else None
    found = measured(source, made, written if secret else None, inputs, gates, attackers) if inputs else None
    digest = _write(target, written, {} if no_map else {place: seal_map(made.map, by, sign)}, force=force)
    tell_passes(made.map)
    if customer is not None:
        tell_untraceable(made)
        if no_map:
            again = "" if not inputs else ", which measured times may not make the same again"
            say(f"no map is kept, and without one nothing tells whose copy this is: it is to be made again{again}")
    elif owner is not None:
        say("without --customer, all copies that are made with this key are the same: none can be traced")
    if found is not None:
        write_reports(found, report, force=force)
        tell_gates(found)
    else:
        say("nothing was measured: --data gives real inputs for the gates")
    say(f"{target}: SHA-256 {digest}" + (said_of_lock(found) if secret else ""))
    say("this raises the cost of reading the model and is not encryption; to keep it secret at rest, seal it as well")
    if found is not None and found.verdict != "PASS":
        raise typer.Exit(1 if found.verdict == "FAIL" else 4)


def restore(
    source: Annotated[Path, typer.Argument(parser=file_place)],
    target: Annotated[Path, typer.Argument(parser=file_place)],
    *,
    place: Annotated[
        Path, typer.Option("--map", metavar="MAP", parser=file_place, help="Its sealed map.", show_default=False)
    ],
    key: Key = None,
    identities: Identities = [],  # noqa: B006
    ask: Ask = False,
    environment: Environment = None,
    number: Number = None,
    signers: Signers = [],  # noqa: B006
    force: Force = False,
) -> None:
    """Lead an obfuscated model back by its map: to the original bit for bit, but for passes that have no way back.

    SOURCE is what `vambrace obfuscate` wrote; a locked model takes its --key-file. TARGET gets the original with all
    its weights inside, as raw bytes without notes.
    """
    from vambrace.assets.obfuscate.pipeline import undo

    _model(source)
    _free([target], read=[*_parts(source), place, *([] if key is None else [key]), *_files(identities)], force=force)
    by = opened_by(identities, ask=ask, environment=environment, number=number)
    (known,) = open_maps([place], by, signers)
    undone = undo(_unlocked(source, key), known)
    digest = _write(target, undone.model, force=force)
    if undone.kept:
        say(f"led back, but for what cannot be undone bit for bit: {', '.join(undone.kept)}")
    else:
        say("led back: this is the original, its weights inside as raw bytes")
    say(f"{target}: SHA-256 {digest}")
    say_unproven(signers)


def unlock(
    source: Annotated[Path, typer.Argument(parser=file_place)],
    target: Annotated[Path, typer.Argument(parser=file_place)],
    *,
    key: Annotated[
        Path,
        key_option("--key-file", text="The key that it was locked with."),
    ],
    force: Force = False,
) -> None:
    """Put the weights of a locked model in order, and write it in clear.

    SOURCE is a locked .onnx file, TARGET the file to write. Nothing tells whether the key is right: with a wrong one
    the model runs and computes something else. obfuscate.load_model unlocks in memory, without a file.
    """
    _model(source)
    _free([target], read=[*_parts(source), key], force=force)
    digest = _write(target, _unlocked(source, key), force=force)
    say(f"{target}: SHA-256 {digest}; not the model if the key was wrong, which nothing tells")


def trace(
    source: Annotated[Path, typer.Argument(parser=file_place)],
    *,
    maps: Maps,
    key: Key = None,
    identities: Identities = [],  # noqa: B006
    ask: Ask = False,
    environment: Environment = None,
    number: Number = None,
    signers: Signers = [],  # noqa: B006
) -> None:
    """Say whose copy a model is, by the maps of the copies that were given away.

    SOURCE is the model that turned up; a locked one takes its --key-file. Exits 1 where no copy agrees better than
    chance allows one time in a million.
    """
    from vambrace.assets.obfuscate.tracing import SURE
    from vambrace.assets.obfuscate.tracing import trace as compared
    from vambrace.report.text import on_a_line

    _model(source)
    by = opened_by(identities, ask=ask, environment=environment, number=number)
    matches = compared(source if key is None else _unlocked(source, key), open_maps(maps, by, signers))
    rows = [
        (
            match.customer or "(no name)",
            f"{match.scaled} of {match.channels}",
            f"{match.arranged} of {match.arrangements}",
            f"1e{match.log10_chance:.0f}" if match.log10_chance < 0 else "1",
        )
        for match in matches
    ]
    tell_table(("customer", "channels that agree", "arrangements found", "chance of another"), rows)
    sure = [match for match in matches if match.log10_chance <= SURE]
    if not sure:
        say("no copy agrees better than chance allows" + ("" if key is None else ", if that was its key"))
        raise typer.Exit(1)
    names = [match.customer or f"number {at} in the table, which has no name" for at, match in enumerate(sure, 1)]
    whose = " and of ".join(on_a_line(name) for name in dict.fromkeys(names))
    say(f"this is the copy of {whose}, or was made from it")
    say_unproven(signers)


def _check(
    data: Sequence[Path],
    report: Sequence[Path],
    budget: float | None,
    classify: bool,
    seed: int | None,
    owner: Path | None,
    customer: str | None,
) -> None:
    """Refuse options that do not go together, before anything is done."""
    wrong = [path.name for path in report if path.suffix not in {".html", ".json"}]
    if wrong:
        raise _apart(f"a report called {wrong[0]}", "a name that ends in .html or .json", "--report out.html")
    asked = {"--report": bool(report), "--budget-latency": budget is not None, "--classify": classify}
    name = next((name for name, given in asked.items() if given and not data), None)
    if name is not None:
        raise _apart(f"{name} without inputs to measure with", "real inputs", "--data inputs.npy")
    if seed is not None and owner is not None:
        raise _apart("both --seed and --owner-key", "one of them", "--owner-key for copies, --seed to repeat work")
    if customer is not None and owner is None:
        raise _apart(
            "--customer without --owner-key",
            "the secret that all copies share",
            "make one with `vambrace keygen owner.key --kind aes256`, and keep it",
        )


def _model(path: Path) -> None:
    there(path)
    if path.is_dir():
        raise ConfigError(
            "E801", seen=f"the folder {path}", expected="an .onnx file", fix="give the path of the file in it"
        )


def _parts(source: Path) -> list[Path]:
    """A model's file and those in which its weights lie: with one of them replaced, nothing would be left of it."""
    from vambrace.models.onnx_file import weight_files

    return [source, *weight_files(source)]


def _files(keys: Sequence[str]) -> list[Path]:
    """Those keys of a command line that are names of files: a model in the place of one would be the end of it."""
    return [Path(each) for each in keys if os.path.lexists(each)]


def _free(places: Sequence[Path], *, read: Sequence[Path], force: bool) -> None:
    """Refuse places that cannot be written, that are taken, and, forced or not, that are read or written as well."""
    from vambrace.core.disk import check_writable

    known = list(read)
    for path in places:
        if any(path.resolve() == each.resolve() or are_one(path, each) for each in known):
            raise _apart(f"{path} twice", "a place of its own for each file", "choose another name")
        known.append(path)
        check_free(path, keys=(), force=force)
        check_writable(path)


def _unlocked(source: Path, key: Path | None) -> Any:  # noqa: ANN401  onnx.ModelProto, or the path
    if key is None:
        return source
    from vambrace.assets.obfuscate.locked import key_bytes
    from vambrace.assets.obfuscate.locking import unlock as ordered

    return ordered(source, key_bytes(key))


def _write(
    path: Path,
    model: Any,  # noqa: ANN401  onnx.ModelProto
    beside: Mapping[Path, bytes] | None = None,
    *,
    force: bool,
) -> str:
    """Put a model, and what belongs to it, on disk.

    The model takes its place first: an old one without its map is lost, where a new one can be made again.
    """
    raw = model.SerializeToString(deterministic=True)
    put({path: raw, **(beside or {})}, force=force)
    return hashlib.sha256(raw).hexdigest()


def _apart(seen: str, expected: str, fix: str) -> ConfigError:
    return ConfigError("E854", seen=seen, expected=expected, fix=fix)
