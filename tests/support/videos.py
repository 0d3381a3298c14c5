"""What the tests of the decoder share: clips, rendered or found, and the reference: the ffmpeg program."""

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
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.limits import Limits
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.session import DecodeSession
from tubelet.service.decode.probe.probe import Track, probe
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S, Crop, DecodeSummary, PixelFormat, UnitFrames, VideoMetadata

VIDEOS = Path(__file__).resolve().parents[3] / "shared" / "videos"
SMALL = PixelFormat(64, 64, "stretch")
_BITS = 8
_PIECES = 12  # of a file that arrives


def found(name: str) -> Path:
    """A clip of the shared collection; the test is skipped where there is none."""
    path = VIDEOS / name
    if not path.is_file():
        pytest.skip(f"no clip {name} in {VIDEOS}")
    return path


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is there as a whole."""

    fd: int
    size_bytes: int
    is_whole: bool = True

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        return 0, self.size_bytes

    async def whole(self) -> int:
        return self.size_bytes


@dataclass(slots=True)
class ArrivingFile:
    """A file of which a piece more is there each time that somebody waits for it."""

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
            self.arrived = min(self.total, self.arrived + -(-self.total // _PIECES))
        return 0, self.arrived

    async def whole(self) -> int:
        self.arrived = self.total
        return self.total


@contextmanager
def opened(path: Path) -> Iterator[StoredFile]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield StoredFile(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def whole(
    metadata: VideoMetadata, frames_per_unit: int = 2, units_per_window: int = 8, window_s: float = 2
) -> Plan:
    """Windows over the whole video, the second half of each shared with the next."""
    window_ns = min(int(window_s * 1e9), metadata.duration_ns)
    stride = max(1, units_per_window // 2)
    return Plan(
        (SamplingGrid(0, metadata.duration_ns, window_ns, frames_per_unit, units_per_window, stride),)
    )


def piece(start_s: float, end_s: float, frames_per_unit: int = 2, units_per_window: int = 4) -> SamplingGrid:
    """One window over a range."""
    start, end = int(start_s * 1e9), int(end_s * 1e9)
    return SamplingGrid(start, end, end - start, frames_per_unit, units_per_window, units_per_window)


async def decode_file(
    session: DecodeSession,
    path: Path,
    plan: Plan | Callable[[VideoMetadata], Plan] = whole,
    pixel_format: PixelFormat = SMALL,
) -> tuple[VideoMetadata, dict[tuple[int, int], np.ndarray], DecodeSummary]:
    """Facts, the pixels of each (grid, unit), and the end."""
    with opened(path) as file:
        metadata = await session.probe(file)
        units, end = await decode_plan(session, plan(metadata) if callable(plan) else plan, pixel_format)
        return metadata, units, end


async def decode_plan(
    session: DecodeSession, plan: Plan, pixel_format: PixelFormat = SMALL
) -> tuple[dict[tuple[int, int], np.ndarray], DecodeSummary]:
    """The pixels of each (grid, unit) of a video that has been probed, and the end."""
    units = {}
    async for unit in session.decode(plan, pixel_format):
        units[unit.grid, unit.unit] = kept(unit)
    assert session.end is not None
    return units, session.end


def kept(unit: UnitFrames) -> np.ndarray:
    """A copy of a unit, which is given back."""
    pixels = unit.pixels.copy()
    unit.release()
    return pixels


def limits(**changed: Any) -> Limits:
    """Those of the configuration but for some."""
    settings: dict[str, Any] = DecodeConfig().model_dump() | {"threads": 1} | changed
    return Limits(**{each.name: settings[each.name] for each in fields(Limits)})


def source_of(path: Path) -> ByteSource:
    """For the caller to close."""
    return ByteSource(os.open(path, os.O_RDONLY))


@contextmanager
def probed(path: Path, **changed: Any) -> Iterator[Track]:
    """What the worker's own code finds, in this process, by these ``limits``."""
    with closing(source_of(path)) as source:
        track = probe(source, limits(**changed), lambda: None)
        try:
            yield track
        finally:
            track.close()


def remux(path: Path, target: Path, options: dict[str, str]) -> Path:
    """The same packets in another file, whose container is written with these options."""
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
    paint: Callable[[int], np.ndarray] | None = None,
    times: Callable[[int], int] | None = None,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    turn: tuple[float, bool, bool] = (0, False, False),
    aspect: Fraction | None = None,
) -> Path:
    """Encode numbered frames, or what ``paint`` makes.

    ``times`` gives each its place in units of 1 / rate; ``turn`` is degrees, then flips as PyAV has them.
    """
    width, height = size
    if codec == "libsvtav1" and multiprocessing.parent_process() is None:
        # Run as root it makes threads real-time, and those that torch starts after it inherit that and starve
        # the machine: it encodes in a process of its own.
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
        if turn != (0, False, False):
            stream.set_display_rotation(*turn)
        for number in range(frames):
            pixels = numbered(number, width, height) if paint is None else paint(number)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
            frame.pts = number if times is None else times(number)
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbered(number: int, width: int, height: int) -> np.ndarray:
    """A picture that says its number: a bar for each bit, white for one. -> (height, width, 3)"""
    bars = [(number >> bit & 1) * 255 for bit in range(_BITS)]
    row = np.repeat(np.array(bars, np.uint8), width // _BITS)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def number_of(pixels: np.ndarray) -> int:
    """What ``numbered`` wrote, from a picture of any size: (H, W, 3) -> its number."""
    middles = (np.arange(_BITS) * 2 + 1) * pixels.shape[1] // (2 * _BITS)
    bits = pixels[pixels.shape[0] // 2, middles].mean(axis=1) > 127
    return int(sum(1 << bit for bit in range(_BITS) if bits[bit]))


def flagged(frame: av.VideoFrame, parity: str) -> av.VideoFrame:
    """The same frame, marked as interlaced."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
    )
    graph.link_nodes(source, graph.add("setfield", parity), graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def ffmpeg_frames(path: Path, filters: str, width: int, height: int) -> np.ndarray:
    """Every frame through ffmpeg's own filters: -> (frames, height, width, 3) uint8."""
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-map", "0:v:0", "-an"]
    command += ["-vf", filters, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def crop_filters(
    width: int, height: int, pixel_format: PixelFormat, matrix: str, crop: Crop = "centre"
) -> str:
    """ffmpeg's words for ``crop`` of a (width, height) picture of square pixels."""
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
    return [child.pid for child in psutil.Process().children() if child.name() == "tubelet-decoder"]


def fork_server_pid() -> int:
    (pid,) = [child.pid for child in psutil.Process().children() if child.name() == "tubelet-forks"]
    return pid


def working_on(path: Path) -> set[int]:
    """The workers that have a file open: who is done with it may be about to close it."""
    return {pid for pid in worker_pids() if _has_open(pid, path)}


def _has_open(pid: int, path: Path) -> bool:
    """A process and its descriptors may go while they are looked at."""
    with suppress(FileNotFoundError):
        return any(_is(file, path) for file in Path(f"/proc/{pid}/fd").iterdir())
    return False


def _is(file: Path, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return file.samefile(path)
    return False


async def is_right(pool: DecodePool, clip: Path) -> None:
    """The pool decodes, and each frame is the one wanted."""
    async with pool.session() as session:
        metadata, units, end = await decode_file(session, clip)
    grid = whole(metadata).grids[0]
    assert len(units) == grid.num_units
    for (_, unit), pixels in units.items():
        for frame in range(2):
            assert number_of(pixels[frame]) == grid.frame_time_ns(unit, frame) * 10 // NS_PER_S
    assert end.end_ns == metadata.duration_ns
