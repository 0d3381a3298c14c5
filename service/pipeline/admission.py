"""Who is let in: so many videos at once, so many of one client, and none that would be answered too late."""

import statistics
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from tubelet.service.config.config import ServerConfig
from tubelet.service.errors import ClientOverloaded, DeadlineTooShort, Overloaded

T = TypeVar("T")

_REMEMBERED = 64  # videos answered last
_ENOUGH = 8  # of them to know what a video costs
_SURE = 0.75  # of the time that is left: what is expected to take all of it is late as often as not
_WRONG = 0.5  # an expectation of which a video takes less than so much did not hold
_SILENT_S = 1.0  # a client of whom nothing came for so long is not at it


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is, and for how long an answer is of use."""

    name: str = ""
    remaining_s: float | None = None  # None: for as long as it takes


@dataclass(slots=True, eq=False)
class Place:
    """One of the videos in flight: when it came, so many were, itself included."""

    position: int
    deadline: float | None = None  # monotonic: an answer is of no use afterwards
    late_s: float | None = None  # a trial, let in although expected to take so long, which is too long
    took_s: float | None = None  # wall seconds that the server worked for it, once it is answered
    gave_up_s: float | None = None  # or that it had worked when the client would not wait any longer
    awaited_since: float | None = field(default_factory=monotonic)  # None: the client is not waited for

    async def heard(self, chunks: AsyncIterator[T]) -> AsyncIterator[T]:
        """The chunks as they come, up to the last of which the client is waited for."""
        async for chunk in chunks:
            self.awaited_since = None
            yield chunk
            self.awaited_since = monotonic()
        self.awaited_since = None

    @property
    def is_silent(self) -> bool:
        return self.awaited_since is not None and monotonic() - self.awaited_since >= _SILENT_S


class Admission:
    """Places for videos in flight.

    What the n-th video in flight takes, divided by n, is what one costs the whole machine, however it shares
    its time (Little's law). The median of the last ones tells when one more would be answered.

    Who is refused teaches nothing, so one at a time is let in although it is expected to be late: a trial.
    Each that is answered much sooner makes room for one more, until one is late: expectations that do not
    hold soon keep nobody out, and where they hold next to nothing is lost. One whose client is silent costs
    nothing and tells nothing: the next one need not wait for it.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._in_flight = 0
        self._trials: set[Place] = set()  # among them
        self._max_trials = 1
        self._by_client: Counter[str] = Counter()
        self._costs_s: deque[float] = deque(maxlen=_REMEMBERED)

    @contextmanager
    def place(self, caller: Caller) -> Iterator[Place]:
        """
        Raises:
            Overloaded, ClientOverloaded, DeadlineTooShort.
        """
        self._check_limits(caller)
        deadline = None if caller.remaining_s is None else monotonic() + caller.remaining_s
        place = Place(self._in_flight + 1, deadline, self._late_s(caller))
        self._in_flight += 1
        if place.late_s is not None:
            self._trials.add(place)
        self._by_client[caller.name] += 1
        try:
            yield place
        finally:
            self._in_flight -= 1
            self._trials.discard(place)
            self._by_client[caller.name] -= 1
            if not self._by_client[caller.name]:
                del self._by_client[caller.name]
            self._learn(place)

    def _learn(self, place: Place) -> None:
        if place.took_s is not None:
            self._costs_s.append(place.took_s / place.position)
            if place.late_s is not None and place.took_s < _WRONG * place.late_s:
                self._max_trials += 1
        elif place.gave_up_s is not None:
            # It would have cost more than that; nobody who leaves early makes videos look cheap, or dear.
            if self._costs_s and place.gave_up_s / place.position > statistics.median(self._costs_s):
                self._costs_s.append(place.gave_up_s / place.position)
            if place.late_s is not None:
                self._max_trials = 1

    def _check_limits(self, caller: Caller) -> None:
        config = self._config
        if self._in_flight >= config.max_videos_in_flight:
            raise Overloaded(
                f"{self._in_flight} videos are in flight, the limit is {config.max_videos_in_flight}; "
                f"try again in {config.retry_after_s:g} s",
                retry_after_s=config.retry_after_s,
                limit=config.max_videos_in_flight,
                value=self._in_flight,
            )
        of_client = self._by_client[caller.name]
        if config.max_videos_per_client is not None and of_client >= config.max_videos_per_client:
            raise ClientOverloaded(
                f"{of_client} videos of this client are in flight, its limit is "
                f"{config.max_videos_per_client}; try again in {config.retry_after_s:g} s",
                retry_after_s=config.retry_after_s,
                limit=config.max_videos_per_client,
                value=of_client,
            )

    def _late_s(self, caller: Caller) -> float | None:
        """How long a trial is expected to take; None for who is expected to be in time.

        Raises:
            DeadlineTooShort
        """
        if caller.remaining_s is None or len(self._costs_s) < _ENOUGH:
            return None
        expected_s = statistics.median(self._costs_s) * (self._in_flight + 1)
        if expected_s <= _SURE * caller.remaining_s:
            return None
        if sum(not trial.is_silent for trial in self._trials) < self._max_trials:
            return expected_s
        raise DeadlineTooShort(
            f"an answer is expected after {expected_s:.2f} s, the call's deadline is in "
            f"{caller.remaining_s:.2f} s",
            retry_after_s=expected_s,
            limit=f"{caller.remaining_s:.3f}",
            value=f"{expected_s:.3f}",
        )
