"""Tests of files whose packets are misleading: every plan gets the frames that ffmpeg shows."""

import random
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.videos import EXACT, decode_file, ffmpeg_frames, render
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S

_FRAMES, _RATE = 150, 25
_MANY = 520  # too many packets to buffer: decoding opens the file again
_NEAR = 8  # mean difference of 255 allowed between scalers; another frame differs by more than 40
_X264 = {"threads": "1", "sc_threshold": "0", "b_strategy": "0", "g": "30"}
_B_FRAMES = _X264 | {"bf": "3", "x264-params": "b-pyramid=none"}
_OTHER_HEADERS = {"bf": "2", "x264-params": "cabac=0:8x8dct=0:weightp=0:ref=1"}


def _rolling(number: int) -> np.ndarray:
    """Draw a moving texture, in which a frame decoded without its references looks wrong."""
    coarse = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
    return np.roll(np.kron(coarse, np.ones((8, 8, 1), np.uint8)), 3 * number, axis=1)


def _clip(path: Path, options: dict[str, str], frames: int = _FRAMES) -> Path:
    return render(path, frames, rate=_RATE, draw=_rolling, options=options)


def _with_decoding_stamps_alone(folder: Path) -> Path:
    path = folder / "stamps.mp4"
    with (
        av.open(str(_clip(folder / "sound.mp4", _B_FRAMES))) as source,
        av.open(str(path), "w") as copy,
    ):
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.stream = packet.dts, stream
                copy.mux(packet)
    return path


def _with_other_headers_in_the_middle(folder: Path) -> Path:
    """Write a recording whose source came back with other codec settings."""
    first, second = (
        _clip(folder / f"{number}.flv", _X264 | options, _FRAMES // 2).read_bytes()
        for number, options in enumerate(({"bf": "2"}, _OTHER_HEADERS))
    )
    path = folder / "headers.flv"
    path.write_bytes(first[:13] + _tags(first, 0) + _tags(second, 1000 * (_FRAMES // 2) // _RATE))
    return path


def _tags(flv: bytes, later_ms: int) -> bytes:
    """Return the audio and video tags (Flash Video file format, annex E.4), ``later_ms`` later."""
    out, place = b"", 13
    while place < len(flv):
        size = 11 + int.from_bytes(flv[place + 1 : place + 4], "big") + 4
        time = int.from_bytes(flv[place + 4 : place + 7], "big") + later_ms
        if flv[place] != 18:  # script data: the file's metadata
            out += flv[place : place + 4] + time.to_bytes(3, "big") + flv[place + 7 : place + size]
        place += size
    return out


def _with_intra_refresh(folder: Path) -> Path:
    """Write a clip whose container marks the start of each refresh as a key frame."""
    options = _X264 | {"bf": "0", "x264-params": "intra-refresh=1"}
    return _clip(folder / "refresh.mp4", options, _MANY)


def _with_a_damaged_key_frame(folder: Path) -> Path:
    path = _clip(folder / "damaged.mp4", _B_FRAMES)
    with av.open(str(path)) as container:
        keys = [packet for packet in container.demux(video=0) if packet.is_keyframe]
    assert len(keys) == _FRAMES // 30
    data, key = bytearray(path.read_bytes()), keys[3]
    assert key.pos is not None
    middle = key.pos + key.size // 2
    data[middle : middle + 200] = random.Random(0).randbytes(200)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "make",
    [
        _with_decoding_stamps_alone,
        _with_other_headers_in_the_middle,
        _with_intra_refresh,
        _with_a_damaged_key_frame,
    ],
)
async def test_misleading_packets_give_the_frames_of_ffmpeg(
    pool: DecodePool, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path, chance = make(tmp_path), random.Random(0)
    shown = ffmpeg_frames(path, f"scale=64:64:{EXACT},format=rgb24", 64, 64).astype(int)
    last = len(shown) - 3  # where timestamps are wrong, ffmpeg guesses when the last frames are shown
    some = [sorted(chance.sample(range(last), count)) for count in (1, 1, 1, 2, 3, 5, 8)]
    for numbers in (*some, [last], [30, 60, 90, 120], [5, 35, 65, 95, 125]):
        async with pool.session() as session:
            _, units, _ = await decode_file(session, path, _at(numbers))
        for place, number in enumerate(numbers):
            off = np.abs(units[place, 0] - shown[number]).mean()
            assert off < _NEAR, f"{number} of {numbers}"


def _at(numbers: list[int]) -> Plan:
    """Return a plan with one grid for each frame of ``numbers``."""
    times = [number * NS_PER_S // _RATE + NS_PER_S // (2 * _RATE) for number in numbers]
    return Plan(tuple(SamplingGrid(time, time + NS_PER_S // 100, NS_PER_S // 100, 1, 1, 1) for time in times))
