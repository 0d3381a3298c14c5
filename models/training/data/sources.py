"""The pictures and clips that the simulated camera films: decoded once, cached, split by scene.

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

# Headers may hold text that is not UTF-8. PyAV replaces it by default from version 19 on.
_LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_clip(path: Path) -> InputContainer:
    """Open a video file.

    Raises:
        av.FFmpegError: the file is not a video, or its header is damaged.
    """
    # Before any codec is opened: with PyAV's log callback, closing a frame-threaded codec early deadlocks.
    av.logging.restore_default_callback()
    return av.open(str(path), **_LENIENT)


SHORT_SIDE = 160  # pixels of a cached frame's shorter side
LONG_SIDE_MAX = 288  # pixels of the longer side; longer pictures are cropped at both ends
MIN_SIDE = 90  # smallest side of a video, pixels; smaller videos are mostly test patterns
RATE_HZ = 16.0  # cached frames per second of video
MAX_FRAMES = 480  # most cached frames of one clip
STILL_EVERY_S = 1.0  # distance of the single frames taken from clips whose own camera moves, seconds
STILLS_MAX = 10  # most single frames of one clip
MIN_CONTRAST = 0.011  # least mean absolute step between neighbouring pixels (0..1); less is an empty picture
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
    """A cached clip, (F, H, W, 3) uint8 in ``file``: a video if ``moving``, else single frames of one."""

    name: str
    scene: str
    test: bool
    moving: bool
    file: str
    rate_hz: float


class NoSources(ValueError):
    """A folder has no clips to train or test with; the message says why."""


def load_sources(videos: Path, cache: Path, *, test: bool) -> list[Source]:
    """Return the sources in a folder of videos, the held-out ones if ``test``, else the others.

    An existing cache is used unchecked: remove it when the videos change.

    Raises:
        NoSources: there are no such sources, or the cache belongs to another folder.
    """
    index = cache / "index.json"
    if not index.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        read = (_decode_into_cache(path, videos, cache) for path in track(_clips(videos), "decoding"))
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
    """Map a source's frames from the cache into memory: -> (F, H, W, 3) uint8."""
    return np.load(cache / source.file, mmap_mode="r")


def decode(
    path: Path, *, short_side: int, rate_hz: float, max_frames: int
) -> tuple[NDArray[np.uint8], float]:
    """Decode a video's frames at up to ``rate_hz``, resized: -> (F, H, W, 3) uint8.

    Returns the frames and their rate in Hz, which is the video's own if that is lower.

    Raises:
        av.FFmpegError: the file cannot be opened or decoded.
        ValueError: the file has no frames, or frames smaller than ``MIN_SIDE``.
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
        # By frame count, not by timestamps, which are wrong in some files; objects may move at any speed.
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
    """Return the video files below ``videos``, sorted."""
    return sorted(path for path in videos.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _decode_into_cache(path: Path, videos: Path, cache: Path) -> Source | None:
    """Decode a clip into the cache; return None if it is empty or cannot be decoded."""
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
    """Crop a picture's centre to at most ``LONG_SIDE_MAX`` pixels a side."""
    height, width = picture.shape[:2]
    top, left = max(0, height - LONG_SIDE_MAX) // 2, max(0, width - LONG_SIDE_MAX) // 2
    return np.ascontiguousarray(picture[top : top + LONG_SIDE_MAX, left : left + LONG_SIDE_MAX])


def _contrast(picture: NDArray[np.uint8]) -> float:
    """Return the mean absolute step between neighbouring pixels, grey levels in 0..1."""
    grey = picture.astype(np.float32).mean(axis=-1) / 255
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())
