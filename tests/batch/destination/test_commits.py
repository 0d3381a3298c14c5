"""Commits of a shard: what counts, what a killed run leaves, who may write."""

import itertools
import multiprocessing
import os
import random
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.batches import (
    PLAN,
    SHARD,
    classified,
    committed_rows,
    doubled,
    failed,
    item,
    named_parts,
    part_files,
    shard_commits,
)
from tubelet.service.batch.destination.commit_log import CommitLog, ShardFiles, ShardTaken
from tubelet.service.batch.destination.commits import ShardCommits
from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.part_files import part_file
from tubelet.service.batch.destination.store import FolderStore
from tubelet.service.batch.rows import Row


def resumed(dest: Path) -> ShardCommits:
    """A run that has taken the shard of ``dest``."""
    commits = shard_commits(FolderStore(dest))
    commits.read()
    commits.take()
    return commits


def ids(rows: list[Row]) -> list[str]:
    return sorted(str(row["id"]) for row in rows)


def test_a_later_run_knows_what_was_committed(tmp_path: Path) -> None:
    first = resumed(tmp_path)
    first.commit([classified(1), failed(2)])
    first.commit([classified(3)])
    second = resumed(tmp_path)
    assert second.done == {item(1).id, item(3).id}
    assert {name: each.reason for name, each in second.failed.items()} == {item(2).id: "NOT_A_VIDEO"}
    assert ids(committed_rows(tmp_path, "videos")) == sorted(item(number).id for number in (1, 2, 3))
    assert len(committed_rows(tmp_path, "segments")) == 4


def test_an_answer_replaces_the_row_of_a_failure_and_no_other(tmp_path: Path) -> None:
    resumed(tmp_path).commit([failed(1), classified(2), failed(3)])
    again = resumed(tmp_path)
    again.commit([classified(1)])
    rows = {row["id"]: row["code"] for row in committed_rows(tmp_path, "videos")}
    assert rows == {item(1).id: "OK", item(2).id: "OK", item(3).id: "INVALID_ARGUMENT"}
    assert len(committed_rows(tmp_path, "segments")) == 4
    again.commit([failed(3, may_retry=True)])
    assert len(committed_rows(tmp_path, "videos")) == 3
    final = resumed(tmp_path)
    assert final.done == {item(1).id, item(2).id}
    assert final.failed[item(3).id].may_retry
    assert part_files(tmp_path) == named_parts(tmp_path)


def test_reading_again_forgets_what_was_replaced_meanwhile(tmp_path: Path) -> None:
    resumed(tmp_path).commit([failed(1)])
    waiting = shard_commits(FolderStore(tmp_path))
    waiting.read()
    resumed(tmp_path).commit([classified(1)])
    waiting.read()
    waiting.take()
    assert (waiting.done, waiting.failed) == ({item(1).id}, {})
    assert part_files(tmp_path) == named_parts(tmp_path)


def test_parts_without_a_commit_do_not_count_and_are_removed(tmp_path: Path) -> None:
    first = resumed(tmp_path)
    first.commit([classified(1)])
    (part,) = (tmp_path / "videos").rglob("*.parquet")
    left = part.with_name(part.name.replace("00000002", "00000003"))
    left.write_bytes(part.read_bytes())
    other = part.with_name(part.name.replace("00000-of-00001", "00001-of-00002"))
    other.write_bytes(part.read_bytes())
    (part.parent / ".shard-00000-of-00001-00000003.parquet.1.part").write_text("torn")
    assert not doubled(committed_rows(tmp_path, "videos"))
    resumed(tmp_path)
    assert sorted(part.parent.iterdir()) == sorted([part, other])


def test_a_run_whose_shard_was_taken_over_commits_no_more(tmp_path: Path) -> None:
    slow = resumed(tmp_path)
    slow.commit([classified(1)])
    assert not slow.is_taken()
    quick = resumed(tmp_path)
    assert slow.is_taken()
    assert not quick.is_taken()
    with pytest.raises(ShardTaken, match=r"was taken over by process \d+ on "):
        slow.commit([classified(2)])
    quick.commit([classified(2)])
    assert not doubled(committed_rows(tmp_path, "videos"))


def test_of_two_runs_that_take_a_shard_at_once_one_succeeds(tmp_path: Path) -> None:
    runs = [shard_commits(FolderStore(tmp_path)) for _ in range(2)]
    for each in runs:
        each.read()
    runs[1].take()
    with pytest.raises(ShardTaken):
        runs[0].take()


def test_a_commit_whose_answer_was_lost_is_not_an_error(tmp_path: Path) -> None:
    class LosesAnswers(FolderStore):
        """A store that reports a failure although it has written the file, as a network may."""

        def create(self, name: str, content: bytes) -> None:
            super().create(name, content)
            super().create(name, content)

    commits = shard_commits(LosesAnswers(tmp_path))
    commits.read()
    commits.take()
    commits.commit([classified(1)])
    assert ids(committed_rows(tmp_path, "videos")) == [item(1).id]


def writers(dest: Path, count: int) -> tuple[ShardCommits, list[CommitLog]]:
    """A run that has taken the shard of ``dest``, and further writers of it."""
    run = resumed(dest)
    files = ShardFiles(FolderStore(dest), PLAN.folder, SHARD, part_file("parquet"), ".parquet")
    names = (f"{run.owner.run}.{number}" for number in range(count))
    return run, [CommitLog(files, Owner.this_process(name), run.position) for name in names]


