"""Fair use of the workers: the order of service, priorities, and short videos beside long ones."""

import asyncio
import os
import signal
from pathlib import Path

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
from tubelet.service.decode.pool.long_videos import most_long_videos
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan
from tubelet.service.types.request import Priority

_SECOND = 10**9


async def test_two_workers_decode_two_videos_at_once(clip: Path, tmp_path: Path) -> None:
    other = render(tmp_path / "other.mkv", 100, rate=5, size=(256, 128))
    async with DecodePool(DecodeConfig(workers=2)) as pool:
        met = asyncio.Barrier(2)

        async def one(path: Path, rate: int) -> None:
            async with pool.session() as session:
                await met.wait()
                assert pool.busy_workers == 2
                metadata, units, _ = await decode_file(session, path)
            grid = plan_whole_video(metadata).grids[0]
            numbers = {key[1]: read_number(pixels[0]) for key, pixels in units.items()}
            assert numbers == {
                unit: grid.frame_time_ns(unit, 0) * rate // _SECOND for unit in range(grid.num_units)
            }

        await asyncio.gather(one(clip, 10), one(other, 5))
        assert len(worker_pids()) == 2


async def test_videos_are_served_in_order_of_arrival(pool: DecodePool, clip: Path) -> None:
    order: list[int] = []

    async def one(number: int) -> None:
        async with pool.session() as session:
            order.append(number)
            await decode_file(session, clip, Plan((single_window(0, 1),)))

    await asyncio.gather(*(one(number) for number in range(4)))
    assert order == [0, 1, 2, 3]


async def test_long_video_lets_others_decode_beside_it(clip: Path) -> None:
    """A video whose frames are not read holds its worker; that worker is replaced when the video ends."""
    async with DecodePool(DecodeConfig(workers=1, long_video_after_s=0.2, max_long_videos=1)) as pool:
        (pid,) = worker_pids()
        with open_file(clip) as file:
            async with pool.session() as session:
                plan = plan_whole_video(await session.probe(file))
                units = session.decode(plan, SMALL)
                (await anext(units)).release()
                assert worker_pids() == [pid]  # no video waits
                await assert_decodes_correctly(pool, clip)
                assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)
                rest = [read_number(copy_and_release(unit)[0]) async for unit in units]
        assert len(rest) == plan.grids[0].num_units - 1
        while len(worker_pids()) > 1:
            await asyncio.sleep(0.01)
        assert worker_pids() != [pid]


@pytest.mark.parametrize("is_killed", [False, True])
async def test_number_of_working_workers_is_reported(clip: Path, is_killed: bool) -> None:
    """Workers that wait for a video or for a free slot, and dead ones, do not count."""
    reported: list[int] = []
    is_idle = asyncio.Event()

    def on_work(num_working: int) -> None:
        reported.append(num_working)
        if not num_working:
            is_idle.set()

    config = DecodeConfig(workers=1, shared_memory_bytes=MIB)
    big = preprocessing(256, 256, "stretch")  # two slots
    async with DecodePool(config, on_work=on_work) as pool:
        (pid,) = worker_pids()
        async with pool.session() as session:
            with open_file(clip) as file:
                units = session.decode(plan_whole_video(await session.probe(file)), big)
            held = [await anext(units), await anext(units)]
            assert reported[-1] == 0
            held[0].release()
            assert reported[-1] == 1
            is_idle.clear()
            if is_killed:
                os.kill(pid, signal.SIGKILL)
            await is_idle.wait()
        await assert_decodes_correctly(pool, clip)
        assert reported[-1] == 0
    assert set(reported) == {0, 1}


async def test_long_video_timer_stops_when_no_video_waits(clip: Path) -> None:
    async def wait_for_worker() -> None:
        async with pool.session():
            pass

    async with DecodePool(DecodeConfig(workers=1, long_video_after_s=3600)) as pool:
        async with pool.session():
            waiting = [asyncio.create_task(wait_for_worker()) for _ in range(2)]
            await asyncio.sleep(0)  # both wait now
            for each in waiting:
                assert pool._long_videos._timer is not None
                each.cancel()
                await asyncio.wait([each])
            assert pool._long_videos._timer is None
        await assert_decodes_correctly(pool, clip)


