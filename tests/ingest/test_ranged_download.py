"""Ranged downloads: the requested bytes, each fetched once, and few others."""

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.service.config.config import FetchConfig, UploadConfig
from tubelet.service.errors import FetchFailed, QuotaExceeded, UploadTooLarge, UriChanged
from tubelet.service.ingest.anonymous_file import AnonymousFile
from tubelet.service.ingest.ranged_download import RangedDownload, fetch

_BLOCK = 4096
_CONFIG = FetchConfig(block_bytes=_BLOCK, read_ahead_bytes=16 * _BLOCK, attempts=1)


class Bytes:
    """A remote file in pieces of 1000 bytes; those from ``gate_at`` on wait for ``gate``.

    ``faults`` are raised before pieces, one each.
    """

    def __init__(self, content: bytes, faults: list[Exception | None] | None = None) -> None:
        self.content = content
        self.size_bytes = len(content)
        self.etag = ""
        self.asked: list[tuple[int, int]] = []
        self.gate_at = self.size_bytes
        self.gate = asyncio.Event()
        self._faults = faults or []

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        self.asked.append((start, end))
        for offset in range(start, end, 1000):
            if offset >= self.gate_at:
                await self.gate.wait()
            if self._faults and (fault := self._faults.pop(0)) is not None:
                raise fault
            yield self.content[offset : min(offset + 1000, end)]


def content(blocks: float) -> bytes:
    return bytes(number * 7 % 251 for number in range(int(blocks * _BLOCK)))


async def check(video: RangedDownload, remote: Bytes, start: int, end: int) -> int:
    """Wait for bytes, check their content, and return the end of the range that has arrived."""
    begins, ends = await video.wait(start, end)
    assert begins <= start < min(end, remote.size_bytes) <= ends
    assert os.pread(video.fd, ends - begins, begins) == remote.content[begins:ends]
    return ends


@given(
    ranges=st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 9000)), max_size=12),
    size=st.integers(1, 40_000),
)
async def test_reads_in_any_order_fetch_each_byte_once(ranges: list[tuple[int, int]], size: int) -> None:
    remote = Bytes(content(10)[:size])
    async with fetch(remote, _CONFIG, UploadConfig()) as video:
        for start, count in ranges:
            await check(video, remote, start % size, start % size + count)
        assert await video.whole() == size
        assert video.is_whole
        assert os.pread(video.fd, size + 1, 0) == remote.content
        assert video.fetched_bytes == size
    assert sum(end - start for start, end in remote.asked) == size


async def test_sequential_reads_fetch_ahead_and_jumps_do_not() -> None:
    remote = Bytes(content(1000))
    async with fetch(remote, _CONFIG, UploadConfig()) as video:
        offset = 0
        while offset < 10 * _BLOCK:
            offset = await check(video, remote, offset, offset + 1000)
        assert len(remote.asked) <= 6  # it doubles: 1, 2, 4, 8 blocks, or so
        assert video.fetched_bytes <= 3 * offset
        await check(video, remote, 500 * _BLOCK, 500 * _BLOCK + 1000)
        assert remote.asked[-1] == (500 * _BLOCK, 501 * _BLOCK)
        await check(video, remote, 990 * _BLOCK, 1000 * _BLOCK)
        assert video.fetched_bytes < 60 * _BLOCK


async def test_two_readers_fetch_ahead_each() -> None:
    remote = Bytes(content(1000))
    async with fetch(remote, _CONFIG, UploadConfig()) as video:
        offsets = [0, 500 * _BLOCK]
        while offsets[0] < 10 * _BLOCK:
            offsets = [await check(video, remote, offset, offset + 1000) for offset in offsets]
        assert len(remote.asked) <= 12
        assert video.fetched_bytes <= 3 * (offsets[0] + offsets[1] - 500 * _BLOCK)


async def test_read_ahead_is_limited() -> None:
    remote = Bytes(content(400))
    async with fetch(remote, _CONFIG, UploadConfig()) as video:
        offset = 0
        while offset < 200 * _BLOCK:
            offset = await check(video, remote, offset, offset + 1000)
            assert video.fetched_bytes <= offset + _CONFIG.read_ahead_bytes + 2 * _BLOCK
    assert max(end - start for start, end in remote.asked) <= _CONFIG.read_ahead_bytes + _BLOCK


async def test_readers_of_the_same_bytes_share_one_request() -> None:
    remote = Bytes(content(20))
    async with fetch(remote, _CONFIG, UploadConfig()) as video:
        offset = 5 * _BLOCK
        waits = [check(video, remote, offset + 10 * number, offset + 1000) for number in range(5)]
        await asyncio.gather(*waits)
        assert video.fetched_bytes == 2 * _BLOCK  # with the first one, which is always wanted
    assert sorted(remote.asked) == [(0, _BLOCK), (offset, offset + _BLOCK)]


