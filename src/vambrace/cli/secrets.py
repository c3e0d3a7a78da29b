"""Keys and passphrases for the commands on sealed files: named on the command line, never written there.

What is typed in a command stands in the history of the shell and in the list of processes. So keys come from files,
passphrases from a terminal, a variable of the environment or an open file descriptor.
"""

from __future__ import annotations

import functools
import getpass
import os
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vambrace.cli.ending import tidily
from vambrace.cli.streams import file_place
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.assets.seal.passphrase import Passphrase

__all__ = [
    "Ask",
    "Environment",
    "Identities",
    "NewAsk",
    "NewEnvironment",
    "NewNumber",
    "Number",
    "Recipients",
    "key_option",
    "opened_by",
    "passphrase",
    "read_by",
    "refuse_typed",
]

_AWS = "aws-kms:"
_LONGEST = 2**20  # bytes of a passphrase
_LONGEST_TYPED = 4095  # bytes of a line that Linux takes from a terminal

Recipients = Annotated[
    list[str],
    typer.Option(
        "--recipient",
        "-r",
        metavar="KEY",
        help="Who can open it: a key file, a public key's line, or aws-kms:KEY; again for more.",
        show_default=False,
    ),
]
Identities = Annotated[
    list[str],
    typer.Option(
        "--identity",
        "-i",
        metavar="KEY",
        help="What opens it: a secret key's file, or aws-kms:KEY.",
        show_default=False,
    ),
]
Ask = Annotated[bool, typer.Option("--passphrase", "-p", help="Ask for a passphrase on the terminal.")]
Environment = Annotated[
    str | None, typer.Option("--passphrase-env", metavar="NAME", help="Take a passphrase from this variable.")
]
Number = Annotated[
    int | None, typer.Option("--passphrase-fd", metavar="N", help="Take a passphrase from this file descriptor.")
]
# Of a command that also opens: what opens is called as it is in every other.
NewAsk = Annotated[
    bool, typer.Option("--new-passphrase", help="Ask on the terminal for a passphrase that is to open it.")
]
NewEnvironment = Annotated[
    str | None, typer.Option("--new-passphrase-env", metavar="NAME", help="Take the new passphrase from this variable.")
]
NewNumber = Annotated[
    int | None, typer.Option("--new-passphrase-fd", metavar="N", help="Take the new passphrase from this descriptor.")
]


def read_by(
    recipients: Sequence[str],
    *,
    ask: bool = False,
    environment: str | None = None,
    number: int | None = None,
    new: bool = False,
) -> list[object]:
    """The recipients of a command line.

    Args:
        recipients: keys by name.
        ask: as in `passphrase`, and so the others.
        environment: the same.
        number: the same.
        new: the same.

    Raises:
        ConfigError: E772, for nobody; and as `passphrase`.
    """
    found = [_named(value) for value in dict.fromkeys(recipients)]
    word = passphrase(ask=ask, environment=environment, number=number, twice=True, new=new)
    found += [word] if word else []
    if not found:
        raise ConfigError(
            "E772",
            seen="nobody who could open the file",
            expected="at least one recipient",
            fix=f"--recipient KEY, after `vambrace keygen KEY`; or {_option(new)}",
        )
    return found


def opened_by(
    identities: Sequence[str], *, ask: bool, environment: str | None, number: int | None, needed: bool = True
) -> list[object]:
    """The identities of a command line.

    Raises:
        ConfigError: E772, for none where one is needed; and as `passphrase`.
    """
    found = [_named(value) for value in identities]
    word = passphrase(ask=ask, environment=environment, number=number, twice=False)
    found += [word] if word else []
    if needed and not found:
        raise ConfigError(
            "E772",
            seen="nothing to open the file with",
            expected="a key or a passphrase that it was sealed for",
            fix="--identity KEY, or --passphrase; `vambrace inspect FILE` says for whom it is",
        )
    return found


