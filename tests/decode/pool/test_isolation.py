"""Isolation of the workers: what they import, the limits they enforce, and their replacement and end."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support.mp4_boxes import edit_boxes
from tests.support.videos import assert_decodes_correctly, decode_file, open_file, render, worker_pids
from tubelet.service.config.config import MIB, DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.worker_state import WorkerFailure
from tubelet.service.errors import VideoTooLarge


async def test_workers_import_neither_torch_nor_grpc_nor_pydantic() -> None:
    module = "tubelet.service.decode.worker.forkserver"
    code = f"import sys, {module}; print(*sys.modules.keys() & {{'av', 'torch', 'grpc', 'pydantic'}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert result.stdout.split() == ["av"]


async def test_parent_does_not_import_pyav() -> None:
    code = "import sys, tubelet.service.decode.pool.pool; print(*sys.modules.keys() & {'av'})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert result.stdout.split() == []


async def test_idle_worker_that_crashes_is_replaced(clip: Path) -> None:
    failed = asyncio.Event()
    async with DecodePool(DecodeConfig(workers=1), lambda failure: failed.set()) as pool:
        os.kill(worker_pids()[0], signal.SIGKILL)
        await failed.wait()
        assert pool.busy_workers == 0
        async with pool.session():
            assert pool.busy_workers == 1
        await assert_decodes_correctly(pool, clip)


async def test_worker_that_does_not_stop_its_video_is_replaced(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tubelet.service.decode.pool.worker_process._STOP_TIMEOUT_S", 0.2)
    failures: list[WorkerFailure] = []
    async with DecodePool(DecodeConfig(workers=1), failures.append) as pool:
        (pid,) = worker_pids()
        async with pool.session() as session:
            with open_file(clip) as file:
                await session.probe(file)
            os.kill(pid, signal.SIGSTOP)
        await assert_decodes_correctly(pool, clip)
    assert failures == [WorkerFailure.STOP_TIMEOUT]


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_pixels": 128 * 64 - 1}, "128 x 64 pixels exceed the limit of 8191 pixels"),
        ({"max_frames": 199}, "more than the limit of 199 frames"),
        ({"max_duration_s": 19.9}, r"lasts \d\d\.\d{3} s or more, the limit is 19.9 s"),
        ({"max_cpu_s": 1e-3}, "0.001 s of processor time"),
    ],
)
async def test_video_over_a_limit_is_rejected(clip: Path, limit: dict[str, float], message: str) -> None:
    async with DecodePool(DecodeConfig.model_validate({"workers": 1, **limit})) as pool:
        (pid,) = worker_pids()
        async with pool.session() as session:
            with pytest.raises(VideoTooLarge, match=message) as caught:
                await decode_file(session, clip)
        assert caught.value.metadata["limit"] == str(next(iter(limit.values())))
        assert float(caught.value.metadata["value"]) > float(caught.value.metadata["limit"])
        assert worker_pids() == [pid]


async def test_file_with_too_many_streams_is_rejected(clip: Path, tmp_path: Path) -> None:
    many = tmp_path / "many.mp4"
    many.write_bytes(edit_boxes(clip.read_bytes(), "moov/trak", lambda track: track * 3))
    async with DecodePool(DecodeConfig(workers=1, max_streams=2)) as pool:
        async with pool.session() as session:
            with pytest.raises(VideoTooLarge, match="3 streams, more than the limit of 2") as caught:
                await decode_file(session, many)
        assert caught.value.metadata == {"limit": "2", "value": "3"}
        await assert_decodes_correctly(pool, clip)


async def test_video_that_needs_too_much_memory_is_rejected(clip: Path, tmp_path: Path) -> None:
    black = np.zeros((8192, 16384, 3), np.uint8)
    large = tmp_path / "large.mov"
    render(large, 1, size=(16384, 8192), codec="png", pix_fmt="rgb24", draw=lambda _: black)
    failures: list[WorkerFailure] = []
    config = DecodeConfig(workers=1, memory_bytes=512 * MIB, max_pixels=1 << 28)
    async with DecodePool(config, failures.append) as pool:
        async with pool.session() as session:
            with pytest.raises(VideoTooLarge, match="536870912 bytes of memory") as caught:
                await decode_file(session, large)
        assert caught.value.metadata == {"limit": "536870912", "value": ">536870912"}
        await assert_decodes_correctly(pool, clip)
    assert failures == [WorkerFailure.OOM]


async def test_workers_end_with_their_parent() -> None:
    code = """
import asyncio, os, psutil
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
async def main():
    async with DecodePool(DecodeConfig(workers=2)):
        children = psutil.Process().children()
        assert len(children) == 3  # two workers and the fork server
        print(*(child.pid for child in children), flush=True)
        os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL
    workers = [psutil.Process(int(pid)) for pid in result.stdout.split() if psutil.pid_exists(int(pid))]
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
