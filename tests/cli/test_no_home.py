"""Commands of a user id without an account and without HOME, as in containers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from tests.support.cli_process import TUBELET
from tubelet.service.server.app import SAMPLE_CLIP

_AS_NOBODY = ("setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "--")

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or which("setpriv") is None, reason="needs root and setpriv to become another user"
)


def as_nobody(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_AS_NOBODY, *command],
        cwd="/",
        env={"PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture(scope="module", autouse=True)
def readable() -> None:
    done = as_nobody(TUBELET, "--version")
    if done.returncode and "Permission denied" in done.stderr:
        pytest.skip(f"another user cannot run {TUBELET}: {done.stderr.splitlines()[-1]}")


def test_models_list_without_home_has_the_embedded_models() -> None:
    done = as_nobody(TUBELET, "models", "list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["model"] for row in map(json.loads, done.stdout.splitlines()) if row["default"]] == [
        "camera-motion"
    ]


def test_unreachable_server_without_home_is_one_sentence() -> None:
    done = as_nobody(TUBELET, "models", "list", "--server", "localhost:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no tubelet server answers at localhost:1; is `tubelet serve` running?\n"


def test_classify_works_without_home() -> None:
    again = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', '']).returncode)"
    if as_nobody(sys.executable, "-c", again).returncode:
        pytest.skip(f"another user cannot start decode workers with {Path(sys.executable).resolve()}")
    done = as_nobody(TUBELET, "classify", str(SAMPLE_CLIP), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "camera-motion"
