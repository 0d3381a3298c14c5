"""Wrappers of prctl(2), for Linux: end with the parent, adopt orphaned descendants, name the process."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def kill_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent, the process ``parent_pid``, ends for any reason."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # the parent ended before the line above
        raise SystemExit("the parent process has ended")


def become_subreaper() -> None:
    """Become the parent of every descendant whose own parent ends."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_process_name(name: str) -> None:
    """Set the ``name`` that ps and top show for this process; the kernel keeps 15 characters."""
    prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def prctl(option: int, value: int | ctypes.c_char_p) -> None:
    """Call prctl(2) with ``option`` and ``value``.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    argument = ctypes.c_ulong(value) if isinstance(value, int) else value
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
