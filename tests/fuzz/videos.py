"""A fuzzing campaign: mutants decoded by the real pool of workers, and a report of their outcomes."""

import asyncio
import gc
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import psutil

from tests.fuzz.mutate import mutant
from tests.support.preprocessing import preprocessing
from tubelet.service.config.config import MIB, DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.worker_state import WorkerFailure
from tubelet.service.errors import ClientError, DecoderCrashed
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import MAX_THUMBNAILS, NS_PER_S, VideoMetadata

CONFIG = DecodeConfig(
    heartbeat_timeout_s=5,
    max_wall_s=10,
    max_cpu_s=8,
    max_frames=20_000,
    max_pixels=4096 * 2304,
    memory_bytes=512 * MIB,
    max_videos_per_worker=50,
)
_SLACK_S = 20.0  # beyond its limits, on a machine that is busy
_SHAPE = preprocessing(64, 64, "crop")


@dataclass(slots=True)
class Report:
    """The outcomes by reason, the failures of workers by cause, and what the campaign has leaked."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest_seed: int = 0
    hung: list[int] = field(default_factory=list)  # seeds
    surprises: dict[int, str] = field(default_factory=dict)  # by seed: errors of no class of ours
    crashes: dict[int, str] = field(default_factory=dict)  # by seed: contained, but bugs of FFmpeg or ours
    rss_bytes: list[int] = field(default_factory=list)  # of the server, at intervals
    leaked_descriptors: int = 0
    leaked_processes: int = 0


class _Bytes:
    """A mutant in memory; ``in_portions``, it arrives like an upload, in portions of random size."""

    def __init__(self, data: bytes, chance: Random, in_portions: bool) -> None:
        self.fd = os.memfd_create("mutant", os.MFD_CLOEXEC)
        os.write(self.fd, data)
        self._whole, self._chance = len(data), chance
        self._there = 0 if in_portions else len(data)

    @property
    def size_bytes(self) -> int | None:
        return self._whole if self.is_whole else None

    @property
    def is_whole(self) -> bool:
        return self._there == self._whole

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        self._there = min(self._whole, max(self._there, start + 1) + self._chance.randrange(1 << 16))
        return 0, self._there

    async def whole(self) -> int:
        self._there = self._whole
        return self._whole


async def run_campaign(
    clips: list[bytes], seeds: range, workers: int, progress: Callable[[], None] = lambda: None
) -> Report:
    """Decode the mutant of each seed, with a plan made from the seed."""
    report = Report()
    gc.collect()
    descriptors, processes = psutil.Process().num_fds(), len(psutil.Process().children(recursive=True))
    waiting = iter(seeds)
    config = CONFIG.model_copy(update={"workers": workers})

    def count_failure(failure: WorkerFailure) -> None:
        report.failures[failure.value] += 1

    async with DecodePool(config, count_failure) as pool:

        async def work() -> None:
            for seed in waiting:
                await _one(pool, clips, seed, report)
                progress()
                if seed % 256 == 0:
                    report.rss_bytes.append(psutil.Process().memory_info().rss)

        await asyncio.gather(*(work() for _ in range(workers)))
    gc.collect()
    report.leaked_descriptors = psutil.Process().num_fds() - descriptors
    report.leaked_processes = len(psutil.Process().children(recursive=True)) - processes
    return report


async def _one(pool: DecodePool, clips: list[bytes], seed: int, report: Report) -> None:
    chance = Random(~seed)
    file = _Bytes(mutant(clips, seed), chance, in_portions=chance.random() < 0.5)
    started = time.monotonic()
    try:
        async with asyncio.timeout(CONFIG.max_wall_s + CONFIG.heartbeat_timeout_s + _SLACK_S):
            outcome = await _decoded(pool, file, chance)
    except TimeoutError:
        report.hung.append(seed)
        outcome = "HUNG"
    except ClientError as error:
        outcome = error.reason
    except DecoderCrashed as error:
        report.crashes[seed] = str(error)
        outcome = error.reason
    except Exception as error:
        report.surprises[seed] = repr(error)
        outcome = "SURPRISE"
    finally:
        os.close(file.fd)
    took_s = time.monotonic() - started
    if took_s > report.slowest_s:
        report.slowest_s, report.slowest_seed = took_s, seed
    report.outcomes[outcome] += 1


async def _decoded(pool: DecodePool, file: _Bytes, chance: Random) -> str:
    header_only = chance.random() < 0.5
    async with pool.session(file) as session:
        metadata = await session.probe(file, header_only=header_only)
        plan = _unbounded_plan() if header_only else _plan(metadata, chance)
        fast, thumbnails = chance.random() < 0.2, chance.choice((0, 1, MAX_THUMBNAILS))
        async for unit in session.decode(plan, _SHAPE, fast=fast, thumbnails=thumbnails):
            unit.release()
    assert session.end is not None
    at_least = min(1, thumbnails) if plan.fits(session.end.metadata.duration_ns) else 0
    assert at_least <= len(session.end.thumbnails) <= thumbnails
    return "OK, with warnings" if metadata.warnings + session.end.warnings else "OK"


def _unbounded_plan() -> Plan:
    longest_ns = round(CONFIG.max_duration_s * NS_PER_S)
    return Plan((SamplingGrid(0, longest_ns, 2 * NS_PER_S, 2, 8, 4),), is_unbounded=True)


def _plan(metadata: VideoMetadata, chance: Random) -> Plan:
    """Return a plan of one window over the whole video, or over its end from a random time."""
    start = chance.choice((0, chance.randrange(metadata.duration_ns)))
    length = metadata.duration_ns - start
    return Plan((SamplingGrid(start, metadata.duration_ns, length, 2, 8, 8),))
