"""Videos as browsers play them: H.264 in mp4 and WebM as they are, all others converted, small and silent.

A sandboxed decode worker reads the file, and turns it upright, into square pixels and sRGB, as for a model.
Another process encodes the pictures.
"""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import BinaryIO

import numpy as np

from tubelet.models.spec import Preprocessing
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.session import DecodeSession
from tubelet.service.errors import TubeletError
from tubelet.service.ingest.local_file import LocalVideo
from tubelet.service.report.text import clock, printable
from tubelet.service.report.video_page import PlayableVideo
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S, VideoMetadata

_PIXEL_FORMATS = ("yuv420p", "yuvj420p")  # all browsers play 8-bit 4:2:0, and some nothing else
_WEBM_CODECS = ("vp8", "vp9", "av1")
_WEBM_MARK = b"\x42\x82\x84webm"  # the DocType in the header of a Matroska file (RFC 8794)
_HEADER_BYTES = 4096
_MAX_SIDE = 640  # pixels of a converted video
_MAX_FPS = 30.0
_MAX_BITS_PER_S, _MIN_BITS_PER_S = 1_000_000, 60_000
_SHARE_OF_ROOM = 0.9  # for the pictures; the container takes the rest
_BYTES_PER_MB = 1_000_000
_LONG_S = 20  # of video: its conversion may take seconds


Draw = Callable[[np.ndarray, int], np.ndarray]
"""Draws over a picture (H, W, 3) uint8 at a time in nanoseconds, and returns a new one."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The size of a converted video in pixels, the time of each picture, and the most bits a second."""

    width: int
    height: int
    frame_ns: int
    bits_per_s: int


class NotPlayable(Exception):
    """The video cannot be held by the page; the message says why."""


class PlayableVideos:
    """Makes files playable; the decode worker starts with the first file and ends with the context.

    ``say`` gets a sentence before a file whose conversion takes a while.
    """

    def __init__(self, config: DecodeConfig, say: Callable[[str], None]) -> None:
        self._say = say
        self._config = config.model_copy(update={"workers": 1})
        self._context = AsyncExitStack()
        self._pool: DecodePool | None = None

    async def __aenter__(self) -> "PlayableVideos":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._context.aclose()

    async def make(self, path: str, room_bytes: int) -> PlayableVideo:
        """Return the video at ``path`` as browsers play it, in at most ``room_bytes``.

        Raises:
            NotPlayable: it does not fit, or cannot be converted.
        """
        async with self._opened(path) as (file, session, metadata):
            if media_type := playable_type(metadata, file.read(_HEADER_BYTES)):
                size_bytes = os.fstat(file.fileno()).st_size
                _check_size(size_bytes, room_bytes)
                file.seek(0)
                return PlayableVideo(media_type, file.read())
            if metadata.duration_s >= _LONG_S:
                length = clock(metadata.duration_ns)
                self._say(f"{printable(path)}: encoding {length} for its page, as browsers play it")
            return await _convert(session, metadata, room_bytes)

    async def drawn_over(self, path: str, room_bytes: int, draw: Draw) -> PlayableVideo:
        """Return the video at ``path`` with ``draw`` applied to each picture, in at most ``room_bytes``.

        Pictures are upright, with square pixels, as a page shows the video.

        Raises:
            NotPlayable: it does not fit, or cannot be converted.
        """
        async with self._opened(path) as (_, session, metadata):
            return await _convert(session, metadata, room_bytes, draw)

    @asynccontextmanager
    async def _opened(self, path: str) -> AsyncIterator[tuple[BinaryIO, DecodeSession, VideoMetadata]]:
        """Open a file, and lend it a decode worker, which has probed it.

        Raises:
            NotPlayable: the file cannot be read or decoded.
        """
        if self._pool is None:
            self._pool = await self._context.enter_async_context(DecodePool(self._config))
        try:
            with _open_file(path) as file:
                video = LocalVideo(file.fileno(), os.fstat(file.fileno()).st_size)
                async with self._pool.session(video) as session:
                    yield file, session, await session.probe(video)
        except TubeletError as error:
            raise NotPlayable(error.message) from error
        except OSError as error:
            raise NotPlayable(f"the file cannot be read: {error.strerror}") from error


