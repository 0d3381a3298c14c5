"""Resolution of the host names of URIs."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tubelet.service.config.config import FetchConfig
from tubelet.service.errors import FetchFailed
from tubelet.service.ingest.fetcher import Fetcher
from tubelet.service.types.uri import parse_uri


async def _open(url: str) -> None:
    """Open ``url``, which must be allowed, and close it."""
    async with Fetcher(FetchConfig(allow=(url,))) as fetcher, fetcher.open(parse_uri(url)):
        pass


async def test_slow_name_resolution_leaves_threads_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, asked, answer = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def look_up(*_: Any, **__: Any) -> Any:
        loop.call_soon_threadsafe(asked.set)
        answer.wait(60)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    loop.set_default_executor(ThreadPoolExecutor(1))
    opening = asyncio.create_task(_open("http://slow.example/a.mp4"))
    try:
        await asked.wait()
        async with asyncio.timeout(50):
            await asyncio.to_thread(lambda: None)
    finally:
        answer.set()
    with pytest.raises(FetchFailed):
        await opening
