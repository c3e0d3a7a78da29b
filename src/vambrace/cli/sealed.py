"""`vambrace inspect`, `verify`, `sign`, `rewrap` and `rekey`: what can be done with files that are sealed or signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vambrace.cli.bar import listening
from vambrace.cli.ending import tidily
from vambrace.cli.sealing import Signers, Threads, say_pending, signer_of, there
from vambrace.cli.secrets import (
    Ask,
    Environment,
    Identities,
    NewAsk,
    NewEnvironment,
    NewNumber,
    Number,
    Recipients,
    key_option,
    opened_by,
    read_by,
)
from vambrace.cli.speaking import many, say, tell
from vambrace.cli.streams import file_place, mebibytes
from vambrace.errors import ArtifactRefused, ModelRefused

if TYPE_CHECKING:
    from vambrace.assets.seal.header import Header
    from vambrace.assets.seal.sealed import Sealed

__all__ = ["inspect", "rekey", "rewrap", "sign", "verify"]

_SHOWN = 60  # characters of a text by strangers

Json = Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")]
Name = Annotated[str, typer.Option(help="The signer's name.")]
Role = Annotated[str, typer.Option(help="What the signature means.")]


def inspect(
    path: Annotated[Path, typer.Argument(parser=file_place)],
    *,
    identities: Identities = [],  # noqa: B006  the parser copies it
    ask: Ask = False,
    environment: Environment = None,
    number: Number = None,
    as_json: Json = False,
) -> None:
    """Say what a sealed file tells about itself, to everybody or to who opens it.

    Without an identity nothing is verified: whoever has the file can have written what it says.
    """
    there(path)
    by = opened_by(identities, ask=ask, environment=environment, number=number, needed=False)
    found = _inside(path, by) if by else _outside(path)
    say_pending(path)
    if as_json:
        tell(json.dumps(found, indent=2))
        return
    for key, value in found.items():
        if key == "recipients":
            for at, each in enumerate(value, 1):
                tell(f"{'recipient':<12} {at}  {_text(each)}")
        elif value not in ({}, None, ""):
            tell(f"{key:<12} {_text(value)}")


def verify(
    path: Annotated[Path, typer.Argument(parser=file_place)],
    *,
    signers: Signers = [],  # noqa: B006  the parser copies it
    identities: Identities = [],  # noqa: B006
    ask: Ask = False,
    environment: Environment = None,
    number: Number = None,
    at: Annotated[
        Path | None,
        typer.Option(
            "--signature", metavar="PATH", parser=file_place, help="Where the signatures are, if not beside it."
        ),
    ] = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Check what can be proven of a file or folder: that it is intact, and who made it.

    PATH is a sealed file, or anything with a signature beside it. With --signer, one of these must have signed. With
    --identity, every chunk of a sealed file is opened. Exits 3 when nothing is proven.
    """
    from vambrace.assets.seal.origin import encoded
    from vambrace.assets.seal.verifying import verify as check

    by = opened_by(identities, ask=ask, environment=environment, number=number, needed=False)
    with listening() as progress:
        hear = mebibytes(progress, "verifying")
        found = check(path, signer=signers or None, identity=by or None, at=at, threads=threads, progress=hear)
    say_pending(path)
    if as_json:
        signatures = [
            {
                "signer": encoded(each.signer),
                "name": each.name,
                "role": each.role,
                "date": each.date,
                "known": each.known,
            }
            for each in found.signatures
        ]
        facts = {"kind": found.kind, "proven": found.proven, "signatures": signatures}
        tell(json.dumps(facts | {"checked": found.checked, "unchecked": found.unchecked}, indent=2))
        return
    tell(found.verdict)
    for each in found.signatures:
        if not each.known:
            tell(f"also signed by {each}")
    say(f"checked: {', '.join(found.checked)}")
    if found.unchecked:
        say(f"not checked: {', '.join(found.unchecked)}")


