"""Opens the files of URIs that the configuration allows."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager

from tubelet.models.errors import MissingExtra
from tubelet.service.config.config import FetchConfig
from tubelet.service.errors import UriNotAllowed
from tubelet.service.fair_queue import FairQueue, Flow
from tubelet.service.ingest.local_file import LocalFiles, LocalVideo
from tubelet.service.ingest.readers import Ranged, Streamed
from tubelet.service.types.uri import Prefix, Scheme, Uri, is_covered, parse_prefix

Opened = LocalVideo | Ranged | Streamed
Open = Callable[[Uri], AbstractAsyncContextManager[Opened]]


class FairSlots:
    """The permissions to do something at a time; identities that wait for one take turns."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    @asynccontextmanager
    async def hold(self, identity: str) -> AsyncIterator[None]:
        """Wait for a slot, and hold it until the context ends."""
        flow = Flow[asyncio.Future[None]](
            identity=identity
        )  # kept, so that the queue knows whose turn it was
        await self._acquire(flow)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, flow: Flow[asyncio.Future[None]]) -> None:
        """Wait until a slot is given to ``flow``."""
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put(flow, given)
        self._give_out()
        try:
            await given
        except asyncio.CancelledError:
            if given.cancelled():
                self._waiting.drop(flow)
            else:
                self._release()
            raise

    def _release(self) -> None:
        """Take a slot back, and give it out again."""
        self._free += 1
        self._give_out()

    def _give_out(self) -> None:
        """Give free slots to those who wait."""
        while self._free and len(self._waiting):
            given = self._waiting.take()
            if not given.cancelled():
                self._free -= 1
                given.set_result(None)


class Fetcher:
    """Opens URIs that ``config.allow`` covers; ``async with`` keeps connections open."""

    def __init__(self, config: FetchConfig) -> None:
        self._config = config
        self._prefixes = tuple(parse_prefix(prefix) for prefix in config.allow)
        self._slots = FairSlots(config.max_concurrent_videos)
        self._openers: dict[Scheme, Open] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Fetcher":
        """Open the clients of all schemes that are allowed.

        Raises:
            MissingExtra: a scheme needs a library that is not installed.
        """
        async with AsyncExitStack() as stack:
            self._openers = await _openers(self._config, self._prefixes, stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def check(self, uri: Uri) -> None:
        """Check that ``uri`` may be fetched.

        Raises:
            UriNotAllowed: no prefix in ``fetch.allow`` covers it.
        """
        if not self._prefixes:
            raise UriNotAllowed("this server does not fetch URIs: its fetch.allow is empty", field="uri")
        if not is_covered(uri, self._prefixes):
            raise UriNotAllowed(
                "this server may not fetch this URI: no prefix in its fetch.allow covers it", field="uri"
            )

    @asynccontextmanager
    async def open(self, uri: Uri, identity: str = "") -> AsyncIterator[Opened]:
        """Open ``uri`` for ``identity``, once fewer than ``config.max_concurrent_videos`` are open.

        Raises:
            UriNotAllowed, UriNotFound, FetchFailed, EmptyUpload.
        """
        self.check(uri)
        async with self._slots.hold(identity), self._openers[uri.scheme](uri) as opened:
            yield opened


async def _openers(
    config: FetchConfig, prefixes: tuple[Prefix, ...], stack: AsyncExitStack
) -> dict[Scheme, Open]:
    """Return a function for each allowed scheme that opens its URIs; import only the libraries of these."""
    schemes = {prefix.uri.scheme for prefix in prefixes}
    openers: dict[Scheme, Open] = {}
    if "file" in schemes:
        openers["file"] = LocalFiles(prefixes).open
    if schemes & {"http", "https"}:
        with _extra("http"):
            from tubelet.service.ingest.http import WebServers
        servers = await stack.enter_async_context(WebServers(config, prefixes))
        openers["http"] = openers["https"] = servers.open
    if "s3" in schemes:
        with _extra("s3"):
            from tubelet.service.ingest.s3 import s3_objects
        openers["s3"] = await stack.enter_async_context(s3_objects(config))
    if "gs" in schemes:
        with _extra("gs"):
            from tubelet.service.ingest.gcs import gs_objects
        openers["gs"] = await stack.enter_async_context(gs_objects(config))
    return openers


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Raise MissingExtra if a library of the extra ``name`` cannot be imported."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"fetch.allow names {name} URIs, which need a library: pip install 'tubelet[{name}]'"
        ) from error
