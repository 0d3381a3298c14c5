"""What ``tubelet batch --list`` prints: the commits of a destination."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from tubelet.service.batch.destination.commit import Commit
from tubelet.service.batch.destination.commits import read_commits, shards_of
from tubelet.service.batch.destination.layout import DestinationMismatch, read_layout, read_plans
from tubelet.service.batch.destination.store import Store

_HEADER = ("plan", "shard", "classified", "failed", "segments", "commits", "last")


def print_commits(store: Store, *, as_json: bool) -> None:
    """Print what is committed in ``store``: a line for each shard, or with ``as_json`` an object a commit.

    Raises:
        DestinationMismatch: nothing of a batch is there.
        OSError: it cannot be read.
    """
    if read_layout(store) is None:
        raise DestinationMismatch(f"{store.name} has no rows of a batch: it is empty, or not there")
    if as_json:
        for plan, shard, commit in _commits(store):
            print(json.dumps({"plan": plan, "shard": shard} | commit.json))
        return
    rows: list[tuple[str, ...]] = [_HEADER]
    failures = Counter[str]()
    for plan in read_plans(store):
        for folder in shards_of(store, plan):
            commits = [each for each in read_commits(store, folder) if each.videos]
            rows.append(_row(plan, folder.rpartition("/")[2], commits))
            failures.update(failed.reason for each in commits for failed in each.failed.values())
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        print("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
    for reason, count in failures.most_common():
        print(f"failed: {reason} {count}")


def _row(plan: str, shard: str, commits: Sequence[Commit]) -> tuple[str, ...]:
    """Return the line of a shard."""
    done, failed = (sum(len(each.done) for each in commits), sum(len(each.failed) for each in commits))
    segments = sum(each.num_segments for each in commits)
    last = max((each.time[:19] for each in commits), default="never")
    return plan, shard, *map(str, (done, failed, segments, len(commits))), last


def _commits(store: Store) -> Iterator[tuple[str, str, Commit]]:
    """Yield the commits with parts that no other one replaces, with their plans and shards."""
    for plan in read_plans(store):
        for folder in shards_of(store, plan):
            for commit in read_commits(store, folder):
                if commit.videos:
                    yield plan, folder.rpartition("/")[2], commit
