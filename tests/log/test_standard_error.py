"""What libraries and child processes write to standard error is logged in the form of all lines."""

import json
import subprocess
import sys
from typing import Any

PROGRAM = """
import ctypes, os, subprocess, sys
from tubelet.service.log.lines import start_logging
from tubelet.service.log.standard_error import log_standard_error
with log_standard_error("json", "info") as stream:
    start_logging("json", "info", stream)
    {body}
print("after", file=sys.stderr)
"""


def run(body: str) -> tuple[int, list[str]]:
    """Run ``body`` with a log; return the exit status and the lines of standard error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], stderr=subprocess.PIPE, text=True, timeout=60
    )
    return done.returncode, done.stderr.splitlines()


def records(lines: list[str]) -> list[tuple[Any, ...]]:
    return [(line["logger"], line["level"], line["message"]) for line in map(json.loads, lines)]


def test_lines_of_grpc_have_their_level() -> None:
    status, lines = run(r'os.write(2, b"E0000 00:00:1764445000.123456    1234 chttp2.cc:12] went\nhello\n")')
    assert status == 0
    assert lines.pop() == "after"
    assert records(lines) == [("stderr", "ERROR", "chttp2.cc:12] went"), ("stderr", "WARNING", "hello")]


def test_lines_of_child_processes_are_logged_to_the_last() -> None:
    status, lines = run('subprocess.run("for i in `seq 500`; do echo $i >&2; done", shell=True)')
    assert status == 0
    assert lines.pop() == "after"
    assert records(lines) == [("stderr", "WARNING", str(number)) for number in range(1, 501)]


def test_hostile_output_cannot_break_a_line() -> None:
    _, lines = run(r'os.write(2, b"\x1b[2J\r\xff\x00\xe2\x80\xa8" + 9000 * b"x" + b"\n")')
    assert all(line.isprintable() for line in lines)
    said = "".join(message for _, _, message in records(lines[:-1]))
    assert said == "\x1b[2J\r\ufffd\x00\u2028" + 9000 * "x"


def test_a_crash_leaves_its_last_words_and_the_stacks() -> None:
    status, lines = run(
        r"libc = ctypes.CDLL(None); libc.write(2, b'F0000 00:00:1.1 12 x.cc:1] bye\n', 31); libc.abort()"
    )
    assert status == -6
    said = records(lines)
    assert said[0] == ("stderr", "CRITICAL", "x.cc:1] bye")
    assert ("stderr", "WARNING", "Fatal Python error: Aborted") in said
