"""The help of a command: what it does, then its options in groups. Arguments are told in the text of the command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

from vambrace.cli.speaking import tell

if TYPE_CHECKING:
    import click

__all__ = ["Command", "Group"]


class Command(TyperCommand):
    """A command whose options are listed by the panel that they name; those of no panel come first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options; the group of those without a panel is called Options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if parameter.param_type_name == "option" else None
            if record is not None:
                name, text = record
                # The parser escapes the bracket of "[required]" for a formatter that is not used here.
                plain = (name, text.replace("\\[", "["))
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(plain)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """The `--help` option, which speaks as everything else here does."""
        return _ours(super().get_help_option(ctx))


class Group(TyperGroup):
    """The commands together; groups of commands stand last."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401  what the parser gives its groups
        super().__init__(**attributes)
        self.commands = dict(sorted(self.commands.items(), key=lambda entry: isinstance(entry[1], TyperGroup)))

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """The `--help` option, which speaks as everything else here does."""
        return _ours(super().get_help_option(ctx))


def _ours(option: click.Option | None) -> click.Option | None:
    if option is not None:
        option.callback = _tell_help
    return option


def _tell_help(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        tell(ctx.get_help())
        ctx.exit()
