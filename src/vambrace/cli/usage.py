"""Command lines that cannot be read: the parser's complaint in our words, with what was probably meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from click import ClickException, Context

__all__ = ["usage_error"]

_HINT = re.compile(r"\s*\(?(Did you mean|\(?Possible options).*$", re.DOTALL)


def usage_error(error: ClickException, called: str = "vambrace") -> ConfigError:
    """E576, with what was seen, what the command takes, and the nearest thing it knows.

    Args:
        error: what the parser raised.
        called: the command, such as "vambrace check"; some complaints do not know it.
    """
    context = cast("Context | None", getattr(error, "ctx", None))
    called = context.command_path if context is not None else called
    seen = _unsaid(_HINT.sub("", error.format_message()).strip().rstrip("."), context)
    meant, place = _meant(seen, context), _place(seen, context)
    return ConfigError(
        "E576",
        seen=seen[:1].lower() + seen[1:],
        expected=_expected(error, context, called),
        fix=place or (f"did you mean {meant}?" if meant else f"{called} --help"),
    )


def _unsaid(seen: str, context: Context | None) -> str:
    """Without what was typed where it may be a passphrase: `--passphrase` takes none, and its kin take other things."""
    secret = context is not None and any("passphrase" in name for each in context.command.params for name in each.opts)
    if secret and "extra argument" in seen.lower():
        return seen.partition(" (")[0]
    if "passphrase" in (named := seen.partition(":")[0]):
        return named
    return seen


def _expected(error: ClickException, context: Context | None, called: str) -> str:
    parameter: Any = getattr(error, "param", None)
    if parameter is not None and parameter.param_type_name == "option":
        return f"{parameter.opts[0]} {parameter.make_metavar(ctx=context)}: {parameter.help}"
    if context is None:
        return f"a command line as `{called} --help` shows it"
    if commands := _commands(context):
        return f"one of {', '.join(commands)}"
    return " ".join([called, *context.command.collect_usage_pieces(context)])


def _meant(seen: str, context: Context | None) -> str | None:
    from vambrace.core.refusal import closest

    quoted = re.search(r"'?(--?[\w-]+|(?<=')[^']+(?='))'?", seen)
    if context is None or quoted is None or not seen.lower().startswith("no such"):
        return None
    options = [name for parameter in context.command.get_params(context) for name in parameter.opts]
    known = [name for name in options if name.startswith("-")] if quoted[1].startswith("-") else _commands(context)
    return closest(quoted[1], known)


def _place(seen: str, context: Context | None) -> str:
    """The fix for an option that is an argument here, such as `init --model`; "" for any other."""
    quoted = re.search(r"^no such option:? '?--([\w-]+)", seen, re.IGNORECASE)
    if context is None or quoted is None:
        return ""
    arguments = [each for each in context.command.get_params(context) if each.param_type_name == "argument"]
    if quoted[1] not in {each.name for each in arguments}:
        return ""
    metavars = " ".join(each.make_metavar(ctx=context) for each in arguments)
    return f"write it without --{quoted[1]}: {context.command_path} {metavars}"


def _commands(context: Context) -> list[str]:
    """The commands of a group; none for a command."""
    return list(cast("dict[str, Any]", getattr(context.command, "commands", {})))
