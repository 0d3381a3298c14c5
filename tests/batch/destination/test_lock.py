"""The lock of a shard: who waits, who takes over, who is refused."""

import asyncio
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from tubelet.service.batch.destination.lock import LockTimes, ShardInUse, ShardLock
from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.store import FolderStore

_QUICK = LockTimes(heartbeat_s=0.05, take_over_s=0.5, look_s=0.05)
_FILE = "_tubelet/locks/shard.json"
ELSEWHERE = Owner("0", "node-7", 12, "another boot", 1.0)


def lock(dest: Path, said: list[str], owner: Owner | None = None, times: LockTimes = _QUICK) -> ShardLock:
    return ShardLock(FolderStore(dest), "shard", owner or Owner.this_process(), said.append, times)


def write_lock(dest: Path, owner: Owner) -> None:
    content = {"owner": owner.json, "beats": 3, "time": "2026-01-01T00:00:00+00:00"}
    FolderStore(dest).put(_FILE, json.dumps(content).encode())


async def test_a_lock_is_there_while_it_is_held_and_is_renewed(tmp_path: Path) -> None:
    async with lock(tmp_path, []).hold(lambda: False):
        first = json.loads((tmp_path / _FILE).read_bytes())["beats"]
        while json.loads((tmp_path / _FILE).read_bytes())["beats"] == first:
            await asyncio.sleep(0.01)
    assert not (tmp_path / _FILE).exists()


async def test_a_second_run_says_who_holds_the_lock_and_is_refused(tmp_path: Path) -> None:
    said: list[str] = []
    patient = replace(_QUICK, take_over_s=600)  # it is refused at the next heartbeat of the other
    held_elsewhere = replace(Owner.this_process(), host="node-7", machine="another boot")
    async with lock(tmp_path, [], held_elsewhere).hold(lambda: False):
        with pytest.raises(ShardInUse, match=rf"is being written by process {held_elsewhere.pid} on node-7"):
            async with lock(tmp_path, said, times=patient).hold(lambda: False):
                pass
    assert "held by process" in said[0]
    assert "takes over if no other comes for 600 s" in said[0]


async def test_a_silent_lock_is_taken_over(tmp_path: Path) -> None:
    write_lock(tmp_path, ELSEWHERE)
    said: list[str] = []
    async with lock(tmp_path, said).hold(lambda: False):
        assert json.loads((tmp_path / _FILE).read_bytes())["owner"]["host"] != "node-7"
    assert said[1] == "process 12 on node-7 was silent for 0.5 s; this run takes over"


async def test_the_lock_of_a_process_that_ended_is_taken_over_at_once(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(
        target=lambda: write_lock(tmp_path, Owner.this_process())
    )
    child.start()
    child.join()
    said: list[str] = []
    async with lock(tmp_path, said, times=LockTimes()).hold(lambda: False):
        pass
    assert "that process has ended, so this run takes over" in said[0]


async def test_a_run_whose_shard_was_taken_leaves_the_lock_to_the_other(tmp_path: Path) -> None:
    async with lock(tmp_path, []).hold(lambda: True):
        await asyncio.sleep(0.2)
        write_lock(tmp_path, ELSEWHERE)
        await asyncio.sleep(0.2)
    assert json.loads((tmp_path / _FILE).read_bytes())["owner"]["host"] == "node-7"