def passphrase(
    *, ask: bool, environment: str | None, number: int | None, twice: bool, new: bool = False
) -> Passphrase | None:
    """The passphrase from where the command line says; None where it says nothing.

    Args:
        ask: on the terminal, without showing it.
        environment: a variable; it is removed from this process.
        number: a file descriptor; what stands there up to the end of its first line.
        twice: ask again, to notice a slip.
        new: beside another one, which opens: it is asked for, and named in messages, as the new one.

    Raises:
        ConfigError: E773, when it is not to be had there, or from several places at once; E735, when it is empty.
    """
    from vambrace.assets.seal.passphrase import Passphrase

    nowhere = functools.partial(_nowhere, new=new)

    if ask + (environment is not None) + (number is not None) > 1:
        raise nowhere("more than one place to take a passphrase from", "one of them")
    if environment is not None:
        if environment not in os.environ:
            # Not by its name: it may be the passphrase itself.
            raise nowhere("no variable of the given name in the environment", "a variable that is set")
        return Passphrase(os.environ.pop(environment))
    if number is not None:
        try:
            # Without a buffer: what stands behind the line may be the content.
            with open(number, "rb", buffering=0, closefd=False) as stream:  # noqa: PTH123  a descriptor has no path
                line = stream.readline(_LONGEST + 1)
        except (OSError, ValueError, TypeError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "it is none"
            raise nowhere(f"file descriptor {number} cannot be read ({why})", "an open one") from error
        if len(line) > _LONGEST:  # a second passphrase from there would be the rest of the first
            raise nowhere(f"a first line of more than {_LONGEST} bytes", "a passphrase")
        return Passphrase(line.rstrip(b"\r\n"))
    if not ask:
        return None
    if not sys.stdin.isatty():
        raise nowhere("no terminal to ask for a passphrase on", "a terminal")
    try:
        with tidily():  # or the terminal would show nothing of what is typed afterwards
            word = getpass.getpass("New passphrase: " if new else "Passphrase: ", sys.stderr)
            same = not twice or getpass.getpass("The same again: ", sys.stderr) == word
    except EOFError:
        raise nowhere("the end of the input instead of a passphrase", "a passphrase and Enter") from None
    except UnicodeDecodeError:  # it shows a part of the passphrase
        encoding = sys.stdin.encoding
        raise nowhere(
            f"a passphrase that is no {encoding}, as the terminal should send", f"text in {encoding}"
        ) from None
    if len(word.encode(errors="surrogatepass")) >= _LONGEST_TYPED:  # of bytes that are no text, `Passphrase` tells
        raise nowhere(f"{_LONGEST_TYPED} bytes or more, of which a terminal drops the rest", "a shorter passphrase")
    if not same:
        raise nowhere("two different passphrases", "the same one twice")
    return Passphrase(word)


def key_option(*names: str, text: str) -> Any:  # noqa: ANN401  as of typer
    """An option that takes the path of a key."""
    return typer.Option(*names, metavar="KEY", parser=file_place, help=text, show_default=False)


# Also without quotes, which makes three words of it; a folder of that name is none.
_TYPED = re.compile(r"(?<!/)vambrace-secret-key/\d+(?:\s|$)")


def refuse_typed(words: Sequence[str]) -> None:
    """Refuse a command line with a secret key in it, wherever it stands, before anything repeats it.

    Raises:
        ConfigError: E772.
    """
    if any(_TYPED.search(word) for word in words):
        raise ConfigError(
            "E772",
            seen="a secret key on the command line, where others can see it",
            expected="the path of its file",
            fix="put it into a file that only you can read; and take this one for known: make a new one",
        )


def _named(value: str) -> object:
    if value.startswith(_AWS):
        from vambrace.assets.seal.aws import Aws
        from vambrace.assets.seal.kms import Kms

        return Kms(Aws(value.removeprefix(_AWS)))
    return value  # as text, which errors do not repeat: it may be a secret in the wrong place


def _nowhere(seen: str, expected: str, *, new: bool) -> ConfigError:
    option = _option(new)
    return ConfigError(
        "E773",
        seen=seen,
        expected=expected,
        fix=f"{option} on a terminal, {option}-env NAME or {option}-fd N",
    )


def _option(new: bool) -> str:
    return "--new-passphrase" if new else "--passphrase"
