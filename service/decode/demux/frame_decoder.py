"""The decoder of one video stream: packets in decoding order become frames in display order.

Packets that fail to decode are counted and skipped.
"""

import av.error
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tubelet.service.decode.demux.container import MEDIA_ERRORS
from tubelet.service.decode.limits import Limits, check_frames, check_pixels

# Decoders that read the transparency which Matroska keeps beside each frame; FFmpeg's own ignore it.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_CODECS_STATING_ORDER = {"h264", "hevc", "vvc"}
_INTERLACED = range(2, 6)  # AVFieldOrder values: top or bottom field coded and shown first


class FrameDecoder:
    """A decoder that counts its frames, and the damage that it met.

    ``skip_loop_filter`` makes decoding faster and leaves the edges of blocks visible.

    Raises:
        VideoRejected: VIDEO_TOO_LARGE, from every method that decodes, too.
    """

    def __init__(self, stream: VideoStream, limits: Limits, *, skip_loop_filter: bool = False) -> None:
        self.frames = 0  # that came out
        self._limits = limits
        self._codec_name = stream.codec_context.name
        self._is_interlaced = stream.codec_context.field_order in _INTERLACED
        self._has_started = False  # a frame has come out, or a key frame has been read
        self._failed_before_start = 0  # failed packets before that: they may refer to missing ones
        self._failed_packets = 0
        self._corrupt_frames = 0
        check_pixels(stream.codec_context.width, stream.codec_context.height, limits)
        self._context = _codec_context(stream)
        smoothing = {"skip_loop_filter": "all"} if skip_loop_filter else {}
        self._context.options = {"max_pixels": str(limits.max_pixels), **smoothing}
        self._context.thread_count = limits.threads
        self._context.thread_type = "AUTO"

    def decode(self, packet: Packet, *, skip_if_unreferenced: bool = False) -> list[VideoFrame]:
        """Return the frames that come out when ``packet`` goes in.

        With ``skip_if_unreferenced``, the packet's own frame is not decoded unless another frame refers to
        it.
        """
        if packet.size == 0:  # it repeats a frame, and would flush the decoder
            return []
        # The decoder knows which frames others refer to. But the two fields of a picture may come in two
        # packets.
        may_skip = skip_if_unreferenced and not self._is_interlaced
        self._context.skip_frame = "NONREF" if may_skip else "DEFAULT"
        return self._decode(packet)

    def drain(self) -> list[VideoFrame]:
        """Return the frames that are still held, and reset the decoder."""
        frames = self._decode(None)
        self._context.flush_buffers()
        return frames

    @property
    def has_errors(self) -> bool:
        """Whether a packet failed to decode or a frame was damaged."""
        return self._failed_before_start + self._failed_packets + self._corrupt_frames > 0

    @property
    def has_b_frames(self) -> bool:
        """Whether decoding and display order surely differ; older codecs only state that they may."""
        return self._codec_name in _CODECS_STATING_ORDER and self.may_have_b_frames

    @property
    def may_have_b_frames(self) -> bool:
        """Whether decoding and display order may differ."""
        return bool(self._context.has_b_frames)

    def warnings(self) -> list[str]:
        """Describe the damage that was met."""
        warnings = []
        if self._failed_packets:
            warnings.append(f"{self._failed_packets} packets could not be decoded")
        if self._corrupt_frames:
            warnings.append(f"{self._corrupt_frames} of {self.frames} frames are damaged")
        return warnings

    def _decode(self, packet: Packet | None) -> list[VideoFrame]:
        """Decode ``packet`` (None: flush), count damage, and check the limits on the frames."""
        self._has_started |= packet is not None and packet.is_keyframe
        try:
            frames = self._context.decode(packet)
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


def _codec_context(stream: VideoStream) -> VideoCodecContext:
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
