"""The frames of a stream that a plan needs, in display order.

``FrameSelector`` yields those shown at requested times, and as few others as the codec allows. ``all_frames``
is for streams whose timestamps do not tell which frame is shown when.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from av.packet import Packet
from av.video.frame import VideoFrame

from tubelet.service.decode.demux.packet_stats import KeyFrame, KeyFrameIndex
from tubelet.service.decode.demux.timestamps import FrameClock, Timeline
from tubelet.service.decode.frames.lookahead import Lookahead, PacketInfo, UnreliableTimestamps
from tubelet.service.decode.probe.stream_head import OpenStream, StreamHead

_TIMES_PER_HEARTBEAT = 1000
_SEEK_PAYS = 16  # packets; fewer are read as quickly as a seek takes


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A decoded frame, its PTS from the codec, and the interval in which it is shown."""

    frame: VideoFrame
    pts: int | None
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class _ExpectedFrame:
    """A frame that is shown at ``times`` requested times in a row."""

    pts: int
    times: int = 1


class RequestedTimes:
    """The requested times in ticks, in order, read from a plan only as far ahead as needed."""

    def __init__(self, times: Iterator[int]) -> None:
        self._times = times
        self._known: list[int] = []
        self._see_one()

    @property
    def next(self) -> int | None:
        """The next requested time; None at the end."""
        return self._known[0] if self._known else None

    def advance(self) -> None:
        """Drop the next time, which has been served."""
        self._known.pop(0)
        if not self._known:
            self._see_one()

    def until(self, ticks: int) -> list[int]:
        """Return the times from the next one to the first at or after ``ticks``, sorted."""
        while self._known and self._known[-1] < ticks and self._see_one():
            pass
        return self._known

    def _see_one(self) -> bool:
        """Read one more time; False at the end."""
        time = next(self._times, None)
        if time is not None:
            self._known.append(time)
        return time is not None


def all_frames(open_stream: OpenStream, timeline: Timeline) -> Iterator[TimedFrame]:
    """Yield the frames of the head, then every frame from the stream's position to its end."""
    clock, stream = FrameClock(timeline), open_stream.stream
    if open_stream.head is not None:
        yield from _with_times(open_stream.head.frames, clock)
    while (packet := stream.read()) is not None:
        yield from _with_times(stream.decoder.decode(packet), clock)
    yield from _with_times(stream.decoder.drain(), clock)


