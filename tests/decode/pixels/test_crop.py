"""Tests that cropping frames before resizing changes nothing visible."""

from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
from av.error import FFmpegError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.preprocessing import preprocessing
from tests.support.sample_clip import town
from tests.support.videos import render
from tubelet.models.spec import Preprocessing
from tubelet.service.decode.demux.filter_graph import CachedFilterGraph
from tubelet.service.decode.pixels.crop import source_span
from tubelet.service.decode.pixels.rgb_converter import RgbConverter, RgbPicture
from tubelet.service.types.video import CROPS, Crop

_MODEL = preprocessing(64, 64, "crop")
_ALL: frozenset[Crop] = frozenset(CROPS)


def _convert_whole_and_part(
    frame: av.VideoFrame, crop: Crop, pixel_format: Preprocessing = _MODEL
) -> tuple[RgbPicture, RgbPicture]:
    """Convert the whole frame, because there are other crops, and the part that one crop needs."""
    one: frozenset[Crop] = frozenset({crop})
    whole, part = (RgbConverter(pixel_format, None, crops).convert(frame) for crops in (_ALL, one))
    assert (whole.part.height, whole.part.width) == whole.resized
    return whole, part


def _assert_same(frame: av.VideoFrame, crop: Crop, pixel_format: Preprocessing = _MODEL) -> float:
    """Assert that the crop looks the same either way; return the share of the picture that was resized."""
    whole, part = _convert_whole_and_part(frame, crop, pixel_format)
    off = np.abs(part.crop(crop).astype(int) - whole.crop(crop))
    assert off.mean() <= 0.4
    assert off.max() <= 5
    return part.shown.size / whole.shown.size


@pytest.mark.parametrize("model", [(112, 128), (160, 182), (182, 182), (224, 224), (224, 256)])
def test_cropped_source_looks_the_same_at_every_size(model: tuple[int, int]) -> None:
    side, resized = model
    pixel_format = preprocessing(side, side, "crop", resized, resized)
    sizes = [
        (640, 360),
        (426, 240),
        (320, 240),
        (480, 360),
        (854, 480),
        (960, 540),
        (1280, 720),
        (1080, 1920),
    ]
    kept = []
    for size in sizes:
        frame = av.VideoFrame.from_ndarray(_scene(*size), "rgb24").reformat(format="yuv420p")
        kept.append(_assert_same(frame, "centre", pixel_format))
    assert np.median(kept) < 0.8


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("hflip", [False, True])
def test_cropped_source_looks_the_same_in_every_orientation(
    tmp_path: Path, degrees: int, hflip: bool, crop: Crop
) -> None:
    path = render(
        tmp_path / "clip.mp4",
        2,
        size=(250, 134),
        draw=lambda _: _scene(250, 134),
        rotation=(degrees, hflip, False),
    )
    av.logging.restore_default_callback()
    with av.open(str(path)) as container:
        assert _assert_same(next(container.decode(video=0)), crop) < 0.8


@pytest.mark.parametrize(
    "stored",
    [
        *("yuv420p", "yuvj420p", "yuv422p10le", "yuv444p", "yuva420p"),
        *("nv12", "p010le", "gray", "gbrp", "rgb24", "bgra"),
    ],
)
def test_cropped_source_looks_the_same_in_every_pixel_format(stored: str) -> None:
    frame = av.VideoFrame.from_ndarray(_scene(402, 150), "rgb24").reformat(format=stored)
    assert _assert_same(frame, "centre") < 0.8


@pytest.mark.parametrize("colour_range", [1, 2], ids=["limited", "full"])
@pytest.mark.parametrize("size", [(402, 150), (150, 402)], ids=["wide", "high"])
def test_cropped_source_keeps_its_colour_range(size: tuple[int, int], colour_range: int) -> None:
    frame = av.VideoFrame.from_ndarray(_scene(*size), "rgb24").reformat(format="yuv420p")
    frame.color_range = colour_range
    assert _assert_same(frame, "centre") < 0.8


@pytest.mark.parametrize(
    ("width", "stored"),
    [(100, "yuv420p"), (404, "yuv410p"), (401, "yuv420p"), (404, "monob")],
    ids=["enlarged", "coarse", "odd", "of bits"],
)
def test_source_is_not_cropped_where_it_would_show(width: int, stored: str) -> None:
    frame = av.VideoFrame.from_ndarray(_scene(width, width // 2), "rgb24").reformat(format=stored)
    whole, part = _convert_whole_and_part(frame, "centre")
    assert np.array_equal(whole.shown, part.shown)


def test_each_frame_is_cropped_by_its_own_size() -> None:
    converter = RgbConverter(_MODEL, None, {"centre"})
    for size in ((402, 150), (260, 130), (402, 150)):
        frame = av.VideoFrame.from_ndarray(_scene(*size), "rgb24").reformat(format="yuv420p")
        fresh = RgbConverter(_MODEL, None, {"centre"}).convert(frame)
        assert np.array_equal(converter.convert(frame).crop("centre"), fresh.crop("centre"))


def test_filter_graph_works_again_after_a_failure() -> None:
    graph = CachedFilterGraph()
    frame = av.VideoFrame.from_ndarray(_scene(64, 64), "rgb24")
    for _ in range(2):
        (part,) = graph.apply(frame, [("crop", "32:16:0:0")])
        assert (part.width, part.height) == (32, 16)
        with pytest.raises((FFmpegError, ValueError)):
            graph.apply(frame, [("crop", "128:128:0:0")])


@given(resized=st.integers(2, 400), more=st.integers(0, 2000), data=st.data())
def test_span_contains_the_crop_at_the_same_scale(resized: int, more: int, data: st.DataObject) -> None:
    stored = resized + more + (resized + more) % 2
    length = data.draw(st.integers(1, resized))
    start = data.draw(st.integers(0, resized - length))
    found = source_span(stored, resized, (start, length))
    assert 0 <= found.first <= max(0, start - 1)
    assert min(resized, start + length + 1) <= found.last <= resized
    assert 0 <= found.start < found.end <= stored
    for place, edge in ((found.first, found.start), (found.last, found.end)):
        assert edge % 2 == 0
        assert place == pytest.approx(edge * resized / stored, abs=0.03)


def _scene(width: int, height: int) -> np.ndarray:
    """Return a picture (height, width, 3) uint8 without an axis of symmetry."""
    return np.asarray(town(1600, 1000).resize((width, height)))
