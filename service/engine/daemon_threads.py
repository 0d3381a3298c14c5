"""Daemon threads: unlike with ``asyncio.to_thread``, no shutdown waits for work that was given up."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_running: set[threading.Thread] = set()


async def run_in_daemon_thread(work: Callable[[], T]) -> T:
    """Run ``work`` on a daemon thread and return its result. No shutdown of loop or Python waits for it."""
    found: Future[T] = Future()
    found.set_running_or_notify_cancel()

    def run() -> None:
        """Run ``work`` and set the result of ``found``, or its exception."""
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
    """Return whether a thread of ``run_in_daemon_thread`` is still running, even if nothing awaits it."""
    return bool(_running)
