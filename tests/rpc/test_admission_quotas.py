"""Quotas where videos are admitted: in flight, before other limits, and the highest priority."""

from typing import Any

import pytest

from tests.support.identities import identity_with
from tubelet.service.config.config import ServerConfig
from tubelet.service.errors import ClientOverloaded, PriorityNotAllowed, QuotaExceeded
from tubelet.service.rpc.access import limit_priority
from tubelet.service.rpc.admission import Admission, Caller
from tubelet.service.types.meter import UNMETERED, Meter
from tubelet.service.types.request import Options, Priority


def caller(name: str = "alice", **quotas: Any) -> Caller:
    return Caller(name, identity=identity_with(name, **quotas))


def test_videos_in_flight_take_the_place_of_the_servers_limit_for_a_client() -> None:
    admission = Admission(ServerConfig(max_videos_per_client=1, retry_after_s=3))
    with admission.admit(caller(videos_in_flight=2)), admission.admit(caller(videos_in_flight=2)):
        with (
            pytest.raises(
                QuotaExceeded, match="2 videos of alice are in flight, its quota videos_in_flight is 2"
            ) as caught,
            admission.admit(caller(videos_in_flight=2)),
        ):
            pass
        assert caught.value.retry_after_s == 3
        assert caught.value.metadata == {"quota": "videos_in_flight", "limit": "2", "value": "2"}
        with (
            admission.admit(caller("bob", videos_per_minute=9)),
            pytest.raises(ClientOverloaded),
            admission.admit(caller("bob", videos_per_minute=9)),
        ):
            pass
    with (
        pytest.raises(QuotaExceeded, match="may send no videos: its quota videos_in_flight is 0") as none,
        admission.admit(caller(videos_in_flight=0)),
    ):
        pass
    assert none.value.retry_after_s is None


@pytest.mark.parametrize("quota", [0, 1])
def test_a_full_server_looks_at_the_quota_first(quota: int) -> None:
    admission, alice = Admission(ServerConfig(max_videos_in_flight=1)), caller(videos_in_flight=quota)
    with (
        admission.admit(alice if quota else Caller("other")),
        pytest.raises(QuotaExceeded) as caught,
        admission.admit(alice),
    ):
        pass
    assert caught.value.quota == "videos_in_flight"


def test_a_video_that_another_limit_refuses_uses_no_quota() -> None:
    admission, one = Admission(ServerConfig(max_videos_in_flight=1)), caller(videos_per_minute=1)
    with (
        admission.admit(Caller("other")),
        pytest.raises(Exception, match="the limit is 1"),
        admission.admit(one),
    ):
        pass
    with admission.admit(one) as ticket:
        assert ticket.meter.identity == "alice"


def test_without_quotas_nothing_is_counted() -> None:
    admission = Admission(ServerConfig())
    with admission.admit(Caller("ipv4:127.0.0.1")) as ticket:
        assert ticket.meter == UNMETERED
    with admission.admit(caller("alice")) as ticket:
        assert ticket.meter == Meter("alice")


@pytest.mark.parametrize(
    ("highest", "asked", "got"),
    [
        (None, Priority.HIGH, Priority.HIGH),
        ("high", Priority.HIGH, Priority.HIGH),
        ("normal", Priority.NORMAL, Priority.NORMAL),
        ("normal", Priority.LOW, Priority.LOW),
        ("low", Priority.LOW, Priority.LOW),
        ("low", Priority.NORMAL, Priority.LOW),
        ("normal", Priority.HIGH, None),
        ("low", Priority.HIGH, None),
    ],
)
def test_the_highest_priority(highest: str | None, asked: Priority, got: Priority | None) -> None:
    who = identity_with(**({"highest_priority": highest} if highest else {}))
    if got is not None:
        assert limit_priority(who, Options(priority=asked)).priority is got
        return
    with pytest.raises(PriorityNotAllowed) as caught:
        limit_priority(who, Options(priority=asked))
    assert (
        caught.value.message
        == f"alice may not ask for priority high; its quota highest_priority is {highest}"
    )
    assert caught.value.field == "priority"
    assert caught.value.metadata == {"quota": "highest_priority", "limit": highest, "value": "high"}
