"""The ``tubelet`` command in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

TUBELET = str(Path(sys.executable).with_name("tubelet"))


def tubelet(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [TUBELET, *arguments], capture_output=True, text=True, timeout=100, env=os.environ | environment
    )


@contextmanager
def serving(
    *arguments: str, log: int | IO[str] = subprocess.DEVNULL, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start ``tubelet serve``; yield the ready process and its address. It must drain at the end."""
    # A test that runs another command in this process leaves this behind, and then gRPC says nothing.
    inherited = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    with subprocess.Popen(
        [TUBELET, "serve", "--port", "0", "--metrics-port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=inherited | environment,
    ) as process:
        assert process.stdout is not None
        try:
            ready = process.stdout.readline()
            assert ready.startswith("ready: gRPC on port ")
            yield process, f"127.0.0.1:{ready.split('port ')[1].split(',')[0]}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
