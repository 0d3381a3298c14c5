"""Tests of seeking in Matroska files without an index: frames equal those of a full read."""

import os
import random
import re
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.support.videos import SMALL, decode_limits, open_source, probe_file, remux, render
from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.demux.container import BUFFER_BYTES
from tubelet.service.decode.demux.matroska_clusters import Cluster, ClusterIndex, void_element
from tubelet.service.decode.frames.decoder import Job, decode
from tubelet.service.decode.probe.probe import probe
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S, DecodeSummary, VideoMetadata

_SECONDS, _RATE, _GROUP = 60, 10, 20
_SIZE = (160, 96)
_BLOCK_BYTES = 16 << 10
_NEAR_BYTES = 1 << 19


class FarSource(ByteSource):
    """A source whose bytes are fetched in blocks on demand, and counted."""

    def __init__(self, path: Path) -> None:
        self.fetched_bytes = 0
        self.size = path.stat().st_size
        super().__init__(os.open(path, os.O_RDONLY), self._fetch, self.size)

    def _fetch(self, start: int, end: int) -> None:
        end = min(max(end, start + _BLOCK_BYTES), self.size)
        self.fetched_bytes += end - start
        self.add_available(start, end, self.size)


class UnitCollector:
    """Slots that keep every unit in memory of its own."""

    def __init__(self) -> None:
        self.units: dict[tuple[int, int], np.ndarray] = {}
        self._filled: list[np.ndarray] = []

    def acquire(self) -> tuple[int, np.ndarray]:
        self._filled.append(np.zeros((2, SMALL.height, SMALL.width, 3), np.uint8))
        return len(self._filled) - 1, self._filled[-1]

    def announce(self, grid: int, unit: int, slot: int) -> None:
        self.units[grid, unit] = self._filled[slot]

    def release(self, slot: int) -> None:
        pass


def no_heartbeat() -> None:
    pass


