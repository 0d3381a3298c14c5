"""What each device computes next, and which devices are fit to: pure bookkeeping, on nobody's clock.

The executor drives it with threads, ``tests/bench/simulate.py`` with simulated time.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tubelet.service.engine.stage_queue import Item, Lane
from tubelet.service.fair_queue import Claim


class Crowd:
    """The ``cores`` that decoders and ``devices`` share, each of which counts as one while it computes.

    Where all are at work, a batch more would only take its core from the others, and units cost the least in
    batches that are full. Whatever is queued is taken the moment a core is free. Pure bookkeeping: the caller
    holds a lock.
    """

    def __init__(self, cores: int, devices: Iterable[str]) -> None:
        self.devices = frozenset(devices)
        self.decoding = 0  # cores that decoders are at work on
        self._cores = cores
        self._computing: set[str] = set()

    def begin(self, device: str) -> None:
        """It computes a batch."""
        if device in self.devices:
            self._computing.add(device)

    def end(self, device: str) -> None:
        """It computes nothing, whether or not it did."""
        self._computing.discard(device)

    @property
    def is_idle(self) -> bool:
        """Whether neither decoders nor devices are at work."""
        return not self.decoding and not self._computing

    def is_in_the_way_of(self, device: str) -> bool:
        """Has it no core of its own to compute on?"""
        return device in self.devices and self.decoding + len(self._computing) >= self._cores


_STRIKES = 3  # batches in a row that one device fails and another computes


@dataclass(frozen=True, slots=True)
class Batch:
    lane: Lane[Any, Any]
    items: Sequence[Item[Any, Any]]
    failed_on: tuple[str, ...] = ()


class Schedule:
    """The lanes of all models, from which all devices draw.

    Windows go before units: they are cheap, and a finished one is a result that a client waits for. A batch
    that fails is tried once more, on another device that has its model, if there is one. Whoever fails
    ``_STRIKES`` batches in a row that others then compute gets none any more. Where a ``crowd`` is in a
    device's way, units wait until their batch is ripe.
    """

    def __init__(self, devices: Iterable[str], crowd: Crowd | None = None) -> None:
        self.devices = set(devices)  # those in service
        self.crowd = crowd or Crowd(0, ())
        self._lanes: list[Lane[Any, Any]] = []
        self._retries: deque[Batch] = deque()
        self._strikes: Counter[str] = Counter()
        self._turn = 0

    def add(self, lane: Lane[Any, Any]) -> None:
        self._lanes.append(lane)

    def remove(self, lane: Lane[Any, Any]) -> None:
        """Nothing is submitted to it any more."""
        self._lanes.remove(lane)

    def has(self, lane: Lane[Any, Any]) -> bool:
        return lane in self._lanes

    def submit(self, lane: Lane[Any, Any], claim: Claim[Any], item: Item[Any, Any]) -> None:
        lane.put(claim, item)

    def queued(self) -> dict[tuple[str, str], int]:
        """How much waits in each stage of each model, of all its versions."""
        lengths: Counter[tuple[str, str]] = Counter()
        for lane in self._lanes:
            lengths[lane.stage, lane.model] += len(lane.queue)
        return lengths

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued, decoded or computed on the processor."""
        return self.crowd.is_idle and not self._retries and not any(len(lane.queue) for lane in self._lanes)

    def take(self, device: str, now: float) -> Batch | None:
        """The next batch for a device that is free."""
        self.crowd.end(device)
        batch = self._next_batch(device, now)
        if batch is not None:
            self.crowd.begin(device)
        return batch

    def wait_s(self, device: str, now: float) -> float | None:
        """A device that was given nothing is to ask again after so long; None: once something has changed."""
        if not self.crowd.is_in_the_way_of(device):
            return None
        waiting = [lane.ripe_at - now for lane in self._waiting(device)]
        return max(0.0, min(waiting)) if waiting else None

    def _next_batch(self, device: str, now: float) -> Batch | None:
        for batch in self._retries:
            if device not in batch.failed_on and device in batch.lane.runs:
                self._retries.remove(batch)
                return batch
        while (lane := self._next_lane(device, now)) is not None:
            if items := lane.next_batch(now):
                return Batch(lane, items)
        return None

    def succeeded(self, batch: Batch, device: str, seconds: float) -> None:
        batch.lane.learn(seconds, len(batch.items))
        self._strikes[device] = 0
        for other in batch.failed_on:
            self._strikes[other] += 1
            if self._strikes[other] >= _STRIKES:
                self.lose(other)

    def failed(self, batch: Batch, device: str) -> bool:
        """Will another device try it?"""
        others = (self.devices & batch.lane.runs.keys()) - {device}
        if not others or batch.failed_on:
            return False
        self._retries.append(Batch(batch.lane, batch.items, (device,)))
        return True

    def lose(self, device: str) -> None:
        """A device is out of service."""
        self.devices.discard(device)
        self.crowd.end(device)

    def stranded(self) -> list[Batch]:
        """Take out what no device that is left can compute."""
        found = [batch for batch in self._retries if self.devices <= {*batch.failed_on}]
        for batch in found:
            self._retries.remove(batch)
        for lane in self._lanes:
            while not self.devices & lane.runs.keys() and (items := lane.next_batch(0.0)):
                found.append(Batch(lane, items))
        return found

    def _waiting(self, device: str) -> list[Lane[Any, Any]]:
        return [lane for lane in self._lanes if len(lane.queue) and device in lane.runs]

    def _next_lane(self, device: str, now: float) -> Lane[Any, Any] | None:
        waiting = self._waiting(device)
        if self.crowd.is_in_the_way_of(device):
            waiting = [lane for lane in waiting if lane.is_ripe(now)]
        if not waiting:
            return None
        windows = [lane for lane in waiting if lane.stage == "classify"]
        candidates = windows or waiting
        self._turn += 1
        return candidates[self._turn % len(candidates)]
