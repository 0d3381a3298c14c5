"""Tests that every odd file of the shared collection has its known outcome and crashes no worker."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.odd_video_outcomes import FILES, ODD, REFUSED, WARNED, WARNINGS
from tests.support.videos import decode_file, plan_whole_video
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.worker_state import WorkerFailure
from tubelet.service.errors import ClientError

pytestmark = pytest.mark.asyncio(loop_scope="module")

_deaths: list[WorkerFailure] = []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1), _deaths.append) as pool:
        yield pool


@pytest.mark.skipif(not FILES, reason=f"no odd clips in {ODD}")
@pytest.mark.parametrize("name", FILES)
async def test_outcome_of_each_odd_video(pool: DecodePool, name: str) -> None:
    outcome = "DECODED"
    warnings: tuple[str, ...] = ()
    try:
        async with pool.session() as session:
            metadata, units, end = await decode_file(session, ODD / name)
        plan = plan_whole_video(metadata).cut(end.end_ns)
        assert plan is not None
        assert set(units) >= {(0, unit) for unit in range(plan.grids[0].num_units)}
        assert end.frames_decoded > 0
        warnings = metadata.warnings + end.warnings
    except ClientError as error:
        outcome = error.reason
    assert outcome == REFUSED.get(name, "DECODED")
    assert {_kind(warning) for warning in warnings} == WARNED[name]
    assert not _deaths


def _kind(warning: str) -> str:
    return next((kind for kind in WARNINGS if kind in warning), warning)


async def test_cut_or_flipped_files_give_frames_or_a_client_error(pool: DecodePool, tmp_path: Path) -> None:
    """Bytes are missing or flipped at nine places of three files."""
    for name in ("decord/video_0.mov", "androidx/sample_h264.ts", "androidx/bear-vp9-odd-dimensions.webm"):
        if name not in FILES:
            pytest.skip(f"no clip {name}")
        data = (ODD / name).read_bytes()
        for tenth in range(1, 10):
            cut = len(data) * tenth // 10
            flipped = bytes(byte ^ 0x55 for byte in data[cut : cut + 64])
            for number, content in enumerate((data[:cut], data[:cut] + flipped + data[cut + 64 :])):
                path = tmp_path / f"{tenth}-{number}"
                path.write_bytes(content)
                try:
                    async with pool.session() as session:
                        _, units, _ = await decode_file(session, path)
                except ClientError:
                    continue
                assert units
    assert not _deaths
