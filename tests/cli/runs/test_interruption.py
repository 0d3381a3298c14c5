"""Ctrl-C during a command."""

import signal
import subprocess
import sys


def test_second_ctrl_c_ends_a_command_at_once() -> None:
    script = """
import asyncio
from tubelet.service.cli.runs.interruption import cancel_on_ctrl_c
async def main():
    with cancel_on_ctrl_c():
        print("begun", flush=True)
        try:
            await asyncio.sleep(1000)
        finally:
            print("cleaning up", flush=True)
            await asyncio.sleep(1000)
asyncio.run(main())
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cleaning up\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=100) == 130
        assert process.stderr.read() == ""
