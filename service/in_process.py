"""Classification and explanation in the caller's process; the first call starts all that calls share."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import replace
from typing import Any

from tubelet.service.config.config import Config, load_config
from tubelet.service.server.local import LocalPipeline, parse_uri_option
from tubelet.service.types.embeddings import Embeddings, join
from tubelet.service.types.explanation import (
    ExplainedVideo,
    ExplainEvent,
    ExplainMethod,
    ExplainOptions,
    SegmentMap,
    to_labels,
)
from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification, Event
from tubelet.service.types.uri import Uri
from tubelet.service.wire.upload import Video, read_video

_STOP_S = 30.0  # limit for stopping workers and engine at exit

Work = Callable[[AsyncIterator[bytes] | Uri], Coroutine[None, None, Classification]]
"""Answers for the chunks of a file, or the video at a URI."""


def classify(video: Video, model: str = "", **options: Any) -> Classification:
    """Classify ``video`` in this process, without a server.

    ``video`` is a path, the bytes of a file, a file open for reading, or a URI that ``fetch.allow`` covers.
    ``model`` is NAME or NAME:VERSION of this installation; empty: the default. ``options`` are the other
    fields of ``Options``. The configuration comes from the environment (``TUBELET_ENGINE__DEVICE``, say).

    The first call loads the model; later calls reuse it. The call blocks. It may be made from any thread,
    also while an event loop runs in it, as in a notebook.

    Raises:
        TubeletError: the video cannot be classified; ``reason`` is that of a server.
        OSError: the file cannot be read.
        RuntimeError: the process was forked after a call of its parent.
    """
    asked = Options(model=model, **options)
    parts: list[Embeddings] = []

    async def keep(event: Event) -> None:
        """Keep the embeddings among the events."""
        if isinstance(event, Embeddings):
            parts.append(event)

    running = _running()
    answer = running.call(video, lambda upload: running.pipeline.classify(upload, asked, keep))
    return replace(answer, embeddings=join(parts))


def explain(
    video: Video,
    model: str = "",
    *,
    method: ExplainMethod = "relevance",
    labels: Iterable[str] = (),
    best: int = 1,
    against: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    **options: Any,
) -> ExplainedVideo:
    """Show what a model looked at in ``video``: classify it in this process, and explain each segment.

    ``video``, ``model`` and ``options`` are those of ``classify``; they decide which segments there are. All
    others are the fields of ``ExplainOptions``, which describes them: without ``labels``, the ``best`` ones
    of each segment are explained. The first call with a model loads a second copy of it, in float32.

    Raises:
        TubeletError: the video cannot be explained; ``reason`` is that of a server.
        TypeError: ``labels`` are not strings, or a number is no whole one.
        OSError: the file cannot be read.
        RuntimeError: the process was forked after a call of its parent.
    """
    asked = ExplainOptions(method, to_labels(labels), best, against, layer, head)
    classified = Options(model=model, **options)
    maps: list[SegmentMap] = []

    async def keep(event: ExplainEvent) -> None:
        """Keep the maps among the events."""
        if isinstance(event, SegmentMap):
            maps.append(event)

    running = _running()
    answer = running.call(video, lambda upload: running.pipeline.explain(upload, classified, asked, keep))
    return ExplainedVideo(answer, tuple(maps))


class _InProcess:
    """A pipeline in an event loop on a thread of its own."""

    def __init__(self, config: Config) -> None:
        self.pid = os.getpid()
        self.pipeline = LocalPipeline(config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tubelet", daemon=True)
        self._calls: set[asyncio.Task[Classification]] = set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Cancel the calls, stop workers and engine, and wait; a forked process has none."""
        if self.pid != os.getpid():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)

    def call(self, video: Video, work: Work) -> Classification:
        """Give ``video`` to ``work`` on the thread, and wait; Ctrl-C cancels it."""
        uri, chunks = read_video(video)
        answer = asyncio.run_coroutine_threadsafe(self._call(uri, chunks, work), self._loop)
        try:
            return answer.result()
        except BaseException:
            answer.cancel()
            raise

    async def _close(self) -> None:
        """Cancel the calls, which use the pipeline, then close it."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self.pipeline.__aexit__()

    async def _call(self, uri: str, chunks: Iterator[bytes], work: Work) -> Classification:
        """Run ``work`` in a task that ``stop`` can cancel, whether or not the caller still waits."""
        call = asyncio.create_task(work(parse_uri_option(uri) if uri else _async(chunks)))
        self._calls.add(call)
        try:
            return await call
        finally:
            call.cancel()
            self._calls.discard(call)


_lock = threading.Lock()
_instance: _InProcess | None = None


def _running() -> _InProcess:
    """Return the process's only ``_InProcess``; the first call starts it.

    Raises:
        RuntimeError: the process was forked after a call of its parent.
    """
    global _instance
    with _lock:
        if _instance is None:
            _instance = _InProcess(load_config())
            # This runs before Python joins the threads of executors, some of which wait for our workers.
            # atexit would run after that.
            threading._register_atexit(_instance.stop)  # pyright: ignore[reportAttributeAccessIssue]
            _instance.start()
        if _instance.pid != os.getpid():
            raise RuntimeError(
                "this process was forked from one that had called tubelet.classify, and has none of its "
                "threads; start processes with 'spawn', or call tubelet.classify only in the child processes"
            )
        return _instance


async def _async(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the chunks; each is read on a thread, since it may have to be waited for."""
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk
