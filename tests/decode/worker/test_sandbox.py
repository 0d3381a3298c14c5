"""The sandbox of the workers: what it forbids, layer by layer, and that videos decode in it."""

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

from tests.support.videos import decode_file, fork_server_pid, is_right, render, worker_pids
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.watchdog import Death
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


def _tried(layers: str, path: Path, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """What comes of the attempts of ``tests.support.sandbox_attempts``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        said = {
            "layers": layers,
            "path": str(path),
            "port": listener.getsockname()[1],
            "pid": os.getpid(),
            "without": without,
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.sandbox_attempts", json.dumps(said)],
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(done.stderr)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary"
    path.write_text("sings")
    return path


# Without a sandbox, to execute would end the process, and what is had of the others varies with the machine.
_ENDS_OR_VARIES = (
    "execute",
    "io_uring",
    "bpf",
    "ptrace",
    "read another's memory",
    "openat2",
    "new namespace",
)


def test_without_the_sandbox_it_works(canary: Path) -> None:
    tried = _tried("none", canary, without=_ENDS_OR_VARIES)
    assert set(tried["forbidden"].values()) == {"done"}
    assert set(tried["allowed"].values()) == {"done"}


@needs_seccomp
def test_nothing_but_descriptors(canary: Path) -> None:
    tried = _tried("all", canary)
    assert tried["in_force"] == [
        Protection.RLIMITS,
        *([Protection.LANDLOCK] if LANDLOCK else []),
        Protection.SECCOMP,
    ]
    assert set(tried["forbidden"].values()) == {"EPERM"}, tried["forbidden"]
    assert set(tried["allowed"].values()) == {"done"}
    assert canary.read_text() == "sings"


@needs_seccomp
def test_seccomp_alone(canary: Path) -> None:
    tried = _tried("seccomp", canary)
    assert tried["in_force"] == ["seccomp"]
    assert set(tried["forbidden"].values()) == {"EPERM"}, tried["forbidden"]
    assert set(tried["allowed"].values()) == {"done"}


@needs_landlock
def test_landlock_alone(canary: Path) -> None:
    tried = _tried("landlock", canary)
    assert tried["in_force"] == ["landlock"]
    names = ("read a file", "write a file", "list a folder", "remove a file", "connect", "listen", "execute")
    assert {tried["forbidden"][name] for name in names} == {"EACCES"}, tried["forbidden"]
    assert {tried["forbidden"][name] for name in ("signal another", "ptrace")} == {"EPERM"}
    assert set(tried["allowed"].values()) == {"done"}
    assert canary.read_text() == "sings"


async def test_workers_are_in_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with DecodePool(DecodeConfig(workers=2)) as pool:
        assert pool.protections == {
            Protection.RLIMITS,
            *([Protection.LANDLOCK] if LANDLOCK else []),
            *([Protection.SECCOMP] if SECCOMP else []),
        }
        said = "decode workers are held by " + ", ".join(sorted(pool.protections))
        assert said in [record.getMessage() for record in caplog.records]
        for pid in worker_pids():
            status = _status(pid)
            assert status["NoNewPrivs"] == "1"
            assert status["Seccomp"] == ("2" if SECCOMP else "0")
            assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
        assert _status(fork_server_pid())["Threads"] == "1"  # or a fork of it could hold locks for ever


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
async def test_videos_decode_in_it(
    ending: str, codec: str, pix_fmt: str, threads: int, tmp_path: Path
) -> None:
    clip = render(tmp_path / f"clip.{ending}", 60, codec=codec, pix_fmt=pix_fmt)
    async with DecodePool(DecodeConfig(workers=1, threads=threads)) as pool:
        await is_right(pool, clip)


@pytest.mark.parametrize("threads", [1, 3])
async def test_real_videos_decode_in_it(videos: Path, threads: int) -> None:
    """Not one of them is stopped by what the sandbox denies: no decoder dies."""
    deaths: list[Death] = []
    async with DecodePool(DecodeConfig(workers=1, threads=threads), deaths.append) as pool:
        for path in sorted((videos / "real").iterdir()):
            if path.is_file():
                async with pool.worker() as worker:
                    _, units, end = await decode_file(worker, path)
                assert units
                assert not end.warnings
    assert deaths == []
