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

_HISTORY = 64  # videos answered last
_MIN_SAMPLES = 8  # of them to know what a video costs
_DEADLINE_MARGIN = (
    0.75  # of the time that is left: what is expected to take all of it is late as often as not
)
_OVERESTIMATE_RATIO = 0.5  # an expectation of which a video takes less than so much did not hold
_CLIENT_IDLE_S = 1.0  # a client of whom nothing came for so long is not at it


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is, and for how long an answer is of use."""

    name: str = ""
    remaining_s: float | None = None  # None: for as long as it takes


@dataclass(slots=True, eq=False)
class AdmissionTicket:
    """One of the videos in flight: when it came, so many were, itself included."""

    position: int
    deadline: float | None = None  # monotonic: an answer is of no use afterwards
    predicted_s: float | None = None  # a trial, let in although expected to take so long, which is too long
    server_s: float | None = None  # wall seconds that the server worked for it, once it is answered
    server_s_at_cancel: float | None = None  # or that it had worked when the client would not wait any longer
    waiting_for_client_since: float | None = field(
        default_factory=monotonic
    )  # None: the client is not waited for

    async def track_chunks(self, chunks: AsyncIterator[T]) -> AsyncIterator[T]:
        """The chunks as they come, up to the last of which the client is waited for."""
        async for chunk in chunks:
            self.waiting_for_client_since = None
            yield chunk
            self.waiting_for_client_since = monotonic()
        self.waiting_for_client_since = None

    @property
    def is_client_idle(self) -> bool:
        return (
            self.waiting_for_client_since is not None
            and monotonic() - self.waiting_for_client_since >= _CLIENT_IDLE_S
        )


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
        self._trials: set[AdmissionTicket] = set()  # among them
        self._max_trials = 1
        self._by_client: Counter[str] = Counter()
        self._costs_s: deque[float] = deque(maxlen=_HISTORY)

    @contextmanager
    def admit(self, caller: Caller) -> Iterator[AdmissionTicket]:
        """
        Raises:
            Overloaded, ClientOverloaded, DeadlineTooShort.
        """
        self._check_limits(caller)
        deadline = None if caller.remaining_s is None else monotonic() + caller.remaining_s
        ticket = AdmissionTicket(self._in_flight + 1, deadline, self._predict_s(caller))
        self._in_flight += 1
        if ticket.predicted_s is not None:
            self._trials.add(ticket)
        self._by_client[caller.name] += 1
        try:
            yield ticket
        finally:
            self._in_flight -= 1
            self._trials.discard(ticket)
            self._by_client[caller.name] -= 1
            if not self._by_client[caller.name]:
                del self._by_client[caller.name]
            self._record(ticket)

    def _record(self, ticket: AdmissionTicket) -> None:
        if ticket.server_s is not None:
            self._costs_s.append(ticket.server_s / ticket.position)
            if ticket.predicted_s is not None and ticket.server_s < _OVERESTIMATE_RATIO * ticket.predicted_s:
                self._max_trials += 1
        elif ticket.server_s_at_cancel is not None:
            # It would have cost more than that; nobody who leaves early makes videos look cheap, or dear.
            if self._costs_s and ticket.server_s_at_cancel / ticket.position > statistics.median(
                self._costs_s
            ):
                self._costs_s.append(ticket.server_s_at_cancel / ticket.position)
            if ticket.predicted_s is not None:
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

    def _predict_s(self, caller: Caller) -> float | None:
        """How long a trial is expected to take; None for who is expected to be in time.

        Raises:
            DeadlineTooShort
        """
        if caller.remaining_s is None or len(self._costs_s) < _MIN_SAMPLES:
            return None
        expected_s = statistics.median(self._costs_s) * (self._in_flight + 1)
        if expected_s <= _DEADLINE_MARGIN * caller.remaining_s:
            return None
        if sum(not trial.is_client_idle for trial in self._trials) < self._max_trials:
            return expected_s
        raise DeadlineTooShort(
            f"an answer is expected after {expected_s:.2f} s, the call's deadline is in "
            f"{caller.remaining_s:.2f} s",
            retry_after_s=expected_s,
            limit=f"{caller.remaining_s:.3f}",
            value=f"{expected_s:.3f}",
        )
