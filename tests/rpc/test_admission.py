"""Admission control: limits, predicted deadlines and trials."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from time import monotonic

import pytest

from tests.support.sample_clip import panning_clip
from tubelet.service.config.config import ServerConfig, load_config
from tubelet.service.config.identities import unrestricted
from tubelet.service.errors import ClientOverloaded, DeadlineTooShort, Overloaded
from tubelet.service.metrics import Metrics
from tubelet.service.rpc.admission import Admission, AdmissionTicket, Caller
from tubelet.service.server.app import open_stages
from tubelet.service.types.request import Options
from tubelet.service.types.result import Event


def admission(**settings: object) -> Admission:
    return Admission(ServerConfig.model_validate(settings))


def answered(admission: Admission, server_s: float, times: int = 20) -> None:
    """Record ``times`` videos, one after another, that took ``server_s`` each."""
    for _ in range(times):
        with admission.admit(Caller()) as ticket:
            ticket.answered(server_s)


def expected(admission: Admission) -> str:
    """Return the predicted time of a second video, beside a single one with a short deadline."""
    with (
        admission.admit(Caller("", 0.01)),
        pytest.raises(DeadlineTooShort) as caught,
        admission.admit(Caller("", 0.01)),
    ):
        pass
    return f"{caught.value.retry_after_s:.2f}"


def test_videos_above_the_limit_are_rejected() -> None:
    full = admission(max_videos_in_flight=2)
    with (
        full.admit(Caller("a")),
        full.admit(Caller("b")),
        pytest.raises(Overloaded, match="2 videos are in flight, the limit is 2"),
    ):
        full.admit(Caller("c")).__enter__()
    with full.admit(Caller("c")):
        pass


def test_one_client_gets_at_most_its_share() -> None:
    shared = admission(max_videos_per_client=2)
    with shared.admit(Caller("a")), shared.admit(Caller("a")):
        with pytest.raises(ClientOverloaded, match="2 videos of this client are in flight, its limit is 2"):
            shared.admit(Caller("a")).__enter__()
        with shared.admit(Caller("b")):
            pass
    with shared.admit(Caller("a")):
        pass


def test_unreachable_deadline_is_rejected_with_retry_delay() -> None:
    busy = admission()
    answered(busy, server_s=0.5)
    with ExitStack() as others:
        for _ in range(3):
            others.enter_context(busy.admit(Caller()))
        with busy.admit(Caller("patient", 2.7)) as ticket:
            assert ticket.predicted_s is None
        others.enter_context(busy.admit(Caller("first", 2.6)))
        with pytest.raises(
            DeadlineTooShort, match=r"after 2.50 s, but the call's deadline is in 2.60 s"
        ) as caught:
            busy.admit(Caller("hurried", 2.6)).__enter__()
        assert caught.value.retry_after_s == pytest.approx(2.5)
        with busy.admit(Caller("whenever")):
            pass


def test_identities_that_take_turns_are_predicted_to_wait_for_their_own_videos() -> None:
    """As many of each other identity go before as are in flight of this one; at most all of them do."""
    busy = admission(max_videos_in_flight=100)
    answered(busy, server_s=0.5)
    with ExitStack() as others:
        tickets = [others.enter_context(busy.admit(caller("many"))) for _ in range(20)]
        assert [ticket.position for ticket in tickets] == [*range(1, 21)]
        assert [others.enter_context(busy.admit(caller("one"))).position for _ in range(3)] == [2, 4, 6]
        assert others.enter_context(busy.admit(caller("other"))).position == 3
        assert others.enter_context(busy.admit(caller("many"))).position == 25
        with busy.admit(caller("other", 5.0)) as ticket:
            assert (ticket.position, ticket.predicted_s) == (6, None)
    with busy.admit(caller("many")) as ticket:
        assert ticket.position == 1


def caller(name: str, remaining_s: float | None = None) -> Caller:
    return Caller(name, remaining_s, unrestricted(name))


def test_cost_of_a_video_does_not_depend_on_videos_in_flight() -> None:
    """Four videos at once that take four times as long cost as much as one at a time."""
    alone, shared = admission(), admission()
    answered(alone, server_s=0.5)
    for _ in range(10):
        with ExitStack() as others:
            tickets = [others.enter_context(shared.admit(Caller())) for _ in range(4)]
            for ticket in tickets:
                ticket.answered(0.5 * ticket.position)
    for each in (alone, shared):
        assert expected(each) == "1.00"


def test_no_deadline_is_rejected_without_enough_samples() -> None:
    """Neither before there are enough samples, nor forever because of one slow video."""
    new = admission()
    answered(new, server_s=100, times=3)
    with new.admit(Caller()), new.admit(Caller("", 0.1)):
        pass
    slow = admission()
    answered(slow, server_s=100)
    with slow.admit(Caller("", 0.1)):
        pass


def test_cancelled_videos_only_raise_the_predicted_cost() -> None:
    """Otherwise late videos would never be samples, and all videos would be admitted and late."""
    known = admission()
    answered(known, server_s=0.5, times=64)
    for server_s_at_cancel, then in ((0.01, "1.00"), (4.0, "8.00")):
        for _ in range(64):
            with known.admit(Caller()) as ticket:
                ticket.cancelled(server_s_at_cancel)
        assert expected(known) == then


def test_failed_videos_are_no_samples() -> None:
    known = admission()
    answered(known, server_s=0.5)
    for _ in range(200):
        with pytest.raises(ValueError, match="bad video"), known.admit(Caller()):
            raise ValueError("bad video")
    assert expected(known) == "1.00"


def test_cheap_videos_are_admitted_again_after_expensive_ones() -> None:
    """An idle video in flight does not block them either."""
    after_long_ones = admission()
    answered(after_long_ones, server_s=60, times=64)
    with after_long_ones.admit(Caller("idle")):
        for _ in range(40):
            answered_one(after_long_ones, Caller("", 2), server_s=0.2)
        with ExitStack() as together:
            for _ in range(8):
                together.enter_context(after_long_ones.admit(Caller("", 2)))


def answered_one(admission: Admission, caller: Caller, server_s: float) -> None:
    with admission.admit(caller) as ticket:
        ticket.answered(server_s)


def test_trials_increase_while_predictions_are_wrong_and_reset_when_right() -> None:
    dark = admission()
    answered(dark, server_s=60, times=64)

    def tried_at_once(end: Callable[[AdmissionTicket, float], None], after_s: float) -> int:
        """Return how many trials are admitted together, all of which then end in this way."""
        tried: list[AdmissionTicket] = []
        with ExitStack() as together:
            with suppress(DeadlineTooShort):
                while True:
                    tried.append(together.enter_context(dark.admit(Caller("", 2))))
            for ticket in tried:
                end(ticket, after_s)
        return len(tried)

    assert [tried_at_once(AdmissionTicket.answered, 50) for _ in range(3)] == [1, 1, 1]
    assert [tried_at_once(AdmissionTicket.answered, 1) for _ in range(4)] == [1, 2, 4, 8]
    assert [tried_at_once(AdmissionTicket.cancelled, 2) for _ in range(2)] == [16, 1]


def test_trial_with_an_idle_client_blocks_no_other_trial() -> None:
    busy = admission()
    answered(busy, server_s=60)
    with busy.admit(Caller("idle", 2)) as idle:
        with pytest.raises(DeadlineTooShort):
            busy.admit(Caller("early", 2)).__enter__()
        assert idle.waiting_for_client_since is not None
        idle.waiting_for_client_since -= 1.0
        with busy.admit(Caller("next", 2)):
            idle.waiting_for_client_since = None  # and now it sends
            with pytest.raises(DeadlineTooShort):
                busy.admit(Caller("late", 2)).__enter__()


async def test_client_is_waited_for_until_its_last_chunk() -> None:
    waited: list[bool] = []

    async def chunks() -> AsyncIterator[bytes]:
        clip = panning_clip(1.0)
        for part in (clip[:1000], clip[1000:]):
            waited.append(ticket.waiting_for_client_since is not None)
            yield part
        waited.append(ticket.waiting_for_client_since is not None)

    async def ignore(_: Event) -> None:
        waited.append(ticket.waiting_for_client_since is not None)

    async with open_stages(load_config(None), Metrics()) as stages:
        with admission().admit(Caller()) as ticket:
            request = stages.pipeline.request(Options())
            await stages.pipeline.classify(ticket.track_chunks(chunks()), request, ignore)
    assert waited[:3] == [True] * 3
    assert set(waited[3:]) == {False}


async def test_slow_reading_client_does_not_raise_the_cost() -> None:
    waited_s: list[float] = []

    async def slowly(_: Event) -> None:
        began = monotonic()
        await asyncio.sleep(0.05)
        waited_s.append(monotonic() - began)

    async def chunks() -> AsyncIterator[bytes]:
        yield panning_clip(1.0)

    async with open_stages(load_config(None), Metrics()) as stages:
        request = stages.pipeline.request(Options())
        answer = await stages.pipeline.classify(chunks(), request, slowly)
    assert waited_s
    assert request.timings.server_s + sum(waited_s) <= answer.stage_seconds["total"]
