"""The workers' sandbox: what each layer denies, and that videos decode inside it."""

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import landlockpy
import pytest
import seccompy

from tests.support.videos import assert_decodes_correctly, decode_file, fork_server_pid, render, worker_pids
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.worker_state import WorkerFailure
from tubelet.service.types.video import Protection


def _landlock_abi() -> int:
    try:
        return landlockpy.abi_version()
    except OSError:
        return 0


LANDLOCK = _landlock_abi() > 0
SECCOMP = seccompy.supported()
needs_landlock = pytest.mark.skipif(_landlock_abi() < 6, reason="the kernel's Landlock is older than ABI 6")
needs_seccomp = pytest.mark.skipif(not SECCOMP, reason="the kernel has no seccomp filters")


def _run_attempts(layers: str, path: Path, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run ``tests.support.sandbox_attempts`` in a process, and return the outcome of each attempt."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        request = {
            "layers": layers,
            "path": str(path),
            "port": listener.getsockname()[1],
            "pid": os.getpid(),
            "without": without,
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.sandbox_attempts", json.dumps(request)],
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(done.stderr)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary"
    path.write_text("unchanged")
    return path


# Without a sandbox, executing another program would end the process; the others depend on the machine.
_ENDS_OR_VARIES = (
    "execute",
    "io_uring",
    "bpf",
    "ptrace",
    "read another's memory",
    "openat2",
    "new namespace",
)


def test_every_attempt_succeeds_without_the_sandbox(canary: Path) -> None:
    outcomes = _run_attempts("none", canary, without=_ENDS_OR_VARIES)
    assert set(outcomes["forbidden"].values()) == {"done"}
    assert set(outcomes["allowed"].values()) == {"done"}


@needs_seccomp
def test_all_layers_together_deny_every_forbidden_attempt(canary: Path) -> None:
    outcomes = _run_attempts("all", canary)
    assert outcomes["in_force"] == [
        Protection.RLIMITS,
        *([Protection.LANDLOCK] if LANDLOCK else []),
        Protection.SECCOMP,
    ]
    assert set(outcomes["forbidden"].values()) == {"EPERM"}, outcomes["forbidden"]
    assert set(outcomes["allowed"].values()) == {"done"}
    assert canary.read_text() == "unchanged"


@needs_seccomp
def test_seccomp_alone_denies_every_forbidden_attempt(canary: Path) -> None:
    outcomes = _run_attempts("seccomp", canary)
    assert outcomes["in_force"] == ["seccomp"]
    assert set(outcomes["forbidden"].values()) == {"EPERM"}, outcomes["forbidden"]
    assert set(outcomes["allowed"].values()) == {"done"}


@needs_landlock
def test_landlock_alone_denies_files_ports_and_processes(canary: Path) -> None:
    outcomes = _run_attempts("landlock", canary)
    assert outcomes["in_force"] == ["landlock"]
    names = ("read a file", "write a file", "list a folder", "remove a file", "connect", "listen", "execute")
    assert {outcomes["forbidden"][name] for name in names} == {"EACCES"}, outcomes["forbidden"]
    assert {outcomes["forbidden"][name] for name in ("signal another", "ptrace")} == {"EPERM"}
    assert set(outcomes["allowed"].values()) == {"done"}
    assert canary.read_text() == "unchanged"


async def test_workers_enter_the_sandbox(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with DecodePool(DecodeConfig(workers=2)) as pool:
        assert pool.protections == {
            Protection.RLIMITS,
            *([Protection.LANDLOCK] if LANDLOCK else []),
            *([Protection.SECCOMP] if SECCOMP else []),
        }
        message = "decode sandbox: " + ", ".join(sorted(pool.protections))
        assert message in [record.getMessage() for record in caplog.records]
        for pid in worker_pids():
            status = _status(pid)
            assert status["NoNewPrivs"] == "1"
            assert status["Seccomp"] == ("2" if SECCOMP else "0")
            assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
        assert (
            _status(fork_server_pid())["Threads"] == "1"
        )  # with more threads, a forked worker could inherit locked locks


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t") for line in lines)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mp4", "libx265", "yuv420p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("mkv", "libsvtav1", "yuv420p"),
        ("gif", "gif", "rgb8"),
        ("avi", "mpeg4", "yuv420p"),
    ],
)
async def test_rendered_videos_decode_in_the_sandbox(
    ending: str, codec: str, pix_fmt: str, threads: int, tmp_path: Path
) -> None:
    clip = render(tmp_path / f"clip.{ending}", 60, codec=codec, pix_fmt=pix_fmt)
    async with DecodePool(DecodeConfig(workers=1, threads=threads)) as pool:
        await assert_decodes_correctly(pool, clip)


@pytest.mark.parametrize("threads", [1, 3])
async def test_real_videos_decode_in_the_sandbox(videos: Path, threads: int) -> None:
    """The sandbox denies nothing that these videos need: no worker fails."""
    failures: list[WorkerFailure] = []
    async with DecodePool(DecodeConfig(workers=1, threads=threads), failures.append) as pool:
        for path in sorted((videos / "real").iterdir()):
            if path.is_file():
                async with pool.session() as session:
                    _, units, end = await decode_file(session, path)
                assert units
                assert not end.warnings
    assert failures == []
