"""``tubelet batch`` holds its lock while it reads what earlier runs have committed, and takes the shard."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Semaphore

import pytest
from typer.testing import CliRunner

from tubelet.service.batch.destination import lock
from tubelet.service.batch.destination.commits import ShardCommits
from tubelet.service.batch.destination.layout import Layout, prepare
from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.part_files import part_file
from tubelet.service.batch.destination.store import FolderStore
from tubelet.service.batch.plan import BatchPlan, make_plan
from tubelet.service.batch.rows import BatchFailure, Cost, VideoRows, failure_rows
from tubelet.service.batch.source.items import Shard, file_item
from tubelet.service.cli.app import app
from tubelet.service.cli.batch import batch
from tubelet.service.config.config import load_config
from tubelet.service.types.request import Options

_WAIT_S = 20.0  # for a heartbeat, each of which comes in a small part of a second


class HeldUp(FolderStore):
    """A store where the first ``operation`` on a commit under the lock takes until two heartbeats have come.

    ``meanwhile`` is called when the operation begins; ``was_held_up`` says that the lock was renewed.
    """

    def __init__(self, folder: Path, operation: str, meanwhile: Callable[[], object]) -> None:
        super().__init__(folder)
        self._operation = operation
        self._meanwhile = meanwhile
        self._is_locked = False
        self._has_begun = False
        self._heartbeats = Semaphore(0)
        self.was_held_up = False

    def read(self, name: str) -> bytes:
        self._hold_up("read", name)
        return super().read(name)

    def create(self, name: str, content: bytes) -> None:
        self._hold_up("create", name)
        super().create(name, content)

    def put(self, name: str, content: bytes) -> None:
        super().put(name, content)
        if "/locks/" in name:
            self._is_locked = True
            self._heartbeats.release()

    def _hold_up(self, operation: str, name: str) -> None:
        """Wait, if it is the first such operation."""
        if self._has_begun or not self._is_locked or operation != self._operation or "/commits/" not in name:
            return
        self._has_begun = True
        self._meanwhile()
        while self._heartbeats.acquire(blocking=False):
            pass
        for _ in range(2):
            assert self._heartbeats.acquire(timeout=_WAIT_S)
        self.was_held_up = True


@pytest.fixture
def plan() -> BatchPlan:
    return make_plan(Options(), load_config(), embeddings=False)


def broken_video(folder: Path, plan: BatchPlan, number: int) -> VideoRows:
    """Write a file that is no video, and return its row."""
    path = folder / f"{number}.mp4"
    path.write_text("no video")
    failure = BatchFailure("INVALID_ARGUMENT", "NOT_A_VIDEO", "no video")
    return failure_rows(file_item(str(path)), plan, failure, Cost())


def earlier_run(dest: Path, plan: BatchPlan) -> ShardCommits:
    """A run that has taken the shard."""
    store = FolderStore(dest)
    prepare(store, plan, Layout(1, "jsonl"), may_add=False)
    commits = ShardCommits(
        store, plan.folder, Shard().name, Owner.this_process(), part_file("jsonl"), ".jsonl"
    )
    commits.read()
    commits.take()
    return commits


def resume(source: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> int:
    """Resume with this store and a quick heartbeat; return the exit status."""
    monkeypatch.setattr(batch, "open_store", lambda *_: store)
    monkeypatch.setattr(lock, "LockTimes", partial(lock.LockTimes, heartbeat_s=0.05))
    command = ["batch", str(source), "--out", store.name, "--format", "jsonl", "--resume"]
    return CliRunner().invoke(app, command, catch_exceptions=False).exit_code


def test_the_lock_is_renewed_while_commits_are_read_and_the_run_before_still_adds_one(
    tmp_path: Path, plan: BatchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "rows"
    first, second = (broken_video(tmp_path, plan, number) for number in range(2))
    earlier = earlier_run(dest, plan)
    earlier.commit([first])
    store = HeldUp(dest, "read", lambda: earlier.commit([second]))
    assert resume(tmp_path, store, monkeypatch) == 0
    assert store.was_held_up
    assert not list((dest / "_tubelet" / "locks").iterdir())  # it was this run's own to the end


@pytest.mark.usefixtures("signals")
def test_an_interrupted_run_keeps_the_lock_until_it_has_taken_the_shard(
    tmp_path: Path, plan: BatchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "rows"
    earlier_run(dest, plan).commit([broken_video(tmp_path, plan, 0)])
    store = HeldUp(dest, "create", lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert resume(tmp_path, store, monkeypatch) == 128 + signal.SIGTERM
    assert store.was_held_up
    assert not list((dest / "_tubelet" / "locks").iterdir())
