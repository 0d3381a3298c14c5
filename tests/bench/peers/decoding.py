"""The decoding that every peer does for a video: windows of frames at the model's size, by PyAV alone.

It is PyAV's, from the front, with one reformatter, and only wanted frames are converted. No torch is loaded.
"""

from collections.abc import Callable
from io import BytesIO

import av
import av.logging
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from tubelet.models.spec import ModelSpec
from tubelet.service.decode.demux.container import LENIENT_METADATA


class WindowDecoder:
    """Bytes of a video -> frames of windows."""

    def __init__(self, spec: ModelSpec) -> None:
        av.logging.restore_default_callback()
        self.spec = spec

    def decode(self, video: bytes) -> np.ndarray:
        """-> (S, t, H, W, C) uint8, the frame in the middle of each of as many equal parts of the video."""
        count = self.spec.sampling.frames_per_window
        return self._window(
            self._frames(video, lambda total: [(2 * n + 1) * total // (2 * count) for n in range(count)])
        )

    def decode_windows(self, video: bytes, every: int, stride: int) -> list[np.ndarray]:
        """A window of every so many frames of the video, each so many of those after the one before."""
        size = self.spec.sampling.frames_per_window
        frames = self._frames(video, lambda total: list(range(every // 2, total, every)))
        return [
            self._window(frames[start : start + size]) for start in range(0, len(frames) - size + 1, stride)
        ]

    def _frames(self, video: bytes, choose: Callable[[int], list[int]]) -> list[np.ndarray]:
        """Those whose numbers are chosen, knowing how many there are."""
        size = self.spec.preprocessing
        with av.open(BytesIO(video), "r", **LENIENT_METADATA) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            total = sum(packet.size > 0 for packet in container.demux(stream))
            container.seek(0)
            wanted = choose(total)
            shapes = VideoReformatter()
            frames: list[np.ndarray] = []
            last = None
            for index, frame in enumerate(container.decode(stream)):
                while len(frames) < len(wanted) and wanted[len(frames)] <= index:
                    frames.append(_pixels(shapes, frame, size.height, size.width))
                last = frame
                if len(frames) == len(wanted):
                    break
        while last is not None and len(frames) < len(wanted):
            frames.append(frames[-1] if frames else _pixels(shapes, last, size.height, size.width))
        return frames

    def _window(self, frames: list[np.ndarray]) -> np.ndarray:
        sampling, clip = self.spec.sampling, np.stack(frames)
        return clip.reshape(sampling.units_per_window, sampling.frames_per_unit, *clip.shape[1:])


def _pixels(shapes: VideoReformatter, frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    """The centre of the picture once its shorter side fits."""
    scale = max(height / frame.height, width / frame.width)
    rows, columns = max(height, round(frame.height * scale)), max(width, round(frame.width * scale))
    picture = shapes.reformat(
        frame, columns, rows, "rgb24", interpolation=Interpolation.BILINEAR
    ).to_ndarray()
    top, left = (rows - height) // 2, (columns - width) // 2
    return picture[top : top + height, left : left + width]
