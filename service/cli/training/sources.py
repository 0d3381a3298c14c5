"""The clips of a folder that the simulated camera films: read once, cached, split by scene."""

import json
import logging
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from tubelet.models.training.simulation.sources import (
    LONG_SIDE_MAX,
    MAX_FRAMES,
    MIN_SIDE,
    RATE_HZ,
    SHORT_SIDE,
    Source,
    choose_frames,
)
from tubelet.service.cli.evaluation.dataset import InvalidDataset, LabelledVideo
from tubelet.service.cli.runs.video_sources import find_videos
from tubelet.service.cli.training.feed import read_clips
from tubelet.service.cli.training.scene_split import is_test, scene_of
from tubelet.service.config.config import DecodeConfig
from tubelet.service.errors import ClientError
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S, PixelFormat, VideoMetadata

_FRAME_NS = NS_PER_S // RATE_HZ

_log = logging.getLogger(__name__)


class NoSources(InvalidDataset):
    """A folder has no clips to train or test with; the message says why."""


def load_sources(videos: Path, cache: Path, config: DecodeConfig, *, test: bool) -> list[Source]:
    """Return the sources in a folder of videos, the held-out ones if ``test``, else the others.

    An existing cache is used unchecked: remove it when the videos change.

    Raises:
        NoSources: there are no such sources, or the cache belongs to another folder.
    """
    index = cache / "sources.json"
    if not index.is_file():
        moving = _fill(cache, videos, config)
        index.write_text(json.dumps({"videos": str(videos.resolve()), "moving": moving}, indent=1))
    known = json.loads(index.read_text())
    if known["videos"] != str(videos.resolve()):
        raise NoSources(
            f"{cache} holds the clips of {known['videos']}, not of {videos}: remove it, or use another"
        )
    wanted = [
        Source(name, moving, partial(np.load, _file(cache, name), mmap_mode="r"))
        for name, moving in known["moving"].items()
        if is_test(scene_of(videos / name, videos)) == test
    ]
    if not wanted:
        rest = "for tests" if test else "for training"
        raise NoSources(
            f"none of the {len(known['moving'])} clips of {videos} is {rest}: scenes are divided by name"
        )
    return wanted


def _fill(cache: Path, videos: Path, config: DecodeConfig) -> dict[str, bool]:
    """Write the frames of a folder's videos into the cache; return by name which ones move."""
    cache.mkdir(parents=True, exist_ok=True)
    found = find_videos([str(videos)], None, recursive=True)
    paths = sorted(Path(each.name) for each in found if each.problem is None)
    named = [LabelledVideo(path.relative_to(videos).as_posix(), str(path), label="") for path in paths]
    moving = {}
    for clip in track(read_clips(named, _plan_frames, config), "decoding", total=len(named)):
        frames, moves = choose_frames(clip.windows[:, 0, 0])
        if len(frames):
            np.save(_file(cache, clip.video.name), frames)
            moving[clip.video.name] = moves
        else:
            _log.warning("left out %s: its pictures are empty", clip.video.name)
    if not moving:
        raise NoSources(
            f"{videos} holds no clip that can be used: each one cannot be decoded, has fewer than {MIN_SIDE} "
            "pixels on its shorter side, or shows only empty pictures"
        )
    return moving


def _file(cache: Path, name: str) -> Path:
    """Return the file of a clip's frames, (F, H, W, 3) uint8."""
    return cache / (name.replace("/", "__") + ".npy")


def _plan_frames(metadata: VideoMetadata) -> tuple[Plan, PixelFormat]:
    """Plan windows of one frame each, at the rate and size of a source."""
    width, height = metadata.width, metadata.height
    if min(width, height) < MIN_SIDE:
        raise ClientError(
            f"its pictures of {width}x{height} are too small: the shorter side needs {MIN_SIDE} pixels"
        )
    grid = SamplingGrid(
        start_ns=0,
        end_ns=min(metadata.duration_ns, MAX_FRAMES * _FRAME_NS),
        window_ns=min(metadata.duration_ns, _FRAME_NS),
        frames_per_unit=1,
        units_per_window=1,
        stride_units=1,
    )
    scale = SHORT_SIDE / min(width, height)
    rows, columns = (min(round(side * scale), LONG_SIDE_MAX) for side in (height, width))
    return Plan((grid,)), PixelFormat(rows, columns, "crop")
