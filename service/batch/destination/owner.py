"""The process that writes a shard: who it is, and whether it still runs."""

import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil


@dataclass(frozen=True, slots=True)
class Owner:
    """A writer of a run of a batch, and the process that it is; ``machine`` also tells containers apart.

    ``run`` is the name of the run, or of one of several writers in it: RUN.WRITER.
    """

    run: str
    host: str
    pid: int
    machine: str
    started: float

    @classmethod
    def this_process(cls, writer: str | None = None) -> "Owner":
        """Return the owner that stands for a new run of this process, or for the ``writer`` of one."""
        return cls(
            writer or uuid4().hex[:12],
            socket.gethostname(),
            os.getpid(),
            _machine(),
            psutil.Process().create_time(),
        )

    @classmethod
    def of_json(cls, content: dict[str, Any]) -> "Owner":
        """Return the owner that ``json`` was made of.

        Raises:
            LookupError, TypeError: it was made of something else.
        """
        return cls(*(content[name] for name in ("run", "host", "pid", "machine", "started")))

    @property
    def json(self) -> dict[str, Any]:
        """The owner as JSON."""
        return asdict(self)

    @property
    def group(self) -> str:
        """The name of the run, which all its writers share."""
        return self.run.partition(".")[0]

    @property
    def is_gone(self) -> bool:
        """Whether the process is known to have ended: it was one of this machine, or container."""
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            return process.create_time() != self.started or process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _machine() -> str:
    """Return what tells this machine, since its start, and this container from all others."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
