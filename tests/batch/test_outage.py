"""Outages: failures to fetch are held back until it is known whose fault they are."""

import pytest

from tests.support.batches import PLAN
from tubelet.service.batch.outage import OutageGuard, SourceOutage
from tubelet.service.batch.rows import BatchFailure, Cost, VideoRows, failure_rows
from tubelet.service.batch.source.items import Item, uri_item

OK = VideoRows({"id": "ok"})


def video(number: int) -> Item:
    return uri_item(f"s3://b/{number}.mp4")


def failure(number: int, reason: str) -> VideoRows:
    return failure_rows(video(number), PLAN, BatchFailure("NOT_FOUND", reason, "no"), Cost())


async def passed(guard: OutageGuard, reason: str, count: int) -> int:
    """Let videos fail; return how many of them the guard lets pass."""
    return sum([len(await guard.passed(video(each), failure(each, reason))) for each in range(count)])


async def answers(_: Item) -> VideoRows:
    return OK


async def fails(again: Item) -> VideoRows:
    return failure_rows(again, PLAN, BatchFailure("UNAVAILABLE", "FETCH_FAILED", "no"), Cost())


async def test_a_video_that_is_read_during_the_check_is_the_end_of_the_outage() -> None:
    handed: list[VideoRows] = []

    async def others_are_read(again: Item) -> VideoRows:
        """Let another video be read and one fail, while the first one, asked again, was replaced."""
        handed.extend(await guard.passed(video(20), OK))
        handed.extend(await guard.passed(video(21), failure(21, "URI_NOT_FOUND")))
        return failure_rows(again, PLAN, BatchFailure("ABORTED", "URI_CHANGED", "replaced"), Cost())

    guard = OutageGuard(others_are_read)
    assert await guard.passed(video(0), OK) == [OK]
    assert await passed(guard, "URI_NOT_FOUND", 20) == 0
    assert len(handed) == 21
    assert [rows.id for rows in guard.rest()] == [video(21).id]


async def test_few_failures_pass_with_the_next_video_that_is_read() -> None:
    guard = OutageGuard(fails)
    assert await passed(guard, "URI_NOT_FOUND", 19) == 0
    assert len(await guard.passed(video(20), OK)) == 20
    assert guard.rest() == []


async def test_many_failures_are_an_outage_if_an_earlier_video_fails_too() -> None:
    guard = OutageGuard(fails)
    assert await guard.passed(video(0), OK) == [OK]
    with pytest.raises(
        SourceOutage, match=r"the last 20 videos at URIs could not be read: no \(URI_NOT_FOUND\)"
    ):
        await passed(guard, "URI_NOT_FOUND", 20)
    assert guard.rest() == []  # they have no rows, so that a later run asks again


async def test_many_failures_are_rows_if_an_earlier_video_can_be_read_again() -> None:
    guard = OutageGuard(answers)
    assert await guard.passed(video(0), OK) == [OK]
    assert await passed(guard, "URI_NOT_FOUND", 50) == 40
    assert len(guard.rest()) == 10


async def test_failures_at_the_end_are_rows_only_if_an_earlier_video_can_be_read_again() -> None:
    for again, rows in ((answers, 3), (fails, 0)):
        guard = OutageGuard(again)
        assert await guard.passed(video(0), OK) == [OK]
        assert await passed(guard, "URI_NOT_FOUND", 3) == 0
        if rows:
            assert len(await guard.end()) == rows
        else:
            with pytest.raises(SourceOutage, match="the last 3 videos at URIs could not be read"):
                await guard.end()
        assert await guard.end() == []
    alone = OutageGuard(fails)  # no video could be read
    assert await passed(alone, "FETCH_FAILED", 3) == 0
    assert len(await alone.end()) == 3


@pytest.mark.parametrize(("reason", "is_outage"), [("FETCH_FAILED", True), ("URI_NOT_FOUND", False)])
async def test_without_an_earlier_video_only_failures_to_connect_are_an_outage(
    reason: str, is_outage: bool
) -> None:
    guard = OutageGuard(answers)
    if is_outage:
        with pytest.raises(SourceOutage):
            await passed(guard, reason, 20)
    else:
        assert await passed(guard, reason, 20) == 20


async def test_files_and_other_failures_pass_at_once() -> None:
    guard = OutageGuard(fails)
    local = Item("a", "file:///a.mp4")
    rows = failure_rows(local, PLAN, BatchFailure("NOT_FOUND", "URI_NOT_FOUND", "no"), Cost())
    assert await guard.passed(local, rows) == [rows]
    assert await passed(guard, "NOT_A_VIDEO", 30) == 30
