"""The pool of workers: no video affects the next one, whether it ends, is cancelled or is abandoned."""

import asyncio
import gc
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.support.preprocessing import preprocessing
from tests.support.videos import (
    SMALL,
    assert_decodes_correctly,
    copy_and_release,
    decode_file,
    open_file,
    plan_whole_video,
    read_number,
    render,
    single_window,
    worker_pids,
)
from tubelet.service.config.config import MIB, DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.worker_state import WorkerFailure
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import UnitFrames

_SECOND = 10**9
_SILENCE_S = 3.0  # then a worker counts as hung; on a busy machine, a working one may be silent for long


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("stage", ["probe", "first unit", "middle"])
async def test_cancelled_video_does_not_affect_the_next(clip: Path, stage: str, threads: int) -> None:
    async with DecodePool(DecodeConfig(workers=1, threads=threads)) as pool:
        (pid,) = worker_pids()
        for _ in range(5):
            await _decode_and_cancel(pool, clip, stage)
            await assert_decodes_correctly(pool, clip)
        assert worker_pids() == [pid]


async def _decode_and_cancel(pool: DecodePool, clip: Path, stage: str) -> None:
    reached = asyncio.Event()

    async def decode_until_cancelled() -> None:
        with open_file(clip) as file:
            async with pool.session() as session:
                if stage == "probe":
                    reached.set()
                plan = plan_whole_video(await session.probe(file))
                async for unit in session.decode(plan, SMALL):
                    if stage == "first unit" or unit.unit == 20:
                        reached.set()
                        await asyncio.Event().wait()
                    unit.release()

    task = asyncio.create_task(decode_until_cancelled())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_a_second_probe_leaks_no_descriptor(clip: Path) -> None:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        (pid,) = worker_pids()
        endless = Plan((single_window(0, 3600),), is_unbounded=True)
        for _ in range(3):
            with open_file(clip) as file:
                async with pool.session() as session:
                    metadata = await session.probe(file, header_only=True)
                    async for unit in session.decode(endless, SMALL):
                        unit.release()  # the result of the first probe is used up
                    again = asyncio.ensure_future(anext(session.decode(plan_whole_video(metadata), SMALL)))
                    await asyncio.sleep(0)
                    again.cancel()
                    await asyncio.wait([again])
            await assert_decodes_correctly(pool, clip)
            files = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
            assert not [name for name in files if "memfd" in name]


async def test_leaving_the_loop_early_stops_decoding(pool: DecodePool, clip: Path) -> None:
    (pid,) = worker_pids()
    with open_file(clip) as file:
        async with pool.session() as session:
            async for unit in session.decode(plan_whole_video(await session.probe(file)), SMALL):
                unit.release()
                break
    await assert_decodes_correctly(pool, clip)
    assert worker_pids() == [pid]


async def test_frames_stay_valid_after_their_session(pool: DecodePool, clip: Path) -> None:
    held: list[UnitFrames] = []
    with open_file(clip) as file:
        async with pool.session() as session:
            plan = plan_whole_video(await session.probe(file))
            held.extend([unit async for unit in session.decode(plan, SMALL)])
    await assert_decodes_correctly(pool, clip)
    for unit in held:
        assert read_number(unit.pixels[0]) == plan.grids[0].frame_time_ns(unit.unit, 0) * 10 // _SECOND
        unit.release()
        unit.release()


async def test_worker_pauses_without_a_free_slot(clip: Path) -> None:
    config = DecodeConfig(workers=1, shared_memory_bytes=MIB, heartbeat_timeout_s=_SILENCE_S)
    big = preprocessing(256, 256, "stretch")  # a unit of 2 frames is 384 KiB: two slots
    async with DecodePool(config) as pool:
        worker_process = psutil.Process(worker_pids()[0])
        async with pool.session() as session:
            with open_file(clip) as file:
                units = session.decode(plan_whole_video(await session.probe(file)), big)
            held = [await anext(units), await anext(units)]
            waiting = asyncio.ensure_future(anext(units))
            # Longer than the silence after which a worker counts as hung: one that waits for a slot does not
            # count as hung, and uses no processor time.
            done, _ = await asyncio.wait([waiting], timeout=1.2 * config.heartbeat_timeout_s)
            busy_s, cpu_s = pool.busy_s, sum(worker_process.cpu_times()[:2])
            more, _ = await asyncio.wait([waiting], timeout=0.5)
            assert not done
            assert not more
            assert pool.busy_s == busy_s
            assert sum(worker_process.cpu_times()[:2]) == cpu_s
            held[1].release()
            third = await waiting
            assert read_number(copy_and_release(held[0])[0]) == 0
            assert read_number(copy_and_release(third)[0]) == 5
            async for unit in units:
                unit.release()
            assert pool.busy_s > busy_s


