"""Who dies with whom, and under which name: what processes arrange with the kernel. Linux only."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends; prctl(2)."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before the line above
        raise SystemExit("the parent is gone")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def call_itself(name: str) -> None:
    """What ps and top show for this process: 15 characters at most."""
    prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def prctl(option: int, value: int | ctypes.c_char_p) -> None:
    """
    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    argument = ctypes.c_ulong(value) if isinstance(value, int) else value
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