def test_writers_of_one_run_commit_in_turns_and_at_once(tmp_path: Path) -> None:
    run, (first, second) = writers(tmp_path, 2)
    first.commit([classified(1)])
    second.commit([classified(2)])  # under a number that the first one has taken

    def commit_some(log: CommitLog, first_number: int) -> None:
        """Commit eight videos, one by one."""
        for number in range(first_number, first_number + 8):
            log.commit([classified(number)])

    with ThreadPoolExecutor() as pool:
        list(pool.map(commit_some, (first, second), (10, 18)))
    run.follow()
    wanted = sorted(item(number).id for number in (1, 2, *range(10, 26)))
    assert sorted(run.done) == ids(committed_rows(tmp_path, "videos")) == wanted
    assert run.answered == 18
    assert resumed(tmp_path).done == run.done


def test_failures_of_one_commit_that_two_writers_answer_have_one_row_each(tmp_path: Path) -> None:
    resumed(tmp_path).commit([failed(1), failed(2), classified(3), failed(4)])
    run, (first, second) = writers(tmp_path, 2)
    first.commit([classified(1)])
    second.commit([classified(2)])  # it would have kept the row of 1 as it was
    rows = {row["id"]: row["code"] for row in committed_rows(tmp_path, "videos")}
    assert [rows[item(number).id] for number in (1, 2, 3, 4)] == ["OK", "OK", "OK", "INVALID_ARGUMENT"]
    assert not doubled(committed_rows(tmp_path, "videos"))
    assert len(committed_rows(tmp_path, "segments")) == 6
    run.follow()
    assert (len(run.done), list(run.failed), run.answered) == (3, [item(4).id], 2)
    run.remove_leftovers()
    assert part_files(tmp_path) == named_parts(tmp_path)


def test_a_writer_that_is_shut_out_commits_no_more_and_leaves_no_part(tmp_path: Path) -> None:
    run, (first, second) = writers(tmp_path, 2)
    first.commit([classified(1)])
    second.commit([classified(2)])
    run.shut_out(f"{run.owner.run}.0")
    assert run.done == {item(1).id, item(2).id}
    second.commit([classified(3)])
    with pytest.raises(ShardTaken):
        first.commit([classified(4)])
    assert part_files(tmp_path) == named_parts(tmp_path)
    assert not run.is_taken()
    resumed(tmp_path)
    assert run.is_taken()
    with pytest.raises(ShardTaken):
        second.commit([classified(5)])
    assert ids(committed_rows(tmp_path, "videos")) == sorted(item(number).id for number in (1, 2, 3))


def test_a_run_takes_over_while_writers_of_the_one_before_commit(tmp_path: Path) -> None:
    _, (writer,) = writers(tmp_path, 1)
    later = shard_commits(FolderStore(tmp_path))
    later.read()
    writer.commit([classified(1)])
    later.take()
    assert later.done == {item(1).id}
    with pytest.raises(ShardTaken):
        writer.commit([classified(2)])
    assert part_files(tmp_path) == named_parts(tmp_path)


def test_a_commit_that_is_created_while_a_later_run_reads_is_not_lost(tmp_path: Path) -> None:
    earlier = resumed(tmp_path)
    earlier.commit([classified(1)])

    class CommitsMeanwhile(FolderStore):
        """A store whose first file is read while the earlier run commits."""

        def read(self, name: str) -> bytes:
            if item(2).id not in earlier.done:
                earlier.commit([classified(2)])
            return super().read(name)

    later = shard_commits(CommitsMeanwhile(tmp_path))
    later.read()
    later.take()
    assert later.done == {item(1).id, item(2).id}
    assert ids(list(later.video_rows())) == sorted(later.done)
    assert part_files(tmp_path) == named_parts(tmp_path)


_FILE_OPERATIONS = 50  # two commits have about half as many


@pytest.mark.parametrize(
    ("videos", "wanted_kills"), [(45, 12), pytest.param(600, 200, marks=pytest.mark.slow)]
)
def test_a_run_that_is_killed_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, videos: int, wanted_kills: int
) -> None:
    random.seed(7)
    kills = 0
    while True:
        before = resumed(tmp_path)
        todo = [number for number in range(videos) if item(number).id not in before.done]
        if not todo:
            break
        kill_at = random.randint(1, _FILE_OPERATIONS) if kills < wanted_kills else None
        child = multiprocessing.get_context("fork").Process(
            target=_commit_all, args=(tmp_path, todo, kill_at)
        )
        child.start()
        child.join()
        assert child.exitcode == (0 if kill_at is None else -signal.SIGKILL)
        kills += kill_at is not None
        assert not doubled(committed_rows(tmp_path, "videos"))
    assert kills == wanted_kills
    rows = committed_rows(tmp_path, "videos")
    assert ids(rows) == sorted(item(number).id for number in range(videos))
    assert {row["code"] for row in rows} == {"OK"}
    assert len(committed_rows(tmp_path, "segments")) == 2 * videos
    resumed(tmp_path)
    assert part_files(tmp_path) == named_parts(tmp_path)


def _commit_all(dest: Path, todo: list[int], kill_at: int | None) -> None:
    """Commit three videos at a time; each fails first, and is answered again in a second commit.

    The process is killed before the ``kill_at``-th operation on files.
    """
    commits = shard_commits(FolderStore(dest))
    commits.read()
    if kill_at is not None:
        _kill_before(kill_at)
    commits.take()
    for start in range(0, len(todo), 3):
        commits.commit([failed(number) for number in todo[start : start + 3]])
        commits.commit([classified(number) for number in todo[start : start + 3]])


def _kill_before(operation: int) -> None:
    """Kill this process, as SIGKILL does, before its ``operation``-th operation on files from now on."""
    numbers = itertools.count(1)

    def watch(event: str, _arguments: tuple[object, ...]) -> None:
        if (event == "open" or event.startswith("os.")) and next(numbers) == operation:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