async def test_overlapping_views_wait_for_a_free_slot(clip: Path) -> None:
    """A worker that fills one of the two slots itself does not count as hung while it waits."""
    config = DecodeConfig(workers=1, shared_memory_bytes=MIB, heartbeat_timeout_s=_SILENCE_S)
    big = preprocessing(256, 256, "stretch")
    plan = Plan(
        tuple(SamplingGrid(0, 9 * _SECOND, 8 * _SECOND, 2, 4, 4, True, start) for start in (0, _SECOND))
    )
    async with DecodePool(config) as pool, pool.session() as session:
        with open_file(clip) as file:
            await session.probe(file)
            units = session.decode(plan, big)
        held = await anext(units)
        waiting = asyncio.ensure_future(anext(units))
        done, _ = await asyncio.wait([waiting], timeout=1.2 * config.heartbeat_timeout_s)
        assert (held.grid, held.unit, done) == (0, 0, set())
        held.release()
        rest = [await waiting]
        rest[0].release()
        async for unit in units:
            rest.append(unit)
            unit.release()
    assert [(unit.grid, unit.unit) for unit in rest] == [
        (1, 0),
        (0, 1),
        (1, 1),
        (0, 2),
        (1, 2),
        (0, 3),
        (1, 3),
    ]


async def test_unit_larger_than_the_shared_memory_is_decoded(clip: Path) -> None:
    async with (
        DecodePool(DecodeConfig(workers=1, shared_memory_bytes=MIB)) as pool,
        pool.session() as session,
    ):
        plan = Plan((single_window(0, 2),))
        _, units, _ = await decode_file(session, clip, plan, preprocessing(600, 600, "stretch"))
    assert [read_number(units[0, unit][0]) for unit in range(4)] == [1, 6, 11, 16]


async def test_probe_keeps_the_offset_of_the_file(pool: DecodePool, clip: Path) -> None:
    with open_file(clip) as file:
        os.lseek(file.fd, 123, os.SEEK_SET)
        async with pool.session() as session:
            metadata = await session.probe(file)
        assert metadata.size_bytes == clip.stat().st_size
        assert os.lseek(file.fd, 0, os.SEEK_CUR) == 123


async def test_pool_leaks_no_process_and_no_descriptor(clip: Path) -> None:
    await _decode_in_a_new_pool(clip)  # the first pool opens what the event loop keeps for good
    gc.collect()  # objects of earlier tests
    before = _num_descriptors()
    failures: asyncio.Queue[WorkerFailure] = asyncio.Queue()
    async with DecodePool(DecodeConfig(workers=2), failures.put_nowait) as pool:
        for pid in worker_pids():
            os.kill(pid, signal.SIGKILL)
            await failures.get()
        await asyncio.gather(*(assert_decodes_correctly(pool, clip) for _ in range(6)))
        with open_file(clip) as file:
            async with pool.session() as session:
                await anext(session.decode(plan_whole_video(await session.probe(file)), SMALL))
        async with pool.session(), pool.session():
            in_workers = [psutil.Process(pid).num_fds() for pid in worker_pids()]
    assert worker_pids() == []
    gc.collect()  # the unit of the run that was abandoned
    assert _num_descriptors() == before
    assert in_workers == [5, 5]  # three standard streams and two sockets


async def test_worker_memory_does_not_grow_with_videos(pool: DecodePool, tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", 60, size=(1280, 720), options={"preset": "ultrafast"})
    process = psutil.Process(worker_pids()[0])
    in_use: list[int] = []
    for _ in range(12):
        async with pool.session() as session:
            await decode_file(session, clip)
        async with pool.session():  # the session before has ended
            in_use.append(process.memory_info().rss)
    # The allocator keeps what one video needed for the next. A leaked decoder with its frames exceeds 8 MiB.
    assert in_use[-1] - in_use[5] < 8 * MIB


async def _decode_in_a_new_pool(clip: Path) -> None:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        await assert_decodes_correctly(pool, clip)


def _num_descriptors() -> int:
    return psutil.Process().num_fds()
