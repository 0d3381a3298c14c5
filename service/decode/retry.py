"""Starting processes on a machine that cannot for the moment."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from service.errors import DecoderDied

_log = logging.getLogger(__name__)
_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 10.0


async def until_started(start: Callable[[], Awaitable[None]], what: str) -> None:
    """Call ``start`` until it raises neither DecoderDied nor OSError, more and more rarely."""
    wait_s = _FIRST_RETRY_S
    while True:
        try:
            return await start()
        except (DecoderDied, OSError) as error:
            _log.error("%s does not start, next attempt in %g s: %r", what, wait_s, error)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _LAST_RETRY_S)