class FrameSelector:
    """A decoder of the frames shown at requested times, with as few others as possible."""

    def __init__(
        self, open_stream: OpenStream, timeline: Timeline, keys: KeyFrameIndex, wanted: RequestedTimes
    ) -> None:
        self._stream, self._head = open_stream.stream, open_stream.head
        self._keys = keys
        self._wanted = wanted
        self._timeline = timeline
        self._clock = FrameClock(timeline)
        self._ahead = Lookahead()
        self._held: deque[Packet] = deque()  # the packets in the lookahead
        self._read = 0  # packets from the stream's beginning on
        self._expected: deque[_ExpectedFrame] = deque()
        # PTS of the packet at which decoding began, until a frame comes out
        self._entry_pts: int | None = None

    def expected_pts(self) -> int:
        """Return the PTS of the frame for each requested time in turn, as its packet states it.

        The caller compares it with the frame that came out.

        Raises:
            UnreliableTimestamps: a frame came too early.
        """
        if not self._expected:
            wanted = self._wanted.next
            if wanted is None or not self._ahead.is_decided(wanted):
                raise UnreliableTimestamps("a frame came too early")
            self._expect_frame_at(wanted)
        promise = self._expected[0]
        promise.times -= 1
        if promise.times == 0:
            self._expected.popleft()
        return promise.pts

    def frames(self) -> Iterator[TimedFrame]:
        """Yield the frames for the requested times, and those that come out with them.

        Raises:
            UnreliableTimestamps: the timestamps do not tell which frame is shown when.
        """
        if self._head is not None:
            yield from self._add_head(self._head)
        while (wanted := self._wanted.next) is not None:
            key = self._keys.at_or_before(wanted)
            if key is not None and key.packet_index - self._read >= _SEEK_PAYS:
                yield from self._seek_to(key, wanted)
            yield from self._read_until_decided(wanted)
            due = self._expect_frame_at(wanted)
            for _ in range(self._ahead.packets_until(due)):
                yield from self._decode_front(due)
            if self._ahead.is_last(due):
                break
        yield from self._drain()

    def _add_head(self, head: StreamHead) -> Iterator[TimedFrame]:
        """Take the packets of the head, which have been decoded, and yield its frames."""
        for packet in head.packets:
            self._add(packet, head.packets[0].pts or 0)
            self._ahead.pop()
        yield from _with_times(head.frames, self._clock)

    def _expect_frame_at(self, wanted: int) -> int:
        """Record which frame is shown at ``wanted``, and return its PTS."""
        due = self._ahead.shown_at(wanted)
        if due is None:
            raise UnreliableTimestamps("no frame is shown at a requested time")
        if self._expected and self._expected[-1].pts == due:
            self._expected[-1].times += 1
            if self._expected[-1].times % _TIMES_PER_HEARTBEAT == 0:
                self._stream.heartbeat()
        else:
            self._expected.append(_ExpectedFrame(due))
        self._wanted.advance()
        return due

    def _seek_to(self, key: KeyFrame, wanted: int) -> Iterator[TimedFrame]:
        """Drain the decoder and continue at ``key``, or at an earlier key frame if that one is late."""
        yield from self._drain()
        self._held.clear()
        self._ahead = Lookahead()
        self._clock = FrameClock(self._timeline)
        packet = self._at_key(key)
        while packet is None or packet.pts is None or packet.pts > wanted:
            # An index may give only an approximate time.
            sooner = None if packet is None else self._keys.at_or_before(key.pts - 1)
            if sooner is None:
                raise UnreliableTimestamps(f"no key frame at or before {key.pts} ticks")
            key = sooner
            packet = self._at_key(key)
        self._read, self._entry_pts = key.packet_index, packet.pts
        yield from self._take(packet, wanted)

    def _at_key(self, key: KeyFrame) -> Packet | None:
        """Seek to ``key`` and return the first key packet from there on."""
        if not self._stream.seek_to_key_frame(key):
            raise UnreliableTimestamps("the container cannot seek")
        packet = self._stream.read()
        # some containers find only an approximate offset
        while packet is not None and not packet.is_keyframe:
            packet = self._stream.read()
        return packet

    def _read_until_decided(self, wanted: int) -> Iterator[TimedFrame]:
        """Read packets until it is known which frame is shown at ``wanted``."""
        while not self._ahead.is_decided(wanted):
            if self._ahead.is_full:
                yield from self._decode_front(None)
            elif (packet := self._stream.read()) is None:
                self._ahead.end()
            else:
                yield from self._take(packet, wanted)

    def _take(self, packet: Packet, wanted: int) -> Iterator[TimedFrame]:
        """Queue ``packet``; if packets before it need no decoding, restart the decoder there."""
        if self._add(packet, wanted):
            self._held.clear()
            yield from self._drain()
            self._entry_pts = packet.pts
        self._held.append(packet)

    def _add(self, packet: Packet, wanted: int) -> int:
        """Add ``packet`` to the lookahead, and return how many packets before it need no decoding."""
        if packet.pts is None:
            raise UnreliableTimestamps("a packet has no PTS")
        self._read += 1
        stamp = PacketInfo(packet.pts, packet.dts, packet.is_keyframe, not packet.is_discard)
        return self._ahead.add(stamp, wanted)

    def _decode_front(self, due: int | None) -> Iterator[TimedFrame]:
        """Decode the front packet, completely if its frame is ``due``, requested or referred to."""
        stamp = self._ahead.pop()
        is_needed = stamp.pts == due or self._ahead.is_needed(stamp, self._wanted.until(stamp.pts))
        frames = self._stream.decoder.decode(self._held.popleft(), skip_if_unreferenced=not is_needed)
        yield from self._checked(frames)

    def _drain(self) -> Iterator[TimedFrame]:
        """Yield the frames that the decoder still holds."""
        yield from self._checked(self._stream.decoder.drain())

    def _checked(self, frames: list[VideoFrame]) -> Iterator[TimedFrame]:
        """Yield ``frames`` with their times, if nothing is damaged."""
        if self._stream.decoder.has_errors:
            raise UnreliableTimestamps("damage may spread to frames in ways that only the codec knows")
        if frames and self._entry_pts is not None:
            # With intra refresh, the first pictures after an entry point may be incomplete.
            if (frames[0].pts or 0) > self._entry_pts:
                raise UnreliableTimestamps("the key frame yields no frame")
            self._entry_pts = None
        yield from _with_times(frames, self._clock)


def _with_times(frames: list[VideoFrame], clock: FrameClock) -> Iterator[TimedFrame]:
    """Yield ``frames`` with the intervals in which they are shown."""
    for frame in frames:
        start_ns, end_ns = clock.interval(frame.pts, frame.dts, frame.duration or 0)
        yield TimedFrame(frame, frame.pts, start_ns, end_ns)
