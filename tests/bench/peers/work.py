"""What every peer does for a video, as its users would: the frames of one window over all of it, the model.

Decoding is PyAV's, from the front, with one reformatter, and only wanted frames are converted; the model is
the very module that tubelet loads, eager, under inference mode, on a GPU if there is one, in the precision
that tubelet takes by itself there.
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import av
import av.logging
import numpy as np
import torch
from av.video.reformatter import Interpolation, VideoReformatter

from tubelet.models.repository.repository import ModelStore
from tubelet.models.runtime.precision import choose_dtype
from tubelet.models.spec import ModelSpec
from tubelet.models.video_model import VideoModel
from tubelet.service.decode.demux.container import LENIENT_METADATA


class Recogniser:
    """Bytes of a video -> frames of a window -> logits."""

    def __init__(self, store: Path, name: str) -> None:
        av.logging.restore_default_callback()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = choose_dtype("auto", self._device)
        entry = ModelStore(store).find(name)
        self.spec: ModelSpec = entry.spec
        self._model: VideoModel = entry.load().to(self._device, dtype)

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

    @torch.inference_mode()
    def logits(self, clips: list[np.ndarray]) -> np.ndarray:
        """B windows of (S, t, H, W, C) -> (B, K)"""
        batch = torch.from_numpy(np.stack(clips)).to(self._device)
        return self._model(batch).float().cpu().numpy()


def _pixels(shapes: VideoReformatter, frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    """The centre of the picture once its shorter side fits."""
    scale = max(height / frame.height, width / frame.width)
    rows, columns = max(height, round(frame.height * scale)), max(width, round(frame.width * scale))
    picture = shapes.reformat(
        frame, columns, rows, "rgb24", interpolation=Interpolation.BILINEAR
    ).to_ndarray()
    top, left = (rows - height) // 2, (columns - width) // 2
    return picture[top : top + height, left : left + width]
