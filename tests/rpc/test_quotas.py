"""Quotas of an identity: what is used, when more may be, and what changes of a quota do."""

from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.identities import identity_with
from tubelet.service.config.identities import Identity, parse_identities
from tubelet.service.config.quotas import MOST
from tubelet.service.errors import BytesQuotaExceeded, QuotaExceeded
from tubelet.service.rpc.quotas import Bucket, Quotas
from tubelet.service.types.meter import Meter

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0


class Clock:
    """A monotonic clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def begin(quotas: Quotas, who: Identity) -> Meter:
    """Begin a video as admission does."""
    usage = quotas.of(who)
    assert usage is not None
    usage.check()
    return usage.begin()


def refused(quotas: Quotas, who: Identity) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        begin(quotas, who)
    return caught.value


@given(
    limit=st.integers(1, MOST),
    events=st.lists(st.tuples(st.floats(0, 2 * DAY_S), st.floats(0, 2))),
    share=st.floats(0, 1),
)
def test_a_bucket_has_room_exactly_when_it_says(
    limit: int, events: list[tuple[float, float]], share: float
) -> None:
    """Neither later, nor earlier by more than the rounding of a clock."""
    now, bucket, room = 0.0, Bucket(limit, DAY_S, 0.0), share * limit
    for pause_s, part in events:
        now += pause_s
        bucket.add(part * limit, now)
    wait_s = bucket.wait_s(room, now)
    late = now + wait_s
    assert bucket.wait_s(room, late) <= 1e-6 * max(1.0, wait_s)
    if wait_s > 1e-3:
        assert bucket.wait_s(room, now + wait_s - 1e-3) > 0


@given(
    limit=st.integers(1, 1000),
    pauses_s=st.lists(st.floats(0, 30), min_size=1, max_size=200),
)
def test_no_period_has_more_than_twice_the_quota(limit: int, pauses_s: list[float]) -> None:
    """What a pause has left, and what drains meanwhile."""
    now, bucket, taken = 0.0, Bucket(limit, MINUTE_S, 0.0), list[float]()
    for pause_s in pauses_s:
        now += pause_s
        while not bucket.wait_s(1, now):
            bucket.add(1, now)
            taken.append(now)
    for start in taken:
        assert sum(start <= each < start + MINUTE_S for each in taken) <= 2 * limit
    assert len(taken) <= limit * (1 + now / MINUTE_S)


@pytest.mark.parametrize(("limit", "room"), [(0, 0), (0, 1), (5, 6)])
def test_what_never_has_room_waits_for_ever(limit: int, room: float) -> None:
    assert Bucket(limit, MINUTE_S, 0.0).wait_s(room, 10.0) == inf


def test_a_clock_that_stands_still_drains_nothing() -> None:
    bucket = Bucket(10, MINUTE_S, 5.0)
    bucket.add(10, 5.0)
    assert bucket.used(5.0) == bucket.used(4.0) == 10


def test_videos_of_a_minute_may_come_at_once_and_then_evenly(clock: Clock) -> None:
    quotas, alice = Quotas(clock), identity_with(videos_per_minute=4)
    for _ in range(4):
        begin(quotas, alice)
    error = refused(quotas, alice)
    assert error.retry_after_s == pytest.approx(15.0)
    assert error.message == "alice has used 4 of its quota videos_per_minute of 4; try again in 15 s"
    assert error.metadata == {"quota": "videos_per_minute", "limit": "4", "value": "4"}
    clock.now += 14.999
    assert refused(quotas, alice).retry_after_s == pytest.approx(0.001)
    clock.now += 0.001
    begin(quotas, alice)
    refused(quotas, alice)


def test_identities_have_quotas_of_their_own(clock: Clock) -> None:
    quotas = Quotas(clock)
    begin(quotas, identity_with("alice", videos_per_minute=1))
    refused(quotas, identity_with("alice", videos_per_minute=1))
    begin(quotas, identity_with("bob", videos_per_minute=1))
    assert quotas.of(identity_with("carol")) is None


@pytest.mark.parametrize("quota", ["videos_per_minute", "bytes_per_day", "device_seconds_per_hour"])
def test_a_quota_of_zero_allows_nothing_and_no_retry(clock: Clock, quota: str) -> None:
    error = refused(Quotas(clock), identity_with("alice", **{quota: 0}))
    assert error.message == f"alice may send no videos: its quota {quota} is 0"
    assert error.metadata == {"quota": quota, "limit": "0", "value": "0"}
    assert error.retry_after_s is None


def test_bytes_count_as_they_come_and_end_the_video_in_the_middle(clock: Clock) -> None:
    quotas, alice = Quotas(clock), identity_with(bytes_per_day=1000)
    meter = begin(quotas, alice)
    meter.count_bytes(600)
    other = begin(quotas, alice)
    other.count_bytes(400)
    with pytest.raises(BytesQuotaExceeded) as caught:
        other.count_bytes(100)
    error = caught.value
    assert (error.reason, error.before_work) == ("QUOTA_EXCEEDED", False)
    assert error.metadata == {"quota": "bytes_per_day", "limit": "1000", "value": "1100"}
    assert error.message == (
        "alice has used up its quota bytes_per_day of 1000, when 500 bytes of this video had arrived; "
        "try again in 1 day, 2:24:00"
    )
    assert error.retry_after_s == pytest.approx(1.1 * DAY_S)  # when there is room for 1,000 bytes
    with pytest.raises(BytesQuotaExceeded):
        meter.count_bytes(1)


def test_tries_of_a_video_that_is_cut_off_have_twice_the_room_each_time(clock: Clock) -> None:
    """Bytes that were cut off count. A client that waits as it is told to succeeds all the same."""
    quotas, alice, tries = Quotas(clock), identity_with(bytes_per_day=1_000_000), 0
    begin(quotas, alice).count_bytes(980_000)
    while True:
        tries += 1
        meter = begin(quotas, alice)
        try:
            for _ in range(300):
                meter.count_bytes(1_000)
            break
        except BytesQuotaExceeded as error:
            clock.now += error.retry_after_s or 0.0
    assert tries <= 6


def test_a_video_larger_than_a_days_bytes_need_not_be_tried_again(clock: Clock) -> None:
    meter = begin(Quotas(clock), identity_with(bytes_per_day=1000))
    with pytest.raises(
        BytesQuotaExceeded, match="1001 bytes of this video had arrived; this video is larger than"
    ) as caught:
        meter.count_bytes(1001)
    assert caught.value.retry_after_s is None


def test_a_video_begins_where_a_hundredth_is_left(clock: Clock) -> None:
    quotas, alice = Quotas(clock), identity_with(bytes_per_day=1000)
    meter = begin(quotas, alice)
    meter.count_bytes(989)
    begin(quotas, alice)
    meter.count_bytes(6)
    error = refused(quotas, alice)
    assert error.retry_after_s == pytest.approx(5 / 1000 * DAY_S)
    assert error.message.endswith("try again in 0:07:12")
    meter.count_bytes(5)  # what has begun may use the rest


def test_device_seconds_delay_the_next_video_for_as_long_as_they_were_too_many(clock: Clock) -> None:
    quotas, alice = Quotas(clock), identity_with(device_seconds_per_hour=100)
    meter = begin(quotas, alice)
    for _ in range(150):
        meter.count_device_s(1.0)
    error = refused(quotas, alice)
    assert error.metadata == {"quota": "device_seconds_per_hour", "limit": "100", "value": "150.0"}
    assert error.retry_after_s == pytest.approx(0.51 * HOUR_S)
    clock.now += 0.51 * HOUR_S
    begin(quotas, alice)


def test_device_seconds_are_told_with_a_decimal_and_videos_as_whole_ones(clock: Clock) -> None:
    quotas, alice = Quotas(clock), identity_with(device_seconds_per_hour=1)
    begin(quotas, alice).count_device_s(1.64)
    says = "alice has used 1.6 of its quota device_seconds_per_hour of 1; try again in 0:39:00"
    assert refused(quotas, alice).message == says
    bob = identity_with("bob", videos_per_minute=1)
    begin(quotas, bob)
    clock.now += 40
    says = "bob has used 1 of its quota videos_per_minute of 1; try again in 20 s"
    assert refused(quotas, bob).message == says


def test_of_several_quotas_the_last_to_be_free_is_named(clock: Clock) -> None:
    quotas, alice = Quotas(clock), identity_with(videos_per_minute=1, bytes_per_day=100)
    begin(quotas, alice).count_bytes(100)
    assert refused(quotas, alice).metadata["quota"] == "bytes_per_day"
    clock.now += 0.02 * DAY_S
    begin(quotas, alice)


def test_a_refused_video_does_not_count(clock: Clock) -> None:
    quotas, alice = Quotas(clock), identity_with(videos_per_minute=1)
    begin(quotas, alice)
    for _ in range(100):
        refused(quotas, alice)
    clock.now += MINUTE_S
    begin(quotas, alice)


@pytest.mark.parametrize(
    ("then", "retry_after_s"),
    [
        ("videos_per_minute = 10", 6.0),
        ("videos_per_minute = 20", 0.0),
        ("videos_per_minute = 5", 12.0),
        ("videos_per_minute = 1", 60.0),
        ("videos_per_minute = 10\nbytes_per_day = 5", 6.0),
        ("", 0.0),
    ],
)
def test_a_changed_file_keeps_what_was_counted(clock: Clock, then: str, retry_after_s: float) -> None:
    quotas, alice = Quotas(clock), identity_with(videos_per_minute=10)
    for _ in range(10):
        begin(quotas, alice)
    known = parse_identities(f"[alice]\n{then}".encode(), Path("identities.toml"))
    quotas.follow(known)
    if retry_after_s:
        assert refused(quotas, known.by_name["alice"]).retry_after_s == pytest.approx(retry_after_s)
    elif then:
        begin(quotas, known.by_name["alice"])
    else:
        assert quotas.of(known.by_name["alice"]) is None


def test_a_quota_that_is_lifted_or_set_to_zero_concerns_videos_in_flight(clock: Clock) -> None:
    quotas, alice = Quotas(clock), identity_with(bytes_per_day=1000)
    first = begin(quotas, alice)
    first.count_bytes(1000)
    path = Path("identities.toml")
    quotas.follow(parse_identities(b"[alice]\nvideos_per_minute = 5\n", path))
    first.count_bytes(10**9)
    quotas.follow(parse_identities(b"[alice]\nbytes_per_day = 0\n", path))
    with pytest.raises(BytesQuotaExceeded):
        first.count_bytes(1)
    with pytest.raises(QuotaExceeded, match="may send no videos"):
        begin(quotas, identity_with(bytes_per_day=0))


def test_an_identity_that_is_removed_leaves_no_state(clock: Clock) -> None:
    """Its call in flight goes on; once it is back in the file, its count begins anew."""
    quotas, alice = Quotas(clock), identity_with(videos_per_minute=1, bytes_per_day=10)
    meter = begin(quotas, alice)
    quotas.follow(parse_identities(b"[bob]\n", Path("identities.toml")))
    meter.count_bytes(5)
    meter.count_device_s(5.0)
    begin(quotas, alice)
