"""One video stream of an open file, read packet by packet in decoding order, from anywhere in the file."""

from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cached_property, partial

from av.container import InputContainer
from av.format import Flags
from av.packet import Packet

from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.demux.container import (
    MEDIA_ERRORS,
    byte_source_of,
    demux_packets,
    is_end_of_stream,
    open_container,
    select_stream,
)
from tubelet.service.decode.demux.container_crop import (
    Cropping,
    correct_aspect_for_cropping,
    read_container_cropping,
)
from tubelet.service.decode.demux.frame_decoder import FrameDecoder
from tubelet.service.decode.demux.leading_packets import LeadingPackets
from tubelet.service.decode.demux.packet_stats import KeyFrame, PacketCounter, PacketStats
from tubelet.service.decode.demux.timestamps import DiscontinuityRepair, allows_discontinuities, to_fraction
from tubelet.service.decode.limits import Limits, check_duration, check_frames
from tubelet.service.types.video import NS_PER_S

# For seeks by DTS: a picture may begin in the middle of the unit that has the timestamp.
_SEEK_MARGIN_S = Fraction(1, 10)
# Enough for a clip of ten seconds. A packet of a few bytes may keep 200 kB of MPEG-TS in memory.
_MAX_BUFFERED_BYTES, _MAX_BUFFERED_PACKETS = 16 << 20, 500