async def test_a_video_that_has_ended_runs_long_no_more(clip: Path) -> None:
    """Its worker, which goes to the next video, takes a while to stop; here, until it is woken."""
    async with DecodePool(DecodeConfig(workers=1, long_video_after_s=3600)) as pool:
        (pid,) = worker_pids()
        with open_file(clip) as file:
            async with pool.session() as session:
                await session.probe(file)
                waiting = asyncio.create_task(assert_decodes_correctly(pool, clip))
                await asyncio.sleep(0)  # it waits now
                assert pool._long_videos._timer is not None
                os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0)  # the pool begins to stop the video
        assert pool._long_videos._timer is None
        os.kill(pid, signal.SIGCONT)
        await waiting
        assert worker_pids() == [pid]


async def test_number_of_long_videos_is_limited(clip: Path) -> None:
    async with DecodePool(DecodeConfig(workers=1, long_video_after_s=0.05, max_long_videos=1)) as pool:
        async with pool.session(), pool.session():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5), pool.session():
                    pass
            assert pool.busy_workers == 2
        await assert_decodes_correctly(pool, clip)


async def test_high_priority_is_served_first(clip: Path) -> None:
    served: list[Priority] = []

    async def one(priority: Priority) -> None:
        async with pool.session(priority=priority):
            served.append(priority)

    async with DecodePool(DecodeConfig(workers=1)) as pool:
        async with pool.session():
            waiting = [asyncio.create_task(one(priority)) for priority in Priority]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        await assert_decodes_correctly(pool, clip)
    assert served == [Priority.HIGH, Priority.NORMAL, Priority.LOW]


@pytest.mark.parametrize(
    ("limit", "holding", "waiting", "most"),
    [
        (8, {""}, {""}, 8),
        (8, {"a"}, {"a"}, 4),
        (8, {"a"}, {"a", "b"}, 8),
        (8, {"a", "b"}, {"a", "b"}, 4),
        (8, {"a", "b"}, {"a", "b", ""}, 8),
        (7, {"a"}, {"a"}, 4),
        (1, {"a"}, {"a"}, 1),
        (0, {"a"}, {"b"}, 0),
    ],
)
def test_half_of_the_long_videos_are_kept_for_identities_without_a_worker(
    limit: int, holding: set[str], waiting: set[str], most: int
) -> None:
    assert most_long_videos(limit, holding, waiting) == most


async def test_long_videos_of_one_identity_leave_a_worker_for_another(clip: Path) -> None:
    """One keeps its workers for good; the last one to stand in is for the other."""
    async with DecodePool(DecodeConfig(workers=1, long_video_after_s=0.05, max_long_videos=2)) as pool:
        async with pool.session(identity="many"), pool.session(identity="many"):
            waiting = asyncio.create_task(_hold_a_worker(pool, "many"))
            await asyncio.sleep(0.3)
            assert pool.busy_workers == 2
            async with asyncio.timeout(60), pool.session(identity="one"):
                pass
            waiting.cancel()
            await asyncio.wait([waiting])
        await assert_decodes_correctly(pool, clip)


async def test_identities_take_turns(clip: Path) -> None:
    served: list[str] = []

    async def one(identity: str) -> None:
        async with pool.session(identity=identity):
            served.append(identity)

    async with DecodePool(DecodeConfig(workers=1)) as pool:
        async with pool.session():
            waiting = [asyncio.create_task(one(identity)) for identity in 5 * ["many"] + ["one"]]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        await assert_decodes_correctly(pool, clip)
    assert served.index("one") <= 1


async def test_worker_assigned_to_a_cancelled_request_is_released(clip: Path) -> None:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        async with pool.session():
            waiting = asyncio.create_task(_hold_a_worker(pool))
            await asyncio.sleep(0)
        while pool.busy_workers:  # released, and assigned to the waiting task before that task runs again
            await asyncio.sleep(0)
            if waiting.done():
                break
            waiting.cancel()
        await asyncio.wait([waiting])
        await assert_decodes_correctly(pool, clip)


async def _hold_a_worker(pool: DecodePool, identity: str = "") -> None:
    async with pool.session(identity=identity):
        await asyncio.sleep(10)