async def test_bytes_can_be_read_before_their_range_is_complete() -> None:
    remote = Bytes(content(1))
    remote.gate_at = 2000
    async with fetch(remote, _CONFIG, UploadConfig()) as video:
        assert await check(video, remote, 100, 900) == 2000
        assert video.waited_s > 0
        remote.gate.set()
        assert await check(video, remote, 100, _BLOCK) == _BLOCK


async def test_limit_applies_to_fetched_bytes_not_to_the_file() -> None:
    remote = Bytes(content(100))
    async with fetch(remote, _CONFIG, UploadConfig(max_bytes=3 * _BLOCK)) as video:
        await check(video, remote, 0, 1)
        await check(video, remote, 98 * _BLOCK, 100 * _BLOCK)
        with pytest.raises(UploadTooLarge, match=f"limit of {3 * _BLOCK} bytes") as caught:
            await video.wait(50 * _BLOCK, 50 * _BLOCK + 1)
        assert caught.value.metadata == {"limit": str(3 * _BLOCK), "value": f">={4 * _BLOCK}"}
        assert video.fetched_bytes == 3 * _BLOCK


async def test_a_limit_below_the_first_block_leaves_no_file_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(UploadTooLarge, match=f"limit of {_BLOCK - 1} bytes"):
            async with fetch(Bytes(content(3)), _CONFIG, UploadConfig(max_bytes=_BLOCK - 1)):
                pass
    assert len(os.listdir("/proc/self/fd")) == before


async def test_each_piece_is_counted_and_an_error_of_that_ends_the_download() -> None:
    """A piece that is too many is counted, and is the last one."""
    counted: list[int] = []

    def count(size: int) -> None:
        counted.append(size)
        if sum(counted) > 2 * _BLOCK:
            raise QuotaExceeded("too many", quota="bytes_per_day", retry_after_s=None)

    remote = Bytes(content(100))
    async with fetch(remote, _CONFIG, UploadConfig(), count) as video:
        await check(video, remote, 0, 2 * _BLOCK)
        with pytest.raises(QuotaExceeded):
            await video.wait(50 * _BLOCK, 51 * _BLOCK)
        assert sum(counted) == video.fetched_bytes <= 2 * _BLOCK + counted[-1]


async def test_retry_requests_only_what_is_missing() -> None:
    remote = Bytes(content(3), [None, FetchFailed("gone for a moment")])
    config = FetchConfig(block_bytes=3 * _BLOCK, attempts=2)
    async with fetch(remote, config, UploadConfig()) as video:
        await check(video, remote, 0, 3 * _BLOCK)
    assert remote.asked == [(0, 3 * _BLOCK), (1000, 3 * _BLOCK)]  # what had come is not asked for again


@pytest.mark.parametrize("fault", [FetchFailed("gone"), UriChanged("another")])
async def test_permanent_failure_is_raised(fault: Exception) -> None:
    async with fetch(Bytes(content(3), [fault]), _CONFIG, UploadConfig()) as video:
        with pytest.raises(type(fault), match=str(fault)):
            await video.wait(0, 1)


async def test_range_that_failed_unawaited_is_fetched_again() -> None:
    """The first range is being fetched before any wait."""
    remote = Bytes(content(3), [FetchFailed("gone")])
    async with fetch(remote, _CONFIG, UploadConfig()) as video:
        while len(remote.asked) < 1 or video._runs:
            await asyncio.sleep(0)
        await check(video, remote, 0, 1000)


async def test_waiting_for_a_byte_after_the_end_is_an_error() -> None:
    async with fetch(Bytes(content(1)), _CONFIG, UploadConfig()) as video:
        with pytest.raises(ValueError, match=f"no byte {_BLOCK} in a file of {_BLOCK}"):
            await video.wait(_BLOCK, _BLOCK + 1)


async def test_leaving_the_context_cancels_downloads() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        remote = Bytes(content(3))
        remote.gate_at = 0
        async with fetch(remote, _CONFIG, UploadConfig()) as video:
            waiting = asyncio.create_task(video.wait(2 * _BLOCK, 3 * _BLOCK))
            while len(remote.asked) < 2:
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.sleep(0)  # what it waited for hears of it
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(os.listdir("/proc/self/fd")) == before


async def test_holes_take_no_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = 1 << 40
    monkeypatch.setattr("tubelet.service.ingest.anonymous_file._DIRECT_BYTES", 10)
    file = AnonymousFile(UploadConfig(directory=tmp_path))
    await file.write(far, [b"12", b"345"])
    await file.write(0, [b"67890"])
    await file.write(far + 5, [b"abc"])
    assert (os.pread(file.fd, 8, far), os.pread(file.fd, 5, 0)) == (b"12345abc", b"67890")
    assert os.fstat(file.fd).st_blocks * 512 < 1 << 20
    file.close()
