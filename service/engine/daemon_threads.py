"""Work in daemon threads: what is given up need not be waited for, unlike that of ``asyncio.to_thread``."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_running: set[threading.Thread] = set()


async def run_in_daemon_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a daemon thread, for which neither the end of the loop nor that of Python waits."""
    found: Future[T] = Future()
    found.set_running_or_notify_cancel()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)
        finally:
            _running.discard(thread)

    thread = threading.Thread(target=run, name="own", daemon=True)
    _running.add(thread)
    thread.start()
    return await asyncio.wrap_future(found)


def has_running_threads() -> bool:
    """Whether a thread still works, be it for nobody any more."""
    return bool(_running)