def noise_frame(_: int) -> np.ndarray:
    return np.random.default_rng().integers(0, 255, (_SIZE[1], _SIZE[0], 3), np.uint8)


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of at least 6 MB with B-frames and a key frame every two seconds."""
    coding = {"g": str(_GROUP), "sc_threshold": "0", "bf": "2", "preset": "ultrafast", "qp": "12"}
    path = tmp_path_factory.mktemp("coded") / "coded.mp4"
    return render(path, _SECONDS * _RATE, rate=_RATE, size=_SIZE, draw=noise_frame, options=coding)


def remux_without_index(coded: Path, path: Path, **options: str) -> Path:
    return remux(coded, path, {"live": "1"} | options)


def remove_cluster_sizes(path: Path) -> Path:
    """Make every cluster one of unknown size, as a recorder writes them to a pipe."""
    data = bytearray(path.read_bytes())
    for cluster in all_clusters(path):
        start = cluster.offset + 4
        length = 9 - data[start].bit_length()
        data[start : start + length] = bytes([0xFF >> (length - 1)]) + b"\xff" * (length - 1)
    path.write_bytes(data)
    return path


def all_clusters(path: Path) -> list[Cluster]:
    """Find all clusters of a file that FFmpeg wrote: each begins with a checksum and its time."""
    head = re.compile(rb"\x1f\x43\xb6\x75.{1,8}?\xbf\x84.{4}\xe7([\x81-\x88])(.{8})", re.DOTALL)
    return [
        Cluster(each.start(), int.from_bytes(each[2][: each[1][0] & 0x7F]))
        for each in head.finditer(path.read_bytes())
    ]


def decoded(
    source: ByteSource, plan: Plan
) -> tuple[VideoMetadata, dict[tuple[int, int], np.ndarray], DecodeSummary]:
    with closing(source):
        track = probe(source, decode_limits(), no_heartbeat)
        with closing(track):
            collector = UnitCollector()
            end = decode(Job(source, track, plan, SMALL, False, decode_limits()), collector, no_heartbeat)
            return track.metadata, collector.units, end


def probed_duration_ns(path: Path) -> int:
    with probe_file(path) as track:
        return track.metadata.duration_ns


@pytest.fixture(params=["small", "large", "without sizes", "broken off"])
def clip(request: pytest.FixtureRequest, coded: Path, tmp_path: Path) -> Path:
    large = {"cluster_time_limit": "5000", "cluster_size_limit": "5000000"}
    path = remux_without_index(coded, tmp_path / "clip.mkv", **({} if request.param == "small" else large))
    if request.param == "without sizes":
        return remove_cluster_sizes(path)
    if request.param == "broken off":
        os.truncate(path, path.stat().st_size - 100_000)
    return path


def single_window_plan(start_ns: int, end_ns: int) -> Plan:
    return Plan((SamplingGrid(start_ns, end_ns, end_ns - start_ns, 2, 4, 4),))


def test_a_near_cluster_is_found_before_every_time(clip: Path) -> None:
    known = all_clusters(clip)
    with closing(FarSource(clip)) as source:
        clusters = ClusterIndex(source, known[0].offset, no_heartbeat)
        assert clusters.last == known[-1]
        for ticks in range(0, _SECONDS * 1000, 333):
            found = clusters.at_or_before(ticks)
            assert found in known
            assert found.ticks <= ticks
            last = max(each for each in known if each.ticks <= ticks)
            assert last.offset - found.offset <= _NEAR_BYTES


@pytest.mark.parametrize("seed", range(3))
def test_seeking_gives_the_frames_of_a_full_read(clip: Path, seed: int) -> None:
    start_ns = random.Random(seed).randrange(56 * NS_PER_S)
    for plan in (
        single_window_plan(start_ns, start_ns + 2 * NS_PER_S),
        single_window_plan(start_ns // 8, 58 * NS_PER_S),
    ):
        metadata, units, end = decoded(FarSource(clip), plan)
        expected_metadata, expected, expected_end = decoded(open_source(clip), plan)
        assert units.keys() == expected.keys()
        assert all(np.array_equal(units[each], pixels) for each, pixels in expected.items())
        assert end.end_ns == expected_end.end_ns
        assert metadata.duration_ns == expected_metadata.duration_ns
        assert abs(metadata.frames - expected_metadata.frames) <= 2  # the number of frames is estimated


def test_unordered_timestamps_give_the_frames_of_a_full_read(tmp_path: Path) -> None:
    """FFmpeg decodes an MPEG-4 frame even if its references are missing, and reports no error."""
    coding = {"g": "50", "bf": "2", "sc_threshold": "1000000000", "qmin": "2", "qmax": "4"}
    frames = 580  # the last one is a key frame: no B-frame after it shows that timestamps are unordered
    path = tmp_path / "coded.mp4"
    coded = render(path, frames, rate=_RATE, codec="mpeg4", size=_SIZE, draw=noise_frame, options=coding)
    clip = remux_without_index(coded, tmp_path / "clip.mkv")
    for start_ns in (20 * NS_PER_S, 28 * NS_PER_S):
        plan = single_window_plan(start_ns, start_ns + 2 * NS_PER_S)
        _, units, _ = decoded(FarSource(clip), plan)
        _, expected, _ = decoded(open_source(clip), plan)
        assert units.keys() == expected.keys()
        assert all(np.array_equal(units[each], pixels) for each, pixels in expected.items())


def test_track_with_its_own_time_scale_is_scanned(tmp_path: Path) -> None:
    coding = {"g": "20", "bf": "0", "preset": "ultrafast", "qp": "12"}
    coded = render(
        tmp_path / "coded.mp4", _SECONDS * _RATE, rate=_RATE, size=_SIZE, draw=noise_frame, options=coding
    )
    # one frame in each cluster
    path = remux_without_index(coded, tmp_path / "clip.mkv", cluster_time_limit="1")
    data = bytearray(path.read_bytes())
    offset = data.index(b"\x73\xc5\x88")  # replaces the track's UID by TrackTimestampScale and a void
    data[offset : offset + 11] = b"\x23\x31\x4f\x84" + struct.pack(">f", 0.5) + b"\xec\x81\x00"
    path.write_bytes(data)
    with closing(FarSource(path)) as source, closing(probe(source, decode_limits(), no_heartbeat)) as track:
        assert track.clusters is None
        assert track.metadata.duration_ns == probed_duration_ns(path)


def test_cluster_with_an_impossible_time_is_ignored(coded: Path, tmp_path: Path) -> None:
    path = remux_without_index(coded, tmp_path / "clip.mkv")
    path.write_bytes(path.read_bytes() + b"\x1f\x43\xb6\x75\x8a\xe7\x88" + b"\xff" * 8)
    with closing(FarSource(path)) as source, closing(probe(source, decode_limits(), no_heartbeat)) as track:
        assert track.clusters is not None
        assert track.metadata.duration_ns == probed_duration_ns(path)


def test_short_range_reads_a_third_of_the_file_at_most(coded: Path, tmp_path: Path) -> None:
    far = FarSource(remux_without_index(coded, tmp_path / "clip.mkv"))
    decoded(far, single_window_plan(40 * NS_PER_S, 42 * NS_PER_S))
    assert far.fetched_bytes < 0.35 * far.size


@pytest.mark.parametrize("kind", ["two recordings", "few bytes", "one cluster"])
def test_files_without_searchable_clusters_raise(coded: Path, tmp_path: Path, kind: str) -> None:
    path = remux_without_index(coded, tmp_path / "clip.mkv")
    first, second, *_ = all_clusters(path)
    data = path.read_bytes()
    if kind == "two recordings":
        path.write_bytes(2 * data)
    elif kind == "few bytes":
        path.write_bytes(data[: 1 << 20])
    else:
        path.write_bytes(data[: second.offset] + bytes(len(data)))
    with (
        closing(FarSource(path)) as source,
        pytest.raises(ValueError, match=r"do not rise|is quick"),
    ):
        ClusterIndex(source, first.offset, no_heartbeat)


class CountingSource(ByteSource):
    """A source that counts reads."""

    def __init__(self, path: Path) -> None:
        self.reads = 0
        super().__init__(os.open(path, os.O_RDONLY))

    def read(self, offset: int, count: int) -> bytes:
        self.reads += 1
        return super().read(offset, count)


@pytest.mark.parametrize(
    "filling",
    [
        b"\x1f\x43\xb6\x75" * (1 << 18),
        b"\x1f\x43\xb6\x75\x81\xbf" * (1 << 17),
        b"".join(b"\x1f\x43\xb6\x75\x86\xe7\x84" + (70_000 + each).to_bytes(4) for each in range(1 << 16)),
    ],
    ids=["like a cluster", "like one with a checksum", "clusters"],
)
def test_many_cluster_headers_do_not_multiply_reads(coded: Path, tmp_path: Path, filling: bytes) -> None:
    path = remux_without_index(coded, tmp_path / "clip.mkv")
    first, *_ = all_clusters(path)
    path.write_bytes(path.read_bytes() + filling + void_element(2 << 20) + bytes(2 << 20))
    with closing(CountingSource(path)) as source:
        ClusterIndex(source, first.offset, no_heartbeat)
        pieces = source.wait_for_size() // BUFFER_BYTES
        assert source.reads < 4 * pieces


def test_bytes_resembling_a_cluster_header_are_ignored(coded: Path, tmp_path: Path) -> None:
    path = remux_without_index(coded, tmp_path / "clip.mkv")
    known = all_clusters(path)
    data = path.read_bytes()
    # Inside a Void element, which FFmpeg skips.
    spoilt = b"".join(
        data[each.offset : after.offset] + void_element(40) + b"\x1f\x43\xb6\x75\x81\x00" * 5 + b"\x00"
        for each, after in zip(known, [*known[1:], Cluster(len(data), 0)], strict=True)
    )
    path.write_bytes(data[: known[0].offset] + spoilt)
    again = all_clusters(path)
    with closing(FarSource(path)) as source:
        clusters = ClusterIndex(source, again[0].offset, no_heartbeat)
        assert all(clusters.at_or_before(each.ticks) in again for each in again)
