"""Admission control: quotas, limits on videos in flight, in total and per client, and predicted deadlines."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from tubelet.service.config.config import ServerConfig
from tubelet.service.config.identities import Identity, unrestricted
from tubelet.service.errors import ClientOverloaded, DeadlineTooShort, Overloaded, QuotaExceeded
from tubelet.service.rpc.quotas import Quotas, nothing_allowed
from tubelet.service.types.meter import UNMETERED, Meter

T = TypeVar("T")

_HISTORY = 64  # answered videos whose cost is remembered
_MIN_SAMPLES = 8  # answered videos that a prediction needs
_DEADLINE_MARGIN = 0.75  # of the time left, at most; at 1, half of the answers would be late
_OVERESTIMATE_RATIO = 0.5  # a prediction was wrong if the video took less than this part of it
_CLIENT_IDLE_S = 1.0  # without a chunk for this long, a client counts as idle
_ANYBODY = unrestricted()


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of a call, its identity, and the seconds until the call's deadline; None if it has none."""

    name: str = ""
    remaining_s: float | None = None
    identity: Identity = _ANYBODY


class Admission:
    """Gives out tickets for videos in flight, or rejects a call with an error."""

    def __init__(self, config: ServerConfig) -> None:
        self.quotas = Quotas()
        self._config = config
        self._explained = 0
        self._limiter = _Limiter(config)
        self._predictor = _Predictor()

    @contextmanager
    def admit(self, caller: Caller) -> Iterator[AdmissionTicket]:
        """Admit a video of ``caller`` for as long as the context lasts.

        Raises:
            QuotaExceeded, Overloaded, ClientOverloaded, DeadlineTooShort: the video is rejected.
        """
        usage = self.quotas.of(caller.identity)
        if usage is not None:
            usage.check()
        with (
            self._limiter.hold(caller) as position,
            self._predictor.ticket(position, caller.remaining_s) as ticket,
        ):
            ticket.meter = Meter(caller.identity.name) if usage is None else usage.begin()
            yield ticket

    @contextmanager
    def admit_explanation(self) -> Iterator[None]:
        """Count a video that was admitted as one that is explained, for as long as the context lasts.

        Explanations go last, so they take long; this leaves room in flight for videos to classify.

        Raises:
            Overloaded: too many are explained.
        """
        config = self._config
        if self._explained >= config.max_videos_explained:
            raise Overloaded(
                f"{self._explained} videos are being explained, the limit is {config.max_videos_explained}; "
                f"try again in {config.retry_after_s:g} s",
                retry_after_s=config.retry_after_s,
                limit=config.max_videos_explained,
                value=self._explained,
            )
        self._explained += 1
        try:
            yield
        finally:
            self._explained -= 1


