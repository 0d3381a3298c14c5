"""Tests of weighted fair queueing."""

from collections import Counter

import pytest

from tubelet.service.fair_queue import FairQueue, Flow
from tubelet.service.types.request import Priority


def filled(queue: FairQueue[str], name: str, items: int, **options: object) -> Flow[str]:
    """Queue a number of ``items`` under a new flow, and return it."""
    flow: Flow[str] = Flow(**options)  # pyright: ignore[reportArgumentType]
    for number in range(items):
        queue.put(flow, f"{name}{number}")
    return flow


def taken(
    queue: FairQueue[str], items: int | None = None, now: float = 0.0, item_s: float = 0.0
) -> list[str]:
    """Take a number of ``items`` from ``queue``; None: all."""
    return [queue.take(now, item_s) for _ in range(len(queue) if items is None else items)]


def test_flows_are_served_in_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    a = filled(queue, "a", 3)
    filled(queue, "b", 2)
    assert taken(queue, 3) == ["a0", "b0", "a1"]
    filled(queue, "c", 1)
    queue.put(a, "a3")
    assert taken(queue) == ["b1", "a2", "c0", "a3"]


def test_a_flow_is_served_a_quantum_at_a_time() -> None:
    """Videos of one window are answered one after another, not all at the end."""
    queue: FairQueue[str] = FairQueue()
    for name in "abc":
        filled(queue, name, 4, quantum=2)
    assert taken(queue) == ["a0", "a1", "b0", "b1", "c0", "c1", "a2", "a3", "b2", "b3", "c2", "c3"]


def test_an_interrupted_quantum_continues_with_new_items() -> None:
    queue: FairQueue[str] = FairQueue()
    slow = filled(queue, "slow", 1, quantum=4)
    assert taken(queue) == ["slow0"]
    filled(queue, "b", 8, quantum=4)
    assert taken(queue, 5) == ["b0", "b1", "b2", "b3", "b4"]
    queue.put(slow, "slow1")
    assert queue.take() == "slow1"


def test_a_short_flow_waits_for_one_quantum_of_a_long_one() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, "long", 100_000, quantum=16)
    taken(queue, 1_000)
    filled(queue, "short", 48, quantum=16)
    found = taken(queue, 2 * 48 + 16)
    assert sum(item.startswith("short") for item in found) == 48


def test_an_empty_flow_saves_up_no_credit() -> None:
    queue: FairQueue[str] = FairQueue()
    idle = filled(queue, "idle", 1)
    filled(queue, "busy", 1000)
    taken(queue, 900)
    for number in range(100):
        queue.put(idle, f"idle{number}")
    assert Counter(item.rstrip("0123456789") for item in taken(queue, 20)) == {"idle": 10, "busy": 10}


@pytest.mark.parametrize("late", Priority)
def test_priorities_share_by_their_weights(late: Priority) -> None:
    """The shares hold whichever priority comes last, also after others had the queue for a while."""
    queue: FairQueue[str] = FairQueue()
    others = [priority for priority in Priority if priority != late]
    for priority in others:
        filled(queue, priority.value + " ", 10_000, priority=priority)
    taken(queue, 1234)
    filled(queue, late.value + " ", 10_000, priority=late)
    shares = Counter(item.split()[0] for item in taken(queue, 2100))
    assert all(
        abs(shares[name] - share) <= 2 for name, share in {"high": 1600, "normal": 400, "low": 100}.items()
    )


def test_a_near_deadline_is_served_every_second_time() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, "patient", 100)
    filled(queue, "due", 10, deadline=50.0)
    assert taken(queue, 8, item_s=1.0) == [
        "due0", "patient0", "due1", "patient1", "due2", "patient2", "due3", "patient3",
    ]  # fmt: skip


def test_a_far_deadline_changes_nothing() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, "patient", 4, quantum=4)
    filled(queue, "due", 4, quantum=4, deadline=1000.0)
    assert taken(queue, item_s=1.0) == [*(f"patient{i}" for i in range(4)), *(f"due{i}" for i in range(4))]


def test_the_earlier_of_two_deadlines_is_served_first() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, "later", 2, quantum=2, deadline=5.0)
    filled(queue, "sooner", 2, quantum=2, deadline=4.0)
    assert taken(queue, 1, item_s=10.0) == ["sooner0"]


def test_deadlines_do_not_starve_other_flows() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, "patient", 1000)
    for number in range(20):
        filled(queue, f"due{number} ", 100, deadline=float(number))
    assert sum(item.startswith("patient") for item in taken(queue, 1000, item_s=1.0)) >= 1000 // 2 // 21


def test_dropped_items_are_neither_counted_nor_taken() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, "a", 2)
    gone = filled(queue, "gone", 3, deadline=0.0)
    urgent = filled(queue, "urgent", 1, priority=Priority.HIGH)
    for flow in (gone, gone, urgent):
        queue.drop(flow)
    assert len(queue) == 2
    queue.put(gone, "back")
    assert sorted(taken(queue, item_s=1.0)) == ["a0", "a1", "back"]
    assert len(queue) == 0
