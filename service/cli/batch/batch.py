"""The work of ``tubelet batch``: find the videos, leave out those that have rows, classify the others."""

import asyncio
import signal
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import typer
from rich.console import Console

from tubelet.service.batch.destination.commits import ShardCommits
from tubelet.service.batch.destination.layout import prepare
from tubelet.service.batch.destination.lock import ShardLock
from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.part_files import part_file
from tubelet.service.batch.destination.store import open_store
from tubelet.service.batch.outage import SourceOutage
from tubelet.service.batch.plan import BatchPlan
from tubelet.service.batch.progress import BatchProgress
from tubelet.service.batch.ray.errors import ActorFailed
from tubelet.service.batch.source.items import Item, Shard
from tubelet.service.batch.source.sources import check_allowed, chosen_items, find_items, source_prefixes
from tubelet.service.cli.batch.display import BatchDisplay
from tubelet.service.cli.batch.report import write_report
from tubelet.service.cli.batch.work import (
    BatchOptions,
    BegunRun,
    check_ray,
    everywhere,
    work_here,
    work_on_ray,
)
from tubelet.service.cli.runs.interruption import cancel_on_ctrl_c
from tubelet.service.config.config import Config
from tubelet.service.errors import NoDevice
from tubelet.service.metrics import Metrics
from tubelet.service.server.listening import resolve
from tubelet.service.server.monitoring import Readiness, State, open_monitoring


class NotResumed(Exception):
    """The destination has rows of an earlier run, and ``--resume`` was not given."""


def parse_shard(text: str | None) -> Shard:
    """Parse ``I/N``; None is all of one shard."""
    if text is None:
        return Shard()
    index, slash, count = text.partition("/")
    try:
        if not slash:
            raise ValueError
        return Shard(int(index), int(count))
    except ValueError:
        raise typer.BadParameter(
            f"--shard must be I/N with I from 0 to N - 1, such as 0/4; found {text!r}"
        ) from None


async def run(source: str, out: str, plan: BatchPlan, asked: BatchOptions, config: Config) -> int:
    """Classify the videos of ``source`` that have no row in ``out`` yet, and return the exit status.

    Raises:
        UnusableSource: the source cannot be used.
        DestinationMismatch, NotResumed, ShardInUse, ShardTaken: the destination is of another batch, or run.
        OSError: the source cannot be read, or the destination written; what was committed stays.
        MalformedOption, UnknownModel, ...: the model cannot be used, or not with these options.
        NoDevice, SourceOutage: no device is left, or no URI can be read; what was done is committed.
        MissingExtra, ClusterUnreachable, ActorFailed: Ray is not installed, or cannot be used.
    """
    notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    store, owner = open_store(out, config.fetch), Owner.this_process()
    part = part_file(asked.layout.part_format)
    if asked.ray is not None:
        check_ray()
    with cancel_on_ctrl_c(signal.SIGTERM) as interruption:
        async with AsyncExitStack() as stack:
            with notes.status("finding the videos"):
                items = chosen_items(find_items(source, config.fetch), asked.shard, asked.seed)
            config = _allowing(config, source_prefixes(source))
            check_allowed(items, config.fetch.allow)
            prepare(store, plan, asked.layout, may_add=asked.may_add)
            suffix = f".{asked.layout.part_format}"
            commits = ShardCommits(store, plan.folder, asked.shard.name, owner, part, suffix)
            await asyncio.to_thread(commits.read)
            _check_resumed(commits, out, asked)
            name = f"{asked.shard.name}-{plan.key}"
            await stack.enter_async_context(ShardLock(store, name, owner, notes.print).hold(commits.is_taken))
            await asyncio.to_thread(commits.read)  # the lock is renewed meanwhile
            await _finish_in_thread(commits.take)
            todo = _todo(items, commits, asked)
            progress = BatchProgress(len(todo))
            display = BatchDisplay(notes, progress, out, as_json=asked.as_json)
            display.begin(items, todo, commits)
            if todo:
                metrics = Metrics()
                if asked.metrics_port is not None:
                    port = await stack.enter_async_context(_serving(metrics, asked.metrics_port, config))
                    notes.print(f"metrics on port {port}")
                begun = BegunRun(commits, plan, progress, metrics, notes)
                opened = work_here(begun, asked, config)
                if asked.ray is not None:
                    opened = work_on_ray(begun, everywhere(out), asked, asked.ray, config)
                work = await stack.enter_async_context(opened)
                try:
                    async with display.shown():
                        await work(todo)
                except (CancelledError, NoDevice, SourceOutage, ActorFailed):
                    display.end(is_interrupted=True)
                    raise
            display.end(is_interrupted=False)
            await _finish_in_thread(commits.remove_leftovers)
            if todo:
                name = await asyncio.to_thread(write_report, store, commits, plan, asked.shard, progress)
                notes.print(f"the page of all rows is {store.name}/{name}")
    return interruption.status if interruption.happened else 0


async def _finish_in_thread(work: Callable[[], None]) -> None:
    """Do ``work`` in a thread, and let a cancellation wait for it: it must not go on without the lock."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(working)
    except CancelledError:
        await asyncio.wait([working])
        raise


@asynccontextmanager
async def _serving(metrics: Metrics, port: int, config: Config) -> AsyncIterator[int]:
    """Answer scrapes where a server would, until the context ends; yield the port."""
    addresses = await asyncio.to_thread(resolve, config.server.host)
    ready = Readiness(State.READY)
    metrics.ready.set(1)
    async with open_monitoring(addresses, port, metrics.registry, ready) as chosen:
        yield chosen


def _allowing(config: Config, prefixes: Sequence[str]) -> Config:
    """Return the configuration with further prefixes of URIs in ``fetch.allow``."""
    allow = (*config.fetch.allow, *prefixes)
    return config.model_copy(update={"fetch": config.fetch.model_copy(update={"allow": allow})})


def _check_resumed(commits: ShardCommits, out: str, asked: BatchOptions) -> None:
    """Raise NotResumed if there are rows, and they may not be continued."""
    if not commits.is_new and not asked.may_resume:
        done = len(commits.done) + len(commits.failed)
        raise NotResumed(
            f"{out} has rows of {done} videos already; continue it with --resume, or name another --out"
        )


def _todo(items: Sequence[Item], commits: ShardCommits, asked: BatchOptions) -> list[Item]:
    """Return the items that have no row yet, or are to be asked again, up to the limit."""

    def is_done(item: Item) -> bool:
        """Return whether the item's row is to stay."""
        failed = commits.failed.get(item.id)
        return item.id in commits.done or (
            failed is not None and not (failed.may_retry or asked.retry_failed)
        )

    return [item for item in items if not is_done(item)][: asked.limit]
