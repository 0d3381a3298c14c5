"""A simulated server: real admission control and scheduling, but costs instead of work, in simulated time.

``rpc.admission``, ``fair_queue`` and ``engine.scheduler`` decide as in the real server. Decoding a unit
only takes seconds of a core, and a batch seconds of a device. Left out are uploads (a video is complete when
it arrives), the embedding cache, and failures.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from tests.simulation.clock import ROUNDING_S, Clock, Cores
from tests.simulation.policies import SizedFlow
from tests.simulation.videos import DeviceCosts, Machine, Video
from tubelet.service.config.config import DecodeConfig, ServerConfig
from tubelet.service.config.identities import unrestricted
from tubelet.service.decode.pool.long_videos import most_long_videos
from tubelet.service.engine.batch_tuner import BatchCost, BatchTuner, BatchTuning
from tubelet.service.engine.scheduler import Batch, CpuContention, Scheduler
from tubelet.service.engine.stage_queue import EngineCosts, Item, StageQueue
from tubelet.service.errors import ClientOverloaded, DeadlineTooShort, Overloaded
from tubelet.service.fair_queue import FairQueue, Flow
from tubelet.service.rpc.admission import Admission, AdmissionTicket, Caller


@dataclass(eq=False, slots=True)
class _Request:
    """A video that was admitted."""

    video: Video
    ticket: AdmissionTicket
    stay: AbstractContextManager[AdmissionTicket]
    worker: Flow[Any]  # in the queue for one
    units: Flow[Any]
    windows: Flow[Any]
    on_end: Callable[[], None]
    engine_costs: EngineCosts = field(default_factory=EngineCosts)
    pending: set[asyncio.Future[Any]] = field(default_factory=set)
    encoded: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    classified: int = 0
    decoded: int = 0
    in_slots: int = 0
    has_decoder: bool = False
    is_blocked: bool = False
    is_long: bool = False
    weight: float = 1.0
    decoder_since_s: float = 0.0


class Server:
    """A simulated server. ``submit`` videos, then run the clock."""

    def __init__(
        self,
        clock: Clock,
        machine: Machine,
        costs: DeviceCosts,
        policy: Callable[[], FairQueue[Any]] = FairQueue,
        admission: ServerConfig | None = None,
    ) -> None:
        self._clock, self._machine, self._costs = clock, machine, costs
        self._admission = Admission(admission or ServerConfig())
        self._config = DecodeConfig(workers=machine.decoders)
        threads = machine.decoders + machine.devices * machine.device_threads
        self._cores = Cores(clock, machine.cores, are_enough=threads <= machine.cores)
        devices = [f"device {number}" for number in range(machine.devices)]
        run_on: dict[str, Any] = dict.fromkeys(devices)
        self._contention = CpuContention(machine.cores, devices if machine.device_threads else ())
        self._scheduler = Scheduler(devices, self._contention)
        most, windows = machine.max_batch_units, machine.max_batch_windows
        tuning = BatchTuner(most).run(lambda size: BatchCost(costs.encode_s(size), costs.encode_s(size)))
        self._encode: StageQueue[Any, Any] = StageQueue(
            "model", "encode", replace(tuning, max_size=most, item_s=costs.unit_s), run_on, policy()
        )
        self._classify: StageQueue[Any, Any] = StageQueue(
            "model", "classify", BatchTuning(windows, costs.window_s), run_on, policy()
        )
        self._scheduler.add(self._encode)
        self._scheduler.add(self._classify)
        self._idle = set(devices)
        self._free = machine.decoders
        self._waiting: FairQueue[_Request] = policy()
        self._waiting_identities: Counter[str] = Counter()
        self._decoding: set[_Request] = set()
        self._watched: _Request | None = None
        self._futures = asyncio.new_event_loop()  # never runs: it only creates futures
        self.device_busy_s = 0.0

    def close(self) -> None:
        self._futures.close()

    def submit(self, video: Video, on_end: Callable[[], None] = lambda: None) -> None:
        """Let ``video`` arrive at its time; call ``on_end`` once it is answered, rejected or cancelled."""
        self._clock.at(video.arrival_s, lambda: self._arrive(video, on_end))

    def _arrive(self, video: Video, on_end: Callable[[], None]) -> None:
        stay = self._admission.admit(Caller("", video.deadline_s, unrestricted(video.identity)))
        try:
            ticket = stay.__enter__()
            ticket.received()
        except (Overloaded, ClientOverloaded, DeadlineTooShort) as refusal:
            video.is_refused = video.is_over = True
            video.retry_after_s = refusal.retry_after_s
            on_end()
            return
        deadline = None if video.deadline_s is None else video.arrival_s + video.deadline_s
        units: Flow[Any] = SizedFlow(video, deadline, video.units_per_window)
        worker, windows = SizedFlow[Any](video, deadline), SizedFlow[Any](video, deadline)
        request = _Request(video, ticket, stay, worker, units, windows, on_end)
        if deadline is not None:
            self._clock.at(deadline, lambda: self._give_up(request))
        self._waiting.put(request.worker, request)
        self._waiting_identities[video.identity] += 1
        self._hand_out()

    def _give_up(self, request: _Request) -> None:
        if request.video.is_over:
            return
        request.ticket.cancelled(self._clock.now - request.video.arrival_s)
        for future in request.pending:
            future.cancel()
        self._end(request)

    def _end(self, request: _Request) -> None:
        request.video.is_over = True
        request.stay.__exit__(None, None, None)
        self._give_back(request)
        request.on_end()

    # Decoders

    def _hand_out(self) -> None:
        while self._free and len(self._waiting):
            request = self._waiting.take(self._clock.now)
            self._waiting_identities[request.video.identity] -= 1
            if request.video.is_over:
                continue
            self._free -= 1
            request.has_decoder, request.decoder_since_s = True, self._clock.now
            self._decoding.add(request)
            self._cores.run(request.video.other_s, lambda request=request: self._decode(request))
        self._count_decoders()
        self._watch_patience()

    def _count_decoders(self) -> None:
        self._contention.decoding_cores = sum(not request.is_blocked for request in self._decoding)
        self._wake()

    def _give_back(self, request: _Request) -> None:
        if not request.has_decoder:
            return
        request.has_decoder = False
        self._decoding.discard(request)
        if not request.is_long:
            self._free += 1
        self._hand_out()

    def _watch_patience(self) -> None:
        """Start a replacement for a decoder that a long video occupies, as ``DecodePool`` does."""
        long = sum(request.is_long for request in self._decoding)
        short = [request for request in self._decoding if not request.is_long]
        holding = {request.video.identity for request in self._decoding}
        most = most_long_videos(self._config.max_long_videos, holding, {*+self._waiting_identities})
        if not short or not len(self._waiting) or long >= most:
            self._watched = None
            return
        first = min(short, key=lambda request: request.decoder_since_s)
        if first is not self._watched:
            self._watched = first
            self._clock.at(
                first.decoder_since_s + self._config.long_video_after_s, lambda: self._outlast(first)
            )

    def _outlast(self, request: _Request) -> None:
        if request is not self._watched:
            return
        self._watched = None
        if request.has_decoder and not request.is_long:
            request.is_long, request.weight = True, 1 / 3
            self._free += 1
        self._hand_out()

    def _decode(self, request: _Request) -> None:
        if request.has_decoder:
            self._cores.run(
                request.video.unit_decode_s, lambda: self._decoded(request), weight=request.weight
            )

    def _decoded(self, request: _Request) -> None:
        if not request.has_decoder:
            return
        window = request.decoded // request.video.units_per_window
        request.decoded += 1
        request.in_slots += 1
        self._enqueue(self._encode, request.units, request, window)
        if request.decoded == request.video.units:
            self._give_back(request)
        elif request.in_slots >= self._machine.slots:
            request.is_blocked = True
            self._count_decoders()
        else:
            self._decode(request)

    # Devices

    def _enqueue(self, queue: StageQueue[Any, Any], flow: Flow[Any], request: _Request, window: int) -> None:
        result: asyncio.Future[Any] = self._futures.create_future()
        request.pending.add(result)
        item = Item((request, window), request.engine_costs, result, self._clock.now)
        self._scheduler.submit(queue, flow, item)
        self._wake()

    def _wake(self) -> None:
        if self._idle:
            self._start(self._idle.pop())

    def _start(self, device: str) -> None:
        batch = self._scheduler.next_batch(device, self._clock.now)
        if batch is None:
            self._idle.add(device)
            if (retry_in_s := self._scheduler.retry_in_s(device, self._clock.now)) is not None:
                self._clock.after(retry_in_s + ROUNDING_S, self._wake)
            return
        seconds, began = self._costs.of(batch), self._clock.now
        self.device_busy_s += seconds

        def end() -> None:
            self._scheduler.record_success(batch, device, self._clock.now - began)
            for item in batch.items:
                self._computed(batch.queue, item)
            self._start(device)

        if self._machine.device_threads:
            self._cores.run(seconds, end, self._machine.device_threads)
        else:
            self._clock.after(seconds, end)
        if batch.queue is self._encode:
            self._free_slots(batch)

    def _free_slots(self, batch: Batch) -> None:
        for item in batch.items:
            request: _Request = item.payload[0]
            request.in_slots -= 1
            if request.is_blocked:
                request.is_blocked = False
                self._count_decoders()
                self._decode(request)

    def _computed(self, queue: StageQueue[Any, Any], item: Item[Any, Any]) -> None:
        request, window = item.payload
        request.pending.discard(item.result)
        if item.result.cancelled():
            return
        if queue is self._encode:
            request.encoded[window] += 1
            if request.encoded[window] == request.video.units_per_window:
                del request.encoded[window]
                self._enqueue(self._classify, request.windows, request, window)
            return
        request.classified += 1
        if request.classified == request.video.windows:
            request.video.answered_s = self._clock.now
            request.ticket.answered(request.video.latency_s)
            self._end(request)
