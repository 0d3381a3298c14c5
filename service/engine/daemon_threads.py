"""Work in daemon threads: what is given up need not be waited for, unlike that of ``asyncio.to_thread``."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_at_work: set[threading.Thread] = set()


async def in_own_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a daemon thread, for which neither the end of the loop nor that of Python waits."""
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
    """Whether a thread still works, be it for nobody any more."""
    return bool(_at_work)
