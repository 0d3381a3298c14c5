"""Tests of scheduling in simulated time: fairness, deadlines, sharing of cores and devices."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.clock import Clock
from tests.simulation.policies import POLICIES, FirstCome
from tests.simulation.server import Server
from tests.simulation.videos import DeviceCosts, Machine, Video
from tubelet.service.config.config import ServerConfig
from tubelet.service.fair_queue import FairQueue
from tubelet.service.types.request import Priority

UNITS = 16  # in a window
GPU = Machine(cores=4, decoders=2, max_batch_units=8)
COSTS = DeviceCosts(encode_batch_s=0.002, unit_s=0.01, classify_batch_s=0.001, window_s=0.001)
DECODE_S = 0.004


def video(arrival_s: float, seconds: float, **options: Any) -> Video:
    """Return a video of this length in ``seconds``, with windows of two seconds."""
    return Video(arrival_s, max(1, round(seconds / 2)), UNITS, DECODE_S, **options)


def run(
    *videos: Video,
    machine: Machine = GPU,
    policy: Callable[[], FairQueue[Any]] = FairQueue,
    until_s: float = float("inf"),
) -> Server:
    """Serve ``videos`` until ``until_s``, and return the server."""
    clock = Clock()
    server = Server(clock, machine, COSTS, policy, ServerConfig(max_videos_in_flight=1000))
    for each in videos:
        server.submit(each)
    clock.run(until_s)
    server.close()
    return server


def latency_s(one: Video) -> float:
    assert one.latency_s is not None
    return one.latency_s


def alone_s(seconds: float, machine: Machine = GPU) -> float:
    """Return the latency of a video of this length when it is alone on the server."""
    one = video(0, seconds)
    run(one, machine=machine)
    return latency_s(one)


def test_a_video_alone_takes_the_time_of_its_stages() -> None:
    """The first units are decoded, then the device, which is slower than the decoders, computes batches."""
    units = 2 * UNITS
    least_s = units * COSTS.unit_s + units / 8 * COSTS.encode_batch_s
    assert least_s < alone_s(4) < 1.25 * least_s + 0.05


@pytest.mark.parametrize("seconds", [4, 5, 10, 30])
def test_a_short_video_takes_at_most_twice_as_long_beside_a_long_one(seconds: float) -> None:
    long, short = video(0, 7200), video(60, seconds)
    run(long, short, until_s=300)
    assert not long.is_over
    assert latency_s(short) <= 2 * alone_s(seconds)


def test_first_come_first_served_delays_a_short_video() -> None:
    """This proves that the limit of the test above tells policies apart."""
    machine = Machine(cores=4, decoders=2, slots=512, max_batch_units=8)
    long, short = video(0, 7200), video(60, 4)
    run(long, short, machine=machine, policy=FirstCome, until_s=300)
    assert latency_s(short) > 5 * alone_s(4, machine)


def test_a_short_video_gets_a_decoder_beside_many_long_ones() -> None:
    """Long videos hold all decoders; a replacement starts for the short one."""
    long = [video(0, 7200) for _ in range(6)]
    short = video(60, 4)
    run(*long, short, until_s=300)
    assert not any(each.is_over for each in long)
    assert latency_s(short) < 10


def test_a_long_video_progresses_under_a_stream_of_short_ones() -> None:
    long = video(0, 60)
    short = [video(number * 0.45, 4) for number in range(500)]  # three quarters of the device's capacity
    run(long, *short)
    assert latency_s(long) < 8 * alone_s(60)


def test_high_priority_videos_overtake_within_their_share() -> None:
    others = [video(0, 20) for _ in range(20)]
    urgent = video(10, 4, priority=Priority.HIGH)
    run(*others, urgent)
    later = [each for each in others if (each.answered_s or 0) > 10]
    assert len(later) > 10
    assert latency_s(urgent) < 3


def test_one_video_of_an_identity_is_not_late_beside_many_of_another() -> None:
    """It waits for a decoder that ends a video, and then has half of the device."""

    def latency_of_one_s(many: str, one: str) -> float:
        others = [video(0, 10, identity=many) for _ in range(40)]
        last = video(5, 10, identity=one)
        run(*others, last)
        return latency_s(last)

    assert latency_of_one_s("many", "one") < 4 * alone_s(10)
    assert latency_of_one_s("", "") > 10 * alone_s(10)


def test_the_long_videos_of_an_identity_leave_decoders_for_others() -> None:
    """They could have all that stand in for long videos, for hours."""
    others = [video(0, 3600, identity="many") for _ in range(20)]
    short = [video(60, 4, identity="one"), video(61, 4, identity="another")]
    run(*others, *short, until_s=300)
    assert not any(each.is_over for each in others)
    assert all(latency_s(each) < 10 for each in short)
    alike = [video(0, 3600) for _ in range(20)]
    last = video(60, 4)
    run(*alike, last, until_s=300)
    assert not last.is_over


def test_turns_of_identities_do_the_same_work() -> None:
    videos = [video(number * 0.3, 2 + number % 7, identity=str(number % 3)) for number in range(50)]
    fair = run(*videos)
    assert all(each.answered_s is not None for each in videos)
    same = [video(number * 0.3, 2 + number % 7) for number in range(50)]
    assert fair.device_busy_s == pytest.approx(run(*same).device_busy_s, rel=0.1)


def test_a_deadline_is_judged_by_the_turns_of_its_identity() -> None:
    """Twenty videos of another are in flight, but the one of this identity does not wait for all of them."""
    known = [video(number * 5.0, 4) for number in range(20)]
    others = [video(200, 60, identity="many") for _ in range(20)]
    in_time = video(201, 4, identity="one", deadline_s=3.0)
    refused = video(201, 4, identity="many", deadline_s=3.0)
    trial = video(201, 4, identity="many", deadline_s=3.0)
    run(*known, *others, trial, refused, in_time)
    assert refused.is_refused
    assert not in_time.is_refused
    assert in_time.answered_s is not None


def test_all_policies_do_the_same_work() -> None:
    busy = []
    for policy in POLICIES.values():
        videos = [video(number * 0.3, 2 + number % 7) for number in range(50)]
        busy.append(run(*videos, policy=policy).device_busy_s)
        assert all(each.answered_s is not None for each in videos)
    assert max(busy) < 1.2 * min(busy)  # batches have other sizes


def test_devices_share_one_queue() -> None:
    def makespan_s(devices: int) -> float:
        videos = [video(0, 4) for _ in range(64)]
        run(*videos, machine=Machine(cores=64, decoders=64, devices=devices, max_batch_units=8))
        return max(each.answered_s or 0 for each in videos)

    assert makespan_s(4) < 0.27 * makespan_s(1)


def test_a_request_past_its_deadline_costs_no_more_batches() -> None:
    given_up = [video(0, 100, deadline_s=1) for _ in range(2)]
    server = run(*given_up)
    assert all(each.is_over and each.answered_s is None for each in given_up)
    assert server.device_busy_s < 1.2


def test_decoders_and_a_cpu_device_share_the_cores() -> None:
    """Two cores do two seconds of work a second in all."""
    machine = Machine(cores=2, decoders=2, device_threads=2)
    videos = [video(0, 4) for _ in range(40)]
    server = run(*videos, machine=machine)
    work_s = 2 * server.device_busy_s + sum(each.units * DECODE_S for each in videos)
    assert max(each.answered_s or 0 for each in videos) == pytest.approx(work_s / 2, rel=0.05)


def test_throughput_holds_when_far_too_many_requests_have_deadlines() -> None:
    machine = Machine(cores=2, decoders=2, device_threads=2)
    costs = DeviceCosts(encode_batch_s=0.0005, unit_s=0.0025, classify_batch_s=0.0003, window_s=0.0003)

    def rate(clients: int, deadline_s: float | None) -> float:
        """Return the videos answered a second for ``clients`` that each send one request after another."""
        clock, lengths, answered = Clock(), random.Random(0), list[Video]()
        server = Server(clock, machine, costs)

        def ask(at_s: float) -> None:
            one = Video(at_s, lengths.choice((1, 1, 2, 3)), UNITS, 0.001, deadline_s=deadline_s)
            server.submit(one, lambda: end(one))

        def end(one: Video) -> None:
            if one.answered_s is not None:
                answered.append(one)
            ask(clock.now + (one.retry_after_s or 0.0))

        for _ in range(clients):
            ask(0.0)
        clock.run(60)
        server.close()
        return len(answered) / 60

    assert rate(64, deadline_s=2) > 0.9 * rate(16, deadline_s=None)
