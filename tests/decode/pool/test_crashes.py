"""Workers that crash, hang, or run out of memory or time within a video, with another one beside it."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.decompression_bombs import grows, long_call
from tests.support.videos import (
    SMALL,
    decode_plan,
    fork_server_pid,
    is_right,
    number_of,
    opened,
    whole,
    worker_pids,
    working_on,
)
from tubelet.service.config.config import MIB, DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool, Worker
from tubelet.service.decode.pool.watchdog import Death
from tubelet.service.errors import DecoderCrashed, TubeletError, VideoTooLarge
from tubelet.service.types.video import NS_PER_S, PixelFormat


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Minutes of work for FFmpeg in one call, which no test waits for."""
    return long_call(tmp_path_factory.mktemp("bombs") / "endless.mkv", 200_000)


@pytest.fixture(scope="module")
def greedy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures, then one of 576 MB."""
    return grows(tmp_path_factory.mktemp("bombs") / "greedy.mov", 12_000)


async def _decode(worker: Worker, path: Path, hurt: Callable[[int], None], found: set[int]) -> None:
    """Decode, and hurt the worker that does, once a unit is there."""
    with opened(path) as file:
        units = worker.decode(whole(await worker.probe(file)), PixelFormat(512, 512, "stretch"))
        (await anext(units)).release()
        found |= working_on(path)
        hurt(*found)
        async for unit in units:
            unit.release()


def _unhurt(pid: int) -> None:
    """The video does it by itself."""


def _signal(number: signal.Signals) -> Callable[[int], None]:
    return lambda pid: os.kill(pid, number)


async def _beside(pool: DecodePool, clip: Path, over: asyncio.Event) -> set[int]:
    """Decode one video after the other until the accident is over, each as if alone; who did it."""
    pids: set[int] = set()
    while not over.is_set():
        async with pool.worker() as worker:
            with opened(clip) as file:
                metadata = await worker.probe(file)
                pids |= working_on(clip)
                grid = whole(metadata).grids[0]
                numbers = []
                async for unit in worker.decode(whole(metadata), SMALL):
                    numbers.append(number_of(unit.pixels[0]))
                    unit.release()
        assert numbers == [grid.frame_time_ns(unit, 0) * 10 // NS_PER_S for unit in range(grid.num_units)]
    return pids


@pytest.mark.parametrize(
    ("video", "hurt", "limits", "error", "says", "death"),
    [
        ("clip", _signal(signal.SIGSEGV), {}, DecoderCrashed, "stopped", Death.CRASHED),
        ("clip", _signal(signal.SIGKILL), {}, DecoderCrashed, "stopped", Death.CRASHED),
        (
            "clip",
            _signal(signal.SIGSTOP),
            {"heartbeat_timeout_s": 3},
            DecoderCrashed,
            "for 3 s",
            Death.SILENT,
        ),
        ("endless", _unhurt, {"heartbeat_timeout_s": 3}, DecoderCrashed, "for 3 s", Death.SILENT),
        ("endless", _unhurt, {"max_wall_s": 4}, VideoTooLarge, "more than 4 s", Death.WALL_TIME),
        ("endless", _unhurt, {"max_cpu_s": 0.5}, VideoTooLarge, "0.5 s of processor", Death.CPU_TIME),
        (
            "greedy",
            _unhurt,
            {"memory_bytes": 512 * MIB, "max_pixels": 1 << 30},
            VideoTooLarge,
            "536870912 bytes of memory",
            Death.MEMORY,
        ),
    ],
    ids=["SIGSEGV", "SIGKILL", "SIGSTOP", "endless", "endless, wall time", "endless, cpu time", "memory"],
)
async def test_an_accident_costs_its_own_request_only(
    video: str,
    hurt: Callable[[int], None],
    limits: dict[str, float],
    error: type[TubeletError],
    says: str,
    death: Death,
    clip: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    path, deaths, over = request.getfixturevalue(video), asyncio.Queue[Death](), asyncio.Event()
    victim: set[int] = set()
    other = tmp_path / "beside.mp4"
    other.write_bytes(clip.read_bytes())
    config = DecodeConfig.model_validate({"workers": 2, **limits})
    async with DecodePool(config, deaths.put_nowait) as pool:
        before = set(worker_pids())
        beside = asyncio.create_task(_beside(pool, other, over))
        with pytest.raises(error, match=says) as caught:
            async with pool.worker() as worker:
                await _decode(worker, path, hurt, victim)
        assert await deaths.get() == death
        over.set()
        beside_it = await beside
        async with pool.worker(), pool.worker():
            assert pool.busy_workers == 2
        await is_right(pool, clip)
    assert deaths.empty()
    assert victim < before
    assert beside_it & before == before - victim
    if death not in (Death.CRASHED, Death.MEMORY):
        assert float(caught.value.metadata["value"]) >= float(caught.value.metadata["limit"])


async def test_time_is_counted_by_the_video(clip: Path) -> None:
    deaths: list[Death] = []
    # How many videos fit in so much time is up to the machine: a quick one reaches the default count.
    config = DecodeConfig(workers=1, max_wall_s=4, max_cpu_s=2, max_videos_per_worker=1_000_000)
    async with DecodePool(config, deaths.append) as pool:
        pids = worker_pids()
        while pool.busy_s < 1.25 * config.max_wall_s:
            await is_right(pool, clip)
        assert worker_pids() == pids
    assert deaths == []


async def test_a_key_pressed_in_the_terminal_is_not_for_them() -> None:
    """The server lets videos in flight end; a Ctrl-C that reached the workers as well would not."""
    async with DecodePool(DecodeConfig(workers=1)):
        for pid in (fork_server_pid(), *worker_pids()):
            assert os.getsid(pid) != os.getsid(0)


async def test_the_fork_server_may_die(clip: Path) -> None:
    """It costs no video, and the pool goes on to replace workers."""
    died = asyncio.Event()
    async with DecodePool(DecodeConfig(workers=1), lambda death: died.set()) as pool:
        first = fork_server_pid()
        (pid,) = worker_pids()
        async with pool.worker() as worker:
            with opened(clip) as file:
                metadata = await worker.probe(file)
                units = worker.decode(whole(metadata), SMALL)
                (await anext(units)).release()
                os.kill(first, signal.SIGKILL)
                rest = [number_of(unit.pixels[0]) async for unit in units]
        assert len(rest) == whole(metadata).grids[0].num_units - 1
        os.kill(pid, signal.SIGKILL)
        await died.wait()
        await is_right(pool, clip)
        assert fork_server_pid() != first
        assert worker_pids() != [pid]


async def test_the_fork_server_may_hang(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tubelet.service.decode.pool.spawner._FORK_S", 1.0)
    died = asyncio.Event()
    async with DecodePool(DecodeConfig(workers=1), lambda death: died.set()) as pool:
        os.kill(fork_server_pid(), signal.SIGSTOP)
        os.kill(worker_pids()[0], signal.SIGKILL)
        await died.wait()
        await is_right(pool, clip)


async def test_a_worker_makes_room_after_so_many_videos(clip: Path, tmp_path: Path) -> None:
    deaths: list[Death] = []
    config = DecodeConfig(workers=1, max_videos_per_worker=2)
    served: list[int] = []
    async with DecodePool(config, deaths.append) as pool:
        for number in range(5):
            path = tmp_path / f"{number}.mp4"  # a worker that makes room may still have the one before open
            path.write_bytes(clip.read_bytes())
            async with pool.worker() as worker:
                with opened(path) as file:
                    plan = whole(await worker.probe(file))
                    served += working_on(path)
                    await decode_plan(worker, plan)
    first, _, second, _, third = served
    assert served == [first, first, second, second, third]
    assert len({first, second, third}) == 3
    assert deaths == []


async def test_memory_is_shared_with_the_fork_server() -> None:
    """Pages that an idle worker has for itself are few: what was imported is not copied."""
    async with DecodePool(DecodeConfig(workers=1)):
        server, worker = (psutil.Process(pid) for pid in (fork_server_pid(), *worker_pids()))
        assert worker.memory_full_info().uss < server.memory_full_info().rss / 4
