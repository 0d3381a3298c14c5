"""The frames of a stream that a plan needs to see, in the order of showing.

Either those that are shown at wanted times, and as few others as the codec allows; or, where time stamps do
not tell which those are, all of them.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from av.packet import Packet
from av.video.frame import VideoFrame

from tubelet.service.decode.demux.packet_stats import Key, KeyFrames
from tubelet.service.decode.demux.timestamps import Clock, Timeline
from tubelet.service.decode.frames.lookahead import Disorder, Lookahead, Stamp
from tubelet.service.decode.probe.stream_head import Head, Opening

_TIMES_A_PULSE = 1000
_SEEK_PAYS = 16  # packets; fewer are read in the time that a seek takes


@dataclass(frozen=True, slots=True)
class Shown:
    """A decoded frame, its presentation stamp as the codec gave it, and when it is shown."""

    frame: VideoFrame
    pts: int | None
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class _Promise:
    """A frame that is shown at so many wanted times in a row: hours of stills, perhaps."""

    pts: int
    times: int = 1


class WantedTimes:
    """The times of a plan in ticks, none before the last, as far ahead as somebody asks."""

    def __init__(self, times: Iterator[int]) -> None:
        self._times = times
        self._known: list[int] = []
        self._see_one()

    @property
    def next(self) -> int | None:
        return self._known[0] if self._known else None

    def advance(self) -> None:
        """The next one has been served."""
        self._known.pop(0)
        if not self._known:
            self._see_one()

    def until(self, ticks: int) -> list[int]:
        """All from the next one on to the first that is not before this time, sorted."""
        while self._known and self._known[-1] < ticks and self._see_one():
            pass
        return self._known

    def _see_one(self) -> bool:
        time = next(self._times, None)
        if time is not None:
            self._known.append(time)
        return time is not None


def all_frames(opening: Opening, timeline: Timeline) -> Iterator[Shown]:
    """Those of the head, then from where the stream stands to its end."""
    clock, stream = Clock(timeline), opening.stream
    if opening.head is not None:
        yield from _timed(opening.head.frames, clock)
    while (packet := stream.read()) is not None:
        yield from _timed(stream.decode(packet), clock)
    yield from _timed(stream.drain(), clock)


class Selection:
    """The frames shown at wanted times, and what their decoding brings out besides."""

    def __init__(self, opening: Opening, timeline: Timeline, keys: KeyFrames, wanted: WantedTimes) -> None:
        self._stream, self._head = opening.stream, opening.head
        self._keys = keys
        self._wanted = wanted
        self._timeline = timeline
        self._clock = Clock(timeline)
        self._ahead = Lookahead()
        self._held: deque[Packet] = deque()  # those that the lookahead has
        self._read = 0  # packets, as if from the stream's beginning
        self._promised: deque[_Promise] = deque()
        self._begun: int | None = None  # the stamp of the packet at which decoding began, until a frame comes

    def promised(self) -> int:
        """For each wanted time in turn, the presentation stamp of the frame shown then, as packets have it.

        Whoever takes the frames holds against it what comes.

        Raises:
            Disorder: a frame came that should not have come yet.
        """
        if not self._promised:
            wanted = self._wanted.next
            if wanted is None or not self._ahead.is_settled(wanted):
                raise Disorder("a frame comes too early")
            self._promise(wanted)
        promise = self._promised[0]
        promise.times -= 1
        if promise.times == 0:
            self._promised.popleft()
        return promise.pts

    def frames(self) -> Iterator[Shown]:
        """
        Raises:
            Disorder: the time stamps do not tell which frame is shown when.
        """
        if self._head is not None:
            yield from self._begin(self._head)
        while (wanted := self._wanted.next) is not None:
            key = self._keys.before(wanted)
            if key is not None and key.number - self._read >= _SEEK_PAYS:
                yield from self._jump(key, wanted)
            yield from self._settle(wanted)
            due = self._promise(wanted)
            for _ in range(self._ahead.packets_to(due)):
                yield from self._decode_front(due)
            if self._ahead.is_last(due):
                break
        yield from self._drain()

    def _begin(self, head: Head) -> Iterator[Shown]:
        """All of the head has been decoded already."""
        for packet in head.packets:
            self._add(packet, head.packets[0].pts or 0)
            self._ahead.pop()
        yield from _timed(head.frames, self._clock)

    def _promise(self, wanted: int) -> int:
        due = self._ahead.shown_at(wanted)
        if due is None:
            raise Disorder("no frame where one was")
        if self._promised and self._promised[-1].pts == due:
            self._promised[-1].times += 1
            if self._promised[-1].times % _TIMES_A_PULSE == 0:
                self._stream.pulse()
        else:
            self._promised.append(_Promise(due))
        self._wanted.advance()
        return due

    def _jump(self, key: Key, wanted: int) -> Iterator[Shown]:
        """Read on at a key frame."""
        yield from self._drain()
        self._held.clear()
        self._ahead = Lookahead()
        self._clock = Clock(self._timeline)
        packet = self._at_key(key)
        while packet is None or packet.pts is None or packet.pts > wanted:
            # An index may say no more than about when it is shown.
            sooner = None if packet is None else self._keys.before(key.pts - 1)
            if sooner is None:
                raise Disorder(f"no key frame at {key.pts}, where one was")
            key = sooner
            packet = self._at_key(key)
        self._read, self._begun = key.number, packet.pts
        yield from self._take(packet, wanted)

    def _at_key(self, key: Key) -> Packet | None:
        """The first key packet from there on."""
        if not self._stream.seek_key(key):
            raise Disorder("the container cannot seek")
        packet = self._stream.read()
        while packet is not None and not packet.is_keyframe:  # some containers find no more than the place
            packet = self._stream.read()
        return packet

    def _settle(self, wanted: int) -> Iterator[Shown]:
        """Read until it is known which frame is shown then."""
        while not self._ahead.is_settled(wanted):
            if self._ahead.is_full:
                yield from self._decode_front(None)
            elif (packet := self._stream.read()) is None:
                self._ahead.end()
            else:
                yield from self._take(packet, wanted)

    def _take(self, packet: Packet, wanted: int) -> Iterator[Shown]:
        if self._add(packet, wanted):
            self._held.clear()
            yield from self._drain()
            self._begun = packet.pts
        self._held.append(packet)

    def _add(self, packet: Packet, wanted: int) -> int:
        """How many of those before need no decoding."""
        if packet.pts is None:
            raise Disorder("a packet without a presentation stamp")
        self._read += 1
        stamp = Stamp(packet.pts, packet.dts, packet.is_keyframe, not packet.is_discard)
        return self._ahead.add(stamp, wanted)

    def _decode_front(self, due: int | None) -> Iterator[Shown]:
        """Decode a packet whose frame is the one that is due, is wanted later, or is needed by such a one."""
        stamp = self._ahead.pop()
        is_needed = stamp.pts == due or self._ahead.is_needed(stamp, self._wanted.until(stamp.pts))
        frames = self._stream.decode(self._held.popleft(), if_needed_by_others=not is_needed)
        yield from self._sound(frames)

    def _drain(self) -> Iterator[Shown]:
        yield from self._sound(self._stream.drain())

    def _sound(self, frames: list[VideoFrame]) -> Iterator[Shown]:
        if self._stream.is_damaged:
            raise Disorder("what is damaged spreads by ways that the codec alone knows")
        if frames and self._begun is not None:
            # Where pictures are refreshed part by part, those that come first may be whole by name only.
            if (frames[0].pts or 0) > self._begun:
                raise Disorder("a place to begin at gives no picture")
            self._begun = None
        yield from _timed(frames, self._clock)


def _timed(frames: list[VideoFrame], clock: Clock) -> Iterator[Shown]:
    for frame in frames:
        start_ns, end_ns = clock.show(frame.pts, frame.dts, frame.duration or 0)
        yield Shown(frame, frame.pts, start_ns, end_ns)
