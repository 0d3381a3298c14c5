"""Work in threads of their own, which nobody has to wait for once it is given up."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_at_work: set[threading.Thread] = set()


async def in_own_thread(work: Callable[[], T]) -> T:
    """As ``asyncio.to_thread``, whose threads the end of the loop waits for, and that of Python."""
    found: Future[T] = Future()
    found.set_running_or_notify_cancel()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)
        finally:
            _at_work.discard(thread)

    thread = threading.Thread(target=run, name="own", daemon=True)
    _at_work.add(thread)
    thread.start()
    return await asyncio.wrap_future(found)


def is_any_at_work() -> bool:
    """Is work under way that was given up, or is not done yet?"""
    return bool(_at_work)
