"""The feed of training: windows of clips, decoded in sandboxed workers with the sampling of serving.

S units in a window, t frames in a unit.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from threading import Thread
from typing import TypeVar

import numpy as np

from tubelet.models.spec import Preprocessing, Sampling
from tubelet.models.training.samples import Sample
from tubelet.service.cli.evaluation.dataset import LabelledVideo
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.errors import CorruptVideo, TubeletError
from tubelet.service.ingest.local_file import LocalVideo
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import VideoMetadata, to_ns

_MAX_READ_NS = to_ns(60)  # of a labelled clip: its windows are held in memory together

_Video = TypeVar("_Video", bound=LabelledVideo)
Planner = Callable[[_Video, VideoMetadata], tuple[Plan, Preprocessing]]
"""Plans the windows to read of a video; it may raise a TubeletError, as a video may be of no use."""
OnFailure = Callable[[LabelledVideo, Exception], None]
"""Is told of each video that is left out, and why."""
OnPicture = Callable[[LabelledVideo, bytes], None]
"""Gets a JPEG of the middle of each video, before its windows."""

_log = logging.getLogger(__name__)


def warn_of_failure(video: LabelledVideo, error: Exception) -> None:
    """Log that a video is left out."""
    _log.warning("left out %s: %s", video.name, error)


def read_samples(
    videos: Iterable[_Video],
    planner: Planner[_Video],
    config: DecodeConfig,
    on_failure: OnFailure = warn_of_failure,
    on_picture: OnPicture | None = None,
) -> Iterator[Sample]:
    """Yield the windows of each video, in order; as many videos are decoded at a time as there are workers.

    A video that cannot be decoded, or not within the limits of ``config``, is left out, and ``on_failure`` is
    called. One that is damaged in part is used as in serving, and a warning says so. Pictures are made only
    for ``on_picture``.
    """
    with start_decoders(config) as decoders:
        yield from decoders.read(videos, planner, on_failure, on_picture)


@dataclass(frozen=True, slots=True)
class Decoders:
    """Decode workers, on an event loop of its own thread, that read any number of lists of videos."""

    pool: DecodePool
    loop: asyncio.AbstractEventLoop
    count: int

    def read(
        self,
        videos: Iterable[_Video],
        planner: Planner[_Video],
        on_failure: OnFailure = warn_of_failure,
        on_picture: OnPicture | None = None,
        ahead: int = 0,
    ) -> Generator[Sample]:
        """Yield the windows of each video as ``read_samples`` does; closing it stops what is being decoded.

        ``ahead`` more videos than there are workers are decoded before their windows are asked for, so that
        workers are busy meanwhile.
        """
        waiting = (
            (
                video,
                asyncio.run_coroutine_threadsafe(_decode(self.pool, video, planner, on_picture), self.loop),
            )
            for video in videos
        )
        running = deque(islice(waiting, self.count + ahead))
        try:
            while running:
                video, decoding = running[0]
                samples = []
                try:
                    samples = decoding.result()
                except (TubeletError, OSError) as error:
                    on_failure(video, error)
                running.popleft()
                running.extend(islice(waiting, 1))
                yield from samples
        finally:
            for _, decoding in running:
                decoding.cancel()


@contextmanager
def start_decoders(config: DecodeConfig) -> Iterator[Decoders]:
    """Start decode workers, which end with the context."""
    pools = _open_pool(config)

    async def start() -> DecodePool:
        return await anext(pools)

    with _event_loop() as loop:
        pool = asyncio.run_coroutine_threadsafe(start(), loop).result()
        yield Decoders(pool, loop, config.workers)


def plan_windows(
    sampling: Sampling,
    preprocessing: Preprocessing,
    window_s: float,
    _: LabelledVideo,
    metadata: VideoMetadata,
) -> tuple[Plan, Preprocessing]:
    """Plan all windows of ``window_s`` that fit into a video's first minute, overlapping by half."""
    return plan_part(sampling, window_s, 0, metadata.duration_ns), preprocessing


def plan_part(sampling: Sampling, window_s: float, start_ns: int, end_ns: int) -> Plan:
    """Plan all windows of ``window_s`` that fit into the first minute of a part, overlapping by half.

    A part that is shorter than a window is one window.
    """
    end_ns = min(end_ns, start_ns + _MAX_READ_NS)
    window_ns = min(to_ns(window_s), end_ns - start_ns)
    t, s = sampling.frames_per_unit, sampling.units_per_window
    whole = SamplingGrid(start_ns, end_ns, window_ns, t, s, stride_units=s, one_segment=True)
    starts = range(start_ns, end_ns - window_ns + 1, max(1, window_ns // 2))
    return Plan(tuple(replace(whole, view_ns=start) for start in starts))


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop on a thread of its own: workers are answered in time, however long a step takes.

    The end of the context cancels its tasks and closes its generators.
    """
    started: Future[asyncio.AbstractEventLoop] = Future()

    def run() -> None:
        with asyncio.Runner() as runner:
            started.set_result(runner.get_loop())
            runner.get_loop().run_forever()

    thread = Thread(target=run, name="tubelet-feed", daemon=True)
    thread.start()
    loop = started.result()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _open_pool(config: DecodeConfig) -> AsyncIterator[DecodePool]:
    """Yield a pool, which ends with the generator."""
    async with DecodePool(config) as pool:
        yield pool


async def _decode(
    decoders: DecodePool, video: _Video, planner: Planner[_Video], on_picture: OnPicture | None
) -> list[Sample]:
    """Decode the planned windows of one video."""
    units = {}
    thumbnails = 0 if on_picture is None else 1
    with _open_file(video.video) as file:
        async with decoders.session(file) as session:
            plan, preprocessing = planner(video, await session.probe(file))
            async for unit in session.decode(plan, preprocessing, thumbnails=thumbnails):
                units[unit.grid, unit.unit] = unit.pixels.copy()
                unit.release()
            assert session.end is not None  # decoding ended without an error
            plan = plan.cut(session.end.end_ns)
            if on_picture is not None:
                for thumbnail in session.end.thumbnails:
                    on_picture(video, thumbnail.jpeg)
            if session.end.warnings:
                _log.warning("%s is used although %s", video.name, ", ".join(session.end.warnings))
    if plan is None:
        raise CorruptVideo("no frame could be decoded")
    windows = (
        np.stack([units[number, unit] for unit in grid.window_units(window)])
        for number, grid in enumerate(plan.grids)
        for window in range(grid.num_windows)
    )
    return [Sample(window, video.label, video.name) for window in windows]


@contextmanager
def _open_file(path: str) -> Iterator[LocalVideo]:
    """Open a video of this machine."""
    with open(path, "rb") as file:
        yield LocalVideo(file.fileno(), os.fstat(file.fileno()).st_size)
