"""Every odd file of the shared collection has its outcome, and none of them costs a worker."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from service.config import DecodeConfig
from service.decode.pool import DecodePool
from service.decode.process import Death
from service.errors import ClientError
from tests.decode_clips import VIDEOS, decode_file, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ODD = VIDEOS / "odd"
_FILES = sorted(str(path.relative_to(_ODD)) for path in _ODD.rglob("*") if path.is_file())
_OUTCOMES = {
    "NOT_A_VIDEO": """
        androidx/100kB-garbage-prefix.mp3 corpus/bogus.ogv corpus/bug498855-1.ogv corpus/bug504613.ogv
        corpus/bug506094.ogv corpus/moz_bug1079747.mp4 corpus/new.avi corpus/threeframes-end.gif
        moviepy/result.webm pointers/annex_link.mp4 small/small_mp3.mp3""",
    "NO_VIDEO_STREAM": """
        androidx/sample_audio_only.mp4 androidx/sample_fixed_rechunk_no_elst.mp4 corpus/mopt_1.mp4
        corpus/mopt_40.mp4 corpus/mopt_7.mp4 corpus/moz_small-shot-mp3.mp4
        corpus/moz_test-a-128k-44100Hz-1ch.mp4 corpus/sample.mpeg fate/Owner-iTunes_9.0.3.15.mp4
        mp4ff/iamf.mp4 small/small_Mpeg4.mp4 small/small_mp4-with-audio.mp4 small/small_wav.wav
        torchcodec/nasa_13013.mp4.audio.mp3""",
    "CORRUPT_VIDEO": """
        androidx/video_init.mp4 corpus/bug499519.ogv corpus/bug504843.ogv
        corpus/e34116d68f49c7852b362ec72a636df5.gif corpus/moz_0-timescale.mp4 corpus/moz_short-cenc.mp4
        mp4ff/complseg-1.0001.mp4 mp4ff/init1.cmfv small/small_AudioVideoInterleave.avi
        small/small_WindowsMediaVideo.wmv""",
    "VIDEO_TOO_LARGE": "corpus/bug498380.ogv",  # garbage for a time stamp: 300 million years
}
_EXPECTED = {name: reason for reason, names in _OUTCOMES.items() for name in names.split()}
_deaths: list[Death] = []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1), _deaths.append) as pool:
        yield pool


@pytest.mark.skipif(not _FILES, reason=f"no odd clips in {_ODD}")
@pytest.mark.parametrize("name", _FILES)
async def test_outcome(pool: DecodePool, name: str) -> None:
    outcome = "DECODED"
    try:
        async with pool.worker() as worker:
            facts, units, end = await decode_file(worker, _ODD / name)
        plan = whole(facts).cut(end.end_ns)
        assert plan is not None
        assert set(units) >= {(0, unit) for unit in range(plan.grids[0].num_units)}
        assert end.frames_decoded > 0
    except ClientError as error:
        outcome = error.reason
    assert outcome == _EXPECTED.get(name, "DECODED")
    assert not _deaths


async def test_truncated_anywhere(pool: DecodePool, tmp_path: Path) -> None:
    """Whatever is missing or flipped, a client's error or frames come out."""
    for name in ("decord/video_0.mov", "androidx/sample_h264.ts", "androidx/bear-vp9-odd-dimensions.webm"):
        if name not in _FILES:
            pytest.skip(f"no clip {name}")
        data = (_ODD / name).read_bytes()
        for tenth in range(1, 10):
            cut = len(data) * tenth // 10
            flipped = bytes(byte ^ 0x55 for byte in data[cut : cut + 64])
            for number, content in enumerate((data[:cut], data[:cut] + flipped + data[cut + 64 :])):
                path = tmp_path / f"{tenth}-{number}"
                path.write_bytes(content)
                try:
                    async with pool.worker() as worker:
                        _, units, _ = await decode_file(worker, path)
                except ClientError:
                    continue
                assert units
    assert not _deaths
