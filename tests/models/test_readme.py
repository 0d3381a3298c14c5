"""models/README.md: its commands exist, its links lead somewhere, its code is that of the example."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support import example_family
from tubelet.service.cli.app import app
from tubelet.service.cli.training.__main__ import app as training_app

ROOT = Path(__file__).parents[2]
README = (ROOT / "models" / "README.md").read_text()
BLOCKS = {kind: re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL) for kind in ("sh", "toml", "python")}
COMMANDS = [
    shlex.split(line, comments=True)
    for line in (*"".join(BLOCKS["sh"]).splitlines(), *re.findall(r"`((?:tubelet|python -m) [^`]+)`", README))
    if line
]
TUBELET = [command[1:] for command in COMMANDS if command[0] == "tubelet"]
OFFLINE = [
    command for command in TUBELET if command[:2] in (["models", verb] for verb in ("list", "show", "verify"))
]
MODULES = [command[2:] for command in COMMANDS if command[:2] == ["python", "-m"]]


@pytest.mark.parametrize("command", TUBELET, ids=" ".join)
def test_commands_and_their_options_exist(command: list[str]) -> None:
    # Unknown commands and options are refused before the help is shown.
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("command", OFFLINE, ids=" ".join)
def test_commands_on_embedded_models_run(command: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, command, env={"TUBELET_MODELS__STORE": str(tmp_path)})
    assert done.exit_code == 0, done.output
    assert "camera-motion" in done.output


@pytest.mark.parametrize("command", MODULES, ids=" ".join)
def test_modules_and_training_options_exist(command: list[str]) -> None:
    module, *arguments = command
    assert importlib.util.find_spec(module) is not None
    if module == "tubelet.service.cli.training":
        done = CliRunner().invoke(training_app, [*arguments, "--help"])
        assert done.exit_code == 0, done.output


def test_the_example_family_is_quoted_as_it_is() -> None:
    source = Path(example_family.__file__).read_text()
    (entry_point,) = BLOCKS["toml"]
    (function,) = (block for block in BLOCKS["python"] if "def build(" in block)
    assert [line for line in entry_point.splitlines() if line not in source] == []
    assert function in source
