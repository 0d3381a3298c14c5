"""Videos of pages: which are played as they are, and what becomes of the others."""

import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.videos import numbered_picture, read_number, render, shared_clip
from tubelet.service.cli.pages.playable_video import (
    Encoding,
    NotPlayable,
    PlayableVideos,
    plan_encoding,
    playable_type,
)
from tubelet.service.config.config import DecodeConfig
from tubelet.service.report.own_files import check_replaceable
from tubelet.service.types.video import NS_PER_S, VideoMetadata

_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
_MATROSKA = "matroska,webm"
_WEBM_HEADER = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm"
_ROOM_BYTES = 10_000_000
_METADATA = VideoMetadata(
    _MP4, "h264", 640, 480, 25.0, 100, 4 * NS_PER_S, 9, pixel_format="yuv420p", shown_as_stored=True
)


@pytest.fixture
def said() -> list[str]:
    """What is said of conversions that take a while."""
    return []


@pytest.fixture
async def videos(said: list[str]) -> AsyncIterator[PlayableVideos]:
    async with PlayableVideos(DecodeConfig(), said.append) as videos:
        yield videos


@pytest.mark.parametrize(
    ("container", "codec", "pixel_format", "header", "media_type"),
    [
        (_MP4, "h264", "yuv420p", b"", "video/mp4"),
        (_MP4, "h264", "yuvj420p", b"", "video/mp4"),
        (_MP4, "h264", "yuv420p10le", b"", None),
        (_MP4, "h264", "yuv444p", b"", None),
        (_MP4, "hevc", "yuv420p", b"", None),
        (_MP4, "mpeg4", "yuv420p", b"", None),
        ("avi", "h264", "yuv420p", b"", None),
        (_MATROSKA, "h264", "yuv420p", _WEBM_HEADER, None),
        (_MATROSKA, "vp9", "yuv420p", _WEBM_HEADER, "video/webm"),
        (_MATROSKA, "vp8", "yuv420p", _WEBM_HEADER, "video/webm"),
        (_MATROSKA, "vp9", "yuv420p10le", _WEBM_HEADER, None),
        (_MATROSKA, "vp9", "yuv420p", _WEBM_HEADER.replace(b"\x84webm", b"\x88matroska"), None),
    ],
)
def test_browsers_play_some_files_as_they_are(
    container: str, codec: str, pixel_format: str, header: bytes, media_type: str | None
) -> None:
    metadata = replace(_METADATA, container=container, codec=codec, pixel_format=pixel_format)
    assert playable_type(metadata, header) == media_type


def test_a_turned_picture_is_not_left_to_browsers() -> None:
    assert playable_type(replace(_METADATA, shown_as_stored=False), b"") is None


async def test_playable_files_are_kept_byte_for_byte(videos: PlayableVideos, tmp_path: Path) -> None:
    mp4 = render(tmp_path / "clip.mp4", 10)
    webm = render(tmp_path / "clip.webm", 10, codec="libvpx-vp9")
    for path, media_type in ((mp4, "video/mp4"), (webm, "video/webm")):
        video = await videos.make(str(path), _ROOM_BYTES)
        assert (video.media_type, video.content) == (media_type, path.read_bytes())


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("clip.avi", "mpeg4", "yuv420p"),
        ("clip.mp4", "libx264", "yuv420p10le"),
        ("clip.mp4", "libx264", "yuv444p"),
        ("clip.mkv", "libx264", "yuv420p"),
    ],
)
async def test_other_files_are_converted_picture_by_picture(
    videos: PlayableVideos, tmp_path: Path, name: str, codec: str, pix_fmt: str
) -> None:
    clip = render(tmp_path / name, 30, codec=codec, pix_fmt=pix_fmt)
    video = await videos.make(str(clip), _ROOM_BYTES)
    assert video.media_type == "video/mp4"
    converted = tmp_path / "converted.mp4"
    converted.write_bytes(video.content)
    assert _probed(converted) == "h264,128,64,yuv420p"
    pictures = _pictures(converted, 128, 64)
    assert [read_number(picture) for picture in pictures] == list(range(30))


