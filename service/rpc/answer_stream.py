"""Writes the events of a streamed answer, to clients that read them."""

import asyncio
from typing import Any

from tubelet.service.errors import AnswerIdleTimeout
from tubelet.service.rpc.request_stream import Context


async def write(context: Context, message: Any, idle_timeout_s: float) -> None:
    """Send ``message`` to the client; wait while its unread bytes fill the window of the stream.

    Raises:
        AnswerIdleTimeout: after ``idle_timeout_s``, they still leave no room.
    """
    try:
        async with asyncio.timeout(idle_timeout_s):
            await context.write(message)
    except TimeoutError:
        raise AnswerIdleTimeout(
            f"the client did not read on for {idle_timeout_s:g} s, which is the limit",
            limit=f"{idle_timeout_s:g}",
        ) from None
