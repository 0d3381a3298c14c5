"""The contestants of ``tests.bench.decode``: each takes a path and times, and returns RGB frames.

All work from the file's path to frames (T, SIZE, SIZE, 3) uint8 is measured: opening, probing, decoding,
resizing with an antialiasing filter until the picture covers the square, and cropping its middle. Peers are
used as their users use them, in the fastest way that was found:

- torchcodec returns whole frames, a few at a time to save memory, and torchvision resizes them
  (bilinear, antialiased). Its own ``transforms`` take as much time with one thread, and more with two.
- decord resizes while it decodes; frames are requested by number, from its table of times.
- OpenCV has only frame numbers: it grabs frames within the next second, and seeks to later ones.
"""

import asyncio
import importlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from tests.support.preprocessing import preprocessing
from tests.support.videos import open_file
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S

OURS = "tubelet"
SIZE = 224
_FRAMES_AT_ONCE = 16  # that torchcodec hands over in full size
_FORMAT = preprocessing(SIZE, SIZE, "crop")


@dataclass(frozen=True, slots=True)
class Request:
    """The frames of one window or of several, from a video of this picture size."""

    width: int
    height: int
    grid: SamplingGrid

    @property
    def times_ns(self) -> list[int]:
        grid = self.grid
        return [
            grid.frame_time_ns(unit, frame)
            for unit in range(grid.num_units)
            for frame in range(grid.frames_per_unit)
        ]

    @property
    def covering(self) -> tuple[int, int]:
        """The (height, width) of the resized picture."""
        shorter = min(self.width, self.height)
        return self.height * SIZE // shorter, self.width * SIZE // shorter


class Contestant(Protocol):
    async def decode(self, path: Path, request: Request) -> np.ndarray:
        """Return the requested frames, (T, SIZE, SIZE, 3) uint8."""
        ...


class Tubelet:
    """The service's own decoder: a worker of an open pool."""

    def __init__(self, pool: DecodePool, fast: bool = False) -> None:
        self._pool = pool
        self._fast = fast

    async def decode(self, path: Path, request: Request) -> np.ndarray:
        grid = request.grid
        frames = np.zeros((grid.num_units, grid.frames_per_unit, SIZE, SIZE, 3), np.uint8)
        with open_file(path) as file:
            async with self._pool.session(file) as session:
                await session.probe(file)
                async for unit in session.decode(Plan((grid,)), _FORMAT, fast=self._fast):
                    frames[unit.unit] = unit.pixels
                    unit.release()
        return frames.reshape(-1, SIZE, SIZE, 3)


class TorchCodec:
    def __init__(self, module: Any, threads: int, seek_mode: Literal["exact", "approximate"]) -> None:
        self._open = partial(module.VideoDecoder, seek_mode=seek_mode, num_ffmpeg_threads=threads)
        self._threads = threads

    async def decode(self, path: Path, request: Request) -> np.ndarray:
        return await asyncio.to_thread(self._decode, path, request)

    def _decode(self, path: Path, request: Request) -> np.ndarray:
        torch.set_num_threads(self._threads)
        decoder = self._open(str(path))
        times_ns = request.times_ns
        frames = np.empty((len(times_ns), SIZE, SIZE, 3), np.uint8)
        for first in range(0, len(times_ns), _FRAMES_AT_ONCE):
            some = [time_ns / NS_PER_S for time_ns in times_ns[first : first + _FRAMES_AT_ONCE]]
            pictures = decoder.get_frames_played_at(some).data
            resized = F.resize(pictures, list(request.covering), antialias=True)
            square = F.center_crop(resized, [SIZE, SIZE])
            frames[first : first + len(some)] = square.permute(0, 2, 3, 1).numpy()
        return frames


class Decord:
    def __init__(self, module: Any, threads: int) -> None:
        self._open = partial(module.VideoReader, num_threads=threads)

    async def decode(self, path: Path, request: Request) -> np.ndarray:
        return await asyncio.to_thread(self._decode, path, request)

    def _decode(self, path: Path, request: Request) -> np.ndarray:
        height, width = request.covering
        reader = self._open(str(path), width=width, height=height)
        starts_s = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        wanted_s = np.array(request.times_ns) / NS_PER_S
        numbers = np.searchsorted(starts_s, wanted_s, side="right") - 1
        return np.ascontiguousarray(_middle(reader.get_batch(numbers).asnumpy()))


class OpenCv:
    def __init__(self, module: Any, threads: int) -> None:
        self._cv2 = module
        self._threads = threads

    async def decode(self, path: Path, request: Request) -> np.ndarray:
        return await asyncio.to_thread(self._decode, path, request)

    def _decode(self, path: Path, request: Request) -> np.ndarray:
        cv2 = self._cv2
        cv2.setNumThreads(self._threads)
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, self._threads])
        fps = capture.get(cv2.CAP_PROP_FPS)
        height, width = request.covering
        frames = np.empty((len(request.times_ns), SIZE, SIZE, 3), np.uint8)
        coming = 0  # the number of the frame that is grabbed next
        for place, time_ns in enumerate(request.times_ns):
            number = int(time_ns * fps / NS_PER_S)
            if number - coming > fps:
                capture.set(cv2.CAP_PROP_POS_FRAMES, number)
                coming = number
            while coming <= number:
                capture.grab()
                coming += 1
            _, picture = capture.retrieve()
            resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            frames[place] = _middle(resized[None])[0, :, :, ::-1]
        capture.release()
        return frames


def peers(threads: int) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Return the installed peers by name, and for each of the others why it is missing."""
    there: dict[str, Contestant] = {}
    absent: dict[str, str] = {}
    makers = {
        "torchcodec exact": ("torchcodec.decoders", partial(TorchCodec, seek_mode="exact")),
        "torchcodec approximate": ("torchcodec.decoders", partial(TorchCodec, seek_mode="approximate")),
        "decord": ("decord", Decord),
        "OpenCV": ("cv2", OpenCv),
    }
    for name, (module, maker) in makers.items():
        try:
            there[name] = maker(importlib.import_module(module), threads=threads)
        except (ImportError, OSError, RuntimeError) as error:  # the last two: no FFmpeg that it can load
            absent[name] = (str(error).strip() or repr(error)).splitlines()[0]
    return there, absent


def _middle(frames: np.ndarray) -> np.ndarray:
    """Crop the middle: (T, height, width, 3) with one side of SIZE -> (T, SIZE, SIZE, 3)."""
    top, left = ((length - SIZE) // 2 for length in frames.shape[1:3])
    return frames[:, top : top + SIZE, left : left + SIZE]
