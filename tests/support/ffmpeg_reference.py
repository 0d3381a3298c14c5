"""An independent decoder as the reference: the ffmpeg program, which decodes a video once."""

import asyncio
import re
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

_TIME_BASE = re.compile(rb"config in time_base: (\d+)/(\d+)")
_STAMP = re.compile(rb"\] n: *\d+ pts: *(-?\d+)")
# swscale's most exact flags; its default makes colours darker by 2 of 255.
EXACT = "flags=bilinear+full_chroma_int+accurate_rnd"


@dataclass(frozen=True, slots=True)
class Reference:
    """All T frames of a video and their display times."""

    times: tuple[Fraction, ...]  # seconds
    pixels: np.ndarray  # (T, H, W, 3) uint8

    def shown_at(self, wanted_ns: int) -> int:
        """Return the index of the frame shown ``wanted_ns`` after the first one; 0 before any is shown."""
        wanted = self.times[0] + Fraction(wanted_ns, 10**9)
        return max([number for number, time in enumerate(self.times) if time <= wanted], default=0)


async def decode_with_ffmpeg(path: Path, filters: str, width: int, height: int, seconds: float) -> Reference:
    """Decode the first ``seconds`` with ``filters``, which end with pictures of (width, height)."""
    command = ["ffmpeg", "-hide_banner", "-nostdin", "-threads", "1", "-t", str(seconds), "-i", str(path)]
    command += ["-map", "0:v:0", "-vf", f"{filters},format=rgb24,showinfo=checksum=0"]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-"]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    raw, said = await process.communicate()
    assert raw, said[-1000:]
    times: list[Fraction] = []
    time_base = Fraction(1)
    for line in said.splitlines():
        if found := _TIME_BASE.search(line):
            time_base = Fraction(int(found[1]), int(found[2]))
        elif found := _STAMP.search(line):
            times.append(int(found[1]) * time_base)
    pixels = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    assert len(times) == len(pixels)
    return Reference(tuple(times), pixels)
