"""A first look at the clips before training: thumbnails, lengths and content hashes, from sandboxed workers.

N clips, P thumbnails of a clip.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from tubelet.models.spec import Preprocessing
from tubelet.service.cli.evaluation.dataset import LabelledVideo
from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.training.feed import read_samples
from tubelet.service.config.config import DecodeConfig
from tubelet.service.errors import ClientError
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S, VideoMetadata, to_ns

_THUMBNAILS = 5  # of a clip, evenly spaced
_SIDE = 32  # pixels
_MISSING = 0.1  # of a part, at most, may lie after the end of its video
_PICTURE = Preprocessing(_SIDE, _SIDE, "stretch", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen of the clips that can be decoded; ``left_out`` names the others with the reason."""

    clips: tuple[Clip, ...]
    thumbnails: NDArray[np.uint8] = field(repr=False)  # (N, P, H, W, 3)
    lengths_s: tuple[float, ...] = field(repr=False)
    digests: dict[str, str] = field(repr=False)  # of the file of each video, by its path
    pictures: dict[str, bytes] = field(repr=False)  # a JPEG of the middle of a clip, by its name
    left_out: dict[str, str]


def survey_clips(clips: Sequence[Clip], config: DecodeConfig, advance: Callable[[], None]) -> Survey:
    """Decode a few thumbnails of each clip; ``advance`` is called after each clip."""
    lengths: dict[str, float] = {}
    left_out: dict[str, str] = {}
    thumbnails, jpegs = {}, {}

    def leave_out(clip: LabelledVideo, error: Exception) -> None:
        left_out[clip.name] = " ".join(str(error).split())
        advance()

    def keep_picture(clip: LabelledVideo, jpeg: bytes) -> None:
        jpegs[clip.name] = jpeg

    for clip in clips:
        if reason := _unreadable(Path(clip.video)):
            left_out[clip.name] = reason
            advance()
    found = [clip for clip in clips if clip.name not in left_out]
    planner = partial(_plan_thumbnails, lengths)
    for sample in read_samples(found, planner, config, leave_out, keep_picture):
        thumbnails[sample.id] = sample.units[:, 0]
        advance()
    kept = tuple(clip for clip in found if clip.name in thumbnails)
    digests = {clip.video: "" for clip in kept}
    for video in digests:
        digests[video] = blake3(max_threads=1).update_mmap(Path(video)).hexdigest()
    pictures = (
        np.stack([thumbnails[clip.name] for clip in kept]) if kept else np.zeros((0, 1, 1, 1, 3), np.uint8)
    )
    return Survey(kept, pictures, tuple(lengths[clip.name] for clip in kept), digests, jpegs, left_out)


def _unreadable(file: Path) -> str:
    """Return why a path names no file to read; empty if it does."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "there is no such file; paths are relative to the folder of the list"
    except OSError as error:  # its folder cannot be read, or its name is too long
        return f"it cannot be read: {error.strerror}"
    return "it is a folder: one file is wanted" if file.is_dir() else ""


def part_of(clip: LabelledVideo, metadata: VideoMetadata) -> tuple[int, int]:
    """Return the start and end of a clip in its video, nanoseconds.

    Raises:
        ClientError: the video ends before the part starts, or more than a tenth of the part before its end;
            the part has no length.
    """
    if not isinstance(clip, Clip) or clip.range_s is None:
        return 0, metadata.duration_ns
    start_s, end_s = clip.range_s
    duration_s = metadata.duration_ns / NS_PER_S
    if start_s >= duration_s:
        raise ClientError(f"the video ends at {duration_s:.3g} s, before the part starts at {start_s:g} s")
    if end_s < math.inf and end_s - duration_s > _MISSING * (end_s - start_s):
        raise ClientError(f"the video ends at {duration_s:.3g} s, before the part ends at {end_s:g} s")
    start, end = to_ns(start_s), min(metadata.duration_ns, to_ns(min(end_s, duration_s)))
    if start >= end:
        raise ClientError(f"the part from {start_s:g} to {end_s:g} s is shorter than a nanosecond")
    return start, end


def _plan_thumbnails(
    lengths: dict[str, float], clip: Clip, metadata: VideoMetadata
) -> tuple[Plan, Preprocessing]:
    """Plan one window of a few frames over a clip, and note the clip's length."""
    start, end = part_of(clip, metadata)
    lengths[clip.name] = (end - start) / NS_PER_S
    grid = SamplingGrid(start, end, end - start, 1, _THUMBNAILS, _THUMBNAILS, one_segment=True)
    return Plan((grid,)), _PICTURE
