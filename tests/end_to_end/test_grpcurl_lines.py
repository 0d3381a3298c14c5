"""The lines of grpcurl in the READMEs, run by a shell: by grpcurl where it is, by a stand-in everywhere."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.identities import TOKENS, write_identities
from tests.support.running_server import Served, serving
from tests.support.sample_clip import panning_clip

ROOT = Path(__file__).parents[2]
PAGES = {page: (ROOT / page).read_text() for page in ("README.md", "deploy/README.md")}
LINES = [
    line.strip()
    for page in PAGES.values()
    for line in re.findall(r"(?m)^.*\bgrpcurl -.*$", page.replace("\\\n", " ").replace("|\n", "| "))
]
PROGRAMS = [
    "stand-in",
    pytest.param(
        "grpcurl", marks=pytest.mark.skipif(not shutil.which("grpcurl"), reason="grpcurl is not installed")
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a user: a clip, the token of alice, the authority of the server."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "clip.mp4").write_bytes(panning_clip(2.0))
    (folder / "alice.token").write_text(f"{TOKENS['alice']}\n")
    return folder


@pytest.fixture(scope="module")
def guarded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with TLS that lets in those in its file."""
    own = tmp_path_factory.mktemp("server")
    authority, file = Authority(own), write_identities(own / "identities.toml")
    pair = authority.issue("localhost")
    (folder / "ca.pem").write_bytes(authority.ca.read_bytes())
    tls = {"certificate": str(pair.certificate), "key": str(pair.key)}
    with serving(server={"tls": tls, "access": {"identities": str(file)}}) as served:
        yield served


def run(line: str, program: str, folder: Path, port: int) -> str:
    """Run a line in the folder, at this port; return what it prints."""
    if program == "stand-in":
        shim = folder / "bin" / "grpcurl"
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(
            f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.support.grpcurl "$@"\n'
        )
        shim.chmod(0o755)
    path = f"{folder / 'bin'}:{os.environ['PATH']}" if program == "stand-in" else os.environ["PATH"]
    line = re.sub(r"(localhost|tubelet\.example\.com):8500", f"localhost:{port}", line)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pages_have_lines_with_and_without_tls() -> None:
    assert sum("-plaintext" in line for line in LINES) >= 2
    assert sum("-cacert" in line and "authorization: Bearer" in line for line in LINES) >= 2


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("line", LINES)
def test_line_is_answered(line: str, program: str, folder: Path, served: Served, guarded: Served) -> None:
    server = served if "-plaintext" in line else guarded
    printed = run(line, program, folder, server.server.port)
    assert ("pan_right" if "Classify" in line.rpartition("/")[2] else "camera-motion") in printed


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_line_without_its_token_fails(program: str, folder: Path, guarded: Served) -> None:
    (line,) = (each for each in LINES if "-cacert" in each and each.endswith("/ListModels"))
    line = re.sub(r'-H "[^"]*"', "", line)
    with pytest.raises(AssertionError, match=r"(?i)Unauthenticated"):
        run(line, program, folder, guarded.server.port)


def test_the_stand_in_knows_no_other_flags(folder: Path, served: Served) -> None:
    (line,) = (each for each in LINES if each.endswith("/GetModel"))
    with pytest.raises(AssertionError, match="unrecognized arguments"):
        run(line.replace("-plaintext", "-plain-text -plaintext"), "stand-in", folder, served.server.port)
