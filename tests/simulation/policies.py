"""Scheduling policies: the server's own fair queueing, and those that it is compared with."""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar

from tests.simulation.videos import Video
from tubelet.service.fair_queue import FairQueue, Flow

T = TypeVar("T")


class SizedFlow(Flow[T]):
    """A flow that knows the total number of units of its video, for policies that need it."""

    def __init__(self, video: Video, deadline: float | None, quantum: int = 1) -> None:
        super().__init__(video.priority, deadline, quantum, video.identity)
        self.units = video.units


class FirstCome(FairQueue[T]):
    """First come, first served, as other servers do it."""

    def __init__(self) -> None:
        super().__init__()
        self._items: deque[T] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, flow: Flow[T], item: T) -> None:
        self._items.append(item)

    def take(self, now: float = 0.0, item_s: float = 0.0) -> T:
        return self._items.popleft()


class ShortestFirst(FairQueue[T]):
    """Shortest video first: the best mean latency, but long videos may starve."""

    def __init__(self) -> None:
        super().__init__()
        self._items: list[tuple[int, int, T]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, flow: Flow[T], item: T) -> None:
        assert isinstance(flow, SizedFlow)
        heappush(self._items, (flow.units, next(self._numbers), item))

    def take(self, now: float = 0.0, item_s: float = 0.0) -> T:
        return heappop(self._items)[2]


POLICIES: dict[str, Callable[[], FairQueue[Any]]] = {
    "fair share": FairQueue,
    "first come": FirstCome,
    "shortest first": ShortestFirst,
}
