"""The log of a shard: numbered files of commits, each of which names the parts that it adds, of both tables.

A row counts once a commit names its part. A commit is created, never replaced, so of two writers that write
the same number one fails. If the other is of another run, this one is shut out. Writers of one run read what
the other has committed, and take the next number, unless it shuts them out: so who has written a number knows
all that counts before it. A commit that answers a failed video again names the earlier commit as replaced,
and keeps the rest of its rows in a part of its own.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tubelet.service.batch.destination.commit import FOLDER, Commit, Failed, read_commit
from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.part_files import PartFile
from tubelet.service.batch.destination.store import Store
from tubelet.service.batch.rows import Row, VideoRows
from tubelet.service.batch.schema import SEGMENTS, VIDEOS, Column


class ShardTaken(Exception):
    """Another run has taken the shard over, or this writer is shut out; it can commit no more."""


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """The files of a shard: where its parts and commits are, and the format of parts."""

    store: Store
    plan: str
    shard: str
    part: PartFile
    suffix: str

    @property
    def folder(self) -> str:
        """The folder of the shard's commits."""
        return f"{FOLDER}/{self.plan}/{self.shard}"

    def commit_name(self, number: int) -> str:
        """Return the name of a commit's file."""
        return f"{self.folder}/{number:08}.json"

    def read_commit(self, number: int) -> Commit | None:
        """Return the commit of a number; None: there is none."""
        try:
            return read_commit(self.store, self.commit_name(number))
        except FileNotFoundError:
            return None

    def write_part(self, table: str, name: str, columns: Sequence[Column], rows: Sequence[Row]) -> str:
        """Write a part of a table, and return the name of its file."""
        file = f"{table}/{self.plan}/{self.shard}-{name}{self.suffix}"
        self.store.put(file, self.part.encode(columns, rows))
        return file


