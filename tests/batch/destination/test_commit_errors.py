"""Commits that end in an error of the store, although they may be there."""

from pathlib import Path

import pytest

from tests.support.batches import (
    PLAN,
    SHARD,
    classified,
    committed_rows,
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
from tubelet.service.batch.destination.store import FolderStore, Store


class FailsOnce(FolderStore):
    """A store that reports the file of one name as an error once, whether it has created it or not."""

    def __init__(self, folder: Path, name: str, *, is_created: bool) -> None:
        super().__init__(folder)
        self._name = name
        self._is_created = is_created

    def create(self, name: str, content: bytes) -> None:
        fails = name.endswith(self._name)
        if not fails or self._is_created:
            super().create(name, content)
        if fails:
            self._name = "none"
            raise OSError("the disk is on fire")


class KeepsAll(FolderStore):
    """A store that removes nothing."""

    def delete(self, name: str) -> None:
        raise OSError("read-only")


def begun(store: Store) -> ShardCommits:
    """A run that has taken the shard."""
    commits = shard_commits(store)
    commits.read()
    commits.take()
    return commits


def ids(*numbers: int) -> list[str]:
    return sorted(item(number).id for number in numbers)


def committed(dest: Path) -> list[str]:
    """The ids of all rows of videos."""
    return sorted(str(row["id"]) for row in committed_rows(dest, "videos"))


@pytest.mark.parametrize("is_created", [True, False])
def test_videos_of_a_commit_that_ended_in_an_error_are_committed_once(
    tmp_path: Path, is_created: bool
) -> None:
    commits = begun(FailsOnce(tmp_path, "3.json", is_created=is_created))
    commits.commit([failed(2), failed(3)])
    rows = [classified(1), classified(2), failed(4)]
    with pytest.raises(OSError, match="on fire"):
        commits.commit(rows)
    commits.commit([*rows, classified(3), classified(5)])
    assert sorted(commits.done) == ids(1, 2, 3, 5)
    assert (list(commits.failed), commits.answered) == (ids(4), 7)
    assert committed(tmp_path) == ids(1, 2, 3, 4, 5)
    assert len(committed_rows(tmp_path, "segments")) == 8
    commits.commit([classified(4)])
    commits.remove_leftovers()
    assert part_files(tmp_path) == named_parts(tmp_path)
    assert sorted(begun(FolderStore(tmp_path)).done) == ids(1, 2, 3, 4, 5)


def test_the_same_videos_need_no_second_commit(tmp_path: Path) -> None:
    commits = begun(FailsOnce(tmp_path, "2.json", is_created=True))
    with pytest.raises(OSError, match="on fire"):
        commits.commit([classified(1)])
    assert commits.commit([classified(1)]).number == 2
    assert commits.commit([classified(2)]).number == 3
    assert committed(tmp_path) == ids(1, 2)


def test_a_run_that_was_shut_out_meanwhile_commits_no_more(tmp_path: Path) -> None:
    commits = begun(FailsOnce(tmp_path, "2.json", is_created=True))
    with pytest.raises(OSError, match="on fire"):
        commits.commit([classified(1)])
    later = begun(FolderStore(tmp_path))
    with pytest.raises(ShardTaken):
        commits.commit([classified(1), classified(2)])
    later.commit([classified(2)])
    assert committed(tmp_path) == ids(1, 2)
    assert part_files(tmp_path) == named_parts(tmp_path)


def test_a_part_that_cannot_be_removed_is_no_error_of_its_commit(tmp_path: Path) -> None:
    begun(FolderStore(tmp_path)).commit([failed(1), failed(2)])
    run = begun(FolderStore(tmp_path))
    files = ShardFiles(KeepsAll(tmp_path), PLAN.folder, SHARD, part_file("parquet"), ".parquet")
    names = (f"{run.owner.run}.{number}" for number in range(2))
    first, second = (CommitLog(files, Owner.this_process(name), run.position) for name in names)
    first.commit([classified(1)])
    second.commit([classified(2)])  # its first part was written before it knew of the other
    assert committed(tmp_path) == ids(1, 2)
