"""The commits of a shard: numbered files, each of which names the parts that it adds, of both tables at once.

A row counts once a commit names its part. A commit is created, never replaced, so of two runs that write the
same number one fails. A run begins with a commit without parts: whoever wrote the shard before can commit no
more. A commit that answers a failed video again names the earlier commit as replaced, and keeps the rest of
its rows in a part of its own. Parts that no commit names were left by a run that was killed, and are removed.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.part_files import PartFile
from tubelet.service.batch.destination.store import Store
from tubelet.service.batch.rows import Row, VideoRows
from tubelet.service.batch.schema import SEGMENTS, VIDEOS, Column

FOLDER = "_tubelet/commits"
"""The folder of all commits; programs that read a folder of Parquet files skip names that begin with _."""


class ShardTaken(Exception):
    """Another run has taken the shard over, and this one can commit no more."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed video that a commit has: why, and whether a later run asks again by itself."""

    reason: str
    may_retry: bool


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: the parts that it names, and the ids of the videos that were classified and that failed."""

    number: int
    owner: Owner
    time: str
    videos: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    failed: dict[str, Failed] = field(default_factory=dict)
    num_segments: int = 0
    replaces: tuple[int, ...] = ()

    @property
    def json(self) -> dict[str, Any]:
        """The commit as JSON."""
        failed = {name: [each.reason, each.may_retry] for name, each in self.failed.items()}
        return {
            "number": self.number,
            "owner": self.owner.json,
            "time": self.time,
            "parts": {"videos": self.videos, "segments": self.segments},
            "rows": {"videos": len(self.done) + len(self.failed), "segments": self.num_segments},
            "done": self.done,
            "failed": failed,
            "replaces": self.replaces,
        }

    @classmethod
    def of_json(cls, content: dict[str, Any]) -> "Commit":
        """Return the commit that ``json`` was made of."""
        return cls(
            number=content["number"],
            owner=Owner.of_json(content["owner"]),
            time=content["time"],
            videos=tuple(content["parts"]["videos"]),
            segments=tuple(content["parts"]["segments"]),
            done=tuple(content["done"]),
            failed={name: Failed(*values) for name, values in content["failed"].items()},
            num_segments=content["rows"]["segments"],
            replaces=tuple(content["replaces"]),
        )


def read_commits(store: Store, folder: str) -> Iterator[Commit]:
    """Yield the commits of a folder that no other one replaces, in their order; also those without parts."""
    commits = [_read(store, name) for name in sorted(store.names(folder)) if _is_commit(name)]
    replaced = {number for each in commits for number in each.replaces}
    return (each for each in commits if each.number not in replaced)


def shards_of(store: Store, plan: str) -> list[str]:
    """Return the folders of commits of a plan, one for each shard that was written."""
    return sorted({name.rpartition("/")[0] for name in store.names(f"{FOLDER}/{plan}") if _is_commit(name)})


class ShardCommits:
    """What one run commits to a shard of a plan, and what was committed before.

    ``done`` has the ids of the videos that were classified, ``failed`` those that failed.
    """

    def __init__(
        self, store: Store, plan: str, shard: str, owner: Owner, part: PartFile, suffix: str
    ) -> None:
        self.done: set[str] = set()
        self.failed: dict[str, Failed] = {}
        self._store = store
        self._plan = plan
        self._shard = shard
        self._owner = owner
        self._part = part
        self._suffix = suffix
        self._next = 1
        self._commit_of_failed: dict[str, int] = {}
        self._parts: set[str] = set()  # that commits name

    @property
    def folder(self) -> str:
        """The folder of the shard's commits."""
        return f"{FOLDER}/{self._plan}/{self._shard}"

    @property
    def is_new(self) -> bool:
        """Whether nothing was committed yet."""
        return not self.done and not self.failed

    def read(self) -> None:
        """Read what was committed; what was read before is forgotten."""
        for known in (self.done, self.failed, self._commit_of_failed, self._parts):
            known.clear()
        for commit in read_commits(self._store, self.folder):
            self.done.update(commit.done)
            self.failed.update(commit.failed)
            self._commit_of_failed |= dict.fromkeys(commit.failed, commit.number)
            self._parts.update(commit.videos, commit.segments)
        numbers = [_number(name) for name in self._store.names(self.folder) if _is_commit(name)]
        self._next = max(numbers, default=0) + 1

    def take(self) -> None:
        """Shut out whoever wrote the shard before, and remove the parts that no commit names.

        Raises:
            ShardTaken: another run has taken it since ``read``.
        """
        self._create(Commit(self._next, self._owner, _now()))
        self.remove_leftovers()

    def video_rows(self) -> Iterator[Row]:
        """Yield the rows of the table ``videos`` that were committed, by this run and by earlier ones."""
        for name in sorted(self._parts):
            if name.startswith("videos/"):
                yield from self._part.decode(VIDEOS, self._store.read(name))

    def remove_leftovers(self) -> None:
        """Remove the parts of this shard that no commit names."""
        for table in ("videos", "segments"):
            for name in list(self._store.names(f"{table}/{self._plan}")):
                is_own = name.rpartition("/")[2].lstrip(".").startswith(f"{self._shard}-")
                if is_own and name not in self._parts:
                    self._store.delete(name)

    def is_taken(self) -> bool:
        """Return whether another run has taken the shard over."""
        try:
            found = _read(self._store, self._name(self._next))
        except FileNotFoundError:
            return False
        return found.owner.run != self._owner.run

    def commit(self, videos: Sequence[VideoRows], segment_columns: Sequence[Column] = SEGMENTS) -> Commit:
        """Write the rows of ``videos`` as parts, and commit them.

        Raises:
            ShardTaken: another run has taken the shard over; nothing was committed.
            OSError: the destination cannot be written; nothing was committed.
        """
        answered = {each.id for each in videos}
        replaced = sorted({self._commit_of_failed[name] for name in answered & self._commit_of_failed.keys()})
        earlier = [_read(self._store, self._name(number)) for number in replaced]
        rows = [row for commit in earlier for row in self._kept_rows(commit, answered)]
        rows += [each.video for each in videos]
        segments = [row for each in videos for row in each.segments]
        commit = Commit(
            self._next,
            self._owner,
            _now(),
            videos=(self._write("videos", VIDEOS, rows),),
            segments=(
                *(name for each in earlier for name in each.segments),
                *((self._write("segments", segment_columns, segments),) if segments else ()),
            ),
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
            replaces=tuple(replaced),
        )
        self._create(commit)
        self._parts.difference_update(*(each.videos for each in earlier))
        self._remember(commit, answered)
        return commit

    def _remember(self, commit: Commit, answered: set[str]) -> None:
        """Take note of what was committed."""
        for name in answered:
            self.failed.pop(name, None)
            self._commit_of_failed.pop(name, None)
        self.done.update(commit.done)
        self.failed.update(commit.failed)
        self._commit_of_failed |= dict.fromkeys(commit.failed, commit.number)
        self._parts.update(commit.videos, commit.segments)

    def _kept_rows(self, commit: Commit, answered: set[str]) -> list[Row]:
        """Return the rows of an earlier commit's videos but those that were answered again."""
        parts = (self._part.decode(VIDEOS, self._store.read(name)) for name in commit.videos)
        return [row for part in parts for row in part if row["id"] not in answered]

    def _write(self, table: str, columns: Sequence[Column], rows: Sequence[Row]) -> str:
        """Write a part, and return its name."""
        name = f"{table}/{self._plan}/{self._shard}-{self._next:08}-{self._owner.run}{self._suffix}"
        self._store.put(name, self._part.encode(columns, rows))
        return name

    def _create(self, commit: Commit) -> None:
        """Create the file of a commit.

        Raises:
            ShardTaken: another run has created it.
        """
        try:
            content = json.dumps(commit.json, ensure_ascii=False).encode(errors="backslashreplace")
            self._store.create(self._name(commit.number), content)
        except FileExistsError:
            found = _read(self._store, self._name(commit.number))
            if found != commit:  # else the store had written it, and only its answer was lost
                raise ShardTaken(
                    f"{self._shard} of {self._store.name} was taken over by {found.owner}, at {found.time}; "
                    "what this run had not committed, that one does again"
                ) from None
        self._next += 1

    def _name(self, number: int) -> str:
        """Return the name of a commit's file."""
        return f"{self.folder}/{number:08}.json"


def _read(store: Store, name: str) -> Commit:
    """Read a commit."""
    return Commit.of_json(json.loads(store.read(name)))


def _is_commit(name: str) -> bool:
    """Return whether a file is a commit; the name of one that is being written begins with a dot."""
    file = name.rpartition("/")[2]
    return file.endswith(".json") and not file.startswith(".")


def _number(name: str) -> int:
    """Return the number of a commit, by the name of its file."""
    return int(name.rpartition("/")[2].removesuffix(".json"))


def _now() -> str:
    """Return the time as text, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
