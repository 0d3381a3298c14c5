"""Weighted fair queueing: priorities share by their weights, the videos of one priority share equally.

This is self-clocked fair queueing (Golestani, INFOCOM 1994). Each flow has a finish tag, a point in virtual
time. The flow with the smallest tag is served next, and virtual time advances to that tag. A tag is valid for
a quantum of items: as many as a window has units, so that videos of one or two windows are answered one after
another instead of all at the end. A flow whose deadline is near is served ahead of its tag, but at most every
second time: flows without a deadline do not starve.

There are neither threads nor a clock here. The caller holds a lock and passes the time.
"""

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Generic, TypeVar

from tubelet.service.types.request import Priority

T = TypeVar("T")

WEIGHTS = {Priority.HIGH: 16, Priority.NORMAL: 4, Priority.LOW: 1}
_DEADLINE_HORIZON = 2.0
"""A deadline is near if it ends within this factor of the time that all queued items are expected to take."""


class Flow(Generic[T]):
    """The items of one video in a fair queue.

    ``deadline`` is a time of the clock whose time ``FairQueue.take`` gets. ``quantum`` is the number of items
    that are served in a row.
    """

    def __init__(
        self, priority: Priority = Priority.NORMAL, deadline: float | None = None, quantum: int = 1
    ) -> None:
        self.priority = priority
        self.deadline = deadline
        self.items: deque[T] = deque()
        self.finish_tag = _FinishTag(quantum, quantum)
        self.heap_entry = -1  # the number of its valid entry in the heap of tags; -1: it has none
        self.in_deadline_heap = False

    def outranks(self, other: "Flow[T]") -> bool:
        """Return whether this flow has a higher priority than ``other``, or an earlier deadline in it."""
        return self._rank < other._rank

    @property
    def _rank(self) -> tuple[int, float]:
        """The sort key: the priority of most weight first, then the earliest deadline; none comes last."""
        return -WEIGHTS[self.priority], inf if self.deadline is None else self.deadline


class FairQueue(Generic[T]):
    """The items of all flows, in the order in which they are served."""

    def __init__(self) -> None:
        self._classes = {
            priority: _PriorityClass[T](_FinishTag(1, 1 / weight)) for priority, weight in WEIGHTS.items()
        }
        self._virtual_time = 0.0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, flow: Flow[T], item: T) -> None:
        """Queue ``item`` as the last one of ``flow``."""
        self._classes[flow.priority].put(flow, item)
        self._length += 1

    def drop(self, flow: Flow[T]) -> None:
        """Remove all items of ``flow``."""
        self._length -= len(flow.items)
        self._classes[flow.priority].drop(flow)

    def take(self, now: float = 0.0, item_s: float = 0.0) -> T:
        """Remove and return the next item at time ``now``; one item takes about ``item_s`` seconds."""
        priority_class = min(
            (priority_class for priority_class in self._classes.values() if priority_class.length),
            key=self._finish_tag_of,
        )
        self._virtual_time = max(self._virtual_time, self._finish_tag_of(priority_class))
        priority_class.finish_tag.count_served()
        horizon = now + _DEADLINE_HORIZON * item_s * self._length
        self._length -= 1
        return priority_class.take(horizon)

    def _finish_tag_of(self, priority_class: "_PriorityClass[T]") -> float:
        """Return the finish tag of the next item of a priority."""
        return priority_class.finish_tag.at(self._virtual_time)


class _FinishTag:
    """The finish tag of a flow or a priority: every ``items`` that are served add ``cost`` to it."""

    def __init__(self, items: int, cost: float) -> None:
        self._items, self._cost = items, cost
        self._tag = 0.0
        self._left = 0

    def at(self, virtual_time: float) -> float:
        """Return the tag of the next item at ``virtual_time``.

        A flow that was empty for a while has saved up no credit: its tag is never behind virtual time.
        """
        if not self._left:
            self._tag = max(self._tag, virtual_time) + self._cost
            self._left = self._items
        return self._tag

    def count_served(self) -> None:
        """Count an item that was taken."""
        self._left -= 1


class _PriorityClass(Generic[T]):
    """The flows of one priority, with a virtual time of their own."""

    def __init__(self, finish_tag: _FinishTag) -> None:
        self.finish_tag = finish_tag
        self.length = 0
        self._virtual_time = 0.0
        self._entry_numbers: Iterator[int] = count()
        # Heaps of (tag or deadline, number of the entry, flow). Only a flow's last entry by tag is valid.
        self._by_finish_tag: list[tuple[float, int, Flow[T]]] = []
        self._by_deadline: list[tuple[float, int, Flow[T]]] = []
        self._deadline_may_preempt = True

    def put(self, flow: Flow[T], item: T) -> None:
        """Queue ``item`` as the last one of ``flow``."""
        flow.items.append(item)
        self.length += 1
        if flow.heap_entry < 0:
            self._push(flow)
        if flow.deadline is not None and not flow.in_deadline_heap:
            flow.in_deadline_heap = True
            heappush(self._by_deadline, (flow.deadline, next(self._entry_numbers), flow))

    def drop(self, flow: Flow[T]) -> None:
        """Remove all items of ``flow``."""
        self.length -= len(flow.items)
        flow.items.clear()
        flow.heap_entry = -1

    def take(self, horizon: float) -> T:
        """Remove and return the next item; deadlines before ``horizon`` are near."""
        flow = self._next_by_deadline(horizon) or self._next_by_tag()
        tag = flow.finish_tag.at(self._virtual_time)
        flow.finish_tag.count_served()
        item = flow.items.popleft()
        self.length -= 1
        if not flow.items:
            flow.heap_entry = -1
        elif flow.finish_tag.at(self._virtual_time) != tag:
            self._push(flow)
        return item

    def _push(self, flow: Flow[T]) -> None:
        """Make a new heap entry for ``flow``, with the tag of its next item."""
        flow.heap_entry = next(self._entry_numbers)
        heappush(self._by_finish_tag, (flow.finish_tag.at(self._virtual_time), flow.heap_entry, flow))

    def _next_by_tag(self) -> Flow[T]:
        """Return the flow with the smallest tag, and advance virtual time to it."""
        self._deadline_may_preempt = True
        while (first := self._by_finish_tag[0])[2].heap_entry != first[1]:
            heappop(self._by_finish_tag)
        self._virtual_time = max(self._virtual_time, first[0])
        return first[2]

    def _next_by_deadline(self, horizon: float) -> Flow[T] | None:
        """Return the flow with the earliest deadline, if it is near and the last item was taken by tag."""
        if not self._deadline_may_preempt:
            return None
        while self._by_deadline and not self._by_deadline[0][2].items:
            heappop(self._by_deadline)[2].in_deadline_heap = False
        if not self._by_deadline or self._by_deadline[0][0] > horizon:
            return None
        self._deadline_may_preempt = False
        return self._by_deadline[0][2]
