"""Ctrl-C: the first cancels a task, the second ends the process at once."""

import os
import signal
from asyncio import CancelledError, current_task, get_running_loop
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130  # the exit status of what SIGINT ends, as shells have it

_SHOW_CURSOR = b"\x1b[?25h"


class Interruption:
    """``happened`` once Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.happened = False


@contextmanager
def cancelled_by_ctrl_c() -> Iterator[Interruption]:
    """Have Ctrl-C cancel the current task; leaving the context swallows that cancellation.

    A second Ctrl-C ends the process without any clean-up: its children are killed by the kernel.
    """
    task, loop = current_task(), get_running_loop()
    assert task is not None
    interruption = Interruption()

    def on_signal(*_: Any) -> None:
        if interruption.happened:
            _end_at_once()
        interruption.happened = True
        loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield interruption
    except CancelledError:
        if not interruption.happened:
            raise
        task.uncancel()
    finally:
        # Once it happened the handler stays, for the clean-up that is still to come.
        if not interruption.happened:
            signal.signal(signal.SIGINT, before)


def _end_at_once() -> None:
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)
    os._exit(INTERRUPTED)
