"""Helpers of the tests of batches: made-up answers as rows, and what a destination says that it has."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet

from tubelet.service.batch.destination.commits import ShardCommits, read_commits, shards_of
from tubelet.service.batch.destination.layout import read_plans
from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.part_files import part_file
from tubelet.service.batch.destination.store import FolderStore, Store
from tubelet.service.batch.plan import BatchPlan
from tubelet.service.batch.rows import BatchFailure, Cost, Row, VideoRows, answer_rows, failure_rows
from tubelet.service.batch.source.items import Item, item_id
from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification, Label, Segment
from tubelet.service.types.video import NS_PER_S, VideoMetadata

PLAN = BatchPlan("0123456789abcdef", Options("some-model", "1"))
SHARD = "shard-00000-of-00001"
METADATA = VideoMetadata("mov,mp4", "h264", 320, 240, 25.0, 50, 2 * NS_PER_S, 1000)


def item(number: int) -> Item:
    """The item of a video that nobody opens."""
    uri = f"file:///videos/{number}.mp4"
    return Item(item_id(uri, "1"), uri, "1")


def classified(number: int) -> VideoRows:
    """The rows of a video with two segments."""
    labels = (Label("static", 0.75), Label("pan", 0.25))
    segments = tuple(Segment(start * NS_PER_S, (start + 1) * NS_PER_S, labels) for start in range(2))
    answer = Classification(METADATA, "some-model", "1", segments, labels, {})
    return answer_rows(item(number), PLAN, answer, "1", Cost(1000, 0.5, 1.0))


def failed(number: int, *, may_retry: bool = False) -> VideoRows:
    """The row of a video that failed."""
    failure = BatchFailure("INVALID_ARGUMENT", "NOT_A_VIDEO", "no video", may_retry)
    return failure_rows(item(number), PLAN, failure, Cost())


def shard_commits(store: Store, shard: str = SHARD) -> ShardCommits:
    """A new run's commits to a shard."""
    return ShardCommits(store, PLAN.folder, shard, Owner.this_process(), part_file("parquet"), ".parquet")


def committed_rows(dest: Path, table: str) -> list[Row]:
    """Return the rows of a table's parts that commits name."""
    store = FolderStore(dest)
    plans = {*read_plans(store), PLAN.folder}
    commits = [
        each for plan in plans for folder in shards_of(store, plan) for each in read_commits(store, folder)
    ]
    names = [name for each in commits for name in (each.videos if table == "videos" else each.segments)]
    return [row for name in names for row in pyarrow.parquet.read_table(dest / name).to_pylist()]


def part_files(dest: Path) -> set[str]:
    """Return the names of all parts that are there, committed or not."""
    found = (path for table in ("videos", "segments") for path in (dest / table).rglob("*") if path.is_file())
    return {str(path.relative_to(dest)) for path in found}


def named_parts(dest: Path) -> set[str]:
    """Return the names of the parts that commits name."""
    store = FolderStore(dest)
    plans = {*read_plans(store), PLAN.folder}
    commits = [
        each for plan in plans for folder in shards_of(store, plan) for each in read_commits(store, folder)
    ]
    return {name for each in commits for name in (*each.videos, *each.segments)}


def doubled(rows: Iterable[Row]) -> list[str]:
    """Return the ids that more than one row has."""
    return [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
