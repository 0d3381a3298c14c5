"""A command in a real pseudo-terminal, and its screen as pyte renders it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import IO

import pyte

from tests.support.cli_process import TUBELET

CTRL_C = "\x03"
_HISTORY = 20_000  # lines that scrolled off the screen
_TIMEOUT_S = 100.0  # until the expected output comes


class Terminal:
    """A running command and its screen."""

    def __init__(self, process: "subprocess.Popen[bytes]", fd: int, columns: int, rows: int) -> None:
        self.process = process
        self.screen = pyte.HistoryScreen(columns, rows, history=_HISTORY, ratio=1)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        self._fd = fd

    @property
    def lines(self) -> list[str]:
        """The lines of the screen and of what scrolled off it, without empty lines at the end."""
        columns = self.screen.columns
        above = ["".join(row[column].data for column in range(columns)) for row in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self.screen.display]).rstrip().splitlines()

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)

    def type(self, text: str) -> None:
        """Send text as if typed."""
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until the text is on the screen, or has been there."""
        deadline = monotonic() + _TIMEOUT_S
        while text not in self.text:
            assert self._read(deadline), f"the command ended without {text!r}:\n{self.text}"

    def wait(self) -> int:
        """Read to the end, and return the exit status."""
        deadline = monotonic() + _TIMEOUT_S
        while self._read(deadline):
            pass
        return self.process.wait(timeout=_TIMEOUT_S)

    def _read(self, deadline: float) -> bool:
        """Read some output; return False at the end."""
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - monotonic()))
        assert ready, f"no more output came:\n{self.text}"
        try:
            content = os.read(self._fd, 1 << 16)
        except OSError:  # EIO: no process has the terminal open any more
            return False
        self.raw += content
        self._stream.feed(content)
        return bool(content)


@contextmanager
def terminal(
    *arguments: str | bytes,
    columns: int = 80,
    rows: int = 24,
    command: Sequence[str] = (TUBELET,),
    folder: Path | None = None,
    stdout: IO[bytes] | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Terminal]:
    """Run ``tubelet`` in a terminal; ``stdout`` redirects its standard output to a file."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    plain = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [
            "setsid",
            "--ctty",
            *command,
            *arguments,
        ],  # the terminal of its standard input is the one that Ctrl-C is typed in
        stdin=slave,
        stdout=slave if stdout is None else stdout,
        stderr=slave,
        cwd=folder,
        env=plain | {"TERM": "xterm-256color"} | dict(environment),
    )
    os.close(slave)
    try:
        yield Terminal(process, master, columns, rows)
    finally:
        process.kill()
        process.wait()
        os.close(master)
