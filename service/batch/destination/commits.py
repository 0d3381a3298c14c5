"""What is committed to a shard: the videos that have rows, and the parts that count.

``commit_log.py`` says how rows are committed. A run begins with a commit without parts: whoever wrote the
shard before can commit no more. Parts that no commit names were left by a run that was killed, and are
removed.
"""

from collections.abc import Iterator, Sequence

from tubelet.service.batch.destination.commit import FOLDER, Commit, Failed, read_commit
from tubelet.service.batch.destination.commit_log import CommitLog, LogPosition, ShardFiles, ShardTaken
from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.part_files import PartFile
from tubelet.service.batch.destination.store import Store
from tubelet.service.batch.rows import Row, VideoRows
from tubelet.service.batch.schema import SEGMENTS, VIDEOS, Column


def read_commits(store: Store, folder: str) -> Iterator[Commit]:
    """Yield the commits of a folder that no other one replaces, in their order; also those without parts."""
    commits = [read_commit(store, name) for name in sorted(store.names(folder)) if _is_commit(name)]
    replaced = {number for each in commits for number in each.replaces}
    return (each for each in commits if each.number not in replaced)


def shards_of(store: Store, plan: str) -> list[str]:
    """Return the folders of commits of a plan, one for each shard that was written."""
    return sorted({name.rpartition("/")[0] for name in store.names(f"{FOLDER}/{plan}") if _is_commit(name)})


class ShardCommits:
    """What one run commits to a shard of a plan, and what was committed before.

    ``done`` has the ids of the videos that were classified, ``failed`` those that failed, ``answered`` the
    number of videos whose rows were committed since ``read``.
    """

    def __init__(
        self, store: Store, plan: str, shard: str, owner: Owner, part: PartFile, suffix: str
    ) -> None:
        self.done: set[str] = set()
        self.failed: dict[str, Failed] = {}
        self.answered = 0
        self.owner = owner
        self._files = ShardFiles(store, plan, shard, part, suffix)
        self._videos: dict[int, tuple[str, ...]] = {}  # the parts of the commits that count
        self._segments: set[str] = set()
        self._log = CommitLog(self._files, owner, LogPosition(), self._remember)
        self._has_taken = False

    @property
    def is_new(self) -> bool:
        """Whether nothing was committed yet."""
        return not self.done and not self.failed

    @property
    def position(self) -> LogPosition:
        """What a further writer of this run needs to know."""
        return self._log.position

    def read(self) -> None:
        """Read what was committed; what was read before is forgotten."""
        for known in (self.done, self.failed, self._videos, self._segments):
            known.clear()
        commit_of_failed: dict[str, int] = {}
        last = 0  # of the commits that were read: one that is created meanwhile must not be passed over
        for commit in read_commits(self._files.store, self._files.folder):
            self._remember(commit)
            commit_of_failed |= dict.fromkeys(commit.failed, commit.number)
            last = commit.number  # the last one of all is replaced by none
        self.answered = 0
        start = LogPosition(last + 1, commit_of_failed)
        self._log = CommitLog(self._files, self.owner, start, self._remember)

    def take(self) -> None:
        """Shut out whoever wrote the shard before, and remove the parts that no commit names.

        Raises:
            ShardTaken: another run has taken it since ``read``.
        """
        while True:
            try:
                self._log.take()
                break
            except ShardTaken:
                found = self._files.read_commit(self.position.number)
                if found is None or not found.videos:
                    raise
                self.read()  # the writers before still commit what they had begun
        self._has_taken = True
        self.remove_leftovers()

    def follow(self) -> None:
        """Learn of what other writers of this run have committed.

        Raises:
            ShardTaken: another run has taken the shard over.
        """
        self._log.follow()

    def shut_out(self, writer: str) -> None:
        """Let a writer of this run commit no more; ``done`` and ``failed`` then have all that it committed.

        Raises:
            ShardTaken: another run has taken the shard over.
        """
        self._log.shut_out(writer)

    def commit(self, videos: Sequence[VideoRows], segment_columns: Sequence[Column] = SEGMENTS) -> Commit:
        """Write the rows of ``videos`` as parts, and commit them; see ``CommitLog.commit``."""
        return self._log.commit(videos, segment_columns)

    def is_taken(self) -> bool:
        """Return whether another run has taken the shard over since this one took it; False before that."""
        return self._has_taken and self._log.is_taken()

    def video_rows(self) -> Iterator[Row]:
        """Yield the rows of the table ``videos`` that were committed, by this run and by earlier ones."""
        for name in sorted(name for names in self._videos.values() for name in names):
            yield from self._files.part.decode(VIDEOS, self._files.store.read(name))

    def remove_leftovers(self) -> None:
        """Remove the parts of this shard that no commit names."""
        named = {*self._segments, *(name for names in self._videos.values() for name in names)}
        for table in ("videos", "segments"):
            for name in list(self._files.store.names(f"{table}/{self._files.plan}")):
                is_own = name.rpartition("/")[2].lstrip(".").startswith(f"{self._files.shard}-")
                if is_own and name not in named:
                    self._files.store.delete(name)

    def _remember(self, commit: Commit) -> None:
        """Take note of a commit."""
        for number in commit.replaces:
            self._videos.pop(number, None)
        self._videos[commit.number] = commit.videos
        self._segments.update(commit.segments)
        self.done.update(commit.done)
        for name in commit.done:
            self.failed.pop(name, None)
        self.failed.update(commit.failed)
        self.answered += commit.answered


def _is_commit(name: str) -> bool:
    """Return whether a file is a commit; the name of one that is being written begins with a dot."""
    file = name.rpartition("/")[2]
    return file.endswith(".json") and not file.startswith(".")
