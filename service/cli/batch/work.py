"""Where the videos of a batch are classified: in this process, or by actors on a Ray cluster."""

import importlib
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from tubelet.models.errors import MissingExtra
from tubelet.service.batch.classifier import count_video, open_batch_classifier
from tubelet.service.batch.destination.commits import ShardCommits
from tubelet.service.batch.destination.layout import Layout
from tubelet.service.batch.plan import BatchPlan
from tubelet.service.batch.progress import BatchProgress
from tubelet.service.batch.run import CommitPolicy, RowWriter, run_batch
from tubelet.service.batch.source.items import Item, Shard, longest_first
from tubelet.service.config.config import Config
from tubelet.service.metrics import Metrics
from tubelet.service.types.uri import is_uri

Work = Callable[[Sequence[Item]], Awaitable[None]]
"""Classifies videos and commits their rows; if cancelled, it commits what is done."""


@dataclass(frozen=True, slots=True)
class RayOptions:
    """The Ray cluster of a run, by its address, which may be empty; None: what it has room for."""

    address: str
    actors: int | None
    actor_cpus: int | None


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a run of a batch goes; the plan says what is asked of each video."""

    layout: Layout
    shard: Shard
    may_add: bool
    may_resume: bool
    retry_failed: bool
    limit: int | None
    seed: int | None  # None: in the order of the source
    jobs: int
    commit_every_s: float
    metrics_port: int | None  # None: no metrics are served
    ray: RayOptions | None  # None: in this process
    as_json: bool


@dataclass(frozen=True, slots=True)
class BegunRun:
    """A run that has taken its shard: what it commits to, and what it counts."""

    commits: ShardCommits
    plan: BatchPlan
    progress: BatchProgress
    metrics: Metrics
    notes: Console


@asynccontextmanager
async def work_here(run: BegunRun, asked: BatchOptions, config: Config) -> AsyncIterator[Work]:
    """Load the model in this process, until the context ends, and yield what classifies.

    Raises: see ``open_batch_classifier``.
    """
    async with AsyncExitStack() as stack:
        with run.notes.status("loading the model, starting decode workers"):
            opened = open_batch_classifier(config, run.plan, asked.jobs, run.metrics)
            classifier = await stack.enter_async_context(opened)
        policy = CommitPolicy(seconds=asked.commit_every_s)
        writer = RowWriter(run.commits, run.plan, run.progress, policy)
        yield lambda todo: run_batch(todo, classifier, writer, run.progress, asked.jobs)


def everywhere(out: str) -> str:
    """Return a destination as other processes name it, whatever their working directory is."""
    return out if is_uri(out) else os.path.abspath(out)


def check_ray() -> None:
    """Raise MissingExtra unless Ray can be imported."""
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("--ray needs a library: pip install 'tubelet[ray]'")
    try:
        with redirect_stdout(sys.stderr):  # what Ray imports may print
            importlib.import_module("ray")
    except (ImportError, KeyError, OSError) as error:
        raise MissingExtra(
            f"Ray cannot be imported: {type(error).__name__}: {error}. If the name is libamd_smi.so: "
            "'pip uninstall amdsmi' helps, which only AMD's GPUs need"
        ) from error


@asynccontextmanager
async def work_on_ray(
    run: BegunRun, out: str, asked: BatchOptions, ray: RayOptions, config: Config
) -> AsyncIterator[Work]:
    """Join a Ray cluster, until the context ends, and yield what classifies there, the largest files first.

    ``out`` is a URI, or an absolute path.

    Raises:
        ClusterUnreachable: there is none at the address.
    """
    from tubelet.service.batch.ray.actor import ActorTask
    from tubelet.service.batch.ray.cluster import cluster_nodes, joined
    from tubelet.service.batch.ray.pool import ActorPool
    from tubelet.service.batch.ray.share import share_of_nodes

    async with AsyncExitStack() as stack:
        with run.notes.status("joining the Ray cluster"):
            await stack.enter_async_context(joined(ray.address))
        share, room = share_of_nodes(cluster_nodes(), ray.actor_cpus)
        task = ActorTask(
            share.settings(config),
            run.plan,
            out,
            asked.shard.name,
            asked.layout.part_format,
            asked.jobs,
            asked.commit_every_s,
        )
        count = partial(count_video, run.metrics)
        pool = ActorPool(task, share, ray.actors or room, run.commits, run.progress, count)
        run.notes.print(f"up to {pool.count} actors, each of {share}")

        async def work(todo: Sequence[Item]) -> None:
            """Classify videos, the longest first unless they were shuffled."""
            await pool.run(todo if asked.seed is not None else longest_first(todo))

        yield work
