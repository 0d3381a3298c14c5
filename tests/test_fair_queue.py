"""Tests of weighted fair queueing."""

import weakref
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


# Identities


def counted(items: list[str]) -> Counter[str]:
    """How many items there are by the names of their flows, up to the first space."""
    return Counter(item.split()[0] for item in items)


def test_identities_share_equally_however_many_videos_they_have() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(20):
        filled(queue, f"many {number} ", 100, identity="many")
    filled(queue, "one ", 100, identity="one")
    assert counted(taken(queue, 100)) == {"many": 50, "one": 50}


def test_the_videos_of_an_identity_share_its_part() -> None:
    queue: FairQueue[str] = FairQueue()
    for name, identity in (("a1", "a"), ("a2", "a"), ("b", "b"), ("nobody", "")):
        filled(queue, f"{name} ", 100, identity=identity)
    assert counted(taken(queue, 120)) == {"a1": 20, "a2": 20, "b": 40, "nobody": 40}


def test_identities_share_within_a_priority() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(20):
        filled(queue, "many-high ", 100, identity="many", priority=Priority.HIGH)
    filled(queue, "one-high ", 1000, identity="one", priority=Priority.HIGH)
    filled(queue, "one-low ", 1000, identity="one", priority=Priority.LOW)
    assert counted(taken(queue, 170)) == {"many-high": 80, "one-high": 80, "one-low": 10}


def test_an_identity_is_served_a_quantum_at_a_time() -> None:
    """So a window is complete before another identity has its turn."""
    queue: FairQueue[str] = FairQueue()
    for name in ("a0", "b0", "a1"):
        filled(queue, f"{name} ", 2, quantum=2, identity=name[0])
    assert [item.split()[0] for item in taken(queue)] == ["a0", "a0", "b0", "b0", "a1", "a1"]


def test_an_identity_whose_units_come_one_by_one_gets_its_part() -> None:
    """Its turn goes on with the next unit, although it had none for a moment."""
    queue: FairQueue[str] = FairQueue()
    slow = filled(queue, "slow ", 1, quantum=16, identity="slow")
    filled(queue, "busy ", 1000, quantum=16, identity="busy")
    found = []
    for number in range(200):
        found += taken(queue, 1)
        if not slow.items:
            queue.put(slow, f"slow {number}")
    assert counted(found)["slow"] >= 90


def test_an_identity_that_comes_again_has_saved_up_nothing() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, "busy ", 1000, identity="busy")
    taken(queue, 900)
    for number in range(20):
        filled(queue, f"back {number} ", 1, identity="back")
    assert counted(taken(queue, 20)) == {"busy": 10, "back": 10}


def test_an_identity_that_was_not_served_yet_is_next() -> None:
    queue: FairQueue[str] = FairQueue()
    kept = filled(queue, "first ", 1, identity="a")
    assert queue.take() == "first 0"
    filled(queue, "again ", 1, identity="a")
    filled(queue, "new ", 1, identity="b")
    assert taken(queue) == ["new 0", "again 0"]
    assert not kept.items


def test_the_deadlines_of_an_identity_take_no_turn_of_another() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, "patient ", 100, identity="a")
    for number in range(10):
        filled(queue, "due ", 100, deadline=float(number), identity="b")
    filled(queue, "waits ", 100, identity="b")
    assert counted(taken(queue, 80, item_s=1.0)) == {"patient": 40, "due": 38, "waits": 2}


def test_dropping_the_last_items_of_an_identity_leaves_the_others() -> None:
    queue: FairQueue[str] = FairQueue()
    filled(queue, "a ", 2, identity="a")
    gone = filled(queue, "gone ", 3, identity="b", deadline=0.0)
    queue.drop(gone)
    assert counted(taken(queue, item_s=1.0)) == {"a": 2}
    queue.put(gone, "back ")
    assert taken(queue) == ["back "]


def test_a_video_that_has_ended_leaves_nothing_behind() -> None:
    """Neither it nor its identity, of which there may be many in the long run."""
    queue: FairQueue[str] = FairQueue()
    flows = [filled(queue, f"{number} ", 3, identity=f"i{number}", deadline=1.0) for number in range(100)]
    queue.drop(flows[0])
    taken(queue, item_s=1.0)
    kept = [weakref.ref(flow) for flow in flows] + [weakref.ref(flow.siblings) for flow in flows]
    del flows
    assert not any(each() for each in kept)


Step = tuple[int, int, int]
STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(0, 20)), max_size=200)


def played(steps: list[Step], identity: str) -> list[str]:
    """What a queue serves whose flows all have this identity; a step puts, drops or takes items."""
    queue: FairQueue[str] = FairQueue()
    flows: list[Flow[str]] = [
        Flow(priority, deadline, quantum, identity)
        for priority in (Priority.NORMAL, Priority.HIGH)
        for deadline, quantum in ((None, 4), (30.0, 4), (None, 1))
    ]
    found: list[str] = []
    for number, (what, which, items) in enumerate(steps):
        if what < 5:
            for item in range(items):
                queue.put(flows[which], f"{which} {number} {item}")
        elif what < 6:
            queue.drop(flows[which])
        else:
            found += taken(queue, min(items, len(queue)), now=float(number), item_s=0.1)
    return found + taken(queue)


@given(steps=STEPS)
def test_one_identity_alone_is_served_as_nobody_is(steps: list[Step]) -> None:
    assert played(steps, "alice") == played(steps, "")


@given(
    flows=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), min_size=1, max_size=30),
    quantum=st.integers(1, 8),
)
def test_no_identity_is_ever_more_than_a_turn_behind(flows: list[tuple[int, int]], quantum: int) -> None:
    """While two of them have items, what they got differs by at most a quantum; nothing is lost."""
    queue: FairQueue[str] = FairQueue()
    left = Counter[str]()
    for number, (identity, items) in enumerate(flows):
        filled(queue, f"{identity} {number} ", items, quantum=quantum, identity=str(identity))
        left[str(identity)] += items
    total, got = left.total(), Counter[str]()
    for _ in range(total):
        waiting = [identity for identity in left if left[identity]]
        name = queue.take().split()[0]
        got[name] += 1
        left[name] -= 1
        assert max(got[each] for each in waiting) - min(got[each] for each in waiting) <= quantum
    assert not len(queue)
