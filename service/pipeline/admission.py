"""Admission control: limits on videos in flight, in total and per client, and by predicted deadline."""

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

_HISTORY = 64  # answered videos whose cost is remembered
_MIN_SAMPLES = 8  # answered videos that a prediction needs
_DEADLINE_MARGIN = 0.75  # of the time left, at most; at 1, half of the answers would be late
_OVERESTIMATE_RATIO = 0.5  # a prediction was wrong if the video took less than this part of it
_CLIENT_IDLE_S = 1.0  # without a chunk for this long, a client counts as idle


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of a call, and the seconds until the call's deadline; None if it has none."""

    name: str = ""
    remaining_s: float | None = None


@dataclass(slots=True, eq=False)
class AdmissionTicket:
    """The permission for one video in flight; ``position`` counts the videos in flight when it came."""

    position: int
    deadline: float | None = None  # monotonic time of the call's deadline
    predicted_s: float | None = None  # of a trial, which is predicted to be late
    server_s: float | None = None  # time that the server needed, once the video is answered
    server_s_at_cancel: float | None = None  # time that the server had needed when the client cancelled
    waiting_for_client_since: float | None = field(default_factory=monotonic)  # None: not waiting

    async def track_chunks(self, chunks: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield ``chunks``, and record since when the server has been waiting for the next one."""
        async for chunk in chunks:
            self.waiting_for_client_since = None
            yield chunk
            self.waiting_for_client_since = monotonic()
        self.waiting_for_client_since = None

    @property
    def is_client_idle(self) -> bool:
        """Whether the client has sent nothing for ``_CLIENT_IDLE_S``."""
        return (
            self.waiting_for_client_since is not None
            and monotonic() - self.waiting_for_client_since >= _CLIENT_IDLE_S
        )


class Admission:
    """Gives out tickets for videos in flight, or rejects a call with an error.

    The time that the n-th video in flight takes, divided by n, is what one video costs the whole machine,
    however the videos share it (Little's law). The median over the last videos predicts the time of one more.

    Rejected requests give no samples. So that a wrong prediction can correct itself, one request at a time is
    admitted although it is predicted to be late: a trial. Each trial that is answered much sooner than
    predicted allows one more at a time, until one is late. A trial whose client is idle does not count, since
    it costs nothing and gives no sample.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._in_flight = 0
        self._trials: set[AdmissionTicket] = set()  # those of the tickets in flight
        self._max_trials = 1
        self._by_client: Counter[str] = Counter()
        self._costs_s: deque[float] = deque(maxlen=_HISTORY)

    @contextmanager
    def admit(self, caller: Caller) -> Iterator[AdmissionTicket]:
        """Admit a video of ``caller`` for as long as the context lasts.

        Raises:
            Overloaded, ClientOverloaded, DeadlineTooShort: the video is rejected.
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
        """Take the time of a video that has ended as a sample."""
        if ticket.server_s is not None:
            self._costs_s.append(ticket.server_s / ticket.position)
            if ticket.predicted_s is not None and ticket.server_s < _OVERESTIMATE_RATIO * ticket.predicted_s:
                self._max_trials += 1
        elif ticket.server_s_at_cancel is not None:
            # A cancelled video would have cost more than that: it is a sample only if it raises the median.
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
        """Return the predicted time if the video must be a trial; None if it is predicted to be in time.

        Raises:
            DeadlineTooShort: the answer is predicted to be late, and no trial is free.
        """
        if caller.remaining_s is None or len(self._costs_s) < _MIN_SAMPLES:
            return None
        expected_s = statistics.median(self._costs_s) * (self._in_flight + 1)
        if expected_s <= _DEADLINE_MARGIN * caller.remaining_s:
            return None
        if sum(not trial.is_client_idle for trial in self._trials) < self._max_trials:
            return expected_s
        raise DeadlineTooShort(
            f"the answer is expected after {expected_s:.2f} s, but the call's deadline is in "
            f"{caller.remaining_s:.2f} s",
            retry_after_s=expected_s,
            limit=f"{caller.remaining_s:.3f}",
            value=f"{expected_s:.3f}",
        )
