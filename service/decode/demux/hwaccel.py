"""Decoding by a GPU's video engine, where there is one and the operator wants it.

FFmpeg: https://trac.ffmpeg.org/wiki/HWAccelIntro
"""

from functools import cache

import av
from av.codec.hwaccel import HWAccel
from av.video.frame import VideoFrame

from tubelet.service.decode.demux.container import MEDIA_ERRORS

# One context of the device for all videos of a process: to make one takes long.
_SHARED = {"primary_ctx": "1"}
_held: list[HWAccel] = []


@cache
def accelerator(kind: str) -> HWAccel | None:
    """``cuda`` or ``none``; None where this machine has no such device.

    What the device cannot decode, FFmpeg decodes in software. Frames stay in the device's memory.
    """
    if kind == "none":
        return None
    accelerator = HWAccel(kind, allow_software_fallback=True, options=dict(_SHARED), is_hw_owned=True)
    try:
        _held.append(accelerator.create(av.Codec("h264", "r")))
    except MEDIA_ERRORS:
        return None
    return accelerator


def in_memory(frame: VideoFrame) -> VideoFrame:
    """The same frame where the processor can see it: most of those that are decoded nobody looks at."""
    stored = frame.sw_format
    return frame if stored is None else frame.reformat(format=stored.name)
