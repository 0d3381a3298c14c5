"""The file of ``tubelet batch --list --export``: all segments as a table, as ``classify --csv`` writes it."""

import os
from collections.abc import Iterator
from pathlib import Path

from tubelet.service.batch.destination.commit import Commit
from tubelet.service.batch.destination.commits import read_commits, shards_of
from tubelet.service.batch.destination.layout import DestinationMismatch, read_layout, read_plans
from tubelet.service.batch.destination.part_files import PartFile, part_file
from tubelet.service.batch.destination.store import Store
from tubelet.service.batch.rows import Row
from tubelet.service.batch.schema import EMBEDDING, SEGMENTS, VIDEOS
from tubelet.service.report.csv_table import csv_header, csv_rows
from tubelet.service.types.result import Label, Segment
from tubelet.service.types.video import to_ns


def export_segments(store: Store, file: Path) -> int:
    """Write the segments of all videos that were classified, and return the number of these videos.

    Raises:
        DestinationMismatch: nothing is there, or rows of several models or options.
        OSError: the rows cannot be read, or the file cannot be written; then it stays as it was.
    """
    layout, plans = read_layout(store), list(read_plans(store))
    if layout is None or len(plans) != 1:
        found = ", ".join(plans) or "no rows"
        raise DestinationMismatch(
            f"{store.name} has {found}; --export needs rows of one model with one set of options"
        )
    part, videos = part_file(layout.part_format), 0
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="") as table:
            table.write(csv_header())
            for folder in shards_of(store, plans[0]):
                for commit in read_commits(store, folder):
                    for uri, segments in _videos(store, part, commit):
                        table.write(csv_rows(uri, segments))
                        videos += 1
        unfinished.replace(file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"cannot write {file}: {error.strerror or error}") from error
    return videos


def _videos(store: Store, part: PartFile, commit: Commit) -> Iterator[tuple[str, list[Segment]]]:
    """Yield the URIs and segments of the videos of a commit that have any."""
    uris = {row["id"]: row["uri"] for name in commit.videos for row in part.decode(VIDEOS, store.read(name))}
    for name in commit.segments:
        by_id: dict[str, list[Segment]] = {}
        for row in part.decode((*SEGMENTS, EMBEDDING), store.read(name)):
            by_id.setdefault(row["id"], []).append(_segment(row))
        yield from ((uris[video], segments) for video, segments in by_id.items())


def _segment(row: Row) -> Segment:
    """Return the segment of a row."""
    labels = tuple(map(Label, row["labels"], row["scores"]))
    return Segment(to_ns(row["start_s"]), to_ns(row["end_s"]), labels)
