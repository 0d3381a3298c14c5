"""Workers that crash, hang, or exceed memory or time within a video, while another worker decodes."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.decompression_bombs import render_growing_frames, render_long_call
from tests.support.preprocessing import preprocessing
from tests.support.videos import (
    SMALL,
    assert_decodes_correctly,
    decode_plan,
    fork_server_pid,
    open_file,
    pids_reading,
    plan_whole_video,
    read_number,
    worker_pids,
)
from tubelet.service.config.config import MIB, DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.session import DecodeSession
from tubelet.service.decode.pool.worker_state import WorkerFailure
from tubelet.service.errors import DecoderCrashed, TubeletError, VideoTooLarge
from tubelet.service.log.lines import request_id
from tubelet.service.types.video import NS_PER_S


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that keeps FFmpeg busy for minutes in one call; no test waits for its end."""
    return render_long_call(tmp_path_factory.mktemp("bombs") / "endless.mkv", 200_000)


@pytest.fixture(scope="module")
def large_frame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of small frames, followed by frames of 576 MB."""
    return render_growing_frames(tmp_path_factory.mktemp("bombs") / "large_frame.mov", 12_000)


async def _decode(session: DecodeSession, path: Path, harm: Callable[[int], None], pids: set[int]) -> None:
    """Decode the video at ``path``, and harm its worker once the first unit has arrived."""
    with open_file(path) as file:
        plan = plan_whole_video(await session.probe(file))
        pids |= pids_reading(path)  # now, since decoding may end the worker at any time
        units = session.decode(plan, preprocessing(512, 512, "stretch"))
        (await anext(units)).release()
        harm(*pids)
        async for unit in units:
            unit.release()


def _do_nothing(pid: int) -> None:
    """The video alone makes the worker fail."""


def _signal(number: signal.Signals) -> Callable[[int], None]:
    return lambda pid: os.kill(pid, number)


async def _decode_until(pool: DecodePool, clip: Path, is_over: asyncio.Event) -> set[int]:
    """Decode ``clip`` again and again until ``is_over`` is set, and check it; return the workers that did."""
    pids: set[int] = set()
    while not is_over.is_set():
        async with pool.session() as session:
            with open_file(clip) as file:
                metadata = await session.probe(file)
                pids |= pids_reading(clip)
                grid = plan_whole_video(metadata).grids[0]
                numbers = []
                async for unit in session.decode(plan_whole_video(metadata), SMALL):
                    numbers.append(read_number(unit.pixels[0]))
                    unit.release()
        assert numbers == [grid.frame_time_ns(unit, 0) * 10 // NS_PER_S for unit in range(grid.num_units)]
    return pids


@pytest.mark.parametrize(
    ("video", "harm", "limits", "error", "message", "failure"),
    [
        ("clip", _signal(signal.SIGSEGV), {}, DecoderCrashed, "stopped", WorkerFailure.CRASHED),
        ("clip", _signal(signal.SIGKILL), {}, DecoderCrashed, "stopped", WorkerFailure.CRASHED),
        (
            "clip",
            _signal(signal.SIGSTOP),
            {"heartbeat_timeout_s": 3},
            DecoderCrashed,
            "for 3 s",
            WorkerFailure.HUNG,
        ),
        ("endless", _do_nothing, {"heartbeat_timeout_s": 3}, DecoderCrashed, "for 3 s", WorkerFailure.HUNG),
        ("endless", _do_nothing, {"max_wall_s": 4}, VideoTooLarge, "more than 4 s", WorkerFailure.WALL_TIME),
        (
            "endless",
            _do_nothing,
            {"max_cpu_s": 0.5},
            VideoTooLarge,
            "0.5 s of processor",
            WorkerFailure.CPU_TIME,
        ),
        (
            "large_frame",
            _do_nothing,
            {"memory_bytes": 512 * MIB, "max_pixels": 1 << 30},
            VideoTooLarge,
            "536870912 bytes of memory",
            WorkerFailure.OOM,
        ),
    ],
    ids=["SIGSEGV", "SIGKILL", "SIGSTOP", "endless", "endless, wall time", "endless, cpu time", "memory"],
)
async def test_failed_worker_costs_only_its_own_video(
    video: str,
    harm: Callable[[int], None],
    limits: dict[str, float],
    error: type[TubeletError],
    message: str,
    failure: WorkerFailure,
    clip: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    path, failures, is_over = request.getfixturevalue(video), asyncio.Queue[WorkerFailure](), asyncio.Event()
    failed_pids: set[int] = set()
    other = tmp_path / "neighbour.mp4"
    other.write_bytes(clip.read_bytes())
    config = DecodeConfig.model_validate({"workers": 2, **limits})
    async with DecodePool(config, failures.put_nowait) as pool:
        before = set(worker_pids())
        neighbour = asyncio.create_task(_decode_until(pool, other, is_over))
        with pytest.raises(error, match=message) as caught:
            async with pool.session() as session:
                await _decode(session, path, harm, failed_pids)
        assert await failures.get() == failure
        is_over.set()
        neighbour_pids = await neighbour
        async with pool.session(), pool.session():
            assert pool.busy_workers == 2
        await assert_decodes_correctly(pool, clip)
    assert failures.empty()
    assert failed_pids < before
    assert neighbour_pids & before == before - failed_pids
    if failure not in (WorkerFailure.CRASHED, WorkerFailure.OOM):
        assert float(caught.value.metadata["value"]) >= float(caught.value.metadata["limit"])


class _Ids(logging.Handler):
    """The request id of each line of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.ids.put_nowait(request_id.get())


