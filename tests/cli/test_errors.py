"""Errors of commands: a sentence on standard error, and with ``--json`` an object on standard output."""

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tubelet.models.repository.repository import ZOO
from tubelet.service.cli.app import app
from tubelet.service.cli.errors import report_errors, user_errors
from tubelet.service.server.app import SAMPLE_CLIP

DEPLOY = (Path(__file__).parents[2] / "deploy" / "README.md").read_text()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with one model, which is damaged."""
    folder = tmp_path / "store" / "broken" / "1"
    folder.mkdir(parents=True)
    spec = (ZOO / "camera-motion" / "model.toml").read_text()
    spec = re.sub('(?m)^name = ".*"', 'name = "broken"', re.sub('(?m)^version = ".*"', 'version = "1"', spec))
    (folder / "model.toml").write_text(spec)
    (folder / "labels.txt").write_bytes((ZOO / "camera-motion" / "labels.txt").read_bytes())
    (folder / "weights.safetensors").write_text("damaged")
    monkeypatch.setenv("TUBELET_MODELS__STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("command", "status", "code", "reason", "says"),
    [
        ("models show NOPE", 1, "NOT_FOUND", "UNKNOWN_MODEL", "no model 'NOPE' in the store"),
        ("models verify NOPE", 1, "NOT_FOUND", "UNKNOWN_MODEL", "no model 'NOPE' in the store"),
        ("models verify broken", 1, "FAILED_PRECONDITION", "BROKEN_MODEL", "weights.safetensors has sha256"),
        (
            "models import /nope",
            1,
            "INVALID_ARGUMENT",
            "CANNOT_IMPORT",
            "/nope is neither a folder nor a file",
        ),
        ("models list --server 127.0.0.1:1", 1, "UNAVAILABLE", "SERVER_UNREACHABLE", "no tubelet server"),
        (
            "models list --config /nope",
            2,
            "INVALID_ARGUMENT",
            "INVALID_CONFIGURATION",
            "no configuration file",
        ),
        ("evaluate /nope", 2, "INVALID_ARGUMENT", "INVALID_DATASET", "/nope cannot be read: No such file"),
        ("evaluate DATA --model NOPE", 1, "NOT_FOUND", "UNKNOWN_MODEL", "no model 'NOPE' in the store"),
        ("evaluate DATA --out DATA", 1, "FAILED_PRECONDITION", "SYSTEM_ERROR", "File exists"),
        ("classify CLIP --model broken", 1, "FAILED_PRECONDITION", "BROKEN_MODEL", "has sha256"),
    ],
)
def test_command_errors_are_one_sentence_and_one_json_object(
    store: Path, tmp_path: Path, command: str, status: int, code: str, reason: str, says: str
) -> None:
    data = tmp_path / "data.csv"
    data.write_text(f"{SAMPLE_CLIP},static\n")
    names = {"DATA": str(data), "CLIP": str(SAMPLE_CLIP)}
    arguments = [names.get(word, word) for word in command.split()]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    (line,) = done.stdout.splitlines()
    error = json.loads(line)["error"]
    assert done.exit_code == status
    assert (error["code"], error["reason"]) == (code, reason)
    assert says in error["message"]
    assert error["message"] in done.stderr

    for_people = CliRunner().invoke(app, arguments)
    assert for_people.exit_code == status
    assert for_people.stdout == ""
    assert says in for_people.stderr


def test_deploy_page_names_all_reasons_of_commands() -> None:
    said = DEPLOY.split("\n## The command in scripts\n")[1].split("\n## ")[0]
    ours = {reason for _, _, reason, _ in user_errors()} - {"NO_DEVICE"}  # which only a server meets
    shared = {"UNKNOWN_MODEL", "MALFORMED_OPTION"}  # with the server, whose reasons are in README.md
    assert {reason for reason in ours - shared if f"`{reason}`" not in said} == set()


def test_a_shard_in_use_may_be_asked_again() -> None:
    """Kubernetes ends the whole Job on status 2: its arguments are wrong."""
    statuses = {reason: status for _, _, reason, status in user_errors()}
    assert (statuses["SHARD_IN_USE"], statuses["DESTINATION_MISMATCH"]) == (1, 2)


def test_ctrl_c_is_a_word_and_the_status_of_shells() -> None:
    said: list[str] = []
    with pytest.raises(typer.Exit) as ended, report_errors(say=said.append):
        raise KeyboardInterrupt
    assert (ended.value.exit_code, said) == (130, ["interrupted"])
