"""Help pages of all commands: ``-h`` and ``--help``, and examples that the command accepts."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tubelet.service.cli.app import app


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def page(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("path", [(), ("models",), *COMMANDS], ids=" ".join)
def test_help_page_is_readable(path: tuple[str, ...]) -> None:
    said = page(*path, "-h")
    assert said == page(*path, "--help")
    assert "<bool>" not in said
    assert "<list" not in said
    assert "{" not in said
    assert f"Usage: {' '.join(('root', *path))} [OPTIONS]" in said


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_page_ends_with_two_valid_examples(path: tuple[str, ...]) -> None:
    end = [line.strip() for line in page(*path, "-h").split("Examples:")[1].splitlines() if line.strip()]
    assert len(end) == 2
    options = {flag for param in COMMANDS[path].params for flag in param.opts}
    for example in end:
        program, *words = shlex.split(example.split("|")[-1])
        assert (program, *words[: len(path)]) == ("tubelet", *path)
        assert {word for word in words if word.startswith("-") and word != "-"} <= options


def test_help_page_shows_brackets() -> None:
    assert "hf:ORG/NAME[@REVISION]" in page("models", "import", "-h")
    assert "[VIDEO]..." in page("classify", "-h")
