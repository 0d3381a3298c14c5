"""Handling of Ctrl-C, and of SIGTERM: the first cancels a task, the second ends the process at once."""

import os
import signal
from asyncio import CancelledError, current_task, get_running_loop
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130  # as shells report a process that SIGINT killed

_SHOW_CURSOR = b"\x1b[?25h"


class Interruption:
    """Whether Ctrl-C was pressed, or another signal came: ``happened``; ``signal`` is the one that came."""

    def __init__(self) -> None:
        self.happened = False
        self.signal = signal.SIGINT

    @property
    def status(self) -> int:
        """The exit status of shells for a process that the signal killed."""
        return 128 + self.signal


@contextmanager
def cancel_on_ctrl_c(*others: signal.Signals) -> Iterator[Interruption]:
    """Let Ctrl-C, or a signal of ``others``, cancel the current task; the context swallows that.

    A second one ends the process without clean-up; the kernel kills its children.
    """
    task, loop = current_task(), get_running_loop()
    assert task is not None
    interruption = Interruption()

    def on_signal(number: int, _: Any) -> None:
        """Cancel the task, or end the process if that was asked for before."""
        if interruption.happened:
            _end_at_once()
        interruption.happened = True
        interruption.signal = signal.Signals(number)
        loop.call_soon_threadsafe(task.cancel)

    before = {each: signal.signal(each, on_signal) for each in (signal.SIGINT, *others)}
    try:
        yield interruption
    except CancelledError:
        if not interruption.happened:
            raise
        task.uncancel()
    finally:
        # After Ctrl-C the handler stays: the clean-up is still to come.
        if not interruption.happened:
            for each, handler in before.items():
                signal.signal(each, handler)


def _end_at_once() -> None:
    """End the process, with the terminal's cursor visible again."""
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)
    os._exit(INTERRUPTED)
