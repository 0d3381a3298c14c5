"""Tests of the embedding cache: a unit seen before costs nothing, and results are unchanged."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.support.engine import SIZE, S, T, served_model, video
from tubelet.service.engine.embedding_cache import EmbeddingCache, Outcome
from tubelet.service.engine.executor import Executor
from tubelet.service.engine.model_runner import Embedding, Logits
from tubelet.service.engine.session import VideoSession
from tubelet.service.engine.stage_queue import EngineCosts
from tubelet.service.metrics import Metrics
from tubelet.service.types.meter import Meter
from tubelet.service.types.request import Priority
from tubelet.service.types.video import UnitFrames

MIB = 1 << 20


class Cached:
    """A model with a cache on a real executor; counts the outcomes of look-ups."""

    def __init__(self, executor: Executor, max_bytes: int = MIB) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.released: list[int] = []
        self.executor = executor
        self.model = served_model(lambda units: self.released.extend(unit.unit for unit in units))
        executor.add(self.model.encode)
        executor.add(self.model.classify)
        self.cache = EmbeddingCache(max_bytes, lambda _, __, outcome: self.outcomes.update([outcome]))

    def session(
        self, priority: Priority = Priority.NORMAL, deadline: float | None = None, identity: str = ""
    ) -> VideoSession:
        costs = EngineCosts(meter=Meter(identity))
        return VideoSession(self.executor, self.model, self.cache, priority, deadline, costs)

    async def logits(self, units: Sequence[UnitFrames]) -> Logits:
        session = self.session()
        return await session.classify([session.encode(unit) for unit in units])


@pytest.fixture
async def executor() -> AsyncIterator[Executor]:
    async with Executor(Metrics()) as executor:
        yield executor


def still(units: int, released: list[int] | None = None) -> list[UnitFrames]:
    """Return a number of identical ``units``, which add themselves to ``released`` when they are released."""
    pixels = np.random.default_rng(9).integers(0, 256, (T, SIZE, SIZE, 3), np.uint8)
    return [
        UnitFrames(0, unit, pixels.copy(), lambda unit=unit: released.append(unit) if released else None)
        for unit in range(units)
    ]


async def test_a_repeated_video_computes_no_unit(executor: Executor) -> None:
    cached = Cached(executor)
    first = await cached.logits(video(1, S))
    released: list[int] = [-1]
    again = [
        UnitFrames(0, unit.unit, unit.pixels, lambda unit=unit: released.append(unit.unit))
        for unit in video(1, S)
    ]
    assert np.array_equal(first, await cached.logits(again))
    assert cached.outcomes == {"miss": S, "hit": S}
    assert released == [-1, *range(S)]


async def test_a_still_scene_computes_one_unit(executor: Executor) -> None:
    cached = Cached(executor)
    released = [-1]
    await cached.logits(still(S, released))
    assert cached.outcomes == {"miss": 1, "shared": S - 1}
    assert sorted([*released, *cached.released]) == [-1, *range(S)]  # each exactly once


async def test_logits_are_equal_with_and_without_a_cache(executor: Executor) -> None:
    """Units of several videos are mixed, in several orders."""
    cached = Cached(executor)
    videos = [video(seed, S) for seed in range(6)]
    mixed = [[videos[(i * 7 + j) % 6][j] for j in range(S)] for i in range(24)]
    plain = [await _uncached(cached, units) for units in mixed]
    got = await asyncio.gather(*(cached.logits(units) for units in mixed))
    np.testing.assert_allclose(got, plain, atol=1e-4)
    assert cached.outcomes["miss"] == 6 * S


async def _uncached(cached: Cached, units: Sequence[UnitFrames]) -> Logits:
    session = VideoSession(cached.executor, cached.model)
    return await session.classify([session.encode(unit) for unit in units])


async def test_a_shared_unit_is_computed_after_its_first_video_is_cancelled() -> None:
    executor = Executor(Metrics())  # its thread does not run yet: all items stay queued
    cached = Cached(executor)
    early, late = cached.session(), cached.session()
    [unit, same] = still(2)
    gone, wanted = early.encode(unit), late.encode(same)
    early.cancel()
    async with executor:
        assert (await wanted).shape == (48,)
    assert gone.cancelled()
    assert cached.outcomes == {"miss": 2}


async def test_a_cancelled_video_computes_no_shared_unit() -> None:
    executor = Executor(Metrics())
    cached = Cached(executor)
    early, late = cached.session(), cached.session()
    [unit, same] = still(2)
    first, second = early.encode(unit), late.encode(same)
    late.cancel()
    async with executor:
        await first
        await asyncio.sleep(0)
    assert second.cancelled()
    assert cached.outcomes == {"miss": 1}


# What makes a video urgent, or another identity's; and how many units of the other one go before its unit.
URGENT = [(Priority.HIGH, None, "", 0), (Priority.NORMAL, 1.0, "", 0), (Priority.NORMAL, None, "another", S)]


@pytest.mark.parametrize(("priority", "deadline", "identity", "before"), URGENT)
async def test_a_shared_unit_is_computed_early_for_an_urgent_video(
    priority: Priority, deadline: float | None, identity: str, before: int
) -> None:
    """Or for one whose turn is earlier, as it is of another identity."""
    executor = Executor(Metrics())  # its thread does not run yet: all items stay queued
    cached = Cached(executor)
    patient, urgent = cached.session(), cached.session(priority, deadline, identity)
    *others, unit = video(1, 3 * S)
    waiting = [patient.encode(each) for each in others]
    first, again = patient.encode(unit), urgent.encode(replace(unit, unit=100))
    async with executor:
        np.testing.assert_array_equal(await again, await first)
        await asyncio.gather(*waiting)
    assert cached.released.index(unit.unit) == before
    assert sorted(cached.released) == list(range(3 * S))  # each once, and one unit for both videos
    assert cached.outcomes == {"miss": 3 * S, "shared": 1}
    assert executor.queued()["encode", "random"] == 0


async def test_a_shared_unit_is_not_queued_again_without_urgency() -> None:
    executor = Executor(Metrics())
    cached = Cached(executor)
    for priority in (Priority.NORMAL, Priority.NORMAL, Priority.LOW):
        for unit in still(2):
            cached.session(priority).encode(unit)
    assert executor.queued()["encode", "random"] == 1


@pytest.mark.parametrize("is_first", [True, False])
async def test_cancelling_one_video_keeps_the_unit_for_the_other(is_first: bool) -> None:
    executor = Executor(Metrics())
    cached = Cached(executor)
    patient, urgent = cached.session(), cached.session(Priority.HIGH)
    [unit, same] = still(2)
    first, second = patient.encode(unit), urgent.encode(same)
    gone, wanted = (first, second) if is_first else (second, first)
    (patient if is_first else urgent).cancel()
    async with executor:
        assert (await wanted).shape == (48,)
    assert gone.cancelled()
    assert len(cached.released) == 1


async def test_failures_are_not_cached(executor: Executor) -> None:
    cached = Cached(executor)
    run_on = cached.model.encode.run_on
    run, run_on["cpu"] = run_on["cpu"], _fail
    with pytest.raises(RuntimeError, match="the device is gone"):
        await cached.logits(still(S))
    run_on["cpu"] = run
    await cached.logits(still(S))
    assert cached.cache.used_bytes > 0


def _fail(units: Sequence[UnitFrames]) -> Sequence[Embedding]:
    raise RuntimeError("the device is gone")


async def test_least_recently_used_embeddings_are_evicted(executor: Executor) -> None:
    size = 48 * 4 + 256
    cached = Cached(executor, max_bytes=3 * size)
    session = cached.session()
    a, b, c, d = video(3, 4)
    for unit in (a, b, c, a, d):
        await session.encode(unit)
        assert cached.cache.used_bytes <= 3 * size
    assert cached.outcomes == {"miss": 4, "hit": 1}
    await session.encode(a)
    assert cached.outcomes["hit"] == 2
    await session.encode(b)
    assert cached.outcomes["miss"] == 5


async def test_embeddings_are_computed_again_after_clearing(executor: Executor) -> None:
    cached = Cached(executor)
    await cached.logits(video(1, S))
    cached.cache.clear()
    assert cached.cache.used_bytes == 0
    await cached.logits(video(1, S))
    assert cached.outcomes == {"miss": 2 * S}


async def test_a_cached_embedding_does_not_keep_its_batch_in_memory(executor: Executor) -> None:
    cached = Cached(executor)
    session = cached.session()
    for embedding in await asyncio.gather(*(session.encode(unit) for unit in video(4, 8))):
        assert embedding.untyped_storage().nbytes() == embedding.nbytes


async def test_overwriting_a_queued_unit_does_not_corrupt_the_cache() -> None:
    executor = Executor(Metrics())  # its thread does not run yet: the unit waits
    cached = Cached(executor)
    [theirs] = video(6, 1)
    [same] = video(6, 1)
    waiting = cached.session().encode(theirs)
    theirs.pixels[...] = 0
    async with executor:
        await waiting
        found = await cached.session().encode(same)
        assert cached.outcomes == {"miss": 1, "hit": 1}
        plain = await VideoSession(executor, cached.model).encode(same)
    np.testing.assert_allclose(found, plain, atol=1e-4)


async def test_keys_differ_between_models_processes_and_pixels() -> None:
    caches = [EmbeddingCache(MIB, lambda *_: None) for _ in range(2)]
    [unit] = video(5, 1)
    model, again = served_model(), served_model()  # with the same name and version
    assert caches[0].key(model, unit.pixels) != caches[1].key(model, unit.pixels)
    assert caches[0].key(model, unit.pixels) != caches[0].key(again, unit.pixels)
    other = unit.pixels.copy()
    other[0, 0, 0, 0] ^= 1
    assert caches[0].key(model, unit.pixels) != caches[0].key(model, other)
