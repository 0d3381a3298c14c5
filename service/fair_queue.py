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
_NEAR = (
    2.0  # a deadline is near when what is queued may take so much of the time until then, and it is uncertain
)


class Claim(Generic[T]):
    """One video's items in a queue. ``deadline`` is on the clock that ``take`` is told of."""

    def __init__(
        self, priority: Priority = Priority.NORMAL, deadline: float | None = None, turn: int = 1
    ) -> None:
        self.priority = priority
        self.deadline = deadline
        self.items: deque[T] = deque()
        self.turn = _Turn(turn, turn)
        self.entry = -1  # of the line that it stands in; -1: of none
        self.is_due = False  # it stands in the line of deadlines

    def goes_before(self, other: "Claim[T]") -> bool:
        """By its priority, or by its deadline within that; not by whose turn it is."""
        return self._rank < other._rank

    @property
    def _rank(self) -> tuple[int, float]:
        return -WEIGHTS[self.priority], inf if self.deadline is None else self.deadline


class FairQueue(Generic[T]):
    """The items of all claims."""

    def __init__(self) -> None:
        self._levels = {priority: _Level[T](_Turn(1, 1 / weight)) for priority, weight in WEIGHTS.items()}
        self._clock = 0.0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, claim: Claim[T], item: T) -> None:
        self._levels[claim.priority].put(claim, item)
        self._length += 1

    def drop(self, claim: Claim[T]) -> None:
        """Nobody waits for its items any more."""
        self._length -= len(claim.items)
        self._levels[claim.priority].drop(claim)

    def take(self, now: float = 0.0, item_s: float = 0.0) -> T:
        """The next item; one takes about ``item_s`` seconds."""
        level = min((level for level in self._levels.values() if level.length), key=self._tag)
        self._clock = max(self._clock, self._tag(level))
        level.turn.use()
        horizon = now + _NEAR * item_s * self._length
        self._length -= 1
        return level.take(horizon)

    def _tag(self, level: "_Level[T]") -> float:
        return level.turn.tag_at(self._clock)


class _Turn:
    """Where somebody's turn ends: for ``items`` of them, ``cost`` virtual seconds after the last one."""

    def __init__(self, items: int, cost: float) -> None:
        self._items, self._cost = items, cost
        self._tag = 0.0
        self._left = 0

    def tag_at(self, clock: float) -> float:
        """The tag of the next item. One that had nothing for a while has saved nothing up."""
        if not self._left:
            self._tag = max(self._tag, clock) + self._cost
            self._left = self._items
        return self._tag

    def use(self) -> None:
        """An item was taken."""
        self._left -= 1


class _Level(Generic[T]):
    """The claims of one priority."""

    def __init__(self, turn: _Turn) -> None:
        self.turn = turn
        self.length = 0
        self._clock = 0.0
        self._numbers: Iterator[int] = count()
        self._line: list[tuple[float, int, Claim[T]]] = []  # by tag; of a claim, only its last entry counts
        self._due: list[tuple[float, int, Claim[T]]] = []  # by deadline
        self._may_hurry = True

    def put(self, claim: Claim[T], item: T) -> None:
        claim.items.append(item)
        self.length += 1
        if claim.entry < 0:
            self._stand(claim)
        if claim.deadline is not None and not claim.is_due:
            claim.is_due = True
            heappush(self._due, (claim.deadline, next(self._numbers), claim))

    def drop(self, claim: Claim[T]) -> None:
        self.length -= len(claim.items)
        claim.items.clear()
        claim.entry = -1

    def take(self, horizon: float) -> T:
        claim = self._in_a_hurry(horizon) or self._first()
        tag = claim.turn.tag_at(self._clock)
        claim.turn.use()
        item = claim.items.popleft()
        self.length -= 1
        if not claim.items:
            claim.entry = -1
        elif claim.turn.tag_at(self._clock) != tag:
            self._stand(claim)
        return item

    def _stand(self, claim: Claim[T]) -> None:
        claim.entry = next(self._numbers)
        heappush(self._line, (claim.turn.tag_at(self._clock), claim.entry, claim))

    def _first(self) -> Claim[T]:
        self._may_hurry = True
        while (first := self._line[0])[2].entry != first[1]:
            heappop(self._line)
        self._clock = max(self._clock, first[0])
        return first[2]

    def _in_a_hurry(self, horizon: float) -> Claim[T] | None:
        """The claim with the first deadline, if that is near and the last one taken was another's turn."""
        if not self._may_hurry:
            return None
        while self._due and not self._due[0][2].items:
            heappop(self._due)[2].is_due = False
        if not self._due or self._due[0][0] > horizon:
            return None
        self._may_hurry = False
        return self._due[0][2]