class Stream:
    """A video stream, the statistics of the packets that were read, and the decoder for them.

    ``heartbeat`` is called for each packet. ``time_base`` is the duration of a tick in seconds; None if the
    stream has no clock.
    """

    def __init__(
        self,
        container: InputContainer,
        stream_index: int,
        limits: Limits,
        heartbeat: Callable[[], None],
        *,
        skip_loop_filter: bool = False,
    ) -> None:
        self.container, self.source = container, byte_source_of(container)
        self.av_stream, self.index = select_stream(container, stream_index), stream_index
        # cached: needed for each packet
        self.time_base: Fraction | None = to_fraction(self.av_stream.time_base)
        self.counter = PacketCounter()
        self.is_truncated = False
        self.has_seeked = False  # including failed attempts
        self._is_at_end = False
        self._pushed_back: deque[Packet] = deque()
        self._discontinuities = self._new_discontinuity_repair()
        self.limits = limits
        self.heartbeat = heartbeat
        self._packets = demux_packets(container, self.av_stream)
        # Only FLV reports changed headers, once, at the packet where they change.
        self._may_change_headers = container.format.name == "flv"
        self.headers_changed = False  # the codec's headers changed after the first packet
        self.decoder = FrameDecoder(self.av_stream, limits, skip_loop_filter=skip_loop_filter)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def reopen(self) -> "Callable[[], Stream]":
        """A function that opens the stream once more; it does not keep this one's decoder in memory."""
        return partial(open_stream, self.source, self.index, self.limits, self.heartbeat)

    def close(self) -> None:
        """Close the container."""
        self.container.close()

    def read(self) -> Packet | None:
        """Return the next packet; None at the end, or where the file is truncated."""
        self.heartbeat()
        if self._pushed_back:
            return self._pushed_back.popleft()
        if self._is_at_end:
            return None
        packet = next(self._packets, None)
        if packet is None or is_end_of_stream(packet):
            self.is_truncated, self._is_at_end = packet is None, True
            return None
        self._discontinuities.repair(packet)
        self.counter.add(packet)
        self.headers_changed |= self._may_change_headers and self._has_new_headers(packet)
        check_frames(self.counter.packets, self.limits)
        check_duration(self._duration_read_ns(), self.limits)
        return packet

    def read_to_end(self) -> None:
        """Read and count the packets that are left."""
        while self.read() is not None:
            pass

    def recount_without(self, lead: LeadingPackets, packets: Sequence[Packet]) -> None:
        """Start the statistics again: count ``packets``, which are all that were read, without ``lead``."""
        self.counter = PacketCounter(lead)
        for packet in packets:
            self.counter.add(packet)

    def scan(self) -> bool:
        """Count all packets to the end, and return whether ``read`` will return them again.

        False if there are too many to buffer, or if timestamps do not tell which frame is shown when.
        """
        buffered, buffered_bytes, may_buffer = deque[Packet](), 0, True
        while (packet := self.read()) is not None:
            buffered_bytes += packet.size + sum(each.buffer_size for each in packet.iter_sidedata())
            is_little = buffered_bytes <= _MAX_BUFFERED_BYTES and len(buffered) < _MAX_BUFFERED_PACKETS
            may_buffer = (
                may_buffer and is_little and self.counter.has_reliable_timestamps and not self.discontinuities
            )
            if may_buffer:
                buffered.append(packet)
            else:
                buffered.clear()
        self._pushed_back = buffered
        return may_buffer

    @property
    def stats(self) -> PacketStats:
        """The statistics of the packets that were read."""
        return self.counter.stats()

    @property
    def is_raw(self) -> bool:
        """Whether the file has no container: its frames follow at the rate that the codec's headers state."""
        return bool(self.container.format.flags & Flags.no_timestamps.value)

    @property
    def early_packets_lack_timestamps(self) -> bool:
        """Whether packets from before time zero have no timestamps, as FFmpeg reads Matroska."""
        return self.container.format.name == "matroska,webm"

    @cached_property
    def aspect(self) -> Fraction | None:
        """The width of a pixel relative to its height; None if the file does not state it."""
        stated = to_fraction(self.av_stream.sample_aspect_ratio)
        return correct_aspect_for_cropping(stated, self.av_stream, self.cropping, self.source)

    @cached_property
    def cropping(self) -> Cropping:
        """The part of the stored picture that the container hides."""
        return read_container_cropping(self.av_stream)

    @property
    def discontinuities(self) -> int:
        """The number of timestamp jumps that were repaired; with any, seeking by timestamp fails."""
        return self._discontinuities.count

    def seek(self, ticks: int) -> bool:
        """Go to a key frame at or before ``ticks``, with new statistics; False if the container cannot."""
        return self._seek(partial(self.container.seek, ticks, stream=self.av_stream, backward=True))

    def seek_to_key_frame(self, key: KeyFrame) -> bool:
        """Go to key frame ``key``, or to one before it; False if the container cannot."""
        if not allows_discontinuities(self.container.format) or self.time_base is None:
            return self.seek(key.pts)
        return self.seek(key.dts - int(_SEEK_MARGIN_S / self.time_base))

    def seek_byte(self, offset: int) -> bool:
        """Go to the first packet after byte ``offset`` of the file; False if the container cannot."""
        return self._seek(partial(self.container.seek, offset, unsupported_byte_offset=True))

    def skip_to_key_frame(self) -> None:
        """Discard packets before the next key frame: some seeks are inexact."""
        while (packet := self.read()) is not None:
            if packet.is_keyframe:
                self._pushed_back.append(packet)
                return

    def _seek(self, seek: Callable[[], None]) -> bool:
        """Call ``seek`` and start reading and counting afresh; False if it fails."""
        self.has_seeked = True
        try:
            seek()
        except MEDIA_ERRORS:
            return False
        self._packets, self._is_at_end = demux_packets(self.container, self.av_stream), False
        self._pushed_back.clear()
        self.counter, self._discontinuities = PacketCounter(), self._new_discontinuity_repair()
        return True

    def _has_new_headers(self, packet: Packet) -> bool:
        """Whether ``packet`` carries codec headers that differ from the first ones."""
        if not packet.has_sidedata("new_extradata"):
            return False
        return bytes(packet.get_sidedata("new_extradata")) != self.av_stream.codec_context.extradata

    def _new_discontinuity_repair(self) -> DiscontinuityRepair:
        """Create a repair for this stream that has seen no packet yet."""
        return DiscontinuityRepair(self.container.format, self.time_base)

    def _duration_read_ns(self) -> int:
        """Return the duration of the packets that were read."""
        base, counter = self.time_base, self.counter
        if base is None or counter.first is None or counter.latest is None:
            return 0
        return (counter.latest - counter.first) * base.numerator * NS_PER_S // base.denominator


def open_stream(source: ByteSource, index: int, limits: Limits, heartbeat: Callable[[], None]) -> Stream:
    """Open the video stream at ``index`` of a file, at its beginning and without an accelerator."""
    return Stream(open_container(source), index, limits, heartbeat)
