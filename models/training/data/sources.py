"""Pictures and clips that the simulated camera looks at: decoded once, cached, split by scene.

F frames, H W C pixels.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray
from rich.progress import track

from tubelet.models.training.data.scene_split import is_test, scene_of
from tubelet.models.training.data.stillness import is_still

# Text in a header that is not UTF-8 shall not stop anybody. From 19 on PyAV does that by itself.
_LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_clip(path: Path) -> InputContainer:
    """
    Raises:
        av.FFmpegError: it is not a video, or its header is damaged.
    """
    # Before any codec is opened: with PyAV's own callback, closing a frame-threaded codec early deadlocks.
    av.logging.restore_default_callback()
    return av.open(str(path), **_LENIENT)


SHORT_SIDE = 160  # pixels of a cached frame's shorter side
LONG_SIDE_MAX = 288  # the rest of a wider picture is cut off at both ends
MIN_SIDE = 90  # pixels; smaller videos are mostly test patterns
RATE_HZ = 16.0  # cached frames per second of video
MAX_FRAMES = 480  # of one clip
STILL_EVERY_S = 1.0  # from clips whose own camera moves only single frames are taken, this far apart
STILLS_MAX = 10  # of one clip
# Mean absolute step between neighbouring pixels (0..1) under which a picture shows nothing.
MIN_CONTRAST = 0.011
SUFFIXES = frozenset(
    (
        ".264",
        ".3gp",
        ".avc",
        ".avi",
        ".flv",
        ".gif",
        ".h264",
        ".ivf",
        ".mkv",
        ".mov",
        ".mp4",
        ".ogv",
        ".ts",
        ".webm",
    )
)


@dataclass(frozen=True, slots=True)
class Source:
    """One cached clip: (F, H, W, 3) uint8 in ``file``; ``moving`` ones keep their moving objects."""

    name: str
    scene: str
    test: bool
    moving: bool
    file: str
    rate_hz: float


class NoSources(ValueError):
    """There is nothing that a camera could look at."""


def load_sources(videos: Path, cache: Path, *, test: bool) -> list[Source]:
    """The sources of a folder of videos: those set aside for tests, or the others.

    A cache that was built before is taken as it is: remove it when the videos change.

    Raises:
        NoSources: there are none of them, or the cache is that of another folder.
    """
    index = cache / "index.json"
    if not index.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        read = (_cached(path, videos, cache) for path in track(_clips(videos), "decoding"))
        found = [asdict(source) for source in read if source]
        if not found:
            raise NoSources(
                f"{videos} holds no clip that can be decoded and shows something on {MIN_SIDE} pixels or more"
            )
        index.write_text(json.dumps({"videos": str(videos.resolve()), "sources": found}, indent=1))
    known = json.loads(index.read_text())
    if known["videos"] != str(videos.resolve()):
        raise NoSources(
            f"{cache} holds the clips of {known['videos']}, not of {videos}: remove it, or use another"
        )
    sources = [Source(**entry) for entry in known["sources"]]
    wanted = [source for source in sources if source.test == test]
    if not wanted:
        rest = "for tests" if test else "for training"
        raise NoSources(f"none of the {len(sources)} clips of {videos} is {rest}: scenes are divided by name")
    return wanted


def read_frames(source: Source, cache: Path) -> NDArray[np.uint8]:
    """(F, H, W, 3) uint8, mapped from the cache and not read yet."""
    return np.load(cache / source.file, mmap_mode="r")


def decode(
    path: Path, *, short_side: int, rate_hz: float, max_frames: int
) -> tuple[NDArray[np.uint8], float]:
    """The frames of a video on a time grid, each the last one shown at its instant: (F, H, W, 3) uint8.

    Returns the frames and their rate in Hz, which is lower than ``rate_hz`` when the video's is.

    Raises:
        av.FFmpegError: the file cannot be opened or nothing of it decodes.
        ValueError: no picture, or one smaller than ``MIN_SIDE``.
    """
    frames: list[NDArray[np.uint8]] = []
    reformatter = VideoReformatter()
    with open_clip(path) as container:
        if not container.streams.video:
            raise ValueError("no video stream")
        stream = container.streams.video[0]
        stream.thread_count = 1
        width, height = stream.codec_context.width, stream.codec_context.height
        if min(width, height) < MIN_SIDE:
            raise ValueError(f"{width}x{height} is too small")
        rate = min(float(stream.average_rate or 25), 60.0)
        rate_hz = min(rate, rate_hz)
        scale = short_side / min(width, height)
        size = (round(width * scale), round(height * scale))
        due = 0.0
        # By count, not by pts: several files here lie about their times, and objects may move at any speed.
        for number, frame in enumerate(container.decode(stream)):
            if frame.is_corrupt or number / rate < due:
                continue
            due += 1 / rate_hz
            picture = reformatter.reformat(
                frame, width=size[0], height=size[1], format="rgb24", interpolation=Interpolation.AREA
            )
            frames.append(_middle(np.asarray(picture.to_ndarray(), dtype=np.uint8)))
            if len(frames) == max_frames:
                break
    if not frames:
        raise ValueError("no frame decodes")
    return np.stack(frames), rate_hz


def _clips(videos: Path) -> list[Path]:
    return sorted(path for path in videos.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _cached(path: Path, videos: Path, cache: Path) -> Source | None:
    """Decode a clip into the cache; None when it shows nothing or does not decode."""
    try:
        frames, rate_hz = decode(path, short_side=SHORT_SIDE, rate_hz=RATE_HZ, max_frames=MAX_FRAMES)
    except (av.error.FFmpegError, ValueError, OverflowError):
        return None
    moving = len(frames) >= RATE_HZ and is_still(frames)
    if not moving:
        step = max(1, round(STILL_EVERY_S * rate_hz))
        frames = frames[::step][:STILLS_MAX]
        frames = frames[[_contrast(frame) >= MIN_CONTRAST for frame in frames]]
    if not len(frames) or _contrast(frames[0]) < MIN_CONTRAST:
        return None
    name = path.relative_to(videos).as_posix()
    scene = scene_of(path, videos)
    file = name.replace("/", "__") + ".npy"
    np.save(cache / file, frames)
    return Source(name, scene, is_test(scene), moving, file, rate_hz)


def _middle(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    top, left = max(0, height - LONG_SIDE_MAX) // 2, max(0, width - LONG_SIDE_MAX) // 2
    return np.ascontiguousarray(picture[top : top + LONG_SIDE_MAX, left : left + LONG_SIDE_MAX])


def _contrast(picture: NDArray[np.uint8]) -> float:
    grey = picture.astype(np.float32).mean(axis=-1) / 255
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())
