"""Weighted fair queueing: priorities share by their weights, in each its identities, of these their videos.

The identities of one priority share equally, and so do the videos of one identity. Videos of nobody in
particular are those of one identity.

This is self-clocked fair queueing (Golestani, INFOCOM 1994), once for each of these levels (hierarchical fair
queueing: Bennett and Zhang, SIGCOMM 1996). Each flow has a finish tag, a point in virtual time. The flow with
the smallest tag is served next, and virtual time advances to that tag. A tag is valid for a quantum of items:
as many as a window has units, so that videos of one or two windows are answered one after another instead of
all at the end. A flow whose deadline is near is served ahead of its tag, but at most every second time: flows
without a deadline do not starve. A deadline counts among the flows of its identity alone.

There are neither threads nor a clock here. The caller holds a lock and passes the time.
"""

from collections import deque
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from tubelet.service.types.request import Priority

T = TypeVar("T")

WEIGHTS = {Priority.HIGH: 16, Priority.NORMAL: 4, Priority.LOW: 1}
_NO_ENTRY = -1  # the number of a valid entry in a heap of tags where there is none
_DEADLINE_HORIZON = 2.0
"""A deadline is near if it ends within this factor of the time that all queued items are expected to take."""


class Flow(Generic[T]):
    """The items of one video in a fair queue.

    ``deadline`` is a time of the clock whose time ``FairQueue.take`` gets. ``quantum`` is the number of items
    that are served in a row. ``identity`` is whose video it is; empty: nobody's in particular.
    """

    def __init__(
        self,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        quantum: int = 1,
        identity: str = "",
    ) -> None:
        self.priority = priority
        self.deadline = deadline
        self.quantum = quantum
        self.identity = identity
        self.items: deque[T] = deque()
        self.finish_tag = _FinishTag(quantum, quantum)
        self.heap_entry = _NO_ENTRY
        self.was_served = False  # for good: the videos of an identity go by the order in which they came
        self.in_deadline_heap = False
        self.siblings: _Siblings[T] | None = None  # this flow and others of its identity, once it had an item

    def may_precede(self, other: "Flow[T]") -> bool:
        """Return whether an item in this flow may be served before one that has been in ``other``.

        So it is by a higher priority, by an earlier deadline, or as it is another identity's turn.
        """
        return self._rank < other._rank or self.identity != other.identity

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


class _Tagged(Protocol):
    """What takes turns: a flow, or the flows of an identity. Of equal tags, one not served yet is first."""

    finish_tag: _FinishTag
    heap_entry: int
    was_served: bool


E = TypeVar("E", bound=_Tagged)


class _TagOrder(Generic[E]):
    """The entries that have items, in the order of their finish tags, with a virtual time of their own."""

    def __init__(self) -> None:
        self._virtual_time = 0.0
        self._numbers = count()
        self._heap: list[tuple[float, bool, int, E]] = []  # only the last one of an entry is valid

    def add(self, entry: E) -> None:
        """Take up ``entry``, unless it is there already."""
        if entry.heap_entry == _NO_ENTRY:
            self._push(entry)

    def discard(self, entry: E) -> None:
        """Leave ``entry`` out, which has no item."""
        entry.heap_entry = _NO_ENTRY

    def clear(self) -> None:
        """Forget the places in the heap, none of which is valid."""
        self._heap.clear()

    def first(self) -> E:
        """Return the entry with the smallest tag, and advance virtual time to it."""
        while (first := self._heap[0])[3].heap_entry != first[2]:
            heappop(self._heap)
        self._virtual_time = max(self._virtual_time, first[0])
        return first[3]

    def count_served(self, entry: E, left: int) -> None:
        """Count an item that was taken of ``entry``, which has ``left`` more."""
        tag = entry.finish_tag.at(self._virtual_time)
        entry.finish_tag.count_served()
        if not left:
            self.discard(entry)
        elif entry.finish_tag.at(self._virtual_time) != tag:
            self._push(entry)

    def _push(self, entry: E) -> None:
        """Make a new place in the heap for ``entry``, by the tag of its next item."""
        entry.heap_entry = next(self._numbers)
        tag = entry.finish_tag.at(self._virtual_time)
        heappush(self._heap, (tag, entry.was_served, entry.heap_entry, entry))


