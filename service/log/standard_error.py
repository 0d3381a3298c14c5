"""What libraries and child processes write to standard error themselves, as lines of the log.

gRPC's core, FFmpeg in the decode workers and C++ libraries know nothing of ``logging``. A process of its own
reads what they write: it outlives a server that crashes, whose last words would be lost otherwise.
"""

import faulthandler
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TextIO, cast

from tubelet.service.log.lines import Format, Level, start_logging

_MAX_LINE_BYTES = 4000  # a longer line becomes several records
_LAST_LINES_S = 1.0  # limit for the last lines at the end
_ABSEIL = re.compile(r"([IWEF])\d{4} [\d:.]+ +\d+ (.*)", re.DOTALL)  # level, time, thread, source and text
_LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
# What gRPC says of the TLS of a client, which it calls an error where the client names another host.
_HANDSHAKE = re.compile(
    r"ssl_transport_security\.cc:\d+\] ((?:Handshake failed|No match found for).*)", re.DOTALL
)

logger = logging.getLogger("stderr")


@contextmanager
def log_standard_error(form: Format, level: Level) -> Iterator[TextIO]:
    """Log each line that is written to standard error; yield the stream for the lines of the log itself.

    If the process crashes, Python writes the stacks of its threads, too.
    """
    ours = os.fdopen(os.dup(2), "w", errors="backslashreplace")
    reader = subprocess.Popen(
        [sys.executable, "-P", "-s", "-m", __name__, form, level],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        start_new_session=True,  # Ctrl-C must reach the server alone
    )
    assert reader.stdin is not None
    os.dup2(reader.stdin.fileno(), 2)
    reader.stdin.close()
    faulthandler.enable()
    try:
        yield ours
    finally:
        faulthandler.disable()
        sys.stderr.flush()
        os.dup2(ours.fileno(), 2)  # closes our end of the pipe; those of child processes end with them
        with suppress(subprocess.TimeoutExpired):
            reader.wait(_LAST_LINES_S)


def main(form: str, level: str) -> None:
    """Log each line of standard input until all that write to it have ended."""
    start_logging(cast(Format, form), cast(Level, level))
    for line in iter(partial(sys.stdin.buffer.readline, _MAX_LINE_BYTES), b""):
        _log(line.decode(errors="replace").rstrip("\r\n"))


def _log(line: str) -> None:
    """Log ``line`` at the level that it names in Abseil's form, which gRPC's lines have, or as a warning.

    What any client can cause by its TLS handshake is no error: it is information, whatever gRPC calls it.
    """
    found = _ABSEIL.fullmatch(line)
    if found and (handshake := _HANDSHAKE.fullmatch(found[2])):
        logger.info("TLS handshake of a client: %s", handshake[1])
    elif found:
        logger.log(_LEVELS[found[1]], "%s", found[2])
    elif line:
        logger.warning("%s", line)


if __name__ == "__main__":
    main(*sys.argv[1:])
