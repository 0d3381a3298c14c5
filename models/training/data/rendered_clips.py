"""Read rendered test clips with known camera moves, sampled as the service samples a video.

T frames in a window, H W C pixels, K classes.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray
from torch import Tensor

from tubelet.models.spec import Preprocessing, Sampling
from tubelet.models.training.data.sources import open_clip
from tubelet.models.training.trainer import as_units
from tubelet.models.video_model import VideoModel


@dataclass(frozen=True, slots=True)
class Clip:
    """A video at model size: ``frames`` (F, H, W, 3) uint8, and the times (F,) from which each is shown."""

    label: str
    frames: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    duration_s: float

    def windows(self, window_s: float, stride_s: float, frames: int) -> Tensor:
        """Return all windows that fit, with T = ``frames`` frames evenly spaced: -> (B, T, H, W, 3)."""
        starts = np.arange(0, self.duration_s - window_s + 1e-6, stride_s)
        middles = starts[:, None] + (np.arange(frames) + 0.5) * window_s / frames
        shown = np.searchsorted(self.times_s, middles, side="right") - 1
        return torch.from_numpy(self.frames[np.maximum(shown, 0)])


def read_clips(folder: Path, preprocessing: Preprocessing) -> Iterator[Clip]:
    """Read the clips that ``labels.csv`` in ``folder`` lists.

    Raises:
        OSError, av.FFmpegError: the folder does not exist, or a clip cannot be decoded.
    """
    with (folder / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            yield _read(folder / row["file"], row["label"], preprocessing)


@torch.inference_mode()
def confusion_of_clips(
    model: VideoModel, clips: list[Clip], labels: tuple[str, ...], sampling: Sampling, window_s: float
) -> Tensor:
    """Count a model's answers by true label (row) and answer (column): -> (K, K). Windows overlap by half."""
    counts = torch.zeros(len(labels), len(labels), dtype=torch.int64)
    for clip in clips:
        windows = clip.windows(window_s, window_s / 2, sampling.frames_per_window)
        answers = model(as_units(windows, sampling.frames_per_unit)).argmax(dim=1)
        counts[labels.index(clip.label)] += torch.bincount(answers, minlength=len(labels))
    return counts


def _read(path: Path, label: str, preprocessing: Preprocessing) -> Clip:
    """Decode a clip, resize its frames and cut out their centres."""
    height, width = preprocessing.height, preprocessing.width
    frames, times = [], []
    scaler = VideoReformatter()
    with open_clip(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        for frame in container.decode(stream):
            scale = max(width / frame.width, height / frame.height)
            size = max(width, round(frame.width * scale)), max(height, round(frame.height * scale))
            small = scaler.reformat(
                frame, width=size[0], height=size[1], format="rgb24", interpolation=Interpolation.BILINEAR
            )
            left, top = (size[0] - width) // 2, (size[1] - height) // 2
            frames.append(small.to_ndarray()[top : top + height, left : left + width])
            times.append(frame.time)
        rate = float(stream.average_rate or 25)
    start = times[0]
    return Clip(label, np.stack(frames), np.array(times) - start, times[-1] - start + 1 / rate)
