"""Whose turn it is: between priorities by their weights, between the videos of one priority in equal shares.

Self-clocked fair queueing (Golestani, INFOCOM 1994): each turn ends at a tag in virtual time, the clock shows
the tag that is being served, and the smallest tag is next. A turn lasts for as many items as a window has, so
that videos of a window or two are answered one after another instead of all at the end. A video whose
deadline is near comes before its turn, every second time at most: no deadline starves who has none.

Pure bookkeeping, without threads or a clock of its own: the caller holds a lock and says what time it is.
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
_DEADLINE_HORIZON = (
    2.0  # a deadline is near when what is queued may take so much of the time until then, and it is uncertain
)


class Flow(Generic[T]):
    """One video's items in a queue. ``deadline`` is on the clock that ``take`` is told of."""

    def __init__(
        self, priority: Priority = Priority.NORMAL, deadline: float | None = None, quantum: int = 1
    ) -> None:
        self.priority = priority
        self.deadline = deadline
        self.items: deque[T] = deque()
        self.finish_tag = _FinishTag(quantum, quantum)
        self.heap_entry = -1  # of the line that it stands in; -1: of none
        self.in_deadline_heap = False  # it stands in the line of deadlines

    def outranks(self, other: "Flow[T]") -> bool:
        """By its priority, or by its deadline within that; not by whose turn it is."""
        return self._rank < other._rank

    @property
    def _rank(self) -> tuple[int, float]:
        return -WEIGHTS[self.priority], inf if self.deadline is None else self.deadline


class FairQueue(Generic[T]):
    """The items of all claims."""

    def __init__(self) -> None:
        self._classes = {
            priority: _PriorityClass[T](_FinishTag(1, 1 / weight)) for priority, weight in WEIGHTS.items()
        }
        self._virtual_time = 0.0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, flow: Flow[T], item: T) -> None:
        self._classes[flow.priority].put(flow, item)
        self._length += 1

    def drop(self, flow: Flow[T]) -> None:
        """Nobody waits for its items any more."""
        self._length -= len(flow.items)
        self._classes[flow.priority].drop(flow)

    def take(self, now: float = 0.0, item_s: float = 0.0) -> T:
        """The next item; one takes about ``item_s`` seconds."""
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
        return priority_class.finish_tag.at(self._virtual_time)


class _FinishTag:
    """Where somebody's turn ends: for ``items`` of them, ``cost`` virtual seconds after the last one."""

    def __init__(self, items: int, cost: float) -> None:
        self._items, self._cost = items, cost
        self._tag = 0.0
        self._left = 0

    def at(self, virtual_time: float) -> float:
        """The tag of the next item. One that had nothing for a while has saved nothing up."""
        if not self._left:
            self._tag = max(self._tag, virtual_time) + self._cost
            self._left = self._items
        return self._tag

    def count_served(self) -> None:
        """An item was taken."""
        self._left -= 1


class _PriorityClass(Generic[T]):
    """The claims of one priority."""

    def __init__(self, finish_tag: _FinishTag) -> None:
        self.finish_tag = finish_tag
        self.length = 0
        self._virtual_time = 0.0
        self._entry_numbers: Iterator[int] = count()
        self._by_finish_tag: list[
            tuple[float, int, Flow[T]]
        ] = []  # by tag; of a claim, only its last entry counts
        self._by_deadline: list[tuple[float, int, Flow[T]]] = []  # by deadline
        self._deadline_may_preempt = True

    def put(self, flow: Flow[T], item: T) -> None:
        flow.items.append(item)
        self.length += 1
        if flow.heap_entry < 0:
            self._push(flow)
        if flow.deadline is not None and not flow.in_deadline_heap:
            flow.in_deadline_heap = True
            heappush(self._by_deadline, (flow.deadline, next(self._entry_numbers), flow))

    def drop(self, flow: Flow[T]) -> None:
        self.length -= len(flow.items)
        flow.items.clear()
        flow.heap_entry = -1

    def take(self, horizon: float) -> T:
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
        flow.heap_entry = next(self._entry_numbers)
        heappush(self._by_finish_tag, (flow.finish_tag.at(self._virtual_time), flow.heap_entry, flow))

    def _next_by_tag(self) -> Flow[T]:
        self._deadline_may_preempt = True
        while (first := self._by_finish_tag[0])[2].heap_entry != first[1]:
            heappop(self._by_finish_tag)
        self._virtual_time = max(self._virtual_time, first[0])
        return first[2]

    def _next_by_deadline(self, horizon: float) -> Flow[T] | None:
        """The claim with the first deadline, if that is near and the last one taken was another's turn."""
        if not self._deadline_may_preempt:
            return None
        while self._by_deadline and not self._by_deadline[0][2].items:
            heappop(self._by_deadline)[2].in_deadline_heap = False
        if not self._by_deadline or self._by_deadline[0][0] > horizon:
            return None
        self._deadline_may_preempt = False
        return self._by_deadline[0][2]
