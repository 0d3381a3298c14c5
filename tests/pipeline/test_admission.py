"""Who is let in, and who is told to come back, and when."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from itertools import count
from time import monotonic

import pytest

from tests.support.sample_clip import pan
from tubelet.service.config.config import ServerConfig, load_config
from tubelet.service.errors import ClientOverloaded, DeadlineTooShort, Overloaded
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.admission import Admission, Caller
from tubelet.service.pipeline.pipeline import Event
from tubelet.service.server.app import open_stages
from tubelet.service.types.request import Options


def admission(**settings: object) -> Admission:
    return Admission(ServerConfig.model_validate(settings))


def answered(admission: Admission, took_s: float, times: int = 20) -> None:
    """So many videos came one after another, and each took so long."""
    for _ in range(times):
        with admission.place(Caller()) as place:
            place.took_s = took_s


def expected(admission: Admission) -> str:
    """When one more would be answered that is in a hurry, as is the only one that is in flight."""
    with (
        admission.place(Caller("", 0.01)),
        pytest.raises(DeadlineTooShort) as caught,
        admission.place(Caller("", 0.01)),
    ):
        pass
    return f"{caught.value.retry_after_s:.2f}"


def test_as_many_as_the_limit_and_no_more() -> None:
    full = admission(max_videos_in_flight=2)
    with (
        full.place(Caller("a")),
        full.place(Caller("b")),
        pytest.raises(Overloaded, match="2 videos are in flight, the limit is 2"),
    ):
        full.place(Caller("c")).__enter__()
    with full.place(Caller("c")):
        pass


def test_one_client_takes_no_more_than_its_share() -> None:
    shared = admission(max_videos_per_client=2)
    with shared.place(Caller("a")), shared.place(Caller("a")):
        with pytest.raises(ClientOverloaded, match="2 videos of this client are in flight, its limit is 2"):
            shared.place(Caller("a")).__enter__()
        with shared.place(Caller("b")):
            pass
    with shared.place(Caller("a")):
        pass


def test_whoever_would_be_answered_too_late_is_told_so_and_when_to_come_back() -> None:
    busy = admission()
    answered(busy, took_s=0.5)
    with ExitStack() as others:
        for _ in range(3):
            others.enter_context(busy.place(Caller()))
        with busy.place(Caller("patient", 2.7)) as place:
            assert place.late_s is None
        others.enter_context(busy.place(Caller("first", 2.6)))
        with pytest.raises(
            DeadlineTooShort, match=r"after 2.50 s, the call's deadline is in 2.60 s"
        ) as caught:
            busy.place(Caller("hurried", 2.6)).__enter__()
        assert caught.value.retry_after_s == pytest.approx(2.5)
        with busy.place(Caller("whenever")):
            pass


def test_what_a_video_costs_is_the_same_however_many_share_the_machine() -> None:
    """Four at once that take four times as long each cost as much as one at a time."""
    alone, shared = admission(), admission()
    answered(alone, took_s=0.5)
    for _ in range(10):
        with ExitStack() as others:
            places = [others.enter_context(shared.place(Caller())) for _ in range(4)]
            for place in places:
                place.took_s = 0.5 * place.position
    for each in (alone, shared):
        assert expected(each) == "1.00"


def test_nobody_is_refused_on_a_guess() -> None:
    """Neither before enough is known, nor for ever because of what was slow once."""
    new = admission()
    answered(new, took_s=100, times=3)
    with new.place(Caller()), new.place(Caller("", 0.1)):
        pass
    slow = admission()
    answered(slow, took_s=100)
    with slow.place(Caller("", 0.1)):
        pass


def test_whoever_gives_up_tells_that_videos_cost_more_and_never_less() -> None:
    """Otherwise those that come too late would never count, and everybody would be let in to be late."""
    known = admission()
    answered(known, took_s=0.5, times=64)
    for gave_up_s, then in ((0.01, "1.00"), (4.0, "8.00")):
        for _ in range(64):
            with known.place(Caller()) as place:
                place.gave_up_s = gave_up_s
        assert expected(known) == then


def test_what_failed_says_nothing_of_the_cost() -> None:
    known = admission()
    answered(known, took_s=0.5)
    for _ in range(200):
        with pytest.raises(ValueError, match="bad video"), known.place(Caller()):
            raise ValueError("bad video")
    assert expected(known) == "1.00"


def test_what_is_cheap_is_not_refused_for_what_was_dear() -> None:
    """Neither does what only seems to be at work keep it out."""
    after_long_ones = admission()
    answered(after_long_ones, took_s=60, times=64)
    with after_long_ones.place(Caller("idle")):
        for _ in range(40):
            answered_one(after_long_ones, Caller("", 2), took_s=0.2)
        with ExitStack() as together:
            for _ in range(8):
                together.enter_context(after_long_ones.place(Caller("", 2)))


def answered_one(admission: Admission, caller: Caller, took_s: float) -> None:
    with admission.place(caller) as place:
        place.took_s = took_s


def test_more_are_tried_while_expectations_do_not_hold_and_one_at_a_time_while_they_do() -> None:
    dark = admission()
    answered(dark, took_s=60, times=64)

    def tried_at_once(then: str, after_s: float) -> int:
        """How many are let in beside each other, all of which end so."""
        with ExitStack() as together:
            for tried in count():
                try:
                    place = together.enter_context(dark.place(Caller("", 2)))
                except DeadlineTooShort:
                    return tried
                setattr(place, then, after_s)
        raise AssertionError("somebody is refused at last")

    assert [tried_at_once("took_s", 50) for _ in range(3)] == [1, 1, 1]
    assert [tried_at_once("took_s", 1) for _ in range(4)] == [1, 2, 4, 8]
    assert [tried_at_once("gave_up_s", 2) for _ in range(2)] == [16, 1]


def test_a_client_that_sends_nothing_keeps_nobody_out() -> None:
    busy = admission()
    answered(busy, took_s=60)
    with busy.place(Caller("idle", 2)) as idle:
        with pytest.raises(DeadlineTooShort):
            busy.place(Caller("early", 2)).__enter__()
        assert idle.awaited_since is not None
        idle.awaited_since -= 1.0
        with busy.place(Caller("next", 2)):
            idle.awaited_since = None  # and now it sends
            with pytest.raises(DeadlineTooShort):
                busy.place(Caller("late", 2)).__enter__()


async def test_a_client_is_waited_for_until_its_last_chunk_came() -> None:
    waited: list[bool] = []

    async def chunks() -> AsyncIterator[bytes]:
        clip = pan(1.0)
        for part in (clip[:1000], clip[1000:]):
            waited.append(place.awaited_since is not None)
            yield part
        waited.append(place.awaited_since is not None)

    async def ignore(_: Event) -> None:
        waited.append(place.awaited_since is not None)

    async with open_stages(load_config(None), Metrics()) as stages:
        with stages.pipeline.place(Caller()) as place:
            place.late_s = 1.0  # a trial
            await stages.pipeline.classify(chunks(), Options(), ignore, place)
    assert waited[:3] == [True] * 3
    assert set(waited[3:]) == {False}


async def test_a_client_that_reads_slowly_makes_no_video_look_dear() -> None:
    waited_s: list[float] = []

    async def slowly(_: Event) -> None:
        began = monotonic()
        await asyncio.sleep(0.05)
        waited_s.append(monotonic() - began)

    async def chunks() -> AsyncIterator[bytes]:
        yield pan(1.0)

    async with open_stages(load_config(None), Metrics()) as stages:
        with stages.pipeline.place(Caller("", None)) as place:
            answer = await stages.pipeline.classify(chunks(), Options(), slowly, place)
    assert waited_s
    assert place.took_s is not None
    assert place.took_s + sum(waited_s) <= answer.stage_seconds["total"]
