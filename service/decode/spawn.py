"""Starting a worker process: what it is told, and the little it inherits."""

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process

from service.config import DecodeConfig

_ALIVE_PER_SILENCE = 4  # how often a worker shows life in the time after which it would count as hung


async def spawn(config: DecodeConfig) -> tuple[Process, socket.socket, socket.socket]:
    """The process, and our ends of its sockets for messages and for descriptors, both non-blocking."""
    messages, their_messages = socket.socketpair()
    files, their_files = socket.socketpair()
    messages.setblocking(False)
    files.setblocking(False)
    with their_messages, their_files:
        theirs = (their_messages.fileno(), their_files.fileno())
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-s", "-m", "service.decode.worker", _settings(config, *theirs)),
                stdin=DEVNULL,
                stdout=DEVNULL,
                env=_environment(),
                pass_fds=theirs,
            )
        except BaseException:
            messages.close()
            files.close()
            raise
    return process, messages, files


def _settings(config: DecodeConfig, messages_fd: int, files_fd: int) -> str:
    return json.dumps(
        {
            "parent_pid": os.getpid(),
            "messages_fd": messages_fd,
            "files_fd": files_fd,
            "memory_bytes": config.memory_bytes,
            "alive_every_s": config.silence_s / _ALIVE_PER_SILENCE,
            "limits": config.model_dump(
                include={"max_pixels", "max_frames", "max_duration_s", "max_cpu_s", "threads"}
            ),
        }
    )


def _environment() -> dict[str, str]:
    """Nothing of ours but where modules are; threads of numpy and their heaps would cost address space."""
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }
