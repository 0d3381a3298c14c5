"""Who is let in, and who is told to come back, and when."""

from contextlib import ExitStack

import pytest

from service.admission import Admission, Caller
from service.config import ServerConfig
from service.errors import ClientOverloaded, DeadlineTooShort, Overloaded


def admission(**settings: object) -> Admission:
    return Admission(ServerConfig.model_validate(settings))


def answered(admission: Admission, took_s: float, times: int = 20) -> None:
    """So many videos came one after another, and each took so long."""
    for _ in range(times):
        with admission.place(Caller()) as place:
            place.took_s = took_s


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
        with busy.place(Caller("patient", 2.7)):
            pass
        with pytest.raises(
            DeadlineTooShort, match=r"after 2.00 s, the call's deadline is in 2.60 s"
        ) as caught:
            busy.place(Caller("hurried", 2.6)).__enter__()
        assert caught.value.retry_after_s == pytest.approx(2.0)
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
        with each.place(Caller()), pytest.raises(DeadlineTooShort, match=r"after 1.00 s"):
            each.place(Caller("", 0.9)).__enter__()


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
    for gave_up_s, expected in ((0.01, "1.00"), (4.0, "8.00")):
        for _ in range(64):
            with known.place(Caller()) as place:
                place.gave_up_s = gave_up_s
        with known.place(Caller()), pytest.raises(DeadlineTooShort, match=f"after {expected} s"):
            known.place(Caller("", 0.9)).__enter__()


def test_what_failed_says_nothing_of_the_cost() -> None:
    known = admission()
    answered(known, took_s=0.5)
    for _ in range(200):
        with pytest.raises(ValueError, match="bad video"), known.place(Caller()):
            raise ValueError("bad video")
    with known.place(Caller()), pytest.raises(DeadlineTooShort):
        known.place(Caller("", 0.9)).__enter__()
