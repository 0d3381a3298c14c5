"""Whether and when a client calls again."""

import pytest

from tubelet.service.wire.retry import Retries
from tubelet.service.wire.status import ServerError


def error(reason: str, retry_after_s: float | None) -> ServerError:
    return ServerError("RESOURCE_EXHAUSTED", reason, "no more", {}, retry_after_s)


@pytest.mark.parametrize(
    ("reason", "retry_after_s", "timeout_s", "waits"),
    [
        ("QUOTA_EXCEEDED", 60.0, None, True),
        ("QUOTA_EXCEEDED", 61.0, None, False),
        ("QUOTA_EXCEEDED", 7200.0, None, False),
        ("QUOTA_EXCEEDED", 7200.0, 20_000.0, True),
        ("QUOTA_EXCEEDED", 7200.0, 7000.0, False),
        ("QUOTA_EXCEEDED", None, None, False),
        ("QUOTA_EXCEEDED", None, 7000.0, False),
        ("OVERLOADED", 7200.0, None, True),
        ("OVERLOADED", 1.0, 0.5, False),
    ],
)
def test_a_client_waits_for_hours_only_if_its_caller_says_so(
    reason: str, retry_after_s: float | None, timeout_s: float | None, waits: bool
) -> None:
    retries, failed = Retries(timeout_s), error(reason, retry_after_s)
    if not waits:
        with pytest.raises(ServerError) as caught:
            retries.pause_s(failed)
        assert caught.value is failed
        return
    assert retry_after_s is not None
    assert retry_after_s <= retries.pause_s(failed) <= 1.5 * retry_after_s


def test_a_client_reconnects_once_after_a_pause() -> None:
    retries, failed = Retries(), error("CONNECTION_LOST", None)
    assert 0.1 <= retries.pause_s(failed) <= 0.15
    with pytest.raises(ServerError):
        retries.pause_s(failed)
