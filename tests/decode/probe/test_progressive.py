"""Tests that all real and odd videos give the same frames piece by piece as when stored."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from tests.support.odd_video_outcomes import DECODED, REAL
from tests.support.videos import VIDEOS, ArrivingFile, decode_plan, open_file
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

_LONGEST_S = 12  # longer videos are skipped to save time
_DAY_NS = 24 * 3600 * NS_PER_S


# Its last packet is damaged: a decoder that knows the video's duration does not need it, and one that does
# not decodes it.
_NOT_REACHED = {"odd/fate/displaymatrix.mp4": {(0, 8)}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


@pytest.mark.skipif(not REAL, reason=f"no clips in {VIDEOS}")
@pytest.mark.parametrize("name", [*REAL, *DECODED])
async def test_streamed_file_gives_the_frames_of_a_stored_one(pool: DecodePool, name: str) -> None:
    with open_file(VIDEOS / name) as file:
        async with pool.session() as session:
            metadata = await session.probe(file)
            if metadata.duration_ns > _LONGEST_S * NS_PER_S:
                pytest.skip(f"it lasts longer than {_LONGEST_S} s")
            window_ns = min(NS_PER_S, metadata.duration_ns)
            grid = SamplingGrid(0, metadata.duration_ns, window_ns, 2, 8, 4)
            known, _ = await decode_plan(session, Plan((grid,)))
        async with pool.session() as session:
            await session.probe(ArrivingFile(file.fd, file.size_bytes), header_only=True)
            endless = Plan((SamplingGrid(0, _DAY_NS, window_ns, 2, 8, 4),), is_unbounded=True)
            found, end = await decode_plan(session, endless)
    assert end.metadata == metadata
    assert found.keys() == known.keys() - _NOT_REACHED.get(name, set())
    for place, pixels in found.items():
        assert np.array_equal(pixels, known[place]), f"other frames in unit {place}"