def sign(
    path: Annotated[Path, typer.Argument(parser=file_place)],
    key: Annotated[
        Path,
        key_option(text="The ed25519 key to sign with."),
    ],
    name: Name = "",
    role: Role = "",
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="PATH", parser=file_place, help="Where to (default: PATH.sig).", show_default=False
        ),
    ] = None,
) -> None:
    """Sign a file or a folder, such as a run: who vouches for it, in what role, when.

    The signature goes beside it, to PATH.sig, below those that are there: each vouches for the ones before. A sealed
    file is signed while it is sealed: `vambrace seal --sign`.
    """
    from vambrace.assets.seal.signing import beside, located
    from vambrace.assets.seal.signing import sign as put

    with listening() as progress:
        signed = put(path, key, name=name, role=role, to=to, progress=mebibytes(progress, "signing"))
    say(f"signed; {to or beside(located(path))} holds {many(len(signed.entries), 'signature')}")


def rewrap(
    path: Annotated[Path, typer.Argument(parser=file_place)],
    *,
    identities: Identities = [],  # noqa: B006  the parser copies it
    recipients: Recipients = [],  # noqa: B006
    add: Annotated[
        list[str], typer.Option("--add", metavar="KEY", help="A further recipient; again for more.", show_default=False)
    ] = [],  # noqa: B006
    remove: Annotated[
        list[str],
        typer.Option(
            "--remove",
            metavar="WHO",
            help="A recipient's number, id or key file; again for more.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    ask: Ask = False,
    environment: Environment = None,
    number: Number = None,
    new_ask: NewAsk = False,
    new_environment: NewEnvironment = None,
    new_number: NewNumber = None,
) -> None:
    """Change who can open a sealed file, in place and at once, whatever its size.

    --recipient replaces all of them; --add and --remove change some; without any of these, a change that was cut off is
    finished. --passphrase is what opens it now; --new-passphrase is added, or one of those that replace. This shuts
    nobody out for good: who opened the file once may have kept its key, and old copies stay as they are; a new key is
    made by `vambrace rekey`.
    """
    from vambrace.assets.seal.rewrapping import finish
    from vambrace.assets.seal.rewrapping import rewrap as change

    there(path)
    by = opened_by(identities, ask=ask, environment=environment, number=number)
    word: dict[str, Any] = {"ask": new_ask, "environment": new_environment, "number": new_number, "new": True}
    given = new_ask or new_environment is not None or new_number is not None
    if not (recipients or add or remove or given) and finish(path, by):
        say("nothing is left to do of the change that was cut off")
        return
    # A new passphrase replaces with others that replace; by itself it does not shut out everybody else.
    replaced = read_by(recipients, **word) if recipients else None
    done = change(
        path,
        by,
        replaced,
        add=read_by(add, **({} if recipients else word)) if add or (given and not recipients) else (),
        remove=[int(each) if each.isascii() and each.isdigit() and len(each) < 3 else each for each in remove],
    )
    if done.finished:
        say("a change that was cut off before was finished first")
    now = many(done.recipients, "recipient")
    say(f"{now} now, {done.added} new, {done.removed} gone, change number {done.epoch}")
    if done.removed:
        say("not a revocation: who opened the file before may have kept its key; vambrace rekey makes a new one")


def rekey(
    path: Annotated[Path, typer.Argument(parser=file_place)],
    *,
    identities: Identities = [],  # noqa: B006  the parser copies it
    recipients: Recipients = [],  # noqa: B006
    ask: Ask = False,
    environment: Environment = None,
    number: Number = None,
    new_ask: NewAsk = False,
    new_environment: NewEnvironment = None,
    new_number: NewNumber = None,
    key: Annotated[
        Path | None,
        key_option("--sign", text="Sign the new file with this key."),
    ] = None,
    name: Name = "",
    role: Role = "",
    signers: Signers = [],  # noqa: B006
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Let a signed file become an unsigned one.")] = False,
    suite: Annotated[str | None, typer.Option(metavar="NAME", help="Another suite than it has.")] = None,
    threads: Threads = 1,
) -> None:
    """Seal the content of a sealed file anew, under another key and for those who are named now.

    The file is replaced when the new one is whole. Whoever knows a public key can have made the old one: with --signer
    one of these must have, before --sign vouches for what is in it. --passphrase is what opens it now, and not the new
    one unless --new-passphrase says so.
    """
    from vambrace.assets.seal.rekeying import rekey as renew
    from vambrace.assets.seal.saving import suite_of

    there(path)
    by = opened_by(identities, ask=ask, environment=environment, number=number)
    wanted = read_by(recipients, ask=new_ask, environment=new_environment, number=new_number, new=True)
    with tidily(), listening() as progress:
        done = renew(
            path,
            by,
            wanted,
            sign=key,
            name=name,
            role=role,
            unsigned=unsigned,
            signer=signers or None,
            suite=suite_of(suite) if suite else None,
            threads=threads,
            progress=mebibytes(progress, "sealing"),
        )
    state = "signed" if done.signed else "not signed"
    say(f"sealed {done.size} bytes anew for {many(done.recipients, 'recipient')}, {state}")
    if done.signed and not signers:
        say("who made the old file was not asked: --signer says who may have")
    say("copies that were made before open as they did")


def _outside(path: Path) -> dict[str, Any]:
    from vambrace.assets.seal.verifying import outline

    header, foot = outline(path)
    return {
        "verified": "nothing: no identity was given",
        **_common(header),
        "chunks": foot.chunks,
        "stream": foot.stream,
        "signed": "yes, not checked" if foot.leaves else "no",
    }


def _inside(path: Path, by: list[object]) -> dict[str, Any]:
    from vambrace.assets.seal.loading import open_sealed

    with open_sealed(path, identity=by, ignore_expiry=True) as sealed:
        said = sealed.statement
        facts = {
            "verified": "header and trailer; the chunks are read by `vambrace verify`",
            **_common(sealed.header),
            "content": sealed.description.content,
            "size": sealed.size,
            "private": dict(sealed.description.metadata),
            "signed": "no" if said is None else f"by {signer_of(said)}; whether these chunks are it is not checked",
        }
        return facts | {"inside": _listing(sealed)}


def _common(header: Header) -> dict[str, Any]:
    recipients = [
        " ".join(str(part) for part in (stanza["type"], stanza.get("id"), stanza.get("key")) if part)
        for stanza in header.recipients
    ]
    return {
        "format": "sealed, version 1",
        "suite": header.fixed.suite.name.lower().replace("_", "-"),
        "chunk size": header.fixed.chunk_size,
        "changes": header.epoch,
        "public": dict(header.public),
        "recipients": recipients,
    }


def _listing(sealed: Sealed) -> dict[str, Any] | None:
    match sealed.description.content:
        case "folder":
            from vambrace.assets.seal.folders import read_manifest

            return {each.path: f"{each.size} bytes" for each in read_manifest(sealed).values()}
        case "tensors":
            from vambrace.assets.seal.tensors import read_header

            try:
                return {name: f"{each.dtype} {list(each.shape)}" for name, each in read_header(sealed)[0].items()}
            except (ArtifactRefused, ModelRefused) as error:  # `open` gives it back as the file that it is
                return {"not listed": error.seen}
        case "bytes":
            return None


def _text(value: Any) -> str:  # noqa: ANN401  of JSON
    """On one line: whoever wrote a file must not write what is said about it."""
    from vambrace.report.text import on_a_line

    if not isinstance(value, dict):
        return on_a_line(str(value), 4 * _SHOWN)
    pairs = cast("dict[str, Any]", value).items()
    return "; ".join(f"{_apart(on_a_line(key, _SHOWN))}: {_within(each)}" for key, each in pairs)


def _within(value: Any) -> str:  # noqa: ANN401  of JSON
    return f"{{{_text(value)}}}" if isinstance(value, dict) else _apart(_text(value))


def _apart(text: str) -> str:
    """In quotes where it could be taken for two fields."""
    return json.dumps(text, ensure_ascii=False) if ";" in text or ": " in f"{text} " else text
