"""Helpers of the decoder's tests: clips, files, plans, and frames of the ffmpeg program for reference."""

import math
import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from av.filter import Graph

from tests.support.ffmpeg_reference import EXACT
from tests.support.preprocessing import SMALL
from tubelet.models.spec import Preprocessing
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.limits import Limits
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.session import DecodeSession
from tubelet.service.decode.probe.probe import Track, probe
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S, Crop, DecodeSummary, UnitFrames, VideoMetadata

VIDEOS = Path(__file__).resolve().parents[3] / "shared" / "videos"
_NUMBER_BITS = 8
_ARRIVAL_STEPS = 12  # steps in which a file arrives


def shared_clip(name: str) -> Path:
    """Return the path of a clip in the shared collection; skip the test if it is missing."""
    path = VIDEOS / name
    if not path.is_file():
        pytest.skip(f"no clip {name} in {VIDEOS}")
    return path


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file whose bytes are all there."""

    fd: int
    size_bytes: int
    is_whole: bool = True

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        return 0, self.size_bytes

    async def whole(self) -> int:
        return self.size_bytes


@dataclass(slots=True)
class ArrivingFile:
    """A file that grows by one piece each time someone waits for it."""

    fd: int
    total: int
    arrived: int = 0

    @property
    def size_bytes(self) -> int | None:
        return self.total if self.is_whole else None

    @property
    def is_whole(self) -> bool:
        return self.arrived == self.total

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        while self.arrived <= start and not self.is_whole:
            self.arrived = min(self.total, self.arrived + -(-self.total // _ARRIVAL_STEPS))
        return 0, self.arrived

    async def whole(self) -> int:
        self.arrived = self.total
        return self.total


@contextmanager
def open_file(path: Path) -> Iterator[StoredFile]:
    """Open ``path`` as a stored file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        yield StoredFile(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def plan_whole_video(
    metadata: VideoMetadata, frames_per_unit: int = 2, units_per_window: int = 8, window_s: float = 2
) -> Plan:
    """Return a plan of windows over the whole video, each shifted by half a window."""
    window_ns = min(int(window_s * 1e9), metadata.duration_ns)
    stride = max(1, units_per_window // 2)
    return Plan(
        (SamplingGrid(0, metadata.duration_ns, window_ns, frames_per_unit, units_per_window, stride),)
    )


def single_window(
    start_s: float, end_s: float, frames_per_unit: int = 2, units_per_window: int = 4
) -> SamplingGrid:
    """Return a grid of one window over [start_s, end_s)."""
    start, end = int(start_s * 1e9), int(end_s * 1e9)
    return SamplingGrid(start, end, end - start, frames_per_unit, units_per_window, units_per_window)


async def decode_file(
    session: DecodeSession,
    path: Path,
    plan: Plan | Callable[[VideoMetadata], Plan] = plan_whole_video,
    pixel_format: Preprocessing = SMALL,
) -> tuple[VideoMetadata, dict[tuple[int, int], np.ndarray], DecodeSummary]:
    """Probe and decode ``path``; return its facts, the pixels of each (grid, unit), and the end."""
    with open_file(path) as file:
        metadata = await session.probe(file)
        units, end = await decode_plan(session, plan(metadata) if callable(plan) else plan, pixel_format)
        return metadata, units, end


async def decode_plan(
    session: DecodeSession, plan: Plan, pixel_format: Preprocessing = SMALL, thumbnails: int = 0
) -> tuple[dict[tuple[int, int], np.ndarray], DecodeSummary]:
    """Decode a video that was probed; return the pixels of each (grid, unit), and the end."""
    units = {}
    async for unit in session.decode(plan, pixel_format, thumbnails=thumbnails):
        units[unit.grid, unit.unit] = copy_and_release(unit)
    assert session.end is not None
    return units, session.end


def copy_and_release(unit: UnitFrames) -> np.ndarray:
    """Return a copy of the unit's pixels and release its slot."""
    pixels = unit.pixels.copy()
    unit.release()
    return pixels


def decode_limits(**changed: Any) -> Limits:
    """Return the configuration's default limits with some ``changed``."""
    settings: dict[str, Any] = DecodeConfig().model_dump() | {"threads": 1} | changed
    return Limits(**{each.name: settings[each.name] for each in fields(Limits)})


def open_source(path: Path) -> ByteSource:
    """Open ``path`` as a byte source, which the caller closes."""
    return ByteSource(os.open(path, os.O_RDONLY))


@contextmanager
def probe_file(path: Path, **changed: Any) -> Iterator[Track]:
    """Probe ``path`` in this process, with some limits ``changed``."""
    with closing(open_source(path)) as source:
        track = probe(source, decode_limits(**changed), lambda: None)
        try:
            yield track
        finally:
            track.close()


def remux(path: Path, target: Path, options: dict[str, str]) -> Path:
    """Copy the packets of ``path`` to another container, which is written with ``options``."""
    with av.open(str(path)) as source, av.open(str(target), "w", container_options=options) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    return target


def render(
    path: Path,
    frames: int,
    *,
    rate: int = 10,
    size: tuple[int, int] = (128, 64),
    codec: str = "libx264",
    draw: Callable[[int], np.ndarray] | None = None,
    times: Callable[[int], int] | None = None,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    rotation: tuple[float, bool, bool] = (0, False, False),
    aspect: Fraction | None = None,
) -> Path:
    """Encode numbered frames, or those that ``draw`` makes.

    ``times`` gives the display time of each frame in units of 1 / rate. ``rotation`` is degrees, then
    horizontal and vertical flips as in PyAV.
    """
    width, height = size
    if codec == "libsvtav1" and multiprocessing.parent_process() is None:
        # As root, the encoder makes its threads real-time, and threads that torch starts later inherit that
        # and starve the machine. So it runs in a process of its own.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as elsewhere:
            here = partial(render, rate=rate, size=size, codec=codec, pix_fmt=pix_fmt, options=options)
            return elsewhere.submit(here, path, frames).result()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation != (0, False, False):
            stream.set_display_rotation(*rotation)
        for number in range(frames):
            pixels = numbered_picture(number, width, height) if draw is None else draw(number)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
            frame.pts = number if times is None else times(number)
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbered_picture(number: int, width: int, height: int) -> np.ndarray:
    """Draw ``number`` in binary, a white bar for each one: -> (height, width, 3)."""
    bars = [(number >> bit & 1) * 255 for bit in range(_NUMBER_BITS)]
    row = np.repeat(np.array(bars, np.uint8), width // _NUMBER_BITS)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def read_number(pixels: np.ndarray) -> int:
    """Read the number that ``numbered_picture`` drew, at any size: (H, W, 3) -> number."""
    middles = (np.arange(_NUMBER_BITS) * 2 + 1) * pixels.shape[1] // (2 * _NUMBER_BITS)
    bits = pixels[pixels.shape[0] // 2, middles].mean(axis=1) > 127
    return int(sum(1 << bit for bit in range(_NUMBER_BITS) if bits[bit]))


def mark_interlaced(frame: av.VideoFrame, parity: str) -> av.VideoFrame:
    """Return the same frame marked as interlaced, with ``parity`` tff or bff."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
    )
    graph.link_nodes(source, graph.add("setfield", parity), graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def ffmpeg_frames(path: Path, filters: str, width: int, height: int) -> np.ndarray:
    """Return every frame after ffmpeg's ``filters``: -> (frames, height, width, 3) uint8."""
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-map", "0:v:0", "-an"]
    command += ["-vf", filters, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def crop_filters(
    width: int, height: int, pixel_format: Preprocessing, matrix: str, crop: Crop = "centre"
) -> str:
    """Return ffmpeg's filters that take ``crop`` of a (width, height) picture with square pixels."""
    rows, columns = pixel_format.resized
    scale = max(Fraction(columns, width), Fraction(rows, height))
    wide, high = max(columns, math.floor(width * scale)), max(rows, math.floor(height * scale))
    left, top = "floor((iw-ow)/2)", "floor((ih-oh)/2)"
    moved = {"start": "0", "centre": left if width >= height else top, "end": "iw-ow"}[crop]
    if width >= height:
        left = moved
    else:
        top = moved.replace("w", "h")
    cut = f"crop={pixel_format.width}:{pixel_format.height}:'{left}':'{top}'"
    return f"scale={wide}:{high}:{EXACT}:in_color_matrix={matrix},format=rgb24,{cut}"


def worker_pids() -> list[int]:
    """Return the decode workers of this process that run."""
    return _children("tubelet-decoder")


def fork_server_pid() -> int:
    """Return the one fork server of this process that runs."""
    (pid,) = _children("tubelet-forks")
    return pid


def _children(name: str) -> list[int]:
    """Return the children of a name that run: those of servers that were killed stay here as zombies."""
    children = psutil.Process().children()
    return [each.pid for each in children if each.name() == name and each.status() != psutil.STATUS_ZOMBIE]


def pids_reading(path: Path) -> set[int]:
    """Return the workers that have ``path`` open; one that is done may not have closed it yet."""
    return {pid for pid in worker_pids() if _has_open(pid, path)}


def _has_open(pid: int, path: Path) -> bool:
    """Whether a process has ``path`` open; it and its descriptors may vanish meanwhile."""
    with suppress(FileNotFoundError):
        return any(_is_same_file(file, path) for file in Path(f"/proc/{pid}/fd").iterdir())
    return False


def _is_same_file(file: Path, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return file.samefile(path)
    return False


async def assert_decodes_correctly(pool: DecodePool, clip: Path) -> None:
    """Assert that the pool decodes ``clip`` and that each frame is the requested one."""
    async with pool.session() as session:
        metadata, units, end = await decode_file(session, clip)
    grid = plan_whole_video(metadata).grids[0]
    assert len(units) == grid.num_units
    for (_, unit), pixels in units.items():
        for frame in range(2):
            assert read_number(pixels[frame]) == grid.frame_time_ns(unit, frame) * 10 // NS_PER_S
    assert end.end_ns == metadata.duration_ns
