"""Decoding on a GPU's video engine, if the machine has one and the configuration asks for it.

FFmpeg: https://trac.ffmpeg.org/wiki/HWAccelIntro
"""

from functools import cache

import av
from av.codec.hwaccel import HWAccel
from av.video.frame import VideoFrame

from tubelet.service.decode.demux.container import MEDIA_ERRORS

# All videos of a process share one device context, because creating one takes long.
_DEVICE_OPTIONS = {"primary_ctx": "1"}
_device_contexts: list[HWAccel] = []


@cache
def accelerator(kind: str) -> HWAccel | None:
    """Return the decoder device of ``kind`` (``cuda`` or ``none``); None if the machine has none.

    FFmpeg decodes in software what the device does not support. Frames stay in the device's memory.
    """
    if kind == "none":
        return None
    accelerator = HWAccel(kind, allow_software_fallback=True, options=dict(_DEVICE_OPTIONS), is_hw_owned=True)
    try:
        _device_contexts.append(accelerator.create(av.Codec("h264", "r")))
    except MEDIA_ERRORS:
        return None
    return accelerator


def to_host_memory(frame: VideoFrame) -> VideoFrame:
    """Copy a frame from device memory to host memory; called only for the frames that are used."""
    stored = frame.sw_format
    return frame if stored is None else frame.reformat(format=stored.name)
