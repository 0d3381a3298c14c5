"""What libraries and child processes write to standard error themselves, as records of the log.

gRPC's core, FFmpeg in the decode workers and C++ libraries know nothing of ``logging``.
"""

import faulthandler
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_MAX_LINE_BYTES = 4000  # a longer line becomes several records
_JOIN_S = 1.0  # limit for the last lines at the end
_ABSEIL = re.compile(r"([IWEF])\d{4} [\d:.]+ +\d+ (.*)", re.DOTALL)  # level, time, thread, source and text
_LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}

logger = logging.getLogger("stderr")


@contextmanager
def log_standard_error() -> Iterator[TextIO]:
    """Log each line that is written to standard error; yield the stream for the lines of the log itself.

    If the process crashes, Python writes the stacks of its threads to that stream.
    """
    ours = os.fdopen(os.dup(2), "w", errors="backslashreplace")
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    thread = threading.Thread(target=_log_lines, args=(reading,), name="stderr", daemon=True)
    thread.start()
    faulthandler.enable(ours)
    try:
        yield ours
    finally:
        faulthandler.disable()
        sys.stderr.flush()
        os.dup2(ours.fileno(), 2)  # closes our end of the pipe; those of child processes end with them
        thread.join(_JOIN_S)


def _log_lines(fd: int) -> None:
    """Log the lines from the pipe ``fd`` until its last writer is gone."""
    with open(fd, "rb") as pipe:
        while line := pipe.readline(_MAX_LINE_BYTES):
            _log(line.decode(errors="replace").rstrip("\r\n"))


def _log(line: str) -> None:
    """Log ``line`` at the level that it names in Abseil's form, which gRPC's lines have, or as a warning."""
    if found := _ABSEIL.fullmatch(line):
        logger.log(_LEVELS[found[1]], "%s", found[2])
    elif line:
        logger.warning("%s", line)
