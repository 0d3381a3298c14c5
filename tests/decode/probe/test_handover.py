"""Tests of the stream that the probe of a short clip leaves open for decoding."""

import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.videos import (
    ArrivingFile,
    decode_file,
    decode_plan,
    open_file,
    plan_whole_video,
    probe_file,
    read_number,
    remux,
    render,
)
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S

_RATE = 10
_FEW, _MANY = 60, 600  # frames
_KEYED = {"g": "30", "bf": "2"}


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "flv"])
def test_handed_over_stream_repeats_every_packet(tmp_path: Path, container: str) -> None:
    path = render(tmp_path / f"clip.{container}", _FEW, options=_KEYED)
    with av.open(str(path)) as file:
        packets = [(packet.pts, bytes(packet)) for packet in file.demux(video=0) if packet.size]
    with probe_file(path) as track:
        opening = track.handover.take()
        assert opening is not None
        assert opening.head is not None
        read = list(opening.head.packets)
        while (packet := opening.stream.read()) is not None:
            read.append(packet)
        assert [(packet.pts, bytes(packet)) for packet in read] == packets
        assert track.handover.take() is None  # it can be taken once
        opening.stream.close()


@pytest.mark.parametrize(
    ("name", "frames", "codec"),
    [
        ("more than should be held", _MANY, "libx264"),
        ("stamps of B-frames that AVI has no place for", _FEW, "mpeg4"),
    ],
)
def test_useless_stream_is_not_handed_over(tmp_path: Path, name: str, frames: int, codec: str) -> None:
    path = render(
        tmp_path / ("clip.avi" if codec == "mpeg4" else "clip.mkv"), frames, codec=codec, options=_KEYED
    )
    with probe_file(path) as track:
        assert track.metadata.frames == frames
        assert track.handover.take() is None


async def test_damage_at_the_front_does_not_affect_later_ranges(tmp_path: Path) -> None:
    path = _prepend_damaged_packet(
        render(tmp_path / "clip.flv", 180, options={"g": "30", "bf": "0", "sc_threshold": "0"}),
        tmp_path / "damaged.flv",
    )
    start_ns, end_ns = 17 * NS_PER_S, 18 * NS_PER_S
    async with DecodePool(DecodeConfig(workers=1)) as pool, pool.session() as session:
        _, units, end = await decode_file(
            session, path, Plan((SamplingGrid(start_ns, end_ns, NS_PER_S, 1, 5, 5),))
        )
    assert [read_number(pixels[0]) for pixels in units.values()] == [171, 173, 175, 177, 179]
    assert end.warnings == ()
    assert end.frames_decoded == 30  # frames from the key frame on


async def test_second_decoding_gives_the_same_frames(tmp_path: Path) -> None:
    """The first decoding continues after the probe's head; the second one opens the file again."""
    path = render(tmp_path / "clip.mp4", _FEW, options=_KEYED)
    async with DecodePool(DecodeConfig(workers=1)) as pool, pool.session() as session:
        with open_file(path) as file:
            plan = plan_whole_video(await session.probe(file))
            first, _ = await decode_plan(session, plan)
            second, _ = await decode_plan(session, plan)
    assert first.keys() == second.keys()
    for place, pixels in first.items():
        assert np.array_equal(pixels, second[place])


async def test_streamed_mp4_whose_bytes_were_passed_is_opened_again(tmp_path: Path) -> None:
    """No key frame of raw video is known to be independent, so that every frame is decoded each time."""
    coded = render(tmp_path / "coded.mov", 250, codec="rawvideo", pix_fmt="rgb24")
    path = _swap_two_chunks(remux(coded, tmp_path / "clip.mov", {"movflags": "faststart"}))
    hours = Plan((SamplingGrid(0, 3600 * NS_PER_S, 2 * NS_PER_S, 2, 4, 4),), is_unbounded=True)
    async with DecodePool(DecodeConfig(workers=1)) as pool, pool.session() as session:
        with open_file(path) as file:
            await session.probe(ArrivingFile(file.fd, file.size_bytes), header_only=True)
            units, end = await decode_plan(session, hours)
    assert end.metadata.frames == 250
    for (_, unit), pixels in units.items():
        for frame in range(2):
            assert read_number(pixels[frame]) == hours.grids[0].frame_time_ns(unit, frame) * _RATE // NS_PER_S


def _swap_two_chunks(path: Path) -> Path:
    """Store the fourth chunk of an mp4 before the second one (ISO 14496-12, section 8.7.5)."""
    data = path.read_bytes()
    table = data.index(b"stco") + 12
    count = int.from_bytes(data[table - 4 : table])
    offsets = list(struct.unpack_from(f">{count}I", data, table))
    parts = [data[start:end] for start, end in pairwise([*offsets, len(data)])]
    for swapped in (offsets, parts):
        swapped[1], swapped[3] = swapped[3], swapped[1]
    header = bytearray(data[: offsets[0]])
    struct.pack_into(f">{count}I", header, table, *offsets)
    path.write_bytes(b"".join([header, *parts]))
    return path


def _prepend_damaged_packet(path: Path, damaged: Path) -> Path:
    """Copy the packets of ``path`` after one that cannot be decoded."""
    shift = 100  # ms, the ticks of FLV
    with av.open(str(path)) as source, av.open(str(damaged), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        broken = av.Packet(b"\xff" * 50)
        broken.pts = broken.dts = 0
        broken.time_base, broken.stream = Fraction(1, 1000), stream
        target.mux(broken)
        for packet in source.demux(video=0):
            if packet.dts is not None and packet.pts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                target.mux(packet)
    return damaged