def playable_type(metadata: VideoMetadata, header: bytes) -> str | None:
    """Return the media type of a file that all browsers play as it is; None for any other.

    ``header`` is the beginning of the file.
    """
    # Not every browser turns, mirrors and crops pictures as the file says.
    if metadata.pixel_format not in _PIXEL_FORMATS or not metadata.shown_as_stored:
        return None
    if "mp4" in metadata.container.split(",") and metadata.codec == "h264":
        return "video/mp4"
    return "video/webm" if metadata.codec in _WEBM_CODECS and _WEBM_MARK in header else None


async def _convert(
    session: DecodeSession, metadata: VideoMetadata, room_bytes: int, draw: Draw | None = None
) -> PlayableVideo:
    """Decode the video at a small size, apply ``draw``, and encode it again.

    Raises:
        NotPlayable: it does not fit, or cannot be encoded.
    """
    encoding = plan_encoding(metadata, room_bytes)
    window_ns = min(encoding.frame_ns, metadata.duration_ns)
    grid = SamplingGrid(0, metadata.duration_ns, window_ns, 1, 1, 1)
    zeros, ones = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    preprocessing = Preprocessing(encoding.height, encoding.width, "stretch", zeros, ones)
    async with _encoder(encoding) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError):  # it has failed, and says so at its end
            async for unit in session.decode(Plan((grid,)), preprocessing):
                (picture,) = unit.pixels
                if draw is not None:
                    picture = draw(picture, grid.frame_time_ns(unit.unit, 0))
                process.stdin.write(picture.tobytes())
                unit.release()
                await process.stdin.drain()
        content, complaint = await process.communicate(b"")
    if process.returncode:
        reason = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise NotPlayable(f"the video cannot be encoded: {reason}")
    _check_size(len(content), room_bytes)
    return PlayableVideo("video/mp4", content)


def plan_encoding(metadata: VideoMetadata, room_bytes: int) -> Encoding:
    """Choose the size, frame rate and bit rate of a converted video.

    Raises:
        NotPlayable: so long a video does not fit in any quality.
    """
    scale = min(1.0, _MAX_SIDE / max(metadata.width, metadata.height))
    width, height = (max(2, round(side * scale / 2) * 2) for side in (metadata.width, metadata.height))
    frame_ns = round(NS_PER_S / min(metadata.fps or _MAX_FPS, _MAX_FPS))
    bits_per_s = int(room_bytes * 8 * _SHARE_OF_ROOM / max(metadata.duration_s, 1.0))
    if bits_per_s < _MIN_BITS_PER_S:
        room = f"{room_bytes / _BYTES_PER_MB:.1f} MB"
        raise NotPlayable(f"{clock(metadata.duration_ns)} of video do not fit into {room} in any quality")
    return Encoding(width, height, frame_ns, min(bits_per_s, _MAX_BITS_PER_S))


@asynccontextmanager
async def _encoder(encoding: Encoding) -> AsyncIterator[Process]:
    """Run the process that encodes; it does not outlive the context."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tubelet.service.cli.pages.encoder", json.dumps(asdict(encoding))),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,  # Ctrl-C is for the command alone
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _open_file(path: str) -> BinaryIO:
    """Open a video file for reading."""
    return open(path, "rb")


def _check_size(size_bytes: int, room_bytes: int) -> None:
    """Check that a video fits.

    Raises:
        NotPlayable: it does not.
    """
    if size_bytes > room_bytes:
        size, room = (value / _BYTES_PER_MB for value in (size_bytes, room_bytes))
        raise NotPlayable(f"the video has {size:.1f} MB, and the page has room for {max(room, 0):.1f} MB")