class _Limiter:
    """Counts the videos in flight, in total and per client, and enforces their limits."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._by_client: Counter[str] = Counter()
        self._by_identity: Counter[str] = Counter()

    @contextmanager
    def hold(self, caller: Caller) -> Iterator[int]:
        """Count a video of ``caller`` until the context ends; yield its position.

        Raises:
            Overloaded, ClientOverloaded, QuotaExceeded: a limit is reached.
        """
        self._check(caller)
        counts = (self._by_client, caller.name), (self._by_identity, caller.identity.name)
        for counter, name in counts:
            counter[name] += 1
        try:
            yield self._position(caller.identity.name)
        finally:
            for counter, name in counts:
                counter[name] -= 1
                if not counter[name]:
                    del counter[name]

    def _position(self, identity: str) -> int:
        """Return how many videos in flight share the time of the last one of ``identity``, itself included.

        Without identities all do. But identities take turns: of each, only as many as this one has.
        """
        return min(self._by_identity.total(), self._by_identity[identity] * len(self._by_identity))

    def _check(self, caller: Caller) -> None:
        config, in_flight, of_client = self._config, self._by_client.total(), self._by_client[caller.name]
        quotas = caller.identity.quotas
        quota = quotas and quotas.videos_in_flight
        if quota is not None:
            _check_quota(caller.identity.name, quota, of_client, config.retry_after_s)
        if in_flight >= config.max_videos_in_flight:
            raise Overloaded(
                f"{in_flight} videos are in flight, the limit is {config.max_videos_in_flight}; "
                f"try again in {config.retry_after_s:g} s",
                retry_after_s=config.retry_after_s,
                limit=config.max_videos_in_flight,
                value=in_flight,
            )
        of_each = config.max_videos_per_client if quota is None else None
        if of_each is not None and of_client >= of_each:
            raise ClientOverloaded(
                f"{of_client} videos of this client are in flight, its limit is {of_each}; "
                f"try again in {config.retry_after_s:g} s",
                retry_after_s=config.retry_after_s,
                limit=of_each,
                value=of_client,
            )


def _check_quota(name: str, quota: int, in_flight: int, retry_after_s: float) -> None:
    """Check the quota of videos in flight of the identity ``name``.

    Raises:
        QuotaExceeded: it is reached.
    """
    if not quota:
        raise nothing_allowed(name, "videos_in_flight")
    if in_flight >= quota:
        raise QuotaExceeded(
            f"{in_flight} videos of {name} are in flight, its quota videos_in_flight is {quota}; try again "
            f"in {retry_after_s:g} s",
            retry_after_s=retry_after_s,
            quota="videos_in_flight",
            limit=quota,
            value=in_flight,
        )


class _Predictor:
    """Predicts whether an answer will be in time, from the cost of the last videos.

    The time that the n-th video in flight takes, divided by n, is what one video costs the whole machine,
    however the videos share it (Little's law). The median over the last videos predicts the time of one more.
    Where identities take turns, n is less for who has few in flight.

    Rejected requests give no samples. So that a wrong prediction can correct itself, one request at a time is
    admitted although it is predicted to be late: a trial. Each trial that is answered much sooner than
    predicted allows one more at a time, until one is late. A trial whose client is idle does not count, since
    it costs nothing and gives no sample.
    """

    def __init__(self) -> None:
        self._costs_s: deque[float] = deque(maxlen=_HISTORY)
        self._trials: set[AdmissionTicket] = set()  # those of the tickets in flight
        self._max_trials = 1

    @contextmanager
    def ticket(self, position: int, remaining_s: float | None) -> Iterator[AdmissionTicket]:
        """Yield the ticket of the video that is the n-th in flight, n being its ``position``.

        Raises:
            DeadlineTooShort: the answer is predicted to be late, and no trial is free.
        """
        deadline = None if remaining_s is None else monotonic() + remaining_s
        ticket = AdmissionTicket(self, position, deadline, self._predict_s(position, remaining_s))
        if ticket.predicted_s is not None:
            self._trials.add(ticket)
        try:
            yield ticket
        finally:
            self._trials.discard(ticket)

    def record_answer(self, ticket: AdmissionTicket, server_s: float) -> None:
        """Take the time of a video that was answered as a sample."""
        self._costs_s.append(server_s / ticket.position)
        if ticket.predicted_s is not None and server_s < _OVERESTIMATE_RATIO * ticket.predicted_s:
            self._max_trials += 1

    def record_cancel(self, ticket: AdmissionTicket, server_s: float) -> None:
        """Take the time of a cancelled video, which would have cost more, if that raises the median."""
        cost_s = server_s / ticket.position
        if self._costs_s and cost_s > statistics.median(self._costs_s):
            self._costs_s.append(cost_s)
        if ticket.predicted_s is not None:
            self._max_trials = 1

    def _predict_s(self, position: int, remaining_s: float | None) -> float | None:
        """Return the predicted time if the video must be a trial; None if it is predicted to be in time.

        Raises:
            DeadlineTooShort: the answer is predicted to be late, and no trial is free.
        """
        if remaining_s is None or len(self._costs_s) < _MIN_SAMPLES:
            return None
        expected_s = statistics.median(self._costs_s) * position
        if expected_s <= _DEADLINE_MARGIN * remaining_s:
            return None
        if sum(not trial.is_client_idle for trial in self._trials) < self._max_trials:
            return expected_s
        raise DeadlineTooShort(
            f"the answer is expected after {expected_s:.2f} s, but the call's deadline is in "
            f"{remaining_s:.2f} s",
            retry_after_s=expected_s,
            limit=f"{remaining_s:.3f}",
            value=f"{expected_s:.3f}",
        )


@dataclass(slots=True, eq=False)
class AdmissionTicket:
    """The permission for one video in flight; ``position`` is the number of videos that share its time.

    Its holder says how the request ended: that is what later predictions are made from.
    """

    _predictor: _Predictor = field(repr=False)
    position: int
    deadline: float | None  # monotonic time of the call's deadline
    predicted_s: float | None  # of a trial, which is predicted to be late
    waiting_for_client_since: float | None = field(default_factory=monotonic)  # None: not waiting
    meter: Meter = UNMETERED

    @property
    def is_client_idle(self) -> bool:
        """Whether the client has sent nothing for ``_CLIENT_IDLE_S``."""
        since = self.waiting_for_client_since
        return since is not None and monotonic() - since >= _CLIENT_IDLE_S

    async def track_chunks(self, chunks: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield ``chunks``, and record since when the server has been waiting for the next one."""
        async for chunk in chunks:
            self.waiting_for_client_since = None
            yield chunk
            self.waiting_for_client_since = monotonic()
        self.received()

    def received(self) -> None:
        """Record that the client has sent all that the server needs."""
        self.waiting_for_client_since = None

    def answered(self, server_s: float) -> None:
        """Record that the server needed ``server_s`` for the answer."""
        self._predictor.record_answer(self, server_s)

    def cancelled(self, server_s: float) -> None:
        """Record that the client cancelled after ``server_s`` of the server's time."""
        self._predictor.record_cancel(self, server_s)
