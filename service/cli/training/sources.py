"""The clips of a folder that the simulated camera films: read once, cached, split by scene."""

import json
import logging
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np
from rich.progress import track

from tubelet.models.json_file import write_json
from tubelet.models.spec import Preprocessing
from tubelet.models.training.simulation.sources import RATE_HZ, Source, choose_frames
from tubelet.service.cli.evaluation.dataset import InvalidDataset, LabelledVideo
from tubelet.service.cli.runs.video_sources import find_videos
from tubelet.service.cli.training.feed import read_samples
from tubelet.service.cli.training.scene_split import is_test, scene_of
from tubelet.service.config.config import DecodeConfig
from tubelet.service.errors import ClientError
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S, VideoMetadata

_SHORT_SIDE = 160  # pixels of a frame's shorter side
_LONG_SIDE_MAX = 288  # pixels of the longer side; longer pictures are cropped at both ends
_MIN_SIDE = 90  # smallest side of a video, pixels; smaller videos are mostly test patterns
_FRAME_NS = NS_PER_S // RATE_HZ
_MAX_FRAMES = 480  # of one clip

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
        write_json(index, {"videos": str(videos.resolve()), "moving": moving}, indent=1)
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
    clips = groupby(read_samples(named, _plan_frames, config), attrgetter("id"))
    for name, samples in track(clips, "decoding", total=len(named)):
        frames, moves = choose_frames(np.concatenate([sample.units[0] for sample in samples]))
        if len(frames):
            np.save(_file(cache, name), frames)
            moving[name] = moves
        else:
            _log.warning("left out %s: its pictures are empty", name)
    if not moving:
        raise NoSources(
            f"{videos} holds no clip that can be used: each one cannot be decoded, has fewer than "
            f"{_MIN_SIDE} pixels on its shorter side, or shows only empty pictures"
        )
    return moving


def _file(cache: Path, name: str) -> Path:
    """Return the file of a clip's frames, (F, H, W, 3) uint8."""
    return cache / (name.replace("/", "__") + ".npy")


def _plan_frames(_: LabelledVideo, metadata: VideoMetadata) -> tuple[Plan, Preprocessing]:
    """Plan windows of one frame each, at the rate and size of a source."""
    width, height = metadata.width, metadata.height
    if min(width, height) < _MIN_SIDE:
        raise ClientError(f"{width}x{height} pixels are too few: the shorter side needs {_MIN_SIDE}")
    end_ns, window_ns = (min(metadata.duration_ns, most * _FRAME_NS) for most in (_MAX_FRAMES, 1))
    grid = SamplingGrid(0, end_ns, window_ns, frames_per_unit=1, units_per_window=1, stride_units=1)
    scale = _SHORT_SIDE / min(width, height)
    rows, columns = (min(round(side * scale), _LONG_SIDE_MAX) for side in (height, width))
    return Plan((grid,)), Preprocessing(rows, columns, "crop", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
