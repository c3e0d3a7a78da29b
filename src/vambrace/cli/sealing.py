"""`vambrace keygen`, `seal` and `open`: into sealed files and out of them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vambrace.cli.bar import listening
from vambrace.cli.ending import tidily
from vambrace.cli.secrets import (
    Ask,
    Environment,
    Identities,
    Number,
    Recipients,
    key_option,
    opened_by,
    read_by,
)
from vambrace.cli.speaking import many, say, tell
from vambrace.cli.streams import STREAM, BytesOut, CountedIn, bytes_in, file_place, is_stream, mebibytes, place
from vambrace.cli.targets import check_free, free, outside, sink, taken, weights_of
from vambrace.errors import ConfigError, VambraceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assets.seal.statement import Statement

__all__ = ["keygen", "open_file", "say_pending", "seal_file", "signer_of", "standing", "there"]


def _so_many(threads: int) -> int:
    """Refuse numbers of threads that cannot be, also where a command comes to use one only."""
    from vambrace.assets.seal.chunks import check_threads

    return check_threads(threads)


Force = Annotated[bool, typer.Option("--force", help="Replace what is at TARGET.")]
Threads = Annotated[
    int,
    typer.Option(
        metavar="N", help="How many work at once, 1 to 256 (default: 1).", show_default=False, callback=_so_many
    ),
]
Signers = Annotated[
    list[str],
    typer.Option(
        "--signer",
        metavar="KEY",
        help="Who must have signed: a public key or its file.",
        show_default=False,
    ),
]


def keygen(
    path: Annotated[Path, typer.Argument(parser=file_place)],
    kind: Annotated[
        Literal["mlkem768-x25519", "x25519", "ed25519", "aes256"],
        typer.Option(help="What for: to be sealed for (default), to sign (ed25519), or shared (aes256)."),
    ] = "mlkem768-x25519",
) -> None:
    """Make a key: the secret one at PATH, the public one at PATH.pub.

    Those who know the public key can seal for you; only the secret one opens. mlkem768-x25519 also withstands quantum
    computers; aes256 has no public part and serves all who share it. The paths that were written go to stdout.
    """
    from vambrace.assets.seal import keys

    key = keys.generate(kind)
    public = None if kind == "aes256" else key.public()
    beside = Path(f"{path}.pub")
    if public and os.path.lexists(beside):
        raise taken(beside, "keys are never overwritten: choose another name")
    with tidily():
        keys.write(path, key)
        if public:
            try:
                keys.write(beside, public)
            except VambraceError:
                say(f"{path}, the secret key, was written alone: remove it before you try again")
                raise
    tell("\n".join(map(str, [path, beside][: 1 + bool(public)])))
    say(f"keep {path} to yourself and back it up: nothing but its permissions guards it, and nothing replaces it")


def seal_file(
    source: Annotated[Path, typer.Argument(parser=place)],
    target: Annotated[Path, typer.Argument(parser=place)],
    *,
    recipients: Recipients = [],  # noqa: B006  the parser copies it
    ask: Ask = False,
    environment: Environment = None,
    number: Number = None,
    sign: Annotated[
        Path | None,
        key_option(text="Sign with this ed25519 key: proves where it comes from."),
    ] = None,
    name: Annotated[str, typer.Option(help="The signer's name.")] = "",
    role: Annotated[str, typer.Option(help="What the signature means.")] = "",
    expires: Annotated[
        str | None, typer.Option(metavar="DATE", help="Refuse to open it from then on: 2030-01-31T00:00:00Z.")
    ] = None,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="A licence, which recipients read.")] = None,
    pad: Annotated[bool, typer.Option("--pad", help="Hide the exact length, for up to 12 % more bytes.")] = False,
    suite: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="aes-256-gcm (default), chacha20-poly1305, aes-256-gcm-siv or sm4-gcm.",
            show_default=False,
        ),
    ] = "aes-256-gcm",
    chunk_size: Annotated[
        int, typer.Option(metavar="BYTES", help="What is decrypted as one (default: 1048576).", show_default=False)
    ] = 2**20,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Also seal files that run code when they are opened.")
    ] = False,
    threads: Threads = 1,
    force: Force = False,
) -> None:
    """Seal a file or folder: only recipients can read it, and nobody can change it unnoticed.

    SOURCE is a file, a folder, or - for stdin; TARGET a file, or - for stdout. Tensors of a safetensors file can be
    read one by one later. Nothing is removed: SOURCE stays where it is, unless --force puts TARGET in its place.
    """
    from vambrace.assets.seal import saving
    from vambrace.assets.seal.recipients import recipients_of
    from vambrace.report.text import on_a_line

    there(source)
    by = recipients_of(read_by(recipients, ask=ask, environment=environment, number=number))
    # A key and its file, or two paths of one file, are one recipient.
    who = {getattr(getattr(each, "key", None), "id", id(each)) for each in by}
    metadata = {key: text for key, text in (("expires", expires), ("licence", licence)) if text is not None}
    _say_expired(metadata)
    options: dict[str, Any] = {
        "recipients": by,
        "sign": sign,
        "name": name,
        "role": role,
        "metadata": metadata,
        "suite": suite,
        "chunk_size": chunk_size,
        "threads": threads,
        "allow_pickle": allow_pickle,
        "fresh": not force,
    }
    out = BytesOut() if target == STREAM else target
    if isinstance(out, Path):
        # A model is read whole for that, so only where there is something that could be lost.
        weights = weights_of(source) if force and os.path.exists(out) else ()
        check_free(out, keys=[*recipients, sign], force=force, weights=weights)
    if is_stream(source):
        if pad:
            raise ConfigError(
                "E712",
                seen="--pad for a stream, whose length is not known",
                expected="a file or folder",
                fix="leave --pad out, or seal a file",
            )
        with bytes_in(source) as stream, tidily(), listening() as progress, free(target):
            counted = CountedIn(stream, progress, "sealing")
            foot = saving.save_stream(counted, out, **options)
            counted.finish()
    else:
        if apart := outside(source):
            names = ", ".join(on_a_line(path.name, 100) for path in apart[:3])
            say(f"{source} keeps weights in other files ({names}), which are not sealed with it: seal their folder")
        with tidily(), listening() as progress, free(target):
            foot = saving.save(source, out, pad=pad, progress=mebibytes(progress, "sealing"), **options)
    if isinstance(out, BytesOut):
        out.flush()
    signed = f", signed by {name or sign}" if sign else ""
    say(f"sealed {foot.stream} bytes in {many(foot.chunks, 'chunk')} for {many(len(who), 'recipient')}{signed}")


def open_file(
    source: Annotated[Path, typer.Argument(parser=place)],
    target: Annotated[Path, typer.Argument(parser=place)],
    *,
    identities: Identities = [],  # noqa: B006  the parser copies it
    ask: Ask = False,
    environment: Environment = None,
    number: Number = None,
    signers: Signers = [],  # noqa: B006
    unverified: Annotated[
        bool,
        typer.Option("--stream-unverified", help="With --signer: let a stream out before its signature was checked."),
    ] = False,
    ignore_expiry: Annotated[bool, typer.Option("--ignore-expiry", help="Open it after its date, too.")] = False,
    mindspore: Annotated[
        Path | None,
        key_option(text="It is a file of MindSpore; KEY holds the bytes of its key."),
    ] = None,
    threads: Threads = 1,
    force: Force = False,
) -> None:
    """Open a sealed file, or one that MindSpore encrypted.

    SOURCE is a file, or - for stdin; TARGET a file or folder, or - for stdout. Files appear when every byte was
    verified, readable by you alone. What goes to stdout was verified piece by piece: exit code 0 says that nothing is
    missing.
    """
    there(source)
    if target != STREAM:
        check_free(target, keys=[*identities, *signers, mindspore], force=force)
    if mindspore is not None:
        given = {
            "--identity": identities,
            "--passphrase": ask or environment is not None or number is not None,
            "--signer": signers,
            "--stream-unverified": unverified,
            "--ignore-expiry": ignore_expiry,
        }
        if others := [option for option, value in given.items() if value]:
            raise ConfigError(
                "E712",
                seen=f"--mindspore with {', '.join(others)}",
                expected="--mindspore KEY alone: such a file has neither recipients, nor signatures, nor a date",
                fix="leave the others out; or leave --mindspore out, if the file was sealed by Vambrace",
            )
        _open_mindspore(source, target, mindspore, force=force)
        return
    by = opened_by(identities, ask=ask, environment=environment, number=number)
    from vambrace.assets.seal.origin import accepted_keys

    accepted = accepted_keys(signers or None)
    if is_stream(source):
        said = _open_stream(
            source, target, by, accepted, unverified=unverified, ignore_expiry=ignore_expiry, force=force
        )
    else:
        said = _open_path(source, target, by, accepted, ignore_expiry=ignore_expiry, threads=threads, force=force)
    say(standing(said, known=bool(accepted)))
    say_pending(source)


def say_pending(path: Path) -> None:
    """That a sealed file is not all of it, where a change of its recipients was cut off."""
    from vambrace.assets.seal.opening import pending

    if path != STREAM and (beside := pending(path)) is not None:
        say(
            f"a change of its recipients was cut off: it may open only together with {beside.name} beside it, so copy "
            f"and move it with that file, or not at all; vambrace rewrap {path.name} -i KEY finishes the change"
        )


def there(path: Path, *, shown: str | None = None) -> None:
    """Refuse a path where nothing is, before anything else is asked for.

    Args:
        path: that path, or the stream.
        shown: what stands for it in the error; None: itself.

    Raises:
        ConfigError: E776.
    """
    if path != STREAM and not os.path.exists(path):  # noqa: PTH110  a name that is too long is not there either
        raise ConfigError(
            "E776",
            seen=f"nothing at {shown or path}",
            expected="a file or folder",
            fix="check the path and its permissions",
        )


def standing(said: Statement | None, *, known: bool) -> str:
    """What is proven of an intact file, in one line.

    Args:
        said: the statement of its signature, which holds; None without one.
        known: whether the signer is one of those who were asked for.
    """
    if said is None:
        return "intact, origin not proven"
    if known:
        return f"intact, signed by {signer_of(said)}"
    return f"intact, origin not proven: signed by {signer_of(said)}; --signer names whom you accept"


def signer_of(said: Statement) -> str:
    """The key that signed, and what it says of itself."""
    from vambrace.assets.seal.origin import encoded

    who = ", ".join(word for word in (said.name, said.role, said.date) if word)
    return f"{encoded(said.signer)}{f' ({who})' if who else ''}"


def _open_path(
    source: Path,
    target: Path,
    by: list[object],
    accepted: frozenset[bytes],
    *,
    ignore_expiry: bool,
    threads: int,
    force: bool,
) -> Statement | None:
    from vambrace.assets.seal.folders import extract
    from vambrace.assets.seal.loading import open_sealed

    with (
        open_sealed(
            source, identity=by, signer=accepted or None, threads=threads, ignore_expiry=ignore_expiry
        ) as sealed,
        tidily(),
        listening() as progress,
    ):
        # Asked for first: then what is read is held against the signature that is reported.
        said = sealed.statement
        if sealed.description.content == "folder":
            if target == STREAM:
                raise _folder("a folder for stdout", "the name of a folder")
            if force and os.path.lexists(target):
                raise taken(target, "folders are never replaced: choose another name, or remove it")
            extract(sealed, target, threads=threads, progress=mebibytes(progress, "opening"))
        else:
            with sink(target, force=force) as out:
                sealed.copy_to(out, progress=mebibytes(progress, "opening"))
        return said


def _open_stream(
    source: Path,
    target: Path,
    by: list[object],
    accepted: frozenset[bytes],
    *,
    unverified: bool,
    ignore_expiry: bool,
    force: bool,
) -> Statement | None:
    from vambrace.assets.seal.reader import Reader
    from vambrace.assets.seal.recipients import identities_of

    with bytes_in(source) as stream, tidily(), listening() as progress:
        counted = CountedIn(stream, progress, "opening")
        reader = Reader(
            counted,
            identities_of(by),
            signers=accepted or None,
            check_signature=True,
            stream_unverified=unverified,
            ignore_expiry=ignore_expiry,
        )
        if reader.description.content == "folder":
            raise _folder("a folder in a stream", "a sealed file on disk")
        with sink(target, force=force) as out:
            reader.copy_to(out)
        counted.finish()
        return reader.statement


def _open_mindspore(source: Path, target: Path, key: Path, *, force: bool) -> None:
    from vambrace.assets.seal import mindspore
    from vambrace.assets.seal.source import rest
    from vambrace.core.files import read_file

    there(key, shown="the path of the key, which is not shown: it may be a secret")
    if is_stream(source):
        with bytes_in(source) as stream:
            opened = mindspore.read(rest(stream), read_file(key))
    else:
        opened = mindspore.read(source, read_file(key))
    with tidily(), sink(target, force=force) as out:
        out.write(memoryview(opened.data))
    for warning in opened.warnings:
        say(f"warning: {warning}")
    state = "every block authentic" if opened.authenticated else "nothing authenticated: it may have been changed"
    say(f"opened {len(opened.data)} bytes ({opened.mode}), {state}")


def _say_expired(metadata: Mapping[str, str]) -> None:
    from vambrace.assets.seal.description import expiry

    date = expiry(metadata)  # None for what is no date, which sealing refuses
    if date is not None and date <= datetime.now(UTC):
        say(f"warning: {metadata['expires']} is past: only --ignore-expiry opens what is sealed here")


def _folder(seen: str, expected: str) -> ConfigError:
    return ConfigError("E775", seen=seen, expected=expected, fix="keep the sealed file, and open it into a folder")
