"""Handling of Ctrl-C: the first cancels a task, the second ends the process at once."""

import os
import signal
from asyncio import CancelledError, current_task, get_running_loop
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130  # as shells report a process that SIGINT killed

_SHOW_CURSOR = b"\x1b[?25h"


class Interruption:
    """Whether Ctrl-C was pressed: ``happened``."""

    def __init__(self) -> None:
        self.happened = False


@contextmanager
def cancel_on_ctrl_c() -> Iterator[Interruption]:
    """Let Ctrl-C cancel the current task; leaving the context swallows that cancellation.

    A second Ctrl-C ends the process without clean-up; the kernel kills its children.
    """
    task, loop = current_task(), get_running_loop()
    assert task is not None
    interruption = Interruption()

    def on_signal(*_: Any) -> None:
        """Cancel the task, or end the process if that was asked for before."""
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
        # After Ctrl-C the handler stays: the clean-up is still to come.
        if not interruption.happened:
            signal.signal(signal.SIGINT, before)


def _end_at_once() -> None:
    """End the process, with the terminal's cursor visible again."""
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)
    os._exit(INTERRUPTED)
