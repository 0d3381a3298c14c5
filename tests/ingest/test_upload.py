"""Uploads become one anonymous file."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.service.config.config import UploadConfig
from tubelet.service.errors import EmptyUpload, StorageFull, UploadTooLarge
from tubelet.service.ingest.upload import receive

_DIRECT_BYTES = "tubelet.service.ingest.anonymous_file._DIRECT_BYTES"


@pytest.fixture
def writes_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the event loop write no byte itself."""
    monkeypatch.setattr(_DIRECT_BYTES, 0)


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def content(fd: int) -> bytes:
    return os.pread(fd, 1 << 20, 0)


@contextmanager
def no_larger_than(file_bytes: int) -> Iterator[None]:
    """Limit the size of files of this process, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@given(chunks=st.lists(st.binary(max_size=50), min_size=1), direct_bytes=st.integers(0, 200))
async def test_any_chunking_gives_the_same_bytes(chunks: list[bytes], direct_bytes: int) -> None:
    whole = b"".join(chunks)
    if not whole:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_DIRECT_BYTES, direct_bytes)
        async with receive(stream(*chunks), UploadConfig()) as file:
            assert await file.whole() == len(whole)
            assert content(file.fd) == whole
            assert file.size_bytes == len(whole)


async def test_bytes_can_be_read_while_others_are_arriving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_DIRECT_BYTES, 6)
    chunks: asyncio.Queue[bytes] = asyncio.Queue()

    async def sent() -> AsyncIterator[bytes]:
        while chunk := await chunks.get():
            yield chunk

    async with receive(sent(), UploadConfig()) as file:
        chunks.put_nowait(b"1234")
        assert await file.wait(0, 100) == (0, 4)
        assert (content(file.fd), file.size_bytes) == (b"1234", None)
        waiting = asyncio.create_task(file.wait(4, 5))
        chunks.put_nowait(b"5678")
        assert await waiting == (0, 8)
        assert content(file.fd) == b"12345678"
        at_the_end = asyncio.create_task(file.wait(8, 9))
        chunks.put_nowait(b"")
        assert await at_the_end == (0, 8)
        assert file.size_bytes == 8


@pytest.mark.usefixtures("writes_on_threads")
async def test_bytes_that_arrive_during_a_disk_write_are_written(tmp_path: Path) -> None:
    end = asyncio.Event()

    async def sent() -> AsyncIterator[bytes]:
        for number in range(1000):
            yield bytes([number % 256]) * 4096
        await end.wait()

    async with receive(sent(), UploadConfig(directory=tmp_path)) as file:
        last = 1000 * 4096 - 1
        assert await file.wait(last, last + 1) == (0, last + 1)
        assert os.pread(file.fd, 2, last - 4096) == bytes([998 % 256, 999 % 256])
        end.set()
        assert await file.whole() == last + 1


@pytest.mark.parametrize("direct_bytes", [0, 8 << 20])
@pytest.mark.parametrize("size", [100, 10_000, 2_000_000])
async def test_full_disk_ends_the_upload(
    tmp_path: Path, size: int, direct_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_DIRECT_BYTES, direct_bytes)
    config = UploadConfig(directory=tmp_path)
    with no_larger_than(1_000_000):
        async with receive(stream(*[bytes(size)] * (3_000_000 // size)), config) as file:
            with pytest.raises(StorageFull, match="no room"):
                await file.whole()
            with pytest.raises(StorageFull, match="no room"):
                await file.wait(2_000_000, 2_000_001)


@pytest.mark.usefixtures("writes_on_threads")
async def test_full_disk_is_reported_without_a_further_chunk(tmp_path: Path) -> None:
    async def sent() -> AsyncIterator[bytes]:
        yield bytes(2_000_000)
        await asyncio.Event().wait()  # a live stream that pauses

    with no_larger_than(1_000_000):
        async with receive(sent(), UploadConfig(directory=tmp_path)) as file:
            with pytest.raises(StorageFull, match="no room"):
                await asyncio.wait_for(file.wait(1_500_000, 1_500_001), 60)
            with pytest.raises(StorageFull, match="no room"):
                await asyncio.wait_for(file.whole(), 60)


@pytest.mark.usefixtures("writes_on_threads")
async def test_second_cancellation_still_closes_the_file(tmp_path: Path) -> None:
    async def sent() -> AsyncIterator[bytes]:
        yield bytes(8_000_000)
        await asyncio.Event().wait()

    async def upload() -> None:
        async with receive(sent(), UploadConfig(directory=tmp_path)) as file:
            await file.whole()

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        task = asyncio.create_task(upload())
        await asyncio.sleep(0.003)  # the disk writes
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_error_of_the_chunks_is_raised_to_readers() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"1234"
        raise ConnectionError("gone")

    async with receive(broken(), UploadConfig()) as file:
        with pytest.raises(ConnectionError):
            await file.wait(10, 11)
        with pytest.raises(ConnectionError):
            await file.whole()


async def test_upload_is_a_file_without_a_name_in_its_directory(tmp_path: Path) -> None:
    async with receive(stream(b"12345", b"67890", b"x"), UploadConfig(directory=tmp_path)) as file:
        await file.whole()
        assert str(tmp_path) in os.readlink(f"/proc/self/fd/{file.fd}")
        assert list(tmp_path.iterdir()) == []
        assert content(file.fd) == b"1234567890x"


async def test_size_limit_is_checked_while_reading() -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield bytes(10)

    with pytest.raises(UploadTooLarge, match="limit of 25 bytes") as caught:
        async with receive(endless(), UploadConfig(max_bytes=25)) as file:
            await file.whole()
    assert asked == 3
    assert caught.value.metadata == {"limit": "25", "value": ">=30"}


async def test_upload_without_bytes_is_an_error() -> None:
    with pytest.raises(EmptyUpload):
        async with receive(stream(b"", b""), UploadConfig()) as file:
            await file.whole()


@pytest.mark.usefixtures("writes_on_threads")
async def test_descriptors_do_not_leak() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(UploadTooLarge):
            async with receive(stream(b"12345", b"6"), UploadConfig(max_bytes=5)) as file:
                await file.whole()
    assert len(os.listdir("/proc/self/fd")) == before
