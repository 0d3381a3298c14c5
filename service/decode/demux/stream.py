"""One stream of an open file: packets in the order of decoding, frames in the order of showing.

Damage is counted and skipped: what can be decoded is.
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
    BUFFER_BYTES,
    MEDIA_ERRORS,
    is_end,
    only_stream,
    packets,
    reader_of,
    source_of,
)
from tubelet.service.decode.demux.container_crop import Cropping, container_cropping, cropped_aspect
from tubelet.service.decode.demux.leading_packets import Lead
from tubelet.service.decode.demux.matroska_clusters import Clusters, void
from tubelet.service.decode.demux.packet_stats import Key, Tally
from tubelet.service.decode.demux.timestamps import Joins, exact, has_loose_clock
from tubelet.service.decode.limits import Limits, check_duration, check_frames, check_pixels
from tubelet.service.types.video import NS_PER_S

# Decoders of the transparency that Matroska keeps beside each frame; FFmpeg's own leave it out.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_TELL_ORDER = {"h264", "hevc", "vvc"}
# Where a place is found by decoding stamps: a picture may begin in the middle of what has a stamp.
_BEFORE_S = Fraction(1, 10)
_INTERLACED = range(2, 6)  # AVFieldOrder: which field is coded and shown first
# To be read again: what a clip of ten seconds has. A packet of a few bytes may refer to 200 kB of MPEG-TS.
_HELD_BYTES, _HELD_PACKETS = 16 << 20, 500
_VOID_PAYS = 4 * BUFFER_BYTES  # and is more than FFmpeg holds


class Stream:
    """What is read is tallied, what is decoded is counted; ``pulse`` is called for each packet.

    ``clusters`` find the places that the container cannot.

    ``time_base`` is how many seconds a tick of its stamps lasts; None: it has no clock.
    """

    def __init__(
        self,
        container: InputContainer,
        stream_index: int,
        limits: Limits,
        pulse: Callable[[], None],
        *,
        unsmoothed: bool = False,
        clusters: Clusters | None = None,
    ) -> None:
        self.container = container
        self.stream = only_stream(container, stream_index)
        self.time_base: Fraction | None = exact(self.stream.time_base)  # kept: each packet asks for it
        self.tally = Tally()
        self.frames = 0
        self.broke_off = False
        self.has_moved = False  # or has tried to, to another place of the file
        self._is_through = False
        self._again: deque[Packet] = deque()
        self._joins = self._new_joins()
        self._limits = limits
        self.pulse = pulse
        self._clusters = clusters
        self._packets = packets(container, self.stream)
        self._may_change = container.format.name == "flv"  # which says so where it does, and never again
        self.has_changed = False  # the codec's headers did, behind the first packet
        self._is_interlaced = self.stream.codec_context.field_order in _INTERLACED
        self._has_begun = False  # a frame or a key frame's packet has come
        self._failed_at_front = 0  # packets before that, which may well refer to what is missing
        self._failed_packets = 0
        self._corrupt_frames = 0
        check_pixels(self.stream.codec_context.width, self.stream.codec_context.height, limits)
        self._decoder = context = _decoder(self.stream)
        # Without the filter that smooths the edges of blocks, decoding costs less.
        smoothing = {"skip_loop_filter": "all"} if unsmoothed else {}
        context.options = {"max_pixels": str(limits.max_pixels), **smoothing}
        context.thread_count = limits.threads
        context.thread_type = "AUTO"

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()

    def read(self) -> Packet | None:
        """The next packet; None at the end, or where the file breaks off."""
        self.pulse()
        if self._again:
            return self._again.popleft()
        if self._is_through:
            return None
        packet = next(self._packets, None)
        if packet is None or is_end(packet):
            self.broke_off, self._is_through = packet is None, True
            return None
        self._joins.mend(packet)
        self.tally.add(packet)
        self.has_changed |= self._may_change and self._brings_headers(packet)
        check_frames(self.tally.packets, self._limits)
        check_duration(self._span_ns(), self._limits)
        return packet

    def leave_out(self, lead: Lead, packets: Sequence[Packet]) -> None:
        """Tally the packets anew, all that were read, without those of the lead."""
        self.tally = Tally(lead)
        for packet in packets:
            self.tally.add(packet)

    def read_through(self) -> bool:
        """Tally all packets to the end. True: reading goes on from here again, for they are held.

        False: there are too many of them, or their stamps do not tell which frame is shown when.
        """
        held, held_bytes, may_hold = deque[Packet](), 0, True
        while (packet := self.read()) is not None:
            held_bytes += packet.size + sum(each.buffer_size for each in packet.iter_sidedata())
            is_little = held_bytes <= _HELD_BYTES and len(held) < _HELD_PACKETS
            may_hold = may_hold and is_little and self.tally.is_sound and not self.joins
            if may_hold:
                held.append(packet)
            else:
                held.clear()
        self._again = held
        return may_hold

    def decode(self, packet: Packet, *, if_needed_by_others: bool = False) -> list[VideoFrame]:
        """The frames that come out now; this packet's own may be left out if nothing refers to it."""
        if packet.size == 0:  # it repeats a frame, but would end the decoder
            return []
        # The decoder knows what refers to what. The fields of a picture may come in two packets, though.
        may_skip = if_needed_by_others and not self._is_interlaced
        self._decoder.skip_frame = "NONREF" if may_skip else "DEFAULT"
        return self._decode(packet)

    def check_frames(self, frames: int) -> None:
        """Raise ``VideoRejected`` VIDEO_TOO_LARGE when there are more than the limit."""
        check_frames(frames, self._limits)

    def drain(self) -> list[VideoFrame]:
        """The frames that the decoder still holds; it begins anew with the next packet."""
        frames = self._decode(None)
        self._decoder.flush_buffers()
        return frames

    @property
    def is_raw(self) -> bool:
        """There is no container: frames follow each other at the rate that the codec's headers state."""
        return bool(self.container.format.flags & Flags.no_timestamps.value)

    @property
    def early_lack_stamps(self) -> bool:
        """Packets from before the time zero have no stamps: FFmpeg reads Matroska so."""
        return self.container.format.name == "matroska,webm"

    @cached_property
    def aspect(self) -> Fraction | None:
        """Of a pixel, its width to its height; None: nothing is said."""
        stated = exact(self.stream.sample_aspect_ratio)
        return cropped_aspect(stated, self.stream, self.cropping, source_of(self.container))

    @cached_property
    def cropping(self) -> Cropping:
        """What the container says is not seen of the stored picture."""
        return container_cropping(self.stream)

    @property
    def joins(self) -> int:
        """Where parts whose clocks differ meet: with any, stamps lead nowhere in the file."""
        return self._joins.found

    def seek(self, ticks: int) -> bool:
        """Read on from a key frame at or before this stamp, if the container can; the tally begins anew."""
        if self._clusters is not None:
            self._show_way(self._clusters.before(ticks).place, ticks)
        return self._move(partial(self.container.seek, ticks, stream=self.stream, backward=True))

    def seek_key(self, key: Key) -> bool:
        """Read on from this key frame, or one before it."""
        if not has_loose_clock(self.container.format) or self.time_base is None:
            return self.seek(key.pts)
        return self.seek(key.dts - int(_BEFORE_S / self.time_base))

    def seek_byte(self, place: int) -> bool:
        """Read on from the first packet behind this place of the file, if the container can."""
        return self._move(partial(self.container.seek, place, unsupported_byte_offset=True))

    def skip_to_key(self) -> None:
        """Read on from the next key frame: some seeks find no more than a place."""
        while (packet := self.read()) is not None:
            if packet.is_keyframe:
                self._again.append(packet)
                return

    @property
    def finds_any_place(self) -> bool:
        """Seeking leads to a place before a time, and not always to a key frame."""
        return has_loose_clock(self.container.format) or self._clusters is not None

    @property
    def is_damaged(self) -> bool:
        return self._failed_at_front + self._failed_packets + self._corrupt_frames > 0

    @property
    def reorders(self) -> bool:
        """Frames are shown in another order than they are decoded in; older codecs only say that they may."""
        return self.stream.codec_context.name in _TELL_ORDER and self.may_reorder

    @property
    def may_reorder(self) -> bool:
        """Frames may be shown in another order than they are decoded in."""
        return bool(self._decoder.has_b_frames)

    def warnings(self) -> list[str]:
        found = []
        if self._failed_packets:
            found.append(f"{self._failed_packets} packets could not be decoded")
        if self._corrupt_frames:
            found.append(f"{self._corrupt_frames} of {self.frames} frames are damaged")
        return found

    def _move(self, seek: Callable[[], None]) -> bool:
        self.has_moved = True
        try:
            seek()
        except MEDIA_ERRORS:
            return False
        self._packets, self._is_through = packets(self.container, self.stream), False
        self._again.clear()
        self.tally, self._joins = Tally(), self._new_joins()
        return True

    def _show_way(self, place: int, ticks: int) -> None:
        """FFmpeg reads on from the last place it knows: let what is between that and this one be void."""
        known = self.stream.index_entries
        if not len(known):
            return
        start = known[max(0, known.search_timestamp(ticks))].pos
        reader, size_bytes = reader_of(self.container), place - start
        reader.cover(start, void(size_bytes) if size_bytes >= _VOID_PAYS else b"")
        self.seek_byte(reader.size_bytes)  # it holds what it read last, as that stood there

    def _brings_headers(self, packet: Packet) -> bool:
        if not packet.has_sidedata("new_extradata"):
            return False
        return bytes(packet.get_sidedata("new_extradata")) != self.stream.codec_context.extradata

    def _new_joins(self) -> Joins:
        return Joins(self.container.format, self.time_base)

    def _span_ns(self) -> int:
        """For how long the packets that were read are shown, from the first one on."""
        base, tally = self.time_base, self.tally
        if base is None or tally.first is None or tally.latest is None:
            return 0
        return (tally.latest - tally.first) * base.numerator * NS_PER_S // base.denominator

    def _decode(self, packet: Packet | None) -> list[VideoFrame]:
        self._has_begun |= packet is not None and packet.is_keyframe
        try:
            frames = self._decoder.decode(packet)
        except MemoryError:
            raise
        except MEDIA_ERRORS:
            if self._has_begun:
                self._failed_packets += 1
            else:
                self._failed_at_front += 1
            return []
        for frame in frames:
            check_pixels(frame.width, frame.height, self._limits)
            self._corrupt_frames += frame.is_corrupt
            self._is_interlaced |= frame.interlaced_frame
        self._has_begun |= len(frames) > 0
        self.frames += len(frames)
        check_frames(self.frames, self._limits)
        return frames


def _decoder(stream: VideoStream) -> VideoCodecContext:
    context = stream.codec_context
    if stream.metadata.get("alpha_mode") != "1" or context.name not in _WITH_ALPHA:
        return context
    try:
        found = CodecContext.create(_WITH_ALPHA[context.name], "r")
    except av.error.FFmpegError:
        return context  # this FFmpeg was built without it
    assert isinstance(found, VideoCodecContext)
    found.extradata = context.extradata
    return found
