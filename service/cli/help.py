"""Commands with readable help pages; a flag's old name is rejected with its new one."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from tubelet.service.config.renamed import RENAMED_FLAGS

OPTIONAL_ADDRESS = "--ray"
"""The option whose value may be left out, which typer does not offer; it is then empty."""


class Commands(typer.Typer):
    """A group of commands with readable help pages, which ``-h`` shows, too."""

    def __init__(self, **settings: Any) -> None:
        names = {"help_option_names": ["-h", "--help"]}
        super().__init__(cls=_Group, no_args_is_help=True, context_settings=names, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a function as a command with a readable help page."""
        settings.setdefault("cls", _Command)
        return super().command(name, **settings)


def examples(*commands: str) -> str:
    """Format example commands as the end of a help page, one a line."""
    return "\n".join(["Examples:", *(f"  {command}" for command in commands)]).replace("[", r"\[")


class _Command(TyperCommand):
    """A command with a readable help page, which rejects old names of its flags."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; raise BadParameter for a flag that was renamed."""
        own = {flag for param in self.params for flag in param.opts}
        for old, new in RENAMED_FLAGS.items():
            if new in own and any(arg.partition("=")[0] == old for arg in args):
                raise typer.BadParameter(f"{old} was renamed to {new}", ctx)
        if OPTIONAL_ADDRESS in own:
            args = _with_empty_address(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters without the types of flags and arguments."""
        return [_without_type(param) for param in super().get_params(ctx)]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Write VIDEO... instead of {VIDEO}...: typer puts required arguments in braces."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


def _with_empty_address(args: list[str]) -> list[str]:
    """Return the arguments with an empty address where ``OPTIONAL_ADDRESS`` has none behind it."""
    following = [*args[1:], "-"]
    return [
        f"{each}=" if each == OPTIONAL_ADDRESS and after.startswith("-") else each
        for each, after in zip(args, following, strict=True)
    ]


class _Group(TyperGroup):
    """A group of commands with a readable help page."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters without the types of flags and arguments."""
        return [_without_type(param) for param in super().get_params(ctx)]


def _without_type(param: Any) -> Any:
    """Hide the type of a flag or an argument: its name says enough."""
    if isinstance(param, TyperOption) and param.is_flag:
        param.metavar = ""
    if isinstance(param, TyperArgument):
        param.metavar = param.metavar or (param.name or "").upper()
        param.display_type = lambda ctx: ""
    return param