@dataclass(frozen=True, slots=True)
class LogPosition:
    """What a writer needs to know of a log: its next number, and which commits have failed videos."""

    number: int = 1
    commit_of_failed: dict[str, int] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A commit that is not created yet, and the parts that were written for it."""

    commit: Commit
    parts: tuple[str, ...]


class CommitLog:
    """The log of a shard for one writer, from ``start`` on; ``on_commit`` gets each commit that is new to it.

    Of what is committed it remembers the failed videos alone, so its memory does not grow with the shard.
    """

    def __init__(
        self,
        files: ShardFiles,
        owner: Owner,
        start: LogPosition,
        on_commit: Callable[[Commit], None] = lambda _: None,
    ) -> None:
        self._files = files
        self._owner = owner
        self._next = start.number
        self._commit_of_failed = dict(start.commit_of_failed)
        self._on_commit = on_commit
        self._unsure: tuple[int, set[str]] | None = None  # the commit that ended in an OSError; its videos

    @property
    def position(self) -> LogPosition:
        """What another writer needs to know to go on from here."""
        return LogPosition(self._next, dict(self._commit_of_failed))

    def follow(self) -> None:
        """Learn of the commits that other writers of this run have added.

        Raises:
            ShardTaken: another run has taken the shard over.
        """
        while (found := self._files.read_commit(self._next)) is not None:
            self._pass(found)

    def is_taken(self) -> bool:
        """Return whether another run has taken the shard over."""
        number = self._next
        while (found := self._files.read_commit(number)) is not None:
            if found.owner.group != self._owner.group:
                return True
            number += 1
        return False

    def take(self) -> None:
        """Shut out the runs that wrote the shard before.

        Raises:
            ShardTaken: another run has taken it meanwhile.
        """
        self._create(lambda: Commit(self._next, self._owner, _now()))

    def shut_out(self, writer: str) -> None:
        """Let a writer of this run commit no more, and learn of all that it has committed."""
        self._create(lambda: Commit(self._next, self._owner, _now(), shuts_out=(writer,)))

    def commit(self, videos: Sequence[VideoRows], segment_columns: Sequence[Column] = SEGMENTS) -> Commit:
        """Write the rows of ``videos`` as parts, and commit them.

        Raises:
            ShardTaken: another run has taken the shard over, or this writer is; nothing is committed.
            OSError: the destination cannot be written. The commit may be there all the same, so the next call
                looks for it, and leaves its videos out.
        """
        videos, found = self._not_committed(videos)
        if found is not None and not videos:
            return found
        drafts: list[_Draft] = []

        def draft() -> Commit:
            """Return the next commit; it has new parts if it replaces other commits than before."""
            if not drafts or drafts[-1].commit.replaces != self._replaced_by(videos):
                drafts.append(self._draft(videos, segment_columns))
            return replace(drafts[-1].commit, number=self._next)

        try:
            created = self._create(draft)
        except ShardTaken:
            self._discard(drafts)
            raise
        except OSError:
            self._unsure = self._next, {each.id for each in videos}
            raise
        self._discard(drafts[:-1])
        return created

    def _not_committed(self, videos: Sequence[VideoRows]) -> tuple[Sequence[VideoRows], Commit | None]:
        """Return those of ``videos`` that the last call has not committed, and the commit that it did create.

        This comes before parts are written: they would have the names of that commit's own.

        Raises:
            ShardTaken: another run has taken the shard over, or this writer is shut out.
        """
        if self._unsure is None:
            return videos, None
        number, ids = self._unsure
        self.follow()
        found = self._files.read_commit(number)
        self._unsure = None
        if found is None or found.owner != self._owner:
            return videos, None
        return [each for each in videos if each.id not in ids], found

    def _replaced_by(self, videos: Sequence[VideoRows]) -> tuple[int, ...]:
        """Return the numbers of the commits that have ``videos`` as failed."""
        known = self._commit_of_failed
        return tuple(sorted({known[each.id] for each in videos if each.id in known}))

    def _draft(self, videos: Sequence[VideoRows], segment_columns: Sequence[Column]) -> _Draft:
        """Write the parts of a commit, and return both."""
        answered = {each.id for each in videos}
        replaced = self._replaced_by(videos)
        earlier = [read_commit(self._files.store, self._files.commit_name(number)) for number in replaced]
        rows = [row for commit in earlier for row in self._kept_rows(commit, answered)]
        rows += [each.video for each in videos]
        segments = [row for each in videos for row in each.segments]
        part = f"{self._next:08}-{self._owner.run}"
        added = self._files.write_part("videos", part, VIDEOS, rows)
        added_segments = (
            (self._files.write_part("segments", part, segment_columns, segments),) if segments else ()
        )
        commit = Commit(
            self._next,
            self._owner,
            _now(),
            videos=(added,),
            segments=(*(name for each in earlier for name in each.segments), *added_segments),
            done=(
                *(name for each in earlier for name in each.done),
                *(each.id for each in videos if each.failure is None),
            ),
            failed={
                name: failed
                for each in earlier
                for name, failed in each.failed.items()
                if name not in answered
            }
            | {
                each.id: Failed(each.failure.reason, each.failure.may_retry)
                for each in videos
                if each.failure is not None
            },
            num_segments=len(segments) + sum(each.num_segments for each in earlier),
            replaces=replaced,
            answered=len(videos),
        )
        return _Draft(commit, (added, *added_segments))

    def _kept_rows(self, commit: Commit, answered: set[str]) -> list[Row]:
        """Return the rows of an earlier commit's videos but those that were answered again."""
        parts = (self._files.part.decode(VIDEOS, self._files.store.read(name)) for name in commit.videos)
        return [row for part in parts for row in part if row["id"] not in answered]

    def _discard(self, drafts: Sequence[_Draft]) -> None:
        """Remove the parts of drafts that were not committed; ``remove_leftovers`` removes what stays."""
        for name in (name for each in drafts for name in each.parts):
            with suppress(OSError):
                self._files.store.delete(name)

    def _create(self, make: Callable[[], Commit]) -> Commit:
        """Create the file of the next commit, which ``make`` returns; others may be added before it.

        Raises:
            ShardTaken: another run has taken the shard over, or this writer is shut out.
        """
        while True:
            commit = make()
            try:
                content = json.dumps(commit.json, ensure_ascii=False).encode(errors="backslashreplace")
                self._files.store.create(self._files.commit_name(commit.number), content)
            except FileExistsError:
                found = read_commit(self._files.store, self._files.commit_name(commit.number))
                if found != commit:  # else the store had written it, and only its answer was lost
                    self._pass(found)
                    continue
            self._note(commit)
            return commit

    def _pass(self, found: Commit) -> None:
        """Take note of the next commit, which another writer has created.

        Raises:
            ShardTaken: it is of another run, or shuts this writer out.
        """
        if found.owner.group != self._owner.group or self._owner.run in found.shuts_out:
            raise ShardTaken(
                f"{self._files.shard} of {self._files.store.name} was taken over by {found.owner}, at "
                f"{found.time}; what this run had not committed, that one does again"
            )
        self._note(found)

    def _note(self, commit: Commit) -> None:
        """Take note of a commit."""
        for name in [name for name, number in self._commit_of_failed.items() if number in commit.replaces]:
            del self._commit_of_failed[name]
        self._commit_of_failed |= dict.fromkeys(commit.failed, commit.number)
        self._next = commit.number + 1
        self._on_commit(commit)


def _now() -> str:
    """Return the time as text, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