async def test_each_picture_is_drawn_over_at_its_time(videos: PlayableVideos, tmp_path: Path) -> None:
    grey = np.full((64, 128, 3), 90, np.uint8)
    clip = render(tmp_path / "clip.mp4", 20, rate=10, draw=lambda _: grey)  # which browsers play as it is

    def draw(picture: np.ndarray, time_ns: int) -> np.ndarray:
        assert np.abs(picture.astype(int) - 90).max() < 4
        return numbered_picture(time_ns * 10 // NS_PER_S, 128, 64)

    video = await videos.drawn_over(str(clip), _ROOM_BYTES, draw)
    drawn = tmp_path / "drawn.mp4"
    drawn.write_bytes(video.content)
    assert [read_number(picture) for picture in _pictures(drawn, 128, 64)] == list(range(20))
    check_replaceable(drawn)  # it has the mark of tubelet's files


async def test_a_turned_video_is_converted_upright(videos: PlayableVideos, tmp_path: Path) -> None:
    turned = render(tmp_path / "turned.mp4", 5, rotation=(90, False, False))
    video = await videos.make(str(turned), _ROOM_BYTES)
    converted = tmp_path / "converted.mp4"
    converted.write_bytes(video.content)
    assert _probed(converted) == "h264,64,128,yuv420p"
    # ffmpeg turns the picture as the file says
    expected, found = _pictures(turned, 64, 128), _pictures(converted, 64, 128)
    assert np.abs(expected.astype(int) - found).mean() < 3


async def test_colours_survive_the_conversion(videos: PlayableVideos, tmp_path: Path) -> None:
    colours = np.array([[200, 40, 40], [40, 180, 60], [50, 60, 210], [230, 220, 30]], np.uint8)
    bands = np.repeat(np.repeat(colours[None], 96, 0), 32, 1)
    clip = render(tmp_path / "clip.mkv", 5, size=(128, 96), draw=lambda _: bands)
    converted = tmp_path / "converted.mp4"
    converted.write_bytes((await videos.make(str(clip), _ROOM_BYTES)).content)
    filters = "scale=in_color_matrix=bt709:in_range=tv"
    pictures = _pictures(converted, 128, 96, filters)
    assert np.abs(pictures[2][48, 16::32].astype(int) - colours).max() < 8


async def test_a_conversion_that_takes_a_while_is_announced(
    videos: PlayableVideos, said: list[str], tmp_path: Path
) -> None:
    await videos.make(str(render(tmp_path / "short.avi", 10, codec="mpeg4")), _ROOM_BYTES)
    assert said == []
    long = render(tmp_path / "long.avi", 25, rate=1, codec="mpeg4")
    await videos.make(str(long), _ROOM_BYTES)
    assert said == [f"{long}: encoding 0:00:25.0 for its page, as browsers play it"]


async def test_a_video_of_odd_size_gets_even_sides(videos: PlayableVideos) -> None:
    clip = shared_clip("odd/corpus/xvid.avi")  # 10x5
    video = await videos.make(str(clip), _ROOM_BYTES)
    assert video.content[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("width", "height", "fps", "expected"),
    [
        (1920, 1080, 60.0, (640, 360, 33_333_333)),
        (1080, 1920, 25.0, (360, 640, 40_000_000)),
        (321, 241, 25.0, (320, 240, 40_000_000)),
        (3, 1, 0.0, (4, 2, 33_333_333)),
        (10_000, 1, 25.0, (640, 2, 40_000_000)),
    ],
)
def test_a_converted_video_is_small(
    width: int, height: int, fps: float, expected: tuple[int, int, int]
) -> None:
    encoding = plan_encoding(replace(_METADATA, width=width, height=height, fps=fps), _ROOM_BYTES)
    assert encoding == Encoding(*expected, bits_per_s=1_000_000)


def test_a_long_video_gets_fewer_bits_until_none_would_do() -> None:
    long = replace(_METADATA, duration_ns=1000 * NS_PER_S)
    assert plan_encoding(long, _ROOM_BYTES).bits_per_s == 72_000
    with pytest.raises(NotPlayable, match=r"0:50:00\.0 of video do not fit into 10\.0 MB in any quality"):
        plan_encoding(replace(_METADATA, duration_ns=3000 * NS_PER_S), _ROOM_BYTES)


async def test_what_does_not_fit_or_decode_is_refused_with_a_sentence(
    videos: PlayableVideos, tmp_path: Path
) -> None:
    clip = render(tmp_path / "clip.mp4", 10)
    with pytest.raises(NotPlayable, match=r"the video has 0\.0 MB, and the page has room for 0\.0 MB"):
        await videos.make(str(clip), 100)
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(NotPlayable, match="the file is not a video"):
        await videos.make(str(tmp_path / "text.avi"), _ROOM_BYTES)
    with pytest.raises(NotPlayable, match="the file cannot be read: No such file"):
        await videos.make(str(tmp_path / "missing.mp4"), _ROOM_BYTES)
    again = await videos.make(str(clip), _ROOM_BYTES)
    assert again.content == clip.read_bytes()


def _probed(path: Path) -> str:
    """Return what ffprobe says of the codec, size and pixel format."""
    entries = "stream=codec_name,width,height,pix_fmt"
    command = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "csv=p=0", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _pictures(path: Path, width: int, height: int, filters: str = "null") -> np.ndarray:
    """Return the frames of a video as ffmpeg shows them: (frames, height, width, 3)."""
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-vf", filters]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