class _PriorityClass(Generic[T]):
    """The flows of one priority, by their identities."""

    def __init__(self, finish_tag: _FinishTag) -> None:
        self.finish_tag = finish_tag
        self.length = 0
        self._order: _TagOrder[_Siblings[T]] = _TagOrder()
        # Flows keep their siblings, so what an identity is owed is forgotten with the last of its flows.
        self._by_identity: WeakValueDictionary[str, _Siblings[T]] = WeakValueDictionary()
        self._of_nobody: _Siblings[T] | None = None  # kept for good

    def put(self, flow: Flow[T], item: T) -> None:
        """Queue ``item`` as the last one of ``flow``."""
        siblings = flow.siblings
        if siblings is None:
            siblings = flow.siblings = self._siblings_of(flow)
        siblings.put(flow, item)
        self.length += 1
        self._order.add(siblings)

    def drop(self, flow: Flow[T]) -> None:
        """Remove all items of ``flow``."""
        self.length -= len(flow.items)
        if flow.siblings is not None:
            flow.siblings.drop(flow)
            if not flow.siblings.length:
                self._order.discard(flow.siblings)
            self._clear_if_empty()

    def take(self, horizon: float) -> T:
        """Remove and return the next item; deadlines before ``horizon`` are near."""
        siblings = self._order.first()
        siblings.was_served = True
        item = siblings.take(horizon)
        self.length -= 1
        self._order.count_served(siblings, siblings.length)
        self._clear_if_empty()
        return item

    def _clear_if_empty(self) -> None:
        """Without items, let go of all identities."""
        if not self.length:
            self._order.clear()

    def _siblings_of(self, flow: Flow[T]) -> "_Siblings[T]":
        """Return the flows of the identity of ``flow``, of which it may be the first."""
        siblings = self._by_identity.get(flow.identity)
        if siblings is None:
            siblings = self._by_identity[flow.identity] = _Siblings[T](flow.quantum)
            if not flow.identity:
                self._of_nobody = siblings
        return siblings


class _Siblings(Generic[T]):
    """The flows of one identity in one priority. The identity is served ``quantum`` items in a row."""

    def __init__(self, quantum: int) -> None:
        self.finish_tag = _FinishTag(quantum, quantum)
        self.heap_entry = _NO_ENTRY
        self.was_served = False
        self.length = 0
        self._order: _TagOrder[Flow[T]] = _TagOrder()
        self._by_deadline: list[tuple[float, int, Flow[T]]] = []
        self._numbers = count()
        self._deadline_may_preempt = True

    def put(self, flow: Flow[T], item: T) -> None:
        """Queue ``item`` as the last one of ``flow``."""
        flow.items.append(item)
        self.length += 1
        self._order.add(flow)
        if flow.deadline is not None and not flow.in_deadline_heap:
            flow.in_deadline_heap = True
            heappush(self._by_deadline, (flow.deadline, next(self._numbers), flow))

    def drop(self, flow: Flow[T]) -> None:
        """Remove all items of ``flow``."""
        self.length -= len(flow.items)
        flow.items.clear()
        self._order.discard(flow)
        self._clear_if_empty()

    def take(self, horizon: float) -> T:
        """Remove and return the next item; deadlines before ``horizon`` are near."""
        flow = self._next_by_deadline(horizon)
        self._deadline_may_preempt = flow is None
        flow = flow or self._order.first()
        item = flow.items.popleft()
        self.length -= 1
        self._order.count_served(flow, len(flow.items))
        self._clear_if_empty()
        return item

    def _clear_if_empty(self) -> None:
        """Without items, let go of all flows, which let go of their siblings when their videos end."""
        if not self.length:
            self._order.clear()
            for _, _, flow in self._by_deadline:
                flow.in_deadline_heap = False
            self._by_deadline.clear()

    def _next_by_deadline(self, horizon: float) -> Flow[T] | None:
        """Return the flow with the earliest deadline, if it is near and the last item was taken by tag."""
        if not self._deadline_may_preempt:
            return None
        while self._by_deadline and not self._by_deadline[0][2].items:
            heappop(self._by_deadline)[2].in_deadline_heap = False
        if not self._by_deadline or self._by_deadline[0][0] > horizon:
            return None
        return self._by_deadline[0][2]