async def test_line_of_a_failed_worker_has_the_id_of_its_call(clip: Path) -> None:
    """Not of the call in which the worker was started: that of the first one starts the second's."""
    lines = _Ids()
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        logging.getLogger(DecodePool.__module__).addHandler(lines)
        try:
            for call_id in ("first", "second"):
                request_id.set(call_id)
                async with pool.session() as session:
                    with open_file(clip) as file:
                        await session.probe(file)
                    for pid in pids_reading(clip):
                        os.kill(pid, signal.SIGKILL)
                    assert await lines.ids.get() == call_id
            await assert_decodes_correctly(pool, clip)
        finally:
            logging.getLogger(DecodePool.__module__).removeHandler(lines)


async def test_time_limits_count_for_each_video(clip: Path) -> None:
    failures: list[WorkerFailure] = []
    # A fast machine would reach the default maximum of videos within that time.
    config = DecodeConfig(workers=1, max_wall_s=4, max_cpu_s=2, max_videos_per_worker=1_000_000)
    async with DecodePool(config, failures.append) as pool:
        pids = worker_pids()
        while pool.busy_s < 1.25 * config.max_wall_s:
            await assert_decodes_correctly(pool, clip)
        assert worker_pids() == pids
    assert failures == []


async def test_ctrl_c_does_not_reach_the_workers() -> None:
    """Workers belong to another terminal session, so that the server can finish its videos after Ctrl-C."""
    async with DecodePool(DecodeConfig(workers=1)):
        for pid in (fork_server_pid(), *worker_pids()):
            assert os.getsid(pid) != os.getsid(0)


async def test_fork_server_that_crashes_is_replaced_and_costs_no_video(clip: Path) -> None:
    """The video in flight goes on, and the pool can still replace workers."""
    failed = asyncio.Event()
    async with DecodePool(DecodeConfig(workers=1), lambda failure: failed.set()) as pool:
        first = fork_server_pid()
        (pid,) = worker_pids()
        async with pool.session() as session:
            with open_file(clip) as file:
                metadata = await session.probe(file)
                units = session.decode(plan_whole_video(metadata), SMALL)
                (await anext(units)).release()
                os.kill(first, signal.SIGKILL)
                rest = [read_number(unit.pixels[0]) async for unit in units]
        assert len(rest) == plan_whole_video(metadata).grids[0].num_units - 1
        os.kill(pid, signal.SIGKILL)
        await failed.wait()
        await assert_decodes_correctly(pool, clip)
        assert fork_server_pid() != first
        assert worker_pids() != [pid]


async def test_fork_server_that_hangs_is_replaced(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tubelet.service.decode.pool.spawner._FORK_TIMEOUT_S", 1.0)
    failed = asyncio.Event()
    async with DecodePool(DecodeConfig(workers=1), lambda failure: failed.set()) as pool:
        os.kill(fork_server_pid(), signal.SIGSTOP)
        os.kill(worker_pids()[0], signal.SIGKILL)
        await failed.wait()
        await assert_decodes_correctly(pool, clip)


async def test_worker_is_replaced_after_its_maximum_of_videos(clip: Path, tmp_path: Path) -> None:
    failures: list[WorkerFailure] = []
    config = DecodeConfig(workers=1, max_videos_per_worker=2)
    served: list[int] = []
    async with DecodePool(config, failures.append) as pool:
        for number in range(5):
            path = tmp_path / f"{number}.mp4"  # a replaced worker may still have the previous one open
            path.write_bytes(clip.read_bytes())
            async with pool.session() as session:
                with open_file(path) as file:
                    plan = plan_whole_video(await session.probe(file))
                    served += pids_reading(path)
                    await decode_plan(session, plan)
    first, _, second, _, third = served
    assert served == [first, first, second, second, third]
    assert len({first, second, third}) == 3
    assert failures == []


async def test_workers_share_memory_with_the_fork_server() -> None:
    """An idle worker has few pages of its own: the imported modules are not copied."""
    async with DecodePool(DecodeConfig(workers=1)):
        server, worker = (psutil.Process(pid) for pid in (fork_server_pid(), *worker_pids()))
        assert worker.memory_full_info().uss < server.memory_full_info().rss / 4
