"""``tubelet token new``: tokens, and their hashes in a file of identities."""

import os
import re
import stat
import subprocess
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.support.cli_process import TUBELET
from tubelet.service.cli.app import app
from tubelet.service.config.identities import parse_identities

TOKEN = re.compile(r"tubelet_[A-Za-z0-9_-]{43}\n")  # 43 digits to the base 64: 256 bits


def new(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["token", "new", *arguments])


@pytest.mark.parametrize("name", ["alice", "a-b_c", "a.b", "spiffe://cluster/ns/x", 'quo"te\\', "1"])
def test_the_printed_table_knows_the_printed_token(name: str) -> None:
    done = new(name)
    assert done.exit_code == 0
    assert TOKEN.fullmatch(done.stdout)
    table = done.stderr.partition("\n\n")[2]
    token = done.stdout.strip()
    assert token not in done.stderr
    found = parse_identities(table.encode(), Path("x")).of_token(token)
    assert found is not None
    assert found.name == name
    assert found.may_use("any")


def test_two_tokens_differ() -> None:
    assert new("alice").stdout != new("alice").stdout


def test_a_file_gets_the_hashes_alone(tmp_path: Path) -> None:
    file = tmp_path / "identities.toml"
    tokens = {name: new(name, "--file", str(file)).stdout.strip() for name in ("alice", "bob")}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    for name, token in tokens.items():
        assert token not in text
        assert tomllib.loads(text)[name]["token_sha256"] == [sha256(token.encode()).hexdigest()]
    assert os.listdir(tmp_path) == ["identities.toml"]


def test_a_file_keeps_what_it_has(tmp_path: Path) -> None:
    """Its comments, its mode, and the link by which it is named."""
    file, link = tmp_path / "identities.toml", tmp_path / "link.toml"
    before = '# Ours.\n["a.b"]\nmodels = [\n  "vit", # the small one\n]'
    file.write_text(before)
    file.chmod(0o640)
    link.symlink_to(file)
    assert new("alice", "--file", str(link)).exit_code == 0
    assert file.read_text().startswith(f"{before}\n[alice]\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert link.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    """Else a server of another user could not read it any more."""
    file = tmp_path / "identities.toml"
    new("alice", "--file", str(file))
    os.chown(file, 1234, 5678)
    file.chmod(0o640)
    assert new("bob", "--file", str(file)).exit_code == 0
    state = file.stat()
    assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (1234, 5678, 0o640)


def test_a_token_that_cannot_be_printed_is_in_no_file(tmp_path: Path) -> None:
    """The name would be taken, and its token lost."""
    file = tmp_path / "identities.toml"
    with open("/dev/full", "w") as full:
        command = [TUBELET, "token", "new", "alice", "--file", str(file)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "may do all" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_file_that_has_the_name_stays(tmp_path: Path) -> None:
    file = tmp_path / "identities.toml"
    new("alice", "--file", str(file))
    before = file.read_text()
    done = new("alice", "--file", str(file))
    assert done.exit_code == 2
    assert not done.stdout
    assert "has [alice] already; to give it one more token, run this without --file" in done.stderr
    assert file.read_text() == before


def test_a_wrong_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "identities.toml"
    file.write_text("[a")
    done = new("alice", "--file", str(file))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is not TOML" in done.stderr
    assert file.read_text() == "[a"


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "ä", "x" * 201])
def test_a_name_that_logs_could_not_show_is_refused(name: str) -> None:
    done = new(name)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "visible ASCII" in done.stderr.replace("\n", " ")


def test_a_folder_that_is_absent_is_a_sentence(tmp_path: Path) -> None:
    done = new("alice", "--file", str(tmp_path / "none" / "identities.toml"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "No such file or directory" in done.stderr


def test_an_absent_folder_is_named_and_no_temporary_file(tmp_path: Path) -> None:
    file = tmp_path / "absent" / "identities.toml"
    done = new("alice", "--file", str(file))
    assert done.exit_code != 0
    assert not done.stdout
    assert f"cannot write {file}: {file.parent}: No such file or directory" in " ".join(done.stderr.split())
