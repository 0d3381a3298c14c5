"""One video stream of an open file: packets in decoding order, frames in display order.

Damaged packets are counted and skipped; everything else is decoded.
"""

from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cached_property, partial

import av.error
from av.codec.context import CodecContext
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

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
from tubelet.service.decode.demux.leading_packets import LeadingPackets
from tubelet.service.decode.demux.packet_stats import KeyFrame, PacketCounter, PacketStats
from tubelet.service.decode.demux.timestamps import DiscontinuityRepair, allows_discontinuities, to_fraction
from tubelet.service.decode.limits import Limits, check_duration, check_frames, check_pixels
from tubelet.service.types.video import NS_PER_S

# Decoders that read the transparency which Matroska keeps beside each frame; FFmpeg's own ignore it.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_CODECS_STATING_ORDER = {"h264", "hevc", "vvc"}
# For seeks by DTS: a picture may begin in the middle of the unit that has the timestamp.
_SEEK_MARGIN_S = Fraction(1, 10)
_INTERLACED = range(2, 6)  # AVFieldOrder values: top or bottom field coded and shown first
# Enough for a clip of ten seconds. A packet of a few bytes may keep 200 kB of MPEG-TS in memory.
_MAX_BUFFERED_BYTES, _MAX_BUFFERED_PACKETS = 16 << 20, 500


class Stream:
    """A video stream, its decoder, and the statistics of what was read and decoded.

    ``heartbeat`` is called for each packet. ``skip_loop_filter`` makes decoding faster and leaves the edges
    of blocks visible. ``time_base`` is the duration of a tick in seconds; None if the stream has no clock.
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
        self.container = container
        self.av_stream = select_stream(container, stream_index)
        # cached: needed for each packet
        self.time_base: Fraction | None = to_fraction(self.av_stream.time_base)
        self.counter = PacketCounter()
        self.frames = 0
        self.is_truncated = False
        self.has_seeked = False  # including failed attempts
        self._is_at_end = False
        self._pushed_back: deque[Packet] = deque()
        self._discontinuities = self._new_discontinuity_repair()
        self._limits = limits
        self.heartbeat = heartbeat
        self._packets = demux_packets(container, self.av_stream)
        # Only FLV reports changed headers, once, at the packet where they change.
        self._may_change_headers = container.format.name == "flv"
        self.headers_changed = False  # the codec's headers changed after the first packet
        self._is_interlaced = self.av_stream.codec_context.field_order in _INTERLACED
        self._has_started = False  # a frame has come out, or a key frame has been read
        self._failed_before_start = 0  # failed packets before that: they may refer to missing ones
        self._failed_packets = 0
        self._corrupt_frames = 0
        check_pixels(self.av_stream.codec_context.width, self.av_stream.codec_context.height, limits)
        self._decoder = context = _decoder(self.av_stream)
        smoothing = {"skip_loop_filter": "all"} if skip_loop_filter else {}
        context.options = {"max_pixels": str(limits.max_pixels), **smoothing}
        context.thread_count = limits.threads
        context.thread_type = "AUTO"

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reopen(self) -> "Stream":
        """Open the stream once more, at the beginning of the file and without an accelerator."""
        container = open_container(byte_source_of(self.container))
        return Stream(container, self.av_stream.index, self._limits, self.heartbeat)

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
        check_frames(self.counter.packets, self._limits)
        check_duration(self._duration_read_ns(), self._limits)
        return packet

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

    def decode(self, packet: Packet, *, skip_if_unreferenced: bool = False) -> list[VideoFrame]:
        """Return the frames that come out when ``packet`` goes into the decoder.

        With ``skip_if_unreferenced``, the packet's own frame is not decoded unless another frame refers to
        it.
        """
        if packet.size == 0:  # it repeats a frame, and would flush the decoder
            return []
        # The decoder knows which frames others refer to. But the two fields of a picture may come in two
        # packets.
        may_skip = skip_if_unreferenced and not self._is_interlaced
        self._decoder.skip_frame = "NONREF" if may_skip else "DEFAULT"
        return self._decode(packet)

    def check_frames(self, frames: int) -> None:
        """Raise ``VideoRejected`` VIDEO_TOO_LARGE when there are more than the limit."""
        check_frames(frames, self._limits)

    def drain(self) -> list[VideoFrame]:
        """Return the frames that the decoder still holds, and reset the decoder."""
        frames = self._decode(None)
        self._decoder.flush_buffers()
        return frames

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
        return correct_aspect_for_cropping(
            stated, self.av_stream, self.cropping, byte_source_of(self.container)
        )

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

    @property
    def has_decode_errors(self) -> bool:
        """Whether a packet failed to decode or a frame was damaged."""
        return self._failed_before_start + self._failed_packets + self._corrupt_frames > 0

    @property
    def has_b_frames(self) -> bool:
        """Whether decoding and display order surely differ; older codecs only state that they may."""
        return self.av_stream.codec_context.name in _CODECS_STATING_ORDER and self.may_have_b_frames

    @property
    def may_have_b_frames(self) -> bool:
        """Whether decoding and display order may differ."""
        return bool(self._decoder.has_b_frames)

    def warnings(self) -> list[str]:
        """Describe the damage met while decoding."""
        warnings = []
        if self._failed_packets:
            warnings.append(f"{self._failed_packets} packets could not be decoded")
        if self._corrupt_frames:
            warnings.append(f"{self._corrupt_frames} of {self.frames} frames are damaged")
        return warnings

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

    def _decode(self, packet: Packet | None) -> list[VideoFrame]:
        """Decode ``packet`` (None: flush), count damage, and check the limits on the frames."""
        self._has_started |= packet is not None and packet.is_keyframe
        try:
            frames = self._decoder.decode(packet)
        except MemoryError:
            raise
        except MEDIA_ERRORS:
            if self._has_started:
                self._failed_packets += 1
            else:
                self._failed_before_start += 1
            return []
        for frame in frames:
            check_pixels(frame.width, frame.height, self._limits)
            self._corrupt_frames += frame.is_corrupt
            self._is_interlaced |= frame.interlaced_frame
        self._has_started |= len(frames) > 0
        self.frames += len(frames)
        check_frames(self.frames, self._limits)
        return frames


def _decoder(stream: VideoStream) -> VideoCodecContext:
    """Return the stream's decoder, replaced by one that decodes transparency if the stream has it."""
    context = stream.codec_context
    if stream.metadata.get("alpha_mode") != "1" or context.name not in _ALPHA_DECODERS:
        return context
    try:
        decoder = CodecContext.create(_ALPHA_DECODERS[context.name], "r")
    except av.error.FFmpegError:
        return context  # this build of FFmpeg lacks it
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata = context.extradata
    return decoder
